//! The one transition function of a run: what each event does in each state.
//!
//! Owns events, effects and refusals. A refused event changes nothing; the caller decides what to answer to its sender.
//! How a step's result and a loss are worked into the state stands in `outcome`.

use cooper_spec::plan::{PlannedStep, PushedFrom};
use cooper_spec::task_request::KeptTexts;
use cooper_types::{AgentName, AttemptNumber, ContextId, Digest, Fence, PrincipalName, RepositoryName, Tag, Timestamp};

use super::task::{PlannedRun, SealedText};
use super::{AgentRef, Host, Lease, PendingReason, Phase, Placement, Policy, Run, StepState, Verdict};
use crate::message::{BaseImage, PlacementKey, PreparedSource, Resolved, StepResult};

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The scheduler chose an agent for a waiting placement.
    Offer {
        /// Index of the placement.
        placement: usize,
        /// Who is asked.
        agent: AgentRef,
    },
    /// The agent does not take it.
    Declined {
        /// Of which offer.
        fence: Fence,
        /// Why.
        why: String,
    },
    /// The agent takes it.
    Accepted {
        /// Which offer.
        fence: Fence,
        /// What the agent said of itself, for the run's lockfile.
        host: Option<Host>,
    },
    /// An attempt began on the agent.
    StepStarted {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
    },
    /// An attempt has resolved names.
    Resolved {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// What they stood for.
        resolved: Resolved,
    },
    /// An attempt ended.
    StepEnded {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// How.
        result: StepResult,
    },
    /// An attempt at the source of a task file ended well, and the shell planned what it found, or could not.
    SourcePlanned {
        /// Under which offer.
        fence: Fence,
        /// Which.
        attempt: AttemptNumber,
        /// What it found.
        found: Box<PreparedSource>,
        /// The plan, or why there is none.
        planned: Box<Result<PlannedRun, String>>,
    },
    /// The agent has nothing of the placement any more.
    Stopped {
        /// Of which offer.
        fence: Fence,
    },
    /// The agent is alive and holds the placement.
    Renewed {
        /// Which offer.
        fence: Fence,
    },
    /// A new life of an agent appeared: what its earlier lives held is lost.
    AgentReplaced {
        /// The new life.
        agent: AgentRef,
    },
    /// An agent was removed: what any life of it holds is lost.
    AgentRemoved {
        /// Its name.
        name: AgentName,
    },
    /// An agent's stream ended or is open again, while the agent lives on as far as anybody knows. The log says so.
    Stream {
        /// Which life of which agent.
        agent: AgentRef,
        /// Whether there is one now.
        open: bool,
    },
    /// Somebody wants the run to end.
    CancelRequested {
        /// Who.
        by: PrincipalName,
    },
    /// The scheduler says why a placement waits.
    Explained {
        /// Index of the placement.
        placement: usize,
        /// Why.
        reason: PendingReason,
    },
    /// The server was down, so nobody could renew: leases begin anew.
    ServerStarted,
    /// Time passed.
    Tick,
}

/// What follows from an event. The first group belongs into the transaction that stores the new state; the second
/// is sent after it, and may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An attempt is live from now on.
    AttemptBegan {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// Under which offer.
        fence: Fence,
    },
    /// An attempt is over. What it staged and was neither published nor kept is dropped.
    AttemptEnded {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
    },
    /// The staged tags of an attempt become real. Comes before the attempt's end.
    PublishTags {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What each staging tag stands for.
        targets: Vec<TagTarget>,
    },
    /// What a stage left stays until it expires: the attempt's end does not drop it. Comes before that end.
    KeepStaged {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What must be there.
        targets: Vec<TagTarget>,
    },
    /// What a build wrote under its cache's name in the embedded registry becomes real, if it wrote anything. Comes before
    /// the attempt's end.
    KeepCache {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// The repository.
        repository: RepositoryName,
        /// The cache's name in it.
        tag: Tag,
    },
    /// A build resolved these base images.
    BasesResolved {
        /// Index of the step.
        step: usize,
        /// The images.
        bases: Vec<BaseImage>,
    },
    /// An attempt has prepared the source: what it uploaded is the run's context. Comes before the attempt's end.
    Planned {
        /// Index of the step.
        step: usize,
        /// Which.
        attempt: AttemptNumber,
        /// What it says that it uploaded.
        context: ContextId,
        /// The digest that it says that has.
        digest: Digest,
        /// The bytes that it says that has.
        size: u64,
    },
    /// Secret texts of the plan that was made; they are deleted when the run ends.
    KeepSecrets(Vec<SealedText>),
    /// What the planning read, for those who run it again.
    KeepTexts(KeptTexts),
    /// A line of the run's log, from the service.
    LogLine(String),
    /// Output may be missing from here on.
    LogGap(String),
    /// The run is over: its secrets are deleted, its log is complete.
    Finished,

    /// Ask an agent.
    SendOffer {
        /// Who.
        agent: AgentRef,
        /// What.
        key: PlacementKey,
        /// Index of the placement.
        placement: usize,
    },
    /// Let an agent start an attempt.
    SendStart {
        /// Who.
        agent: AgentRef,
        /// Of what.
        key: PlacementKey,
        /// Which.
        attempt: AttemptNumber,
        /// Index of the step.
        step: usize,
    },
    /// Let an agent stop and clean up.
    SendStop {
        /// Who.
        agent: AgentRef,
        /// What.
        key: PlacementKey,
    },
}

