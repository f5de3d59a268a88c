//! One turn of a task: its next deliveries, in their order, and the runs that their events ask for.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cooper_engine::task::{Cause, Fired, Overrides, SourceCause, Task};
use cooper_engine::trigger::event::{SourceChange, SourceEvent};
use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::{Refusal, Rule};
use cooper_ports::hooks::{EventOutcome, FiringDelivery, Outcome, PendingDelivery, SourceFiring};
use cooper_ports::references::Reference;
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{PoolName, RunId, TaskName, Timestamp};
use futures::FutureExt as _;

use super::git::Unlisted;
use super::rooms::{MANY_PATTERNS, Side};
use super::whose;
use crate::core::Core;
use crate::problem::chain;
use crate::stored_tasks::{self, For, Given, NotAsked, TRIED_FOR};

/// Deliveries of a task that are worked off in one turn, before others have theirs.
const TURN: u32 = 16;
/// How long a turn may take before others have theirs.
const LONG_TURN: Duration = Duration::from_secs(5);
/// So many comparisons of names with patterns take no time worth speaking of.
const FEW: usize = 10_000;

/// How a turn ends.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing waits any more.
    Over,
    /// More may wait.
    More,
    /// The next delivery can't be worked off just now.
    Later(Trying),
}

/// A delivery that could not be worked off, and since when that is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trying {
    number: i64,
    since: Timestamp,
}

