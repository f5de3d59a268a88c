//! The client against a small real HTTP server that misbehaves on purpose.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cooper_api::problem::{Problem, ProblemCode};
use cooper_api::rest::{
    CreatedContext, LogBatch, LogEventsQuery, LogFrame, LogStream, PackedLog, PlatformView, ProvisioningState, Run,
    RunRequest, RunStatus, RunType,
};
use cooper_client::{Client, ClientError, FollowOptions, LogEvent, ServerUrl};
use cooper_ports::logs::segment::pack;
use cooper_ports::logs::{Frame, Stream};
use cooper_types::{AttemptNumber, ContextId, IdempotencyKey, PrincipalName, RunId, SecretString, Timestamp};
use futures::{StreamExt, TryStreamExt};

async fn serve(router: Router) -> ServerUrl {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    ServerUrl::parse(&format!("http://{address}")).expect("url")
}

fn client(server: ServerUrl) -> Client {
    Client::new(server, Some(SecretString::new("hunter2".to_owned()))).expect("client")
}

fn run(status: RunStatus) -> Run {
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    Run {
        run_id: RunId::from_number(1),
        name: "ca1".to_owned(),
        id: "/api/v1/runs/ca1".to_owned(),
        status,
        run_type: RunType::QuickBuild,
        create_time: time,
        start_time: Some(time),
        finish_time: None,
        last_updated_time: time,
        task: None,
        output_images: vec![],
        platform: PlatformView { os: "linux".to_owned(), architecture: Some("amd64".to_owned()), variant: None },
        agent_configuration: None,
        agent_pool_name: None,
        run_error_message: None,
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
        image_names: vec![],
        source_location: None,
        source_commit: None,
        source_branch: None,
    }
}

fn quick() -> FollowOptions {
    FollowOptions {
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(5),
        max_failures: 3,
        max_silence: Duration::from_secs(120),
        must_begin: false,
        status_only: false,
    }
}

/// Frames of one byte each; a frame's offset is its number.
fn frame(number: u64) -> LogFrame {
    LogFrame {
        attempt: Some(AttemptNumber(1)),
        seq: number,
        time: Timestamp::from_micros(0),
        stream: LogStream::Stdout,
        vertex: None,
        data: vec![b'a' + u8::try_from(number % 26).expect("small")],
    }
}

fn log_event(from: u64, to: u64) -> String {
    let batch = LogBatch { offset: from, frames: (from..to).map(frame).collect() };
    format!("event: log\nid: {to}\ndata: {}\n\n", serde_json::to_string(&batch).expect("json"))
}

fn end_event() -> String {
    format!("event: end\ndata: {}\n\n", serde_json::to_string(&run(RunStatus::Succeeded)).expect("json"))
}

fn sse(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body.into()).into_response()
}

async fn follow_text(client: &Client) -> (String, u32, Result<Option<RunStatus>, ClientError>) {
    let mut events = std::pin::pin!(client.follow(RunId::from_number(1), quick()));
    let (mut text, mut lost, mut end) = (Vec::new(), 0, None);
    loop {
        match events.try_next().await {
            Ok(Some(LogEvent::Frames(frames))) => text.extend(frames.into_iter().flat_map(|frame| frame.data)),
            Ok(Some(LogEvent::Reconnecting { .. })) => lost += 1,
            Ok(Some(LogEvent::Status(_))) => {}
            Ok(Some(LogEvent::End(run))) => end = Some(run.status),
            Ok(None) => return (String::from_utf8(text).expect("ascii"), lost, Ok(end)),
            Err(error) => return (String::from_utf8(text).expect("ascii"), lost, Err(error)),
        }
    }
}

/// Each connection gives two whole batches and a third that is cut off in its middle; 40 frames in all.
#[tokio::test]
async fn a_follower_misses_and_doubles_nothing_over_disconnects() {
    let router = Router::new().route(
        "/api/v1/runs/ca1/log/events",
        get(|Query(query): Query<LogEventsQuery>| async move {
            let mut body = String::from(": keep-alive\n\nevent: status\ndata: {\"status\":\"Running\"}\n\n");
            let mut from = query.offset;
            for _ in 0..2 {
                let to = (from + 3).min(40);
                if to > from {
                    body.push_str(&log_event(from, to));
                }
                from = to;
            }
            if from == 40 {
                body.push_str(&end_event());
            } else {
                let cut = log_event(from, from + 3);
                body.push_str(&cut[..cut.len() / 2]);
            }
            sse(body)
        }),
    );
    let (text, lost, end) = follow_text(&client(serve(router).await)).await;
    let expect: String = (0..40).map(|number| char::from(frame(number).data[0])).collect();
    assert_eq!(text, expect);
    assert_eq!(lost, 6);
    assert_eq!(end.expect("no error"), Some(RunStatus::Succeeded));
}

