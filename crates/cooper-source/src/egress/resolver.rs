//! Names to addresses, each address checked before the connection can be made to it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::EgressOptions;
use super::policy::{Denial, EgressPolicy};

type Telling = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

/// Who knows the addresses of names, in the system's place. It does not wait for anything.
#[derive(Clone)]
pub struct Names(Arc<Telling>);

impl Names {
    /// Tells a name's addresses; none of a name that it does not know.
    pub fn new(addresses: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(addresses))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

/// What the client asks for a name's addresses. The connection goes to one of those it answers with, and nowhere else.
#[derive(Debug)]
pub(super) struct Resolver {
    policy: EgressPolicy,
    listed_by: &'static str,
    listed_only: bool,
    names: Option<Names>,
}

/// A refusal on its way through the client's errors.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{denial}")]
pub(super) struct Denied {
    pub(super) denial: Denial,
    pub(super) listed_by: &'static str,
}

/// A name without an address, on its way through the client's errors.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct NoAddress(#[source] pub(super) Option<std::io::Error>);

impl Resolver {
    pub(super) fn new(options: &EgressOptions, listed_only: bool) -> Self {
        let EgressOptions { policy, listed_by, names, .. } = options;
        Self { policy: policy.clone(), listed_by, listed_only, names: names.clone() }
    }
}

async fn addresses(names: Option<&Names>, name: &str) -> Result<Vec<SocketAddr>, NoAddress> {
    // The port is the URL's.
    match names {
        Some(names) => Ok(names.0(name).into_iter().map(|address| SocketAddr::new(address, 0)).collect()),
        None => Ok(tokio::net::lookup_host((name, 0)).await.map_err(|error| NoAddress(Some(error)))?.collect()),
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, listed_by, listed_only) = (self.policy.clone(), self.listed_by, self.listed_only);
        let names = self.names.clone();
        Box::pin(async move {
            let mut allowed = Vec::new();
            let mut denied = None;
            for address in addresses(names.as_ref(), name.as_str()).await? {
                match policy.check(address.ip(), listed_only) {
                    Ok(()) => allowed.push(address),
                    Err(denial) => denied = denied.or(Some(denial)),
                }
            }
            match (allowed.is_empty(), denied) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(denial)) => Err(Denied { denial, listed_by }.into()),
                (true, None) => Err(NoAddress(None).into()),
            }
        })
    }
}
