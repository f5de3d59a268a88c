//! What a run's log says of the connection to the agent that holds it. The state is the lease's: a stream more or less
//! changes nothing.

use cooper_types::Timestamp;

use super::{AgentRef, Effect, Placement, Refusal, Run};

impl Run {
    pub(super) fn stream(
        &self,
        agent: &AgentRef,
        open: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let leases = self.placements.iter().filter_map(|placement| match placement {
            Placement::Accepted(lease) | Placement::Running(lease) => Some(lease),
            Placement::Waiting { .. } | Placement::Offered(_) | Placement::Stopping(_) | Placement::Done => None,
        });
        let until = leases.filter(|lease| lease.agent == *agent).map(|lease| lease.until).max();
        let Some(until) = until else { return Err(Refusal::NothingToDo) };
        effects.push(Effect::LogLine(match open {
            true => format!("Agent '{agent}' is connected again"),
            false => {
                format!("The connection to agent '{agent}' is gone; waiting {} s for it", until.since(now).as_secs())
            }
        }));
        Ok(())
    }
}
