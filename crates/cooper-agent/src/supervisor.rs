//! The owner of an agent's state: turns what happens into events and carries effects out. One loop, nothing shared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cooper_api::agent::wire::agent_message;
use cooper_api::agent::{StepOrder, to_server};
use cooper_engine::agent::{AgentEffect, AgentEvent, AgentState};
use cooper_engine::message::{PlacementKey, StepResult, ToServer};
use cooper_ports::agents::DiskSpace;
use cooper_types::AttemptNumber;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::cleanup::{self, Leftovers, PlacementTasks};
use crate::conditions::Conditions;
use crate::error::chain;
use crate::link::{LinkEvent, Uplink};
use crate::step::StepRunner;

/// How long what the engine would not remove waits for another try, if no placement ends before.
const LEFTOVERS_PAUSE: Duration = Duration::from_secs(30);

/// What attempts say before their ends and nobody has taken yet: a few words of each slot. What does not fit is not said.
const MAX_SAID: usize = 256;

type StepKey = (PlacementKey, AttemptNumber);

/// Holds the agent's state.
pub(crate) struct Supervisor {
    state: AgentState,
    conditions: Conditions,
    /// How full the engine's disk is.
    disk: watch::Receiver<Option<DiskSpace>>,
    runner: Arc<StepRunner>,
    uplink: Option<(Uplink, Interval)>,
    placements: BTreeMap<PlacementKey, PlacementTasks>,
    /// Each ends with the attempt's result, or with none if it was stopped.
    steps: JoinSet<Option<StepResult>>,
    step_keys: HashMap<Id, StepKey>,
    /// Each ends with what it could not remove.
    cleanups: JoinSet<Leftovers>,
    cleanup_keys: HashMap<Id, PlacementKey>,
    /// Whether nothing is held and nothing is cleaned up.
    idle: watch::Sender<bool>,
    /// What is in the engine, and the next clean-up tries to remove again.
    leftovers: Leftovers,
    /// What attempts have to say before their ends.
    said: mpsc::Sender<ToServer>,
    heard: mpsc::Receiver<ToServer>,
}

impl Supervisor {
    pub(crate) fn new(
        slots: u32,
        runner: Arc<StepRunner>,
        conditions: Conditions,
        disk: watch::Receiver<Option<DiskSpace>>,
        idle: watch::Sender<bool>,
    ) -> Self {
        let (said, heard) = mpsc::channel(MAX_SAID);
        Self {
            said,
            heard,
            idle,
            disk,
            conditions,
            state: AgentState::new(usize::try_from(slots).unwrap_or(usize::MAX)),
            runner,
            uplink: None,
            placements: BTreeMap::new(),
            steps: JoinSet::new(),
            step_keys: HashMap::new(),
            cleanups: JoinSet::new(),
            cleanup_keys: HashMap::new(),
            leftovers: Leftovers::default(),
        }
    }

