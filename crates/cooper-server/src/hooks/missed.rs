//! Finds what no delivery told of, by looking at tasks' repositories now and then: branches and tags as Git lists them, and
//! the open pull requests where the task keeps a token for the forge.
//!
//! What was there when a task was first looked at counts as dealt with. A commit that is new is given the time of a look: its
//! delivery may be on its way, or wait here, and knows more of it. Then it is treated as the event that nobody told of; which
//! files it changed is not known then. What is there is [`found`]'s.

mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cooper_engine::task::{Fired, SourceRules, SourceSettings, Task};
use cooper_engine::trigger::event::SourceChange;
use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::references::{ChangedReference, Reference, ReferenceKind, SeenAt, SeenReferences};
use cooper_ports::store_error::StoreError;
use cooper_types::{PoolName, PrincipalName, SourceHost, TaskName};
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use found::{Found, There, listed};

use super::{Started, Told, known, start};
use crate::core::Core;
use crate::problem::chain;

/// How often repositories are looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(600);
/// How often forges are asked for pull requests: that costs requests of a token, which statuses need.
const PERIOD_OF_PULLS: Duration = Duration::from_secs(3600);
/// The first look after a start: what was pushed while no server ran.
const FIRST: Duration = Duration::from_secs(30);
/// The look after one that found something new.
const SOON: Duration = Duration::from_secs(60);
/// Repositories that are looked at a time.
const AT_ONCE: usize = 4;
/// Tasks that are read at a time.
const PAGE: u32 = 100;
/// How long one may take.
const TIME: Duration = Duration::from_secs(60);
/// So much of a kind is started in one look. More is no missed delivery: a repository was filled, or came back, and forges
/// don't tell of that either.
const MOST_STARTED: usize = 50;
/// For how long something that is tried is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// After so many hosts that did not answer in time, the other tasks of whoever named them are left for the next look.
const SLOW_HOSTS: usize = 16;
/// The most branches, and the most tags, of a repository that is looked at.
const MOST: usize = 5000;
/// References that are compared in one go, before others of the runtime have their turn.
const A_FEW: usize = 50;

/// One look at all repositories.
#[derive(Debug)]
pub(super) struct Look {
    /// Whether forges are asked for pull requests; if not, only for those that wait for a second look.
    pub(super) pulls: bool,
    /// How long one repository may take.
    pub(super) time: Duration,
    /// The pools for untrusted work.
    marked: BTreeSet<PoolName>,
    hosts: Mutex<Hosts>,
}

/// Hosts that are left alone until the next look: nobody's repository is to wait for what is slow.
#[derive(Debug, Default)]
struct Hosts {
    /// Those that take no more requests for now, and of whom: a token's budget is its owner's.
    limited: BTreeSet<(SourceHost, PrincipalName)>,
    /// Those that did not answer in time, and who named them.
    slow: BTreeSet<(String, PrincipalName)>,
}

impl Hosts {
    /// Whether a host of somebody's task is left alone. What is slow for one need not be for others of the same host.
    fn is_slow(&self, host: &str, whose: &PrincipalName) -> bool {
        let own = || self.slow.iter().filter(|(_, other)| other == whose);
        own().any(|(slow, _)| slow == host) || own().count() >= SLOW_HOSTS
    }
}

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let start = Instant::now();
    let (mut next, mut next_pulls, mut waiting) = (start + FIRST, start, BTreeSet::new());
    loop {
        let now = Instant::now();
        let wake = if waiting.is_empty() { next } else { next.min(now + SOON) };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(wake) => {}
        }
        let now = Instant::now();
        let is_full = next <= now;
        let pulls = is_full && next_pulls <= now;
        if pulls {
            next_pulls = now + PERIOD_OF_PULLS;
        }
        // Between the times at which all are looked at, those in which something waits for its second look.
        let only = std::mem::take(&mut waiting);
        let found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = look(&core, pulls, (!is_full).then_some(&only)) => found,
        };
        match found {
            Ok(found) => {
                waiting = found;
                if is_full {
                    next = now + PERIOD;
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "repositories can't be looked at; trying again");
                next = now + SOON;
            }
        }
    }
}

