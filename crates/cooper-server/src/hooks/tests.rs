//! Deliveries over the router and a real store: what each kind of forge sends, who is believed, and what starts once.

mod bounds;
mod inside;
mod missing;
mod page;
mod registering;
mod whose;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::rest::{DeliveryAnswer, DeliveryStatus, HookList, NotificationList, ReceiptStatus, TaskView};
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
        let query = RunQuery {
            statuses: vec![],
            run_type: None,
            task: None,
            principal: None,
            image: None,
            before: None,
            limit: 1000,
        };
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
    let (data, secret) = (world.data.path().join("cooper.db"), new.secret.clone());
    world.store.close().await.expect("closed");
    let bytes = std::fs::read(&data).unwrap_or_default();
    assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
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

#[tokio::test]
async fn a_pull_requests_new_commit_ends_the_runs_of_its_earlier_ones() {
    let world = World::new().await;
    let context = "https://github.com/acme/shop.git";
    let hook = world.task("nightly", context, json!({"cancelSuperseded": true})).await;
    let (headers, opened) = fixture("github/pull-request-opened");
    let deliver = async |headers: &[(String, String)], body: &[u8], id: &str| {
        let mut headers = signed(&hook, headers.to_vec(), body, world.clock.now());
        headers.retain(|(name, _)| name != "X-GitHub-Delivery");
        headers.push(("X-GitHub-Delivery".to_owned(), id.to_owned()));
        assert_eq!(world.take(&hook, &headers, body).await.status, ReceiptStatus::Kept);
        world.pass().await;
    };
    deliver(&headers, &opened, "1").await;
    let first = world.runs().await.pop().expect("a run");
    let Cause::Source(cause) = &first.origin.cause else { panic!("{:?}", first.origin) };
    let newer = String::from_utf8(opened.clone()).expect("text").replace(cause.firing.commit.as_str(), &"9".repeat(40));
    deliver(&headers, newer.as_bytes(), "2").await;
    let runs = world.runs().await;
    assert_eq!(runs.iter().map(Run::status).collect::<Vec<_>>(), [RunStatus::Canceled, RunStatus::Queued]);
    // What a crash had left is found at the next start.
    supersede::everywhere(&world.core).await.expect("store");
    assert_eq!(world.runs().await[1].status(), RunStatus::Queued);
}

