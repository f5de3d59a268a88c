//! Errors of an agent as a whole, and errors as text.

use std::path::PathBuf;

use cooper_types::Platform;

use crate::connect::BadToken;

/// Why an agent cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The work folder cannot be used.
    #[error("work folder {} cannot be used", .path.display())]
    WorkDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses the work folder.
    #[error("work folder {} is in use by another agent: give each its own", .path.display())]
    WorkDirInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The token cannot be sent.
    #[error("the agent's token holds characters that no token has")]
    Token,
    /// No placement would ever be taken.
    #[error("an agent needs at least one slot")]
    NoSlots,
    /// The engine cannot do what the agent is to take work for.
    #[error("the engine can't run {platform}, only {}; name another --platform, or install its emulation", list(.has))]
    Platform {
        /// What was asked for.
        platform: Platform,
        /// What the engine can do.
        has: Vec<Platform>,
    },
}

impl From<BadToken> for AgentError {
    fn from(BadToken: BadToken) -> Self {
        Self::Token
    }
}

fn list(platforms: &[Platform]) -> String {
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An error with everything behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Some libraries repeat their source's text.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
