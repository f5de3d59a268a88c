//! The scheduler's look at a real store.

use cooper_engine::run::AgentRef;
use cooper_types::AgentName;

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
    change(two, RunEvent::Accepted { fence: fence(two).await }).await;
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