/// Works off a task's next deliveries. Behind one that waits, the others do.
pub(super) async fn turn(core: Arc<Core>, task: TaskName, trying: Option<Trying>) -> Result<Turn, StoreError> {
    let (mut after, begun) = (0, Instant::now());
    for _ in 0..TURN {
        if begun.elapsed() > LONG_TURN {
            break;
        }
        let Some(pending) = core.hook_store.next_delivery(&task, after).await? else { return Ok(Turn::Over) };
        after = pending.number;
        let trying = trying.filter(|trying| trying.number == pending.number);
        let trying = trying.unwrap_or_else(|| Trying { number: pending.number, since: core.clock.now() });
        let mut progress = Progress::default();
        let done = AssertUnwindSafe(work_off(&core, pending, trying.since, &mut progress)).catch_unwind().await;
        let error = match done {
            Ok(Ok(Done::Yes)) => continue,
            Ok(Ok(Done::Later)) => return Ok(Turn::Later(trying)),
            Ok(Err(error)) => chain(&error),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::error!(task = %task, delivery = trying.number, error, "delivery can't be worked off");
        if core.clock.now().since(trying.since) < TRIED_FOR {
            return Ok(Turn::Later(trying));
        }
        // Others wait behind it. Where nothing at all can be written, neither can this.
        core.hook_store.finish_delivery(trying.number, progress.given_up()).await?;
    }
    Ok(Turn::More)
}

/// How far a try at a delivery has come.
#[derive(Default)]
struct Progress {
    /// What the events before have led to.
    outcomes: Vec<EventOutcome>,
    /// The event that is being looked at, and how many come after it.
    at: Option<(String, usize)>,
}

impl Progress {
    /// What a delivery has led to that is tried no more.
    fn given_up(self) -> Vec<EventOutcome> {
        let Self { mut outcomes, at } = self;
        let (what, left) = at.unwrap_or_else(|| ("delivery".to_owned(), 0));
        let others = if left > 0 { format!(", nor were the {left} after it") } else { String::new() };
        let minutes = TRIED_FOR.as_secs() / 60;
        let why = format!("it could not be worked off for {minutes} min{others}; the server's log says why");
        outcomes.push(EventOutcome { what, outcome: Outcome::Failed(why) });
        outcomes
    }
}

/// What became of a delivery.
enum Done {
    /// It is worked off.
    Yes,
    /// It is tried again in a moment.
    Later,
}

/// Makes what its events ask for of a delivery, which is tried since then.
async fn work_off(
    core: &Arc<Core>,
    pending: PendingDelivery,
    since: Timestamp,
    progress: &mut Progress,
) -> Result<Done, StoreError> {
    let PendingDelivery { number, first, task, provider, delivery, events, .. } = pending;
    let mut events = match events {
        Ok(events) => events,
        Err(why) => {
            tracing::error!(task = %task.name, delivery, why, "kept delivery can't be read");
            let outcome = Outcome::Failed("it can't be read back".to_owned());
            let outcomes = vec![EventOutcome { what: "delivery".to_owned(), outcome }];
            core.hook_store.finish_delivery(number, outcomes).await?;
            return Ok(Done::Yes);
        }
    };
    if let Err(Unlisted { is_passing, why }) = whose::find_out(core, &task, &mut events).await {
        if is_passing && core.clock.now().since(since) < TRIED_FOR {
            tracing::warn!(task = %task.name, delivery, why, "whose a pull request is can't be found out now; trying again");
            return Ok(Done::Later);
        }
        whose::give_up(&mut events, &why);
    }
    let pools = match task.sources.values().any(|settings| settings.fork_pool.is_some()) {
        true => core.agent_store.list_pools().await?,
        false => Vec::new(),
    };
    let marked = pools.into_iter().filter(|record| record.pool.untrusted).map(|record| record.pool.name).collect();
    let name = task.name.clone();
    let (task, events, answers) = match ask(core, task, provider, events, marked).await {
        Ok(asked) => asked,
        Err(error) => {
            tracing::error!(task = %name, delivery, %error, "the rules of a task panicked");
            let outcome = Outcome::Failed("the task's rules can't be asked".to_owned());
            let outcomes = vec![EventOutcome { what: "delivery".to_owned(), outcome }];
            core.hook_store.finish_delivery(number, outcomes).await?;
            return Ok(Done::Yes);
        }
    };
    let last = events.len().saturating_sub(1);
    let is_again = first < number;
    for (index, (event, answer)) in events.iter().zip(answers).enumerate() {
        let what = event.what();
        progress.at = Some((what.clone(), last - index));
        let answer = match answer {
            Ok(fired) if is_again => not_newer(core, &name, first, fired).await?,
            answer => answer,
        };
        let outcome = match answer {
            Err(refusal) => Outcome::Refused(refusal),
            Ok(fired) => {
                let is_last = index == last;
                let told = FiringDelivery {
                    number,
                    first,
                    what: what.clone(),
                    last_after: is_last.then(|| progress.outcomes.clone()),
                };
                let told = Told { delivery: Some((told, delivery.clone())), at: since };
                match start(core, &task, provider, *fired, told).await? {
                    Started::Run(_) if is_last => return Ok(Done::Yes),
                    Started::Run(run) => Outcome::Started(run),
                    // An earlier try at this very delivery may have come so far.
                    Started::Known(run) if !is_again && is_told_by(core, run, &delivery).await? => {
                        Outcome::Started(run)
                    }
                    Started::Known(run) => Outcome::Known(run),
                    Started::No(why) => Outcome::Failed(why),
                    Started::Later => return Ok(Done::Later),
                }
            }
        };
        // Who looks at the repository later would take it for something that nobody told of.
        // Not of what came again, which may be older than what is there.
        if !is_again
            && is_dealt_with(&outcome)
            && let Some((reference, commit)) = reference(&event.change)
        {
            core.references.reference_dealt_with(&name, &reference, &commit).await?;
        }
        if let Outcome::Failed(why) = &outcome {
            tracing::warn!(task = %name, delivery, what, why, "event started no run");
        }
        progress.outcomes.push(EventOutcome { what, outcome });
    }
    core.hook_store.finish_delivery(number, progress.outcomes.clone()).await?;
    Ok(Done::Yes)
}

/// Whether a run was set off by what this delivery told.
async fn is_told_by(core: &Core, run: RunId, delivery: &str) -> Result<bool, StoreError> {
    let record = core.runs.find_run(run).await?;
    Ok(record.is_some_and(|record| match &record.run.origin.cause {
        Cause::Source(cause) => cause.delivery.as_deref() == Some(delivery),
        Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::BaseImage { .. } => false,
    }))
}

/// Whether what a delivery told of is not to be found again by looking: what a rule refused for which more must be known
/// than looking tells. A draft may become ready at the same commit, and whoever looks sees that it is one.
fn is_dealt_with(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) => true,
        Outcome::Refused(refusal) => refusal.rule > Rule::Action && refusal.rule != Rule::Draft,
        Outcome::Started(_) | Outcome::Known(_) => false,
    }
}

/// What changed, and where it points now.
fn reference(change: &SourceChange) -> Option<(Reference, CommitId)> {
    let (reference, at) = match change {
        SourceChange::Push(push) => (Reference::Branch(push.branch.clone()), push.change.after()),
        SourceChange::Tag(pushed) => (Reference::Tag(pushed.tag.clone()), pushed.change.after()),
        SourceChange::PullRequest(pull) => (Reference::PullRequest(pull.number), pull.head.commit.as_ref()),
        SourceChange::Ping | SourceChange::Other { .. } => return None,
    };
    Some((reference, at?.clone()))
}

