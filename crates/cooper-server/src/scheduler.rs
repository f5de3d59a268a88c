//! The scheduler's loop: looks at all unfinished runs once a second and does what is due; when it is woken it glances at
//! what it was told of, and offers what waits.
//!
//! What it keeps between two looks is a copy of rows that each full look brings up to date, so a restart, a lost wake-up and
//! a crash all go down the same path. One loop looks at a time: wake-ups that come meanwhile are one more glance. A glance
//! costs the same however long the queue is.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cooper_engine::run::{PendingReason, Placement, Refusal, Run, RunEvent};
use cooper_engine::schedule::{self, Decision, WaitingView};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::{ApplyError, Explanation};
use cooper_ports::store_error::StoreError;
use cooper_types::{RunId, Timestamp};
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;
use queue::Queue;

/// The time between two full looks: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that are on the way to the store at a time: they share commits.
const AT_ONCE: usize = 64;
/// Runs that are told why they wait in one change: others wait for its end.
const TOLD_AT_ONCE: usize = 16;
/// Offers that are about to be answered at a time. More would not get agents to work sooner: their answers would wait behind
/// each other in the server until the offers have ended.
const MAX_OFFERS: usize = 128;
/// The most new runs that one full look tells why they wait, and the most that it tells anew: a long queue moves with every
/// run that ends.
const EXPLANATIONS: usize = 256;

/// Events, and the runs that they are of.
type Events = Vec<(RunId, RunEvent)>;

/// Runs until cancelled. Leases begin anew first: while the server was down nobody could renew.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut scheduler = Scheduler::default();
    if let Err(error) = scheduler.extend_leases(&core).await {
        tracing::error!(error = chain(&error), "leases can't be extended after the restart");
    }
    let mut look_due = Instant::now();
    loop {
        if look_due <= Instant::now() {
            if let Err(error) = scheduler.look(&core).await {
                tracing::error!(error = chain(&error), "scheduler can't read the runs; trying again");
            }
            look_due = Instant::now() + PERIOD;
        } else {
            scheduler.glance(&core).await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.wake.notified() => {}
            () = tokio::time::sleep_until(look_due) => {}
        }
    }
}

/// What the loop keeps between two looks.
#[derive(Default)]
struct Scheduler {
    queue: Queue,
}

impl Scheduler {
    /// Takes in what changed since the last time.
    fn listen(&mut self, core: &Core) {
        for (generation, run) in core.changed_runs() {
            self.queue.tell(generation, run);
        }
    }

    /// Reads all that changed, whoever changed it.
    async fn read(&mut self, core: &Core) -> Result<(), StoreError> {
        // In this order: what was told of is in the rows by now, so a run that is not there has ended.
        self.listen(core);
        self.queue.refresh(&*core.runs).await
    }

    async fn extend_leases(&mut self, core: &Core) -> Result<(), StoreError> {
        self.read(core).await?;
        let held = |run: &&Run| run.placements.iter().any(|placement| placement.lease().is_some());
        let held: Vec<RunId> = self.queue.runs().filter(held).map(|run| run.id).collect();
        let extend = |run| async move {
            apply(core, run, RunEvent::ServerStarted).await;
            failpoint::pass(Failpoint::LeaseExtended);
        };
        futures::stream::iter(held).for_each_concurrent(AT_ONCE, extend).await;
        Ok(())
    }

