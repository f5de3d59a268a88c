//! Forges and repositories that are, or lead to, where the server may not go.

use std::sync::atomic::{AtomicUsize, Ordering};

use cooper_e2e::{Follows, Trap};
use cooper_types::TaskName;
use url::Url;

use super::*;

/// What names a host in a URL: its address in the usual form, and its port.
fn authority(host: &str) -> String {
    let url = Url::parse(&format!("http://{host}/")).expect("a URL");
    format!("{}:{}", url.host_str().expect("a host"), url.port_or_known_default().expect("a port"))
}

/// A world beside a trap, whose tasks have names of their own.
struct Beside {
    world: World,
    tasks: AtomicUsize,
}

impl Beside {
    async fn new(trap: &Trap) -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let (core, store) = testing::core_beside(trap, data.path(), Some(clock.clone())).await;
        Self { world: World::over(core, store, clock, data).await, tasks: AtomicUsize::new(0) }
    }

    /// A task whose repository is at this host, with a token for it.
    async fn task(&self, host: &str) -> (String, Known) {
        let name = format!("nightly-{}", self.tasks.fetch_add(1, Ordering::Relaxed));
        let context = format!("http://{host}/acme/shop.git");
        let hook = self.world.task(&name, &context, json!({"provider": "github", "skipCi": false})).await;
        let path = format!("/api/v1/tasks/{name}/credentials/{}", authority(host));
        let (status, text) = self.world.call("PUT", &path, Some(json!({"username": "git", "password": "t0ken"}))).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        (name, hook)
    }
}

#[tokio::test]
async fn no_forge_leads_inside_when_hooks_are_registered() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let register = async |host: &str| {
        let (task, _) = beside.task(host).await;
        crate::hooks::registering::pass(&beside.world.core).await.expect("store");
        let registration = beside.world.hooks(&task).await.value.remove(0).registration.expect("it can be asked");
        registration.fault.unwrap_or_default()
    };
    trap.try_way("registration", Follows::Redirects, "--allow-source", register).await;
}

#[tokio::test]
async fn no_forge_leads_inside_when_it_is_told_of_runs() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let tell_one = async |host: &str| {
        let (task, hook) = beside.task(host).await;
        let (headers, body) = fixture("github/push");
        let text = String::from_utf8(body).expect("text");
        let body = text.replace("https://github.com", &format!("http://{}", authority(host))).into_bytes();
        let world = &beside.world;
        world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
        world.pass().await;
        statuses::pass(&world.core).await.expect("store");
        let task = TaskName::parse(&task).expect("valid");
        let told = world.core.statuses.list_statuses(&task, Timestamp::from_micros(0), 10).await.expect("store");
        let [told] = &told[..] else { panic!("{host}: {told:?}") };
        assert_eq!(told.due, None, "it is no use to try again");
        told.fault.clone().unwrap_or_default()
    };
    let tell = async |host: &str| {
        let told = tell_one(host).await;
        // What is not led on has to ask for the address once more.
        if host.starts_with("rebind") { tell_one(host).await } else { told }
    };
    trap.try_way("status", Follows::Nothing, "--allow-source", tell).await;
}

#[tokio::test]
async fn no_repository_leads_inside_when_it_is_looked_at() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let look = async |host: &str| {
        let (task, _) = beside.task(host).await;
        missed::look(&beside.world.core, true, None).await.expect("store");
        let (status, text) = beside.world.call("DELETE", &format!("/api/v1/tasks/{task}"), None).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
        // It says so in the server's log; what Git says is told by the crate that asks.
        "it is skipped: which is not public, or a redirect (--allow-source)".to_owned()
    };
    trap.try_way("branches", Follows::Redirects, "--allow-source", look).await;
}
