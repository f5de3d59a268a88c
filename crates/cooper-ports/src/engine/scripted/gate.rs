//! Where scripted things wait for a test.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Where a scripted thing waits until a test opens it, or until it is cancelled.
#[derive(Clone, Debug)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    arrived: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { open: Arc::new(watch::Sender::new(false)), arrived: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets through what waits and what will come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Returns when something has arrived at the gate.
    pub async fn arrival(&self) {
        until_true(&self.arrived).await;
    }

    pub(super) async fn pass(&self) {
        self.arrived.send_replace(true);
        until_true(&self.open).await;
    }
}

async fn until_true(flag: &watch::Sender<bool>) {
    // The sender is borrowed for the whole wait, so the channel cannot close meanwhile.
    let _ = flag.subscribe().wait_for(|value| *value).await;
}

/// Says the events and waits at the gate; false when cancelled meanwhile.
pub(super) async fn play<E>(
    events: Vec<E>,
    gate: Option<Gate>,
    sink: &mpsc::Sender<E>,
    cancel: &CancellationToken,
) -> bool {
    let acts = async {
        for event in events {
            // A receiver that is gone is no error of the build's.
            let _ = sink.send(event).await;
        }
        if let Some(gate) = gate {
            gate.pass().await;
        }
    };
    // Biased: what was cancelled before it began does nothing.
    tokio::select! {
        biased;
        () = cancel.cancelled() => false,
        () = acts => true,
    }
}
