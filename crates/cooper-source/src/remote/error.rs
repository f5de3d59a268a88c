//! Why an archive or an artifact is no source: whose trouble it is, and what to do about it.

use std::error::Error;
use std::io;

use cooper_spec::ignore::IgnoreError;

use crate::egress::EgressError;
use crate::unpack::UnpackError;

/// Why a source was not fetched. None repeats a URL's query or a credential.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No answer.
    #[error("can't fetch {what}")]
    Request {
        /// What was asked for.
        what: String,
        /// What happened.
        #[source]
        source: EgressError,
    },
    /// An answer that is none.
    #[error("can't fetch {what}: `{host}` answers {status}{}", after_colon(.said))]
    Status {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// The status.
        status: u16,
        /// The beginning of the first line of its answer.
        said: String,
    },
    /// The host wants a credential, and there is none, or not the right one.
    #[error("can't fetch {what}: `{host}` {}", wants(*.shown))]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// Whether one was shown.
        shown: bool,
    },
    /// The credential can't be had.
    #[error("can't ask for the credential for `{host}`")]
    Credential {
        /// The host.
        host: String,
        /// What happened.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Too many bytes.
    #[error("{what} has more than {limit} bytes, which is this agent's limit")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// How many are allowed.
        limit: u64,
    },
    /// What came is no archive that is taken.
    #[error("{what} can't be unpacked")]
    Unpack {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        #[source]
        source: UnpackError,
    },
    /// What a registry says makes no sense.
    #[error("{what} is no artifact that can be a source: {why}")]
    Artifact {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Other bytes than were named.
    #[error("{what} has other bytes than its digest {digest} says; fetch it again, or ask its registry's operator")]
    Digest {
        /// What was asked for.
        what: String,
        /// What it should be.
        digest: String,
    },
    /// The subdirectory is not there.
    #[error("{what} has no directory `{path}`{}", in_brackets(.hint))]
    NoSubdirectory {
        /// The source.
        what: String,
        /// The directory.
        path: String,
        /// What may have been meant.
        hint: String,
    },
    /// The Dockerfile is not there.
    #[error("{what} has no file `{path}`{}; name the Dockerfile with --file", in_brackets(.hint))]
    NoDockerfile {
        /// The source.
        what: String,
        /// Its path.
        path: String,
        /// What may have been meant.
        hint: String,
    },
    /// The ignore file can't be followed.
    #[error(transparent)]
    Ignore(#[from] IgnoreError),
    /// The ignore file is no text.
    #[error("`{path}` is not UTF-8 text")]
    IgnoreNotText {
        /// The file.
        path: String,
    },
    /// A file that was to be read is too long.
    #[error("`{path}` has more than {limit} bytes")]
    FileTooLarge {
        /// The file.
        path: String,
        /// How many are allowed.
        limit: u64,
    },
    /// The agent's disk.
    #[error("can't keep the source on the agent's disk")]
    Disk {
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Nobody wants it any more.
    #[error("fetching the source was cancelled")]
    Cancelled,
}

impl RemoteError {
    /// Whether the same fetch may succeed a moment later without anybody changing anything: the network's trouble, or
    /// the host's.
    pub fn is_transient(&self) -> bool {
        match self {
            // Who listens nowhere is as little there as who has no address.
            Self::Request { source: EgressError::RefusesConnections { .. }, .. } => false,
            Self::Request { source, .. } => source.is_transient(),
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::Unpack { .. }
            | Self::Credential { .. }
            | Self::Disk { .. }
            | Self::Cancelled
            | Self::Unauthorized { .. }
            | Self::TooLarge { .. }
            | Self::Artifact { .. }
            | Self::Digest { .. }
            | Self::NoSubdirectory { .. }
            | Self::NoDockerfile { .. }
            | Self::Ignore(_)
            | Self::IgnoreNotText { .. }
            | Self::FileTooLarge { .. } => false,
        }
    }

    /// Whether it is the trouble of the machine that fetches, or of who knows the credentials, and of no source.
    pub fn is_fetchers_own(&self) -> bool {
        match self {
            Self::Request { source, .. } => matches!(source, EgressError::Setup { .. }),
            Self::Unpack { source, .. } => !source.is_in_archive(),
            Self::Credential { .. } | Self::Disk { .. } => true,
            Self::Status { .. }
            | Self::Cancelled
            | Self::Unauthorized { .. }
            | Self::TooLarge { .. }
            | Self::Artifact { .. }
            | Self::Digest { .. }
            | Self::NoSubdirectory { .. }
            | Self::NoDockerfile { .. }
            | Self::Ignore(_)
            | Self::IgnoreNotText { .. }
            | Self::FileTooLarge { .. } => false,
        }
    }

    /// The error with everything behind it, in a line.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut next = Error::source(self);
        while let Some(cause) = next {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            next = cause.source();
        }
        line
    }
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn wants(shown: bool) -> &'static str {
    if shown { "does not take the stored credential" } else { "wants a credential" }
}