/// A server that repeats a batch, then leaves a hole: the repeat is dropped, the hole is asked for again.
#[tokio::test]
async fn a_repeat_is_dropped_and_a_hole_is_asked_for_again() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let router = Router::new()
        .route(
            "/api/v1/runs/ca1/log/events",
            get(|State(calls): State<Arc<Mutex<Vec<u64>>>>, Query(query): Query<LogEventsQuery>| async move {
                let first = {
                    let mut calls = calls.lock().expect("lock");
                    calls.push(query.offset);
                    calls.len() == 1
                };
                match first {
                    true => sse(log_event(0, 3) + &log_event(0, 3) + &log_event(5, 8)),
                    false => sse(log_event(query.offset, 8) + &end_event()),
                }
            }),
        )
        .with_state(Arc::clone(&calls));
    let (text, lost, end) = follow_text(&client(serve(router).await)).await;
    assert_eq!((text.as_str(), lost), ("abcdefgh", 1));
    assert_eq!(end.expect("no error"), Some(RunStatus::Succeeded));
    assert_eq!(*calls.lock().expect("lock"), [0, 3]);
}

/// A server that packs: it knows segments alone, so what is asked for again comes with what is there already.
#[tokio::test]
async fn packed_frames_come_whole_wherever_they_are_cut() {
    fn at(number: u64) -> u64 {
        segment(0, number).1.len() as u64
    }
    fn segment(from: u64, to: u64) -> (u64, Vec<u8>) {
        let mut bytes = Vec::new();
        for number in from..to {
            let LogFrame { attempt, seq, time, vertex, data, .. } = frame(number);
            Frame { attempt, seq, time, stream: Stream::Stdout, vertex, data }.encode(&mut bytes);
        }
        (if from == 0 { 0 } else { at(from) }, bytes)
    }
    fn packed_event(from: u64, to: u64) -> String {
        let (offset, bytes) = segment(from, to);
        let length = bytes.len() as u64;
        let packed = PackedLog { offset, length, data: pack(bytes) };
        assert_eq!((packed.data.len() as u64) < length, to - from > 150, "only much is packed");
        let json = serde_json::to_string(&packed).expect("json");
        format!("event: packed\nid: {}\ndata: {json}\n\n", offset + length)
    }
    let calls = Arc::new(Mutex::new(Vec::new()));
    let router =
        Router::new()
            .route(
                "/api/v1/runs/ca1/log/events",
                get(
                    |State(calls): State<Arc<Mutex<Vec<u64>>>>,
                     headers: HeaderMap,
                     Query(query): Query<LogEventsQuery>| async move {
                        assert_eq!(headers["cooper-log-frames"], "1");
                        calls.lock().expect("lock").push(query.offset);
                        match query.offset {
                            // A repeat, and the stream's end.
                            0 => sse(packed_event(0, 5) + &packed_event(0, 5)),
                            // More than was asked for, and a hole.
                            known if known == at(5) => sse(packed_event(3, 300) + &packed_event(301, 302)),
                            known if known == at(300) => sse(packed_event(300, 310) + &end_event()),
                            other => panic!("{other}"),
                        }
                    },
                ),
            )
            .with_state(Arc::clone(&calls));
    let (text, lost, end) = follow_text(&client(serve(router).await)).await;
    let expect: Vec<u8> = (0..310).flat_map(|number| frame(number).data).collect();
    assert_eq!(text.as_bytes(), expect);
    assert_eq!(lost, 2);
    assert_eq!(end.expect("no error"), Some(RunStatus::Succeeded));
    assert_eq!(*calls.lock().expect("lock"), [0, at(5), at(300)]);
}

#[tokio::test]
async fn a_follower_gives_up_after_attempts_that_bring_nothing() {
    let calls = Arc::new(AtomicU32::new(0));
    let router = Router::new()
        .route(
            "/api/v1/runs/ca1/log/events",
            get(|State(calls): State<Arc<AtomicU32>>| async move {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    0 => sse(log_event(0, 3)),
                    _ => StatusCode::BAD_GATEWAY.into_response(),
                }
            }),
        )
        .with_state(Arc::clone(&calls));
    let (text, lost, end) = follow_text(&client(serve(router).await)).await;
    assert_eq!((text.as_str(), lost), ("abc", 3));
    assert!(matches!(end, Err(ClientError::Protocol { .. })), "{end:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_at_once_if_asked() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let client = client(ServerUrl::parse(&url).expect("url"));
    let kinds = |must_begin| {
        let options = FollowOptions { must_begin, ..quick() };
        client.follow(RunId::from_number(1), options).map(|event| event.is_ok()).collect::<Vec<bool>>()
    };
    assert_eq!(kinds(true).await, [false]);
    assert_eq!(kinds(false).await, [true, true, true, false]);
}

