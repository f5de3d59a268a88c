//! Deliveries over a real store to a real receiver on this machine: in order, once, signed, and nowhere else.

mod endpoints;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use cooper_e2e::{Follows, Trap};
use cooper_engine::delivery::Answer;
use cooper_engine::task::{BaseImageChange, EncodedChange, StepChange, Task, TaskChange, TaskEndpoint};
use cooper_engine::webhook::{Action, Scope as ImageScope};
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::outbox::{DeliveryRecord, PutWebhook};
use cooper_ports::tasks::PutTask;
use cooper_store::Store;
use cooper_types::{Scope, Scopes, Timestamp, WebhookName};
use hmac::Mac as _;
use tempfile::TempDir;

use super::endpoint::Endpoint;
use super::*;
use crate::testing;

const SECRET: &str = "it-is-no-secret-here";
/// 2026-01-01T00:00:30Z
const START: i64 = 1_767_225_630_000_000;

/// What a receiver got, and what it says to that.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    /// What it answers, one after the other; 204 when there is nothing left.
    answers: Mutex<VecDeque<Response>>,
}

impl Receiver {
    /// Listens; the address that events go to.
    async fn start(answers: Vec<Response>) -> (Arc<Self>, String) {
        let receiver = Arc::new(Self { answers: Mutex::new(answers.into()), ..Self::default() });
        let router = Router::new().fallback(Self::take).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listening");
        let uri = format!("http://{}/events", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, uri)
    }

    async fn take(Shared(receiver): Shared<Arc<Self>>, headers: HeaderMap, body: Bytes) -> Response {
        receiver.got.lock().expect("not poisoned").push((headers, body));
        let answer = receiver.answers.lock().expect("not poisoned").pop_front();
        answer.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
    }

    /// The ids of the events that it got, in order.
    fn ids(&self) -> Vec<String> {
        let got = self.got.lock().expect("not poisoned");
        got.iter().map(|(headers, _)| headers["cooper-delivery"].to_str().expect("text").to_owned()).collect()
    }
}

fn status(status: u16) -> Response {
    StatusCode::from_u16(status).expect("a status").into_response()
}

fn name(text: &str) -> WebhookName {
    WebhookName::parse(text).expect("valid")
}

fn target(webhook: &str) -> Target {
    Target::Webhook(name(webhook))
}

struct World {
    core: Arc<Core>,
    store: Store,
    clock: Arc<ManualClock>,
    flights: Flights,
    data: TempDir,
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        Self::open(data, clock).await
    }

    async fn open(data: TempDir, clock: Arc<ManualClock>) -> Self {
        let (core, store) = open(data.path(), clock.clone()).await;
        Self { core, store, clock, flights: Flights::default(), data }
    }

    async fn put(&self, webhook: &str, uri: &str, enabled: bool) {
        put(&self.core, webhook, uri, &[("Authorization", "Bearer hunter22"), ("X-Team", "ci")], enabled).await;
    }

    async fn ping(&self, webhook: &str) -> String {
        let id = self.core.webhooks.ping_webhook(&name(webhook)).await.expect("store").expect("a webhook");
        id.to_string()
    }

    /// Makes all tries that are due, and waits for their ends. In how many milliseconds the next one is due.
    async fn turn(&mut self) -> Option<u128> {
        let wait = self.flights.pass(&self.core).await.expect("store");
        while !self.flights.targets.is_empty() {
            self.flights.some_ended().await;
        }
        wait.map(|wait| wait.as_millis())
    }

    async fn log(&self, webhook: &str) -> Vec<DeliveryRecord> {
        let mut log = self.core.webhooks.list_sent(&target(webhook), 100).await.expect("store");
        log.reverse();
        log
    }

    async fn states(&self, webhook: &str) -> Vec<(&'static str, u32)> {
        let state = |record: &DeliveryRecord| match record.delivery.state {
            State::Due { .. } => "due",
            State::Trying { .. } => "trying",
            State::Delivered { .. } => "delivered",
            State::Failed { .. } => "failed",
        };
        self.log(webhook).await.iter().map(|record| (state(record), record.delivery.tries)).collect()
    }

    async fn last_said(&self, webhook: &str) -> String {
        self.log(webhook).await.pop().expect("a delivery").last.expect("it was tried").said
    }
}

async fn open(data: &Path, clock: Arc<ManualClock>) -> (Arc<Core>, Store) {
    testing::core_sending_here(data, Some(clock)).await
}