/// Looks at all repositories, or those of some tasks, and tells in which something has to wait for the next look.
pub(super) async fn look(
    core: &Arc<Core>,
    pulls: bool,
    only: Option<&BTreeSet<TaskName>>,
) -> Result<BTreeSet<TaskName>, StoreError> {
    let mut look = Look::new(pulls);
    let pools = core.agent_store.list_pools().await?.into_iter().filter(|record| record.pool.untrusted);
    look.marked = pools.map(|record| record.pool.name).collect();
    match only {
        None => look.everywhere(core).await,
        Some(only) => {
            let mut waiting = BTreeSet::new();
            look.at(core, only.iter().cloned(), &mut waiting).await.map(|()| waiting)
        }
    }
}

/// Whether a task would be started by one of these that any forge, or this one, tells of.
fn listens(task: &Task, kind: ReferenceKind, provider: Option<Provider>) -> bool {
    let listens = |settings: &SourceSettings| match kind {
        ReferenceKind::Branches => settings.commits,
        ReferenceKind::Tags => settings.tags,
        ReferenceKind::PullRequests => settings.pull_requests,
    };
    let is_its = |settings: &SourceSettings| provider.is_none_or(|provider| provider == settings.provider);
    task.enabled && task.sources.values().any(|settings| settings.enabled && listens(settings) && is_its(settings))
}

impl Look {
    pub(super) fn new(pulls: bool) -> Self {
        Self { pulls, time: TIME, marked: BTreeSet::new(), hosts: Mutex::default() }
    }

    pub(super) async fn everywhere(&self, core: &Arc<Core>) -> Result<BTreeSet<TaskName>, StoreError> {
        let (mut waiting, mut after, mut failure) = (BTreeSet::new(), None, None);
        loop {
            let page = core.tasks.list_tasks(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return failure.map_or(Ok(waiting), Err) };
            after = Some(last.task.name.clone());
            let triggered = page.into_iter().map(|record| record.task).filter(|task| !task.sources.is_empty());
            if let Err(error) = self.at(core, triggered.map(|task| task.name), &mut waiting).await {
                failure = failure.or(Some(error));
            }
        }
    }