#[tokio::test]
async fn a_forks_pull_request_runs_as_nobody_in_a_marked_pool_or_not_at_all() {
    let world = World::new().await;
    let deliver = async |hook: &Known| {
        let (headers, body) = fixture("github/pull-request-fork");
        let headers = signed(hook, headers, &body, world.clock.now());
        assert_eq!(world.take(hook, &headers, &body).await.status, ReceiptStatus::Kept);
        world.pass().await;
    };
    let said = async |task: &str| {
        let delivery = world.hooks(task).await.deliveries.remove(0);
        let outcome = delivery.outcomes.expect("worked off").remove(0);
        (outcome.run_id, outcome.why_not.unwrap_or_default())
    };
    let pool = |name: &str| PoolName::parse(name).expect("valid");
    world.core.agent_store.create_pool(pool("strangers"), String::new(), true).await.expect("made");
    world.core.agent_store.create_pool(pool("ours"), String::new(), false).await.expect("made");
    let context = "https://github.com/acme/shop.git";
    for (task, more, why) in [
        ("refuses", json!({}), "the task runs no pull requests of forks"),
        ("wrong-pool", json!({"forkPool": "ours"}), "not marked for untrusted work"),
        ("no-pool", json!({"forkPool": "gone"}), "not marked for untrusted work"),
    ] {
        deliver(&world.task(task, context, more).await).await;
        let (run, said) = said(task).await;
        assert!(run.is_none() && said.contains(why), "{said}");
    }

    let trigger = json!({"t": {"events": ["pullrequest"], "forkPool": "strangers"}});
    let arguments = json!([{"name": "A", "value": "1"}, {"name": "TOKEN", "value": "hunter22", "isSecret": true}]);
    let docker = json!({"name": "builds", "sourceTriggers": trigger, "step": {"type": "Docker", "contextPath": context,
        "imageNames": ["app:1"], "arguments": arguments}});
    let file = json!({"name": "runs-file", "sourceTriggers": trigger,
        "step": {"type": "FileTask", "contextPath": context, "taskFilePath": "task.yaml"}});
    let mut builds = None;
    for task in [docker, file] {
        let (status, text) = world.call("POST", "/api/v1/tasks", Some(task)).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        let hook = known(&serde_json::from_str(&text).expect("a task"));
        deliver(&hook).await;
        builds.get_or_insert(hook);
    }
    let (run, why) = said("runs-file").await;
    let run = world.core.runs.find_run(run.expect(&why)).await.expect("store").expect("a run").run;
    assert!(run.origin.untrusted && run.scopes.0.is_empty(), "{:?}", run.scopes);
    defined_by(&run, "refs/heads/main");
    let (run, why) = said("builds").await;
    let id = run.expect(&why);
    let run = world.core.runs.find_run(id).await.expect("store").expect("a run").run;
    assert!(run.origin.untrusted && run.scopes.0.is_empty(), "{:?}", run.scopes);
    assert_eq!(run.pool, pool("strangers"));
    defined_by(&run, "refs/heads/main");
    let request = world.core.runs.find_request(id).await.expect("store").expect("a request").request;
    assert!(request.secrets().is_empty(), "{request:?}");
    let cooper_engine::run::KeptAsked::Build { build, .. } = &request.asked else { panic!("{request:?}") };
    assert!(!build.push && build.arguments.len() == 1, "{build:?}");

    // A new commit of it ends that run, whatever the trigger says of others.
    let Cause::Source(cause) = &run.origin.cause else { panic!("{:?}", run.origin) };
    let (mut headers, body) = fixture("github/pull-request-fork");
    let newer = String::from_utf8(body).expect("text").replace(cause.firing.commit.as_str(), &"9".repeat(40));
    headers.retain(|(name, _)| name != "X-GitHub-Delivery");
    headers.push(("X-GitHub-Delivery".to_owned(), "newer".to_owned()));
    let hook = builds.expect("it was made");
    let headers = signed(&hook, headers, newer.as_bytes(), world.clock.now());
    assert_eq!(world.take(&hook, &headers, newer.as_bytes()).await.status, ReceiptStatus::Kept);
    world.pass().await;
    let status = async |id: RunId| world.core.runs.find_run(id).await.expect("store").expect("a run").run.status();
    assert_eq!(status(id).await, RunStatus::Canceled);

    // Nor does it become more by being run again by hand.
    let (status, text) = world.call("POST", &format!("/api/v1/runs/{id}/rerun"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let run = world.runs().await.pop().expect("a run");
    assert!(run.origin.untrusted && run.scopes.0.is_empty() && run.pool == pool("strangers"), "{:?}", run.origin);
    defined_by(&run, "refs/heads/main");
}

/// The run's source is fetched with another place's definition.
fn defined_by(run: &Run, place: &str) {
    let cooper_spec::plan::Work::Prepare(work) = &run.plan.steps[0].work else { panic!("{:?}", run.plan) };
    assert_eq!(work.definition.as_deref(), Some(place));
}

fn listed(name: &str, at: char, peeled: Option<char>) -> ListedReference {
    let id = |digit: char| digit.to_string().repeat(40);
    ListedReference { name: name.to_owned(), id: id(at), peeled: peeled.map(id) }
}

/// Looks at what is in the repository of the task `nightly`, and tells whether something waits for the next look.
async fn look_at(world: &World, kind: ReferenceKind, list: Vec<ListedReference>) -> bool {
    let name = TaskName::parse("nightly").expect("valid");
    let task = world.core.tasks.find_task(&name).await.expect("store").expect("a task").task;
    let found = missed::listed(&task, kind, &list).expect("not too many");
    let look = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
    look.compare(&world.core, &task, kind, found).await.expect("store").waits
}

#[tokio::test]
async fn a_push_that_no_delivery_told_of_is_found_at_the_second_look() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"branches": ["main"]})).await;
    let look = async |branches: &[(&str, char)]| {
        let list = branches.iter().map(|(branch, at)| listed(&format!("refs/heads/{branch}"), *at, None)).collect();
        (look_at(&world, ReferenceKind::Branches, list).await, world.runs().await.len())
    };
    let deliver = async |delivery: &str, at: char, message: &str| {
        let mut body = push(REPOSITORY, delivery, "main", at);
        body["message"] = json!(message);
        let (headers, body) = world.generic(&hook, &body);
        world.take(&hook, &headers, &body).await;
        world.pass().await;
    };
    assert_eq!(look(&[("main", 'a'), ("topic", 'a')]).await, (false, 0), "what was there is no push");
    assert_eq!(look(&[("main", 'b'), ("topic", 'b')]).await, (true, 0), "its delivery may be on its way");
    assert_eq!(look(&[("main", 'b'), ("topic", 'b')]).await, (false, 1));
    assert_eq!(look(&[("main", 'b'), ("topic", 'b'), ("other", 'b')]).await, (false, 1));
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    assert_eq!((cause.delivery.as_ref(), cause.firing.commit.as_str()), (None, &*"b".repeat(40)));
    // What deliveries told of, and what a rule said no to.
    assert_eq!(look(&[("main", 'c')]).await, (true, 1));
    deliver("late", 'c', "x").await;
    assert_eq!(look(&[("main", 'c')]).await, (false, 2));
    deliver("skipped", 'd', "x [skip ci]").await;
    for _ in 0..2 {
        assert_eq!(look(&[("main", 'd')]).await, (false, 2));
    }
    // A delivery that comes after all makes no second run.
    deliver("very-late", 'b', "x").await;
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_forge_that_does_not_answer_keeps_no_other_from_being_told() {
    let (world, forge) = (World::new().await, registering::Forge::start().await);
    // It takes connections and says nothing.
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = slow.local_addr().expect("an address").to_string();
    let runs_at = async |task: &str, authority: &str, pushes: usize| {
        let context = format!("http://{authority}/acme/shop.git");
        let hook = world.task(task, &context, json!({"provider": "github", "skipCi": false})).await;
        let path = format!("/api/v1/tasks/{task}/credentials/{authority}");
        let token = json!({"username": "git", "password": "t0ken"});
        let (status, text) = world.call("PUT", &path, Some(token)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let (headers, body) = fixture("github/push");
        let text = String::from_utf8(body).expect("text").replace("https://github.com", &format!("http://{authority}"));
        for push in 0..pushes {
            let headers = headers.iter().map(|(name, value)| match name.as_str() {
                "X-GitHub-Delivery" => (name.clone(), format!("{task}-{push}")),
                _ => (name.clone(), value.clone()),
            });
            let body = text.replace(&"2".repeat(40), &format!("{:040x}", 0xabc_0000 + push)).into_bytes();
            let headers = signed(&hook, headers.collect(), &body, world.clock.now());
            assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
        }
        world.pass().await;
        world.clock.advance(Duration::from_secs(1));
    };
    runs_at("silent", &silent, 6).await;
    let due = world.core.statuses.due_statuses(world.clock.now(), 4, &[]).await.expect("store");
    assert_eq!((due.len(), due[0].host.as_str()), (4, silent.as_str()), "its share");
    assert_eq!(
        world.core.statuses.due_statuses(world.clock.now(), 4, std::slice::from_ref(&silent)).await.expect("store"),
        []
    );
    let core = Arc::clone(&world.core);
    let told = tokio::spawn(async move { statuses::pass(&core).await });
    // All that may be asked of it is asked, and waits.
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(slow.accept().await.expect("a connection"));
    }
    // What comes then is told while they wait.
    runs_at("nightly", &forge.authority, 1).await;
    world.core.hooks.tell.notify_one();
    let told_of = async |task: &str| {
        let name = TaskName::parse(task).expect("valid");
        world.core.statuses.list_statuses(&name, Timestamp::from_micros(0), 10).await.expect("store")
    };
    let is_told = async {
        while told_of("nightly").await[0].due.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), is_told).await.expect("it is told");
    assert_eq!(forge.asked(), 1);
    let silent = told_of("silent").await;
    assert!(silent.iter().all(|one| one.tries == 0), "they wait: {silent:?}");
    drop(taken);
    told.abort();
}

