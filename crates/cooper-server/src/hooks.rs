//! Source triggers: hooks are made here, and what came to them is worked off.
//!
//! A delivery is answered when it is in the store ([`receive`]); this loop makes runs of its events, in the order in which
//! they came, for each task. An event sets off one run: the key of kind, reference and commit is written in the transaction
//! that accepts it. After a crash the loop finds what waits, and what was done before is known by its key.

pub(crate) mod missed;
mod receive;
mod seen;
pub(crate) mod statuses;
mod supersede;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cooper_api::problem::ProblemCode;
use cooper_engine::task::{Cause, Fired, Overrides, SourceCause, Task};
use cooper_engine::trigger::event::SourceChange;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::hooks::{EventOutcome, FiringDelivery, NewHook, Outcome, PendingDelivery, SourceFiring};
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, PoolName, RunId, SecretBytes, SecretString, Timestamp};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::{ApiError, chain};
use crate::stored_tasks::{self, For, Given};

pub(crate) use receive::receive;
pub(crate) use seen::Hooks;

/// Deliveries that are read at a time.
const BATCH: u32 = 200;
/// Tasks whose deliveries are worked off at a time: they share commits.
const AT_ONCE: usize = 32;
/// How long it waits after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);
/// For how long a run is tried that can't be asked for just now.
const TRIED_FOR: Duration = Duration::from_secs(600);

/// A hook with a random id and a random secret, which is told once.
pub(crate) fn new_hook(core: &Core, provider: Provider) -> (NewHook, SecretString) {
    let id = HookId::parse(&format!("{:032x}", rand::random::<u128>())).expect("32 hexadecimal digits");
    let (secret, sealed) = new_secret(core, &id);
    (NewHook { id, provider, sealed }, secret)
}

/// A random secret for a hook, in clear and encrypted.
pub(crate) fn new_secret(core: &Core, id: &HookId) -> (SecretString, Vec<u8>) {
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let sealed = core.key.seal(&purpose(id), &SecretBytes::new(secret.as_bytes().to_vec()));
    (SecretString::new(secret), sealed)
}

