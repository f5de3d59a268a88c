//! Forges and repositories that are, or lead to, where the server may not go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cooper_api::rest::LookKind;
use cooper_e2e::{FileServer, Follows, Trap};
use cooper_ports::registrations::RegistrationTried;
use cooper_types::TaskName;
use url::Url;

use super::*;
use crate::hooks::forges::Refusal;

/// What names a host in a URL: its address in the usual form, and its port.
pub(super) fn authority(host: &str) -> String {
    let url = Url::parse(&format!("http://{host}/")).expect("a URL");
    format!("{}:{}", url.host_str().expect("a host"), url.port_or_known_default().expect("a port"))
}

/// A world beside a trap, whose tasks have names of their own.
pub(super) struct Beside {
    pub(super) world: World,
    tasks: AtomicUsize,
}

impl Beside {
    pub(super) async fn new(trap: &Trap) -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let (core, store) = testing::core_beside(trap, data.path(), Some(clock.clone())).await;
        Self { world: World::over(core, store, clock, data).await, tasks: AtomicUsize::new(0) }
    }

    /// A task whose repository is at this host and that listens to these events, with a token for the host.
    async fn task(&self, host: &str, events: &[&str]) -> (String, Known) {
        let name = format!("nightly-{}", self.tasks.fetch_add(1, Ordering::Relaxed));
        let context = format!("http://{host}/acme/shop.git");
        let trigger = json!({"provider": "github", "skipCi": false, "events": events});
        let hook = self.world.task(&name, &context, trigger).await;
        let path = format!("/api/v1/tasks/{name}/credentials/{}", authority(host));
        let (status, text) = self.world.call("PUT", &path, Some(json!({"username": "git", "password": "t0ken"}))).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        (name, hook)
    }

    /// A task for pull requests of an Azure DevOps at this host, with nothing that it could be shown.
    pub(super) async fn azure_task(&self, host: &str) -> (String, Known) {
        let name = format!("nightly-{}", self.tasks.fetch_add(1, Ordering::Relaxed));
        let context = format!("http://{host}/acme/shop/_git/app");
        let trigger = json!({"provider": "azure-devops", "events": ["pullrequest"]});
        let hook = self.world.task(&name, &context, trigger).await;
        (name, hook)
    }
}

const EVENTS: [&str; 3] = ["commit", "pullrequest", "tag"];

/// What an owner is told; where a name leads is not among it.
pub(super) fn told(host: &str, told: Option<String>) -> String {
    let told = told.unwrap_or_default();
    // A redirect says itself where it leads.
    if host.contains("localhost") && !host.starts_with("open.") {
        assert!(!told.contains("127.0.0.1") && !told.contains("7f00") && !told.contains("169.254"), "{host}: {told}");
    }
    told
}

#[tokio::test]
async fn no_forge_leads_inside_when_hooks_are_registered() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let register = async |host: &str| {
        let (task, _) = beside.task(host, &EVENTS).await;
        crate::hooks::registering::pass(&beside.world.core).await.expect("store");
        let registration = beside.world.hooks(&task).await.value.remove(0).registration.expect("it can be asked");
        told(host, registration.fault)
    };
    trap.try_way("registration", Follows::Redirects, "--allow-source", register).await;
    let has_no_hooks = |_: &str, head: &str| head.starts_with("GET ").then(|| FileServer::answer("200 OK", &[], b"[]"));
    trap.try_later("the hook itself", "--allow-source", has_no_hooks, register).await;
}