/// What a staging tag stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTarget {
    /// The repository.
    pub repository: RepositoryName,
    /// What goes there.
    pub from: PushedFrom,
    /// The tag that the attempt pushes under.
    pub staging_tag: Tag,
    /// The tags that it stands for; a stage's stands for none.
    pub tags: Vec<Tag>,
    /// What the agent says that it left, where others are told to take that: a stage's, when it has ended.
    pub digest: Option<Digest>,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The run has been decided.
    #[error("the run is over")]
    Over,
    /// The offer is not the placement's newest, or nobody holds it.
    #[error("placement {0} is over")]
    StaleFence(Fence),
    /// The attempt is not live.
    #[error("attempt {0} is over")]
    StaleAttempt(AttemptNumber),
    /// The placement does not wait for an agent.
    #[error("the placement is not waiting")]
    NotWaiting,
    /// The state says already what the event says.
    #[error("nothing to do")]
    NothingToDo,
}

impl Run {
    /// Applies one event at a time of the store's clock.
    ///
    /// Total over states and events. On a refusal the run is unchanged.
    pub fn apply(&mut self, event: RunEvent, now: Timestamp, policy: &Policy) -> Result<Vec<Effect>, Refusal> {
        if matches!(self.phase, Phase::Finished { .. }) {
            return Err(Refusal::Over);
        }
        let mut effects = Vec::new();
        match event {
            RunEvent::Offer { placement, agent } => self.offer(placement, agent, now, policy, &mut effects)?,
            RunEvent::Declined { fence, why } => self.declined(fence, why)?,
            RunEvent::Accepted { fence, host } => self.accepted(fence, host, now, policy, &mut effects)?,
            RunEvent::StepStarted { fence, attempt } => self.step_started(fence, attempt, now, policy)?,
            RunEvent::Resolved { fence, attempt, resolved } => {
                let step = self.live_step(fence, attempt)?;
                self.resolved(step, resolved, &mut effects)?;
            }
            RunEvent::StepEnded { fence, attempt, result } => {
                let step = self.live_step(fence, attempt)?;
                self.step_ended(step, attempt, result, now, policy, &mut effects);
            }
            RunEvent::SourcePlanned { fence, attempt, found, planned } => {
                let step = self.live_step(fence, attempt)?;
                self.source_planned(step, attempt, *found, *planned, now, policy, &mut effects);
            }
            RunEvent::Stopped { fence } => self.stopped(fence, now, policy, &mut effects)?,
            RunEvent::Renewed { fence } => self.renewed(fence, now, policy)?,
            RunEvent::AgentReplaced { agent } => {
                let gone = |lease: &Lease| lease.agent.name == agent.name && lease.agent != agent;
                self.agent_gone(gone, "the agent was restarted", now, policy, &mut effects)?;
            }
            RunEvent::AgentRemoved { name } => {
                let gone = |lease: &Lease| lease.agent.name == name;
                self.agent_gone(gone, "the agent was removed", now, policy, &mut effects)?;
            }
            RunEvent::Stream { agent, open } => self.stream(&agent, open, now, &mut effects)?,
            RunEvent::CancelRequested { by } => match self.phase {
                Phase::Live => self.end_early(Verdict::Canceled { by }, now, policy, &mut effects),
                Phase::Ending { .. } | Phase::Finished { .. } => return Err(Refusal::Over),
            },
            RunEvent::Explained { placement, reason } => match self.placements.get_mut(placement) {
                Some(Placement::Waiting { reason: old }) if *old != reason => *old = reason,
                Some(Placement::Waiting { .. }) => return Err(Refusal::NothingToDo),
                _ => return Err(Refusal::NotWaiting),
            },
            RunEvent::ServerStarted => self.server_started(now, policy)?,
            RunEvent::Tick => self.tick(now, policy, &mut effects)?,
        }
        Ok(effects)
    }

