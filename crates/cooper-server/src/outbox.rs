//! The one engine of everything that goes out: webhooks, and notifications of tasks.
//!
//! What is to be sent is rows ([`cooper_ports::outbox`]), written with the events themselves. Each target's first row is tried,
//! and the next one when that has ended: so a target gets its events in order, and one that is slow or gone delays nobody else. A row
//! may be sent twice where a server dies between the answer and the row's change; its event's id is the same then.

pub(crate) mod endpoint;
mod post;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::delivery::State;
use cooper_engine::task::TaskEndpoint;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::outbox::{Claimed, Look, Target, Waiting};
use cooper_ports::store_error::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::endpoint::Endpoint;
use crate::core::Core;
use crate::problem::chain;

/// How many targets are tried at a time.
const AT_ONCE: usize = 128;
/// How many of those may be ones that have not taken what was sent to them before.
const FAILING_AT_ONCE: usize = 64;
/// How many of those may be endpoints of tasks: whoever may run something makes these, an administrator webhooks.
const NOTICES_AT_ONCE: usize = 32;
/// How many of those may be at one host: one slow place is not to hold up the others.
const OF_HOST_AT_ONCE: usize = 8;
/// How many of those may be for endpoints of tasks: a webhook at the same host has room.
const NOTICES_OF_HOST_AT_ONCE: usize = 4;
/// How long it waits after a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it waits at most where nothing is due.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often old deliveries are forgotten.
const PRUNING: Duration = Duration::from_secs(60);
/// Tasks that are read at a time.
const TASKS_AT_ONCE: u32 = 500;
/// How long the server's stop waits for tries that go on; those that are cut off are made again.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// The tries that go on, one for each target at most.
#[derive(Default)]
struct Flights {
    tries: JoinSet<()>,
    targets: HashMap<tokio::task::Id, Flight>,
}

struct Flight {
    host: String,
    is_notice: bool,
    is_failing: bool,
}

/// How much of what is limited is in use.
struct Use {
    all: usize,
    failing: usize,
    notices: usize,
    of_hosts: HashMap<String, usize>,
    notices_of_hosts: HashMap<String, usize>,
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
    let seal = async {
        if let Err(error) = seal_endpoints(&core).await {
            tracing::error!(error = chain(&error), "endpoints of tasks can't be sealed; the next start tries again");
        }
    };
    // Beside each other: there may be much to seal and to remove.
    tokio::join!(
        send(&core, &shutdown),
        shutdown.run_until_cancelled(prune(&core)),
        shutdown.run_until_cancelled(seal)
    );
}

/// Seals the endpoints of tasks that an older release has kept as they are.
async fn seal_endpoints(core: &Core) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let names = core.tasks.clear_endpoints(after.as_ref(), TASKS_AT_ONCE).await?;
        let Some(last) = names.last() else { return Ok(()) };
        after = Some(last.clone());
        for name in names {
            let Some(task) = core.tasks.task(&name).await? else { continue };
            if let Some(TaskEndpoint::Plain(_)) = &task.base_image.endpoint
                && let Ok(Some(endpoint)) = Endpoint::of_task(&core.key, &task)
            {
                core.tasks.seal_endpoint(&task, &endpoint.kept(&core.key, &task.name)).await?;
            }
        }
    }
}

