//! Hooks at a forge: an HTTP server on loopback that keeps hooks as GitHub does, asked over the real guarded client.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::IntoResponse as _;
use cooper_api::rest::{HookSetup, RegistrationStatus, RegistrationView};
use cooper_engine::task::Task;
use serde_json::Value;

use super::*;

/// What a forge keeps.
#[derive(Default)]
struct Kept {
    hooks: Mutex<Vec<Value>>,
    /// What it answers to everything, if that is not 0.
    refuses: AtomicU16,
    asked: AtomicUsize,
    /// Whether Git wants a login.
    is_private: AtomicBool,
    /// What was shown for one.
    tokens: Mutex<BTreeSet<String>>,
    /// Its open pull requests.
    pulls: Mutex<Vec<Value>>,
    /// Its branches and tags, and what they point at.
    references: Mutex<Vec<(&'static str, char)>>,
}

pub(super) struct Forge {
    pub(super) authority: String,
    kept: Arc<Kept>,
}

impl Forge {
    pub(super) async fn start() -> Self {
        let kept = Arc::new(Kept::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = listener.local_addr().expect("an address").to_string();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&kept));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { authority, kept }
    }

    pub(super) fn refuse(&self, status: u16) {
        self.kept.refuses.store(status, Ordering::SeqCst);
    }

    /// Has these pull requests open.
    pub(super) fn show(&self, pulls: Vec<Value>) {
        *self.kept.pulls.lock().expect("no panic") = pulls;
    }

