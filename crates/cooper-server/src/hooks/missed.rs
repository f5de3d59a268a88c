//! Finds what no delivery told of, by looking at tasks' repositories now and then: branches and tags as Git lists them, and
//! the open pull requests where the task keeps a token for the forge.
//!
//! What was there when a task was first looked at counts as dealt with. A commit that is new is given the time of a look: its
//! delivery may be on its way, or wait here, and knows more of it. Then it is treated as the event that nobody told of; which
//! files it changed is not known then. What is there is [`found`]'s, what is made of it
//! [`compared`]'s. How a look went is kept for the task's owner.

mod compared;
mod found;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use cooper_engine::task::{SourceSettings, Task};
use cooper_engine::trigger::provider::Provider;
use cooper_ports::references::{LookRecord, LookWay, ReferenceKind};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{TaskRecord, TaskStore};
use cooper_types::{PoolName, PrincipalName, SourceHost, TaskName};
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use found::{Found, listed};

use super::forge_host;
use crate::core::Core;
use crate::problem::chain;

/// Forges are asked for pull requests at so many times the period of looks: that costs requests of a token, which statuses need.
const PULLS: u32 = 6;
/// The first look after a start, if the period is not shorter: what was pushed while no server ran.
const FIRST: Duration = Duration::from_secs(30);
/// The look after one that found something new, if the period is not shorter.
const SOON: Duration = Duration::from_secs(60);
/// Repositories that are looked at a time.
const AT_ONCE: usize = 4;
/// Tasks that are read at a time.
const PAGE: u32 = 100;
/// How long one may take.
const TIME: Duration = Duration::from_secs(60);
/// After so many hosts that did not answer in time, the other tasks of whoever named them are left for the next look.
const SLOW_HOSTS: usize = 16;
/// The most branches, and the most tags, of a repository that is looked at.
const MOST: usize = 5000;
/// How much is kept of why a look came to nothing, in characters.
const FAULT: usize = 300;

/// One look at all repositories.
#[derive(Debug)]
pub(super) struct Look {
    /// Whether forges are asked for pull requests; if not, only for those that wait for a second look.
    pub(super) pulls: bool,
    /// When the next one of everything is meant to be.
    period: Duration,
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

/// Looks at all repositories once in this time, until cancelled.
pub(crate) async fn run(core: Arc<Core>, period: Duration, shutdown: CancellationToken) {
    let start = Instant::now();
    let (mut next, mut next_pulls, mut waiting) = (start + FIRST.min(period), start, BTreeSet::new());
    loop {
        let now = Instant::now();
        let wake = if waiting.is_empty() { next } else { next.min(now + SOON) };
        plan(&core, next, next_pulls);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(wake) => {}
        }
        let now = Instant::now();
        let is_full = next <= now;
        let pulls = is_full && next_pulls <= now;
        if pulls {
            next_pulls = now + period * PULLS;
        }
        if is_full {
            // A look may take long, and is not the next one meanwhile.
            plan(&core, now + period, next_pulls);
        }
        // Between the times at which all are looked at, those in which something waits for its second look.
        let only = std::mem::take(&mut waiting);
        let found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = look(&core, period, pulls, (!is_full).then_some(only)) => found,
        };
        match found {
            Ok(found) => {
                waiting = found;
                if is_full {
                    next = now + period;
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "repositories can't be looked at; trying again");
                next = now + SOON.min(period);
            }
        }
    }
}

/// Notes when the next look at everything is, and the next that asks forges, which is one of these.
fn plan(core: &Core, next: Instant, next_pulls: Instant) {
    let at = |look: Instant| core.clock.now().after(look.duration_since(Instant::now()));
    core.hooks.plan_looks(at(next), at(next.max(next_pulls)));
}

/// Looks at all repositories, or those of some tasks, and tells in which something has to wait for the next look.
pub(super) async fn look(
    core: &Arc<Core>,
    period: Duration,
    pulls: bool,
    only: Option<BTreeSet<TaskName>>,
) -> Result<BTreeSet<TaskName>, StoreError> {
    let mut look = Look::new(period, pulls);
    let pools = core.agent_store.list_pools().await?.into_iter().filter(|record| record.pool.untrusted);
    look.marked = pools.map(|record| record.pool.name).collect();
    match only {
        None => look.everywhere(core).await,
        Some(only) => look.at(core, futures::stream::iter(only).map(Ok)).await,
    }
}

