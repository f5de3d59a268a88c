//! Timers over a real store and a clock that stands still: what fires, once, and what does not.

mod unreadable;

use std::collections::BTreeMap;

use cooper_engine::run::Run;
use cooper_engine::task::{CatchUp, TaskChange, Timer};
use cooper_engine::timer::{Expression, Schedule, Zone};
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::runs::{RunQuery, RunType};
use cooper_store::Store;
use cooper_types::TimerName;
use tempfile::TempDir;

use super::*;
use crate::testing;
use crate::testing::tasks::{self, name};

/// 2026-01-01T00:00:30Z
const START: i64 = 1_767_225_630_000_000;
const MINUTE: Duration = Duration::from_secs(60);

impl Timers {
    /// Fires all that has come, and lets it land.
    async fn settle(&mut self) {
        loop {
            self.look().await;
            match self.flights.join_next_with_id().await {
                Some(landed) => self.landed(landed),
                None if self.queue.is_empty() => return,
                None => {}
            }
        }
    }
}

struct World {
    core: Arc<Core>,
    store: Store,
    clock: Arc<ManualClock>,
    watched: Timestamp,
    data: TempDir,
}

fn timer(expression: &str, catch_up: CatchUp) -> Timer {
    let expression = Expression::parse(expression).expect("an expression");
    Timer { schedule: Schedule { expression, zone: Zone::utc() }, catch_up, enabled: true }
}

impl World {
    /// A server in which ann has a token.
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
        let (core, store) = testing::core_in(data.path(), clock.clone()).await;
        testing::token(&core, "ann", &["run", "repository:*:pull"]).await;
        Self { core, store, watched: clock.now(), clock, data }
    }

    async fn put(&self, task: &str, text: &str, timers: &[(&str, Timer)]) {
        let timers = timers.iter().map(|(name, timer)| (TimerName::parse(name).expect("valid"), Some(timer.clone())));
        let change = TaskChange { timers: timers.collect(), ..TaskChange::default() };
        tasks::make(&self.core, "ann", task, text, change, self.clock.now()).await;
    }

    async fn change(&self, task: &str, change: TaskChange) {
        tasks::change(&self.core, task, change, self.clock.now()).await;
    }

    /// Looks at the timers; the answer is in how many seconds the next look is due.
    async fn pass(&self) -> Option<u64> {
        let mut timers = Timers::new(Arc::clone(&self.core));
        timers.watched = self.watched;
        timers.settle().await;
        let next = self.core.tasks.next_timer(Timestamp::from_micros(0)).await.expect("store");
        next.map(|next| next.since(self.clock.now()).as_secs())
    }

    /// Stops the server for a time.
    async fn down_for(self, time: Duration) -> Self {
        let Self { store, clock, data, .. } = self;
        store.close().await.expect("closed");
        clock.advance(time);
        let (core, store) = testing::core_in(data.path(), clock.clone()).await;
        Self { core, store, watched: clock.now(), clock, data }
    }

    /// The instants for which there are runs, as minutes after the first midnight; oldest first.
    async fn fired(&self) -> Vec<(String, u64)> {
        let query = RunQuery::newest(1000);
        let mut runs: Vec<Run> =
            self.core.runs.list_runs(&query).await.expect("store").into_iter().map(|record| record.run).collect();
        runs.reverse();
        let minute = |at: Timestamp| at.since(Timestamp::from_micros(START)).as_secs().div_ceil(60);
        let fired = runs.iter().filter_map(|run| match &run.origin.cause {
            Cause::Timer { timer, occurrence, .. } => Some((timer.to_string(), minute(*occurrence))),
            Cause::Manual | Cause::For { .. } | Cause::BaseImage { .. } | Cause::Source(_) => None,
        });
        fired.collect()
    }

    async fn why_not(&self, task: &str) -> Vec<String> {
        let fired = self.core.tasks.list_fired(&name(task), 100).await.expect("store");
        fired.into_iter().filter_map(|fired| fired.outcome.err()).collect()
    }
}

