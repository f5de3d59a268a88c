//! Reruns and lockfiles over the API: who may have them, and what they need and never show.

use std::time::Duration;

use axum::http::StatusCode;
use cooper_api::rest;
use cooper_engine::message::{Frontend, StepOutput, StepResult};
use cooper_engine::run::{AgentRef, RunEvent};
use cooper_spec::plan::Work;
use cooper_types::{AgentName, Digest, PrincipalName, RunId};
use http_body_util::BodyExt as _;

use super::Fixture;
use crate::testing;

const TASK: &str = r#"{"type":"EncodedTaskRunRequest","encodedTaskContent":"c3RlcHM6CiAgLSBpZDogb25lCiAgICBjbWQ6IGJ1c3lib3ggZWNobyB7ey5WYWx1ZXMua2V5fX0K",
    "values":[{"name":"key","value":"hunter22","isSecret":true},{"name":"who","value":"world"}]}"#;
const SECRET: &str = r#"{"values":[{"name":"key","value":"hunter33"}]}"#;

impl Fixture {
    async fn run_of(&self, path: &str, token: &str, body: &str, key: Option<&str>) -> rest::Run {
        let response = self.keyed_call("POST", path, Some(token), Some(body), key).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        serde_json::from_slice(&bytes).expect("a run")
    }

    /// A run of somebody's task with a secret, and its end.
    async fn ended(&self, token: &str) -> RunId {
        let id = self.run_of("/api/v1/runs", token, TASK, None).await.run_id;
        self.cancel(id).await;
        id
    }

    /// A build of alice's with arguments, of which nothing has begun.
    async fn build(&self, token: &str) -> RunId {
        let context = testing::uploaded(&self.core).await;
        let build = format!(
            r#"{{"type":"DockerBuildRequest","sourceLocation":"{context}","dockerFilePath":"Dockerfile","isPushEnabled":false,
                "arguments":[{{"name":"who","value":"world"}},{{"name":"key","value":"hunter22","isSecret":true}}]}}"#
        );
        self.run_of("/api/v1/runs", token, &build, None).await.run_id
    }

    async fn cancel(&self, run: RunId) {
        let by = PrincipalName::parse("somebody").expect("valid");
        self.core.apply(run, RunEvent::CancelRequested { by }).await.expect("cancelled");
    }

    async fn lock(&self, run: RunId, token: &str) -> rest::Lockfile {
        let answer = self.call("GET", &format!("/api/v1/runs/{run}/lock"), Some(token), None).await;
        let bytes = answer.into_body().collect().await.expect("body").to_bytes();
        serde_json::from_slice(&bytes).expect("a lockfile")
    }
}

#[tokio::test]
async fn principals_rerun_their_own_runs_alone() {
    let fixture = Fixture::new().await;
    let own = fixture.token(&["run"]).await;
    let id = fixture.ended(own.expose()).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    // An administrator's rights are not what the run had.
    for (name, scopes) in [("other", ["run"]), ("boss", ["admin"])] {
        let token = testing::token(&fixture.core, name, &scopes).await;
        let problem = fixture.problem("POST", &path, Some(token.expose()), Some(SECRET)).await;
        assert_eq!(problem.code.as_str(), "forbidden", "{problem:?}");
        let words = format!("run {id} is a run of somebody: only that principal reruns it");
        assert!(problem.detail == words && problem.hint.is_some(), "{problem:?}");
    }
    let run = fixture.run_of(&path, own.expose(), SECRET, None).await;
    assert_eq!((run.principal.as_str(), run.rerun_of), ("somebody", Some(id)));
    assert!(!fixture.core.runs.find_run(run.run_id).await.expect("store").expect("run").run.scopes.admin());

    let problem = fixture.problem("POST", "/api/v1/runs/cazz/rerun", Some(own.expose()), Some("{}")).await;
    assert_eq!(problem.code.as_str(), "not-found", "{problem:?}");
    let path = format!("/api/v1/runs/{}/rerun", run.run_id);
    let problem = fixture.problem("POST", &path, Some(own.expose()), Some(SECRET)).await;
    assert!(problem.detail.contains("has not ended yet"), "{problem:?}");
}

