//! When a step's time begins and when it is over.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The beginning of a step's time: after its delay and its set-up, once for all of its tries.
#[derive(Debug)]
pub(super) struct Limit(watch::Sender<Option<Instant>>);

impl Default for Limit {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Limit {
    /// Begins the time, if it has not begun.
    pub(super) fn begin(&self) {
        self.0.send_if_modified(|began| {
            let first = began.is_none();
            began.get_or_insert_with(Instant::now);
            first
        });
    }

    /// Returns when the time is over; never if it does not begin.
    pub(super) async fn reached(&self, timeout: Duration) {
        let mut receiver = self.0.subscribe();
        // The sender is borrowed for the whole wait.
        let began = receiver.wait_for(Option::is_some).await.ok().and_then(|began| *began);
        match began {
            Some(began) => tokio::time::sleep_until(began + timeout).await,
            None => std::future::pending().await,
        }
    }
}
