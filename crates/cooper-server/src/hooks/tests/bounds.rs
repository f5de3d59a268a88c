//! Who sends much, wrongly or again: nobody else waits for it, and nothing is lost that can be mended.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cooper_engine::trigger::event::SourceEvent;
use cooper_ports::access::{AccessStore, CreateTokenError, NewToken, RevokeTokenError, Token};
use cooper_ports::hooks::{
    DeliveryRecord, EventOutcome, FoundHook, HookStore, KeptDelivery, PendingDelivery, RunOfEvent,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{PrincipalName, RunId, TaskName, TokenId};

use super::super::work::{Turn, turn};
use super::missing::{listed, look_at};
use super::*;
use crate::access::Access;

fn name(text: &str) -> TaskName {
    TaskName::parse(text).expect("valid")
}

/// Of events of this branch nothing can be known.
const BROKEN_BRANCH: &str = "refs/heads/broken:";

/// A store that fails where a test wants it to.
struct Odd {
    store: Arc<dyn HookStore>,
    access: Arc<dyn AccessStore>,
    /// Nothing of this task can be read.
    broken: TaskName,
    /// No hook has room.
    is_full: AtomicBool,
    /// Tokens can't be listed.
    has_no_tokens: AtomicBool,
    /// Nobody may know what has started runs: a lasting failure, or a panic.
    forgets: AtomicBool,
    panics: AtomicBool,
}

#[async_trait]
impl HookStore for Odd {
    async fn find_hook(&self, id: &HookId) -> Result<Option<FoundHook>, StoreError> {
        self.store.find_hook(id).await
    }

    async fn rotate_hook(&self, id: &HookId, sealed: Vec<u8>, until: Option<Timestamp>) -> Result<bool, StoreError> {
        self.store.rotate_hook(id, sealed, until).await
    }

    async fn keep_delivery(
        &self,
        hook: &HookId,
        delivery: &str,
        events: Vec<SourceEvent>,
    ) -> Result<KeptDelivery, StoreError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Ok(KeptDelivery::Full),
            false => self.store.keep_delivery(hook, delivery, events).await,
        }
    }

    async fn waiting_tasks(&self) -> Result<Vec<(TaskName, PrincipalName)>, StoreError> {
        self.store.waiting_tasks().await
    }

    async fn next_delivery(&self, task: &TaskName, after: i64) -> Result<Option<PendingDelivery>, StoreError> {
        match *task == self.broken {
            true => Err(StoreError::Closed),
            false => self.store.next_delivery(task, after).await,
        }
    }

    async fn finish_delivery(&self, number: i64, outcomes: Vec<EventOutcome>) -> Result<(), StoreError> {
        self.store.finish_delivery(number, outcomes).await
    }

    async fn prune_hooks(&self, limit: u32) -> Result<u64, StoreError> {
        self.store.prune_hooks(limit).await
    }

    async fn list_deliveries(&self, task: &TaskName, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.store.list_deliveries(task, limit).await
    }

    async fn run_of_event(&self, task: &TaskName, keys: &[String]) -> Result<Option<RunId>, StoreError> {
        assert!(!self.panics.load(Ordering::Relaxed), "as a test wants it");
        match self.forgets.load(Ordering::Relaxed) || keys.iter().any(|key| key.contains(BROKEN_BRANCH)) {
            true => Err(StoreError::Closed),
            false => self.store.run_of_event(task, keys).await,
        }
    }

    async fn runs_of_events(&self, task: &TaskName, prefix: &str) -> Result<Vec<RunOfEvent>, StoreError> {
        self.store.runs_of_events(task, prefix).await
    }
}

#[async_trait]
impl AccessStore for Odd {
    async fn ensure_principal(&self, name: &PrincipalName) -> Result<(), StoreError> {
        self.access.ensure_principal(name).await
    }

    async fn create_token(&self, token: NewToken) -> Result<Token, CreateTokenError> {
        self.access.create_token(token).await
    }

    async fn find_token(&self, id: &TokenId) -> Result<Option<Token>, StoreError> {
        self.access.find_token(id).await
    }

    async fn list_tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.access.list_tokens().await
    }

    async fn tokens_of(&self, principal: &PrincipalName) -> Result<Vec<Token>, StoreError> {
        match self.has_no_tokens.load(Ordering::Relaxed) {
            true => Err(StoreError::Closed),
            false => self.access.tokens_of(principal).await,
        }
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<Token, RevokeTokenError> {
        self.access.revoke_token(id).await
    }
}