#[tokio::test]
async fn what_is_kept_of_a_run_is_for_tokens_that_may_do_what_it_could() {
    let fixture = Fixture::new().await;
    let wide = fixture.token(&["run", "repository:team/*:pull,push"]).await;
    let narrow = fixture.token(&["run", "repository:team/app:pull,push"]).await;
    let admin = fixture.token(&["admin"]).await;
    let id = fixture.ended(wide.expose()).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    let problem = fixture.problem("POST", &path, Some(narrow.expose()), Some(SECRET)).await;
    assert_eq!(problem.code.as_str(), "forbidden", "{problem:?}");
    assert!(problem.detail.contains("has the scope repository:team/*:pull,push, and yours has not"), "{problem:?}");
    for token in [&wide, &admin] {
        fixture.run_of(&path, token.expose(), SECRET, None).await;
    }

    // What is fetched anew is fetched with the token's own rights.
    let build =
        r#"{"type":"DockerBuildRequest","sourceLocation":"https://git.example/app.git","dockerFilePath":"Dockerfile"}"#;
    let id = fixture.run_of("/api/v1/runs", wide.expose(), build, None).await.run_id;
    fixture.cancel(id).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    let problem = fixture.problem("POST", &path, Some(narrow.expose()), Some("{}")).await;
    assert!(
        problem.code.as_str() == "forbidden" && problem.hint.clone().unwrap_or_default().contains("--fresh"),
        "{problem:?}"
    );
    fixture.run_of(&path, narrow.expose(), r#"{"fresh":true}"#, None).await;
}

#[tokio::test]
async fn a_url_with_a_query_is_given_again() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let build = r#"{"type":"DockerBuildRequest","sourceLocation":"https://files.example/a.tgz?sig=hunter2","dockerFilePath":"Dockerfile"}"#;
    let id = fixture.run_of("/api/v1/runs", token.expose(), build, None).await.run_id;
    fixture.cancel(id).await;
    let stored = fixture.core.runs.find_request(id).await.expect("store").expect("a request");
    let run = fixture.core.runs.find_run(id).await.expect("store").expect("run").run;
    let kept = serde_json::to_string(&(&stored.request, &run)).expect("json");
    assert!(!kept.contains("hunter2") && kept.contains("files.example"), "{kept}");
    let path = format!("/api/v1/runs/{id}/rerun");
    for body in ["{}", r#"{"fresh":true}"#] {
        let problem = fixture.problem("POST", &path, Some(token.expose()), Some(body)).await;
        assert_eq!(problem.code.as_str(), "context-not-found", "{problem:?}");
        assert!(problem.detail.contains("https://files.example/a.tgz?… again, and the query"), "{problem:?}");
        assert!(problem.hint.unwrap_or_default().contains("with the whole URL"));
    }
}

#[tokio::test]
async fn a_repeated_request_needs_nothing_that_is_gone_by_now() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let id = fixture.ended(token.expose()).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    let again = fixture.run_of(&path, token.expose(), SECRET, Some("k1")).await;
    let dropped = fixture.core.runs.drop_request_texts(Duration::ZERO, 10).await.expect("store");
    assert_eq!(dropped, 1);
    let problem = fixture.problem("POST", &path, Some(token.expose()), Some(SECRET)).await;
    assert_eq!(problem.code.as_str(), "context-not-found", "{problem:?}");
    assert!(problem.detail.contains(&format!("the task's files of run {id} are not kept any more")), "{problem:?}");
    assert_eq!(fixture.run_of(&path, token.expose(), SECRET, Some("k1")).await.run_id, again.run_id);
    // The lockfile needs none of them.
    let lock = fixture.lock(id, token.expose()).await;
    assert_eq!(lock.task_file.expect("it has one").name, "acr-task.yaml");
}

#[tokio::test]
async fn values_are_shown_to_whose_run_it_is_and_to_administrators() {
    let fixture = Fixture::new().await;
    let own = fixture.token(&["run"]).await;
    let id = fixture.ended(own.expose()).await;
    for (name, scopes, who) in
        [("somebody", ["read"], Some("world")), ("boss", ["admin"], Some("world")), ("other", ["run"], None)]
    {
        let token = testing::token(&fixture.core, name, &scopes).await;
        let values = fixture.lock(id, token.expose()).await.values;
        let shown: Vec<_> = values.iter().map(|it| (it.name.as_str(), it.value.as_deref(), it.is_secret)).collect();
        assert_eq!(shown, [("key", None, true), ("who", who, false)], "{name}");
    }
}

