//! Other registries, as real HTTP servers on this machine: how often, how many at a time, and with what they are asked.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_e2e::{Follows, Trap};
use cooper_types::{SecretBytes, SourceHost};
use serde_json::json;
use tokio::sync::{Barrier, Notify};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::super::poller::Poller;
use super::*;
use crate::api::{ApiState, router};

const EVERY: Duration = Duration::from_secs(600);

/// A registry: what it was asked, and what it says of each tag.
#[derive(Default)]
struct Registry {
    host: String,
    asked: Mutex<Vec<(String, Option<String>)>>,
    tags: Mutex<BTreeMap<String, Says>>,
    /// Whether everybody gets a token.
    is_open: AtomicBool,
    free: Notify,
}

#[derive(Clone)]
enum Says {
    Is(Digest, &'static str),
    Busy(&'static str),
    Missing,
    /// Answers to those alone who have a token.
    ToThoseLoggedIn(Digest),
    /// Answers when so many are asked for at a time.
    Together(Digest, Arc<Barrier>),
    /// Answers when it is set free.
    Slowly(Digest),
}

impl Registry {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let registry = Arc::new(Self { host, ..Self::default() });
        let shared = Arc::clone(&registry);
        let answer = move |request: Request| {
            let registry = Arc::clone(&shared);
            let shown = request.headers().get("if-none-match").map(|text| text.to_str().expect("text").to_owned());
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let login = request.headers().get("authorization").map(|text| text.to_str().expect("text").to_owned());
            async move {
                match path.as_str() {
                    "/token" => registry.log_in(login),
                    _ => registry.answer(&method, &path, shown, login).await,
                }
            }
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        registry
    }

    /// A token for whoever shows a right password, or nothing where everybody may see its images.
    fn log_in(&self, login: Option<String>) -> Response {
        self.asked.lock().expect("not poisoned").push(("token".to_owned(), login.clone()));
        let may = match &login {
            Some(login) => *login == basic("right"),
            None => self.is_open.load(Ordering::Relaxed),
        };
        match may {
            true => axum::Json(serde_json::json!({"token": "t"})).into_response(),
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    }

    async fn answer(&self, method: &Method, path: &str, shown: Option<String>, login: Option<String>) -> Response {
        let tag = path.strip_prefix("/v2/base/manifests/").unwrap_or_default().to_owned();
        assert_eq!(method, Method::HEAD);
        self.asked.lock().expect("not poisoned").push((tag.clone(), shown.clone()));
        let says = self.tags.lock().expect("not poisoned").get(&tag).cloned();
        let is = |digest: &Digest| [("docker-content-digest", digest.to_string())].into_response();
        match says.expect("a known tag") {
            Says::Is(_, etag) if shown.as_deref() == Some(etag) => StatusCode::NOT_MODIFIED.into_response(),
            Says::Is(digest, etag) => ([("etag", etag)], is(&digest)).into_response(),
            Says::Busy(after) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", after)]).into_response(),
            Says::Missing => StatusCode::NOT_FOUND.into_response(),
            Says::Together(digest, barrier) => {
                barrier.wait().await;
                is(&digest)
            }
            Says::ToThoseLoggedIn(digest) if login.as_deref() == Some("Bearer t") => is(&digest),
            Says::ToThoseLoggedIn(_) => {
                let challenge = format!("Bearer realm=\"http://{}/token\"", self.host);
                (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
            }
            Says::Slowly(digest) => {
                self.free.notified().await;
                is(&digest)
            }
        }
    }

    fn says(&self, tag: &str, says: Says) {
        self.tags.lock().expect("not poisoned").insert(tag.to_owned(), says);
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut *self.asked.lock().expect("not poisoned"))
    }
}

/// What somebody shows who has this password.
fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("ann:{password}")))
}

fn digest(content: &str) -> Digest {
    Digest::sha256(content.as_bytes())
}

/// A task that ran on a tag of a registry, which had this content.
async fn stands_on(world: &World, task: &str, registry: &Registry, tag: &str, content: &str) {
    let image = format!("{}/base:{tag}", registry.host);
    world.make_of(task, &format!("steps:\n  - cmd: '{image} true'\n"), follows(true)).await;
    let task = world.core.tasks.find_task(&name(task)).await.expect("store").expect("task").task;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let accepted = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    let run = accepted.record.run.id;
    world.start(run).await;
    world.end_on(run, &image, Some(&digest(content))).await;
}

