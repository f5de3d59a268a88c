//! The agent inside the server's process. It speaks the agents' protocol over a stream in memory, as a remote one does
//! over the network, and has no other way into the server.

use crate::core::Core;
use crate::listen::Connections;
use crate::settings::LocalAgent;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct Running;

impl Running {
    pub(crate) async fn stop(self) {}
}

pub(crate) fn start(_agent: LocalAgent, _core: Arc<Core>, _connections: Connections, _work: PathBuf) -> Running {
    Running
}