#[tokio::test]
async fn arguments_are_shown_to_the_same() {
    let fixture = Fixture::new().await;
    let own = testing::token(&fixture.core, "alice", &["run"]).await;
    let id = fixture.build(own.expose()).await;
    for (name, scopes, who) in
        [("alice", ["read"], Some("world")), ("boss", ["admin"], Some("world")), ("other", ["run"], None)]
    {
        let token = testing::token(&fixture.core, name, &scopes).await;
        let [step] = &fixture.lock(id, token.expose()).await.steps[..] else { panic!("one step") };
        let shown = step.arguments.iter().map(|it| (it.name.as_str(), it.value.as_deref(), it.is_secret));
        assert_eq!(shown.collect::<Vec<_>>(), [("who", who, false), ("key", None, true)], "{name}");
    }
}

#[tokio::test]
async fn a_frontend_that_was_pulled_is_locked_and_taken_again() {
    let fixture = Fixture::new().await;
    let token = testing::token(&fixture.core, "alice", &["run"]).await;
    let id = fixture.build(token.expose()).await;
    let apply = async |event| fixture.core.apply(id, event).await.expect("applied").run;
    let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
    let fence = apply(RunEvent::Offer { placement: 0, agent }).await.last_fence;
    let attempt = apply(RunEvent::Accepted { fence, host: None }).await.last_attempt;
    let (reference, digest) = ("r.io/frontend:1".to_owned(), Digest::sha256(b"a frontend"));
    let frontend = Some(Frontend { reference: reference.clone(), digest: Some(digest.clone()) });
    let output = StepOutput::Built { image: Digest::sha256(b"image"), bases: Vec::new(), frontend, context: None };
    let result = StepResult::Succeeded { output };
    assert!(apply(RunEvent::StepEnded { fence, attempt, result }).await.finished().is_some());
    let locked = fixture.lock(id, token.expose()).await.steps[0].frontend.clone().expect("it is known");
    assert_eq!((&locked.reference, locked.digest), (&reference, Some(digest.to_string())));

    let path = format!("/api/v1/runs/{id}/rerun");
    for (fresh, pinned) in [(false, vec![(reference, digest)]), (true, Vec::new())] {
        let body = format!(r#"{{"fresh":{fresh},"arguments":[{{"name":"key","value":"hunter33"}}]}}"#);
        let again = fixture.run_of(&path, token.expose(), &body, None).await.run_id;
        let run = fixture.core.runs.find_run(again).await.expect("store").expect("run").run;
        let Work::Build(build) = &run.plan.steps[0].work else { panic!("a build") };
        assert_eq!(build.pinned, pinned, "fresh: {fresh}");
    }
}

#[tokio::test]
async fn secrets_come_again_and_are_shown_nowhere() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let id = fixture.ended(token.expose()).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    let refused = async |body: &str, part: &str| {
        let problem = fixture.problem("POST", &path, Some(token.expose()), Some(body)).await;
        assert_eq!(problem.code.as_str(), "invalid-request", "{problem:?}");
        assert!(problem.detail.contains(part), "{problem:?}");
    };
    refused("{}", "--set-secret key=VALUE").await;
    refused(r#"{"values":[{"name":"key","value":"x"},{"name":"who","value":"y"}]}"#, "--set-secret who").await;
    refused(
        r#"{"values":[{"name":"key","value":"x"}],"arguments":[{"name":"A","value":"y"}]}"#,
        "--secret-build-arg A",
    )
    .await;
    refused(r#"{"fail":true}"#, "`fail`").await;

    let again = fixture.run_of(&path, token.expose(), SECRET, Some("k1")).await;
    assert_eq!(fixture.run_of(&path, token.expose(), SECRET, Some("k1")).await.run_id, again.run_id);
    let other = fixture.ended(token.expose()).await;
    let elsewhere = format!("/api/v1/runs/{other}/rerun");
    let clash = fixture.keyed_call("POST", &elsewhere, Some(token.expose()), Some(SECRET), Some("k1")).await;
    assert_eq!(clash.status(), StatusCode::CONFLICT, "a key stands for one request");

    let lock = format!("/api/v1/runs/{}/lock", again.run_id);
    let answer = fixture.call("GET", &lock, Some(token.expose()), None).await;
    let text = answer.into_body().collect().await.expect("body").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("text");
    assert!(!text.contains("hunter"), "{text}");
    let lock: rest::Lockfile = serde_json::from_str(&text).expect("a lockfile");
    assert_eq!((lock.rerun_of, lock.values.len(), lock.values[0].is_secret), (Some(id), 2, true));
    let stored = fixture.core.runs.find_request(again.run_id).await.expect("store").expect("a request");
    assert!(!serde_json::to_string(&stored.request).expect("json").contains("hunter"));
}