#[tokio::test]
async fn no_registry_leads_inside_and_its_tasks_say_so() {
    let (trap, data) = (Trap::start(), tempfile::tempdir().expect("temp dir"));
    let world = World::of(data, async |data, clock| testing::core_beside(&trap, data, Some(clock)).await).await;
    let number = AtomicUsize::new(0);
    let poll = async |host: &str| {
        let task = format!("watcher-{}", number.fetch_add(1, Ordering::Relaxed));
        let registry = Registry { host: host.to_owned(), ..Registry::default() };
        stands_on(&world, &task, &registry, &task, "one").await;
        poll(&mut Poller::new(Arc::clone(&world.core), EVERY)).await;
        let refusals = world.core.waves.list_refusals(&name(&task), 10).await.expect("store");
        let [refusal] = &refusals[..] else { panic!("{host}: {refusals:?}") };
        assert!(refusal.event.ends_with(&format!("/base:{task} was to be looked at")), "{}", refusal.event);
        refusal.rule.clone()
    };
    trap.try_way("poll", Follows::Redirects, "--allow-source", poll).await;
    trap.try_logins("poll", "--allow-source", poll).await;
}

/// Asks for what is due.
async fn poll(poller: &mut Poller) {
    poller.look().await.expect("a look");
    while poller.one_host().await.is_some() {}
}

#[tokio::test]
async fn a_tag_is_asked_for_with_its_etag_and_at_random_times() {
    let (world, registry) = (World::new().await, Registry::start().await);
    registry.says("1", Says::Is(digest("one"), "\"e1\""));
    stands_on(&world, "watcher", &registry, "1", "one").await;
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    poll(&mut poller).await;
    assert_eq!(registry.asked(), [("1".to_owned(), None)]);
    world.clock.advance(EVERY - Duration::from_secs(1));
    poll(&mut poller).await;
    assert_eq!(registry.asked(), [], "not sooner than the operator says");
    world.clock.advance(EVERY * 5 + Duration::from_secs(1));
    poll(&mut poller).await;
    assert_eq!(registry.asked(), [("1".to_owned(), Some("\"e1\"".to_owned()))]);
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0], "304");
    registry.says("1", Says::Is(digest("two"), "\"e2\""));
    world.clock.advance(EVERY * 6);
    poll(&mut poller).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running watcher=running"]);
}

#[tokio::test]
async fn a_registry_that_wants_fewer_questions_is_left_alone_and_no_other() {
    let (world, registry, other) = (World::new().await, Registry::start().await, Registry::start().await);
    for number in 0..6 {
        let tag = number.to_string();
        registry.says(&tag, Says::Busy("120"));
        stands_on(&world, &format!("watcher-{number}"), &registry, &tag, "one").await;
    }
    other.says("1", Says::Is(digest("one"), "e"));
    stands_on(&world, "other", &other, "1", "one").await;
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    poll(&mut poller).await;
    let asked = registry.asked().len();
    assert!(asked < 6, "{asked}: what was on its way, and no more");
    assert_eq!(other.asked().len(), 1);
    world.clock.advance(Duration::from_secs(119));
    poll(&mut poller).await;
    assert_eq!(registry.asked(), []);
    for number in 0..6 {
        registry.says(&number.to_string(), Says::Is(digest("one"), "e"));
    }
    // The time that it named, and one after another.
    world.clock.advance(Duration::from_secs(1 + 128));
    poll(&mut poller).await;
    assert_eq!(registry.asked().len(), 6);
}

/// Has a task keep a credential for a registry.
async fn keeps(world: &World, task: &str, registry: &Registry, password: &str) {
    let task = tasks::find(&world.core, task).await;
    let host = SourceHost::parse(&registry.host).expect("a host");
    let purpose = crate::orders::task_credential_purpose(&task.name.key(), &host);
    let sealed = world.core.key.seal(&purpose, &SecretBytes::new(password.as_bytes().to_vec()));
    assert!(world.core.tasks.put_task_credential(&task, &host, "ann".to_owned(), sealed).await.expect("store"));
}

