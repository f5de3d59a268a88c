//! Members on their way: who is asked for next, within the room that there is, and what became of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::wave::{Member, MemberState, WaveEvent};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::WaveHead;
use cooper_types::{TaskName, Timestamp, WaveId};
use tokio::time::Instant as Moment;

use super::shares::{ASKED_AT_ONCE, Next, Queues};
use super::turn::{self, Asked, Outcome, Turn};
use super::{Flight, Held, Landed, Waves};
use crate::problem::chain;

/// Who takes longer to be asked for keeps nobody else from being.
const SLOW: Duration = Duration::from_secs(1);
/// How long a request stands that there was no room for. After that it is asked for anew: rights and tasks change.
const STANDS: Duration = Duration::from_secs(10);
/// So many runs may wait for an agent that take no room for that.
const MAX_AGENTLESS: usize = 1000;
/// How long a member is let be whose task is busy, at first and at the most.
const BUSY: Duration = Duration::from_secs(2);
const LONGEST_BUSY: Duration = Duration::from_secs(30);
/// How long one is let be that can't be asked for or accepted, at first and at the most.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

impl Waves {
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
    pub(super) fn send_off(&mut self) {
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
    pub(super) async fn all_landed(&mut self, first: Landed) {
        let mut landed = Some(first);
        while let Some(one) = landed {
            self.landed(one).await;
            landed = self.flights.try_join_next_with_id();
        }
    }

    /// Takes in what became of a member that was on its way.
    pub(super) async fn landed(&mut self, landed: Landed) {
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
pub(super) fn taken(heads: &[WaveHead]) -> usize {
    heads.iter().map(|head| head.running.saturating_sub(head.agentless.len())).sum()
}