async fn put(core: &Core, webhook: &str, uri: &str, headers: &[(&str, &str)], enabled: bool) {
    let headers: BTreeMap<_, _> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let endpoint = Endpoint::new(uri, headers, SECRET.to_owned()).expect("an endpoint");
    let earlier = core.webhooks.find_webhook(&name(webhook)).await.expect("store");
    let put = PutWebhook {
        name: name(webhook),
        host: endpoint.host(),
        sealed: endpoint.seal(&core.key, &target(webhook)),
        actions: [Action::Push].into(),
        scope: ImageScope::All,
        enabled,
        set_by: testing::principal("ann"),
        replaces: earlier.map(|(webhook, _)| webhook.generation),
    };
    core.webhooks.put_webhook(put).await.expect("kept");
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_is_sent_is_signed_and_says_what_it_is() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start(vec![(StatusCode::OK, "got Bearer hunter22").into_response()]).await;
    world.put("Deploy", &uri, true).await;
    let id = world.ping("dePLOY").await;
    world.turn().await;
    let (headers, body) = &receiver.got.lock().expect("not poisoned").remove(0);
    let header = |name: &str| headers[name].to_str().expect("text");
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", concat!("cooper/", env!("CARGO_PKG_VERSION"))),
        ("authorization", "Bearer hunter22"),
        ("x-team", "ci"),
        ("cooper-event", "ping"),
        ("cooper-delivery", &id),
        ("cooper-attempt", "1"),
        ("cooper-timestamp", "1767225630"),
    ] {
        assert_eq!(header(name), value, "{name}");
    }
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(b"1767225630.");
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("cooper-signature"), format!("v1={digits}"));
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let expected = serde_json::json!({ "id": id, "timestamp": "2026-01-01T00:00:30.000000Z", "action": "ping" });
    assert_eq!(body, expected);
    assert_eq!(world.states("deploy").await, [("delivered", 1)]);
    assert_eq!(world.last_said("deploy").await, "got ***", "the log shows no secret");
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_everything_in_order_and_once() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start(vec![status(503), status(500), status(404)]).await;
    let (healthy, other) = Receiver::start(Vec::new()).await;
    world.put("down", &uri, true).await;
    world.put("up", &other, true).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(world.ping("down").await);
        world.ping("up").await;
    }
    for pause in [2, 4, 8] {
        world.turn().await;
        assert!(world.turn().await.is_some_and(|wait| wait <= pause * 1000), "the first one is tried again");
        world.clock.advance(SECOND * u32::try_from(pause).expect("small"));
    }
    assert_eq!(healthy.ids().len(), 3, "another target waits for nobody");
    assert_eq!(receiver.ids(), [0, 0, 0].map(|event: usize| events[event].clone()));
    for _ in 0..3 {
        world.turn().await;
    }
    assert_eq!(receiver.ids(), [0, 0, 0, 0, 1, 2].map(|event: usize| events[event].clone()));
    assert_eq!(world.states("down").await, [("delivered", 4), ("delivered", 1), ("delivered", 1)]);
    assert_eq!(world.turn().await, None);
}

#[tokio::test]
async fn a_receiver_that_never_answers_delays_nobody() {
    let data = tempfile::tempdir().expect("temp dir");
    let (core, _store) = testing::core_sending_here(data.path(), None).await;
    // The system accepts connections for a listener; nobody answers. One after the other they would take a minute and a half.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listening");
    let silent = format!("http://{}/", silent.local_addr().expect("address"));
    let silent_ones: Vec<String> = (0..6).map(|number| format!("silent{number}")).collect();
    for one in &silent_ones {
        put(&core, one, &silent, &[], true).await;
    }
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    put(&core, "quick", &uri, &[], true).await;
    let shutdown = CancellationToken::new();
    let engine = tokio::spawn(run(core.clone(), shutdown.clone()));
    for _ in 0..5 {
        for one in &silent_ones {
            core.webhooks.ping_webhook(&name(one)).await.expect("store");
        }
        core.webhooks.ping_webhook(&name("quick")).await.expect("store");
    }
    let all = async {
        while receiver.ids().len() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the quick one gets its events at once");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), engine).await.expect("it stops").expect("no panic");
}

#[tokio::test]
async fn what_a_server_that_died_was_sending_is_sent_again() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    world.put("hook", &uri, true).await;
    let event = world.ping("hook").await;
    let waiting = world.core.outbox.waiting(&look()).await.expect("store");
    assert_eq!(world.core.outbox.claim(vec![waiting[0].seq]).await.expect("store").len(), 1);
    assert_eq!(world.turn().await, Some(60_000), "somebody is sending it");
    let World { store, clock, data, .. } = world;
    store.close().await.expect("closed");
    let mut world = World::open(data, clock).await;
    assert_eq!(world.core.outbox.release().await.expect("store"), 1);
    world.turn().await;
    assert_eq!(receiver.ids(), [event]);
    assert_eq!(world.states("hook").await, [("delivered", 2)]);
}