#[tokio::test]
async fn a_refusal_ends_a_follower_at_once() {
    let problem = Problem::new(ProblemCode::NotFound, "run `ca1` does not exist");
    let router = Router::new().route(
        "/api/v1/runs/ca1/log/events",
        get(|| async move { (StatusCode::NOT_FOUND, axum::Json(problem)).into_response() }),
    );
    let (_, lost, end) = follow_text(&client(serve(router).await)).await;
    assert_eq!(lost, 0);
    assert_eq!(end.expect_err("refused").problem().map(|p| p.code.clone()), Some(ProblemCode::NotFound));
}

#[tokio::test]
async fn a_silent_server_is_left_and_asked_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let router = Router::new()
        .route(
            "/api/v1/runs/ca1/log/events",
            get(|State(calls): State<Arc<AtomicU32>>, Query(query): Query<LogEventsQuery>| async move {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    0 => {
                        let first = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(log_event(0, 2)))]);
                        sse(Body::from_stream(first.chain(futures::stream::pending())))
                    }
                    _ => sse(log_event(query.offset, 4) + &end_event()),
                }
            }),
        )
        .with_state(calls);
    let client = client(serve(router).await);
    let options = FollowOptions { max_silence: Duration::from_secs(5), ..quick() };
    let events: Vec<LogEvent> =
        client.follow(RunId::from_number(1), options).try_collect().await.expect("the second connection works");
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| match event {
            LogEvent::Frames(_) => "frames",
            LogEvent::Status(_) => "status",
            LogEvent::Reconnecting { .. } => "reconnecting",
            LogEvent::End(_) => "end",
        })
        .collect();
    assert_eq!(kinds, ["frames", "reconnecting", "frames", "end"]);
}

/// The run's request is repeated under the same key when its answer is lost.
#[tokio::test]
async fn a_lost_answer_to_a_run_is_asked_for_again_with_the_same_key() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let router = Router::new()
        .route(
            "/api/v1/runs",
            post(|State(keys): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap, body: Bytes| async move {
                let request: RunRequest = serde_json::from_slice(&body).expect("a run request");
                let RunRequest::DockerBuildRequest(build) = request else { panic!("{request:?}") };
                assert_eq!(build.source_location, "ctx-1");
                let tries = {
                    let mut keys = keys.lock().expect("lock");
                    keys.push(headers["idempotency-key"].to_str().expect("text").to_owned());
                    keys.len()
                };
                match tries {
                    1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    _ => (StatusCode::CREATED, axum::Json(run(RunStatus::Queued))).into_response(),
                }
            }),
        )
        .with_state(Arc::clone(&keys));
    let request: RunRequest =
        serde_json::from_str(r#"{"type":"DockerBuildRequest","sourceLocation":"ctx-1"}"#).expect("request");
    let key = IdempotencyKey::parse("k-1").expect("key");
    let made = client(serve(router).await).create_run(&request, &key).await.expect("the second try works");
    assert_eq!(made, run(RunStatus::Queued));
    assert_eq!(*keys.lock().expect("lock"), ["k-1", "k-1"]);
}

#[tokio::test]
async fn an_upload_streams_a_file_with_its_length_and_reports_progress() {
    let router = Router::new().route(
        "/api/v1/contexts/ctx-1",
        put(|headers: HeaderMap, body: Body| async move {
            let length: u64 = headers["content-length"].to_str().expect("text").parse().expect("number");
            assert_eq!(headers["authorization"], "Bearer hunter2");
            let mut hasher = cooper_types::Hasher::new(cooper_types::DigestAlgorithm::Sha256);
            let mut size = 0_u64;
            let mut chunks = body.into_data_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.expect("whole");
                size += chunk.len() as u64;
                hasher.update(&chunk);
            }
            assert_eq!(size, length);
            let digest = hasher.finish().to_string();
            axum::Json(serde_json::json!({ "contextId": "ctx-1", "size": size, "digest": digest }))
        }),
    );
    let client = client(serve(router).await);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), &bytes).expect("write");
    let mut context = CreatedContext {
        context_id: ContextId::parse("ctx-1").expect("id"),
        upload_url: "/api/v1/contexts/ctx-1".to_owned(),
        max_bytes: 4_000_000,
    };
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    let open = || async { tokio::fs::File::open(file.path()).await.expect("open") };
    let uploaded = client
        .upload_context(&context, open().await, bytes.len() as u64, move |n| seen.store(n, Ordering::Relaxed))
        .await
        .expect("uploaded");
    assert_eq!(uploaded.size, bytes.len() as u64);
    assert_eq!(uploaded.digest, cooper_types::Digest::sha256(&bytes));
    assert_eq!(sent.load(Ordering::Relaxed), bytes.len() as u64);

    context.max_bytes = 1000;
    let error = client.upload_context(&context, open().await, bytes.len() as u64, |_| {}).await.expect_err("too large");
    assert!(matches!(error, ClientError::ContextTooLarge { max: 1000, .. }), "{error}");
}

