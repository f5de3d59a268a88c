//! The table of routes: the server registers from it, the OpenAPI document is made from it, and tests walk it.

use std::fmt;

/// What every route of the API begins with.
pub const API_PREFIX: &str = "/api/v1";

/// One route of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The operation's name in the OpenAPI document, unique.
    pub operation: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The whole path, with parameters as `{id}`.
    pub path: &'static str,
    /// Who may call it.
    pub auth: Auth,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The query's parameters; others are refused.
    pub query: &'static [Parameter],
    /// The body that it takes.
    pub request: Option<Content>,
    /// The status of success.
    pub status: u16,
    /// The body of success.
    pub response: Option<Content>,
}

/// A parameter in a query: always optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: ParameterKind,
    /// What it does, in one line.
    pub summary: &'static str,
}

/// What the values of a query's parameter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A whole number from 0 on.
    Number,
    /// A text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A value of the schema of this name.
    Schema(&'static str),
}

/// A body: its media type, and its schema's name where it is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The media type.
    pub media_type: &'static str,
    /// The name of its schema in the document.
    pub schema: Option<&'static str>,
}

/// An HTTP method that a route uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// Everybody.
    Public,
    /// Everybody with a token that works, whatever its scopes.
    AnyToken,
    /// A token with the scope `read`, `run` or `admin`.
    Read,
    /// A token with the scope `run` or `admin`.
    Run,
    /// A token with the scope `admin`.
    Admin,
}

impl Method {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Auth {
    /// Whether a caller may call the route: `None` is a caller without a token that works.
    pub fn allows(self, scopes: Option<&cooper_types::Scopes>) -> bool {
        match (self, scopes) {
            (Self::Public, _) | (Self::AnyToken, Some(_)) => true,
            (Self::Read, Some(scopes)) => scopes.read(),
            (Self::Run, Some(scopes)) => scopes.run(),
            (Self::Admin, Some(scopes)) => scopes.admin(),
            (_, None) => false,
        }
    }

