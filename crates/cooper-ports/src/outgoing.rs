//! Requests to places that users name: forges, endpoints of notifications.
//!
//! The adapter decides where a request may go: it resolves a name once, checks the address, and checks redirects anew. A
//! caller that goes through this port can't be led to an address that the operator has not allowed.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

/// A request, and how much of an answer is taken.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    /// The request with an absolute URI. Its `Authorization` is sent to that host alone. Redirects are followed for GET and
    /// HEAD; another method's is an error that names the new place.
    pub request: Request<Bytes>,
    /// The largest body of an answer, in bytes.
    pub body_limit: usize,
    /// How long everything may take.
    pub deadline: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// The place is not one to go to, or it can't be reached.
    #[error("can't reach `{host}`")]
    Unreachable {
        /// The host.
        host: String,
        /// What whoever named the place may be told of that.
        told: String,
        /// What the client says.
        source: Box<dyn Error + Send + Sync>,
        /// Whether the same request may succeed later without anybody changing anything.
        transient: bool,
    },
    /// The answer did not end in time.
    #[error("`{host}` did not answer within {} s", deadline.as_secs())]
    Late {
        /// The host.
        host: String,
        /// The time it had.
        deadline: Duration,
    },
    /// The answer is too large.
    #[error("`{host}` answers with more than {limit} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit: usize,
    },
}

impl OutgoingError {
    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { transient, .. } => *transient,
            Self::Late { .. } => true,
            Self::TooLarge { .. } => false,
        }
    }

    /// What whoever named the place may be told: neither where its name leads nor what is said there.
    pub fn told(&self) -> String {
        match self {
            Self::Unreachable { told, .. } => told.clone(),
            Self::Late { .. } | Self::TooLarge { .. } => self.to_string(),
        }
    }
}

/// The client for such requests.
#[async_trait]
pub trait Outgoing: Send + Sync {
    /// Sends a request, and takes the whole answer, whatever its status.
    async fn send(&self, request: OutgoingRequest) -> Result<Response<Bytes>, OutgoingError>;
}
