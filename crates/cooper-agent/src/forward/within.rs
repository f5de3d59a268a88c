//! The registry under its loopback name inside containers that have a loopback of their own.

use std::io;
use std::sync::Arc;

use cooper_ports::engine::{Connection, Connector, RegistryForward};
use cooper_types::RegistryName;

use super::loopback_addresses;
use super::proxy::Proxy;
use crate::remote::RemoteServer;

/// Bytes on the way in each direction of a connection.
const DUPLEX_BYTES: usize = 256 << 10;

/// How containers reach the registry of this name; `None` where its name says the same everywhere. Requests for anything
/// but the registry are refused, as they are to the engine.
pub(crate) fn within_containers(name: &RegistryName, server: Option<&RemoteServer>) -> Option<RegistryForward> {
    let addresses = loopback_addresses(name.as_str())?;
    // Without another way the server is where its registry's name says: on this machine.
    let server = server.cloned().or_else(|| RemoteServer::on_this_machine(name.as_str()))?;
    let proxy = Proxy::new(server, name.to_string());
    Some(RegistryForward { addresses, connector: Arc::new(ProxyConnector(proxy)) })
}

/// Opens connections to a proxy in this process.
struct ProxyConnector(Proxy);

#[async_trait::async_trait]
impl Connector for ProxyConnector {
    async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
        // It ends with the container's end of the connection.
        tokio::spawn(self.0.clone().serve_one(theirs));
        Ok(Box::new(ours))
    }
}
