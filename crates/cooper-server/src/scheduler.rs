//! The scheduler's loop: looks at all unfinished runs, when woken and by itself, and does what is due.
//!
//! What it keeps between two looks is a copy of rows that each look brings up to date, so a restart, a lost wake-up and a
//! crash all go down the same path. One loop looks at a time: wake-ups that come meanwhile are one more look.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cooper_engine::run::{PendingReason, Placement, Refusal, Run, RunEvent};
use cooper_engine::schedule::{self, Decision};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::ApplyError;
use cooper_ports::store_error::StoreError;
use cooper_types::RunId;
use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;
use queue::Queue;

/// The longest time between two looks: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(1);
/// How often expired contexts are removed, and connected agents written down as seen.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(60);
/// Contexts that are removed in one go.
const CONTEXT_BATCH: u32 = 100;

/// Events that are on the way to the store at a time: they share commits.
const AT_ONCE: usize = 64;
/// The most new runs that one look tells why they wait.
const FIRST_EXPLANATIONS: usize = 64;
/// The most runs that are told anew why they wait, once in a period. A long queue moves with every run that ends.
const EXPLANATIONS: usize = 256;

/// Runs until cancelled. Leases begin anew first: while the server was down nobody could renew.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut scheduler = Scheduler::default();
    if let Err(error) = scheduler.extend_leases(&core).await {
        tracing::error!(error = chain(&error), "leases can't be extended after the restart");
    }
    let mut housekeeping_due = Instant::now();
    loop {
        if let Err(error) = scheduler.look(&core).await {
            tracing::error!(error = chain(&error), "scheduler can't read the runs; trying again");
        }
        if housekeeping_due <= Instant::now() {
            housekeeping_due = Instant::now() + HOUSEKEEPING_PERIOD;
            remove_expired_contexts(&core).await;
            core.write_down_agents().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.wake.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// What the loop keeps between two looks.
#[derive(Default)]
struct Scheduler {
    queue: Queue,
    /// When runs were last told anew why they wait.
    explained: Option<Instant>,
}

impl Scheduler {
    async fn extend_leases(&mut self, core: &Core) -> Result<(), StoreError> {
        self.queue.refresh(&*core.runs).await?;
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
        self.queue.refresh(&*core.runs).await?;
        // Asking the state machine first spares a write for each run and look.
        let due = self.queue.runs().filter(|run| run.is_due(now, &core.policy));
        let due: Vec<_> = due.map(|run| (run.id, RunEvent::Tick)).collect();
        if !due.is_empty() {
            apply_all(core, due).await;
            self.queue.refresh(&*core.runs).await?;
        }
        let agents = core.agents.views();
        let load = schedule::load(self.queue.runs());
        let waiting = schedule::waiting(self.queue.runs(), now, &core.policy);
        let (mut offers, mut first, mut anew) = (Vec::new(), Vec::new(), Vec::new());
        for decision in schedule::schedule(waiting, &agents, &load) {
            match decision {
                Decision::Offer { run, placement, agent } => offers.push((run, RunEvent::Offer { placement, agent })),
                Decision::Wait { run, placement, reason } => {
                    let before = self.queue.get(run).and_then(|run| run.placements.get(placement));
                    let explanations = match before {
                        Some(Placement::Waiting { reason: PendingReason::New }) => &mut first,
                        Some(Placement::Waiting { reason: old }) if *old != reason => &mut anew,
                        _ => continue,
                    };
                    explanations.push((run, RunEvent::Explained { placement, reason }));
                }
            }
        }
        apply_all(core, offers).await;
        // After the offers, and a bounded number: a long queue must not keep agents waiting for work. Later looks go on
        // with the rest.
        first.truncate(FIRST_EXPLANATIONS);
        if self.explained.is_none_or(|last| last.elapsed() >= PERIOD) {
            self.explained = Some(Instant::now());
            anew.truncate(EXPLANATIONS);
            first.append(&mut anew);
        }
        apply_all(core, first).await;
        Ok(())
    }
}

/// Applies events of different runs beside each other, so that they share commits.
async fn apply_all(core: &Core, events: Vec<(RunId, RunEvent)>) {
    futures::stream::iter(events).for_each_concurrent(AT_ONCE, |(run, event)| apply(core, run, event)).await;
}

async fn apply(core: &Core, run: RunId, event: RunEvent) {
    match core.apply(run, event).await {
        Ok(_)
        | Err(ApplyError::Refused { refusal: Refusal::NothingToDo | Refusal::NotWaiting | Refusal::Over, .. }) => {}
        Err(error) => tracing::error!(run = %run, error = chain(&error), "run can't be moved on; trying again"),
    }
}

pub(crate) async fn remove_expired_contexts(core: &Core) {
    let expired = match core.contexts.expire_contexts(CONTEXT_BATCH).await {
        Ok(expired) => expired,
        Err(error) => {
            tracing::error!(error = chain(&error), "expired contexts can't be listed");
            return;
        }
    };
    let mut gone = Vec::new();
    for id in expired {
        match core.context_files.remove(&id).await {
            Ok(()) => gone.push(id),
            Err(error) => tracing::error!(context = %id, error = %error, "expired context can't be removed"),
        }
    }
    if let Err(error) = core.contexts.forget_contexts(&gone).await {
        tracing::error!(error = chain(&error), "removed contexts can't be forgotten");
    }
}
