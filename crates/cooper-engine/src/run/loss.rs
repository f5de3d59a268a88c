//! What is lost with an agent or a failure of the machinery, and what is done again then.

use cooper_spec::plan::Work;
use cooper_types::Timestamp;

use super::{Effect, Loss, PendingReason, Placement, Policy, Run, StepState, Verdict};
use crate::message::PlacementKey;

impl Run {
    /// Something of the machinery failed under a held placement: it starts again, until there were too many losses.
    pub(super) fn lose(
        &mut self,
        placement: usize,
        reason: &str,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lease) = self.placements[placement].lease().cloned() else { return };
        let agent = lease.agent.name.clone();
        self.losses.push(Loss { at: now, placement, agent: agent.clone(), reason: reason.to_owned() });
        let count = self.losses.iter().filter(|loss| loss.placement == placement).count();
        effects.push(Effect::LogGap(format!(
            "agent {agent} lost the run ({reason}); loss {count} of {}: output may be missing here",
            policy.max_losses
        )));
        // Who uses something comes behind it: whether it is done again is known first.
        for index in (0..self.steps.len()).rev() {
            if self.plan.steps[index].placement != placement {
                continue;
            }
            if let StepState::Running { attempt, .. } = &self.steps[index].state {
                effects.push(Effect::AttemptEnded { step: index, attempt: *attempt });
            }
            if self.is_done_again(index) {
                self.steps[index].state = StepState::Waiting;
                self.set_back_stages(index);
            }
        }
        let key = PlacementKey { run: self.id, fence: lease.fence };
        effects.push(Effect::SendStop { agent: lease.agent, key });
        let reason = PendingReason::Lost { agent, why: reason.to_owned() };
        self.placements[placement] = Placement::Waiting { reason };
        if count >= policy.max_losses {
            let story: Vec<String> =
                self.losses.iter().map(|loss| format!("{} on {} at {}", loss.reason, loss.agent, loss.at)).collect();
            let reason = format!("lost {} times: {}", story.len(), story.join("; "));
            self.end_early(Verdict::Error { reason }, now, policy, effects);
        }
    }

    /// Whether a step of a placement that is lost has to be done again. Images and workspaces are on the lost agent.
    ///
    /// Pushes that completed are not repeated, nor is the source prepared anew: the server has it, and another clone may find
    /// another commit. An image that nobody is going to use any more is not built again: that could only fail.
    fn is_done_again(&self, step: usize) -> bool {
        let is_wanted = || self.users(step).any(|user| self.steps[user].state == StepState::Waiting);
        match (&self.steps[step].state, &self.plan.steps[step].work) {
            (StepState::Running { .. }, _) => true,
            (StepState::Succeeded { .. } | StepState::Failed { ignored: true, .. }, Work::Command(_)) => true,
            (StepState::Succeeded { .. } | StepState::Failed { ignored: true, .. }, Work::Build(_)) => is_wanted(),
            (StepState::Failed { ignored: true, .. }, Work::Push(push)) => push.is_stage && is_wanted(),
            (StepState::Succeeded { .. }, Work::Push(_) | Work::Prepare(_))
            | (StepState::Failed { ignored: true, .. }, Work::Prepare(_))
            | (
                StepState::Waiting
                | StepState::Failed { ignored: false, .. }
                | StepState::Cancelled { .. }
                | StepState::Skipped,
                _,
            ) => false,
        }
    }

    /// Sets back the stages of a build that is done again, for those who have not taken from them yet: what they push has
    /// to be what the run's other steps see from now on.
    fn set_back_stages(&mut self, build: usize) {
        let is_stage = |user: &usize| matches!(&self.plan.steps[*user].work, Work::Push(push) if push.is_stage);
        let is_wanted = |stage: &usize| self.users(*stage).any(|user| self.steps[user].state == StepState::Waiting);
        let stages: Vec<usize> = self.users(build).filter(is_stage).filter(is_wanted).collect();
        for stage in stages {
            if self.steps[stage].state.lets_go_on() {
                self.steps[stage].state = StepState::Waiting;
            }
        }
    }

    /// The steps that use what a step made.
    fn users(&self, step: usize) -> impl Iterator<Item = usize> {
        let later = self.plan.steps.iter().enumerate().skip(step + 1);
        later.filter(move |(_, planned)| planned.uses().contains(&step)).map(|(index, _)| index)
    }

    /// The agent of a placement is gone, in whatever state the placement is.
    pub(super) fn lease_lost(
        &mut self,
        placement: usize,
        reason: &str,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        match &self.placements[placement] {
            Placement::Offered(lease) => {
                let key = PlacementKey { run: self.id, fence: lease.fence };
                effects.push(Effect::SendStop { agent: lease.agent.clone(), key });
                let reason = PendingReason::NoAnswer { agent: lease.agent.name.clone() };
                self.placements[placement] = Placement::Waiting { reason };
            }
            Placement::Accepted(_) | Placement::Running(_) => self.lose(placement, reason, now, policy, effects),
            Placement::Stopping(_) => {
                effects.push(Effect::LogGap(format!("{reason} while it was stopping: output may be missing here")));
                self.placement_gone(placement, now, effects);
            }
            Placement::Waiting { .. } | Placement::Done => {}
        }
    }
}
