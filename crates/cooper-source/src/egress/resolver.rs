//! Names to addresses, each address checked before the connection can be made to it.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::policy::{Denial, EgressPolicy};

/// What the client asks for a name's addresses. The connection goes to one of those it answers with, and nowhere else.
#[derive(Debug)]
pub(super) struct Resolver {
    policy: EgressPolicy,
    listed_only: bool,
}

/// A refusal on its way through the client's errors.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Denied(pub(super) Denial);

/// A name without an address, on its way through the client's errors.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct NoAddress(#[source] pub(super) Option<std::io::Error>);

impl Resolver {
    pub(super) fn new(policy: EgressPolicy, listed_only: bool) -> Self {
        Self { policy, listed_only }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, listed_only) = (self.policy.clone(), self.listed_only);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| NoAddress(Some(error)))?;
            let mut allowed = Vec::new();
            let mut denied = None;
            for address in found {
                match policy.check(address.ip(), listed_only) {
                    Ok(()) => allowed.push(address),
                    Err(denial) => denied = denied.or(Some(denial)),
                }
            }
            match (allowed.is_empty(), denied) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(denial)) => Err(Denied(denial).into()),
                (true, None) => Err(NoAddress(None).into()),
            }
        })
    }
}
