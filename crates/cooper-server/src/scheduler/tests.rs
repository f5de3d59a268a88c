//! The scheduler's look at a real store.

use std::collections::BTreeMap;

use cooper_engine::run::AgentRef;
use cooper_engine::schedule::AgentView;
use cooper_types::{AgentName, Platform, PoolName};

use super::*;
use crate::testing::{self, accept};

#[tokio::test]
async fn a_look_explains_every_wait_once() {
    let (core, _data) = testing::core().await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(accept(&core, Vec::new()).await);
    }
    let find = async |run| core.runs.find_run(run).await.expect("store").expect("run");
    let mut scheduler = Scheduler::default();
    scheduler.look(&core).await.expect("store");
    let mut updated = Vec::new();
    for run in &runs {
        let record = find(*run).await;
        let reason = record.run.pending_reason().expect("waits").to_string();
        assert!(reason.contains("no agent is connected"), "{reason}");
        updated.push(record.updated);
    }
    scheduler.look(&core).await.expect("store");
    for (run, updated) in runs.iter().zip(updated) {
        assert_eq!(find(*run).await.updated, updated, "a second look has nothing to write");
    }
    let woken = tokio::time::timeout(Duration::ZERO, core.wake.notified()).await;
    assert!(woken.is_err(), "an explanation is no reason for another look");
}

/// What a queue holds that is read now, from nothing.
async fn rows(core: &Core) -> Vec<Run> {
    let mut queue = Queue::default();
    queue.refresh(&*core.runs).await.expect("store");
    queue.runs().cloned().collect()
}

#[tokio::test]
async fn a_look_goes_by_the_rows_whoever_changed_them() {
    let (core, _data) = testing::core().await;
    let agent = AgentRef { name: AgentName::parse("a").expect("valid"), incarnation: "1".to_owned() };
    let fence = async |run| {
        let run = core.runs.find_run(run).await.expect("store").expect("run").run;
        run.placements[0].lease().map(|lease| lease.fence).expect("a lease")
    };
    // Nothing of this goes through the core, so nobody is told.
    let change = async |run, event| core.runs.apply_event(run, event, &core.policy).await.expect("applied");
    let mut scheduler = Scheduler::default();
    let mut check = async |what: &str| {
        scheduler.queue.refresh(&*core.runs).await.expect("store");
        let copy: Vec<Run> = scheduler.queue.runs().cloned().collect();
        assert_eq!(copy, rows(&core).await, "{what}");
        copy.len()
    };
    let (one, two) = (accept(&core, Vec::new()).await, accept(&core, Vec::new()).await);
    assert_eq!(check("two new ones").await, 2);
    for run in [one, two] {
        change(run, RunEvent::Offer { placement: 0, agent: agent.clone() }).await;
    }
    check("offered").await;
    change(one, RunEvent::Declined { fence: fence(one).await, why: "no".to_owned() }).await;
    change(two, RunEvent::Accepted { fence: fence(two).await, host: None }).await;
    let three = accept(&core, Vec::new()).await;
    assert_eq!(check("several changes at once").await, 3);
    // It came and went between two looks.
    let four = accept(&core, Vec::new()).await;
    for run in [one, four] {
        change(run, RunEvent::CancelRequested { by: testing::principal("alice") }).await;
    }
    assert_eq!(check("ended").await, 2);
    change(two, RunEvent::AgentRemoved { name: agent.name.clone() }).await;
    check("lost").await;
    scheduler.look(&core).await.expect("store");
    let reason = core.runs.find_run(three).await.expect("store").expect("run").run.pending_reason().cloned();
    assert_eq!(reason, Some(PendingReason::NoAgent));
}

fn agent_with(slots: u32) -> AgentView {
    AgentView {
        agent: AgentRef { name: AgentName::parse("a").expect("valid"), incarnation: "1".to_owned() },
        pool: PoolName::default_pool(),
        native: vec![Platform::LINUX_AMD64],
        emulated: Vec::new(),
        slots,
        draining: false,
        unavailable: false,
        takes_images: true,
        allows: [].into(),
    }
}

/// The runs on offer, and their offers.
async fn offered(core: &Core) -> BTreeMap<RunId, cooper_types::Fence> {
    let runs = rows(core).await;
    let offers = runs.iter().filter_map(|run| match &run.placements[0] {
        Placement::Offered(lease) => Some((run.id, lease.fence)),
        _ => None,
    });
    offers.collect()
}