/// The tasks that have source triggers, read as they are asked for.
fn triggered(tasks: &dyn TaskStore) -> impl Stream<Item = Result<TaskName, StoreError>> {
    let pages = futures::stream::try_unfold(None, move |after: Option<TaskName>| async move {
        let page = tasks.list_tasks(after.as_ref(), PAGE).await?;
        Ok(page.last().map(|last| last.task.name.clone()).map(|last| (page, Some(last))))
    });
    let names = pages.map_ok(|page| {
        let triggered = page.into_iter().map(|record| record.task).filter(|task| !task.sources.is_empty());
        futures::stream::iter(triggered.map(|task| Ok(task.name)).collect::<Vec<_>>())
    });
    names.try_flatten()
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

/// Whether a task's repository is looked at in this way as the task is now.
pub(crate) fn is_looked_at(record: &TaskRecord, way: LookWay) -> bool {
    let task = &record.task;
    match way {
        LookWay::Git => [ReferenceKind::Branches, ReferenceKind::Tags].iter().any(|kind| listens(task, *kind, None)),
        LookWay::Forge => {
            let url = task.source.as_ref().and_then(|source| source.repository()).map(ToString::to_string);
            let has_token = |provider: Provider| {
                let host = forge_host(provider, url.as_deref()?)?;
                record.credentials.iter().find(|credential| credential.host == host)
            };
            let kind = ReferenceKind::PullRequests;
            let mut providers = task.providers().into_iter();
            providers.any(|provider| listens(task, kind, Some(provider)) && has_token(provider).is_some())
        }
    }
}

impl Look {
    pub(super) fn new(period: Duration, pulls: bool) -> Self {
        Self { pulls, period, time: TIME, marked: BTreeSet::new(), hosts: Mutex::default() }
    }

    pub(super) async fn everywhere(&self, core: &Arc<Core>) -> Result<BTreeSet<TaskName>, StoreError> {
        self.at(core, triggered(&*core.tasks)).await
    }

    /// Looks at tasks' repositories, whatever one of them does and however long it takes.
    async fn at(
        &self,
        core: &Arc<Core>,
        tasks: impl Stream<Item = Result<TaskName, StoreError>>,
    ) -> Result<BTreeSet<TaskName>, StoreError> {
        let look = |name: Result<TaskName, StoreError>| async move {
            let name = match name {
                Ok(name) => name,
                Err(error) => return Err(error),
            };
            match AssertUnwindSafe(self.look_at(core, &name)).catch_unwind().await {
                Ok(looked) => looked.map(|waits| waits.then_some(name)),
                Err(_) => {
                    tracing::error!(task = %name, "looking at a task's repository panicked");
                    Ok(None)
                }
            }
        };
        let (mut waiting, mut failure) = (BTreeSet::new(), None);
        let mut looked = std::pin::pin!(tasks.map(look).buffer_unordered(AT_ONCE));
        while let Some(looked) = looked.next().await {
            match looked {
                Ok(name) => waiting.extend(name),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(waiting), Err)
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for a host, unless it, or too much of whoever names it, was too slow before. If it did not answer, why not.
    async fn wait<T>(&self, task: &Task, host: &str, asked: impl Future<Output = T>) -> Result<T, String> {
        if self.hosts().is_slow(host, &task.principal) {
            return Err(format!(
                "`{host}`, or too many hosts of {}'s tasks, took too long at this look",
                task.principal
            ));
        }
        tokio::time::timeout(self.time, asked).await.map_err(|_| {
            self.hosts().slow.insert((host.to_owned(), task.principal.clone()));
            tracing::info!(task = %task.name, host, "host of a task's repository does not answer in time");
            format!("`{host}` did not answer within {} s", self.time.as_secs())
        })
    }

    /// Looks at a task's repository, and tells whether something has to wait for the next look. A repository that can't be
    /// looked at is left for the next time.
    async fn look_at(&self, core: &Arc<Core>, name: &TaskName) -> Result<bool, StoreError> {
        let Some(task) = core.tasks.task(name).await? else { return Ok(false) };
        let task = &task;
        let seen = core.references.seen_references(&task.name).await?;
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            ReferenceKind::ALL.into_iter().partition(|kind| listens(task, *kind, None));
        // What happens while nobody listens starts nothing later.
        for kind in unwanted.into_iter().filter(|kind| seen.looked.contains(kind)) {
            core.references.forget_references(&task.name, kind).await?;
        }
        let mut waits = false;
        let of_git: Vec<_> = wanted.iter().copied().filter(|kind| *kind != ReferenceKind::PullRequests).collect();
        if !of_git.is_empty() {
            let list = self.list(core, task).await;
            let found = of_git.into_iter().map(|kind| (kind, list.as_ref().map_err(Clone::clone)));
            let found = found.map(|(kind, list)| (kind, list.and_then(|list| listed(task, kind, list))));
            waits |= self.compare_all(core, task, LookWay::Git, found.collect()).await?;
        }
        if wanted.contains(&ReferenceKind::PullRequests) {
            let is_waiting = seen.at.iter().any(|(reference, at)| {
                reference.kind() == ReferenceKind::PullRequests && at.seen.is_some() && at.seen != at.done
            });
            if (self.pulls || is_waiting)
                && let Some(found) = self.pull_requests(core, task).await?
            {
                let found = vec![(ReferenceKind::PullRequests, found)];
                waits |= self.compare_all(core, task, LookWay::Forge, found).await?;
            }
        }
        Ok(waits)
    }

    /// Deals with what is there, and writes down for the task's owner how the look went.
    pub(super) async fn compare_all(
        &self,
        core: &Arc<Core>,
        task: &Task,
        way: LookWay,
        found: Vec<(ReferenceKind, Result<Found, String>)>,
    ) -> Result<bool, StoreError> {
        let (mut waits, mut fault, mut refusals) = (false, None, Vec::new());
        for (kind, found) in found {
            match found {
                Ok(found) => {
                    let compared = self.compare(core, task, kind, found).await?;
                    waits |= compared.waits;
                    refusals.extend(compared.refusals);
                }
                Err(why) => fault = fault.or(Some(why)),
            }
        }
        let at = core.clock.now();
        let period = match way {
            _ if waits => SOON.min(self.period),
            LookWay::Git => self.period,
            LookWay::Forge => self.period * PULLS,
        };
        let fault = fault.map(|why| why.chars().take(FAULT).collect());
        core.references.put_look(task, way, LookRecord { at, next: at.after(period), fault }, refusals).await?;
        Ok(waits)
    }
}
