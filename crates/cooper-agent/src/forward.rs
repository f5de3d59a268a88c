//! The registry under its one name: where that is a loopback name, the agent listens there and hands requests on to the
//! server, so that its engine reaches the registry without any configuration.
//!
//! On the server's own machine the server has the port, and another agent's forwarder may have it: both will do. Any
//! other program there keeps the agent from taking work.

mod proxy;
mod within;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::conditions::{Condition, Conditions};
use crate::remote::RemoteServer;
use proxy::{Holder, Proxy};
pub(crate) use within::{Ways, address_within, within_containers};

/// How often a port that another has is tried again.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(3) };

/// Keeps the registry at hand.
pub(crate) struct Forwarder {
    server: RemoteServer,
    registry: watch::Receiver<Option<String>>,
    conditions: Conditions,
}

impl Forwarder {
    pub(crate) fn new(server: RemoteServer, registry: watch::Receiver<Option<String>>, conditions: Conditions) -> Self {
        // Before the first stream: work that came at once would miss the registry.
        conditions.set(Condition::Registry, Some("its way to the registry is not open yet".to_owned()));
        Self { server, registry, conditions }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut open: Option<(String, tokio_util::task::AbortOnDropHandle<()>)> = None;
        loop {
            let name = self.registry.borrow_and_update().clone();
            if let Some(name) = name
                // A listener that is open stays: what runs needs it.
                && open.as_ref().is_none_or(|(known, task)| *known != name || task.is_finished())
            {
                drop(open.take());
                let (server, conditions) = (self.server.clone(), self.conditions.clone());
                let listening = listen(name.clone(), server, conditions);
                open = Some((name, tokio_util::task::AbortOnDropHandle::new(tokio::spawn(listening))));
            }
            if self.registry.changed().await.is_err() {
                // The link is over, and the agent soon.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Listens under a registry's name, or finds that this is not needed. Ends where the server itself listens.
async fn listen(name: String, server: RemoteServer, conditions: Conditions) {
    let Some(addresses) = loopback_addresses(&name) else {
        conditions.set(Condition::Registry, None);
        return;
    };
    let proxy = Proxy::new(server, name.clone());
    let mut told = false;
    loop {
        let why = match bind(&addresses).await {
            Ok(listeners) => {
                tracing::info!(registry = name, "registry is at hand on this machine's loopback address");
                conditions.set(Condition::Registry, None);
                proxy.serve(listeners).await;
                return;
            }
            Err((taken, error)) if error.kind() == io::ErrorKind::AddrInUse => match proxy.holder(taken).await {
                Ok(Holder::Server) => {
                    tracing::info!(registry = name, "registry is on this machine");
                    conditions.set(Condition::Registry, None);
                    // The port is the server's, also while it is down for a restart: the next stream says when to look.
                    return;
                }
                Ok(Holder::Forwarder) => None,
                Ok(Holder::Other) => {
                    Some(format!("another program has {taken}, by which the registry {name} is reached"))
                }
                Err(error) => Some(format!("whoever has {taken} can't be asked: {error}")),
            },
            Err((address, error)) => Some(format!("{address} can't be listened on for the registry: {error}")),
        };
        match &why {
            Some(why) if !told => tracing::warn!(why, "no work is taken"),
            None if !told => tracing::info!(registry = name, "registry is at hand through another agent"),
            _ => {}
        }
        told = true;
        conditions.set(Condition::Registry, why);
        tokio::time::sleep(RETRY).await;
    }
}

/// The loopback addresses that a registry's name stands for, the most important first; `None` for other names.
fn loopback_addresses(name: &str) -> Option<Vec<SocketAddr>> {
    let (host, port) = name.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let addresses = match host.to_ascii_lowercase().as_str() {
        "localhost" => vec![v4, v6],
        host => {
            let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
            address.is_loopback().then(|| vec![address])?
        }
    };
    Some(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// Listens on all of the addresses, or tells which one can't be. The first one must work; machines without IPv6 miss the
/// second, but nobody else may have it: an engine tries both, and would show its credentials there.
async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) if index == 0 || error.kind() == io::ErrorKind::AddrInUse => return Err((*address, error)),
            Err(error) => tracing::debug!(%address, %error, "not listened on"),
        }
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests;