#[tokio::test]
async fn a_credential_that_is_refused_stands_in_nobody_elses_way() {
    let (world, registry) = (World::new().await, Registry::start().await);
    for tag in ["closed", "open"] {
        registry.says(tag, Says::ToThoseLoggedIn(digest("one")));
    }
    for task in ["a-wrong", "b-wrong", "c-right"] {
        stands_on(&world, task, &registry, "closed", "one").await;
        keeps(&world, task, &registry, if task == "c-right" { "right" } else { "wrong" }).await;
    }
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    let tokens = |asked: Vec<(String, Option<String>)>| -> Vec<Option<String>> {
        asked.into_iter().filter(|(path, _)| path == "token").map(|(_, login)| login).collect()
    };
    let refusals = async |task: &str| world.core.waves.list_refusals(&name(task), 10).await.expect("store");
    poll(&mut poller).await;
    let (right, wrong) = (Some(basic("right")), Some(basic("wrong")));
    assert_eq!(tokens(registry.asked()), [wrong.clone(), wrong.clone(), right.clone()]);
    for task in ["a-wrong", "b-wrong"] {
        let said = refusals(task).await;
        let [said] = &said[..] else { panic!("{task}: {said:?}") };
        assert!(
            said.rule.contains("the task's own, is of no use: ") && said.rule.contains("does not"),
            "{}",
            said.rule
        );
    }
    assert_eq!(refusals("c-right").await, []);
    // The one that was taken is the first that is shown; the others are told once.
    registry.says("closed", Says::ToThoseLoggedIn(digest("two")));
    world.clock.advance(EVERY * 6);
    poll(&mut poller).await;
    assert_eq!(tokens(registry.asked()), [right]);
    assert_eq!(refusals("a-wrong").await.len(), 1);
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running a-wrong=running b-wrong=running c-right=running"]);
    // What everybody may see is seen by those who keep nothing.
    registry.is_open.store(true, Ordering::Relaxed);
    stands_on(&world, "a-open", &registry, "open", "one").await;
    keeps(&world, "a-open", &registry, "wrong").await;
    stands_on(&world, "b-open", &registry, "open", "one").await;
    registry.says("closed", Says::Missing);
    poll(&mut poller).await;
    assert_eq!(tokens(registry.asked()), [wrong, None]);
    assert_eq!((refusals("a-open").await.len(), refusals("b-open").await), (1, Vec::new()));
}

