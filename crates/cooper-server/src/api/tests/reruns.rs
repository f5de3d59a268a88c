//! Reruns and lockfiles over the API: who may have them, and what they need and never show.

use axum::http::StatusCode;
use cooper_api::rest;
use cooper_engine::run::RunEvent;
use cooper_types::{PrincipalName, RunId};
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
        let by = PrincipalName::parse("somebody").expect("valid");
        self.core.apply(id, RunEvent::CancelRequested { by }).await.expect("cancelled");
        id
    }
}

#[tokio::test]
async fn principals_rerun_their_own_runs_and_administrators_all() {
    let fixture = Fixture::new().await;
    let own = fixture.token(&["run"]).await;
    let id = fixture.ended(own.expose()).await;
    let path = format!("/api/v1/runs/{id}/rerun");
    let other = testing::token(&fixture.core, "other", &["run"]).await;
    let problem = fixture.problem("POST", &path, Some(other.expose()), Some(SECRET)).await;
    assert_eq!(problem.code.as_str(), "forbidden", "{problem:?}");
    let admin = testing::token(&fixture.core, "boss", &["admin"]).await;
    let again = fixture.run_of(&path, admin.expose(), SECRET, None).await;
    assert_eq!((again.principal.as_str(), again.rerun_of), ("boss", Some(id)));
    let run = fixture.core.runs.find_run(again.run_id).await.expect("store").expect("run").run;
    assert!(run.scopes.admin(), "a run has its caller's scopes");
    let run = fixture.run_of(&path, own.expose(), SECRET, None).await;
    assert!(!fixture.core.runs.find_run(run.run_id).await.expect("store").expect("run").run.scopes.admin());

    let problem = fixture.problem("POST", "/api/v1/runs/cazz/rerun", Some(own.expose()), Some("{}")).await;
    assert_eq!(problem.code.as_str(), "not-found", "{problem:?}");
    let path = format!("/api/v1/runs/{}/rerun", run.run_id);
    let problem = fixture.problem("POST", &path, Some(own.expose()), Some(SECRET)).await;
    assert!(problem.detail.contains("has not ended yet"), "{problem:?}");
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
