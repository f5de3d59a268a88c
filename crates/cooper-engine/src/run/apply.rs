//! The one transition function of a run: what each event does in each state.
//!
//! A refused event changes nothing; the caller decides what to answer to its sender. What can happen stands in `event`, how a
//! step's result is worked into the state in `outcome`, and how a loss is in `loss`.

use cooper_spec::plan::PlannedStep;
use cooper_types::{AttemptNumber, Fence, Timestamp};

use super::{
    AgentRef, Effect, Host, Lease, PendingReason, Phase, Placement, Policy, Refusal, Run, RunEvent, StepState, Verdict,
};
use crate::message::PlacementKey;

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
            RunEvent::Superseded { by } => match self.phase {
                Phase::Live => self.end_early(Verdict::Superseded { by }, now, policy, &mut effects),
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
        // What is left of these ends no run.
        for step in 0..self.steps.len() {
            if self.phase == Phase::Live && self.ran_over(step, now) {
                changed = true;
                self.give_up(step, now, policy, effects);
            }
        }
        if changed { Ok(()) } else { Err(Refusal::NothingToDo) }
    }

    /// Whether the passing of time changes anything: a [`RunEvent::Tick`] would not be refused.
    pub fn is_due(&self, now: Timestamp, policy: &Policy) -> bool {
        if matches!(self.phase, Phase::Finished { .. }) {
            return false;
        }
        let expired = |placement: &Placement| placement.lease().is_some_and(|lease| lease.until <= now);
        let is_late = |step| self.never_began(step, now) || self.ran_over(step, now);
        let late = || (0..self.steps.len()).any(is_late) || self.overdue(now, policy).is_some();
        self.placements.iter().any(expired) || (self.phase == Phase::Live && late())
    }

    fn never_began(&self, step: usize, now: Timestamp) -> bool {
        matches!(self.steps[step].state, StepState::Running { started: None, deadline, .. } if deadline <= now)
    }

    /// Whether a step's agent should have ended it by now.
    fn ran_over(&self, step: usize, now: Timestamp) -> bool {
        matches!(self.steps[step].state, StepState::Running { started: Some(_), deadline, .. } if deadline <= now)
    }

    /// What ends a live run at this time, if anything.
    fn overdue(&self, now: Timestamp, policy: &Policy) -> Option<Verdict> {
        let counts = |step: &usize| self.ran_over(*step, now) && !self.plan.steps[*step].ignore_errors;
        if let Some(late) = (0..self.steps.len()).find(counts) {
            let planned = &self.plan.steps[late];
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