/// What a hook's secrets are bound to when they are sealed.
fn purpose(id: &HookId) -> String {
    format!("hook/{id}")
}

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    if let Err(error) = supersede::everywhere(&core).await {
        tracing::error!(error = chain(&error), "superseded runs can't be looked for");
    }
    loop {
        let later = tokio::select! {
            () = shutdown.cancelled() => return,
            later = pass(&core) => later,
        };
        let wait = match later {
            Ok(false) => LONGEST,
            Ok(true) => PAUSE,
            Err(error) => {
                tracing::error!(error = chain(&error), "deliveries can't be worked off; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.hooks.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Works off what waits, and tells whether something has to wait on.
async fn pass(core: &Arc<Core>) -> Result<bool, StoreError> {
    let mut after = 0;
    // A task's deliveries stay in order: behind one that waits, the others do.
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    loop {
        let pending = core.hook_store.pending_deliveries(after, BATCH).await?;
        let Some(last) = pending.last() else { return Ok(!waiting.is_empty()) };
        after = last.number;
        let mut tasks: BTreeMap<String, Vec<PendingDelivery>> = BTreeMap::new();
        for delivery in pending {
            tasks.entry(delivery.task.key()).or_default().push(delivery);
        }
        tasks.retain(|task, _| !waiting.contains(task));
        let work = tasks.into_iter().map(|(task, deliveries)| async move {
            for delivery in deliveries {
                if let Done::Later = work_off(core, delivery).await? {
                    return Ok(Some(task));
                }
            }
            Ok(None)
        });
        let done: Vec<Result<Option<String>, StoreError>> =
            futures::stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        for waits in done {
            waiting.extend(waits?);
        }
    }
}

/// What became of a delivery.
enum Done {
    /// It is worked off.
    Yes,
    /// It is tried again in a moment.
    Later,
}

/// Makes what its events ask for of a delivery.
async fn work_off(core: &Arc<Core>, pending: PendingDelivery) -> Result<Done, StoreError> {
    // A task that is gone has taken its hooks and deliveries with it.
    let Some(record) = core.tasks.find_task(&pending.task).await? else { return Ok(Done::Yes) };
    let events = match &pending.events {
        Ok(events) => events,
        Err(why) => {
            tracing::error!(task = %pending.task, delivery = pending.delivery, why, "kept delivery can't be read");
            let outcome = Outcome::Failed("it can't be read back".to_owned());
            let outcomes = vec![EventOutcome { what: "delivery".to_owned(), outcome }];
            core.hook_store.finish_delivery(pending.number, outcomes).await?;
            return Ok(Done::Yes);
        }
    };
    let mut outcomes: Vec<EventOutcome> = Vec::with_capacity(events.len());
    let pools = match record.task.sources.values().any(|settings| settings.fork_pool.is_some()) {
        true => core.agent_store.list_pools().await?,
        false => Vec::new(),
    };
    let is_marked = |name: &PoolName| pools.iter().any(|record| record.pool.name == *name && record.pool.untrusted);
    for (index, event) in events.iter().enumerate() {
        let what = event.what();
        let outcome = match record.task.fires(pending.provider, event, is_marked) {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(fired) => {
                let is_last = index + 1 == events.len();
                let told = FiringDelivery {
                    number: pending.number,
                    what: what.clone(),
                    last_after: is_last.then(|| outcomes.clone()),
                };
                let told = Told { delivery: Some((told, pending.delivery.clone())), at: pending.received };
                match start(core, &record.task, pending.provider, *fired, told).await? {
                    Started::Run(_) if is_last => return Ok(Done::Yes),
                    Started::Run(run) => Outcome::Started(run),
                    Started::Known(run) => Outcome::Known(run),
                    Started::No(why) => Outcome::Failed(why),
                    Started::Later => return Ok(Done::Later),
                }
            }
        };
        // Who looks at the repository later would take it for a push that nobody told of.
        if let (SourceChange::Push(push), Outcome::Refused(_) | Outcome::Failed(_)) = (&event.change, &outcome)
            && let Some(commit) = push.change.after()
        {
            core.branches.branch_dealt_with(&pending.task, &push.branch, commit).await?;
        }
        if let Outcome::Failed(why) = &outcome {
            tracing::warn!(task = %pending.task, delivery = pending.delivery, what, why, "event started no run");
        }
        outcomes.push(EventOutcome { what, outcome });
    }
    core.hook_store.finish_delivery(pending.number, outcomes).await?;
    Ok(Done::Yes)
}

/// How it is known that something happened.
struct Told {
    /// The delivery that told of it, with the sender's id.
    delivery: Option<(FiringDelivery, String)>,
    /// When.
    at: Timestamp,
}

/// What became of an event that a rule lets through.
enum Started {
    Run(RunId),
    Known(RunId),
    No(String),
    Later,
}

/// Accepts the run that an event asks for.
async fn start(
    core: &Arc<Core>,
    task: &Task,
    provider: Provider,
    fired: Fired,
    told: Told,
) -> Result<Started, StoreError> {
    let Fired { trigger, firing, source } = fired;
    let key = firing.key();
    // Most repeats end here; the transaction looks again.
    if let Some(run) = core.hook_store.run_of_event(&task.name, &key).await? {
        return Ok(Started::Known(run));
    }
    let settings = task.sources.get(&trigger);
    let cancel_superseded = settings.is_some_and(|settings| settings.cancel_superseded);
    let pool = settings.and_then(|settings| settings.fork_pool.clone()).filter(|_| firing.untrusted);
    let (delivery, name) = told.delivery.unzip();
    let repository = source.repository().map(ToString::to_string).unwrap_or_default();
    let cause = SourceCause { trigger, provider, repository, delivery: name, cancel_superseded, firing };
    let overrides = Overrides { source: Some(source), pool, ..Overrides::default() };
    let given = Given { overrides, ..Given::default() };
    let cause = Cause::Source(Box::new(cause));
    let request = match stored_tasks::request(core, task, given, cause, None).await {
        Ok(request) => request,
        Err(error) if may_pass(&error) && core.clock.now().since(told.at) < TRIED_FOR => {
            let why = error.0.detail;
            tracing::warn!(task = %task.name, why, "an event's run can't be asked for now; trying again");
            return Ok(Started::Later);
        }
        Err(error) => return Ok(Started::No(error.0.detail)),
    };
    let firing = SourceFiring { task: task.name.clone(), key, delivery };
    match stored_tasks::accept(core, request, For::Event(firing)).await {
        Ok(accepted) => {
            let run = accepted.record.run.id;
            core.hooks.tell.notify_one();
            if cancel_superseded {
                supersede::by(core, &accepted.record.run).await?;
            }
            Ok(Started::Run(run))
        }
        Err(AcceptError::EventKnown { run }) => Ok(Started::Known(run)),
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => Ok(Started::No(chain(&error))),
    }
}

/// Whether the same may succeed in a moment.
fn may_pass(error: &ApiError) -> bool {
    matches!(error.0.code, ProblemCode::Unavailable | ProblemCode::Internal | ProblemCode::StorageFull)
}