#[tokio::test]
async fn what_is_missing_is_asked_for_less_and_less_often_and_within_the_hour() {
    let (world, registry) = (World::new().await, Registry::start().await);
    registry.says("1", Says::Missing);
    stands_on(&world, "watcher", &registry, "1", "one").await;
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    for times in [1, 2, 3, 3, 3, 3, 3, 3] {
        poll(&mut poller).await;
        assert_eq!(registry.asked().len(), 1);
        world.clock.advance(EVERY * times - Duration::from_secs(1));
        poll(&mut poller).await;
        assert_eq!(registry.asked(), [], "{times}");
        world.clock.advance(EVERY * (6 - times) + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn an_outage_costs_an_hour_after_its_end_and_no_more() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let away = Registry { host, ..Registry::default() };
    stands_on(&world, "watcher", &away, "1", "one").await;
    // An operator who wants tags looked at often has no shorter bound, and one who wants it seldom a longer one.
    for every in [Duration::from_secs(60), EVERY, EVERY * 3] {
        let mut poller = Poller::new(Arc::clone(&world.core), every);
        let longest = (every * 6).max(Duration::from_secs(3600));
        for _ in 0..10 {
            let due = world.core.waves.due_remote_tags(10, &[]).await.expect("store");
            assert_eq!(due.len(), 1, "{every:?}");
            poll(&mut poller).await;
            world.clock.advance(longest);
        }
    }
    let due = world.core.waves.due_remote_tags(10, &[]).await.expect("store");
    assert!(due[0].failures >= 30, "it was never answered for: {}", due[0].failures);
}

#[tokio::test]
async fn questions_go_beside_each_other_and_a_slow_registry_keeps_no_other_waiting() {
    let (world, slow, quick) = (World::new().await, Registry::start().await, Registry::start().await);
    slow.says("1", Says::Slowly(digest("one")));
    stands_on(&world, "slow-1", &slow, "1", "one").await;
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    poller.look().await.expect("a look");
    let together = Arc::new(Barrier::new(3));
    for number in 0..3 {
        let tag = number.to_string();
        quick.says(&tag, Says::Together(digest("one"), Arc::clone(&together)));
        stands_on(&world, &format!("quick-{number}"), &quick, &tag, "one").await;
    }
    poller.look().await.expect("a look");
    let first = poller.one_host().await.expect("one is there");
    assert_eq!(first.as_str(), quick.host);
    assert_eq!((quick.asked().len(), slow.asked().len()), (3, 1));
    slow.free.notify_one();
    assert_eq!(poller.one_host().await.expect("the other").as_str(), slow.host);
}

#[tokio::test]
async fn a_host_is_asked_for_two_tags_a_second_however_often_they_are_due() {
    let (world, registry) = (World::new().await, Registry::start().await);
    for number in 0..3 {
        let tag = number.to_string();
        registry.says(&tag, Says::Is(digest("one"), "e"));
        stands_on(&world, &format!("watcher-{number}"), &registry, &tag, "one").await;
    }
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    let begun = Instant::now();
    for look in 1..=2 {
        poll(&mut poller).await;
        assert_eq!(registry.asked().len(), 3, "look {look}");
        world.clock.advance(EVERY * 6);
    }
    // However quickly it answers; and no machine is so slow that it would be sooner.
    let spent = begun.elapsed();
    assert!(spent >= Duration::from_millis(500) * 5, "{spent:?}");
}

#[tokio::test]
async fn what_a_build_found_elsewhere_is_no_change_until_the_registry_is_seen_to_move() {
    let (world, registry) = (World::new().await, Registry::start().await);
    registry.says("1", Says::Is(digest("one"), "e1"));
    stands_on(&world, "earlier", &registry, "1", "one").await;
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    poll(&mut poller).await;
    registry.asked();
    // A later build finds something newer than the last look did: no reason to build it again, and one to look.
    stands_on(&world, "later", &registry, "1", "two").await;
    let bases = world.core.waves.task_bases(&name("later"), WaveId::from_number(1)).await.expect("store");
    assert_eq!(bases.moved, [], "no change back to what it was");
    registry.says("1", Says::Is(digest("two"), "e2"));
    poll(&mut poller).await;
    assert_eq!(registry.asked().len(), 1, "sooner than it was due");
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running earlier=running"]);
}

#[tokio::test]
async fn what_each_registry_sends_of_a_push_has_the_tag_asked_for_at_once() {
    let (world, registry) = (World::new().await, Registry::start().await);
    for tag in ["1", "2", "3", "4"] {
        registry.says(tag, Says::Is(digest("one"), "e1"));
        stands_on(&world, &format!("on-tag-{tag}"), &registry, tag, "one").await;
    }
    let mut poller = Poller::new(Arc::clone(&world.core), EVERY);
    poll(&mut poller).await;
    assert_eq!(registry.asked().len(), 4);
    let router = router(ApiState { core: Arc::clone(&world.core), shutdown: CancellationToken::new() });
    let post = async |path: String, media_type: &str, body: &serde_json::Value| {
        let request =
            Request::post(path).header("content-type", media_type).body(axum::body::Body::from(body.to_string()));
        router.clone().oneshot(request.expect("a request")).await.expect("infallible").status()
    };
    let hook = || format!("/hooks/registry/{}", world.core.key.registry_hook());
    let distribution = "application/vnd.docker.distribution.events.v2+json";
    let acr = json!({"id": "1", "action": "push", "target": {"repository": "base", "tag": "2", "digest": "sha256:0"}});
    let harbor = json!({"type": "PUSH_ARTIFACT", "occur_at": 1, "operator": "ann", "event_data": {
        "resources": [{"digest": "sha256:0", "tag": "3", "resource_url": "h.example/base:3"}],
        "repository": {"name": "base", "namespace": "", "repo_full_name": "base", "repo_type": "private"}}});
    let hub = json!({"callback_url": "https://registry.hub.docker.com/x", "push_data": {"pusher": "ann", "tag": "4"},
        "repository": {"name": "base", "namespace": "", "repo_name": "base"}});
    let events = json!({"events": [{"id": "1", "action": "push", "target": {"repository": "base", "tag": "1"},
        "request": {"host": registry.host, "method": "PUT"}}]});
    for (tag, media_type, body) in [
        ("1", distribution, &events),
        ("2", "application/json; charset=utf-8", &acr),
        ("3", "application/json", &harbor),
        ("4", "application/json", &hub),
    ] {
        world.clock.advance(Duration::from_secs(11));
        poll(&mut poller).await;
        assert_eq!(registry.asked(), [], "none is due by itself");
        assert_eq!(post("/hooks/registry/guessed".to_owned(), media_type, body).await, StatusCode::NOT_FOUND);
        poll(&mut poller).await;
        assert_eq!(registry.asked(), [], "whoever does not know the hook brings nothing forward");
        assert_eq!(post(hook(), media_type, body).await, StatusCode::ACCEPTED, "{tag}");
        poll(&mut poller).await;
        assert_eq!(registry.asked(), [(tag.to_owned(), Some("e1".to_owned()))]);
    }
    assert_eq!(post(hook(), "application/json", &json!("push")).await, StatusCode::ACCEPTED);
    poll(&mut poller).await;
    assert_eq!(registry.asked(), []);
}