async fn send(core: &Arc<Core>, shutdown: &CancellationToken) {
    let mut flights = Flights::default();
    loop {
        let wait = match flights.pass(core).await {
            Ok(wait) => wait.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT),
            Err(error) => {
                tracing::error!(error = chain(&error), "deliveries can't be looked at; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = core.outbox.queued() => {}
            () = flights.some_ended() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    let _ = tokio::time::timeout(LAST_TRIES, async { while flights.tries.join_next().await.is_some() {} }).await;
}

/// Removes what is old, now and then.
async fn prune(core: &Core) {
    loop {
        match core.outbox.prune().await {
            Ok(0) => {}
            Ok(given_up) => tracing::warn!(given_up, "events were given up before they could be delivered"),
            Err(error) => tracing::error!(error = chain(&error), "old deliveries can't be removed"),
        }
        tokio::time::sleep(PRUNING).await;
    }
}

impl Use {
    /// What is to be looked for; nothing where there is no room at all.
    fn look(&self) -> Option<Look> {
        let full = self.of_hosts.iter().filter(|(_, number)| **number >= OF_HOST_AT_ONCE);
        let told = self.notices_of_hosts.iter().filter(|(_, number)| **number >= NOTICES_OF_HOST_AT_ONCE);
        (self.all < AT_ONCE).then(|| Look {
            failing: self.failing < FAILING_AT_ONCE,
            notices: self.notices < NOTICES_AT_ONCE,
            without_hosts: full.map(|(host, _)| host.clone()).collect(),
            without_notices_at: told.map(|(host, _)| host.clone()).collect(),
            limit: u32::try_from(AT_ONCE - self.all).unwrap_or(u32::MAX),
        })
    }

    /// Takes room for one; tells whether there was any.
    fn take(&mut self, one: &Waiting) -> bool {
        let of_host = self.of_hosts.get(&one.host).copied().unwrap_or_default();
        let told = self.notices_of_hosts.get(&one.host).copied().unwrap_or_default();
        let has_room = self.all < AT_ONCE
            && of_host < OF_HOST_AT_ONCE
            && (!one.is_failing || self.failing < FAILING_AT_ONCE)
            && (!one.is_notice || (self.notices < NOTICES_AT_ONCE && told < NOTICES_OF_HOST_AT_ONCE));
        if has_room {
            self.all += 1;
            self.failing += usize::from(one.is_failing);
            self.notices += usize::from(one.is_notice);
            self.of_hosts.insert(one.host.clone(), of_host + 1);
            if one.is_notice {
                self.notices_of_hosts.insert(one.host.clone(), told + 1);
            }
        }
        has_room
    }
}

impl Flights {
    /// Begins all tries that are due and have room, and tells for how long nothing else is due.
    async fn pass(&mut self, core: &Arc<Core>) -> Result<Option<Duration>, StoreError> {
        // Each turn begins one at least. What it has filled, the next one does not look for.
        while let Some(look) = self.used().look() {
            let mut used = self.used();
            let mut chosen: HashMap<i64, Waiting> =
                core.outbox.waiting(&look).await?.into_iter().map(|one| (one.seq, one)).collect();
            chosen.retain(|_, one| used.take(one));
            if chosen.is_empty() {
                break;
            }
            let mut seqs: Vec<i64> = chosen.keys().copied().collect();
            seqs.sort_unstable();
            let claimed = core.outbox.claim(seqs).await?;
            if claimed.is_empty() {
                // What can't be read was given up, and something else is next.
                return Ok(Some(PAUSE));
            }
            for claimed in claimed {
                if let Some(one) = chosen.remove(&claimed.seq) {
                    self.begin(core, one, claimed);
                }
            }
        }
        Ok(core.outbox.next().await?.map(|next| next.since(core.clock.now())))
    }

    fn used(&self) -> Use {
        let flights = || self.targets.values();
        let (mut of_hosts, mut notices_of_hosts) = (HashMap::new(), HashMap::new());
        for flight in flights() {
            *of_hosts.entry(flight.host.clone()).or_default() += 1;
            if flight.is_notice {
                *notices_of_hosts.entry(flight.host.clone()).or_default() += 1;
            }
        }
        Use {
            all: self.targets.len(),
            failing: flights().filter(|flight| flight.is_failing).count(),
            notices: flights().filter(|flight| flight.is_notice).count(),
            of_hosts,
            notices_of_hosts,
        }
    }

    fn begin(&mut self, core: &Arc<Core>, one: Waiting, claimed: Claimed) {
        let Waiting { host, is_notice, is_failing, .. } = one;
        let id = self.tries.spawn(deliver(Arc::clone(core), claimed)).id();
        self.targets.insert(id, Flight { host, is_notice, is_failing });
    }

    /// Waits until a try has ended, and takes all that have; for ever if there is none.
    async fn some_ended(&mut self) {
        let mut ended = self.tries.join_next_with_id().await;
        if ended.is_none() {
            return std::future::pending().await;
        }
        while let Some(one) = ended {
            let id = match one {
                Ok((id, ())) => id,
                Err(error) => {
                    tracing::error!(%error, "a delivery panicked; it is made again");
                    error.id()
                }
            };
            self.targets.remove(&id);
            ended = self.tries.try_join_next_with_id();
        }
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
