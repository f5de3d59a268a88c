//! Which version of the protocol a server and an agent speak with each other, and whether the agent gets work.
//!
//! Fields of messages are only ever added, so a new version means that something has changed its meaning. A server serves
//! its own version and the one before, so that servers can be upgraded before their agents. The version before those it
//! still understands, for agents that hold something: they end it, get nothing new, and are refused when they are through.

use super::PROTOCOL_VERSION;

/// The capability of agents that use images which others left in a registry for a run: bases of other placements, and
/// indexes. Agents older than it would take such names for names in registries.
pub const TAKES_IMAGES: &str = "takes-images";

/// The most capabilities that a server hears of an agent: what its engine can do, and what its operator allows.
pub const MAX_CAPABILITIES: usize = 64;

/// The versions that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpokenByServer {
    /// The newest.
    pub newest: u32,
    /// The oldest in which agents get work.
    pub served: u32,
    /// The oldest in which agents may end what they hold.
    pub drained: u32,
}

/// The versions that an agent speaks, as it says in its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpokenByAgent {
    /// The newest.
    pub newest: u32,
    /// The oldest; 0 is the same as the newest.
    pub oldest: u32,
}

/// What a server and an agent agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the stream.
    pub version: u32,
    /// The agent may only end what it holds.
    pub drains: bool,
}

/// Why they can't speak with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The agent is too old.
    #[error("agent speaks protocol {agent} and the server {served} to {newest}: upgrade the agent")]
    AgentTooOld {
        /// The agent's newest version.
        agent: u32,
        /// The oldest in which the server gives work.
        served: u32,
        /// The server's newest version.
        newest: u32,
    },
    /// The server is too old.
    #[error("agent speaks protocol {oldest} to {agent} and the server up to {newest}: upgrade the server")]
    ServerTooOld {
        /// The agent's oldest version.
        oldest: u32,
        /// The agent's newest version.
        agent: u32,
        /// The server's newest version.
        newest: u32,
    },
}

impl SpokenByServer {
    /// What this build's server speaks.
    pub const THIS: Self = Self::up_to(PROTOCOL_VERSION);

    /// What a server of this version speaks.
    pub const fn up_to(newest: u32) -> Self {
        Self { newest, served: before(newest, 1), drained: before(newest, 2) }
    }

    /// The newest version that both speak.
    pub fn agree(self, agent: SpokenByAgent) -> Result<Agreed, HandshakeError> {
        let SpokenByAgent { newest: agent, oldest } = agent;
        let oldest = if oldest == 0 { agent } else { oldest.min(agent) };
        let version = agent.min(self.newest);
        if version < self.drained {
            return Err(self.too_old(agent));
        }
        if version < oldest {
            return Err(HandshakeError::ServerTooOld { oldest, agent, newest: self.newest });
        }
        Ok(Agreed { version, drains: version < self.served })
    }

    /// What an agent of an older version is told that is not served, or not any more.
    pub fn too_old(self, agent: u32) -> HandshakeError {
        HandshakeError::AgentTooOld { agent, served: self.served, newest: self.newest }
    }
}

impl SpokenByAgent {
    /// What this build's agent speaks: its own version and the one before, for a server that is upgraded later.
    pub const THIS: Self = Self { newest: PROTOCOL_VERSION, oldest: before(PROTOCOL_VERSION, 1) };

    /// Whether a server's answer names a version that the agent speaks.
    pub fn takes(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

/// An earlier version; 1 is the first.
const fn before(version: u32, steps: u32) -> u32 {
    if version > steps { version - steps } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_speak_the_newest_that_both_know() {
        let check = |server: u32, newest: u32, oldest: u32, expect: Result<(u32, bool), &str>| {
            let agreed = SpokenByServer::up_to(server).agree(SpokenByAgent { newest, oldest });
            let agreed = agreed.map(|agreed| (agreed.version, agreed.drains)).map_err(|error| error.to_string());
            assert_eq!(agreed, expect.map_err(str::to_owned), "server {server}, agent {oldest} to {newest}");
        };
        check(1, 1, 1, Ok((1, false)));
        check(1, 1, 0, Ok((1, false)));
        check(1, 2, 1, Ok((1, false)));
        check(1, 2, 0, Err("agent speaks protocol 2 to 2 and the server up to 1: upgrade the server"));
        check(1, 3, 2, Err("agent speaks protocol 2 to 3 and the server up to 1: upgrade the server"));
        check(1, 0, 0, Err("agent speaks protocol 0 and the server 1 to 1: upgrade the agent"));
        check(2, 1, 1, Ok((1, false)));
        check(5, 5, 4, Ok((5, false)));
        check(5, 4, 4, Ok((4, false)));
        check(5, 3, 3, Ok((3, true)));
        check(5, 2, 1, Err("agent speaks protocol 2 and the server 4 to 5: upgrade the agent"));
        check(5, 6, 5, Ok((5, false)));
        check(5, 7, 6, Err("agent speaks protocol 6 to 7 and the server up to 5: upgrade the server"));
        check(5, u32::MAX, 9, Err("agent speaks protocol 9 to 4294967295 and the server up to 5: upgrade the server"));
    }

    #[test]
    fn an_agent_takes_what_it_speaks() {
        assert!(SpokenByAgent::THIS.takes(PROTOCOL_VERSION));
        assert!(!SpokenByAgent::THIS.takes(PROTOCOL_VERSION + 1) && !SpokenByAgent::THIS.takes(0));
        assert!(SpokenByServer::THIS.agree(SpokenByAgent::THIS).is_ok_and(|agreed| !agreed.drains));
    }
}
