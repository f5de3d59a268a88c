//! What an agent should be told when it says what it holds: the repair of every message that was lost on the way.

use cooper_types::AttemptNumber;

use super::{AgentRef, Effect, Placement, Run};
use crate::message::{Held, PlacementKey};

impl Run {
    /// What `agent` has to be told about this run again, given what it says it holds of it.
    ///
    /// Safe to say twice: agents ignore what they know. Nothing is concluded from what an agent does *not* hold, because
    /// its report may be older than what was sent to it; a placement that it really forgot is not renewed and expires.
    pub fn remind(&self, agent: &AgentRef, held: &[Held]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for report in held.iter().filter(|report| report.key.run == self.id) {
            let live = self.placements.iter().any(|placement| match placement {
                Placement::Offered(lease) | Placement::Accepted(lease) | Placement::Running(lease) => {
                    lease.fence == report.key.fence && lease.agent == *agent
                }
                Placement::Stopping(_) | Placement::Waiting { .. } | Placement::Done => false,
            });
            if !live {
                effects.push(Effect::SendStop { agent: agent.clone(), key: report.key });
            }
        }
        for (index, placement) in self.placements.iter().enumerate() {
            let Some(lease) = placement.lease().filter(|lease| lease.agent == *agent) else { continue };
            let key = PlacementKey { run: self.id, fence: lease.fence };
            let report = held.iter().find(|report| report.key == key);
            match (placement, report) {
                (Placement::Offered(_), None) => {
                    effects.push(Effect::SendOffer { agent: agent.clone(), key, placement: index });
                }
                (Placement::Accepted(_) | Placement::Running(_), Some(report)) => {
                    let live: Vec<_> = self.live_attempts_of(index).collect();
                    for attempt in report.attempts.iter().copied() {
                        // An agent hears of an attempt when it is live, and not before.
                        if live.iter().all(|(_, other)| *other != attempt) {
                            effects.push(Effect::SendResultStored { agent: agent.clone(), key, attempt });
                        }
                    }
                    for (step, attempt) in live {
                        if !report.attempts.contains(&attempt) {
                            effects.push(Effect::SendStart { agent: agent.clone(), key, attempt, step });
                        }
                    }
                }
                (Placement::Stopping(_), None) => effects.push(Effect::SendStop { agent: agent.clone(), key }),
                _ => {}
            }
        }
        effects
    }

    fn live_attempts_of(&self, placement: usize) -> impl Iterator<Item = (usize, AttemptNumber)> {
        self.steps
            .iter()
            .zip(&self.plan.steps)
            .enumerate()
            .filter(move |(_, (_, planned))| planned.placement == placement)
            .filter_map(|(index, (step, _))| Some((index, step.state.live_attempt()?)))
    }
}
