//! The one engine of everything that goes out: webhooks, and notifications of tasks.
//!
//! What is to be sent is rows ([`cooper_ports::outbox`]), written with the events themselves. Each target's first row is tried,
//! and the next one when that has ended: so a target gets its events in order, and one that is slow or gone delays nobody else. A row
//! may be sent twice where a server dies between the answer and the row's change; its event's id is the same then.

pub(crate) mod endpoint;
mod post;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::delivery::State;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::outbox::{Claimed, Target, Waiting};
use cooper_ports::store_error::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

/// How many targets are tried at a time.
const AT_ONCE: usize = 128;
/// How many of those may be ones that have not taken what was sent to them before.
const RETRIES_AT_ONCE: usize = 64;
/// How long it waits after a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// How often old deliveries are forgotten.
const PRUNING: Duration = Duration::from_secs(60);
/// How long the server's stop waits for tries that go on; those that are cut off are made again.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// The tries that go on, one for each target at most.
#[derive(Default)]
struct Flights {
    tries: JoinSet<()>,
    targets: HashMap<tokio::task::Id, Flight>,
}

struct Flight {
    target: Target,
    is_retry: bool,
}

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    // Nobody else has the data, so whoever tried something is gone.
    if let Err(error) = core.outbox.release().await {
        tracing::error!(
            error = chain(&error),
            "deliveries of an earlier process can't be taken over; they wait for a minute"
        );
    }
    let mut flights = Flights::default();
    let mut pruned: Option<tokio::time::Instant> = None;
    loop {
        if pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNING) {
            prune(&core).await;
            pruned = Some(tokio::time::Instant::now());
        }
        let wait = match flights.pass(&core).await {
            Ok(wait) => wait.unwrap_or(PRUNING).min(PRUNING),
            Err(error) => {
                tracing::error!(error = chain(&error), "deliveries can't be looked at; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = core.outbox.queued() => {}
            () = flights.one_ended() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let _ = tokio::time::timeout(LAST_TRIES, async { while flights.tries.join_next().await.is_some() {} }).await;
}

async fn prune(core: &Core) {
    match core.outbox.prune().await {
        Ok(0) => {}
        Ok(given_up) => tracing::warn!(given_up, "events were given up before they could be delivered"),
        Err(error) => tracing::error!(error = chain(&error), "old deliveries can't be removed"),
    }
}

impl Flights {
    /// Begins all tries that are due, and tells for how long nothing else is.
    async fn pass(&mut self, core: &Arc<Core>) -> Result<Option<Duration>, StoreError> {
        let now = core.clock.now();
        let flying: BTreeSet<&Target> = self.targets.values().map(|flight| &flight.target).collect();
        let mut waiting = core.outbox.waiting().await?;
        waiting.retain(|one| !flying.contains(&one.target));
        let later = waiting.iter().filter(|one| one.next > now).map(|one| one.next.since(now)).min();
        waiting.retain(|one| one.next <= now);
        // Targets that take what they get come first.
        waiting.sort_by_key(|one| (one.tries > 0, one.next));
        let seqs = self.chosen(&waiting);
        if seqs.is_empty() {
            return Ok(later);
        }
        for claimed in core.outbox.claim(seqs).await? {
            self.begin(core, claimed);
        }
        Ok(later)
    }

    fn chosen(&self, due: &[Waiting]) -> Vec<i64> {
        let mut free = AT_ONCE.saturating_sub(self.targets.len());
        let retries = self.targets.values().filter(|flight| flight.is_retry).count();
        let mut free_for_retries = RETRIES_AT_ONCE.saturating_sub(retries);
        let mut chosen = Vec::new();
        for one in due {
            let room = if one.tries > 0 { free.min(free_for_retries) } else { free };
            if room == 0 {
                continue;
            }
            free -= 1;
            free_for_retries -= usize::from(one.tries > 0);
            chosen.push(one.seq);
        }
        chosen
    }

    fn begin(&mut self, core: &Arc<Core>, claimed: Claimed) {
        let flight = Flight { target: claimed.target.clone(), is_retry: claimed.number > 1 };
        let id = self.tries.spawn(deliver(Arc::clone(core), claimed)).id();
        self.targets.insert(id, flight);
    }

    /// Waits until a try has ended; for ever if there is none.
    async fn one_ended(&mut self) {
        let ended = match self.tries.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                tracing::error!(%error, "a delivery panicked; it is made again");
                error.id()
            }
            None => return std::future::pending().await,
        };
        self.targets.remove(&ended);
    }
}

/// Makes one try, and writes down what it came to.
async fn deliver(core: Arc<Core>, claimed: Claimed) {
    let (target, event, action) = (named(&claimed.target), claimed.event.clone(), claimed.action);
    let tried = post::post(&core, claimed).await;
    failpoint::pass(Failpoint::EventTaken);
    let (number, status, said) = (tried.number, tried.status, tried.said.clone());
    match core.outbox.tried(tried).await {
        Ok(Some(delivery)) => match delivery.state {
            State::Delivered { .. } => core.metrics.event_delivered(),
            State::Failed { .. } => {
                core.metrics.event_given_up();
                tracing::warn!(target, event = %event, action = %action, tries = number, status, said, "event given up");
            }
            State::Due { at } => {
                core.metrics.event_not_taken();
                tracing::info!(target, event = %event, tries = number, status, said, next = %at, "event not taken");
            }
            State::Trying { .. } => {}
        },
        Ok(None) => {}
        Err(error) => {
            tracing::error!(target, event = %event, error = chain(&error), "end of a try can't be written; it is made again");
        }
    }
}

fn named(target: &Target) -> String {
    match target {
        Target::Webhook(name) => format!("webhook {name}"),
        Target::UpdateTrigger(task) => format!("update-trigger endpoint of task {task}"),
    }
}
