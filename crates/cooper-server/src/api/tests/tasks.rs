//! Stored tasks over the API: in one form in and out, without secrets; by whom, and as whom they run.

use axum::http::StatusCode;
use cooper_api::rest::{
    Run, RunType, StepSettings, TaskList, TaskSettings, TaskStatus, TaskView, TimerList, UpdateTriggerSecret,
};
use cooper_types::{Access, RepositoryName, RunId, Scopes, SecretString, TaskName};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Fixture;
use crate::testing;

const DOCKER: &str = r#"{"name":"Nightly","step":{"type":"Docker","contextPath":"https://git.example/app.git#main",
    "imageNames":["app:1"],"arguments":[{"name":"A","value":"1"},{"name":"TOKEN","value":"hunter22","isSecret":true}]}}"#;
const ENCODED: &str = r#"{"name":"hello","step":{"type":"EncodedTask","taskContent":"version: v1.1.0\nsteps:\n  - cmd: busybox echo {{.Values.key}} {{.Run.TaskName}}\n",
    "values":[{"name":"key","value":"hunter22","isSecret":true}]}}"#;

impl Fixture {
    /// A call that has to end so; its answer.
    async fn ask<T: DeserializeOwned>(&self, call: &str, token: &str, body: Option<&str>, status: StatusCode) -> T {
        let (method, path) = call.split_once(' ').expect("a method and a path");
        let response = self.call(method, &format!("/api/v1{path}"), Some(token), body).await;
        let got = response.status();
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(got, status, "{call}: {text}");
        assert!(!text.contains("hunter22"), "{call}: {text}");
        serde_json::from_slice(if bytes.is_empty() { b"null" } else { &bytes })
            .unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    async fn scopes_of(&self, run: &Run) -> Scopes {
        let id = RunId::parse(&run.run_id.to_string()).expect("an id");
        self.core.runs.find_run(id).await.expect("store").expect("a run").run.scopes
    }
}

fn may_push(scopes: &Scopes, repository: &str) -> bool {
    scopes.repository(&RepositoryName::parse(repository).expect("valid"), Access::Push)
}

#[tokio::test]
async fn a_task_is_made_changed_replaced_and_run() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run", "repository:*:push"]).await;
    let token = token.expose();
    let made: TaskView = fixture.ask("POST /tasks", token, Some(DOCKER), StatusCode::CREATED).await;
    assert_eq!((made.generation, made.settings.timeout, made.settings.cpu), (1, Some(3600), Some(2)));
    let _: Value =
        fixture.ask("POST /tasks", token, Some(&DOCKER.replace("Nightly", "nightLY")), StatusCode::CONFLICT).await;
    let shown: TaskView = fixture.ask("GET /tasks/NIGHTLY", token, None, StatusCode::OK).await;
    assert_eq!(shown, made);

    // A secret that is named without a value keeps it; one that never had one is refused.
    let change = json!({"step": {"type": "Docker", "arguments": [{"name": "TOKEN", "isSecret": true}]}, "priority": 4,
        "timers": {"t1": {"schedule": "0 2 * * *", "timeZone": "europe/berlin"}}});
    let changed: TaskView = fixture.ask("PATCH /tasks/nightly", token, Some(&change.to_string()), StatusCode::OK).await;
    assert_eq!((changed.generation, changed.settings.priority, changed.settings.timers.len()), (2, Some(4), 1));
    let unknown = json!({"step": {"type": "Docker", "arguments": [{"name": "OTHER", "isSecret": true}]}});
    let problem: Value =
        fixture.ask("PATCH /tasks/nightly", token, Some(&unknown.to_string()), StatusCode::BAD_REQUEST).await;
    assert!(problem["detail"].as_str().expect("text").contains("`OTHER` of the task has no value"), "{problem}");
    let timers: TimerList = fixture.ask("GET /tasks/nightly/timers?count=3", token, None, StatusCode::OK).await;
    assert_eq!((timers.value[0].next.len(), timers.value[0].settings.time_zone.as_deref()), (3, Some("Europe/Berlin")));

