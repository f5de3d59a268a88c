//! The scheduler's look at a real store.

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
