//! The loop of the waves: opens one for tags that have moved, and lets its members begin in their turn.
//!
//! Everything that it goes by are rows: a moved tag, a member's state, its run's end. What it keeps between two looks, such as
//! a wave that has not changed and a member that is not to be tried just now, is lost without harm. So a crash, a second
//! server and a lost wake-up cost a moment. What a wave does is `cooper_engine::wave`'s to say.

mod flights;
mod followers;
pub(crate) mod news;
mod opening;
pub(crate) mod poller;
mod shares;
mod steer;
#[cfg(test)]
mod tests;
mod turn;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::wave::{Pauses, WaveEvent, WavePhase};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{EndedMember, SaveWave, StoredWave, WaveHead};
use cooper_types::{Timestamp, WaveId};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;
use flights::taken;
use shares::{Owner, Turns};
use turn::{Outcome, Ready, Turn};

pub(crate) use opening::unread;
pub(crate) use steer::{retry, steer, unknown};
pub(crate) use why::{Waits, reasons};

/// The longest sleep: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(2);
/// Runs that wait for an agent for so long take no room any more: others may have one.
const AGENTLESS: Duration = Duration::from_secs(600);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let wake = Arc::clone(&core);
    let mut waves = Waves::new(core);
    loop {
        if let Err(error) = waves.look().await {
            tracing::error!(error = chain(&error), "waves can't be looked at; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wake.waves_wake.notified() => {}
            () = wake.waves.base_moved() => {}
            Some(landed) = waves.flights.join_next_with_id() => waves.all_landed(landed).await,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// A member that is not to be tried before a time.
struct Held {
    /// When it was first to be tried.
    first: Timestamp,
    until: Timestamp,
    tries: u32,
    /// How often others went first, and which task that is, where one is known.
    waits: u32,
    waits_for: Option<String>,
}

impl Held {
    fn new(now: Timestamp) -> Self {
        Self { first: now, until: now, tries: 0, waits: 0, waits_for: None }
    }
}

type Landed = Result<(Id, Result<Outcome, StoreError>), JoinError>;

/// A member that is on its way.
struct Flight {
    wave: WaveId,
    owner: Owner,
    since: Moment,
    /// Whether its run is being accepted: it has its place among those that run.
    has_place: bool,
}

struct Waves {
    core: Arc<Core>,
    /// The waves whose members begin, as they were when they were read or changed last.
    known: BTreeMap<WaveId, StoredWave>,
    /// Those that are not over, as the store had them at the last look.
    heads: Vec<WaveHead>,
    /// What waits in paused waves, by their generations.
    paused: BTreeMap<WaveId, (i64, Vec<String>)>,
    /// What they hold.
    pauses: Pauses,
    /// By their tasks' keys: of a task, one member at a time is tried.
    in_flight: BTreeMap<String, Flight>,
    held: BTreeMap<(WaveId, usize), Held>,
    turns: Turns,
    /// Members that wait for room alone.
    ready: VecDeque<Ready>,
    /// Cancelled waves whose runs have been told.
    told: BTreeSet<WaveId>,
    /// Tasks of their own: they hold connections of the store, for which this loop waits, too.
    flights: JoinSet<Result<Outcome, StoreError>>,
    of_flight: HashMap<Id, Turn>,
}

impl Waves {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            known: BTreeMap::new(),
            heads: Vec::new(),
            paused: BTreeMap::new(),
            pauses: Pauses::default(),
            in_flight: BTreeMap::new(),
            held: BTreeMap::new(),
            turns: Turns::default(),
            ready: VecDeque::new(),
            told: BTreeSet::new(),
            flights: JoinSet::new(),
            of_flight: HashMap::new(),
        }
    }

    /// Opens what is to be opened, and takes every open wave as far as it goes now.
    async fn look(&mut self) -> Result<(), StoreError> {
        // First: what a run has pushed is there when its end is. Whoever waits for it must not have begun when that is planned.
        let ended = self.core.waves.ended_members().await?;
        let unplanned = self.open().await?;
        let mut of_wave: BTreeMap<WaveId, Vec<EndedMember>> = BTreeMap::new();
        for member in ended {
            of_wave.entry(member.wave).or_default().push(member);
        }
        for (wave, ended) in of_wave.into_iter().filter(|(wave, _)| !unplanned.contains(wave)) {
            self.go_on_after(wave, &ended);
            let events =
                ended.into_iter().map(|EndedMember { member, failure, .. }| WaveEvent::Ended { member, failure });
            if let Err(error) = self.change(wave, events.collect()).await {
                tracing::error!(wave = %wave, error = chain(&error), "wave can't be changed; trying again");
            }
        }
        self.heads = self.core.waves.open_waves(AGENTLESS).await?;
        self.refresh().await;
        self.look_at_pauses().await?;
        self.send_off();
        Ok(())
    }

    /// Reads what waits in the paused waves that have changed.
    async fn look_at_pauses(&mut self) -> Result<(), StoreError> {
        let paused = self.heads.iter().filter(|head| head.phase == WavePhase::Paused);
        let paused: BTreeMap<WaveId, i64> = paused.map(|head| (head.id, head.generation)).collect();
        let before = self.paused.len();
        self.paused.retain(|id, (generation, _)| paused.get(id) == Some(generation));
        let mut is_new = self.paused.len() < before;
        for (id, generation) in paused {
            if !self.paused.contains_key(&id) {
                // It may have changed since: then it is read again at the next look.
                self.paused.insert(id, (generation, self.core.waves.waiting_in_wave(id).await?));
                is_new = true;
            }
        }
        if is_new {
            self.pauses = Pauses::default();
            for (id, (_, tasks)) in &self.paused {
                self.pauses.hold(*id, tasks.iter().cloned());
            }
        }
        Ok(())
    }

    /// Has those looked at again that let go first what has ended now.
    fn go_on_after(&mut self, wave: WaveId, ended: &[EndedMember]) {
        let Some(known) = self.known.get(&wave) else { return };
        let tasks: BTreeSet<String> =
            ended.iter().filter_map(|ended| known.wave.members.get(ended.member)).map(|one| one.task.key()).collect();
        self.held.retain(|_, held| held.waits_for.as_ref().is_none_or(|task| !tasks.contains(task)));
    }

    /// Changes a wave by events, those that are refused left out. If somebody else was faster, the next look begins anew.
    async fn change(&mut self, id: WaveId, events: Vec<WaveEvent>) -> Result<(), StoreError> {
        let stored = match self.known.remove(&id) {
            Some(stored) => Some(stored),
            None => self.core.waves.find_wave(id).await?,
        };
        let Some(mut stored) = stored else { return Ok(()) };
        let now = self.core.clock.now();
        let mut changed: Vec<usize> = Vec::new();
        for event in events {
            changed.extend(stored.wave.apply(event, now).unwrap_or_default());
        }
        if !changed.is_empty() {
            if !self.core.waves.save_wave(SaveWave::of(&stored, &changed)).await? {
                self.core.waves_wake.notify_one();
                return Ok(());
            }
            failpoint::pass(Failpoint::WaveSaved);
            stored.generation += 1;
        }
        if stored.wave.finished.is_some() {
            tracing::info!(wave = %id, "wave is over");
            return Ok(());
        }
        self.known.insert(id, stored);
        Ok(())
    }

    /// Reads the waves that have changed and whose members begin, and has the runs of cancelled ones cancelled.
    async fn refresh(&mut self) {
        let open: BTreeSet<WaveId> = self.heads.iter().map(|head| head.id).collect();
        self.known.retain(|id, _| open.contains(id));
        self.told.retain(|id| open.contains(id));
        let now = self.core.clock.now();
        let is_over = |held: &Held| held.tries + held.waits == 0 && held.until <= now;
        self.held.retain(|(wave, _), held| open.contains(wave) && !is_over(held));
        self.core.wave_waits.retain(|member| self.held.contains_key(member));
        for head in self.heads.clone() {
            match head.phase {
                WavePhase::Running => {
                    if self.known.get(&head.id).is_some_and(|known| known.generation == head.generation) {
                        continue;
                    }
                    match self.core.waves.find_wave(head.id).await {
                        Ok(Some(stored)) => drop(self.known.insert(head.id, stored)),
                        Ok(None) => drop(self.known.remove(&head.id)),
                        Err(error) => {
                            self.known.remove(&head.id);
                            tracing::error!(wave = %head.id, error = chain(&error), "wave can't be read; trying again");
                        }
                    }
                }
                // They cost nothing, however large they are: what they hold is read once.
                WavePhase::Paused => drop(self.known.remove(&head.id)),
                WavePhase::Canceled => {
                    self.known.remove(&head.id);
                    if head.running == 0 || self.told.contains(&head.id) {
                        continue;
                    }
                    match steer::cancel_runs(&self.core, head.id).await {
                        Ok(()) => drop(self.told.insert(head.id)),
                        Err(error) => {
                            tracing::error!(wave = %head.id, error = chain(&error), "runs of a cancelled wave can't be cancelled; trying again");
                        }
                    }
                }
            }
        }
    }
}
