//! Contexts and runs.

use super::{Auth, Method, Parameter, ParameterKind, Route, bytes, json, route};

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

pub(super) const ROUTES: &[Route] = &[
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
];