#[tokio::test]
async fn no_forge_leads_inside_when_hooks_are_removed() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let (core, own) = (&beside.world.core, Arc::new(Mutex::new(String::new())));
    let remove = async |host: &str| {
        let (task, hook) = beside.task(host, &EVENTS).await;
        own.lock().expect("no panic").clone_from(&hook.id);
        // As if the forge had it.
        let [due] = &core.registrations.due_registrations(core.clock.now(), 10).await.expect("store")[..] else {
            panic!("{host}: one is to be registered")
        };
        let registered = RegistrationTried::Registered { address: core.public_url.clone() };
        core.registrations.registration_tried(due, registered).await.expect("store");
        let (status, text) = beside.world.call("DELETE", &format!("/api/v1/tasks/{task}"), None).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
        let [due] = &core.registrations.due_registrations(core.clock.now(), 10).await.expect("store")[..] else {
            panic!("{host}: one is to be removed")
        };
        let refused = crate::hooks::registering::removed(core, due).await;
        let Err(Refusal::Never(why)) = refused else { panic!("{host}: it is no use to try again") };
        core.registrations.registration_tried(due, RegistrationTried::Forgotten).await.expect("store");
        told(host, Some(why))
    };
    trap.try_way("removal", Follows::Redirects, "--allow-source", remove).await;
    let listed = Arc::clone(&own);
    let has_the_hook = move |_: &str, head: &str| {
        let url = format!("https://ci.example/hooks/{}", listed.lock().expect("no panic"));
        let hooks = json!([{"id": 7, "active": true, "config": {"url": url}}]).to_string();
        head.starts_with("GET ").then(|| FileServer::answer("200 OK", &[], hooks.as_bytes()))
    };
    trap.try_later("the removal itself", "--allow-source", has_the_hook, remove).await;
}

#[tokio::test]
async fn no_forge_leads_inside_when_it_is_told_of_runs() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let tell_one = async |host: &str| {
        let (task, hook) = beside.task(host, &EVENTS).await;
        let (headers, body) = fixture("github/push");
        let text = String::from_utf8(body).expect("text");
        let body = text.replace("https://github.com", &format!("http://{}", authority(host))).into_bytes();
        let world = &beside.world;
        world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
        world.pass().await;
        statuses::pass(&world.core).await.expect("store");
        let task = TaskName::parse(&task).expect("valid");
        let rows = world.core.statuses.list_statuses(&task, Timestamp::from_micros(0), 10).await.expect("store");
        let [row] = &rows[..] else { panic!("{host}: {rows:?}") };
        assert_eq!(row.due, None, "it is no use to try again");
        told(host, row.fault.clone())
    };
    let tell = async |host: &str| {
        let told = tell_one(host).await;
        // What is not led on has to ask for the address once more.
        if host.starts_with("rebind") { tell_one(host).await } else { told }
    };
    trap.try_way("status", Follows::Nothing, "--allow-source", tell).await;
}

/// Tries a way to look at repositories: the owner is told why it came to nothing.
async fn look_beside(trap: &Trap, way: &str, kind: LookKind, events: &[&str]) {
    let beside = Beside::new(trap).await;
    let look = async |host: &str| {
        let (task, _) = beside.task(host, events).await;
        missed::look(&beside.world.core, Settings::DEFAULT_SOURCE_POLL, true, None).await.expect("store");
        let looks = beside.world.hooks(&task).await.looks;
        let [look] = &looks[..] else { panic!("{host}: {looks:?}") };
        assert_eq!(look.kind, kind);
        let why_not = beside.world.call("GET", &format!("/api/v1/tasks/{task}/refusals"), None).await.1;
        assert!(
            why_not.contains("that no webhook told of") || why_not.contains("for what no webhook told of"),
            "{why_not}"
        );
        let (status, text) = beside.world.call("DELETE", &format!("/api/v1/tasks/{task}"), None).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
        told(host, look.fault.clone())
    };
    trap.try_way(way, Follows::Redirects, "--allow-source", look).await;
}

#[tokio::test]
async fn no_repository_leads_inside_when_it_is_looked_at() {
    look_beside(&Trap::start(), "branches", LookKind::References, &["commit", "tag"]).await;
}

#[tokio::test]
async fn no_forge_leads_inside_when_it_is_asked_for_pull_requests() {
    look_beside(&Trap::start(), "pull requests", LookKind::PullRequests, &["pullrequest"]).await;
}