#[tokio::test]
async fn what_was_not_reached_is_tried_at_once_by_a_server_that_may_reach_it() {
    let (data, clock) =
        (tempfile::tempdir().expect("temp dir"), Arc::new(ManualClock::new(Timestamp::from_micros(START))));
    let (core, store) = testing::core_of(data.path(), clock.clone(), |_, _| {}).await;
    let mut world = World { core, store, clock, flights: Flights::default(), data };
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    let (busy, busy_uri) = Receiver::start(vec![status(503)]).await;
    world.put("hook", &uri, true).await;
    let event = world.ping("hook").await;
    world.turn().await;
    assert!(world.last_said("hook").await.contains("cooper serve --allow-webhook"));
    let restarted = async |world: World| {
        let World { store, clock, data, .. } = world;
        store.close().await.expect("closed");
        let world = World::open(data, clock).await;
        world.core.outbox.release().await.expect("store");
        world
    };
    let mut world = restarted(world).await;
    world.turn().await;
    assert_eq!((receiver.ids(), world.states("hook").await), (vec![event], vec![("delivered", 2)]));
    // One that has answered has the pause that it asked for.
    world.put("busy", &busy_uri, true).await;
    world.ping("busy").await;
    world.turn().await;
    let mut world = restarted(world).await;
    world.turn().await;
    assert_eq!((busy.ids().len(), world.states("busy").await), (1, vec![("due", 1)]));
}

#[tokio::test]
async fn nothing_goes_to_private_places_or_after_redirects() {
    let (trap, data) = (Trap::start(), tempfile::tempdir().expect("temp dir"));
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
    let (core, store) = testing::core_beside(&trap, data.path(), Some(clock.clone())).await;
    let world = World { core, store, clock, flights: Flights::default(), data };
    let webhook = async |host: &str| {
        let mut flights = Flights::default();
        world.put("hook", &format!("http://{host}/events"), true).await;
        world.ping("hook").await;
        for _ in 0..2 {
            flights.pass(&world.core).await.expect("store");
            while !flights.targets.is_empty() {
                flights.some_ended().await;
            }
            world.clock.advance(SECOND * 10);
        }
        assert_eq!(world.states("hook").await, [("due", 2)], "an operator may allow it within the day");
        let said = world.last_said("hook").await;
        world.core.webhooks.delete_webhook(&name("hook")).await.expect("store");
        said
    };
    trap.try_way("webhook", Follows::Nothing, "--allow-webhook", webhook).await;
}

#[tokio::test]
async fn what_is_refused_is_given_up_and_the_next_one_comes() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start((0..3).map(|_| status(422)).collect()).await;
    world.put("hook", &uri, true).await;
    world.ping("hook").await;
    let next = world.ping("hook").await;
    for _ in 0..4 {
        world.turn().await;
        world.clock.advance(SECOND * 10);
    }
    assert_eq!(world.states("hook").await, [("failed", 3), ("delivered", 1)]);
    assert_eq!(receiver.ids().last(), Some(&next));
}

#[tokio::test]
async fn a_disabled_webhook_gets_nothing_until_it_is_enabled_and_a_changed_one_at_once() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    world.put("hook", "http://127.0.0.1:1/", true).await;
    let event = world.ping("hook").await;
    world.turn().await;
    world.put("hook", "http://127.0.0.1:1/", false).await;
    world.clock.advance(SECOND * 60);
    assert_eq!(world.turn().await, None);
    world.put("hook", &uri, true).await;
    world.turn().await;
    assert_eq!(receiver.ids(), std::slice::from_ref(&event));
    // Once more, under the same id.
    let id = cooper_types::EventId::parse(&event).expect("an id");
    assert!(world.core.webhooks.redeliver(&target("HOOK"), &id).await.expect("store"));
    world.turn().await;
    assert_eq!(receiver.ids(), [event.clone(), event]);
    assert!(world.log("hook").await[1].redelivery);
    assert!(world.core.webhooks.delete_webhook(&name("Hook")).await.expect("store"));
    assert_eq!(world.log("hook").await, []);
}

/// Everything that is due.
fn look() -> Look {
    Look { failing: true, notices: true, without_hosts: Vec::new(), without_notices_at: Vec::new(), limit: 1000 }
}

