//! What a step may only ask for where the operator of an agent allows it.

use std::fmt;

/// What an agent says of itself begins with this where it tells what it allows.
const ALLOWS: &str = "allows:";
const PRIVILEGED: &str = "privileged";
const NETWORK: &str = "network=";

/// Something of an agent's machine that its operator has to allow before a step has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leave {
    /// Containers with all privileges.
    Privileged,
    /// A network of the engine's, by its name; `host` is the machine's own.
    Network(String),
}

impl Leave {
    /// The most networks that an agent may allow. It tells of each in its greeting, which has room for so many things, and what
    /// the server does not hear of is given to nobody.
    pub const MAX_NETWORKS: usize = 48;

    /// What an agent says that allows this.
    pub fn capability(&self) -> String {
        match self {
            Self::Privileged => format!("{ALLOWS}{PRIVILEGED}"),
            Self::Network(name) => format!("{ALLOWS}{NETWORK}{name}"),
        }
    }

    /// What an agent allows, if what it says is of that kind; nothing of what later releases may know.
    pub fn of_capability(text: &str) -> Option<Self> {
        match text.strip_prefix(ALLOWS)? {
            PRIVILEGED => Some(Self::Privileged),
            other => Some(Self::Network(other.strip_prefix(NETWORK)?.to_owned())),
        }
    }
}

impl fmt::Display for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileged => f.write_str("`privileged`"),
            Self::Network(name) => write!(f, "network `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_says_is_read_back() {
        for leave in [Leave::Privileged, Leave::Network("host".to_owned()), Leave::Network("a=b:c".to_owned())] {
            assert_eq!(Leave::of_capability(&leave.capability()), Some(leave));
        }
        for other in ["takes-images", "allows:", "allows:devices", "privileged"] {
            assert_eq!(Leave::of_capability(other), None, "{other}");
        }
    }
}
