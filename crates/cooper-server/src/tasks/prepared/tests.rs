//! Alias sources of a task file in a repository that are away when it is planned.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use cooper_engine::message::PreparedFile;
use cooper_engine::task::{Cause, FileChange, StepChange, Task, TaskChange};
use cooper_spec::source::GitSource;
use cooper_types::{AgentName, ContextId, Digest, Scope, Scopes, TaskName};

use super::*;
use crate::stored_tasks::{self, For, Given};
use crate::testing;

/// A server whose sources are away the first time that they are asked for, or for ever, or not there.
async fn sources() -> String {
    let asked = Arc::new(AtomicU32::new(0));
    let answer = move |request: axum::extract::Request| {
        let asked = Arc::clone(&asked);
        async move {
            match request.uri().path() {
                "/soon" if asked.fetch_add(1, Ordering::SeqCst) > 0 => "tool: busybox\n".into_response(),
                "/soon" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    format!("http://{address}")
}

#[tokio::test]
async fn an_alias_source_that_is_away_is_asked_for_again() {
    let data = tempfile::tempdir().expect("temp dir");
    let (core, _store) = testing::core_sending_here(data.path(), None).await;
    testing::token(&core, "ann", &["run"]).await;
    let step = FileChange { file: Some("acr-task.yaml".to_owned()), ..FileChange::default() };
    let source = GitSource::parse("https://git.example/app.git#main").expect("valid");
    let change =
        TaskChange { step: Some(StepChange::File(step)), source: Some(Some(source.into())), ..TaskChange::default() };
    let name = TaskName::parse("nightly").expect("valid");
    let now = core.clock.now();
    let task = Task::new(name, testing::principal("ann"), Scopes(vec![Scope::Run]), change, now).expect("a task");
    let request = stored_tasks::request(&core, &task, Given::default(), Cause::Manual, None).await.expect("a request");
    let id = stored_tasks::accept(&core, request, For::Asker).await.expect("accepted").record.run.id;
    let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
    let fence = core.apply(id, RunEvent::Offer { placement: 0, agent }).await.expect("offered").run.last_fence;
    let run = core.apply(id, RunEvent::Accepted { fence, host: None }).await.expect("accepted").run;
    let attempt = run.last_attempt;

    let base = sources().await;
    let plan = async |path: &str| {
        let text =
            format!("version: v1.1.0\nalias:\n  src: ['{base}{path}?sig=hunter2']\nsteps:\n  - cmd: $tool true\n");
        let file = PreparedFile { name: "acr-task.yaml".to_owned(), content: Some(text.into_bytes()) };
        let found = PreparedSource {
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            branch: Some("main".to_owned()),
            tag: None,
            context: ContextId::parse("context").expect("valid"),
            digest: Digest::sha256(b"archive"),
            size: 7,
            dockerfile: None,
            pinned: None,
            definition: None,
            files: vec![file],
        };
        core.plan_when_there(&run, attempt, &found).await
    };
    let planned = plan("/soon").await.ok().expect("it is planned when the source is there");
    let note = planned.notes.iter().find(|note| note.contains("was answered with 503")).expect("it is told");
    assert!(note.ends_with("it was there when it was asked for again"), "{note}");
    assert!(!note.contains("hunter2"), "{note}");
    let Err(Unplanned::Told(why)) = plan("/missing").await else { panic!("it is wrong at once") };
    assert!(why.contains("was answered with 404"), "{why}");
    core.stopping.cancel();
    assert!(matches!(plan("/soon").await, Err(Unplanned::Later(_))), "another server plans it");
}
