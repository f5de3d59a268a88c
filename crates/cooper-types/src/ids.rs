//! Small identifiers: names that people choose and numbers that the system hands out.

use std::fmt;

use crate::parsed::text_form;

/// Why a text is not an identifier of the kind that was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} `{text}` must be 1 to {max} characters of {allowed}")]
pub struct IdError {
    kind: &'static str,
    text: String,
    max: usize,
    allowed: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            #[doc = concat!("Parses ", $kind, ": 1 to ", stringify!($max), " characters of ", $allowed, ".")]
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let check: fn(char) -> bool = $check;
                if text.is_empty() || text.len() > $max || !text.chars().all(check) {
                    let text = text.chars().take(160).collect();
                    return Err(IdError { kind: $kind, text, max: $max, allowed: $allowed });
                }
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_form!($name, IdError);
    };
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

name_type!(
    /// A step's id: unique in its run, a container and DNS name later on.
    StepId, "step id", 128, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// A volume of a task: what steps mount, and a directory's name later on.
    VolumeName, "volume name", 64, "letters, digits, `-` and `_`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
);
name_type!(
    /// A network of a task, as its steps name it.
    NetworkName, "network name", 64, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// The name that an agent gives itself, unique among the agents of a registry.
    AgentName, "agent name", 64, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// A named set of agents.
    PoolName, "pool name", 64, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// Who acts: the name that a token speaks for.
    PrincipalName, "principal name", 64, "letters, digits, `-`, `_`, `.` and `@`", |c| is_name(c) || c == '@'
);
name_type!(
    /// The public half of an access token.
    TokenId, "token id", 40, "lower-case letters and digits", |c| c.is_ascii_lowercase() || c.is_ascii_digit()
);
name_type!(
    /// An uploaded context: opaque, bound to the principal that uploaded it.
    ContextId, "context id", 40, "lower-case letters, digits and `-`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
name_type!(
    /// A secret that the server keeps for tasks, or one of an outside vault.
    SecretName, "secret name", 127, "lower-case letters, digits, `-` and `_`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
);
name_type!(
    /// A timer of a stored task, unique in it.
    TimerName, "timer name", 64, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// A webhook, unique in its registry without regard to case.
    WebhookName, "webhook name", 50, "letters, digits, `-` and `_`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
);
name_type!(
    /// An event that is told to others: the same however often it is sent.
    EventId, "event id", 40, "lower-case letters, digits and `-`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);
name_type!(
    /// A trigger of a stored task, unique among those of its kind.
    TriggerName, "trigger name", 64, "letters, digits, `-`, `_` and `.`", is_name
);
name_type!(
    /// Where a forge sends what happened, for one task: random, and known to whom it was told alone.
    HookId, "hook id", 32, "hexadecimal digits in lower case", |c| c.is_ascii_digit() || ('a'..='f').contains(&c)
);
name_type!(
    /// A client's name for one request to create something, so that a repeat creates nothing more.
    IdempotencyKey, "idempotency key", 128, "visible ASCII characters", |c| c.is_ascii_graphic()
);

impl PoolName {
    /// The pool that always exists, and that is meant where none is named.
    pub fn default_pool() -> Self {
        Self("default".into())
    }
}

/// Which registry a row belongs to. There is one today; every table is keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegistryId(pub i64);

/// Numbers the placements of one run: each offer gets the next, and only the newest of a placement may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// Numbers the attempts at the steps of one run: a step has at most one live attempt, and writes carry its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct AttemptNumber(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