const STEPS: &str = "version: v1.1.0\nsteps:\n  - cmd: busybox true\n";

fn all(fired: &[(&str, u64)]) -> Vec<(String, u64)> {
    fired.iter().map(|(timer, minute)| ((*timer).to_owned(), *minute)).collect()
}

#[tokio::test]
async fn each_instant_sets_off_one_run() {
    let world = World::new().await;
    assert_eq!(world.pass().await, None, "there is nothing to wait for");
    let timers = [("each", timer("* * * * *", CatchUp::Skip)), ("other", timer("*/2 * * * *", CatchUp::Skip))];
    world.put("nightly", STEPS, &timers).await;
    assert_eq!(world.pass().await, Some(30));
    assert_eq!(world.fired().await, []);
    world.clock.advance(MINUTE / 2);
    assert_eq!(world.pass().await, Some(60));
    assert_eq!(world.pass().await, Some(60), "a second look finds nothing");
    assert_eq!(world.fired().await, all(&[("each", 1)]));
    // Much to do elsewhere: what is late is made up for, instant by instant.
    world.clock.advance(MINUTE * 2);
    world.pass().await;
    let mut fired = world.fired().await;
    fired.sort();
    assert_eq!(fired, all(&[("each", 1), ("each", 2), ("each", 3), ("other", 2)]));
    let query = RunQuery {
        run_type: Some(RunType::AutoRun),
        task: Some(name("NIGHTLY")),
        principal: Some(testing::principal("ann")),
        ..RunQuery::newest(10)
    };
    let runs = world.core.runs.list_runs(&query).await.expect("store");
    assert_eq!(runs.len(), 4);
    let run = &runs[0].run;
    assert!(run.scopes.run() && !run.scopes.admin(), "no more than ann's token allows now: {:?}", run.scopes);
}

#[tokio::test]
async fn what_is_disabled_or_gone_does_not_fire() {
    let world = World::new().await;
    world.put("nightly", STEPS, &[("each", timer("* * * * *", CatchUp::Skip))]).await;
    world.change("nightly", TaskChange { enabled: Some(false), ..TaskChange::default() }).await;
    world.clock.advance(MINUTE);
    assert_eq!(world.pass().await, None);
    world.change("nightly", TaskChange { enabled: Some(true), ..TaskChange::default() }).await;
    assert_eq!(world.pass().await, Some(30), "what passed in the meantime is not made up for");
    let off = Timer { enabled: false, ..timer("* * * * *", CatchUp::Skip) };
    let timers = BTreeMap::from([(TimerName::parse("each").expect("valid"), Some(off))]);
    world.change("nightly", TaskChange { timers, ..TaskChange::default() }).await;
    world.clock.advance(MINUTE);
    assert_eq!(world.pass().await, None);
    world.put("other", STEPS, &[("each", timer("* * * * *", CatchUp::Skip))]).await;
    let other = tasks::find(&world.core, "Other").await;
    assert!(world.core.tasks.delete_task(&other).await.expect("store"));
    world.clock.advance(MINUTE);
    assert_eq!(world.pass().await, None);
    assert_eq!(world.fired().await, []);
}

#[tokio::test]
async fn a_change_of_something_else_loses_no_instant() {
    let world = World::new().await;
    world.put("nightly", STEPS, &[("each", timer("* * * * *", CatchUp::Skip))]).await;
    world.clock.advance(MINUTE);
    world.change("nightly", TaskChange { priority: Some(7), ..TaskChange::default() }).await;
    world.pass().await;
    assert_eq!(world.fired().await, all(&[("each", 1)]));
}

