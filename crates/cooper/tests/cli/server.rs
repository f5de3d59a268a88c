//! A scripted server: it takes a context and a request, and plays one run.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cooper_api::problem::{Problem, ProblemCode};
use cooper_api::rest::{
    DockerBuildRequest, LogBatch, LogEventsQuery, LogFrame, LogQuery, LogStream, OutputImage, PlatformView,
    ProvisioningState, Run, RunRequest, RunStatus, RunType, VertexUpdate,
};
use cooper_types::{PrincipalName, RunId, Timestamp};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::Notify;

/// The one token that the server knows.
pub(crate) const TOKEN: &str = "hunter2";
/// The text of the run's log.
pub(crate) const LOG: &str = "#1 [1/2] FROM base\n#1 DONE 0.1s\n#2 0.123 hello from RUN";

/// What the server saw, and what it plays.
pub(crate) struct Script {
    /// How the run ends.
    pub(crate) end: RunStatus,
    /// Whether the log stays open until the run is cancelled.
    pub(crate) hangs: bool,
    /// Names and contents of the files of the context.
    pub(crate) context: Mutex<BTreeMap<String, String>>,
    pub(crate) request: Mutex<Option<RunRequest>>,
    pub(crate) cancelled: Notify,
    pub(crate) followed: Notify,
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) script: Arc<Script>,
}

impl Server {
    pub(crate) async fn start(end: RunStatus, hangs: bool) -> Self {
        let script = Arc::new(Script {
            end,
            hangs,
            context: Mutex::default(),
            request: Mutex::default(),
            cancelled: Notify::new(),
            followed: Notify::new(),
        });
        let router = Router::new()
            .route("/api/v1/info", get(info))
            .route("/api/v1/contexts", post(create_context))
            .route("/api/v1/contexts/{id}", put(upload))
            .route("/api/v1/runs", post(create_run).get(list_runs))
            .route("/api/v1/runs/{id}", get(get_run))
            .route("/api/v1/runs/{id}/cancel", post(cancel))
            .route("/api/v1/runs/{id}/log", get(log))
            .route("/api/v1/runs/{id}/log/events", get(events))
            .layer(axum::middleware::from_fn(check_token))
            .with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    /// The request that came last.
    pub(crate) fn asked(&self) -> RunRequest {
        self.script.request.lock().expect("lock").take().expect("a request")
    }

    /// The same, which is for a build.
    pub(crate) fn asked_build(&self) -> DockerBuildRequest {
        let RunRequest::DockerBuildRequest(request) = self.asked() else { panic!("a build is asked for") };
        request
    }
}

fn problem(code: ProblemCode, detail: &str) -> Response {
    let problem = Problem::new(code, detail);
    let status = StatusCode::from_u16(problem.status).expect("status");
    let media = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, media, serde_json::to_string(&problem).expect("json")).into_response()
}

async fn check_token(headers: HeaderMap, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let expect = format!("Bearer {TOKEN}");
    match headers.get(header::AUTHORIZATION) {
        Some(value) if *value == *expect => next.run(request).await,
        Some(_) => problem(ProblemCode::Unauthorized, "the access token does not work"),
        None => problem(ProblemCode::Unauthorized, "an access token is needed"),
    }
}

async fn info() -> Response {
    let scopes = ["run", "repository:*:pull,push"];
    let aliases = json!({"tool": "localhost:5000/tool:1"});
    axum::Json(json!({
        "version": "0",
        "registryName": "localhost:5000",
        "principal": "dev",
        "scopes": scopes,
        "imageAliases": aliases
    }))
    .into_response()
}

async fn create_context() -> Response {
    let body = json!({"contextId": "ctx-1", "uploadUrl": "/api/v1/contexts/ctx-1", "maxBytes": 1_000_000});
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

async fn upload(State(script): State<Arc<Script>>, body: Bytes) -> Response {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&body[..]));
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("entry");
        let name = entry.path().expect("path").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        script.context.lock().expect("lock").insert(name, text);
    }
    let digest = cooper_types::Digest::sha256(&body).to_string();
    let body = json!({"contextId": "ctx-1", "size": body.len(), "digest": digest});
    (StatusCode::CREATED, axum::Json(body)).into_response()
}

async fn create_run(State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes) -> Response {
    assert!(headers.contains_key("idempotency-key"));
    let request: RunRequest = serde_json::from_slice(&body).expect("a request");
    if let RunRequest::DockerBuildRequest(build) = &request
        && build.image_names.iter().any(|name| name.contains(' '))
    {
        return problem(ProblemCode::InvalidReference, "image name `a b` is not valid");
    }
    *script.request.lock().expect("lock") = Some(request);
    (StatusCode::CREATED, axum::Json(run(RunStatus::Queued))).into_response()
}