    /// The scope that is named when a token lacks it; `None` where no scope is asked for.
    pub fn scope(self) -> Option<&'static str> {
        match self {
            Self::Public | Self::AnyToken => None,
            Self::Read => Some("read"),
            Self::Run => Some("run"),
            Self::Admin => Some("admin"),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const fn json(schema: &'static str) -> Option<Content> {
    Some(Content { media_type: "application/json", schema: Some(schema) })
}

/// JSON that has no one form.
const fn json_any() -> Option<Content> {
    Some(Content { media_type: "application/json", schema: None })
}

const fn bytes(media_type: &'static str) -> Option<Content> {
    Some(Content { media_type, schema: None })
}

const fn route(method: Method, path: &'static str, auth: Auth, operation: &'static str, status: u16) -> Route {
    Route { operation, method, path, auth, summary: "", query: &[], request: None, status, response: None }
}

const LIST_RUNS_QUERY: &[Parameter] = &[
    Parameter { name: "status", kind: ParameterKind::Schema("RunStatus"), summary: "Only runs with this status" },
    Parameter { name: "taskName", kind: ParameterKind::Text, summary: "Only runs of this task" },
    Parameter { name: "runType", kind: ParameterKind::Schema("RunType"), summary: "Only runs of this type" },
    Parameter {
        name: "image",
        kind: ParameterKind::Text,
        summary: "Only runs that wrote this image: [REGISTRY/]NAME[:TAG|@DIGEST]",
    },
    Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 15 if absent" },
    Parameter { name: "before", kind: ParameterKind::Text, summary: "Only runs older than the run with this id" },
];

const LOG_QUERY: &[Parameter] =
    &[Parameter { name: "offset", kind: ParameterKind::Number, summary: "Where to begin; 0 is the start" }];

const LOG_EVENTS_QUERY: &[Parameter] = &[
    Parameter { name: "offset", kind: ParameterKind::Number, summary: "The frame to begin at; 0 is the first" },
    Parameter {
        name: "statusOnly",
        kind: ParameterKind::Flag,
        summary: "Tell the run's state and its end, and nothing of its log",
    },
];

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

const LIST_WAVES_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 15 if absent" }];

const IMPACT_QUERY: &[Parameter] = &[Parameter {
    name: "image",
    kind: ParameterKind::Text,
    summary: "The image that would change, as REPOSITORY:TAG or REGISTRY/REPOSITORY:TAG; it must be given",
}];

const DELETE_POOL_QUERY: &[Parameter] = &[Parameter {
    name: "force",
    kind: ParameterKind::Flag,
    summary: "Delete it with its agents, and cancel its runs",
}];

const LIST_WEBHOOK_EVENTS_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 50 if absent" }];

const LIST_NOTIFICATIONS_QUERY: &[Parameter] =
    &[Parameter { name: "top", kind: ParameterKind::Number, summary: "How many at most: 1 to 1000, 20 if absent" }];

const DELETE_SECRET_QUERY: &[Parameter] = &[Parameter {
    name: "version",
    kind: ParameterKind::Number,
    summary: "The one version to forget; all of them if absent",
}];

/// Every route outside the registry and the agents' protocol.
pub const ROUTES: &[Route] = &[
    Route {
        summary: "Ask for a context's id and where to upload it",
        response: json("CreatedContext"),
        ..route(Method::Post, "/api/v1/contexts", Auth::Run, "createContext", 201)
    },
    Route {
        summary: "Upload a context as tar.gz",
        request: bytes("application/gzip"),
        response: json("UploadedContext"),
        ..route(Method::Put, "/api/v1/contexts/{id}", Auth::Run, "uploadContext", 201)
    },
    Route {
        summary: "Start a run; a repeat with the same Idempotency-Key returns the same run",
        request: json("RunRequest"),
        response: json("Run"),
        ..route(Method::Post, "/api/v1/runs", Auth::Run, "createRun", 201)
    },
    Route {
        summary: "List runs, the newest first",
        query: LIST_RUNS_QUERY,
        response: json("RunList"),
        ..route(Method::Get, "/api/v1/runs", Auth::Read, "listRuns", 200)
    },
    Route {
        summary: "Show a run",
        response: json("Run"),
        ..route(Method::Get, "/api/v1/runs/{id}", Auth::Read, "getRun", 200)
    },
    Route {
        summary: "Run a run again; a repeat with the same Idempotency-Key returns the same new run",
        request: json("RerunRequest"),
        response: json("Run"),
        ..route(Method::Post, "/api/v1/runs/{id}/rerun", Auth::Run, "rerunRun", 201)
    },
    Route {
        summary: "Show what a run was made from",
        response: json("Lockfile"),
        ..route(Method::Get, "/api/v1/runs/{id}/lock", Auth::Read, "getRunLock", 200)
    },
    Route {
        summary: "Cancel a run",
        response: json("Run"),
        ..route(Method::Post, "/api/v1/runs/{id}/cancel", Auth::Run, "cancelRun", 202)
    },
    Route {
        summary: "A page for people that says how a run stands which a forge's event has set off; the commit's status links to it",
        response: bytes("text/html"),
        ..route(Method::Get, "/runs/{id}/{key}", Auth::Public, "getRunPage", 200)
    },
    Route {
        summary: "Read a run's log as text from an offset",
        query: LOG_QUERY,
        response: bytes("text/plain"),
        ..route(Method::Get, "/api/v1/runs/{id}/log", Auth::Read, "getRunLog", 200)
    },
    Route {
        summary: "Follow a run's log as server-sent events from a frame offset",
        query: LOG_EVENTS_QUERY,
        response: bytes("text/event-stream"),
        ..route(Method::Get, "/api/v1/runs/{id}/log/events", Auth::Read, "followRunLog", 200)
    },
    Route {
        summary: "Keep a run from the clean-up of old runs, or end that",
        request: json("UpdateRun"),
        response: json("Run"),
        ..route(Method::Patch, "/api/v1/runs/{id}", Auth::Run, "updateRun", 200)
    },
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
        summary: "List waves: what changes of base images set off, the newest first",
        query: LIST_WAVES_QUERY,
        response: json("WaveList"),
        ..route(Method::Get, "/api/v1/waves", Auth::Read, "listWaves", 200)
    },
    Route {
        summary: "Show a wave with its members",
        response: json("WaveView"),
        ..route(Method::Get, "/api/v1/waves/{id}", Auth::Read, "getWave", 200)
    },
    Route {
        summary: "Let no member of a wave begin for now",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/pause", Auth::Admin, "pauseWave", 200)
    },
    Route {
        summary: "Let members of a wave begin again",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/resume", Auth::Admin, "resumeWave", 200)
    },
    Route {
        summary: "End a wave early: its runs are cancelled, and no other member begins",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/cancel", Auth::Admin, "cancelWave", 202)
    },
    Route {
        summary: "Try again what failed, was skipped or was cancelled in a wave: a new wave does that",
        response: json("WaveView"),
        ..route(Method::Post, "/api/v1/waves/{id}/retry", Auth::Admin, "retryWave", 201)
    },
    Route {
        summary: "Show where other registries tell of pushes",
        response: json("RegistryHookView"),
        ..route(Method::Get, "/api/v1/registry-hook", Auth::Admin, "getRegistryHook", 200)
    },
    Route {
        summary: "Tell of pushes to another registry, in the form of distribution, ACR, Harbor or Docker Hub: it is asked sooner",
        request: bytes("application/json"),
        ..route(Method::Post, "/hooks/registry/{id}", Auth::Public, "tellRegistryNews", 202)
    },
    Route {
        summary: "Show what a new image would rebuild, in order",
        query: IMPACT_QUERY,
        response: json("ImpactView"),
        ..route(Method::Get, "/api/v1/impact", Auth::Read, "getImpact", 200)
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
        summary: "List access tokens",
        response: json("TokenList"),
        ..route(Method::Get, "/api/v1/tokens", Auth::Admin, "listTokens", 200)
    },
    Route {
        summary: "Make an access token; it is shown once",
        request: json("CreateToken"),
        response: json("CreatedToken"),
        ..route(Method::Post, "/api/v1/tokens", Auth::Admin, "createToken", 201)
    },
    Route {
        summary: "Revoke an access token",
        ..route(Method::Delete, "/api/v1/tokens/{id}", Auth::Admin, "revokeToken", 204)
    },
    Route {
        summary: "List agents, connected or not",
        response: json("AgentList"),
        ..route(Method::Get, "/api/v1/agents", Auth::Read, "listAgents", 200)
    },
    Route {
        summary: "Show an agent",
        response: json("AgentView"),
        ..route(Method::Get, "/api/v1/agents/{id}", Auth::Read, "getAgent", 200)
    },
    Route {
        summary: "Offer an agent nothing new, or end that",
        request: json("DrainAgent"),
        response: json("AgentView"),
        ..route(Method::Post, "/api/v1/agents/{id}/drain", Auth::Admin, "drainAgent", 200)
    },
    Route {
        summary: "Forget an agent and close its stream; what it holds starts again elsewhere",
        response: json("AgentView"),
        ..route(Method::Delete, "/api/v1/agents/{id}", Auth::Admin, "removeAgent", 200)
    },
    Route {
        summary: "List pools",
        response: json("PoolList"),
        ..route(Method::Get, "/api/v1/pools", Auth::Read, "listPools", 200)
    },
    Route {
        summary: "Make a pool",
        request: json("CreatePool"),
        response: json("PoolView"),
        ..route(Method::Post, "/api/v1/pools", Auth::Admin, "createPool", 201)
    },
    Route {
        summary: "Delete a pool",
        query: DELETE_POOL_QUERY,
        response: json("PoolView"),
        ..route(Method::Delete, "/api/v1/pools/{id}", Auth::Admin, "deletePool", 200)
    },
    Route {
        summary: "List the hosts that there are credentials for",
        response: json("CredentialList"),
        ..route(Method::Get, "/api/v1/credentials", Auth::Admin, "listCredentials", 200)
    },
    Route {
        summary: "Keep a credential for a Git host, in place of its earlier one",
        request: json("SetCredential"),
        response: json("CredentialView"),
        ..route(Method::Put, "/api/v1/credentials/{host}", Auth::Admin, "setCredential", 200)
    },
    Route {
        summary: "Forget a host's credential",
        ..route(Method::Delete, "/api/v1/credentials/{host}", Auth::Admin, "deleteCredential", 204)
    },
    Route {
        summary: "List the secrets that are kept for tasks, without their values",
        response: json("SecretList"),
        ..route(Method::Get, "/api/v1/secrets", Auth::Admin, "listSecrets", 200)
    },
    Route {
        summary: "Add a version to a secret, or change whose runs may use it",
        request: json("SetSecret"),
        response: json("SecretView"),
        ..route(Method::Put, "/api/v1/secrets/{name}", Auth::Admin, "setSecret", 200)
    },
    Route {
        summary: "Forget a secret, or one version of it",
        query: DELETE_SECRET_QUERY,
        ..route(Method::Delete, "/api/v1/secrets/{name}", Auth::Admin, "deleteSecret", 204)
    },
    Route {
        summary: "Have secrets looked for as for a run of the caller's; values are not answered",
        request: json("CheckSecrets"),
        response: json("CheckedSecrets"),
        ..route(Method::Post, "/api/v1/secret-checks", Auth::Run, "checkSecrets", 200)
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
    Route {
        summary: "List webhooks",
        response: json("WebhookList"),
        ..route(Method::Get, "/api/v1/webhooks", Auth::Admin, "listWebhooks", 200)
    },
    Route {
        summary: "Make a webhook; its secret is shown once",
        request: json("WebhookSettings"),
        response: json("WebhookView"),
        ..route(Method::Post, "/api/v1/webhooks", Auth::Admin, "createWebhook", 201)
    },
    Route {
        summary: "Show a webhook",
        response: json("WebhookView"),
        ..route(Method::Get, "/api/v1/webhooks/{id}", Auth::Admin, "getWebhook", 200)
    },
    Route {
        summary: "Change what is said of a webhook and nothing else",
        request: json("WebhookSettings"),
        response: json("WebhookView"),
        ..route(Method::Patch, "/api/v1/webhooks/{id}", Auth::Admin, "updateWebhook", 200)
    },
    Route {
        summary: "Delete a webhook, with what waits for it",
        ..route(Method::Delete, "/api/v1/webhooks/{id}", Auth::Admin, "deleteWebhook", 204)
    },
    Route {
        summary: "Show a webhook's address, and the names of its headers",
        response: json("WebhookConfig"),
        ..route(Method::Get, "/api/v1/webhooks/{id}/config", Auth::Admin, "getWebhookConfig", 200)
    },
    Route {
        summary: "Send a ping to a webhook",
        response: json("WebhookEventInfo"),
        ..route(Method::Post, "/api/v1/webhooks/{id}/ping", Auth::Admin, "pingWebhook", 200)
    },
    Route {
        summary: "List what was sent to a webhook and what waits, the newest first",
        query: LIST_WEBHOOK_EVENTS_QUERY,
        response: json("WebhookEventList"),
        ..route(Method::Get, "/api/v1/webhooks/{id}/events", Auth::Admin, "listWebhookEvents", 200)
    },
    Route {
        summary: "Send an event to a webhook once more, after all that waits",
        response: json("WebhookEventInfo"),
        ..route(
            Method::Post,
            "/api/v1/webhooks/{id}/events/{event}/redeliver",
            Auth::Admin,
            "redeliverWebhookEvent",
            200,
        )
    },
    Route {
        summary: "Show the server's version and registry, and what the token may do",
        response: json("Info"),
        ..route(Method::Get, "/api/v1/info", Auth::AnyToken, "getInfo", 200)
    },
    Route {
        summary: "This document",
        response: bytes("application/json"),
        ..route(Method::Get, "/api/v1/openapi.json", Auth::Public, "getOpenApi", 200)
    },
    Route {
        summary: "Whether the process is alive",
        response: json("Health"),
        ..route(Method::Get, "/healthz", Auth::Public, "getHealth", 200)
    },
    Route {
        summary: "Whether the server can do its work",
        response: json("Health"),
        ..route(Method::Get, "/readyz", Auth::Public, "getReadiness", 200)
    },
    Route {
        summary: "Metrics in the Prometheus text form",
        response: bytes("application/openmetrics-text"),
        ..route(Method::Get, "/metrics", Auth::Read, "getMetrics", 200)
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cooper_types::{RunId, Scope, Scopes};

    use super::*;
    use crate::rest::{
        DeletePoolQuery, DeleteSecretQuery, ImpactQuery, ListNotificationsQuery, ListRunsQuery, ListTasksQuery,
        ListTimersQuery, ListWavesQuery, ListWebhookEventsQuery, LogEventsQuery, LogQuery, Moment, ReplaceTaskQuery,
        RotateHookQuery, RunStatus, RunType,
    };

    #[test]
    fn operations_and_places_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(seen.insert(route.operation.to_owned()), "{}", route.operation);
            assert!(seen.insert(format!("{} {}", route.method, route.path)), "{}", route.path);
            assert!(!route.summary.is_empty(), "{}", route.path);
            let outside =
                matches!(route.path, "/healthz" | "/readyz" | "/metrics") || route.path.starts_with("/hooks/");
            assert!(outside || route.path.starts_with(API_PREFIX), "{}", route.path);
        }
    }

    /// The parameters of the table are the fields of the types that servers and clients use.
    #[test]
    fn queries_are_described_as_they_are() {
        let check = |operation: &str, query: serde_json::Value| {
            let route = ROUTES.iter().find(|route| route.operation == operation).expect(operation);
            let described: BTreeSet<&str> = route.query.iter().map(|parameter| parameter.name).collect();
            let fields: BTreeSet<&str> = query.as_object().expect("fields").keys().map(String::as_str).collect();
            assert_eq!(described, fields, "{operation}");
        };
        let list = ListRunsQuery {
            status: Some(RunStatus::Failed),
            task_name: Some(cooper_types::TaskName::parse("nightly").expect("valid")),
            run_type: Some(RunType::QuickBuild),
            image: Some("app:1".to_owned()),
            top: Some(1),
            before: Some(RunId::from_number(1)),
        };
        check("listRuns", serde_json::to_value(list).expect("json"));
        check("getRunLog", serde_json::to_value(LogQuery { offset: 1 }).expect("json"));
        let created = Some(Moment(cooper_types::Timestamp::from_micros(0)));
        let replace = ReplaceTaskQuery { dry_run: true, generation: Some(1), created };
        check("replaceTask", serde_json::to_value(replace).expect("json"));
        let after = Some(cooper_types::TaskName::parse("nightly").expect("valid"));
        check("listTasks", serde_json::to_value(ListTasksQuery { top: Some(1), after }).expect("json"));
        check("rotateHook", serde_json::to_value(RotateHookQuery { revoke_old: true }).expect("json"));
        check("listWaves", serde_json::to_value(ListWavesQuery { top: Some(1) }).expect("json"));
        check("getImpact", serde_json::to_value(ImpactQuery { image: "node:22".to_owned() }).expect("json"));
        check("listTimers", serde_json::to_value(ListTimersQuery { count: Some(1) }).expect("json"));
        check("deletePool", serde_json::to_value(DeletePoolQuery { force: true }).expect("json"));
        check("deleteSecret", serde_json::to_value(DeleteSecretQuery { version: Some(1) }).expect("json"));
        check("listNotifications", serde_json::to_value(ListNotificationsQuery { top: Some(1) }).expect("json"));
        check("listWebhookEvents", serde_json::to_value(ListWebhookEventsQuery { top: Some(1) }).expect("json"));
        let events = LogEventsQuery { offset: 1, status_only: true };
        check("followRunLog", serde_json::to_value(events).expect("json"));
    }

    #[test]
    fn scopes_open_what_they_say() {
        let check = |auth: Auth, scopes: Option<&str>, expect: bool| {
            let scopes = scopes.map(|text| Scopes(vec![Scope::parse(text).expect(text)]));
            assert_eq!(auth.allows(scopes.as_ref()), expect, "{auth:?} {scopes:?}");
        };
        check(Auth::Public, None, true);
        check(Auth::AnyToken, None, false);
        check(Auth::AnyToken, Some("repository:*:pull"), true);
        check(Auth::Read, Some("repository:*:pull"), false);
        check(Auth::Read, Some("run"), true);
        check(Auth::Read, Some("agent"), false);
        check(Auth::Run, Some("read"), false);
        check(Auth::Run, Some("admin"), true);
        check(Auth::Admin, Some("run"), false);
    }
}