/// A redirect to another origin is not followed, so that nobody else sees the token.
#[tokio::test]
async fn the_token_stays_with_its_server() {
    let thief = Arc::new(AtomicU32::new(0));
    let other = Router::new()
        .fallback(|State(calls): State<Arc<AtomicU32>>| async move {
            calls.fetch_add(1, Ordering::Relaxed);
            StatusCode::OK
        })
        .with_state(Arc::clone(&thief));
    let target = format!("{}/api/v1/info", serve(other).await);
    let router = Router::new().route(
        "/api/v1/info",
        get(|| async move { (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)]).into_response() }),
    );
    let error = client(serve(router).await).info().await.expect_err("not followed");
    assert!(error.to_string().contains("redirect"), "{error}");
    assert_eq!(thief.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn errors_say_what_happened() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let gone = ServerUrl::parse(&format!("http://{address}")).expect("url");
    let error = client(gone).info().await.expect_err("nobody listens");
    let ClientError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(error.to_string(), format!("server http://{address} can't be reached"));
    assert!(source.to_string().contains("refused"), "{source}");

    let router = Router::new()
        .route("/api/v1/info", get(|| async { (StatusCode::NOT_FOUND, "<html>nginx</html>") }))
        .route("/api/v1/tokens", get(|| async { "<html>hello</html>" }))
        .route(
            "/api/v1/runs",
            get(|| async {
                let problem = Problem::new(ProblemCode::Unauthorized, "a token is needed\u{1b}[2J").with_hint("log in");
                let media = [(header::CONTENT_TYPE, "application/problem+json")];
                (StatusCode::UNAUTHORIZED, media, serde_json::to_string(&problem).expect("json"))
            }),
        );
    let client = client(serve(router).await);
    let error = client.info().await.expect_err("not a Cooperage server");
    assert!(error.to_string().contains("is this a Cooperage server?"), "{error}");
    let error = client.list_tokens().await.expect_err("not JSON");
    assert!(matches!(error, ClientError::Protocol { transient: false, .. }), "{error}");
    let error = client.list_runs(&cooper_api::rest::ListRunsQuery::default()).await.expect_err("refused");
    let problem = error.problem().expect("a problem");
    assert_eq!((problem.code.clone(), problem.hint.as_deref()), (ProblemCode::Unauthorized, Some("log in")));
    assert_eq!(problem.detail, "a token is needed [2J", "what a server says can't steer the terminal");
}

/// A server whose disk is full says so in the middle of an upload. It goes on reading what is under way, as every
/// server must that wants its refusal to be heard: closing with unread bytes resets the connection.
#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_is_heard() {
    let router = Router::new().route(
        "/api/v1/contexts/ctx-1",
        put(|body: Body| async move {
            let mut chunks = body.into_data_stream();
            chunks.next().await.expect("a chunk").expect("whole");
            tokio::spawn(async move { while let Some(Ok(_)) = chunks.next().await {} });
            let problem = Problem::new(ProblemCode::StorageFull, "context `ctx-1` does not fit");
            (StatusCode::INSUFFICIENT_STORAGE, axum::Json(problem)).into_response()
        }),
    );
    let client = client(serve(router).await);
    let size = 256 * 1024 * 1024;
    let file = tempfile::NamedTempFile::new().expect("file");
    file.as_file().set_len(size).expect("size");
    let context = CreatedContext {
        context_id: ContextId::parse("ctx-1").expect("id"),
        upload_url: "/api/v1/contexts/ctx-1".to_owned(),
        max_bytes: size,
    };
    let open = tokio::fs::File::open(file.path()).await.expect("open");
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    let progress = move |n| seen.store(n, Ordering::Relaxed);
    let error = client.upload_context(&context, open, size, progress).await.expect_err("refused");
    assert_eq!(error.problem().map(|problem| problem.code.clone()), Some(ProblemCode::StorageFull), "{error:?}");
    assert!(sent.load(Ordering::Relaxed) < size, "the rest is not sent");
}