    fn offer(
        &mut self,
        placement: usize,
        agent: AgentRef,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match self.placements.get(placement) {
            Some(Placement::Waiting { .. }) => {}
            _ => return Err(Refusal::NotWaiting),
        }
        self.last_fence.0 += 1;
        let fence = self.last_fence;
        let key = PlacementKey { run: self.id, fence };
        effects.push(Effect::SendOffer { agent: agent.clone(), key, placement });
        self.placements[placement] = Placement::Offered(Lease { agent, fence, until: now.after(policy.offer_lease) });
        Ok(())
    }

    fn declined(&mut self, fence: Fence, why: String) -> Result<(), Refusal> {
        let index = self.held_by(fence)?;
        // Once it was accepted, this is a late answer to a copy of the offer: the agent must not be told to stop.
        let Placement::Offered(lease) = &self.placements[index] else { return Err(Refusal::NothingToDo) };
        let reason = PendingReason::Declined { agent: lease.agent.name.clone(), why };
        self.placements[index] = Placement::Waiting { reason };
        Ok(())
    }

    fn accepted(
        &mut self,
        fence: Fence,
        host: Option<Host>,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let index = self.held_by(fence)?;
        let Placement::Offered(lease) = &self.placements[index] else { return Err(Refusal::NothingToDo) };
        // What it was offered for may have been set back by a loss in the meantime: it would hold a slot of the agent and
        // have nothing to do.
        let is_wanted =
            |step: usize| self.plan.steps[step].placement == index && self.steps[step].state == StepState::Waiting;
        if !self.losses.is_empty() && !self.has_work(index) && (0..self.steps.len()).any(is_wanted) {
            let key = PlacementKey { run: self.id, fence };
            effects.push(Effect::SendStop { agent: lease.agent.clone(), key });
            self.placements[index] = Placement::Waiting { reason: PendingReason::New };
            return Ok(());
        }
        let lease = Lease { until: now.after(policy.lease), ..lease.clone() };
        self.placements[index] = Placement::Accepted(lease);
        if let Some(host) = host {
            self.provenance.hosts.insert(index, host);
        }
        self.started.get_or_insert(now);
        self.go_on(now, policy, effects);
        Ok(())
    }

