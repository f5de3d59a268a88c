//! Deliveries over the router and a real store: what each kind of forge sends, who is believed, and what starts once.

mod addresses;
mod bounds;
mod explained;
mod forks;
mod given_up;
mod inside;
mod missing;
mod page;
mod registering;
mod reopened;
mod telling;
mod verified;
mod whose;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::rest::{
    DeliveryAnswer, DeliveryStatus, HookList, NotificationList, ReceiptStatus, RegistryHookView, TaskView,
};
use cooper_e2e::expect_sealed;
use cooper_engine::run::{Run, RunEvent, RunStatus};
use cooper_engine::task::Cause;
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::references::ReferenceKind;
use cooper_ports::runs::RunQuery;
use cooper_source::git::ListedReference;
use cooper_store::Store;
use cooper_types::{PoolName, RunId, TaskName, Timestamp};
use hmac::Mac as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::rounds::Rounds;
use super::*;
use crate::api::{ApiState, router};
use crate::settings::Settings;
use crate::testing;

/// 2026-05-04T10:00:00Z
const START: i64 = 1_777_888_800_000_000;

struct World {
    core: Arc<Core>,
    store: Store,
    clock: Arc<ManualClock>,
    router: Router,
    token: String,
    data: TempDir,
}

/// A task's hook, as its owner knows it.
#[derive(Clone)]
struct Known {
    id: String,
    secret: String,
    provider: Provider,
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let (core, store) = testing::core_sending_here(data.path(), Some(clock.clone())).await;
        Self::over(core, store, clock, data).await
    }

    async fn over(core: Arc<Core>, store: Store, clock: Arc<ManualClock>, data: TempDir) -> Self {
        let token = testing::token(&core, "ann", &["run", "repository:*:push"]).await.expose().to_owned();
        let router = router(ApiState { core: core.clone(), shutdown: CancellationToken::new() });
        Self { core, store, clock, router, token, data }
    }

    async fn restarted(self) -> Self {
        let Self { store, clock, data, token, .. } = self;
        store.close().await.expect("closed");
        let (core, store) = testing::core_sending_here(data.path(), Some(clock.clone())).await;
        let router = router(ApiState { core: core.clone(), shutdown: CancellationToken::new() });
        Self { core, store, clock, router, token, data }
    }

    async fn call(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> (StatusCode, String) {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", self.token));
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.expect("a request")).await
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// Makes a task that listens to all of a repository.
    async fn task(&self, name: &str, context: &str, more: serde_json::Value) -> Known {
        let mut trigger = json!({"events": ["commit", "pullrequest", "tag"], "branches": ["**"]});
        for (key, value) in more.as_object().expect("an object") {
            trigger[key] = value.clone();
        }
        let task = json!({"name": name, "sourceTriggers": {"t": trigger},
            "step": {"type": "Docker", "contextPath": context, "imageNames": ["app:{{.Run.Commit}}"]}});
        let (status, text) = self.call("POST", "/api/v1/tasks", Some(task)).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        known(&serde_json::from_str(&text).expect("a task"))
    }

    async fn deliver(&self, hook: &Known, headers: &[(String, String)], body: &[u8]) -> (StatusCode, String) {
        let mut request = Request::builder().method("POST").uri(format!("/hooks/{}", hook.id));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request.body(Body::from(body.to_vec())).expect("a request")).await
    }

    /// Delivers what has to be taken.
    async fn take(&self, hook: &Known, headers: &[(String, String)], body: &[u8]) -> DeliveryAnswer {
        let (status, text) = self.deliver(hook, headers, body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        serde_json::from_str(&text).expect("an answer")
    }

    async fn pass(&self) {
        assert!(!settle(&self.core).await, "nothing has to wait");
        supersede::pending(&self.core).await.expect("store");
    }

    async fn hooks(&self, task: &str) -> HookList {
        let (status, text) = self.call("GET", &format!("/api/v1/tasks/{task}/hooks"), None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("hooks")
    }

    /// The runs, oldest first.
    async fn runs(&self) -> Vec<Run> {
        let query = RunQuery::newest(1000);
        let records = self.core.runs.list_runs(&query).await.expect("store");
        records.into_iter().rev().map(|record| record.run).collect()
    }

    fn generic(&self, hook: &Known, body: &serde_json::Value) -> (Vec<(String, String)>, Vec<u8>) {
        let body = body.to_string().into_bytes();
        (signed(hook, Vec::new(), &body, self.clock.now()), body)
    }
}

fn known(task: &TaskView) -> Known {
    let hook = task.hooks.first().expect("a hook");
    let provider = Provider::parse(&hook.provider).expect("a provider");
    Known { id: hook.id.to_string(), secret: hook.secret.clone().expect("it is told once"), provider }
}

/// Works off what waits, and tells whether something has to wait.
async fn settle(core: &Arc<Core>) -> bool {
    let mut rounds = Rounds::new(Arc::clone(core));
    rounds.look().await.expect("store");
    rounds.settle().await
}

/// Signs as the forge does.
fn signed(hook: &Known, mut headers: Vec<(String, String)>, body: &[u8], now: Timestamp) -> Vec<(String, String)> {
    let digest = |parts: &[&[u8]]| {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(hook.secret.as_bytes()).expect("a key");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    headers.retain(|(name, _)| !name.starts_with("Cooper-"));
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
    match hook.provider {
        Provider::GitHub => add("X-Hub-Signature-256", format!("sha256={}", digest(&[body]))),
        Provider::BitbucketCloud | Provider::BitbucketServer => {
            add("X-Hub-Signature", format!("sha256={}", digest(&[body])));
        }
        Provider::Gitea => add("X-Gitea-Signature", digest(&[body])),
        Provider::GitLab => add("X-Gitlab-Token", hook.secret.clone()),
        Provider::AzureDevops => {
            add("Authorization", format!("Basic {}", STANDARD.encode(format!("any:{}", hook.secret))));
        }
        Provider::Generic => {
            let time = (now.as_micros() / 1_000_000).to_string();
            add("Cooper-Signature", format!("v1={}", digest(&[time.as_bytes(), b".", body])));
            add("Cooper-Timestamp", time);
        }
    }
    headers
}

/// A request that was made after a forge's documentation, without a signature.
fn fixture(name: &str) -> (Vec<(String, String)>, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../cooper-forge/tests/fixtures/{name}.http"));
    let text = std::fs::read_to_string(path).expect("a fixture");
    let (head, body) = text.split_once("\n\n").expect("a head and a body");
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_owned(), value.to_owned())
    };
    (head.lines().map(header).collect(), body.as_bytes().to_vec())
}