#[tokio::test]
async fn what_was_due_while_no_server_ran_is_skipped_or_done_once() {
    let world = World::new().await;
    world.put("skips", STEPS, &[("skip", timer("*/5 * * * *", CatchUp::Skip))]).await;
    world.put("catches", STEPS, &[("once", timer("*/5 * * * *", CatchUp::Once))]).await;
    // Down from 00:00:30 to 00:22:30: 00:05, 00:10, 00:15 and 00:20 pass.
    let world = world.down_for(MINUTE * 22).await;
    assert_eq!(world.pass().await, Some(150));
    assert_eq!(world.fired().await, all(&[("once", 5)]));
    assert!(world.why_not("skips").await[0].contains("no server could run it"), "{:?}", world.why_not("skips").await);
    world.clock.advance(Duration::from_secs(150));
    world.pass().await;
    let mut fired = world.fired().await;
    fired.sort();
    assert_eq!(fired, all(&[("once", 5), ("once", 25), ("skip", 25)]));
    // A restart within the grace is no downtime.
    world.clock.advance(MINUTE * 4 + MINUTE / 2);
    let world = world.down_for(MINUTE).await;
    world.pass().await;
    assert_eq!(world.fired().await.iter().filter(|(_, minute)| *minute == 30).count(), 2);
}

#[tokio::test]
async fn what_can_not_run_is_told_and_the_timer_goes_on() {
    let world = World::new().await;
    world
        .put(
            "broken",
            "version: v1.1.0\nsteps:\n  - id: a b\n    cmd: busybox\n",
            &[("each", timer("* * * * *", CatchUp::Skip))],
        )
        .await;
    world.clock.advance(MINUTE);
    assert_eq!(world.pass().await, Some(30));
    let why = world.why_not("broken").await;
    assert!(why.len() == 1 && why[0].contains("acr-task.yaml:3"), "{why:?}");

    let tokens = world.core.access.store().list_tokens().await.expect("store");
    for token in tokens {
        world.core.access.store().revoke_token(&token.id).await.expect("revoked");
    }
    world.clock.advance(MINUTE);
    world.pass().await;
    let why = world.why_not("broken").await;
    assert!(why[0].contains("ann's, who has no token that works"), "{why:?}");
    assert_eq!(world.fired().await, []);
}

#[tokio::test]
async fn one_principals_many_timers_keep_nobody_elses_from_firing() {
    let world = World::new().await;
    let mut timers = Timers::new(Arc::clone(&world.core));
    let instant = |number: usize, principal: &str| Instant {
        task: name(&format!("nightly{number}")),
        timer: TimerName::parse("each").expect("valid"),
        at: world.clock.now(),
        principal: testing::principal(principal),
    };
    timers.queue = (0..AT_ONCE_OF_ONE + 10).map(|number| instant(number, "ann")).collect();
    timers.queue.push_back(instant(1000, "bob"));
    timers.send_off(world.clock.now());
    let of = |who: &str| timers.of_flight.values().filter(|(_, principal)| principal.as_str() == who).count();
    assert_eq!((of("ann"), of("bob"), timers.queue.len()), (AT_ONCE_OF_ONE, 1, 10));
    // They are of no task, and land at once; the others follow.
    while let Some(landed) = timers.flights.join_next_with_id().await {
        timers.landed(landed);
        timers.send_off(world.clock.now());
    }
    assert_eq!((timers.queue.len(), timers.in_flight.len(), timers.of_principal.len()), (0, 0, 0));
}

#[tokio::test]
async fn many_instants_at_once_do_not_wait_for_each_other() {
    let world = World::new().await;
    let tasks = 100;
    for number in 0..tasks {
        world.put(&format!("nightly{number}"), STEPS, &[("each", timer("*/5 * * * *", CatchUp::Skip))]).await;
    }
    world.clock.advance(MINUTE * 5);
    // More flights than the store has connections, for which the loop that lets them land waits, too.
    let pass = tokio::time::timeout(Duration::from_secs(20), world.pass());
    assert_eq!(pass.await.expect("nothing waits for ever"), Some(270));
    assert_eq!(world.fired().await.len(), tasks);
}