impl World {
    async fn odd() -> (Self, Arc<Odd>) {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let mut odd = None;
        let (core, store) = testing::core_of(data.path(), clock.clone(), |parts, store| {
            let made = Arc::new(Odd {
                store: Arc::clone(&parts.hook_store),
                access: Arc::new(store.clone()),
                broken: name("broken-task"),
                is_full: AtomicBool::new(false),
                has_no_tokens: AtomicBool::new(false),
                forgets: AtomicBool::new(false),
                panics: AtomicBool::new(false),
            });
            parts.hook_store = made.clone();
            parts.access = Access::new(made.clone(), parts.clock.clone());
            odd = Some(made);
        })
        .await;
        (Self::over(core, store, clock, data).await, odd.expect("it was made"))
    }

    /// What the newest delivery of a task came to: whether a run, and why not.
    async fn newest(&self, task: &str) -> (bool, String) {
        let outcome = self.hooks(task).await.deliveries.remove(0).outcomes.expect("worked off").remove(0);
        (outcome.run_id.is_some(), outcome.why_not.unwrap_or_default())
    }

    async fn send_push(&self, hook: &Known, delivery: &str, commit: char) -> DeliveryAnswer {
        let (headers, body) = self.generic(hook, &push(REPOSITORY, delivery, "main", commit));
        self.take(hook, &headers, &body).await
    }
}

#[tokio::test]
async fn a_long_line_of_one_task_keeps_no_other_waiting() {
    let world = World::new().await;
    let busy = world.task("busy-task", REPOSITORY, json!({})).await;
    let other = world.task("other-task", REPOSITORY, json!({})).await;
    let (headers, body) = world.generic(&busy, &push(REPOSITORY, "first", "main", 'a'));
    let events = {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let headers: http::HeaderMap =
            headers.collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect();
        cooper_forge::parse(Provider::Generic, &headers, &body).expect("a delivery").events
    };
    let id = HookId::parse(&busy.id).expect("valid");
    for number in 0..100 {
        let kept = world.core.hook_store.keep_delivery(&id, &format!("d{number}"), events.clone()).await;
        assert_eq!(kept.expect("store"), KeptDelivery::New);
    }
    world.send_push(&other, "only", 'b').await;
    let mut rounds = Rounds::new(Arc::clone(&world.core));
    rounds.look().await.expect("store");
    rounds.begin();
    while world.core.hook_store.next_delivery(&name("other-task"), 0).await.expect("store").is_some() {
        rounds.one_ends().await;
        rounds.begin();
    }
    let waits = world.core.hook_store.next_delivery(&name("busy-task"), 0).await.expect("store");
    assert!(waits.is_some(), "the other one had to wait for all of them");
    assert!(!rounds.settle().await);
    assert_eq!(world.newest("other-task").await, (true, String::new()));
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_task_that_can_not_be_worked_on_rests_alone() {
    let (world, _) = World::odd().await;
    let broken = world.task("broken-task", REPOSITORY, json!({})).await;
    let sound = world.task("sound-task", REPOSITORY, json!({})).await;
    world.send_push(&broken, "1", 'a').await;
    world.send_push(&sound, "1", 'a').await;
    assert!(settle(&world.core).await, "one rests");
    assert_eq!(world.runs().await.len(), 1);
    let waits = world.core.hook_store.waiting_tasks().await.expect("store");
    assert_eq!(waits, [(name("broken-task"), testing::principal("ann"))], "it is tried again");
}

#[tokio::test]
async fn a_hook_for_which_too_much_waits_says_when_to_come_again() {
    let (world, odd) = World::odd().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    odd.is_full.store(true, Ordering::Relaxed);
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "1", "main", 'a'));
    let mut request = Request::builder().method("POST").uri(format!("/hooks/{}", hook.id));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = world.router.clone().oneshot(request.body(Body::from(body)).expect("a request")).await;
    let response = response.expect("infallible");
    let after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    assert_eq!((response.status(), after.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("60")));
    assert_eq!(world.hooks("nightly").await.value[0].refused, 1);
}

