//! Failures of the machinery: an engine that is not there, does not answer, or cannot do what is asked.

use std::time::Duration;

/// A failure of the engine itself, never of what a user asked it to build.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The place of an engine is not one that can be used.
    #[error("container engine `{address}` is not a Unix socket: give its path, or `unix:///path`")]
    Address {
        /// What was given.
        address: String,
    },
    /// Nothing answers at the socket.
    #[error(
        "container engine at {socket} does not answer: start it (`systemctl start docker`, or `dockerd` as root), or \
         name the socket of another one"
    )]
    Unreachable {
        /// Path of the socket.
        socket: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The engine's socket may not be opened by this user.
    #[error("container engine at {socket} may not be used by this user: add it to the socket's group, or run as root")]
    Forbidden {
        /// Path of the socket.
        socket: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The engine lacks something that is needed.
    #[error("container engine {engine} lacks {missing}")]
    Unsupported {
        /// Name and version.
        engine: String,
        /// What is missing, and from which version on it is there.
        missing: String,
    },
    /// The engine answered with an error of its own.
    #[error("container engine refused to {operation}: {message}")]
    Refused {
        /// A verb phrase.
        operation: &'static str,
        /// The engine's words.
        message: String,
    },
    /// The engine's answer broke off or made no sense.
    #[error("container engine failed to {operation}")]
    Broken {
        /// A verb phrase.
        operation: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine's disk is full.
    #[error(
        "container engine has no space left on its disk ({message}): free some there, or give its build cache less with \
         --cache-budget"
    )]
    DiskFull {
        /// What could not be written, in the engine's words.
        message: String,
    },
    /// The engine did not answer in time.
    #[error("container engine took longer than {} s to {operation}", .after.as_secs_f32())]
    TimedOut {
        /// A verb phrase.
        operation: &'static str,
        /// The limit.
        after: Duration,
    },
}