    /// Has these branches and tags, by their full names; what a tag leads to is called like it with `^{}`.
    pub(super) fn point(&self, references: &[(&'static str, char)]) {
        *self.kept.references.lock().expect("no panic") = references.to_vec();
    }

    /// Has Git ask for a login from now on.
    pub(super) fn close(&self) {
        self.kept.is_private.store(true, Ordering::SeqCst);
    }

    /// What it was shown.
    pub(super) fn shown(&self) -> BTreeSet<String> {
        self.kept.tokens.lock().expect("no panic").clone()
    }

    pub(super) fn asked(&self) -> usize {
        self.kept.asked.load(Ordering::SeqCst)
    }

    /// Its hooks: URL, secret, events.
    fn hooks(&self) -> Vec<(String, String, Value)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let hooks = self.kept.hooks.lock().expect("no panic");
        let of = |hook: &Value| (text(&hook["config"]["url"]), text(&hook["config"]["secret"]), hook["events"].clone());
        hooks.iter().map(of).collect()
    }
}

async fn answer(
    State(kept): State<Arc<Kept>>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: axum::body::Bytes,
) -> axum::response::Response {
    let number = kept.asked.fetch_add(1, Ordering::SeqCst);
    let shown = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    kept.tokens.lock().expect("no panic").insert(shown.to_owned());
    let status = kept.refuses.load(Ordering::SeqCst);
    if status != 0 {
        let said = Json(json!({"message": "not now"}));
        return (StatusCode::from_u16(status).expect("valid"), said).into_response();
    }
    let mut hooks = kept.hooks.lock().expect("no panic");
    let path = uri.path();
    if path.ends_with("/info/refs") {
        if kept.is_private.load(Ordering::SeqCst) && shown.is_empty() {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"git\"")]).into_response();
        }
        let references = kept.references.lock().expect("no panic").clone();
        return advertised(&references);
    }
    if (&method, path) == (&Method::GET, "/api/v3/repos/acme/shop/pulls") {
        return Json(kept.pulls.lock().expect("no panic").clone()).into_response();
    }
    if path == "/acme/shop/_apis/git/repositories/app/pullrequests" {
        return Json(json!({"value": kept.pulls.lock().expect("no panic").clone()})).into_response();
    }
    match (method, path.to_ascii_lowercase().strip_prefix("/api/v3/repos/acme/shop/hooks")) {
        (Method::GET, Some("")) => Json(hooks.clone()).into_response(),
        (Method::POST, Some("")) => {
            let mut hook: Value = serde_json::from_slice(&body).expect("json");
            hook["id"] = json!(number + 100);
            hook["type"] = json!("Repository");
            hooks.push(hook.clone());
            (StatusCode::CREATED, Json(hook)).into_response()
        }
        (Method::PATCH, Some(id)) => {
            let change: Value = serde_json::from_slice(&body).expect("json");
            let Some(hook) = hooks.iter_mut().find(|hook| format!("/{}", hook["id"]) == id) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            (hook["events"], hook["config"]) = (change["events"].clone(), change["config"].clone());
            Json(hook.clone()).into_response()
        }
        (Method::DELETE, Some(id)) => {
            hooks.retain(|hook| format!("/{}", hook["id"]) != id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What a Git server of the older protocol says.
fn advertised(references: &[(&str, char)]) -> axum::response::Response {
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let mut body = line("# service=git-upload-pack\n") + "0000";
    for (index, (name, digit)) in references.iter().enumerate() {
        let capabilities = if index == 0 { "\0ofs-delta" } else { "" };
        body += &line(&format!("{} {name}{capabilities}\n", digit.to_string().repeat(40)));
    }
    let media = [("content-type", "application/x-git-upload-pack-advertisement")];
    (media, body + "0000").into_response()
}

impl World {
    async fn registered(&self) {
        assert_eq!(crate::hooks::registering::pass(&self.core).await.expect("store"), None, "nothing is left to do");
    }

    /// Who sets a task's hook at its forge.
    async fn setup(&self, task: &str) -> HookSetup {
        self.hooks(task).await.value.remove(0).hook.setup
    }

    async fn registration(&self, task: &str) -> RegistrationView {
        self.hooks(task).await.value.remove(0).registration.expect("the forge can be asked")
    }

    pub(super) async fn give_token(&self, task: &str, forge: &Forge) {
        let path = format!("/api/v1/tasks/{task}/credentials/{}", forge.authority);
        let (status, text) = self.call("PUT", &path, Some(json!({"username": "git", "password": "t0ken"}))).await;
        assert_eq!(status, StatusCode::OK, "{text}");
    }
}

/// A task whose repository is at this forge.
async fn task_at(world: &World, forge: &Forge) -> Known {
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github"})).await
}

#[tokio::test]
async fn a_hook_is_registered_renewed_and_removed_with_its_task() {
    let (world, forge) = (World::new().await, Forge::start().await);
    // Somebody else's, which stays.
    forge
        .kept
        .hooks
        .lock()
        .expect("no panic")
        .push(json!({"id": 1, "events": [], "config": {"url": "https://x.example/hooks/1"}}));
    let hook = task_at(&world, &forge).await;
    world.registered().await;
    let view = world.registration("nightly").await;
    let fault = format!("the task keeps no token for {}", forge.authority);
    assert_eq!((view.status, view.fault), (RegistrationStatus::Failed, Some(fault)));
    assert_eq!((forge.asked(), world.setup("nightly").await), (0, HookSetup::LacksToken));

    world.give_token("nightly", &forge).await;
    assert_eq!(world.setup("nightly").await, HookSetup::Server);
    assert_eq!(world.registration("nightly").await.status, RegistrationStatus::Waiting);
    world.registered().await;
    let url = format!("https://ci.example/hooks/{}", hook.id);
    let own = |forge: &Forge| forge.hooks().into_iter().skip(1).collect::<Vec<_>>();
    assert_eq!(own(&forge), [(url.clone(), hook.secret.clone(), json!(["push", "pull_request"]))]);
    let view = world.registration("nightly").await;
    assert_eq!(
        (view.status, view.fault, view.registered),
        (RegistrationStatus::Registered, None, Some(world.clock.now()))
    );
    assert_eq!(*forge.kept.tokens.lock().expect("no panic"), BTreeSet::from(["Bearer t0ken".to_owned()]));

    // What changes nothing at the forge asks nothing of it.
    let asked = forge.asked();
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(json!({"priority": 3}))).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    world.registered().await;
    assert_eq!(forge.asked(), asked);

    let (_, text) = world.call("POST", &format!("/api/v1/tasks/nightly/hooks/{}/secret", hook.id), None).await;
    let new: Value = serde_json::from_str(&text).expect("json");
    world.registered().await;
    let secret = new["secret"].as_str().expect("it is told").to_owned();
    assert_eq!(own(&forge), [(url.clone(), secret.clone(), json!(["push", "pull_request"]))]);
    let change = json!({"sourceTriggers": {"t": {"provider": "github", "events": ["commit"], "branches": ["**"]}}});
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    world.registered().await;
    assert_eq!(own(&forge), [(url, secret.clone(), json!(["push"]))]);
    // The server has moved.
    world.core.registrations.recall_registrations("https://other.example").await.expect("store");
    assert_eq!(world.registration("nightly").await.status, RegistrationStatus::Waiting);
    world.registered().await;
    assert_eq!(own(&forge).len(), 1);

    // The forge is away while the task goes: its token is kept until the hook is gone there.
    forge.refuse(503);
    let (status, text) = world.call("DELETE", "/api/v1/tasks/nightly", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    let next = crate::hooks::registering::pass(&world.core).await.expect("store");
    assert_eq!((next, own(&forge).len()), (Some(world.clock.now().after(Duration::from_secs(10))), 1));
    forge.refuse(0);
    let world = world.restarted().await;
    world.clock.advance(Duration::from_secs(10));
    world.registered().await;
    assert_eq!(forge.hooks().len(), 1, "somebody else's stays");
}

#[tokio::test]
async fn a_token_for_a_forge_of_no_kind_is_said_to_be_of_no_use_there() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({})).await;
    assert_eq!(world.setup("nightly").await, HookSetup::Hand);
    world.give_token("nightly", &forge).await;
    assert_eq!(world.setup("nightly").await, HookSetup::LacksForge);
    let change = json!({"sourceTriggers": {"t": {"provider": "github", "events": ["commit"], "branches": ["**"]}}});
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(world.setup("nightly").await, HookSetup::Server);
}

#[tokio::test]
async fn a_forge_that_refuses_or_is_away_keeps_no_task_from_being_made() {
    let (world, forge) = (World::new().await, Forge::start().await);
    forge.refuse(403);
    let hook = task_at(&world, &forge).await;
    world.give_token("nightly", &forge).await;
    world.registered().await;
    let view = world.registration("nightly").await;
    let fault = view.fault.expect("a reason");
    assert!(
        view.status == RegistrationStatus::Failed && fault.contains("(403); it needs") && !fault.contains("not now"),
        "{fault}"
    );
    let asked = forge.asked();
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.registered().await;
    assert_eq!(forge.asked(), asked, "what is refused is not repeated");

    // Another token is tried at once, and a forge that is away again later.
    forge.refuse(502);
    world.give_token("nightly", &forge).await;
    for pause in [10, 20, 40] {
        let next = crate::hooks::registering::pass(&world.core).await.expect("store");
        assert_eq!(next, Some(world.clock.now().after(Duration::from_secs(pause))));
        world.clock.advance(Duration::from_secs(pause));
    }
    let view = world.registration("nightly").await;
    assert!(view.status == RegistrationStatus::Waiting && view.fault.is_some(), "{view:?}");
    forge.refuse(0);
    world.registered().await;
    assert_eq!(forge.hooks().len(), 1);

    // Another repository: the hook leaves the first one's forge and goes to the second one's.
    let second = Forge::start().await;
    let step = json!({"type": "Docker", "contextPath": format!("http://{}/acme/shop.git", second.authority)});
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(json!({"step": step}))).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    world.give_token("nightly", &second).await;
    world.registered().await;
    assert_eq!((forge.hooks().len(), second.hooks().len()), (0, 1));
    // A trigger that is no longer there: so is its hook.
    let (status, text) =
        world.call("PATCH", "/api/v1/tasks/nightly", Some(json!({"sourceTriggers": {"t": null}}))).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    world.registered().await;
    assert_eq!(second.hooks().len(), 0);
    assert!(world.deliver(&hook, &[], b"").await.0 == StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nothing_is_registered_where_the_forge_takes_nothing_or_may_not_be_reached() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({})).await;
    assert!(world.hooks("nightly").await.value[0].registration.is_none());
    world.registered().await;
    world.task("inside", "http://10.1.2.3/acme/shop.git", json!({"provider": "gitea"})).await;
    let token = json!({"username": "git", "password": "t0ken"});
    let (status, text) = world.call("PUT", "/api/v1/tasks/inside/credentials/10.1.2.3:80", Some(token)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    world.registered().await;
    let view = world.registration("inside").await;
    let fault = view.fault.expect("a reason");
    assert!(view.status == RegistrationStatus::Failed && fault.contains("--allow-source"), "{fault}");
}

#[tokio::test]
async fn a_hook_stays_where_only_the_spelling_of_its_repository_changes() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let hook = task_at(&world, &forge).await;
    world.give_token("nightly", &forge).await;
    world.registered().await;
    for (spelling, status) in [("acme/Shop.git", 0), ("Acme/Shop.git", 503)] {
        let step = json!({"type": "Docker", "contextPath": format!("http://{}/{spelling}", forge.authority)});
        let (answer, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(json!({"step": step}))).await;
        assert_eq!(answer, StatusCode::OK, "{text}");
        forge.refuse(status);
        crate::hooks::registering::pass(&world.core).await.expect("store");
        forge.refuse(0);
        world.clock.advance(Duration::from_secs(10));
        world.registered().await;
        world.clock.advance(Duration::from_secs(24 * 3600));
        world.registered().await;
        assert_eq!(forge.hooks().len(), 1, "{spelling}");
        assert!(forge.hooks()[0].0.ends_with(&hook.id));
        let view = world.registration("nightly").await;
        assert_eq!((view.status, view.fault), (RegistrationStatus::Registered, None), "{spelling}");
    }
}