#[tokio::test]
async fn what_failed_or_was_refused_is_worked_on_again_when_it_is_sent_again() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"paths": ["src"]})).await;
    let mut docs = push(REPOSITORY, "docs", "main", 'a');
    docs["before"] = json!("b".repeat(40));
    docs["files"] = json!(["docs/a.md"]);
    let send = async |body: &serde_json::Value| {
        let (headers, body) = world.generic(&hook, body);
        let status = world.take(&hook, &headers, &body).await.status;
        world.pass().await;
        (status, world.newest("nightly").await)
    };
    let (status, (_, why)) = send(&docs).await;
    assert!(status == ReceiptStatus::Kept && why.contains("passes no path filter"), "{why}");
    let (status, text) = world
        .call("PATCH", "/api/v1/tasks/nightly", Some(json!({"sourceTriggers": {"t": {"branches": ["**"]}}})))
        .await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(send(&docs).await, (ReceiptStatus::Kept, (true, String::new())));
    assert_eq!(send(&docs).await, (ReceiptStatus::Repeated, (true, String::new())));

    // At night the last token of the task's principal is gone.
    let tokens = world.core.access.store().list_tokens().await.expect("store");
    for token in tokens.iter().filter(|token| token.principal.as_str() == "ann") {
        world.core.access.store().revoke_token(&token.id).await.expect("revoked");
    }
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "night", "main", 'c'));
    world.take(&hook, &headers, &body).await;
    world.pass().await;
    assert_eq!(world.runs().await.len(), 1);
    testing::token(&world.core, "ann", &["run", "repository:*:push"]).await;
    assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
    world.pass().await;
    assert_eq!(world.runs().await.len(), 2);
    assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Repeated);
}

#[tokio::test]
async fn what_is_sent_again_takes_nothing_back_from_what_came_later() {
    let (mut world, odd) = World::odd().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    // Three pushes fail, and are sent again as forges list them.
    let tokens = odd.list_tokens().await.expect("store");
    for token in tokens.iter().filter(|token| token.principal.as_str() == "ann") {
        odd.revoke_token(&token.id).await.expect("revoked");
    }
    let pushes = [("1", 'a'), ("2", 'b'), ("3", 'c')];
    for (delivery, commit) in pushes {
        world.send_push(&hook, delivery, commit).await;
        world.pass().await;
        assert_eq!(world.runs().await.len(), 0);
    }
    world.token = testing::token(&world.core, "ann", &["run", "repository:*:push"]).await.expose().to_owned();
    for (delivery, commit) in pushes.into_iter().rev() {
        assert_eq!(world.send_push(&hook, delivery, commit).await.status, ReceiptStatus::Kept);
        world.pass().await;
        let (started, why) = world.newest("nightly").await;
        assert_eq!(started, commit == 'c', "{why}");
        assert!(started || why.contains("what came later has started run ca1"), "{why}");
    }
    // Another branch has its own line.
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "4", "other", 'a'));
    world.take(&hook, &headers, &body).await;
    world.pass().await;
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn many_branches_are_compared_with_many_patterns_in_little_time() {
    let world = World::new().await;
    let patterns: Vec<String> = (0..150).map(|number| format!("{{a,b}}*[0-9]-{number}/**/x?")).collect();
    world.task("nightly", REPOSITORY, json!({"branches": patterns})).await;
    let start = std::time::Instant::now();
    for digit in ['a', 'b'] {
        let branches = (0..1000).map(|number| listed(&format!("refs/heads/b{number}"), digit, None)).collect();
        assert!(!look_at(&world, ReferenceKind::Branches, branches).await);
    }
    // Compiled for each branch it takes minutes.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_waited_while_no_server_ran_is_tried_as_long_as_anything_else() {
    let (world, odd) = World::odd().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    world.send_push(&hook, "1", 'a').await;
    world.clock.advance(Duration::from_secs(24 * 3600));
    odd.has_no_tokens.store(true, Ordering::Relaxed);
    let one_turn = async |trying| turn(Arc::clone(&world.core), name("nightly"), trying).await.expect("a turn");
    let Turn::Later(trying) = one_turn(None).await else { panic!("it was given up at once") };
    world.clock.advance(Duration::from_secs(599));
    let Turn::Later(trying) = one_turn(Some(trying)).await else { panic!("it was given up too soon") };
    world.clock.advance(Duration::from_secs(1));
    assert!(matches!(one_turn(Some(trying)).await, Turn::Over));
    odd.has_no_tokens.store(false, Ordering::Relaxed);
    assert!(!world.newest("nightly").await.0);
    // It is not lost: whoever sends it again has it tried again.
    assert_eq!(world.send_push(&hook, "1", 'a').await.status, ReceiptStatus::Kept);
    world.pass().await;
    assert_eq!(world.newest("nightly").await, (true, String::new()));
}

