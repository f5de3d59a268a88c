//! What forges refuse, and what to do about it.

use std::fmt;
use std::time::Duration;

use cooper_engine::trigger::provider::Provider;
use cooper_ports::outgoing::OutgoingError;
use cooper_types::Timestamp;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To set a commit's status.
    SetStatus,
    /// To register or remove a hook.
    ChangeHooks,
    /// To list hooks.
    ReadHooks,
    /// To list pull requests.
    ReadPullRequests,
}

/// When a forge may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAt {
    /// At this time.
    At(Timestamp),
    /// After this long.
    After(Duration),
    /// It does not say.
    Unknown,
}

/// Why a forge did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// No answer came.
    #[error("can't {operation} at {host}")]
    Outgoing {
        /// What was asked for.
        operation: Operation,
        /// The forge's host.
        host: String,
        /// Why.
        #[source]
        source: OutgoingError,
    },
    /// The token is not known.
    #[error("{host} does not take the token (401): it is wrong, expired or revoked; make one with {needs}")]
    Token {
        /// The forge's host.
        host: String,
        /// What the token must be allowed to do.
        needs: &'static str,
    },
    /// The token may not do this.
    #[error("{host} does not let the token {operation} for {repository} (403): {said}; it needs {needs}")]
    Forbidden {
        /// What was asked for.
        operation: Operation,
        /// The forge's host.
        host: String,
        /// The repository.
        repository: String,
        /// What the forge says.
        said: String,
        /// What the token must be allowed to do.
        needs: &'static str,
    },
    /// The forge was asked too often.
    #[error("{host} takes no more requests with this token {retry}")]
    RateLimited {
        /// The forge's host.
        host: String,
        /// When it will.
        retry: RetryAt,
    },
    /// The repository, the commit or the hook is not there, or not for this token.
    #[error(
        "{host} can't {operation} for {repository}: it finds none that the token can see (404); check the URL, and that the \
         token has {needs}"
    )]
    NotFound {
        /// What was asked for.
        operation: Operation,
        /// The forge's host.
        host: String,
        /// The repository.
        repository: String,
        /// What the token must be allowed to do.
        needs: &'static str,
    },
    /// There is one already.
    #[error("{host} has such a hook for {repository} already: {said}; remove the old one or keep it")]
    Exists {
        /// The forge's host.
        host: String,
        /// The repository.
        repository: String,
        /// What the forge says.
        said: String,
    },
    /// Anything else that is no success.
    #[error("{host} can't {operation} for {repository} (status {status}): {said}")]
    Refused {
        /// What was asked for.
        operation: Operation,
        /// The forge's host.
        host: String,
        /// The repository.
        repository: String,
        /// The HTTP status.
        status: u16,
        /// What the forge says.
        said: String,
    },
    /// The answer can't be understood.
    #[error("{host} answers what is not understood when asked to {operation}: {reason}; is it {provider}?")]
    Answer {
        /// What was asked for.
        operation: Operation,
        /// The forge's host.
        host: String,
        /// The kind of forge that it is taken for.
        provider: Provider,
        /// What is wrong.
        reason: String,
    },
    /// The forge has no such thing.
    #[error("{provider} offers no {what}")]
    Unsupported {
        /// The kind of forge.
        provider: Provider,
        /// What it has not.
        what: &'static str,
    },
}

impl ForgeError {
    /// What the owner of the token may be told: neither where a name leads nor what is said there, which would let them read where
    /// the server can.
    pub fn told(&self) -> String {
        match self {
            Self::Outgoing { operation, host, source } => format!("can't {operation} at {host}: {}", source.told()),
            Self::Forbidden { operation, host, repository, needs, .. } => {
                format!("{host} does not let the token {operation} for {repository} (403); it needs {needs}")
            }
            Self::Exists { host, repository, .. } => {
                format!("{host} has such a hook for {repository} already; remove the old one or keep it")
            }
            Self::Refused { operation, host, repository, status, .. } => {
                format!(
                    "{host} can't {operation} for {repository} (status {status}); the server's log has what it says"
                )
            }
            Self::Answer { operation, host, provider, .. } => {
                format!("{host} answers what is not understood when asked to {operation}; is it {provider}?")
            }
            Self::Token { .. } | Self::RateLimited { .. } | Self::NotFound { .. } | Self::Unsupported { .. } => {
                self.to_string()
            }
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Outgoing { source, .. } => source.is_transient(),
            Self::RateLimited { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 425),
            Self::Token { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::Answer { .. }
            | Self::Unsupported { .. } => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetStatus => "set a commit's status",
            Self::ChangeHooks => "change webhooks",
            Self::ReadHooks => "list webhooks",
            Self::ReadPullRequests => "list pull requests",
        })
    }
}

impl fmt::Display for RetryAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => match jiff::Timestamp::from_microsecond(time.as_micros()) {
                Ok(time) => write!(f, "until {time}"),
                Err(_) => f.write_str("for now"),
            },
            Self::After(wait) => write!(f, "for {} s", wait.as_secs()),
            Self::Unknown => f.write_str("for now"),
        }
    }
}

/// What a token must be allowed to do.
pub(super) fn needs(provider: Provider, operation: Operation) -> &'static str {
    use Operation::{ChangeHooks, ReadHooks, ReadPullRequests, SetStatus};
    match (provider, operation) {
        (Provider::GitHub, SetStatus) => "`repo:status`, or of a fine-grained token Commit statuses: write",
        (Provider::GitHub, ChangeHooks) => "`admin:repo_hook`, or of a fine-grained token Webhooks: write",
        (Provider::GitHub, ReadHooks) => "`read:repo_hook`, or of a fine-grained token Webhooks: read",
        (Provider::GitHub, ReadPullRequests) => "`repo`, or of a fine-grained token Pull requests: read",
        (Provider::GitLab, SetStatus) => "the scope `api` and the role Developer",
        (Provider::GitLab, ChangeHooks | ReadHooks) => "the scope `api` and the role Maintainer",
        (Provider::GitLab, ReadPullRequests) => "the scope `read_api` and the role Reporter",
        (Provider::Gitea, SetStatus) => "the scope `write:repository` and write access",
        (Provider::Gitea, ChangeHooks | ReadHooks) => "the scope `write:repository` and admin access",
        (Provider::Gitea, ReadPullRequests) => "the scope `read:repository`",
        (Provider::BitbucketCloud, SetStatus) => "the permission Repositories: write",
        (Provider::BitbucketCloud, ChangeHooks | ReadHooks) => "the permissions Webhooks: read and write",
        (Provider::BitbucketCloud, ReadPullRequests) => "the permission Pull requests: read",
        (Provider::BitbucketServer, SetStatus | ReadPullRequests) => "the permission Repository read",
        (Provider::BitbucketServer, ChangeHooks | ReadHooks) => "the permission Repository admin",
        (Provider::AzureDevops, SetStatus) => "the scope Code (status)",
        (Provider::AzureDevops, ChangeHooks | ReadHooks) => "the scope Code (read) and leave to edit subscriptions",
        (Provider::AzureDevops, ReadPullRequests) => "the scope Code (read)",
        (Provider::Generic, _) => "nothing",
    }
}
