//! Whose deliveries are worked off next: each task has its turn, however much waits for another, and however many tasks
//! somebody has.
//!
//! The store says what waits. What is known here beside it (who came since, who is tried again when) may be lost: at a
//! start, and once a minute, all is looked for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cooper_ports::store_error::StoreError;
use cooper_types::{PrincipalName, TaskName};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::work::{Trying, Turn, turn};
use crate::core::Core;
use crate::problem::chain;

/// Tasks whose deliveries are worked off at a time: they share commits.
const AT_ONCE: usize = 32;
/// So many of them may be one principal's: a turn may take long, and others have theirs meanwhile.
const OF_PRINCIPAL: usize = 24;
/// How long a task rests after its first failure, and how long at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long it takes until all is looked for again: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut rounds = Rounds::new(Arc::clone(&core));
    let mut look = Instant::now();
    loop {
        if look <= Instant::now() {
            let pause = match rounds.look().await {
                Ok(()) => LONGEST,
                Err(error) => {
                    tracing::error!(error = chain(&error), "what waits can't be looked for; trying again");
                    PAUSES.0
                }
            };
            look = Instant::now() + pause;
        }
        for (task, whose) in core.hooks.came() {
            rounds.call(task, whose);
        }
        rounds.begin();
        let next = rounds.next_try().map_or(look, |next| next.min(look));
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.hooks.wake.notified() => {}
            () = rounds.one_ends(), if rounds.is_busy() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

/// The tasks for which something waits.
pub(super) struct Rounds {
    core: Arc<Core>,
    tasks: BTreeMap<String, Of>,
    lanes: BTreeMap<PrincipalName, Lane>,
    /// The principals with tasks that wait for their turn; whose is next comes first.
    order: VecDeque<PrincipalName>,
    turns: JoinSet<Result<Turn, StoreError>>,
    /// Whose turn each is: the task's key.
    whose: HashMap<Id, String>,
}

/// The tasks of a principal.
#[derive(Default)]
struct Lane {
    /// Those whose turn comes next, by their keys.
    queue: VecDeque<String>,
    /// How many have theirs.
    busy: usize,
}

/// What is known of a task.
struct Of {
    name: TaskName,
    principal: PrincipalName,
    state: State,
    /// The delivery that could not be worked off.
    trying: Option<Trying>,
    /// How long it rests after the next failure.
    pause: Duration,
}

enum State {
    /// Its turn comes.
    Queued,
    /// It is its turn; and whether something came meanwhile.
    Busy { again: bool },
    /// It is tried again then.
    Resting { until: Instant },
}

impl Rounds {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let (tasks, lanes, order) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { core, tasks, lanes, order, turns: JoinSet::new(), whose: HashMap::new() }
    }

    /// Looks for all that waits.
    pub(super) async fn look(&mut self) -> Result<(), StoreError> {
        for (task, whose) in self.core.hook_store.waiting_tasks().await? {
            self.call(task, whose);
        }
        Ok(())
    }

    /// Something waits for a task.
    pub(super) fn call(&mut self, task: TaskName, principal: PrincipalName) {
        let key = task.key();
        match self.tasks.get_mut(&key).map(|of| &mut of.state) {
            Some(State::Busy { again }) => *again = true,
            // Its deliveries keep their order: a new one changes nothing.
            Some(State::Queued | State::Resting { .. }) => {}
            None => {
                self.enqueue(key.clone(), principal.clone());
                let of = Of { name: task, principal, state: State::Queued, trying: None, pause: PAUSES.0 };
                self.tasks.insert(key, of);
            }
        }
    }

    fn enqueue(&mut self, key: String, principal: PrincipalName) {
        let lane = self.lanes.entry(principal.clone()).or_default();
        if lane.queue.is_empty() {
            self.order.push_back(principal);
        }
        lane.queue.push_back(key);
    }

    /// The next task whose turn it is, by its key.
    fn next(&mut self) -> Option<String> {
        for _ in 0..self.order.len() {
            let principal = self.order.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&principal) else { continue };
            if lane.busy >= OF_PRINCIPAL {
                self.order.push_back(principal);
                continue;
            }
            let key = lane.queue.pop_front();
            lane.busy += usize::from(key.is_some());
            if !lane.queue.is_empty() {
                self.order.push_back(principal);
            }
            if key.is_some() {
                return key;
            }
        }
        None
    }

    /// Begins as many turns as there may be.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        let mut rested = Vec::new();
        for (key, of) in &mut self.tasks {
            if matches!(of.state, State::Resting { until } if until <= now) {
                of.state = State::Queued;
                rested.push((key.clone(), of.principal.clone()));
            }
        }
        for (key, principal) in rested {
            self.enqueue(key, principal);
        }
        while self.turns.len() < AT_ONCE {
            let Some(key) = self.next() else { return };
            let Some(of) = self.tasks.get_mut(&key) else { continue };
            of.state = State::Busy { again: false };
            let handle = self.turns.spawn(turn(Arc::clone(&self.core), of.name.clone(), of.trying));
            self.whose.insert(handle.id(), key);
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.turns.is_empty()
    }

    /// When the first of those that rest is tried again.
    fn next_try(&self) -> Option<Instant> {
        let until = |of: &Of| match of.state {
            State::Resting { until } => Some(until),
            State::Queued | State::Busy { .. } => None,
        };
        self.tasks.values().filter_map(until).min()
    }

    /// Waits for the end of a turn. Nothing is lost where nobody waits any more.
    pub(super) async fn one_ends(&mut self) {
        let Some(ended) = self.turns.join_next_with_id().await else { return };
        let (id, ended) = match ended {
            Ok((id, Ok(turn))) => (id, Ok(turn)),
            Ok((id, Err(error))) => (id, Err(chain(&error))),
            Err(error) => (error.id(), Err(panicked(&error))),
        };
        let Some(key) = self.whose.remove(&id) else { return };
        let Some(of) = self.tasks.get_mut(&key) else { return };
        let principal = of.principal.clone();
        if let Some(lane) = self.lanes.get_mut(&principal) {
            lane.busy = lane.busy.saturating_sub(1);
            if lane.busy == 0 && lane.queue.is_empty() {
                self.lanes.remove(&principal);
            }
        }
        let again = matches!(of.state, State::Busy { again: true });
        let rest = match ended {
            Ok(Turn::Over) if !again => {
                self.tasks.remove(&key);
                return;
            }
            Ok(Turn::Over | Turn::More) => None,
            Ok(Turn::Later(trying)) => Some(Some(trying)),
            // It is this task's alone: the others go on.
            Err(error) => {
                tracing::error!(task = %of.name, error, "deliveries can't be worked off; trying again");
                Some(of.trying)
            }
        };
        match rest {
            None => {
                (of.state, of.trying, of.pause) = (State::Queued, None, PAUSES.0);
                self.enqueue(key, principal);
            }
            Some(trying) => {
                of.trying = trying;
                of.state = State::Resting { until: Instant::now() + of.pause };
                of.pause = (of.pause * 2).min(PAUSES.1);
            }
        }
    }

    /// Whose turns it is.
    #[cfg(test)]
    pub(super) fn busy(&self) -> Vec<&TaskName> {
        self.tasks.values().filter(|of| matches!(of.state, State::Busy { .. })).map(|of| &of.name).collect()
    }

    /// Works off what can be worked off, and tells whether something has to wait.
    #[cfg(test)]
    pub(super) async fn settle(&mut self) -> bool {
        self.begin();
        while self.is_busy() {
            self.one_ends().await;
            self.begin();
        }
        !self.tasks.is_empty()
    }
}

fn panicked(error: &JoinError) -> String {
    format!("it panicked: {error}")
}