#[tokio::test]
async fn a_secret_that_leaked_is_taken_no_more_at_once() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    let path = format!("/api/v1/tasks/nightly/hooks/{}/secret?revokeOld=true", hook.id);
    let (status, text) = world.call("POST", &path, None).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let view: serde_json::Value = serde_json::from_str(&text).expect("json");
    assert_eq!(view.get("previousSecretUntil"), None, "{text}");
    let new = Known { secret: view["secret"].as_str().expect("it is told").to_owned(), ..hook.clone() };
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "old", "main", 'a'));
    assert_eq!(world.deliver(&hook, &headers, &body).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.send_push(&new, "new", 'a').await.status, ReceiptStatus::Kept);
}

#[tokio::test]
async fn a_run_is_superseded_also_where_the_newer_one_has_ended_before_a_crash() {
    let world = World::new().await;
    let context = "https://github.com/acme/shop.git";
    let hook = world.task("nightly", context, json!({"cancelSuperseded": true})).await;
    let (headers, opened) = fixture("github/pull-request-opened");
    let newer = String::from_utf8(opened.clone()).expect("text");
    let commit = {
        let body: serde_json::Value = serde_json::from_slice(&opened).expect("json");
        body["pull_request"]["head"]["sha"].as_str().expect("a commit").to_owned()
    };
    let newer = newer.replace(&commit, &"9".repeat(40));
    for (id, body) in [("1", &opened), ("2", &newer.into_bytes())] {
        let mut headers = signed(&hook, headers.clone(), body, world.clock.now());
        headers.retain(|(name, _)| name != "X-GitHub-Delivery");
        headers.push(("X-GitHub-Delivery".to_owned(), id.to_owned()));
        assert_eq!(world.take(&hook, &headers, body).await.status, ReceiptStatus::Kept);
    }
    // The server dies before it ends the older one.
    assert!(!settle(&world.core).await);
    let runs = world.runs().await;
    world.core.apply(runs[1].id, RunEvent::CancelRequested { by: testing::principal("ann") }).await.expect("cancelled");
    supersede::everywhere(&world.core).await.expect("store");
    let ended = &world.runs().await[0];
    assert_eq!(ended.status(), RunStatus::Canceled);
    assert_eq!(ended.error_message(), Some(format!("superseded by run {}", runs[1].id)));
}

#[tokio::test]
async fn many_events_are_compared_with_many_patterns_in_little_time() {
    let world = World::new().await;
    let patterns: Vec<String> = (0..150).map(|number| format!("{{a,b}}*[0-9]-{number}/**/x?")).collect();
    let more =
        json!({"provider": "bitbucket-cloud", "branches": patterns, "paths": patterns, "excludePaths": patterns});
    let hook = world.task("nightly", "https://bitbucket.org/acme/shop.git", more).await;
    let (headers, body) = fixture("bitbucket-cloud/push");
    let mut body: serde_json::Value = serde_json::from_slice(&body).expect("json");
    let change = body["push"]["changes"][0].clone();
    let changes = (0..100).map(|number| {
        let mut change = change.clone();
        change["new"]["name"] = json!(format!("branch-{number}"));
        change
    });
    body["push"]["changes"] = changes.collect();
    let body = body.to_string().into_bytes();
    let start = std::time::Instant::now();
    let answer = world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    assert_eq!(answer.status, ReceiptStatus::PassedOver, "{answer:?}");
    // Compiled for each event it takes minutes.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_fails_for_good_is_given_up_and_can_be_sent_again() {
    for panics in [false, true] {
        let (world, odd) = World::odd().await;
        let hook = world.task("nightly", REPOSITORY, json!({})).await;
        world.send_push(&hook, "1", 'a').await;
        (if panics { &odd.panics } else { &odd.forgets }).store(true, Ordering::Relaxed);
        let one_turn = async |trying| turn(Arc::clone(&world.core), name("nightly"), trying).await.expect("a turn");
        let Turn::Later(trying) = one_turn(None).await else { panic!("it was given up at once") };
        world.clock.advance(Duration::from_secs(599));
        let Turn::Later(trying) = one_turn(Some(trying)).await else { panic!("it was given up too soon") };
        world.clock.advance(Duration::from_secs(1));
        assert!(matches!(one_turn(Some(trying)).await, Turn::Over));
        let (started, why) = world.newest("nightly").await;
        assert!(!started && why.contains("for 10 min"), "{why}");
        (if panics { &odd.panics } else { &odd.forgets }).store(false, Ordering::Relaxed);
        assert_eq!(world.send_push(&hook, "1", 'a').await.status, ReceiptStatus::Kept);
        world.pass().await;
        assert_eq!(world.newest("nightly").await, (true, String::new()));
    }
}