    /// Works until `shutdown` fires and everything is cleaned up, or `grace` has passed since then.
    pub(crate) async fn run(
        mut self,
        mut link: mpsc::Receiver<LinkEvent>,
        shutdown: CancellationToken,
        grace: Duration,
    ) {
        let mut deadline = None;
        let mut conditions = self.conditions.changes();
        let mut leftovers = tokio::time::interval(LEFTOVERS_PAUSE);
        leftovers.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every branch is cancel safe: what it took is handled before the next turn.
            tokio::select! {
                event = link.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => break,
                },
                () = beat(&mut self.uplink) => self.apply(AgentEvent::ReportDue),
                () = conditions.next(), if deadline.is_none() => self.conditions_changed(),
                Some(message) = self.heard.recv() => self.send(message),
                Some(ended) = self.steps.join_next_with_id() => self.step_ended(ended),
                Some(ended) = self.cleanups.join_next_with_id() => self.cleaned_up(ended),
                _ = leftovers.tick() => self.remove_leftovers(),
                () = shutdown.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + grace);
                    self.drain();
                }
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    tracing::warn!("shutdown took too long: what is left of steps is cleaned up at the next start");
                    break;
                }
            }
            let idle = self.placements.is_empty() && self.cleanups.is_empty();
            self.idle.send_if_modified(|before| std::mem::replace(before, idle) != idle);
            if deadline.is_some() && self.placements.is_empty() && self.cleanups.is_empty() {
                break;
            }
        }
        // Dropping the uplink lets the last messages out; dropping the tasks stops them.
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(uplink) => {
                let first = Instant::now() + uplink.heartbeat;
                let mut beats = tokio::time::interval_at(first, uplink.heartbeat);
                beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.uplink = Some((uplink, beats));
                self.apply(AgentEvent::ReportDue);
            }
            LinkEvent::Message(message) => self.apply(AgentEvent::Received(*message)),
            LinkEvent::Down => self.uplink = None,
        }
    }

    fn apply(&mut self, event: AgentEvent<StepOrder>) {
        for effect in self.state.apply(event) {
            match effect {
                AgentEffect::Send(message) => self.send(message),
                AgentEffect::Run(key, attempt, order) => self.start(key, attempt, order),
                AgentEffect::Abandon(key, attempt) => self.abandon(key, attempt),
                AgentEffect::CleanUp(key) => self.clean_up(key),
            }
        }
    }

    fn send(&mut self, message: ToServer) {
        if let ToServer::Accepted(key) = &message {
            // A placement without steps is to be given back at a shutdown too.
            self.placements.entry(*key).or_default();
        }
        let Some((uplink, _)) = &self.uplink else { return };
        let mut message = to_server(message);
        if let Some(agent_message::Message::Holding(report)) = &mut message.message {
            let disk = *self.disk.borrow();
            report.unavailable = self.conditions.why().unwrap_or_default();
            report.disk_free_bytes = disk.map(|disk| disk.free);
            report.disk_total_bytes = disk.map(|disk| disk.total);
        }
        if uplink.control.try_send(message).is_err() {
            uplink.cut.cancel();
            self.uplink = None;
        }
    }

    fn start(&mut self, key: PlacementKey, attempt: AttemptNumber, order: StepOrder) {
        let tasks = self.placements.entry(key).or_default();
        tasks.names.push(self.runner.local_name(key, attempt));
        let cancel = tasks.cancel.child_token();
        tasks.attempts.insert(attempt, cancel.clone());
        let step =
            Arc::clone(&self.runner).run(key, attempt, order, Arc::clone(&tasks.shared), self.said.clone(), cancel);
        let handle = self.steps.spawn(tasks.tracker.track_future(step));
        self.step_keys.insert(handle.id(), (key, attempt));
        tasks.aborts.push(handle);
    }

    fn step_ended(&mut self, ended: Result<(Id, Option<StepResult>), JoinError>) {
        let (id, result) = match ended {
            Ok(ended) => ended,
            // An aborted task belongs to a placement that is being cleaned up.
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => {
                let reason = format!("the agent failed: {}", chain(&error));
                (error.id(), Some(StepResult::Lost { reason }))
            }
        };
        let Some((key, attempt)) = self.step_keys.remove(&id) else { return };
        if let Some(result) = result {
            // The server hears of it no more when the attempt has ended.
            while let Ok(message) = self.heard.try_recv() {
                self.send(message);
            }
            self.apply(AgentEvent::StepEnded(key, attempt, result));
        }
    }

    fn abandon(&self, key: PlacementKey, attempt: AttemptNumber) {
        let tasks = self.placements.get(&key);
        if let Some(cancel) = tasks.and_then(|tasks| tasks.attempts.get(&attempt)) {
            tracing::warn!(run = %key.run, %attempt, "step is given up by the server: it is stopped");
            cancel.cancel();
        }
    }

    fn clean_up(&mut self, key: PlacementKey) {
        if self.cleanup_keys.values().any(|cleaning| *cleaning == key) {
            // The server asks for what the shutdown does already.
            return;
        }
        let tasks = self.placements.remove(&key).unwrap_or_default();
        let leftovers = std::mem::take(&mut self.leftovers);
        let handle = self.cleanups.spawn(cleanup::clean_up(Arc::clone(&self.runner), key, tasks, leftovers));
        self.cleanup_keys.insert(handle.id(), key);
    }

    fn cleaned_up(&mut self, ended: Result<(Id, Leftovers), JoinError>) {
        let id = match ended {
            Ok((id, leftovers)) => {
                self.leftovers.extend(leftovers);
                id
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "clean-up failed");
                error.id()
            }
        };
        if let Some(key) = self.cleanup_keys.remove(&id) {
            self.apply(AgentEvent::CleanedUp(key));
        }
    }

    fn conditions_changed(&mut self) {
        let why = self.conditions.why();
        if why.is_none() {
            // What could not be removed while the engine was away does not wait for the next run.
            self.remove_leftovers();
        }
        self.apply(AgentEvent::Unavailable(why));
        // Whoever looks at the agents is to see it now.
        self.apply(AgentEvent::ReportDue);
    }

    fn remove_leftovers(&mut self) {
        if !self.leftovers.is_empty() {
            let leftovers = std::mem::take(&mut self.leftovers);
            self.cleanups.spawn(cleanup::remove_leftovers(Arc::clone(&self.runner), leftovers));
        }
    }

    /// Takes nothing new and stops everything.
    fn drain(&mut self) {
        self.apply(AgentEvent::Unavailable(Some("it is shutting down".to_owned())));
        let keys: Vec<PlacementKey> = self.placements.keys().copied().collect();
        tracing::info!(placements = keys.len(), "agent shuts down");
        keys.into_iter().for_each(|key| self.clean_up(key));
    }
}

/// Returns when a report is due; never without a stream.
pub(crate) async fn beat(uplink: &mut Option<(Uplink, Interval)>) {
    match uplink {
        Some((_, beats)) => {
            beats.tick().await;
        }
        None => std::future::pending().await,
    }
}