fn push(repository: &str, delivery: &str, branch: &str, commit: char) -> serde_json::Value {
    json!({"delivery": delivery, "repository": repository, "ref": format!("refs/heads/{branch}"),
        "before": "0".repeat(40), "after": commit.to_string().repeat(40)})
}

const REPOSITORY: &str = "https://git.example/team/app.git";

#[tokio::test]
async fn what_each_forge_sends_starts_its_task_once() {
    let world = World::new().await;
    for (name, context, provider, sent) in [
        ("github", "https://github.com/acme/shop.git", Provider::GitHub, &["push", "tag", "pull-request-opened"][..]),
        ("gitlab", "https://gitlab.example/team/app.git", Provider::GitLab, &["push", "tag", "merge-request-open"][..]),
        ("gitea", "http://git.example:3000/team/app.git", Provider::Gitea, &["push", "tag", "pull-request-opened"][..]),
        (
            "bb-cloud",
            "https://bitbucket.org/acme/shop.git",
            Provider::BitbucketCloud,
            &["push", "pull-request-created", "pull-request-updated-fork"][..],
        ),
        (
            "bb-server",
            "https://bitbucket.example/scm/shop/app.git",
            Provider::BitbucketServer,
            &["refs-changed", "pull-request-opened", "pull-request-updated-fork"][..],
        ),
        (
            "azure",
            "https://dev.azure.com/acme/My%20Shop/_git/app",
            Provider::AzureDevops,
            &["push", "pull-request-fork"][..],
        ),
        ("generic", REPOSITORY, Provider::Generic, &["push", "tag", "push-from-a-shell"][..]),
    ] {
        let before = world.runs().await.len();
        let hook = world.task(name, context, json!({"provider": provider.as_str(), "skipCi": false})).await;
        assert_eq!(hook.provider, provider);
        for fixture_name in sent {
            let (headers, body) = fixture(&format!("{provider}/{fixture_name}"));
            let headers = signed(&hook, headers, &body, world.clock.now());
            let answer = world.take(&hook, &headers, &body).await;
            assert_eq!(answer.status, ReceiptStatus::Kept, "{name} {fixture_name}: {answer:?}");
            let answer = world.take(&hook, &headers, &body).await;
            assert_eq!(answer.status, ReceiptStatus::Repeated, "{name} {fixture_name}");
        }
        world.pass().await;
        let deliveries = world.hooks(name).await.deliveries;
        assert_eq!(deliveries.len(), sent.len(), "{name}");
        let mut started = 0;
        for delivery in &deliveries {
            let outcomes = delivery.outcomes.as_ref().expect("worked off");
            started += outcomes.iter().filter(|outcome| outcome.run_id.is_some()).count();
            let is_fork = outcomes.iter().any(|outcome| outcome.rule.as_deref() == Some("fork"));
            let has_run = outcomes.iter().any(|outcome| outcome.run_id.or(outcome.known_run_id).is_some());
            assert!(is_fork || has_run, "{name}: {delivery:?}");
        }
        let runs = world.runs().await;
        assert_eq!(runs.len() - before, started, "{name}");
        for run in &runs[before..] {
            let Cause::Source(cause) = &run.origin.cause else { panic!("{name}: {:?}", run.origin) };
            assert_eq!((cause.provider, run.principal.as_str()), (provider, "ann"));
            let location = run.source.as_ref().expect("a source").location().to_string();
            let is_tag = location.ends_with("#refs/tags/v3") || location.ends_with("#refs/tags/v4");
            assert!(is_tag || location.ends_with(&format!("#{}", cause.firing.commit)), "{name}: {location}");
        }
    }
}