#[tokio::test]
async fn a_status_is_due_at_acceptance_and_at_the_end_and_needs_a_token() {
    let world = World::new().await;
    let hook = world.task("nightly", "https://github.com/acme/shop.git", json!({"skipCi": false})).await;
    let (headers, body) = fixture("github/push");
    world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    world.pass().await;
    let run = world.runs().await[0].id;
    let due = async || world.core.statuses.due_statuses(world.clock.now(), 10, &[]).await.expect("store");
    let first = due().await;
    assert_eq!(first.iter().map(|due| (due.run, due.want)).collect::<Vec<_>>(), [(run, 1)]);
    assert_eq!(statuses::pass(&world.core).await.expect("store"), None, "there is nobody to tell it to");
    assert_eq!(due().await, []);
    let end = RunEvent::CancelRequested { by: testing::principal("ann") };
    world.core.apply(run, end).await.expect("cancelled");
    let second = due().await;
    assert_eq!(second.iter().map(|due| (due.run, due.want, due.tries)).collect::<Vec<_>>(), [(run, 2, 0)]);
    // Who tells the first late does not hide the second.
    world.core.statuses.status_tried(&first[0], None, None).await.expect("store");
    assert_eq!(due().await, second);
    let later = world.clock.now().after(Duration::from_secs(10));
    world.core.statuses.status_tried(&second[0], Some(later), Some("away")).await.expect("store");
    assert_eq!((due().await, world.core.statuses.next_status().await.expect("store")), (Vec::new(), Some(later)));
    // What was given up is told once more when somebody asks for it.
    world.core.statuses.status_tried(&second[0], None, Some("no")).await.expect("store");
    let shown = async || {
        let (_, text) = world.call("GET", "/api/v1/tasks/nightly/notifications", None).await;
        serde_json::from_str::<NotificationList>(&text).expect("a list").value.remove(0)
    };
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    let view = shown().await;
    assert_eq!((view.state.as_deref(), view.commit_id.as_deref()), (Some("error"), Some(cause.firing.commit.as_str())));
    assert_eq!((view.status, view.reason.as_deref()), (DeliveryStatus::Failed, Some("no")));
    let redeliver = async |id: &str| {
        world.call("POST", &format!("/api/v1/tasks/nightly/notifications/{id}/redeliver"), None).await.0
    };
    assert_eq!(redeliver(&RunId::from_number(77).to_string()).await, StatusCode::NOT_FOUND);
    assert_eq!(redeliver(&run.to_string()).await, StatusCode::OK);
    let view = shown().await;
    assert_eq!((view.status, view.reason, view.attempts), (DeliveryStatus::Waiting, None, 0));
    assert_eq!(due().await.iter().map(|due| (due.run, due.want)).collect::<Vec<_>>(), [(run, 3)]);
}
