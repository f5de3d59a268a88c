//! Task files over the API: planned as they are accepted, or refused with everything that is wrong with them.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::rest;
use cooper_spec::plan::{CommandImage, Text, Work};
use cooper_types::RunId;
use http_body_util::BodyExt as _;

use super::Fixture;
use crate::testing;

fn request(task: &str, more: &str) -> String {
    let task = STANDARD.encode(task);
    format!(r#"{{"type":"EncodedTaskRunRequest","encodedTaskContent":"{task}"{more}}}"#)
}

#[tokio::test]
async fn a_task_is_planned_as_it_is_accepted_and_its_secrets_are_sealed() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let task = "steps:\n  - id: hello\n    cmd: busybox echo {{.Values.who}} {{.Values.key}}\n  - id: next\n    cmd: busybox\n";
    let values = r#","values":[{"name":"who","value":"world"},{"name":"key","value":"hunter22","isSecret":true}]"#;
    let body = request(task, values);
    let response = fixture.call("POST", "/api/v1/runs", Some(token.expose()), Some(&body)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let view: rest::Run = serde_json::from_slice(&bytes).expect("a run");
    let kinds: Vec<rest::StepType> = view.steps.iter().map(|step| step.step_type).collect();
    assert_eq!(kinds, [rest::StepType::Cmd, rest::StepType::Cmd]);
    assert_eq!(view.run_type, rest::RunType::QuickRun);
    let id = RunId::parse(&view.run_id.to_string()).expect("an id");
    let run = fixture.core.runs.find_run(id).await.expect("store").expect("run").run;
    let Work::Command(command) = &run.plan.steps[0].work else { panic!("a command") };
    assert_eq!(command.image, CommandImage::Named("busybox:latest".to_owned()));
    assert_eq!(command.arguments[1], Text::Plain("world".to_owned()));
    assert!(matches!(command.arguments[2], Text::Secret(_)), "{command:?}");
    assert!(!serde_json::to_string(&run).expect("json").contains("hunter22"));
    assert_eq!(run.plan.steps[1].after, [0]);
}

#[tokio::test]
async fn a_task_is_planned_for_the_platform_the_time_and_the_pool_that_are_asked_for() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let pool = fixture.call("POST", "/api/v1/pools", Some(token.expose()), Some(r#"{"name":"arms"}"#)).await;
    assert_eq!(pool.status(), StatusCode::CREATED);
    let task =
        "steps:\n  - cmd: busybox {{.Run.OS}} {{.Run.Architecture}}\n  - cmd: busybox\n    platform: linux/amd64\n";
    let asked = r#","platform":{"os":"Linux","architecture":"arm64"},"timeout":77,"agentPoolName":"arms""#;
    let response = fixture.call("POST", "/api/v1/runs", Some(token.expose()), Some(&request(task, asked))).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let view: rest::Run = serde_json::from_slice(&bytes).expect("a run");
    assert_eq!((view.platform.to_string().as_str(), view.agent_pool_name.as_deref()), ("linux/arm64", Some("arms")));
    let run = fixture.core.runs.find_run(view.run_id).await.expect("store").expect("run").run;
    assert_eq!((run.timeout, run.pool.as_str()), (Duration::from_secs(77), "arms"));
    let platforms = run.plan.steps.iter().map(|step| run.plan.placements[step.placement].platform.to_string());
    assert_eq!(platforms.collect::<Vec<_>>(), ["linux/arm64", "linux/amd64"]);
    let Work::Command(command) = &run.plan.steps[0].work else { panic!("a command") };
    assert_eq!(command.arguments, ["linux", "arm64"].map(|word| Text::Plain(word.to_owned())));
}

#[tokio::test]
async fn a_wrong_task_is_refused_with_its_places() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let wrong = async |body: &str, parts: &[&str]| {
        let problem = fixture.problem("POST", "/api/v1/runs", Some(token.expose()), Some(body)).await;
        assert_eq!(problem.code.as_str(), "invalid-request", "{problem:?}");
        for part in parts {
            assert!(problem.detail.contains(part), "{problem:?} lacks {part}");
        }
    };
    let two = "steps:\n  - id: a\n    cmd: busybox\n    retries: -1\n  - id: a b\n    cmd: busybox\n";
    wrong(&request(two, r#","taskFilePath":"ci/task.yaml""#), &["ci/task.yaml:4:", "ci/task.yaml:5:"]).await;
    wrong(&request("steps: []\n", r#","sourceLocation":"-""#), &["sourceLocation `-`"]).await;
    wrong(&request("steps: []\n", r#","timeout":0"#), &["timeout is 0 s"]).await;
    let alias = "version: v1.1.0\nalias:\n  src: ['http://127.0.0.1:9/a.yaml']\nsteps:\n  - cmd: busybox\n";
    wrong(&request(alias, ""), &["http://127.0.0.1:9/a.yaml"]).await;
    let file = r#"{"type":"FileTaskRunRequest","taskFilePath":"acb.yaml"}"#;
    wrong(file, &["`acb.yaml`", "encodedTaskContent"]).await;
}

#[tokio::test]
async fn a_task_in_a_repository_waits_for_its_source() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let body = r#"{"type":"FileTaskRunRequest","taskFilePath":"acb.yaml","valuesFilePath":"v.yaml",
        "sourceLocation":"https://git.example/app.git#main"}"#;
    let response = fixture.call("POST", "/api/v1/runs", Some(token.expose()), Some(body)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let view: rest::Run = serde_json::from_slice(&bytes).expect("a run");
    let id = RunId::parse(&view.run_id.to_string()).expect("an id");
    let run = fixture.core.runs.find_run(id).await.expect("store").expect("run").run;
    let Work::Prepare(prepare) = &run.plan.steps[0].work else { panic!("a source") };
    assert_eq!(
        (prepare.task_file.as_deref(), prepare.files.as_slice()),
        (Some("acb.yaml"), &["v.yaml".to_owned()][..])
    );
    assert_eq!(prepare.dockerfile, None, "everything goes into the workspace");

    // Where no task file is named, each of the usual names is looked for.
    let body = r#"{"type":"FileTaskRunRequest","sourceLocation":"https://git.example/app.git"}"#;
    let response = fixture.call("POST", "/api/v1/runs", Some(token.expose()), Some(body)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let view: rest::Run = serde_json::from_slice(&bytes).expect("a run");
    let run = fixture.core.runs.find_run(view.run_id).await.expect("store").expect("run").run;
    let Work::Prepare(prepare) = &run.plan.steps[0].work else { panic!("a source") };
    assert_eq!(
        (prepare.task_file.as_deref(), prepare.files.as_slice()),
        (Some("acr-task.yaml"), &["acb.yaml".to_owned()][..])
    );
}

#[tokio::test]
async fn a_task_file_in_an_uploaded_context_is_looked_for_by_an_agent() {
    let fixture = Fixture::new().await;
    let token = testing::token(&fixture.core, "alice", &["run"]).await;
    let context = testing::uploaded(&fixture.core).await.to_string();
    let body = format!(r#"{{"type":"FileTaskRunRequest","taskFilePath":"acb.yaml","sourceLocation":"{context}"}}"#);
    let response = fixture.call("POST", "/api/v1/runs", Some(token.expose()), Some(&body)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let view: rest::Run = serde_json::from_slice(&bytes).expect("a run");
    assert_eq!(view.source_location, None, "it is a context");
    let run = fixture.core.runs.find_run(view.run_id).await.expect("store").expect("run").run;
    let Work::Prepare(prepare) = &run.plan.steps[0].work else { panic!("a source") };
    assert_eq!(
        (prepare.source.to_string(), prepare.task_file.as_deref()),
        (format!("context:{context}"), Some("acb.yaml"))
    );

    // One that is somebody else's, or nobody's, or a text that only records have.
    let other = fixture.token(&["admin"]).await;
    for (token, location, code) in [
        (&other, context.clone(), "context-not-found"),
        (&token, "none-such".to_owned(), "context-not-found"),
        (&token, format!("context:{context}"), "context-not-found"),
    ] {
        let body = format!(r#"{{"type":"FileTaskRunRequest","taskFilePath":"a","sourceLocation":"{location}"}}"#);
        let problem = fixture.problem("POST", "/api/v1/runs", Some(token.expose()), Some(&body)).await;
        assert_eq!(problem.code.as_str(), code, "{location}: {problem:?}");
    }
}

#[tokio::test]
async fn a_server_that_stops_waits_for_nothing_that_a_task_names() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    fixture.core.stopping.cancel();
    let body = request("steps:\n  - cmd: busybox\n", "");
    let problem = fixture.problem("POST", "/api/v1/runs", Some(token.expose()), Some(&body)).await;
    assert_eq!(problem.code.as_str(), "unavailable", "{problem:?}");
    assert!(problem.detail.contains("the server is stopping"), "{problem:?}");
}

#[tokio::test]
async fn a_repeated_request_needs_nothing_that_it_names() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["admin"]).await;
    let body = request("steps:\n  - cmd: busybox\n", "");
    let call = async |key: &str| {
        fixture.keyed_call("POST", "/api/v1/runs", Some(token.expose()), Some(&body), Some(key)).await
    };
    let id = async |response: axum::response::Response| {
        assert_eq!(response.status(), StatusCode::CREATED);
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        serde_json::from_slice::<rest::Run>(&bytes).expect("a run").run_id
    };
    let first = id(call("one").await).await;
    // From now on nothing can be fetched.
    fixture.core.stopping.cancel();
    assert_eq!(id(call("one").await).await, first);
    assert_eq!(call("two").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}