#[tokio::test]
async fn a_glance_offers_what_it_was_told_of() {
    let (core, _data) = testing::core().await;
    let _stream = core.agents.join(agent_with(4));
    let mut scheduler = Scheduler::default();
    let (told, untold) = (accept(&core, Vec::new()).await, accept(&core, Vec::new()).await);
    core.run_accepted(&core.runs.find_run(told).await.expect("store").expect("run").run);
    scheduler.glance(&core).await;
    assert_eq!(offered(&core).await.into_keys().collect::<Vec<_>>(), [told]);
    scheduler.look(&core).await.expect("store");
    assert_eq!(
        offered(&core).await.into_keys().collect::<Vec<_>>(),
        [told, untold],
        "a look finds what nobody told of"
    );
}

#[tokio::test]
async fn late_news_is_no_news() {
    let (core, _data) = testing::core().await;
    let id = accept(&core, Vec::new()).await;
    let accepted = core.runs.find_run(id).await.expect("store").expect("run").run;
    let mut scheduler = Scheduler::default();
    scheduler.look(&core).await.expect("store");
    scheduler.listen(&core);
    scheduler.queue.tell(1, accepted);
    assert_eq!(scheduler.queue.runs().cloned().collect::<Vec<_>>(), rows(&core).await);
}

#[tokio::test]
async fn so_many_offers_wait_for_their_answers_and_no_more() {
    let (core, _data) = testing::core().await;
    let _stream = core.agents.join(agent_with(1000));
    for _ in 0..MAX_OFFERS + 10 {
        accept(&core, Vec::new()).await;
    }
    let mut scheduler = Scheduler::default();
    scheduler.look(&core).await.expect("store");
    let first = offered(&core).await;
    assert_eq!(first.len(), MAX_OFFERS);
    let answered: Vec<_> = first.into_iter().take(10).collect();
    while tokio::time::timeout(Duration::ZERO, core.wake.notified()).await.is_ok() {}
    for (run, fence) in &answered {
        core.apply(*run, RunEvent::Accepted { fence: *fence, host: None }).await.expect("accepted");
    }
    tokio::time::timeout(Duration::ZERO, core.wake.notified()).await.expect("an answer makes room for an offer");
    scheduler.glance(&core).await;
    // More than that where the machine is so slow that the first ones don't count any more.
    assert!(offered(&core).await.len() >= MAX_OFFERS, "what is answered makes room");
}

#[tokio::test]
async fn what_is_kept_beside_the_runs_agrees_with_them() {
    let (core, _data) = testing::core().await;
    let _stream = core.agents.join(agent_with(2));
    let mut scheduler = Scheduler::default();
    let check = |queue: &Queue, what: &str| {
        assert_eq!(*queue.load(), schedule::load(queue.runs()), "{what}");
        let policy = &core.policy;
        // Nothing pauses here, so what waits is what could be offered.
        let waiting = schedule::waiting(queue.runs(), core.clock.now().after(Duration::from_secs(3600)), policy);
        let oldest =
            schedule::waiting(queue.oldest_waiting(100), core.clock.now().after(Duration::from_secs(3600)), policy);
        assert_eq!(oldest, waiting, "{what}");
        waiting.len()
    };
    for _ in 0..3 {
        accept(&core, Vec::new()).await;
    }
    scheduler.look(&core).await.expect("store");
    scheduler.listen(&core);
    assert_eq!(check(&scheduler.queue, "two are offered"), 1);
    let offers: Vec<_> = offered(&core).await.into_iter().collect();
    core.apply(offers[0].0, RunEvent::Declined { fence: offers[0].1, why: "no".to_owned() }).await.expect("declined");
    core.apply(offers[1].0, RunEvent::Accepted { fence: offers[1].1, host: None }).await.expect("accepted");
    scheduler.listen(&core);
    assert_eq!(check(&scheduler.queue, "one has come back"), 2);
    let cancel = RunEvent::CancelRequested { by: testing::principal("alice") };
    core.apply(offers[0].0, cancel).await.expect("canceled");
    scheduler.listen(&core);
    assert_eq!(check(&scheduler.queue, "one is over"), 1);
    assert_eq!(scheduler.queue.oldest_waiting(0).count(), 0);
    scheduler.read(&core).await.expect("store");
    assert_eq!(scheduler.queue.runs().cloned().collect::<Vec<_>>(), rows(&core).await);
}