#[tokio::test]
async fn a_task_of_an_earlier_release_is_registered_at_the_next_start() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let hook = task_at(&world, &forge).await;
    // As that release kept it.
    let name = cooper_types::TaskName::parse("nightly").expect("valid");
    let record = world.core.tasks.find_task(&name).await.expect("store").expect("a task");
    let replaces = Some(record.task.generation);
    let task = Task { generation: record.task.generation + 1, ..record.task };
    let (secrets, all_secrets, hooks, registrations) = (Vec::new(), BTreeSet::new(), Vec::new(), Vec::new());
    let put = cooper_ports::tasks::PutTask { task, secrets, all_secrets, replaces, hooks, registrations };
    world.core.tasks.put_task(put).await.expect("kept");
    assert!(world.hooks("nightly").await.value[0].registration.is_none());
    crate::hooks::registering::recall(&world.core).await.expect("store");
    let view = world.registration("nightly").await;
    assert!(view.status == RegistrationStatus::Failed && view.fault.is_some_and(|fault| fault.contains("no token")));
    world.give_token("nightly", &forge).await;
    crate::hooks::registering::recall(&world.core).await.expect("store");
    world.registered().await;
    assert_eq!(forge.hooks().len(), 1);
    assert!(forge.hooks()[0].0.ends_with(&hook.id));
    crate::hooks::registering::recall(&world.core).await.expect("store");
    assert_eq!(world.registration("nightly").await.status, RegistrationStatus::Registered);
}

#[tokio::test]
async fn a_token_that_is_taken_away_is_not_used_to_remove_a_hook() {
    let (world, forge) = (World::new().await, Forge::start().await);
    task_at(&world, &forge).await;
    world.give_token("nightly", &forge).await;
    world.registered().await;
    forge.refuse(503);
    let change = json!({"sourceTriggers": {"t": null}});
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(crate::hooks::registering::pass(&world.core).await.expect("store").is_some(), "it is tried again");
    let path = format!("/api/v1/tasks/nightly/credentials/{}", forge.authority);
    let (status, text) = world.call("DELETE", &path, None).await;
    assert!(status.is_success(), "{status} {text}");
    forge.refuse(0);
    let asked = forge.asked();
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.registered().await;
    assert_eq!((forge.asked(), forge.hooks().len()), (asked, 1));
}