    /// Looks at tasks' repositories, whatever one of them does.
    async fn at(
        &self,
        core: &Arc<Core>,
        tasks: impl Iterator<Item = TaskName>,
        waiting: &mut BTreeSet<TaskName>,
    ) -> Result<(), StoreError> {
        let look = |name: TaskName| async move {
            let looked = AssertUnwindSafe(self.look_at(core, &name)).catch_unwind().await;
            (looked, name)
        };
        let found: Vec<_> = futures::stream::iter(tasks.map(look)).buffer_unordered(AT_ONCE).collect().await;
        let mut failure = None;
        for (looked, name) in found {
            match looked {
                Ok(Ok(true)) => {
                    waiting.insert(name);
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => failure = failure.or(Some(error)),
                Err(_) => tracing::error!(task = %name, "looking at a task's repository panicked"),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for a host, unless it, or too much of whoever names it, was too slow before. Nothing if it did not answer.
    async fn wait<T>(&self, task: &Task, host: &str, asked: impl Future<Output = T>) -> Option<T> {
        if self.hosts().is_slow(host, &task.principal) {
            return None;
        }
        let answer = tokio::time::timeout(self.time, asked).await.ok();
        if answer.is_none() {
            tracing::info!(task = %task.name, host, "host of a task's repository does not answer in time");
            self.hosts().slow.insert((host.to_owned(), task.principal.clone()));
        }
        answer
    }

    /// Looks at a task's repository, and tells whether something has to wait for the next look. A repository that can't be
    /// looked at is left for the next time.
    async fn look_at(&self, core: &Arc<Core>, name: &TaskName) -> Result<bool, StoreError> {
        let Some(record) = core.tasks.find_task(name).await? else { return Ok(false) };
        let task = &record.task;
        let seen = core.references.seen_references(&task.name).await?;
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            ReferenceKind::ALL.into_iter().partition(|kind| listens(task, *kind, None));
        // What happens while nobody listens starts nothing later.
        for kind in unwanted.into_iter().filter(|kind| seen.looked.contains(kind)) {
            core.references.forget_references(&task.name, kind).await?;
        }
        let mut waits = false;
        let of_git: Vec<_> = wanted.iter().copied().filter(|kind| *kind != ReferenceKind::PullRequests).collect();
        if !of_git.is_empty()
            && let Some(list) = self.list(core, task).await
        {
            for kind in of_git {
                if let Some(found) = listed(task, kind, &list) {
                    waits |= self.compare(core, task, kind, found).await?;
                }
            }
        }
        if wanted.contains(&ReferenceKind::PullRequests) {
            let is_waiting = seen.at.iter().any(|(reference, at)| {
                reference.kind() == ReferenceKind::PullRequests && at.seen.is_some() && at.seen != at.done
            });
            if (self.pulls || is_waiting)
                && let Some(found) = self.pull_requests(core, task).await?
            {
                waits |= self.compare(core, task, ReferenceKind::PullRequests, found).await?;
            }
        }
        Ok(waits)
    }

    /// Deals with what is there and was not before, and tells whether something has to wait for the next look.
    pub(super) async fn compare(
        &self,
        core: &Arc<Core>,
        task: &Task,
        kind: ReferenceKind,
        found: Found,
    ) -> Result<bool, StoreError> {
        // It may have been changed while its repository was asked: then it is another one's turn.
        let record = core.tasks.find_task(&task.name).await?;
        let is_same = |now: &Task| (now.created, now.generation) == (task.created, task.generation);
        if record.is_none_or(|record| !is_same(&record.task)) {
            return Ok(false);
        }
        let seen = core.references.seen_references(&task.name).await?;
        let is_first = !seen.looked.contains(&kind);
        let (mut changed, gone) = away(&seen, kind, &found);
        let (mut waits, mut starts, mut failure) = (false, Vec::new(), None);
        // Read once for all of them.
        let rules: BTreeMap<Provider, SourceRules<'_>> = task
            .providers()
            .into_iter()
            .map(|provider| (provider, task.rules(provider, |pool| self.marked.contains(pool))))
            .collect();
        for (index, (reference, there)) in found.into_iter().enumerate() {
            if index % A_FEW == 0 {
                tokio::task::yield_now().await;
            }
            let earlier = seen.at.get(&reference).cloned().unwrap_or_default();
            let was = earlier.done.clone();
            if is_first {
                // What becomes ready later is new then.
                if !is_draft(&there) {
                    let at = SeenAt { done: Some(there.at), seen: None };
                    changed.push(ChangedReference { reference, was, at });
                }
                continue;
            }
            let at = if earlier.done.as_ref().is_some_and(|done| there.is_at(done)) {
                earlier.seen.is_some().then_some(SeenAt { done: earlier.done, seen: None })
            } else {
                match judge(core, task, &rules, &there, &earlier).await {
                    Ok(Judged::Done) => Some(SeenAt { done: Some(there.at), seen: None }),
                    Ok(Judged::Waits) => {
                        waits = true;
                        Some(SeenAt { done: earlier.done, seen: Some(there.at) })
                    }
                    // It waits for nothing.
                    Ok(Judged::Left) => earlier.seen.is_some().then_some(SeenAt { done: earlier.done, seen: None }),
                    Ok(Judged::Starts(fired)) => {
                        starts.push(Start { reference, there, was, fired });
                        continue;
                    }
                    // The others are looked at all the same.
                    Err(error) => {
                        failure = failure.or(Some(error));
                        None
                    }
                }
            };
            changed.extend(at.map(|at| ChangedReference { reference, was, at }));
        }
        waits |= start_all(core, task, starts, &mut changed, &mut failure).await;
        if is_first || !changed.is_empty() || !gone.is_empty() {
            core.references.put_references(task, kind, changed, gone).await?;
        }
        failure.map_or(Ok(waits), Err)
    }
}

/// What is not there any more: noted at the first look, by what was dealt with being what was seen, and forgotten at the
/// second one. Lists that lack something for a moment are no reason to take it for new afterwards.
fn away(seen: &SeenReferences, kind: ReferenceKind, found: &Found) -> (Vec<ChangedReference>, Vec<Reference>) {
    let (mut noted, mut gone) = (Vec::new(), Vec::new());
    for (reference, at) in seen.at.iter().filter(|(reference, _)| reference.kind() == kind) {
        if found.contains_key(reference) {
            continue;
        }
        let reference = reference.clone();
        if at.done.is_none() || at.seen == at.done {
            gone.push(reference);
        } else {
            let (was, done) = (at.done.clone(), at.done.clone());
            noted.push(ChangedReference { reference, was, at: SeenAt { seen: done.clone(), done } });
        }
    }
    (noted, gone)
}

/// Something that nobody told of, and the triggers that it sets off.
struct Start {
    reference: Reference,
    there: There,
    was: Option<CommitId>,
    fired: Vec<(Provider, Fired)>,
}

/// Starts what nobody told of, if it is not too much; tells whether something waits for the next look.
async fn start_all(
    core: &Arc<Core>,
    task: &Task,
    starts: Vec<Start>,
    changed: &mut Vec<ChangedReference>,
    failure: &mut Option<StoreError>,
) -> bool {
    let (count, begun) = (starts.len(), Instant::now());
    let is_too_much = count > MOST_STARTED;
    if is_too_much {
        tracing::warn!(task = %task.name, count, "too much is new at once in a task's repository to be missed: nothing is started");
    }
    let mut waits = false;
    for Start { reference, there, was, fired } in starts {
        let started = if is_too_much {
            Ok(true)
        } else if waits || begun.elapsed() > TIME {
            // Others' repositories have their turn.
            Ok(false)
        } else {
            start_one(core, task, &reference, &there, fired).await
        };
        let at = match started {
            Ok(true) => SeenAt { done: Some(there.at), seen: None },
            Ok(false) => {
                waits = true;
                SeenAt { done: was.clone(), seen: Some(there.at) }
            }
            Err(error) => {
                *failure = failure.take().or(Some(error));
                continue;
            }
        };
        changed.push(ChangedReference { reference, was, at });
    }
    waits
}

/// Starts what an event that nobody told of sets off, and tells whether that is dealt with.
async fn start_one(
    core: &Arc<Core>,
    task: &Task,
    reference: &Reference,
    there: &There,
    fired: Vec<(Provider, Fired)>,
) -> Result<bool, StoreError> {
    let what = there.event.what();
    tracing::warn!(task = %task.name, what, "no delivery told of an event: found by looking");
    let at = core.hooks.tried_since(&task.name, reference, core.clock.now(), REMEMBERED);
    for (provider, fired) in fired {
        match start(core, task, provider, fired, Told { delivery: None, at }).await? {
            Started::Run(_) | Started::Known(_) => {}
            Started::No(why) => {
                tracing::warn!(task = %task.name, what, why, "an event that was found started no run");
            }
            Started::Later => return Ok(false),
        }
    }
    core.hooks.tried(&task.name, reference);
    Ok(true)
}

fn is_draft(there: &There) -> bool {
    matches!(&there.event.change, SourceChange::PullRequest(pull) if pull.draft)
}

/// What is to be done about something that is elsewhere than before.
enum Judged {
    /// Nothing.
    Done,
    /// It waits for the next look.
    Waits,
    /// It is looked at anew the next time, as if it were not there.
    Left,
    /// It starts these.
    Starts(Vec<(Provider, Fired)>),
}

/// Judges what is elsewhere than before; nothing is started where its delivery may be on its way.
async fn judge(
    core: &Arc<Core>,
    task: &Task,
    rules: &BTreeMap<Provider, SourceRules<'_>>,
    there: &There,
    earlier: &SeenAt,
) -> Result<Judged, StoreError> {
    let (mut refused, mut starts) = (true, Vec::new());
    for (provider, rules) in rules.iter().filter(|(one, _)| there.provider.is_none_or(|only| only == **one)) {
        // Whatever a rule says no to needs no delivery.
        let Ok(fired) = rules.fires(&there.event) else { continue };
        refused = false;
        if known(core, &task.name, &fired).await?.is_none() {
            starts.push((*provider, *fired));
        }
    }
    Ok(if starts.is_empty() {
        if refused && is_draft(there) { Judged::Left } else { Judged::Done }
    } else if earlier.seen.as_ref() != Some(&there.at) || core.hook_store.next_delivery(&task.name, 0).await?.is_some()
    {
        Judged::Waits
    } else {
        Judged::Starts(starts)
    })
}