#[tokio::test]
async fn a_target_that_is_gone_is_given_up_after_a_day_with_all_that_waited_as_long() {
    let mut world = World::new().await;
    world.put("gone", "http://127.0.0.1:1/", true).await;
    for _ in 0..3 {
        world.ping("gone").await;
    }
    let hours = |hours: u32| SECOND * 3600 * hours;
    let begun = world.clock.now();
    let young = loop {
        world.turn().await;
        world.clock.advance(hours(1));
        if world.clock.now().since(begun) >= hours(23) {
            break world.ping("gone").await;
        }
    };
    assert_eq!(world.states("gone").await[0].0, "due", "it has not had its day");
    world.clock.advance(hours(2));
    world.turn().await;
    assert_eq!(world.core.outbox.prune().await.expect("store"), 2, "what waited as long has had its time as well");
    let states = world.states("gone").await;
    assert!(states[0].0 == "failed" && states[0].1 >= 12, "{states:?}");
    assert_eq!(states[1..], [("failed", 0), ("failed", 0), ("due", 0)]);
    // The second day: the young one is tried by the hour, not anew from two seconds on, and the target's log says so.
    assert!(world.turn().await.is_some_and(|wait| wait >= 1_800_000));
    world.clock.advance(hours(1));
    world.turn().await;
    assert_eq!(world.states("gone").await[3], ("due", 1));
    assert!(world.turn().await.is_some_and(|wait| wait >= 1_800_000));
    // A change of the webhook makes it as good as new.
    let (receiver, uri) = Receiver::start(vec![status(503)]).await;
    world.put("gone", &uri, true).await;
    world.turn().await;
    assert!(world.turn().await.is_some_and(|wait| wait <= 2000));
    world.clock.advance(SECOND * 2);
    world.turn().await;
    assert_eq!(receiver.ids(), [young.clone(), young]);
}

#[tokio::test]
async fn a_healthy_receiver_that_is_a_day_behind_loses_nothing_by_one_bad_answer() {
    let mut world = World::new().await;
    let (receiver, uri) = Receiver::start(vec![status(503)]).await;
    world.put("hook", &uri, true).await;
    let mut events = vec![world.ping("hook").await];
    for _ in 0..5 {
        events.push(world.ping("hook").await);
    }
    world.clock.advance(SECOND * 3600 * 60);
    world.turn().await;
    assert_eq!(world.core.outbox.prune().await.expect("store"), 0);
    world.clock.advance(SECOND * 2);
    for _ in 0..6 {
        world.turn().await;
    }
    assert_eq!(receiver.ids()[1..], events);
}

#[tokio::test]
async fn a_weekend_in_which_nothing_ran_takes_no_event_away() {
    let mut world = World::new().await;
    world.put("hook", "http://127.0.0.1:1/", true).await;
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(world.ping("hook").await);
    }
    // A day short of all patience, by time and not by tries.
    for _ in 0..14 {
        world.turn().await;
        world.clock.advance(SECOND * 3600);
    }
    let World { store, clock, data, .. } = world;
    store.close().await.expect("closed");
    clock.advance(SECOND * 3600 * 60);
    let mut world = World::open(data, clock).await;
    world.core.outbox.release().await.expect("store");
    assert_eq!(world.core.outbox.prune().await.expect("store"), 0);
    // The receiver boots as well, and answers too late once.
    world.turn().await;
    assert_eq!(world.core.outbox.prune().await.expect("store"), 0);
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    world.put("hook", &uri, true).await;
    for _ in 0..4 {
        world.turn().await;
    }
    assert_eq!(receiver.ids(), events);
}

#[test]
fn no_place_and_no_kind_of_target_takes_the_room_of_all() {
    let waiting =
        |seq: i64, host: &str, is_notice, is_failing| Waiting { seq, host: host.to_owned(), is_notice, is_failing };
    let fill = |all: &mut dyn Iterator<Item = Waiting>| {
        let mut used = Flights::default().used();
        let taken = all.filter(|one| used.take(one)).count();
        (taken, used)
    };
    let (taken, used) = fill(&mut (0..100).map(|seq| waiting(seq, "slow.example", false, false)));
    assert_eq!(taken, OF_HOST_AT_ONCE);
    let look = used.look().expect("there is room for others");
    assert_eq!((look.without_hosts, look.limit as usize), (vec!["slow.example".to_owned()], AT_ONCE - OF_HOST_AT_ONCE));
    let (taken, used) = fill(&mut (0..100).map(|seq| waiting(seq, "slow.example", true, false)));
    let look = used.look().expect("there is room for others");
    assert_eq!(taken, NOTICES_OF_HOST_AT_ONCE, "a webhook at the same host has room");
    assert_eq!((look.without_hosts, look.without_notices_at), (Vec::new(), vec!["slow.example".to_owned()]));
    let (taken, used) = fill(&mut (0..500).map(|seq| waiting(seq, &format!("h{seq}"), false, true)));
    assert_eq!((taken, used.look().map(|look| look.failing)), (FAILING_AT_ONCE, Some(false)));
    let (taken, used) = fill(&mut (0..500).map(|seq| waiting(seq, &format!("h{seq}"), true, false)));
    assert_eq!((taken, used.look().map(|look| look.notices)), (NOTICES_AT_ONCE, Some(false)));
    let (taken, used) = fill(&mut (0..500).map(|seq| waiting(seq, &format!("h{seq}"), false, false)));
    assert_eq!((taken, used.look()), (AT_ONCE, None));
}
