//! What the scheduler has read of the unfinished runs.
//!
//! The rows are the queue. This is a copy of them: told of changes by those who made them, and brought up to date with all
//! rows, run by run and by the generations that they have then, at each full look. So a change that nobody told of is found
//! within a second, and the copy can't disagree with the rows for longer.
//!
//! What a look asks for is kept beside the runs, so that its work does not grow with the queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::run::{AgentRef, Phase, Placement, Policy, Run};
use cooper_engine::schedule::Limit;
use cooper_ports::runs::RunStore;
use cooper_ports::store_error::StoreError;
use cooper_types::{Platform, PoolName, RunId, Timestamp};

use crate::problem::chain;

/// How long an offer counts as one that is about to be answered.
const FRESH: Duration = Duration::from_secs(1);

/// For each run that is looked for, how many are looked at.
const PASSED_OVER: usize = 8;

/// Whose turn is when.
type Turn = (Reverse<i32>, Timestamp, RunId);

/// The unfinished runs, as far as is known.
#[derive(Default)]
pub(super) struct Queue {
    runs: BTreeMap<RunId, Run>,
    /// In which generation each was read; runs that can't be read are here as well, so that each is told of once.
    generations: BTreeMap<RunId, u64>,
    /// How many slots of each agent are taken.
    load: BTreeMap<AgentRef, u32>,
    /// The runs with placements that wait, by what they wait for: the higher priority first, then the oldest.
    waiting: BTreeMap<(PoolName, Platform), BTreeSet<Turn>>,
    /// Of tasks with a limit, how many runs are with agents.
    begun: BTreeMap<String, u32>,
    /// When each offer ends that has not been answered.
    offers: BTreeMap<RunId, Vec<Timestamp>>,
}

impl Queue {
    /// Reads what has changed.
    pub(super) async fn refresh(&mut self, store: &dyn RunStore) -> Result<(), StoreError> {
        let found = store.unfinished_changes(&self.generations).await?;
        for run in found.gone {
            self.generations.remove(&run);
            self.remove(run);
        }
        for (generation, run) in found.changed {
            self.put(generation, run);
        }
        for (run, generation, error) in found.unreadable {
            tracing::error!(run = %run, error = chain(&error), "run can't be read; it waits until its row is mended and the server starts anew");
            self.generations.insert(run, generation);
            self.remove(run);
        }
        Ok(())
    }

    /// Takes in a change that was told of. One that comes late says less than is known.
    pub(super) fn tell(&mut self, generation: u64, run: Run) {
        if self.generations.get(&run.id).is_some_and(|known| *known >= generation) {
            return;
        }
        if run.finished().is_some() {
            self.generations.remove(&run.id);
            self.remove(run.id);
        } else {
            self.put(generation, run);
        }
    }

    /// The runs, oldest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// One of them.
    pub(super) fn get(&self, run: RunId) -> Option<&Run> {
        self.runs.get(&run)
    }

    /// How many slots of each agent are taken.
    pub(super) fn load(&self) -> &BTreeMap<AgentRef, u32> {
        &self.load
    }

    /// The oldest runs that wait for each pool and platform, so many of each. Those of tasks of which as many are with agents
    /// as may be are passed over, a bounded number of them: a full look finds what is behind more.
    pub(super) fn oldest_waiting(&self, count: usize) -> impl Iterator<Item = &Run> {
        let may_go = |run: &RunId| {
            let limit = self.limit_of(*run);
            limit.is_none_or(|(key, limit)| self.begun.get(&key).is_none_or(|begun| *begun < limit))
        };
        let of_class = |runs: &BTreeSet<Turn>| -> Vec<RunId> {
            runs.iter().take(count * PASSED_OVER).map(|(.., run)| *run).filter(may_go).take(count).collect()
        };
        let oldest: BTreeSet<RunId> = self.waiting.values().flat_map(of_class).collect();
        oldest.into_iter().filter_map(|run| self.runs.get(&run))
    }

    /// Of tasks with a limit, how many runs are with agents.
    pub(super) fn begun(&self) -> &BTreeMap<String, u32> {
        &self.begun
    }

    /// The limit that a run counts for that no agent has had.
    pub(super) fn limit_of(&self, run: RunId) -> Option<Limit> {
        self.get(run).filter(|run| !run.has_begun())?.task_limit()
    }

    /// How many offers are about to be answered.
    pub(super) fn fresh_offers(&self, now: Timestamp, policy: &Policy) -> usize {
        let fresh = now.after(policy.offer_lease.saturating_sub(FRESH));
        self.offers.values().flatten().filter(|ends| **ends > fresh).count()
    }

    fn put(&mut self, generation: u64, run: Run) {
        self.remove(run.id);
        self.generations.insert(run.id, generation);
        for agent in run.slots() {
            *self.load.entry(agent.clone()).or_default() += 1;
        }
        for placement in &run.placements {
            if let Placement::Offered(lease) = placement {
                self.offers.entry(run.id).or_default().push(lease.until);
            }
        }
        if let Some(task) = begun(&run) {
            *self.begun.entry(task).or_default() += 1;
        }
        for class in classes(&run) {
            self.waiting.entry(class).or_default().insert(turn(&run));
        }
        self.runs.insert(run.id, run);
    }

    fn remove(&mut self, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        self.offers.remove(&id);
        for agent in run.slots() {
            if let Some(held) = self.load.get_mut(agent) {
                *held -= 1;
                if *held == 0 {
                    self.load.remove(agent);
                }
            }
        }
        if let Some(task) = begun(&run)
            && let Some(count) = self.begun.get_mut(&task)
        {
            *count -= 1;
            if *count == 0 {
                self.begun.remove(&task);
            }
        }
        for class in classes(&run) {
            if let Some(runs) = self.waiting.get_mut(&class) {
                runs.remove(&turn(&run));
                if runs.is_empty() {
                    self.waiting.remove(&class);
                }
            }
        }
    }
}

fn turn(run: &Run) -> Turn {
    (Reverse(run.priority()), run.created, run.id)
}

/// The limit for which a run counts.
fn begun(run: &Run) -> Option<String> {
    run.task_limit().filter(|_| run.has_begun()).map(|(key, _)| key)
}

/// What a run's placements wait for, each thing once.
fn classes(run: &Run) -> BTreeSet<(PoolName, Platform)> {
    let live = run.phase == Phase::Live;
    let waiting = run.placements.iter().zip(&run.plan.placements).enumerate().filter(|(index, (placement, _))| {
        live && matches!(placement, Placement::Waiting { .. }) && run.has_work(*index)
    });
    waiting.map(|(_, (_, planned))| (run.pool.clone(), planned.platform.clone())).collect()
}