#[tokio::test]
async fn what_led_to_runs_is_told_beside_what_is_given_up() {
    let (world, _odd) = World::odd().await;
    let context = "https://bitbucket.org/acme/shop.git";
    let hook = world.task("nightly", context, json!({"provider": "bitbucket-cloud"})).await;
    let change = |(branch, commit): (&str, char)| {
        let new = json!({"type": "branch", "name": branch, "target": {"hash": commit.to_string().repeat(40)}});
        json!({"old": null, "new": new})
    };
    let changes: Vec<_> = [("first", 'a'), ("broken", 'b'), ("last", 'c')].into_iter().map(change).collect();
    let repository = json!({"full_name": "acme/shop", "links": {"html": {"href": "https://bitbucket.org/acme/shop"}}});
    let body = json!({"repository": repository, "push": {"changes": changes}}).to_string().into_bytes();
    let headers = [("X-Event-Key", "repo:push"), ("X-Request-UUID", "d1")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    let one_turn = async |trying| turn(Arc::clone(&world.core), name("nightly"), trying).await.expect("a turn");
    let Turn::Later(trying) = one_turn(None).await else { panic!("it was given up at once") };
    world.clock.advance(Duration::from_secs(600));
    assert!(matches!(one_turn(Some(trying)).await, Turn::Over));
    let outcomes = world.hooks("nightly").await.deliveries.remove(0).outcomes.expect("worked off");
    let [first, broken] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(first.run_id, Some(world.runs().await[0].id), "{first:?}");
    let why = broken.why_not.as_deref().unwrap_or_default();
    assert!(broken.event.contains("broken") && why.contains("nor were the 1 after it"), "{broken:?}");
}

#[tokio::test]
async fn somebody_with_many_tasks_keeps_nobody_elses_waiting() {
    let world = World::new().await;
    let mut rounds = Rounds::new(Arc::clone(&world.core));
    let many = |number: usize| name(&format!("task-{number:04}"));
    for number in 0..1000 {
        rounds.call(many(number), testing::principal("ann"));
    }
    rounds.begin();
    assert_eq!(rounds.busy().len(), 24, "some places are left");
    for task in ["ben-first", "ben-second"] {
        rounds.call(name(task), testing::principal("ben"));
    }
    rounds.begin();
    assert_eq!(rounds.busy()[..2], [&name("ben-first"), &name("ben-second")]);
    // Of tasks that are not there nothing waits: each has its turn, and all end.
    assert!(!rounds.settle().await);
}

#[tokio::test]
async fn superseded_runs_are_ended_by_themselves() {
    let world = World::new().await;
    let stop = CancellationToken::new();
    let ends = tokio::spawn(supersede::run(Arc::clone(&world.core), stop.clone()));
    let context = "https://github.com/acme/shop.git";
    let hook = world.task("nightly", context, json!({"cancelSuperseded": true})).await;
    let (headers, opened) = fixture("github/pull-request-opened");
    let opened = String::from_utf8(opened).expect("text");
    let commit: serde_json::Value = serde_json::from_str(&opened).expect("json");
    let commit = commit["pull_request"]["head"]["sha"].as_str().expect("it is there").to_owned();
    for (delivery, digit) in [("1", "8"), ("2", "9")] {
        let body = opened.replace(&commit, &digit.repeat(40));
        let mut headers = signed(&hook, headers.clone(), body.as_bytes(), world.clock.now());
        headers.retain(|(name, _)| name != "X-GitHub-Delivery");
        headers.push(("X-GitHub-Delivery".to_owned(), delivery.to_owned()));
        assert_eq!(world.take(&hook, &headers, body.as_bytes()).await.status, ReceiptStatus::Kept);
        assert!(!settle(&world.core).await);
    }
    let ended = async {
        while world.runs().await[0].status() != RunStatus::Canceled {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ended).await.expect("nobody has looked");
    assert_eq!(world.runs().await[1].status(), RunStatus::Queued);
    stop.cancel();
    ends.await.expect("it ends");
}