async fn list_runs(State(script): State<Arc<Script>>) -> Response {
    axum::Json(json!({"value": [run(script.end)], "nextLink": null})).into_response()
}

async fn get_run(State(script): State<Arc<Script>>, Path(id): Path<String>) -> Response {
    match id.as_str() {
        "ca1" => axum::Json(run(script.end)).into_response(),
        _ => problem(ProblemCode::NotFound, &format!("run `{id}` does not exist")),
    }
}

async fn cancel(State(script): State<Arc<Script>>) -> Response {
    script.cancelled.notify_one();
    (StatusCode::ACCEPTED, axum::Json(run(RunStatus::Running))).into_response()
}

/// Ten bytes at a time, so that a reader has to come back.
async fn log(Query(query): Query<LogQuery>) -> Response {
    let from = usize::try_from(query.offset).expect("small");
    let to = (from + 10).min(LOG.len());
    let headers = [("cooper-log-offset", to.to_string()), ("cooper-log-complete", (to == LOG.len()).to_string())];
    (headers, LOG[from..to].to_owned()).into_response()
}

async fn events(State(script): State<Arc<Script>>, Query(query): Query<LogEventsQuery>) -> Response {
    assert_eq!(query.offset, 0, "nothing was lost");
    let update = VertexUpdate {
        id: "v1".to_owned(),
        name: "[1/2] FROM base".to_owned(),
        started: Some(Timestamp::from_micros(0)),
        completed: Some(Timestamp::from_micros(100_000)),
        cached: false,
        error: None,
        current: None,
        total: None,
    };
    let frame = |seq, stream, data: Vec<u8>| LogFrame {
        attempt: None,
        seq,
        time: Timestamp::from_micros(0),
        stream,
        vertex: Some("v1".to_owned()),
        data,
    };
    let frames = vec![
        frame(1, LogStream::Vertex, serde_json::to_vec(&update).expect("json")),
        frame(2, LogStream::Stdout, LOG.as_bytes().to_vec()),
    ];
    let batch = serde_json::to_string(&LogBatch { offset: 0, frames }).expect("json");
    let status = |status, reason: &str| {
        format!("event: status\ndata: {}\n\n", json!({"status": status, "pendingReason": reason}))
    };
    let waiting = status("Queued", "no agent is connected");
    let log = format!("event: log\nid: 100\ndata: {batch}\n\n");
    let first = format!("{waiting}{waiting}{}", if query.status_only { "" } else { &log });
    let last = async move {
        script.followed.notify_one();
        if script.hangs {
            script.cancelled.notified().await;
        }
        format!("event: end\ndata: {}\n\n", serde_json::to_string(&run(script.end)).expect("json"))
    };
    let first = futures::stream::once(async move { first });
    let body = first.chain(futures::stream::once(last)).map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

fn run(status: RunStatus) -> Run {
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    let image = OutputImage {
        registry: "localhost:5000".to_owned(),
        repository: "app".to_owned(),
        tag: Some("v1".to_owned()),
        digest: Some(format!("sha256:{}", "0".repeat(64))),
    };
    Run {
        run_id: RunId::from_number(1),
        name: "ca1".to_owned(),
        id: "/api/v1/runs/ca1".to_owned(),
        status,
        run_type: RunType::QuickBuild,
        create_time: time,
        start_time: Some(time),
        finish_time: status.is_final().then(|| time.after(std::time::Duration::from_millis(2500))),
        last_updated_time: time,
        task: None,
        output_images: if status == RunStatus::Succeeded { vec![image] } else { vec![] },
        platform: PlatformView { os: "linux".to_owned(), architecture: Some("amd64".to_owned()), variant: None },
        agent_configuration: None,
        agent_pool_name: None,
        run_error_message: (status == RunStatus::Failed)
            .then(|| "step build: RUN make ended with exit code 2".to_owned()),
        is_archive_enabled: false,
        provisioning_state: ProvisioningState::Succeeded,
        rerun_of: None,
        rerun: None,
        source_trigger: None,
        timer_trigger: None,
        image_update_trigger: None,
        requested_by: None,
        pending_reason: None,
        principal: PrincipalName::parse("dev").expect("name"),
        timeout: 3600,
        steps: vec![],
        dependencies: vec![],
        image_names: vec!["localhost:5000/app:v1".to_owned()],
        source_location: None,
        source_commit: None,
        source_branch: None,
    }
}