    fn step_started(
        &mut self,
        fence: Fence,
        attempt: AttemptNumber,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<(), Refusal> {
        let step = self.live_step(fence, attempt)?;
        let PlannedStep { placement, .. } = self.plan.steps[step];
        let patience = self.patience(&self.plan.steps[step], policy);
        match &mut self.steps[step].state {
            StepState::Running { started: started @ None, deadline, .. } => {
                *started = Some(now);
                *deadline = now.after(patience);
            }
            _ => return Err(Refusal::NothingToDo),
        }
        if let Placement::Accepted(lease) = &self.placements[placement] {
            self.placements[placement] = Placement::Running(lease.clone());
        }
        Ok(())
    }

    fn stopped(
        &mut self,
        fence: Fence,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let index = self.held_by(fence)?;
        match &self.placements[index] {
            Placement::Stopping(_) => self.placement_gone(index, now, effects),
            Placement::Offered(lease) => {
                let agent = lease.agent.name.clone();
                let reason = PendingReason::Declined { agent, why: "it stopped before it began".to_owned() };
                self.placements[index] = Placement::Waiting { reason };
            }
            Placement::Accepted(_) | Placement::Running(_) => {
                self.lose(index, "the agent was stopped", now, policy, effects);
            }
            Placement::Waiting { .. } | Placement::Done => return Err(Refusal::StaleFence(fence)),
        }
        Ok(())
    }

    /// A lease that is being stopped is never renewed: this is what makes a cancel final within a lease.
    fn renewed(&mut self, fence: Fence, now: Timestamp, policy: &Policy) -> Result<(), Refusal> {
        let index = self.held_by(fence)?;
        match &mut self.placements[index] {
            Placement::Accepted(lease) | Placement::Running(lease) => {
                let until = now.after(policy.lease);
                // Each renewal is a write; a fraction of the lease is worth none.
                if until.since(lease.until) < policy.lease / 8 {
                    return Err(Refusal::NothingToDo);
                }
                lease.until = until;
                Ok(())
            }
            _ => Err(Refusal::NothingToDo),
        }
    }

    fn agent_gone(
        &mut self,
        gone: impl Fn(&Lease) -> bool,
        reason: &str,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let mut changed = false;
        for index in 0..self.placements.len() {
            if self.placements[index].lease().is_some_and(&gone) {
                changed = true;
                self.lease_lost(index, reason, now, policy, effects);
            }
        }
        if changed { Ok(()) } else { Err(Refusal::NothingToDo) }
    }

    fn server_started(&mut self, now: Timestamp, policy: &Policy) -> Result<(), Refusal> {
        let mut changed = false;
        for placement in &mut self.placements {
            let (lease, duration) = match placement {
                Placement::Offered(lease) => (lease, policy.offer_lease),
                Placement::Accepted(lease) | Placement::Running(lease) => (lease, policy.lease),
                Placement::Stopping(_) | Placement::Waiting { .. } | Placement::Done => continue,
            };
            lease.until = now.after(duration);
            changed = true;
        }
        if !changed {
            return Err(Refusal::NothingToDo);
        }
        // A step may have ended in time while there was nobody to tell.
        for step in &mut self.steps {
            if let StepState::Running { deadline, .. } = &mut step.state {
                *deadline = now.after(policy.step_grace).max(*deadline);
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: Timestamp, policy: &Policy, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let mut changed = false;
        for index in 0..self.placements.len() {
            if self.placements[index].lease().is_some_and(|lease| lease.until <= now) {
                changed = true;
                let reason = format!("the agent was silent for {} s", policy.lease.as_secs());
                self.lease_lost(index, &reason, now, policy, effects);
            }
        }
        for step in 0..self.steps.len() {
            if self.phase == Phase::Live && self.never_began(step, now) {
                changed = true;
                let PlannedStep { placement, id, .. } = &self.plan.steps[step];
                let (placement, reason) = (*placement, format!("the agent did not begin step {id}"));
                self.lose(placement, &reason, now, policy, effects);
            }
        }
        if self.phase == Phase::Live
            && let Some(verdict) = self.overdue(now, policy)
        {
            changed = true;
            self.end_early(verdict, now, policy, effects);
        }
        if changed { Ok(()) } else { Err(Refusal::NothingToDo) }
    }

    /// Whether the passing of time changes anything: a [`RunEvent::Tick`] would not be refused.
    pub fn is_due(&self, now: Timestamp, policy: &Policy) -> bool {
        if matches!(self.phase, Phase::Finished { .. }) {
            return false;
        }
        let expired = |placement: &Placement| placement.lease().is_some_and(|lease| lease.until <= now);
        let late =
            || (0..self.steps.len()).any(|step| self.never_began(step, now)) || self.overdue(now, policy).is_some();
        self.placements.iter().any(expired) || (self.phase == Phase::Live && late())
    }

    fn never_began(&self, step: usize, now: Timestamp) -> bool {
        matches!(self.steps[step].state, StepState::Running { started: None, deadline, .. } if deadline <= now)
    }

    /// What ends a live run at this time, if anything.
    fn overdue(&self, now: Timestamp, policy: &Policy) -> Option<Verdict> {
        let late = self.steps.iter().zip(&self.plan.steps).find(|(step, _)| match step.state {
            StepState::Running { started: Some(_), deadline, .. } => deadline <= now,
            _ => false,
        });
        if let Some((_, planned)) = late {
            let reason = format!("step {} timed out after {} s", planned.id, planned.timeout.as_secs());
            return Some(Verdict::Failed { reason });
        }
        let waiting = self.pending_reason();
        if self.started.is_some_and(|started| started.after(self.timeout) <= now) {
            let timeout = self.timeout.as_secs();
            // Where an agent is missing, it was not the user's steps that took the time.
            return Some(waiting.map_or(Verdict::TimedOut, |waiting| Verdict::Error {
                reason: format!("the run's timeout of {timeout} s passed without an agent for all of it: {waiting}"),
            }));
        }
        // Other runs of its task end by themselves, and then it is this one's turn: no agent is missing.
        let waiting = waiting.filter(|reason| !matches!(reason, PendingReason::TaskBusy { .. }))?;
        // What waits may have been planned, or let go on, by a step that ended since.
        let ended = self.steps.iter().filter_map(|step| step.state.finished());
        let since = self.losses.last().map_or(self.created, |loss| loss.at);
        let since = ended.fold(since, Timestamp::max);
        (since.after(policy.queue_timeout) <= now).then(|| {
            let hours = policy.queue_timeout.as_secs() / 3600;
            Verdict::Error { reason: format!("no agent took the run within {hours} hours: {waiting}") }
        })
    }

    /// The index of the placement that is held under this fence.
    fn held_by(&self, fence: Fence) -> Result<usize, Refusal> {
        self.placements
            .iter()
            .position(|placement| placement.lease().is_some_and(|lease| lease.fence == fence))
            .ok_or(Refusal::StaleFence(fence))
    }

    /// The index of the step whose live attempt this is, held under this fence.
    fn live_step(&self, fence: Fence, attempt: AttemptNumber) -> Result<usize, Refusal> {
        let placement = self.held_by(fence)?;
        self.steps
            .iter()
            .zip(&self.plan.steps)
            .position(|(step, planned)| planned.placement == placement && step.state.live_attempt() == Some(attempt))
            .ok_or(Refusal::StaleAttempt(attempt))
    }
}
