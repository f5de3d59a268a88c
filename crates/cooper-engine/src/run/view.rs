//! What a run shows of itself: ACR's statuses (contract §5.2) and the lines that close a log.

use std::fmt;

use cooper_spec::plan::PlannedStep;
use cooper_types::Timestamp;

use super::{AgentRef, PendingReason, Phase, Placement, Policy, Run, Step, StepState, Verdict};
use crate::schedule::Limit;

/// A run's status, in ACR's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunStatus {
    /// No agent has taken it yet.
    Queued,
    /// An agent has taken it and no step has begun.
    Started,
    /// A step has begun.
    Running,
    /// All steps succeeded.
    Succeeded,
    /// A step failed.
    Failed,
    /// Somebody cancelled it.
    Canceled,
    /// The machinery failed.
    Error,
    /// The run's timeout passed.
    Timeout,
}

/// A step's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepStatus {
    /// Not begun.
    Waiting,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Failed by the user's own doing.
    Failed,
    /// Stopped because the run ended.
    Canceled,
    /// Never begun.
    Skipped,
}

impl RunStatus {
    /// All statuses.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Started,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Error,
        Self::Timeout,
    ];

    /// ACR's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Started => "Started",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Error => "Error",
            Self::Timeout => "Timeout",
        }
    }

    /// The status of this name, in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text))
    }

    /// Whether a run of this status will never change again.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Started | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Canceled | Self::Error | Self::Timeout => true,
        }
    }
}

impl StepStatus {
    /// The spelling in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Skipped => "Skipped",
        }
    }
}

impl StepState {
    /// What a record says.
    pub fn status(&self) -> StepStatus {
        match self {
            Self::Waiting => StepStatus::Waiting,
            Self::Running { .. } => StepStatus::Running,
            Self::Succeeded { .. } => StepStatus::Succeeded,
            // In ACR's words (contract §1.4), a step whose errors are ignored is successful.
            Self::Failed { ignored: true, .. } => StepStatus::Succeeded,
            Self::Failed { ignored: false, .. } => StepStatus::Failed,
            Self::Cancelled { .. } => StepStatus::Canceled,
            Self::Skipped => StepStatus::Skipped,
        }
    }

    /// When the newest attempt began.
    pub fn began(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting | Self::Skipped => None,
            Self::Running { released, started, .. } => Some(started.unwrap_or(*released)),
            Self::Succeeded { started, .. } | Self::Failed { started, .. } | Self::Cancelled { started, .. } => {
                Some(*started)
            }
        }
    }

    /// When the step ended.
    pub fn finished(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting | Self::Skipped | Self::Running { .. } => None,
            Self::Succeeded { finished, .. } | Self::Failed { finished, .. } | Self::Cancelled { finished, .. } => {
                Some(*finished)
            }
        }
    }
}

impl Verdict {
    /// The status that it gives a run.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Succeeded => RunStatus::Succeeded,
            Self::Failed { .. } => RunStatus::Failed,
            Self::Canceled { .. } | Self::Superseded { .. } => RunStatus::Canceled,
            Self::TimedOut => RunStatus::Timeout,
            Self::Error { .. } => RunStatus::Error,
        }
    }
}

/// What a step waits for before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepWait<'a> {
    /// The steps that have to be done first, and are not.
    pub steps: Vec<usize>,
    /// Where no agent has its placement.
    pub agent: Option<AgentWait<'a>>,
}

/// How it stands with the agent that a placement needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentWait<'a> {
    /// None is asked, and why.
    Pending(&'a PendingReason),
    /// This one has not answered yet.
    Asked(&'a AgentRef),
}

impl fmt::Display for AgentWait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(reason) => reason.fmt(f),
            Self::Asked(agent) => write!(f, "agent `{}` is asked", agent.name),
        }
    }
}

impl Run {
    /// The run's status. It never goes back: a run that was lost and waits again stays `Running`.
    pub fn status(&self) -> RunStatus {
        match &self.phase {
            Phase::Finished { verdict, .. } => verdict.status(),
            Phase::Live | Phase::Ending { .. } => {
                let begun = |step: &Step| match step.state {
                    StepState::Waiting | StepState::Running { started: None, .. } => false,
                    StepState::Running { started: Some(_), .. }
                    | StepState::Succeeded { .. }
                    | StepState::Failed { .. }
                    | StepState::Cancelled { .. }
                    | StepState::Skipped => true,
                };
                if self.started.is_none() {
                    RunStatus::Queued
                } else if self.losses.is_empty() && !self.steps.iter().any(begun) {
                    RunStatus::Started
                } else {
                    RunStatus::Running
                }
            }
        }
    }

    /// Its priority: the higher goes first.
    pub fn priority(&self) -> i32 {
        self.origin.priority()
    }

    /// Whether an agent has had it, or is asked to: it counts for the limit of its task then.
    pub fn has_begun(&self) -> bool {
        let is_waiting = |placement: &Placement| matches!(placement, Placement::Waiting { .. });
        self.started.is_some() || !self.placements.iter().all(is_waiting)
    }

    /// What it counts for among its task's runs, and the limit of that, if there is one.
    pub fn task_limit(&self) -> Option<Limit> {
        self.origin.limit()
    }