#[tokio::test]
async fn who_does_not_have_the_secret_leaves_nothing() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "d1", "main", 'a'));
    let other = Known { secret: "guessed".to_owned(), ..hook.clone() };
    let (wrong, _) = world.generic(&other, &push(REPOSITORY, "d1", "main", 'a'));
    let mut altered = body.clone();
    altered.push(b' ');
    for (headers, body, expect) in [
        (&wrong, &body, "was not made with the hook's secret"),
        (&headers, &altered, "was not made with the hook's secret"),
        (&Vec::new(), &body, "has no `Cooper-Signature` header"),
    ] {
        let (status, text) = world.deliver(&hook, headers, body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{text}");
        assert!(text.contains("not signed with the hook's secret") && !text.contains("token"), "{text}");
        assert!(text.contains(expect), "{text}");
    }
    for id in ["0".repeat(32), "x".to_owned(), "A".repeat(32)] {
        let (status, text) = world.deliver(&Known { id, ..hook.clone() }, &headers, &body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{text}");
    }
    world.clock.advance(Duration::from_secs(301));
    let (status, text) = world.deliver(&hook, &headers, &body).await;
    assert_eq!((status, text.contains("more than 300 s")), (StatusCode::UNAUTHORIZED, true), "{text}");
    let large = vec![b' '; cooper_forge::MAX_BODY + 1];
    let (status, text) = world.deliver(&hook, &headers, &large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
    world.pass().await;
    assert_eq!(world.runs().await.len(), 0);
    let hooks = world.hooks("nightly").await;
    assert_eq!((hooks.deliveries.len(), hooks.value[0].refused, hooks.value[0].kept), (0, 5, 0));
    assert!(hooks.value[0].why.as_deref().is_some_and(|why| why.contains("16 MiB")), "{hooks:?}");
    assert!(hooks.value[0].hook.secret.is_none());
    let metrics = world.core.metrics.text(&[], 0);
    assert!(metrics.contains("cooper_hook_deliveries_total{outcome=\"unsigned\"} 4"), "{metrics}");
    assert!(metrics.contains("cooper_hook_deliveries_total{outcome=\"unknown\"} 3"), "{metrics}");
}

#[tokio::test]
async fn what_is_not_for_the_task_is_passed_over_and_what_a_rule_refuses_is_kept() {
    let world = World::new().await;
    let more = json!({"branches": ["main"], "paths": ["src"], "events": ["commit"]});
    let hook = world.task("nightly", REPOSITORY, more).await;
    let mut docs = push(REPOSITORY, "docs", "main", 'a');
    docs["before"] = json!("b".repeat(40));
    docs["files"] = json!(["docs/a.md"]);
    let mut skipped = push(REPOSITORY, "skip", "main", 'c');
    skipped["message"] = json!("x [skip ci]");
    let tag = json!({"delivery": "tag", "repository": REPOSITORY, "ref": "refs/tags/v1", "before": null,
        "after": "c".repeat(40)});
    let ping = json!({"delivery": "ping", "event": "ping"});
    for (body, status, why) in [
        (push(REPOSITORY, "branch", "topic", 'a'), ReceiptStatus::PassedOver, "branch topic is not one of `main`"),
        (push("https://git.example/team/other.git", "place", "main", 'a'), ReceiptStatus::PassedOver, "the task's is"),
        (tag, ReceiptStatus::PassedOver, "does not listen to tags"),
        (ping, ReceiptStatus::PassedOver, "tried the hook"),
        (docs, ReceiptStatus::Kept, ""),
        (skipped, ReceiptStatus::Kept, ""),
    ] {
        let (headers, body) = world.generic(&hook, &body);
        let answer = world.take(&hook, &headers, &body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.detail.as_deref().unwrap_or_default().contains(why), "{answer:?}");
    }
    world.pass().await;
    assert_eq!(world.runs().await.len(), 0);
    let hooks = world.hooks("nightly").await;
    let told: Vec<_> =
        hooks.deliveries.iter().map(|delivery| (delivery.id.as_str(), delivery.outcomes.as_ref())).collect();
    let [("skip", Some(skip)), ("docs", Some(docs))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((skip[0].rule.as_deref(), docs[0].rule.as_deref()), (Some("skip-ci"), Some("paths")));
    assert_eq!((hooks.value[0].kept, hooks.value[0].passed_over), (2, 4));
}

#[tokio::test]
async fn an_event_starts_a_task_once_whoever_tells_of_it_and_whatever_dies() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let deliver = async |world: &World, delivery: &str, commit: char| {
        let (headers, body) = world.generic(&hook, &push(REPOSITORY, delivery, "main", commit));
        world.take(&hook, &headers, &body).await
    };
    assert_eq!(deliver(&world, "one", 'a').await.status, ReceiptStatus::Kept);
    // Answered and not worked on: the server stops here.
    let world = world.restarted().await;
    world.pass().await;
    assert_eq!(world.runs().await.len(), 1);
    assert_eq!(deliver(&world, "one", 'a').await.status, ReceiptStatus::Repeated);
    // The same under another id, as a second hook or a forger who has seen it would send it.
    assert_eq!(deliver(&world, "two", 'a').await.status, ReceiptStatus::Kept);
    world.pass().await;
    assert_eq!(world.runs().await.len(), 1);
    let run = world.runs().await[0].id;
    let outcomes = world.hooks("nightly").await.deliveries[0].outcomes.clone().expect("worked off");
    assert_eq!(outcomes[0].known_run_id, Some(run));
    // Two of the same at once: the transaction decides.
    deliver(&world, "three", 'b').await;
    deliver(&world, "four", 'b').await;
    let (one, other) = tokio::join!(settle(&world.core), settle(&world.core));
    assert!(!one && !other);
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_secret_is_replaced_with_a_day_for_the_one_before() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let (status, text) = world.call("POST", &format!("/api/v1/tasks/nightly/hooks/{}/secret", hook.id), None).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let view: serde_json::Value = serde_json::from_str(&text).expect("json");
    let new = Known { secret: view["secret"].as_str().expect("it is told").to_owned(), ..hook.clone() };
    assert_ne!(new.secret, hook.secret);
    for (hook, delivery) in [(&hook, "old"), (&new, "new")] {
        let (headers, body) = world.generic(hook, &push(REPOSITORY, delivery, "main", 'a'));
        assert_eq!(world.take(hook, &headers, &body).await.status, ReceiptStatus::Kept);
    }
    world.clock.advance(Duration::from_secs(24 * 3600));
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "late", "main", 'b'));
    assert_eq!(world.deliver(&hook, &headers, &body).await.0, StatusCode::UNAUTHORIZED);
    let (headers, body) = world.generic(&new, &push(REPOSITORY, "last", "main", 'b'));
    assert_eq!(world.take(&new, &headers, &body).await.status, ReceiptStatus::Kept);
    // No answer but the one that made it has a secret, and the database has none in clear.
    let (_, text) = world.call("GET", "/api/v1/tasks/nightly", None).await;
    assert!(text.contains(&hook.id) && !text.contains(&new.secret) && !text.contains("\"secret\""), "{text}");
    let is_sealed = || expect_sealed(world.data.path(), &hook.id, &[&hook.secret, &new.secret]);
    is_sealed();
    world.store.close().await.expect("closed");
    is_sealed();
}

#[tokio::test]
async fn a_hook_stays_while_a_trigger_needs_it_and_goes_with_the_last() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let patch = async |change: serde_json::Value| -> TaskView {
        let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("a task")
    };
    let changed = patch(json!({"sourceTriggers": {"t": {"branches": ["other"]}}})).await;
    assert_eq!((changed.hooks[0].id.as_str(), changed.hooks[0].secret.as_ref()), (hook.id.as_str(), None));
    let changed = patch(json!({"sourceTriggers": {"u": {"provider": "github"}}})).await;
    let providers: Vec<_> = changed.hooks.iter().map(|hook| (hook.provider.as_str(), hook.secret.is_some())).collect();
    assert_eq!(providers, [("generic", false), ("github", true)]);
    let changed = patch(json!({"sourceTriggers": {"t": null}})).await;
    assert_eq!(changed.hooks.len(), 1);
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "d", "other", 'a'));
    assert_eq!(world.deliver(&hook, &headers, &body).await.0, StatusCode::NOT_FOUND);
}
