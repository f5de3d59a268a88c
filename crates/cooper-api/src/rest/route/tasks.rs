//! Stored tasks, with their timers, hooks and credentials.

use super::{Auth, Method, Parameter, ParameterKind, Route, json, json_any, route};

const REPLACE_TASK_QUERY: &[Parameter] = &[
    Parameter { name: "dryRun", kind: ParameterKind::Flag, summary: "Answer what would be, and change nothing" },
    Parameter {
        name: "generation",
        kind: ParameterKind::Number,
        summary: "The generation that the task must have; 0 where there must be none",
    },
    Parameter {
        name: "created",
        kind: ParameterKind::Text,
        summary: "When the task must have been made, as its creationDate says it",
    },
];

const LIST_TASKS_QUERY: &[Parameter] = &[
    Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 100 if absent" },
    Parameter { name: "after", kind: ParameterKind::Text, summary: "Only tasks after the one of this name" },
];

const ROTATE_HOOK_QUERY: &[Parameter] = &[Parameter {
    name: "revokeOld",
    kind: ParameterKind::Flag,
    summary: "Take no secret before this one any more, from now on",
}];

const LIST_TIMERS_QUERY: &[Parameter] = &[Parameter {
    name: "count",
    kind: ParameterKind::Number,
    summary: "How many next instants of each timer: 1 if absent, at most 100",
}];

const LIST_NOTIFICATIONS_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 20 if absent" }];

pub(super) const ROUTES: &[Route] = &[
    Route {
        summary: "List the stored tasks, without the contents of encoded files",
        query: LIST_TASKS_QUERY,
        response: json("TaskList"),
        ..route(Method::Get, "/api/v1/tasks", Auth::Read, "listTasks", 200)
    },
    Route {
        summary: "Make a task",
        request: json("TaskSettings"),
        response: json("TaskView"),
        ..route(Method::Post, "/api/v1/tasks", Auth::Run, "createTask", 201)
    },
    Route {
        summary: "Show a task",
        response: json("TaskView"),
        ..route(Method::Get, "/api/v1/tasks/{id}", Auth::Read, "getTask", 200)
    },
    Route {
        summary: "Make a task, or replace it as a whole",
        query: REPLACE_TASK_QUERY,
        request: json("TaskSettings"),
        response: json("TaskView"),
        ..route(Method::Put, "/api/v1/tasks/{id}", Auth::Run, "replaceTask", 200)
    },
    Route {
        summary: "Change what is said of a task and nothing else",
        request: json("TaskSettings"),
        response: json("TaskView"),
        ..route(Method::Patch, "/api/v1/tasks/{id}", Auth::Run, "updateTask", 200)
    },
    Route {
        summary: "Delete a task; its runs stay",
        ..route(Method::Delete, "/api/v1/tasks/{id}", Auth::Run, "deleteTask", 204)
    },
    Route {
        summary: "Start a run of a task; a repeat with the same Idempotency-Key returns the same run",
        request: json("TaskRunRequest"),
        response: json("Run"),
        ..route(Method::Post, "/api/v1/tasks/{id}/runs", Auth::Run, "runTask", 201)
    },
    Route {
        summary: "List a task's timers, with their next instants and what became of the last ones",
        query: LIST_TIMERS_QUERY,
        response: json("TimerList"),
        ..route(Method::Get, "/api/v1/tasks/{id}/timers", Auth::Read, "listTimers", 200)
    },
    Route {
        summary: "List what did not start a task lately, and the rules that said no",
        response: json("RefusalList"),
        ..route(Method::Get, "/api/v1/tasks/{id}/refusals", Auth::Read, "listRefusals", 200)
    },
    Route {
        summary: "List what a task tells its endpoint and its forge, the newest first",
        query: LIST_NOTIFICATIONS_QUERY,
        response: json("NotificationList"),
        ..route(Method::Get, "/api/v1/tasks/{id}/notifications", Auth::Read, "listNotifications", 200)
    },
    Route {
        summary: "Tell a task's endpoint something once more, after all that waits; or, by a run's id, its forge how the run stands",
        response: json("NotificationInfo"),
        ..route(
            Method::Post,
            "/api/v1/tasks/{id}/notifications/{event}/redeliver",
            Auth::Run,
            "redeliverNotification",
            200,
        )
    },
    Route {
        summary: "Keep a credential of a task for a registry or Git host, in place of its earlier one",
        request: json("SetTaskCredential"),
        response: json("TaskView"),
        ..route(Method::Put, "/api/v1/tasks/{id}/credentials/{host}", Auth::Run, "setTaskCredential", 200)
    },
    Route {
        summary: "Forget a credential of a task",
        ..route(Method::Delete, "/api/v1/tasks/{id}/credentials/{host}", Auth::Run, "deleteTaskCredential", 204)
    },
    Route {
        summary: "List a task's hooks, with the last deliveries and what each led to",
        response: json("HookList"),
        ..route(Method::Get, "/api/v1/tasks/{id}/hooks", Auth::Run, "listHooks", 200)
    },
    Route {
        summary: "Give a hook another secret, shown once; the one before is taken for a day",
        query: ROTATE_HOOK_QUERY,
        response: json("HookView"),
        ..route(Method::Post, "/api/v1/tasks/{id}/hooks/{hook}/secret", Auth::Run, "rotateHook", 200)
    },
    Route {
        summary: "Take what a forge says; who may is told by the signature, which depends on the forge",
        request: json_any(),
        response: json("DeliveryAnswer"),
        ..route(Method::Post, "/hooks/{id}", Auth::Public, "deliver", 202)
    },
    Route {
        summary: "Show what the requests to a task's endpoint are signed with",
        response: json("UpdateTriggerSecret"),
        ..route(Method::Get, "/api/v1/tasks/{id}/update-trigger-secret", Auth::Run, "getUpdateTriggerSecret", 200)
    },
    Route {
        summary: "Sign the requests to a task's endpoint with another secret from now on",
        response: json("UpdateTriggerSecret"),
        ..route(Method::Post, "/api/v1/tasks/{id}/update-trigger-secret", Auth::Run, "renewUpdateTriggerSecret", 200)
    },
];