#[tokio::test]
async fn what_passes_while_the_machine_sleeps_was_missed() {
    let world = World::new().await;
    world.put("nightly", STEPS, &[("each", timer("*/5 * * * *", CatchUp::Skip))]).await;
    let mut timers = Timers::new(Arc::clone(&world.core));
    timers.settle().await;
    // To the timers the clock jumps: 00:05, 00:10, 00:15 and 00:20 pass.
    world.clock.advance(MINUTE * 22);
    timers.settle().await;
    assert_eq!(world.fired().await, []);
    world.clock.advance(MINUTE * 3);
    timers.looked = (world.clock.now(), Moment::now());
    timers.read_at = Moment::now();
    timers.settle().await;
    assert_eq!(world.fired().await, all(&[("each", 25)]));
}

#[tokio::test]
async fn a_timer_that_can_not_be_fired_makes_no_other_late_and_none_missed() {
    let world = World::new().await;
    world.put("broken", STEPS, &[("each", timer("*/5 * * * *", CatchUp::Skip))]).await;
    world.put("sound", STEPS, &[("other", timer("*/5 * * * *", CatchUp::Skip))]).await;
    let mut timers = Timers::new(Arc::clone(&world.core));
    world.clock.advance(MINUTE * 5 - MINUTE / 2 - Duration::from_secs(2));
    let key = ("broken".to_owned(), TimerName::parse("each").expect("valid"));
    // What is held waits for long, and the next instant is in two seconds.
    timers.held.insert(key.clone(), Moment::now() + Duration::from_secs(3600));
    let next = timers.read(world.clock.now()).await.expect("store").expect("there is one");
    assert_eq!(next.since(world.clock.now()), Duration::from_secs(2));
    // Three minutes in which a source is away, say, and then the store fails with one of them.
    world.clock.advance(MINUTE * 3);
    let why = StoreError::corrupt("read a task", std::io::Error::other("it has no name"));
    let flight = timers.flights.spawn(async move { Err(why) });
    timers.of_flight.insert(flight.id(), (key.clone(), testing::principal("ann")));
    let landed = timers.flights.join_next_with_id().await.expect("one is on its way");
    timers.landed(landed);
    assert!(timers.held.remove(&key).is_some(), "it is let be");
    timers.looked = (world.clock.now(), Moment::now());
    timers.read_at = Moment::now();
    timers.settle().await;
    assert_eq!(world.fired().await, all(&[("other", 5)]));
    assert!(world.why_not("broken").await[0].contains("no server could run it"), "{:?}", world.why_not("broken").await);
    assert!(timers.failed.is_empty(), "it has been dealt with");
}

#[tokio::test]
async fn a_timer_that_outruns_its_runs_waits_for_them() {
    let world = World::new().await;
    world.put("nightly", STEPS, &[("each", timer("* * * * *", CatchUp::Skip))]).await;
    world.clock.advance(MINUTE * (MAX_WAITING + 4));
    world.pass().await;
    assert_eq!(world.fired().await.len(), MAX_WAITING as usize);
    let why = world.why_not("nightly").await;
    assert!(why.len() == 4 && why[0].contains("16 runs of earlier instants of the timer still wait"), "{why:?}");
}

#[tokio::test]
async fn an_instant_that_comes_again_is_passed_by() {
    let world = World::new().await;
    world.put("nightly", STEPS, &[("each", timer("*/5 * * * *", CatchUp::Skip))]).await;
    world.clock.advance(MINUTE * 5);
    world.pass().await;
    let off = |enabled| {
        let timer = Timer { enabled, ..timer("*/5 * * * *", CatchUp::Skip) };
        let timers = BTreeMap::from([(TimerName::parse("each").expect("valid"), Some(timer))]);
        TaskChange { timers, ..TaskChange::default() }
    };
    // The clock is set back by five minutes, and the timer is made anew.
    world.change("nightly", off(false)).await;
    world.clock.set(Timestamp::from_micros(START));
    world.change("nightly", off(true)).await;
    world.clock.advance(MINUTE * 5);
    assert_eq!(world.pass().await, Some(270), "the timer goes on");
    assert_eq!(world.fired().await, all(&[("each", 5)]));
}
