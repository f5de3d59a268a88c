//! The loop of the timers: sleeps until the earliest instant by the clock on the wall, and fires what has come.
//!
//! The next instants are rows, and a row moves on in the transaction that accepts its run: a crash, a second server and a
//! clock that is set back fire nothing twice. What was due while no server could run it is `cooper_engine::task`'s to judge.
//! Instants are fired beside each other: one that takes long, such as for what its task file names, delays no other.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::task::{Cause, GRACE};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Firing, Instant};
use cooper_types::{PrincipalName, TimerName, Timestamp};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;
use crate::stored_tasks::{self, For, Given, NotAsked};

/// Instants that are read at a time.
const BATCH: u32 = 20_000;
/// Instants that are fired at a time: their runs share commits.
const AT_ONCE: usize = 256;
/// As many of them may be one principal's: a task may name slow places.
const AT_ONCE_OF_ONE: usize = 64;
/// How long it waits after a failure of the store, and until it looks again while much is to do.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an instant waits that could not be fired.
const RETRY: Duration = Duration::from_secs(5);
/// The longest sleep: what a lost wake-up, or a clock that is set, costs.
const LONGEST: Duration = Duration::from_secs(30);
/// So many runs of a timer may wait to be begun. Further instants set off none.
const MAX_WAITING: u32 = 16;

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let wake = Arc::clone(&core);
    let mut timers = Timers::new(core);
    loop {
        let until = timers.look().await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wake.timers.notified() => timers.read_at = Moment::now(),
            Some(landed) = timers.flights.join_next_with_id() => timers.landed(landed),
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// A timer of a task.
type Key = (String, TimerName);

/// What became of an instant.
enum Done {
    /// It is over.
    Yes,
    /// It is tried again in a moment.
    Later,
}

type Landed = Result<(Id, Result<Done, StoreError>), JoinError>;

struct Timers {
    core: Arc<Core>,
    /// Since when what comes can be fired: older instants were missed.
    watched: Timestamp,
    /// When it looked last, by both clocks.
    looked: (Timestamp, Moment),
    /// When the rows are to be read again.
    read_at: Moment,
    /// Instants that have come and are not on their way.
    queue: VecDeque<Instant>,
    in_flight: BTreeSet<Key>,
    of_principal: BTreeMap<PrincipalName, usize>,
    /// Timers that could not fire, and until when they are let be.
    held: BTreeMap<Key, Moment>,
    /// Timers with which the store failed, and when it did last: what comes while nothing can be written was missed.
    failed: BTreeMap<Key, Timestamp>,
    /// Tasks of their own: they hold connections of the store, for which this loop waits, too.
    flights: JoinSet<Result<Done, StoreError>>,
    of_flight: HashMap<Id, (Key, PrincipalName)>,
}

impl Timers {
    fn new(core: Arc<Core>) -> Self {
        let now = core.wall_clock.now();
        Self {
            core,
            watched: now,
            looked: (now, Moment::now()),
            read_at: Moment::now(),
            queue: VecDeque::new(),
            in_flight: BTreeSet::new(),
            of_principal: BTreeMap::new(),
            held: BTreeMap::new(),
            failed: BTreeMap::new(),
            flights: JoinSet::new(),
            of_flight: HashMap::new(),
        }
    }

    /// Reads what has come, if it is time for that, and sends off what may be; tells when to look again.
    async fn look(&mut self) -> Moment {
        let (now, moment) = (self.core.wall_clock.now(), Moment::now());
        let (last, then) = std::mem::replace(&mut self.looked, (now, moment));
        if now.since(last) > moment.duration_since(then) + GRACE {
            // The machine slept, or its clock was set: nobody was there for what came meanwhile.
            self.watched = now;
            self.read_at = moment;
        }
        if self.read_at <= moment {
            match self.read(now).await {
                Ok(next) => self.read_at = moment + next.map_or(LONGEST, |next| next.since(now).min(LONGEST)),
                Err(error) => {
                    tracing::error!(error = chain(&error), "timers can't be looked at; trying again");
                    self.watched = now;
                    self.read_at = moment + PAUSE;
                }
            }
        }
        self.send_off(now);
        if !self.queue.is_empty() {
            self.read_at = self.read_at.min(moment + PAUSE);
        }
        self.read_at
    }

    /// Reads the instants that have come; tells when the next one does.
    async fn read(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let moment = Moment::now();
        self.held.retain(|_, until| *until > moment);
        let due = self.core.tasks.due_timers(now, BATCH).await?;
        let is_new = |instant: &Instant| {
            let key = key(instant);
            !self.in_flight.contains(&key) && !self.held.contains_key(&key)
        };
        self.queue = due.into_iter().filter(is_new).collect();
        let next = self.core.tasks.next_timer(now).await?;
        // What is held is due, too, and what comes in the meantime does not wait for it.
        let held = self.held.values().min().map(|until| now.after(until.saturating_duration_since(moment).max(PAUSE)));
        // On its way: it has a new instant when it lands.
        let moves = (!self.in_flight.is_empty()).then(|| now.after(PAUSE));
        Ok([next, held, moves].into_iter().flatten().min())
    }

    /// Fires what has come, as much at a time as may be.
    fn send_off(&mut self, now: Timestamp) {
        let mut stay = VecDeque::new();
        while let Some(instant) = self.queue.pop_front() {
            if self.in_flight.len() >= AT_ONCE {
                self.queue.push_front(instant);
                break;
            }
            let of_one = self.of_principal.entry(instant.principal.clone()).or_default();
            if *of_one >= AT_ONCE_OF_ONE {
                stay.push_back(instant);
                continue;
            }
            *of_one += 1;
            let (key, principal) = (key(&instant), instant.principal.clone());
            self.in_flight.insert(key.clone());
            let failed = self.failed.get(&key).copied();
            let (core, watched) = (Arc::clone(&self.core), failed.map_or(self.watched, |at| at.max(self.watched)));
            let flight = self.flights.spawn(async move { fire(&core, instant, watched, now).await });
            self.of_flight.insert(flight.id(), (key, principal));
        }
        stay.append(&mut self.queue);
        self.queue = stay;
    }

    fn landed(&mut self, landed: Landed) {
        let (id, done) = match landed {
            Ok((id, done)) => (id, done),
            Err(error) => {
                tracing::error!(error = chain(&error), "the firing of a timer broke off; trying again");
                (error.id(), Ok(Done::Later))
            }
        };
        let Some((key, principal)) = self.of_flight.remove(&id) else { return };
        self.in_flight.remove(&key);
        if let Some(count) = self.of_principal.get_mut(&principal) {
            *count -= 1;
            if *count == 0 {
                self.of_principal.remove(&principal);
            }
        }
        match done {
            Ok(Done::Yes) => drop(self.failed.remove(&key)),
            Ok(Done::Later) => {
                self.held.insert(key, Moment::now() + RETRY);
            }
            Err(error) => {
                let (task, timer) = &key;
                tracing::error!(task, timer = %timer, error = chain(&error), "timer can't be fired; trying again");
                // Of this timer alone: it may be its task that can't be read.
                self.failed.insert(key.clone(), self.core.wall_clock.now());
                self.held.insert(key, Moment::now() + RETRY);
            }
        }
        if self.queue.is_empty() {
            self.read_at = Moment::now();
        }
    }
}

fn key(instant: &Instant) -> Key {
    (instant.task.key(), instant.timer.clone())
}

/// Fires one instant, or moves on from it.
async fn fire(core: &Arc<Core>, instant: Instant, watched: Timestamp, now: Timestamp) -> Result<Done, StoreError> {
    // A task that is gone has taken its timers with it.
    let Some(task) = core.tasks.task(&instant.task).await? else { return Ok(Done::Yes) };
    let Some(timer) = task.timers.get(&instant.timer) else { return Ok(Done::Yes) };
    let passed = timer.passed(instant.at, watched, now);
    let firing = Firing { instant: instant.clone(), next: passed.next };
    if !passed.fires {
        let mut why = "missed: no server could run it at that time, and the timer's catch-up is Skip".to_owned();
        if timer.schedule.next_after(instant.at) != passed.next {
            // One line for all that were due: there may be thousands.
            why.push_str(&format!("; so was all that was due after it until {watched}"));
        }
        return pass_by(core, &firing, &why).await;
    }
    if core.tasks.waiting_runs(&instant.task, &instant.timer, MAX_WAITING).await? >= MAX_WAITING {
        let why = format!("{MAX_WAITING} runs of earlier instants of the timer still wait to be begun");
        return pass_by(core, &firing, &why).await;
    }
    let cause = Cause::Timer { timer: instant.timer.clone(), occurrence: instant.at, missed: passed.missed };
    let waited = now.since(instant.at);
    let request = match stored_tasks::request_for_trigger(core, &task, Given::default(), cause, waited).await {
        Ok(request) => request,
        Err(NotAsked::Yet(why)) => {
            tracing::warn!(task = %task.name, timer = %instant.timer, why, "timer's run can't be asked for now; trying again");
            return Ok(Done::Later);
        }
        Err(NotAsked::AtAll(why)) => return pass_by(core, &firing, &why).await,
    };
    failpoint::pass(Failpoint::InstantTaken);
    match stored_tasks::accept(core, request, For::Instant(firing.clone())).await {
        Ok(_) => Ok(Done::Yes),
        // Another server was faster. Or the clock was set back and the instant has come before: the timer goes on.
        Err(AcceptError::TimerMoved { .. }) => pass_by(core, &firing, "the instant has set off a run before").await,
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => pass_by(core, &firing, &chain(&error)).await,
    }
}

/// Moves a timer on without a run.
async fn pass_by(core: &Core, firing: &Firing, why: &str) -> Result<Done, StoreError> {
    if core.tasks.pass_instant(firing, why).await? {
        let Instant { task, timer, at, .. } = &firing.instant;
        tracing::warn!(task = %task, timer = %timer, instant = %at, why, "timer started no run");
    }
    Ok(Done::Yes)
}