/// Says no to what was sent again, where something of the same branch, tag or pull request that came later has started a run:
/// the older one would move the tags back.
async fn not_newer(
    core: &Core,
    task: &TaskName,
    first: i64,
    fired: Box<Fired>,
) -> Result<Result<Box<Fired>, Refusal>, StoreError> {
    if known(core, task, &fired).await?.is_some() {
        return Ok(Ok(fired));
    }
    let runs = core.hook_store.runs_of_events(task, &fired.firing.kind.keys()).await?;
    Ok(match runs.iter().rfind(|event| event.delivery > first) {
        None => Ok(fired),
        Some(newer) => {
            let run = newer.run;
            Err(Refusal::new(
                Rule::Newer,
                format!("what came later has started run {run}; `cooper task run` builds this one"),
            ))
        }
    })
}

/// What a task's triggers answer to the events of a delivery; the task and the events come back.
type Answered = (Task, Vec<SourceEvent>, Vec<Result<Box<Fired>, Refusal>>);

async fn ask(
    core: &Core,
    task: Task,
    provider: Provider,
    events: Vec<SourceEvent>,
    marked: Vec<PoolName>,
) -> Result<Answered, tokio::task::JoinError> {
    let names = events.iter().map(|event| 1 + event.files()).sum::<usize>();
    let is_long = task.patterns() > MANY_PATTERNS || names.saturating_mul(task.patterns()) > FEW;
    let work = move || {
        let rules = task.rules(provider, |name| marked.contains(name));
        let answers = events.iter().map(|event| rules.fires(event)).collect();
        drop(rules);
        (task, events, answers)
    };
    if !is_long {
        return Ok(work());
    }
    core.hooks.rooms.processor(Side::Runs).await.work(work).await
}

/// The run that an event has set off, under whatever key.
pub(super) async fn known(core: &Core, task: &TaskName, fired: &Fired) -> Result<Option<RunId>, StoreError> {
    let keys: Vec<String> = fired.keys().collect();
    core.hook_store.run_of_event(task, &keys).await
}

/// How it is known that something happened.
pub(super) struct Told {
    /// The delivery that told of it, with the sender's id.
    pub(super) delivery: Option<(FiringDelivery, String)>,
    /// Since when a run of it is tried.
    pub(super) at: Timestamp,
}

/// What became of an event that a rule lets through.
pub(super) enum Started {
    Run(RunId),
    Known(RunId),
    No(String),
    Later,
}

/// Accepts the run that an event asks for.
pub(super) async fn start(
    core: &Arc<Core>,
    task: &Task,
    provider: Provider,
    fired: Fired,
    told: Told,
) -> Result<Started, StoreError> {
    // Most repeats end here; the transaction looks again.
    if let Some(run) = known(core, &task.name, &fired).await? {
        return Ok(Started::Known(run));
    }
    let Fired { trigger, firing, source, also } = fired;
    let key = firing.key();
    let settings = task.sources.get(&trigger);
    // A stranger has one run for each pull request, however often it is pushed to.
    let cancel_superseded = firing.untrusted || settings.is_some_and(|settings| settings.cancel_superseded);
    let pool = settings.and_then(|settings| settings.fork_pool.clone()).filter(|_| firing.untrusted);
    let (delivery, name) = told.delivery.unzip();
    let repository = source.repository().map(ToString::to_string).unwrap_or_default();
    let cause = SourceCause { trigger, provider, repository, delivery: name, cancel_superseded, firing };
    let overrides = Overrides { source: Some(source), pool, ..Overrides::default() };
    let given = Given { overrides, ..Given::default() };
    let cause = Cause::Source(Box::new(cause));
    let waited = core.clock.now().since(told.at);
    let request = match stored_tasks::request_for_trigger(core, task, given, cause, waited).await {
        Ok(request) => request,
        Err(NotAsked::Yet(why)) => {
            tracing::warn!(task = %task.name, why, "an event's run can't be asked for now; trying again");
            return Ok(Started::Later);
        }
        Err(NotAsked::AtAll(why)) => return Ok(Started::No(why)),
    };
    let firing = SourceFiring { task: task.name.clone(), key, also, delivery };
    match stored_tasks::accept(core, request, For::Event(firing)).await {
        Ok(accepted) => {
            let run = accepted.record.run.id;
            core.hooks.tell.notify_one();
            if cancel_superseded {
                core.hooks.supersedes(run);
            }
            Ok(Started::Run(run))
        }
        Err(AcceptError::EventKnown { run }) => Ok(Started::Known(run)),
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => Ok(Started::No(chain(&error))),
    }
}