    assert_eq!(timers.task_status, TaskStatus::Enabled);

    // An empty kind of forge is none: it follows from the repository's host.
    let listens = |provider: &str| {
        let trigger = json!({"provider": provider, "events": ["commit"], "forkPool": ""});
        json!({"sourceTriggers": {"main": trigger}}).to_string()
    };
    for (provider, expect) in [("gitea", "gitea"), ("", "generic")] {
        let task: TaskView = fixture.ask("PATCH /tasks/nightly", token, Some(&listens(provider)), StatusCode::OK).await;
        let trigger = task.settings.source_triggers.values().flatten().next().expect("a trigger");
        assert_eq!(trigger.provider.as_deref(), Some(expect));
    }
    let none = json!({"sourceTriggers": {"main": null}, "status": "Disabled"}).to_string();
    let changed: TaskView = fixture.ask("PATCH /tasks/nightly", token, Some(&none), StatusCode::OK).await;
    let timers: TimerList = fixture.ask("GET /tasks/nightly/timers", token, None, StatusCode::OK).await;
    assert_eq!((timers.task_status, timers.value[0].next.len()), (TaskStatus::Disabled, 0));

    // What is shown replaces the task by itself, and nothing differs.
    let again = serde_json::to_string(&changed.settings).expect("json");
    let replaced: TaskView = fixture.ask("PUT /tasks/nightly?dryRun=true", token, Some(&again), StatusCode::OK).await;
    assert_eq!(replaced.settings, changed.settings);
    let replaced: TaskView = fixture.ask("PUT /tasks/nightly", token, Some(&again), StatusCode::OK).await;
    assert_eq!((&replaced.settings, replaced.generation), (&changed.settings, 5));
    let other: TaskSettings = serde_json::from_value(json!({"name": "another"})).expect("valid");
    let body = serde_json::to_string(&other).expect("json");
    let _: Value = fixture.ask("PUT /tasks/nightly", token, Some(&body), StatusCode::BAD_REQUEST).await;