    async fn look(&mut self, core: &Core) -> Result<(), StoreError> {
        // While nothing could be written, nobody could renew: as after a restart, leases begin anew before anything is
        // judged by them. Until that can be written there is nothing else to do.
        if core.refused_writes.swap(false, Ordering::Relaxed) {
            self.extend_leases(core).await?;
            if core.refused_writes.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        let now = core.clock.now();
        self.read(core).await?;
        // Asking the state machine first spares a write for each run and look.
        let due = self.queue.runs().filter(|run| run.is_due(now, &core.policy));
        let due: Vec<_> = due.map(|run| (run.id, RunEvent::Tick)).collect();
        if !due.is_empty() {
            apply_all(core, due).await;
            self.listen(core);
        }
        let waiting = schedule::waiting(self.queue.runs(), now, &core.policy);
        let waits = self.offer(core, waiting, now).await;
        let (mut first, mut anew) = self.explanations(waits);
        // After the offers, and a bounded number: a long queue must not keep agents waiting for work. Later looks go on
        // with the rest.
        first.truncate(EXPLANATIONS);
        anew.truncate(EXPLANATIONS);
        first.append(&mut anew);
        explain(core, first).await;
        Ok(())
    }

    /// Offers what waits, as far as is known without a look at the rows.
    async fn glance(&mut self, core: &Core) {
        self.listen(core);
        // As in a full look, nothing is judged while nothing can be written.
        if core.refused_writes.load(Ordering::Relaxed) {
            return;
        }
        let now = core.clock.now();
        let waiting = schedule::waiting(self.queue.oldest_waiting(MAX_OFFERS), now, &core.policy);
        let waits = self.offer(core, waiting, now).await;
        let (mut first, _) = self.explanations(waits);
        first.truncate(AT_ONCE);
        explain(core, first).await;
    }

    /// What is to be written of why placements wait: the first reason of some, and another one of others.
    fn explanations(&self, waits: Vec<Explanation>) -> (Vec<Explanation>, Vec<Explanation>) {
        let (mut first, mut anew) = (Vec::new(), Vec::new());
        for explanation in waits {
            let Explanation { run, placement, reason } = &explanation;
            let before = self.queue.get(*run).and_then(|run| run.placements.get(*placement));
            let explanations = match before {
                Some(Placement::Waiting { reason: PendingReason::New }) => &mut first,
                Some(Placement::Waiting { reason: old }) if old != reason => &mut anew,
                _ => continue,
            };
            explanations.push(explanation);
        }
        (first, anew)
    }

    /// Offers these placements to agents, and returns why the others wait.
    async fn offer(&mut self, core: &Core, waiting: Vec<WaitingView>, now: Timestamp) -> Vec<Explanation> {
        if waiting.is_empty() {
            return Vec::new();
        }
        let room = MAX_OFFERS.saturating_sub(self.queue.fresh_offers(now, &core.policy));
        let (mut offers, mut waits) = (Vec::new(), Vec::new());
        let (limit_of, begun) = (|run| self.queue.limit_of(run), self.queue.begun());
        for decision in schedule::schedule(waiting, &core.agents.views(), self.queue.load(), limit_of, begun) {
            match decision {
                Decision::Offer { run, placement, agent } if offers.len() < room => {
                    offers.push((run, RunEvent::Offer { placement, agent }));
                }
                // Its turn is when offers have been answered.
                Decision::Offer { .. } => {}
                Decision::Wait { run, placement, reason } => waits.push(Explanation { run, placement, reason }),
            }
        }
        apply_all(core, offers).await;
        waits
    }
}

/// Applies events of different runs beside each other, so that they share commits.
async fn apply_all(core: &Core, events: Events) {
    futures::stream::iter(events).for_each_concurrent(AT_ONCE, |(run, event)| apply(core, run, event)).await;
}

/// Writes down why placements wait, some with each change: others want to write in between.
async fn explain(core: &Core, mut reasons: Vec<Explanation>) {
    while !reasons.is_empty() {
        let later = reasons.split_off(reasons.len().min(TOLD_AT_ONCE));
        if let Err(error) = core.explain(std::mem::replace(&mut reasons, later)).await {
            tracing::error!(error = chain(&error), "why runs wait can't be written; trying again");
            return;
        }
    }
}

async fn apply(core: &Core, run: RunId, event: RunEvent) {
    match core.apply(run, event).await {
        Ok(_)
        | Err(ApplyError::Refused { refusal: Refusal::NothingToDo | Refusal::NotWaiting | Refusal::Over, .. }) => {}
        Err(error) => tracing::error!(run = %run, error = chain(&error), "run can't be moved on; trying again"),
    }
}