    /// Until when a placement pauses after its last loss.
    pub fn pause_ends(&self, placement: usize, policy: &Policy) -> Option<Timestamp> {
        let mut losses = 0;
        let own = self.losses.iter().filter(|loss| loss.placement == placement);
        let last = own.inspect(|_| losses += 1).last()?;
        Some(last.at.after(policy.loss_pause * 4_u32.saturating_pow(losses - 1)))
    }

    /// When the run ended.
    pub fn finished(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Finished { at, .. } => Some(*at),
            Phase::Live | Phase::Ending { .. } => None,
        }
    }

    /// Why the run waits for an agent, if it does.
    pub fn pending_reason(&self) -> Option<&PendingReason> {
        if self.phase != Phase::Live {
            return None;
        }
        self.placements.iter().enumerate().find_map(|(index, placement)| match placement {
            Placement::Waiting { reason } if self.has_work(index) => Some(reason),
            _ => None,
        })
    }

    /// Whether a placement has a step that runs or could: one without waits for steps of other placements.
    ///
    /// Only one with work is offered to an agent, and takes a slot of it. Otherwise runs with several placements could hold
    /// each other's slots, or their own, and wait for ever. A run without any steps is done as soon as an agent has taken it.
    pub fn has_work(&self, placement: usize) -> bool {
        if self.steps.is_empty() {
            return true;
        }
        let mut own = self.steps.iter().zip(&self.plan.steps).filter(|(_, planned)| planned.placement == placement);
        own.any(|(step, planned)| match step.state {
            StepState::Running { .. } => true,
            StepState::Waiting => self.can_begin(planned),
            StepState::Succeeded { .. }
            | StepState::Failed { .. }
            | StepState::Cancelled { .. }
            | StepState::Skipped => false,
        })
    }

    /// Whether what a step waits for is there. What it uses counts too: a loss may have taken an image that was there when
    /// the steps between them went on.
    pub(super) fn can_begin(&self, planned: &PlannedStep) -> bool {
        planned.after.iter().chain(&planned.uses()).all(|step| self.steps[*step].state.lets_go_on())
    }

    /// The agents' slots that the run's placements take, one for each that has work, is offered, or is being stopped.
    pub fn slots(&self) -> impl Iterator<Item = &AgentRef> {
        self.placements.iter().enumerate().filter_map(|(index, placement)| match placement {
            Placement::Offered(lease) | Placement::Stopping(lease) => Some(&lease.agent),
            Placement::Accepted(lease) | Placement::Running(lease) => self.has_work(index).then_some(&lease.agent),
            Placement::Waiting { .. } | Placement::Done => None,
        })
    }

    /// Why a step has not begun, if it is going to.
    pub fn waiting(&self, step: usize) -> Option<StepWait<'_>> {
        if self.phase != Phase::Live || self.steps[step].state != StepState::Waiting {
            return None;
        }
        let planned = &self.plan.steps[step];
        let steps: Vec<usize> =
            planned.after.iter().copied().filter(|step| !self.steps[*step].state.lets_go_on()).collect();
        // As long as other steps have to be done first, its placement may not even be looking for an agent.
        let agent = match &self.placements[planned.placement] {
            Placement::Waiting { reason } if steps.is_empty() => Some(AgentWait::Pending(reason)),
            Placement::Offered(lease) if steps.is_empty() => Some(AgentWait::Asked(&lease.agent)),
            Placement::Waiting { .. } | Placement::Offered(_) => None,
            Placement::Accepted(_) | Placement::Running(_) | Placement::Stopping(_) | Placement::Done => None,
        };
        Some(StepWait { steps, agent })
    }

    /// What went wrong, in a line, once the run is decided.
    pub fn error_message(&self) -> Option<String> {
        let (Phase::Ending { verdict } | Phase::Finished { verdict, .. }) = &self.phase else { return None };
        match verdict {
            Verdict::Succeeded => None,
            Verdict::Failed { reason } | Verdict::Error { reason } => Some(reason.clone()),
            Verdict::Canceled { by } => Some(format!("canceled by {by}")),
            Verdict::Superseded { by } => Some(format!("superseded by run {by}")),
            Verdict::TimedOut => Some(format!("the run took longer than its timeout of {} s", self.timeout.as_secs())),
        }
    }

    /// The log's last line, in ACR's words (contract §5.3).
    pub(super) fn closing_line(&self, now: Timestamp) -> String {
        let seconds = now.since(self.started.unwrap_or(self.created)).as_secs();
        let id = self.id;
        match (self.status(), self.error_message()) {
            (RunStatus::Succeeded, _) => format!("Run ID: {id} was successful after {seconds}s"),
            (RunStatus::Canceled, message) => {
                format!("Run ID: {id} was canceled after {seconds}s ({})", message.unwrap_or_default())
            }
            (RunStatus::Timeout, message) => {
                format!("Run ID: {id} timed out after {seconds}s. Error: {}", message.unwrap_or_default())
            }
            (_, message) => format!("Run ID: {id} failed after {seconds}s. Error: {}", message.unwrap_or_default()),
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