    let run: Run = fixture.ask("POST /tasks/nightly/runs", token, Some("{}"), StatusCode::CREATED).await;
    assert_eq!((run.run_type, run.task.as_deref()), (RunType::AutoBuild, Some("Nightly")));
    let differs = json!({"set": []});
    let _: Value =
        fixture.ask("POST /tasks/nightly/runs", token, Some(&differs.to_string()), StatusCode::BAD_REQUEST).await;
    let nowhere = json!({"contextPath": "/dev/null"}).to_string();
    let problem: Value = fixture.ask("POST /tasks/nightly/runs", token, Some(&nowhere), StatusCode::BAD_REQUEST).await;
    assert!(problem["detail"].as_str().expect("text").contains("can't be without files"), "{problem}");
    let runs: Value = fixture.ask("GET /runs?taskName=NIGHTLY", token, None, StatusCode::OK).await;
    assert_eq!(runs["value"].as_array().expect("runs").len(), 1);
    let kept = json!({"isArchiveEnabled": true}).to_string();
    let kept: Run = fixture.ask(&format!("PATCH /runs/{}", run.run_id), token, Some(&kept), StatusCode::OK).await;
    assert!(kept.is_archive_enabled);
    let _: Value = fixture.ask("DELETE /tasks/nightly", token, None, StatusCode::NO_CONTENT).await;
    let _: Value = fixture.ask("GET /tasks/nightly", token, None, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_task_with_its_own_file_is_planned_as_it_is_asked_for() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let token = token.expose();
    let _: TaskView = fixture.ask("POST /tasks", token, Some(ENCODED), StatusCode::CREATED).await;
    let run: Run = fixture.ask("POST /tasks/hello/runs", token, Some("{}"), StatusCode::CREATED).await;
    assert_eq!((run.run_type, run.steps.len()), (RunType::AutoRun, 1));
    let stored = fixture.core.runs.find_run(run.run_id).await.expect("store").expect("a run").run;
    let plan = serde_json::to_string(&stored).expect("json");
    assert!(plan.contains("hello") && !plan.contains("hunter22"), "{plan}");
    let own = json!({"values": [{"name": "key", "value": "other"}]}).to_string();
    let run: Run = fixture.ask("POST /tasks/hello/runs", token, Some(&own), StatusCode::CREATED).await;
    let stored = fixture.core.runs.find_run(run.run_id).await.expect("store").expect("a run").run;
    assert!(serde_json::to_string(&stored).expect("json").contains("\"other\""), "a value of this run alone");
    let without = json!({"values": [{"name": "key", "isSecret": true}]}).to_string();
    let _: Value = fixture.ask("POST /tasks/hello/runs", token, Some(&without), StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn a_run_is_its_tasks_principals_with_what_both_allow() {
    let fixture = Fixture::new().await;
    let wide = testing::token(&fixture.core, "ann", &["run", "repository:*:pull,push"]).await;
    let narrow = testing::token(&fixture.core, "ann", &["run", "repository:team/*:push"]).await;
    let (bob, admin) = (fixture.token(&["run"]).await, testing::token(&fixture.core, "root", &["admin"]).await);
    let _: TaskView = fixture.ask("POST /tasks", wide.expose(), Some(DOCKER), StatusCode::CREATED).await;
    for call in ["PATCH /tasks/nightly", "PUT /tasks/nightly", "POST /tasks/nightly/runs"] {
        let body = if call.starts_with("PUT") { DOCKER } else { "{}" };
        let problem: Value = fixture.ask(call, bob.expose(), Some(body), StatusCode::FORBIDDEN).await;
        assert!(problem["detail"].as_str().expect("text").contains("task `Nightly` is ann's"), "{problem}");
        // No scope of bob's would do.
        assert!(problem["hint"].as_str().expect("a hint").contains("a token of ann's"), "{problem}");
    }
    let _: Value = fixture.ask("DELETE /tasks/nightly", bob.expose(), None, StatusCode::FORBIDDEN).await;
    let run = async |token: &str, body: &str| -> Run {
        fixture.ask("POST /tasks/nightly/runs", token, Some(body), StatusCode::CREATED).await
    };
    let by_admin = run(admin.expose(), "{}").await;
    assert_eq!(
        (by_admin.principal.as_str(), by_admin.requested_by.as_ref().map(|by| by.as_str())),
        ("ann", Some("root"))
    );
    let scopes = fixture.scopes_of(&by_admin).await;
    assert!(!scopes.admin() && may_push(&scopes, "app"), "{scopes:?}");
    // The narrow token may start it as it is, and gives nothing else more than it may itself.
    assert!(may_push(&fixture.scopes_of(&run(narrow.expose(), "{}").await).await, "app"));
    let other = r#"{"file":"other"}"#;
    let step = json!({"step": {"type": "Docker", "imageNames": ["team/app:1"]}}).to_string();
    for (call, body) in [("POST /tasks/nightly/runs", other), ("PATCH /tasks/nightly", &step)] {
        let problem: Value = fixture.ask(call, narrow.expose(), Some(body), StatusCode::FORBIDDEN).await;
        assert!(problem["detail"].as_str().expect("text").contains("can't change what they are shown to"), "{problem}");
    }
    // Of a task without secrets it may, with its own rights.
    let mut plain: Value = serde_json::from_str(DOCKER).expect("json");
    plain["name"] = "plain".into();
    plain["step"]["arguments"] = json!([]);
    let plain = plain.to_string();
    let _: TaskView = fixture.ask("POST /tasks", wide.expose(), Some(&plain), StatusCode::CREATED).await;
    let problem: Value =
        fixture.ask("POST /tasks/plain/runs", narrow.expose(), Some(other), StatusCode::FORBIDDEN).await;
    assert!(problem["detail"].as_str().expect("text").contains("`app`"), "{problem}");
    let _: TaskView = fixture.ask("PATCH /tasks/plain", narrow.expose(), Some(&step), StatusCode::OK).await;
    let scopes_now = async || {
        let run: Run = fixture.ask("POST /tasks/plain/runs", wide.expose(), Some("{}"), StatusCode::CREATED).await;
        fixture.scopes_of(&run).await
    };
    let scopes = scopes_now().await;
    assert!(
        may_push(&scopes, "team/app") && !may_push(&scopes, "app"),
        "who says what is done says as whom: {scopes:?}"
    );
    // A wide token's change of something gives nothing to the rest; saying all of it does.
    let arguments = json!({"step": {"type": "Docker", "arguments": [{"name": "A", "value": "1"}]}}).to_string();
    let _: TaskView = fixture.ask("PATCH /tasks/plain", wide.expose(), Some(&arguments), StatusCode::OK).await;
    assert!(!may_push(&scopes_now().await, "app"));
    let _: TaskView = fixture.ask("PUT /tasks/plain", wide.expose(), Some(&plain), StatusCode::OK).await;
    assert!(may_push(&scopes_now().await, "app"));

    for token in [&wide, &narrow] {
        let id = token.expose().split('_').nth(1).expect("an id").parse().expect("valid");
        fixture.core.access.store().revoke_token(&id).await.expect("revoked");
    }
    let problem: Value =
        fixture.ask("POST /tasks/nightly/runs", admin.expose(), Some("{}"), StatusCode::FORBIDDEN).await;
    assert!(problem["detail"].as_str().expect("text").contains("no token that works"), "{problem}");
}

#[tokio::test]
async fn a_credential_of_a_task_is_never_shown_again() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let token = token.expose();
    let _: TaskView = fixture.ask("POST /tasks", token, Some(ENCODED), StatusCode::CREATED).await;
    let path = "/tasks/hello/credentials/registry.example:5000";
    let body = json!({"username": "me", "password": "hunter22"}).to_string();
    let task: TaskView = fixture.ask(&format!("PUT {path}"), token, Some(&body), StatusCode::OK).await;
    assert_eq!(
        (task.credentials[0].login_server.as_str(), task.credentials[0].username.as_str()),
        ("registry.example:5000", "me")
    );
    let bad = json!({"username": "a:b", "password": "hunter22"}).to_string();
    let _: Value = fixture.ask(&format!("PUT {path}"), token, Some(&bad), StatusCode::BAD_REQUEST).await;
    let _: Value = fixture.ask(&format!("DELETE {path}"), token, None, StatusCode::NO_CONTENT).await;
    let _: Value = fixture.ask(&format!("DELETE {path}"), token, None, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn an_endpoint_is_sealed_at_rest_and_its_secret_is_its_tasks_until_it_is_renewed() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run", "repository:*:push"]).await;
    let token = token.expose();
    let of = |address: &str| {
        let mut task: Value = serde_json::from_str(DOCKER).expect("JSON");
        task["baseImageTrigger"] = json!({ "updateTriggerEndpoint": address });
        task.to_string()
    };
    let kept = async || {
        let name = TaskName::parse("nightly").expect("valid");
        fixture.core.tasks.find_task(&name).await.expect("store").expect("a task").task
    };
    let secret = async |call: &str| {
        let path = format!("{call} /tasks/nightly/update-trigger-secret");
        fixture.ask::<UpdateTriggerSecret>(&path, token, None, StatusCode::OK).await.secret
    };
    let address = |task: TaskView| task.settings.base_image_trigger.and_then(|trigger| trigger.update_trigger_endpoint);
    let chat = "https://chat.example/t0ken?sig=s1g";
    let made: TaskView = fixture.ask("POST /tasks", token, Some(&of(chat)), StatusCode::CREATED).await;
    assert_eq!(address(made).as_deref(), Some(chat), "who may change it sees it");
    let first = kept().await;
    for text in [serde_json::to_string(&first).expect("JSON"), format!("{first:?}")] {
        assert!(!text.contains("t0ken") && !text.contains("s1g"), "{text}");
    }
    let signed = secret("GET").await;
    // The same address is no change, and another one keeps the secret.
    let _: TaskView = fixture.ask("PUT /tasks/nightly", token, Some(&of(chat)), StatusCode::OK).await;
    assert_eq!(kept().await.base_image, first.base_image);
    let other = json!({"baseImageTrigger": {"updateTriggerEndpoint": "https://other.example/"}}).to_string();
    let changed: TaskView = fixture.ask("PATCH /tasks/nightly", token, Some(&other), StatusCode::OK).await;
    assert_eq!(address(changed).as_deref(), Some("https://other.example/"));
    assert_eq!(secret("GET").await, signed);
    let renewed = secret("POST").await;
    assert_ne!(renewed, signed);
    assert_eq!(secret("GET").await, renewed);
    let shown: TaskView = fixture.ask("GET /tasks/nightly", token, None, StatusCode::OK).await;
    assert_eq!((shown.generation, address(shown).as_deref()), (3, Some("https://other.example/")));
    // Another task of the name has another one.
    let _: Value = fixture.ask("DELETE /tasks/nightly", token, None, StatusCode::NO_CONTENT).await;
    let _: TaskView = fixture.ask("POST /tasks", token, Some(&of(chat)), StatusCode::CREATED).await;
    assert!(![signed, renewed].contains(&secret("GET").await));
    let none = json!({"baseImageTrigger": {"updateTriggerEndpoint": ""}}).to_string();
    let _: TaskView = fixture.ask("PATCH /tasks/nightly", token, Some(&none), StatusCode::OK).await;
    let _: Value = fixture.ask("POST /tasks/nightly/update-trigger-secret", token, None, StatusCode::NOT_FOUND).await;
}

#[tokio::test]
async fn a_dry_run_finds_what_a_change_would_and_a_change_is_of_what_was_shown() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run", "repository:*:push"]).await;
    let token = token.expose();
    let typo = DOCKER.replace("\"name\":\"Nightly\"", "\"name\":\"Nightly\",\"agentPoolName\":\"typo\"");
    let problem: Value = fixture.ask("PUT /tasks/nightly?dryRun=true", token, Some(&typo), StatusCode::NOT_FOUND).await;
    assert!(problem["detail"].as_str().expect("text").contains("agent pool `typo` does not exist"), "{problem}");
    let without = DOCKER.replace("\"value\":\"hunter22\",", "");
    let path = "PUT /tasks/nightly?dryRun=true";
    let problem: Value = fixture.ask(path, token, Some(&without), StatusCode::BAD_REQUEST).await;
    assert!(problem["detail"].as_str().expect("text").contains("`TOKEN` of the task has no value"), "{problem}");
    let _: TaskView = fixture.ask(path, token, Some(DOCKER), StatusCode::OK).await;
    let _: Value = fixture.ask("GET /tasks/nightly", token, None, StatusCode::NOT_FOUND).await;

    for (generation, status) in [(1, StatusCode::CONFLICT), (0, StatusCode::OK), (0, StatusCode::CONFLICT)] {
        let path = format!("PUT /tasks/nightly?generation={generation}");
        let _: Value = fixture.ask(&path, token, Some(DOCKER), status).await;
    }
    let made: TaskView = fixture.ask("GET /tasks/nightly", token, None, StatusCode::OK).await;
    let replace = |made: &TaskView| format!("PUT /tasks/nightly?generation=1&created={}", made.creation_date);
    // Another one of its name is at the same generation.
    let _: Value = fixture.ask("DELETE /tasks/nightly", token, None, StatusCode::NO_CONTENT).await;
    let _: Value = fixture.ask(&replace(&made), token, Some(DOCKER), StatusCode::CONFLICT).await;
    let _: Value = fixture.ask("PUT /tasks/nightly?generation=0", token, Some(DOCKER), StatusCode::OK).await;
    let _: Value = fixture.ask(&replace(&made), token, Some(DOCKER), StatusCode::CONFLICT).await;
    let made: TaskView = fixture.ask("GET /tasks/nightly", token, None, StatusCode::OK).await;
    let _: TaskView = fixture.ask(&replace(&made), token, Some(&without), StatusCode::OK).await;
    let large = format!(r#"{{"arguments":[{{"name":"TOKEN","value":"{}","isSecret":true}}]}}"#, "x".repeat(512_001));
    let problem: Value = fixture.ask("POST /tasks/nightly/runs", token, Some(&large), StatusCode::BAD_REQUEST).await;
    assert_eq!(problem["detail"], "secret `TOKEN` is larger than 512000 bytes");
}

#[tokio::test]
async fn what_is_there_already_is_kept_as_it_is_with_the_values_of_its_secrets() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run", "repository:*:push"]).await;
    let narrow = fixture.token(&["run"]).await;
    let generation = async |token: &SecretString, query: &str, body: &str| {
        let call = format!("PUT /tasks/nightly{query}");
        fixture.ask::<TaskView>(&call, token.expose(), Some(body), StatusCode::OK).await.generation
    };
    let other = DOCKER.replace("hunter22", "another");
    assert_eq!(generation(&token, "", DOCKER).await, 1);
    assert_eq!(generation(&token, "?dryRun=true", DOCKER).await, 1);
    assert_eq!(generation(&token, "?generation=1", DOCKER).await, 1);
    assert_eq!(generation(&token, "?dryRun=true", &other).await, 2);
    // Whose token may less than the task is not told which value is the right one.
    for guess in [DOCKER, &other] {
        assert_eq!(generation(&narrow, "?dryRun=true", guess).await, 2);
    }
    assert_eq!(generation(&token, "", &other).await, 2);
    assert_eq!(generation(&token, "", &other).await, 2);
    // The value is not all.
    assert_eq!(generation(&token, "", &other.replace("app:1", "app:2")).await, 3);
    let without = other.replace("app:1", "app:2").replace("\"value\":\"another\",", "");
    assert_eq!(generation(&token, "", &without).await, 3, "nothing is given");
    assert_eq!(generation(&token, "", DOCKER).await, 4);
}

#[tokio::test]
async fn tasks_are_listed_in_pages_without_their_texts() {
    let fixture = Fixture::new().await;
    let token = fixture.token(&["run"]).await;
    let token = token.expose();
    for name in ["hello", "other", "third"] {
        let task = ENCODED.replace("\"hello\"", &format!("\"{name}\""));
        let _: TaskView = fixture.ask("POST /tasks", token, Some(&task), StatusCode::CREATED).await;
    }
    let first: TaskList = fixture.ask("GET /tasks?top=2", token, None, StatusCode::OK).await;
    assert_eq!(first.next_link.as_deref(), Some("/api/v1/tasks?top=2&after=other"));
    let last: TaskList = fixture.ask("GET /tasks?top=2&after=other", token, None, StatusCode::OK).await;
    assert_eq!((first.value.len(), last.value.len(), last.next_link), (2, 1, None));
    let Some(StepSettings::EncodedTask(step)) = &first.value[0].settings.step else { panic!("{:?}", first.value[0]) };
    assert_eq!((&step.task_content, step.values.as_ref().map(Vec::len)), (&None, Some(1)));
    let _: Value = fixture.ask("GET /tasks?top=0", token, None, StatusCode::BAD_REQUEST).await;
}
