//! The loop of the waves: opens one for tags that have moved, and lets its members begin in their turn.
//!
//! Everything that it goes by are rows: a moved tag, a member's state, its run's end. What it keeps between two looks, such as
//! a wave that has not changed and a member that is not to be tried just now, is lost without harm. So a crash, a second
//! server and a lost wake-up cost a moment. What a wave does is `cooper_engine::wave`'s to say.

mod followers;
pub(crate) mod news;
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

use cooper_engine::wave::{self, Apart, Change, ImageTag, Member, MemberState, Pauses, WaveEvent, WavePhase};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{
    BaseChange, BaseGraph, ChangedBy, EndedMember, NewRefusal, OpenWave, SaveWave, StoredWave, WaveHead,
};
use cooper_types::{TaskName, Timestamp, WaveId};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;
use crate::tasks::off_the_loop;
use shares::{ASKED_AT_ONCE, Next, Owner, Queues, Turns};
use turn::{Asked, Outcome, Ready, Turn};

pub(crate) use steer::{retry, steer, unknown};
pub(crate) use why::{Waits, reasons};

/// The longest sleep: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(2);
/// Moved tags that are looked at together.
const BATCH: u32 = 1000;
/// Who takes longer to be asked for keeps nobody else from being.
const SLOW: Duration = Duration::from_secs(1);
/// How long a request stands that there was no room for. After that it is asked for anew: rights and tasks change.
const STANDS: Duration = Duration::from_secs(10);
/// Runs that wait for an agent for so long take no room any more: others may have one. So many of them may do that.
const AGENTLESS: Duration = Duration::from_secs(600);
const MAX_AGENTLESS: usize = 1000;
/// How long a member is let be whose task is busy, at first and at the most.
const BUSY: Duration = Duration::from_secs(2);
const LONGEST_BUSY: Duration = Duration::from_secs(30);
/// How long one is let be that can't be asked for or accepted, at first and at the most.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

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

    /// Opens waves for the tags that have moved: one for all that nobody's run moved, and one for each task or wave that did.
    /// Tells the waves for whose pushes that was not possible: they don't go on before.
    async fn open(&mut self) -> Result<BTreeSet<WaveId>, StoreError> {
        let mut unplanned = BTreeSet::new();
        loop {
            let changes = self.core.waves.base_changes(BATCH).await?;
            let mut is_all = changes.len() < BATCH as usize;
            let mut groups: BTreeMap<Option<ChangedBy>, Vec<BaseChange>> = BTreeMap::new();
            for change in changes {
                let by = change.by.clone().filter(|by| by.task.is_some());
                groups.entry(by).or_default().push(change);
            }
            for (by, changes) in groups {
                let (of, images) = (by.as_ref().and_then(|by| by.wave), shown(&changes));
                if let Err(error) = self.open_one(by, changes).await {
                    is_all = true;
                    unplanned.extend(of);
                    tracing::error!(
                        images,
                        error = chain(&error),
                        "no wave can be planned for moved tags; trying again"
                    );
                }
            }
            if is_all {
                return Ok(unplanned);
            }
        }
    }

    async fn open_one(&mut self, by: Option<ChangedBy>, changes: Vec<BaseChange>) -> Result<(), StoreError> {
        let open = self.planned(by, changes).await?;
        let (images, cuts, members) = (shown(&open.changes), open.cuts.len(), open.members.len());
        if let Some(wave) = self.core.waves.open_wave(open).await? {
            failpoint::pass(Failpoint::WaveOpened);
            tracing::info!(wave = %wave, images, members, cuts, "wave opened");
        }
        Ok(())
    }

    /// Plans for changes that have the same cause.
    async fn planned(&mut self, by: Option<ChangedBy>, changes: Vec<BaseChange>) -> Result<OpenWave, StoreError> {
        let apart = self.apart(by).await?;
        let images: Vec<_> = changes.iter().map(|change| change.image.clone()).collect();
        let BaseGraph { graph, unreadable } = self.core.waves.base_graph(&images).await?;
        for (task, error) in unreadable {
            tracing::error!(
                task,
                error = chain(&error),
                "task can't be read; it is in no wave until its row is mended"
            );
        }
        let wanted: Vec<Change> =
            changes.iter().map(|change| Change { image: change.image.clone(), to: Some(change.to.clone()) }).collect();
        let (plan, apart) = off_the_loop(move || (wave::plan(&graph, &wanted, &apart), apart)).await;
        let became = |image: &ImageTag| {
            let to = changes.iter().find(|change| change.image == *image).map(|change| change.to.to_string());
            format!("base image {image} became {}", to.unwrap_or_default())
        };
        let refused = plan.refused.iter().filter(|refused| refused.direct).map(|refused| NewRefusal {
            task: refused.task.clone(),
            event: became(&refused.image),
            rule: refused.rule.as_str().to_owned(),
        });
        // Those whose turn would have come now. What is cut further on is told when that moves.
        let cut = plan.cuts.iter().filter(|cut| images.contains(&cut.image)).map(|cut| NewRefusal {
            task: cut.task.clone(),
            event: became(&cut.image),
            rule: "a run of its own led to that: tasks that stand on each other are built once each".to_owned(),
        });
        Ok(OpenWave {
            refusals: refused.chain(cut).collect(),
            cuts: plan.cuts,
            members: plan.members,
            origins: apart.origins,
            changes,
        })
    }

    /// Which tasks stand apart from what somebody's pushes set off.
    async fn apart(&mut self, by: Option<ChangedBy>) -> Result<Apart, StoreError> {
        let Some(ChangedBy { task: Some(task), wave }) = by else { return Ok(Apart::default()) };
        let alone = Apart { origins: BTreeSet::from([task.key()]), ..Apart::default() };
        let Some(id) = wave else { return Ok(alone) };
        let heads = self.core.waves.open_waves(AGENTLESS).await?;
        let generation = heads.iter().find(|head| head.id == id).map(|head| head.generation);
        if let Some(known) = self.known.get(&id).filter(|known| Some(known.generation) == generation) {
            let built = self.core.waves.built_since(id).await?;
            return Ok(known.wave.apart(&task, &built));
        }
        let Some(found) = self.core.waves.find_wave(id).await? else { return Ok(alone) };
        let built = self.core.waves.built_since(id).await?;
        Ok(found.wave.apart(&task, &built))
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

    /// How many more runs may go on. Those of paused and cancelled waves that go on still use the agents as others do; whoever
    /// only waits there takes no room.
    fn room(&self) -> usize {
        let agentless: usize = self.heads.iter().map(|head| head.agentless.len()).sum();
        if agentless >= MAX_AGENTLESS {
            return 0;
        }
        let running = taken(&self.heads);
        let places = self.in_flight.values().filter(|flight| flight.has_place).count();
        self.core.wave_concurrency.saturating_sub(running + places)
    }

    /// Has members begin, as many as there is room for.
    fn send_off(&mut self) {
        let (now, moment) = (self.core.clock.now(), Moment::now());
        let mut room = self.room();
        let Self { ready, known, pauses, .. } = self;
        let stands = |since: Moment| moment.duration_since(since) < STANDS;
        ready.retain(|ready| {
            let Turn { wave, task, .. } = &ready.turn;
            stands(ready.since) && known.contains_key(wave) && !pauses.holds(task)
        });
        while room > 0 {
            let Some(ready) = self.ready.pop_front() else { break };
            if self.in_flight.contains_key(&ready.turn.task.key()) {
                continue;
            }
            room -= 1;
            self.fly(ready.turn.clone(), true, turn::accept(Arc::clone(&self.core), ready));
        }
        let is_slow = |flight: &&Flight| !flight.has_place && moment.duration_since(flight.since) >= SLOW;
        let asked = self.in_flight.values().filter(|flight| !flight.has_place).count();
        let quick = asked - self.in_flight.values().filter(is_slow).count();
        let mut left = room.saturating_sub(quick).min(ASKED_AT_ONCE.saturating_sub(asked));
        if left == 0 {
            return;
        }
        let mut queues = self.queues(now);
        while left > 0 {
            let Some(Next { wave, owner, member }) = queues.next(&mut self.turns) else { return };
            let Some(known) = self.known.get(&wave).and_then(|known| known.wave.members.get(member)) else { continue };
            let task = known.task.clone();
            if self.in_flight.contains_key(&task.key()) {
                continue;
            }
            queues.is_asked(wave, &owner);
            left -= 1;
            let first = self.held.get(&(wave, member)).map_or(now, |held| held.first);
            let turn = Turn { wave, member, task, owner, tried_for: now.since(first) };
            self.fly(turn.clone(), false, turn::ask(Arc::clone(&self.core), turn));
        }
    }

    /// The members that may be tried now, and what runs or is on its way.
    fn queues(&self, now: Timestamp) -> Queues {
        // A task may wait in several waves: where one of them has its run asked for, the others look what comes of that.
        let is_ready: BTreeSet<&TaskName> = self.ready.iter().map(|ready| &ready.turn.task).collect();
        let mut queues = Queues::default();
        for (id, stored) in &self.known {
            let owner = |member: &Member| stored.owners.get(&member.task.key()).cloned();
            let may = |member: &usize| {
                let is_held = self.held.get(&(*id, *member)).is_some_and(|held| held.until > now);
                !is_held && !is_ready.contains(&stored.wave.members[*member].task)
            };
            for place in stored.wave.ready(&self.pauses).into_iter().filter(may) {
                queues.waits(*id, owner(&stored.wave.members[place]), place);
            }
            let runs = |member: &&Member| matches!(member.state, MemberState::Running { .. });
            // Those that take no room count for nobody, or whose they are would get no place any more.
            let head = self.heads.iter().find(|head| head.id == *id);
            let agentless: BTreeSet<usize> = head.into_iter().flat_map(|head| head.agentless.iter().copied()).collect();
            let members = stored.wave.members.iter().enumerate().filter(|(place, _)| !agentless.contains(place));
            for member in members.map(|(_, member)| member).filter(runs) {
                queues.runs(*id, &owner(member));
            }
        }
        for flight in self.in_flight.values() {
            match flight.has_place {
                true => queues.runs(flight.wave, &flight.owner),
                false => queues.is_asked(flight.wave, &flight.owner),
            }
        }
        queues
    }

    fn fly(
        &mut self,
        turn: Turn,
        has_place: bool,
        outcome: impl Future<Output = Result<Outcome, StoreError>> + Send + 'static,
    ) {
        self.in_flight.insert(
            turn.task.key(),
            Flight { wave: turn.wave, owner: turn.owner.clone(), since: Moment::now(), has_place },
        );
        let flight = self.flights.spawn(outcome);
        self.of_flight.insert(flight.id(), turn);
    }

    /// Takes in what has landed by now: one look is enough for all of them.
    async fn all_landed(&mut self, first: Landed) {
        let mut landed = Some(first);
        while let Some(one) = landed {
            self.landed(one).await;
            landed = self.flights.try_join_next_with_id();
        }
    }

    /// Takes in what became of a member that was on its way.
    async fn landed(&mut self, landed: Landed) {
        let (id, outcome) = match landed {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => {
                tracing::error!(error = chain(&error), "a member's turn in a wave broke off; trying again");
                (error.id(), Ok(Outcome::Asked(Asked::NotYet("its turn broke off".to_owned()))))
            }
        };
        let Some(turn) = self.of_flight.remove(&id) else { return };
        self.in_flight.remove(&turn.task.key());
        let key = (turn.wave, turn.member);
        match outcome {
            Ok(Outcome::Asked(Asked::Ready(ready))) => self.ready.push_back(*ready),
            Ok(Outcome::Asked(Asked::Event(event))) => {
                self.held.remove(&key);
                if let Err(error) = self.change(turn.wave, vec![event]).await {
                    tracing::error!(wave = %turn.wave, error = chain(&error), "wave can't be changed; trying again");
                }
            }
            Ok(Outcome::Asked(Asked::Busy { maker, why })) => {
                self.core.wave_waits.note(key, why);
                let now = self.core.clock.now();
                let waits = self.held.get(&key).map_or(0, |held| held.waits);
                let until = now.after(BUSY.saturating_mul(1 << waits.min(8)).min(LONGEST_BUSY));
                // What it waits for is no trouble: that begins to count when it is over.
                let held = Held { until, waits: waits + 1, waits_for: maker, ..Held::new(now) };
                self.held.insert(key, held);
            }
            Ok(Outcome::Asked(Asked::NotYet(why))) => self.hold(key, &why),
            Ok(Outcome::Started(run)) => {
                self.held.remove(&key);
                if let Some(stored) = self.known.get_mut(&turn.wave) {
                    let started = WaveEvent::Started { member: turn.member, run };
                    match stored.wave.apply(started, self.core.clock.now()) {
                        // It is in the rows: the transaction that accepted the run changed the wave.
                        Ok(_) => stored.generation += 1,
                        // It was read after that.
                        Err(_) => drop(self.known.remove(&turn.wave)),
                    }
                }
            }
            // Somebody else has changed the wave.
            Ok(Outcome::Stale) => drop(self.known.remove(&turn.wave)),
            Err(error) => {
                tracing::error!(wave = %turn.wave, task = %turn.task, error = chain(&error), "member of a wave can't begin; trying again");
                self.hold(key, "the server has a trouble of its own, which its log tells");
            }
        }
    }

    /// Lets a member be for a time that grows.
    fn hold(&mut self, key: (WaveId, usize), why: &str) {
        self.core.wave_waits.note(key, format!("it is tried again: {why}"));
        let now = self.core.clock.now();
        let held = self.held.entry(key).or_insert_with(|| Held::new(now));
        let pause = RETRY.saturating_mul(1 << held.tries.min(8)).min(LONGEST_RETRY);
        held.tries += 1;
        (held.waits, held.waits_for) = (0, None);
        held.until = now.after(pause);
    }
}

/// How many runs of waves take room.
fn taken(heads: &[WaveHead]) -> usize {
    heads.iter().map(|head| head.running.saturating_sub(head.agentless.len())).sum()
}

/// The images that changed, for the log.
fn shown(changes: &[BaseChange]) -> String {
    let images: BTreeSet<String> = changes.iter().map(|change| change.image.to_string()).collect();
    images.into_iter().collect::<Vec<_>>().join(" ")
}
