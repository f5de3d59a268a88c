//! What an attempt says: rendered frames as they are, and lines of the service's own.

use std::sync::Arc;
use std::time::Duration;

use cooper_ports::clock::Clock;
use cooper_ports::logs::{NewFrame, Stream};
use cooper_types::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::log::LogSender;
use crate::mask::MaskSet;

/// How long the last line of an attempt waits for room: it must not hold up the result.
const LAST_LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// One attempt's log, with what must not be seen in it.
#[derive(Clone)]
pub(super) struct StepLog {
    sender: LogSender,
    masks: MaskSet,
    /// Stands in front of every line, where other steps speak meanwhile.
    label: Arc<str>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl StepLog {
    /// A log that waits for nothing once `stop` has fired.
    pub(super) fn new(
        sender: LogSender,
        masks: MaskSet,
        label: String,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Self { sender, masks, label: label.into(), clock, stop }
    }

    /// What stands in front of every line; it may be nothing.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn masks(&self) -> &MaskSet {
        &self.masks
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Appends frames that are masked, waiting while the server is too far behind.
    pub(super) async fn append(&self, frames: Vec<NewFrame>) {
        if frames.is_empty() {
            return;
        }
        // Biased: with room for them, frames go out although the attempt is told to stop.
        tokio::select! {
            biased;
            () = self.sender.append(frames) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Appends a line of the service's own.
    pub(super) async fn service(&self, line: &str) {
        self.append(vec![self.line(line)]).await;
    }

    /// Appends the line that says how the attempt ended, stopped or not.
    pub(super) async fn last_service_line(&self, line: &str) {
        let append = self.sender.append(vec![self.line(line)]);
        if tokio::time::timeout(LAST_LINE_TIMEOUT, append).await.is_err() {
            tracing::debug!("log has no room for its last line");
        }
    }

    /// A line of the service's own as a frame.
    pub(super) fn line(&self, line: &str) -> NewFrame {
        let line = self.masks.text(line).replace(|c: char| c.is_control(), " ");
        NewFrame {
            time: self.now(),
            stream: Stream::Service,
            vertex: None,
            data: format!("{}{line}\n", self.label).into_bytes(),
        }
    }
}
