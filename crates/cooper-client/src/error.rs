//! What can go wrong between a client and its server.

use cooper_api::problem::{Problem, ProblemCode};

use crate::CertificateFault;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke before the answer was whole.
    #[error("server {url} can't be reached")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What the network said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever answers can't show that it is the server.
    #[error("server {url} shows a certificate that is not trusted")]
    Certificate {
        /// The server's address.
        url: String,
        /// What is wrong with it.
        fault: CertificateFault,
        /// The same in words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server understood and said no.
    #[error("{problem}")]
    Refused {
        /// What it said.
        problem: Box<Problem>,
    },
    /// The answer makes no sense: another kind of server, or another version.
    #[error("server {url} gave an answer that is not understood: {reason}")]
    Protocol {
        /// The server's address.
        url: String,
        /// What is wrong with the answer.
        reason: String,
        /// Whether the same call may well succeed later, as with a proxy whose backend restarts.
        transient: bool,
    },
    /// The context is larger than the server takes.
    #[error("the packed context has {size} bytes and the server takes {max} at most")]
    ContextTooLarge {
        /// Size of the tar.gz in bytes.
        size: u64,
        /// The server's limit in bytes.
        max: u64,
    },
    /// The file to upload can't be read.
    #[error("packed context can't be read")]
    ReadContext(#[source] std::io::Error),
    /// The HTTP client itself can't be set up, for example because the machine has no root certificates.
    #[error("https client can't be set up")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// The server's refusal, if it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem } => Some(problem),
            _ => None,
        }
    }

    /// Whether the same call may succeed when it is simply repeated.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { problem } => {
                matches!(problem.code, ProblemCode::Unavailable | ProblemCode::TooManyRequests)
            }
            Self::Protocol { transient, .. } => *transient,
            Self::Certificate { .. } | Self::ContextTooLarge { .. } | Self::ReadContext(_) | Self::Setup(_) => false,
        }
    }
}
