//! The way of a step's output to the server: numbered, kept until it is stored there, slowed down when it must be.
//!
//! A [`LogHub`] holds the logs of all attempts over all streams to the server; a stream's pump takes batches from it.
//! Frames come here masked and rendered. What is kept for how long is decided by [`outbox`].

mod outbox;
mod spool;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_ports::logs::{NewFrame, Stream};
use cooper_types::AttemptNumber;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

pub(crate) use outbox::Limits;
use outbox::Outbox;

/// How long frames are gathered before a batch goes out, unless it is full earlier.
const GATHER: Duration = Duration::from_millis(50);
/// The most bytes of a batch, unless a single frame is larger. The server stores each with one sync of its disk, which
/// takes as long as some hundred KiB: what comes slower than the server stores goes out before it is so much.
const BATCH_BYTES: usize = 1024 * 1024;
/// With so many bytes a batch goes out without waiting for more.
const FULL_BYTES: usize = 256 * 1024;
/// After so long without news from the server, what was sent is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(5);

type LogKey = (PlacementKey, AttemptNumber);

/// The logs of all attempts of an agent.
#[derive(Debug)]
pub(crate) struct LogHub {
    logs: Mutex<BTreeMap<LogKey, Arc<AttemptLog>>>,
    connected: watch::Sender<bool>,
    limits: Limits,
    /// There is something to send.
    pending: Notify,
    /// There is a full batch to send.
    full: Notify,
}

/// One attempt's log.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    outbox: Mutex<Outbox>,
    /// Changes whenever the server took something, or the stream came or went.
    moved: watch::Sender<()>,
}

/// Writes one attempt's log.
#[derive(Clone, Debug)]
pub(crate) struct LogSender {
    hub: Arc<LogHub>,
    log: Arc<AttemptLog>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogHub {
    /// A hub without logs and without a stream.
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            logs: Mutex::default(),
            connected: watch::Sender::new(false),
            limits,
            pending: Notify::new(),
            full: Notify::new(),
        })
    }

    /// Begins an attempt's log; what memory does not hold goes to an unnamed file in `spool_dir`.
    pub(crate) fn open(self: &Arc<Self>, key: PlacementKey, attempt: AttemptNumber, spool_dir: PathBuf) -> LogSender {
        let log = Arc::new(AttemptLog {
            outbox: Mutex::new(Outbox::new(self.limits, spool_dir)),
            moved: watch::Sender::new(()),
        });
        lock(&self.logs).insert((key, attempt), Arc::clone(&log));
        LogSender { hub: Arc::clone(self), log }
    }

    /// Forgets an attempt's log.
    pub(crate) fn close(&self, key: PlacementKey, attempt: AttemptNumber) {
        if let Some(log) = lock(&self.logs).remove(&(key, attempt)) {
            lock(&log.outbox).close();
            log.moved.send_replace(());
        }
    }

    /// A stream to the server is open: what it has not stored is sent again.
    pub(crate) fn stream_opened(&self) {
        self.connected.send_replace(true);
        for log in self.all() {
            lock(&log.1.outbox).rewind();
            log.1.moved.send_replace(());
        }
        self.pending.notify_one();
    }

    /// The stream is gone: output goes to the spool.
    pub(crate) fn stream_closed(&self) {
        self.connected.send_replace(false);
        self.all().iter().for_each(|log| {
            log.1.moved.send_replace(());
        });
    }

    /// The server has everything of an attempt up to `sequence`, or wants no more if that is beyond what there is.
    pub(crate) fn stored(&self, key: PlacementKey, attempt: AttemptNumber, sequence: u64) {
        let log = lock(&self.logs).get(&(key, attempt)).cloned();
        if let Some(log) = log {
            lock(&log.outbox).stored(sequence, Instant::now());
            log.moved.send_replace(());
            self.pending.notify_one();
        }
    }

    fn all(&self) -> Vec<(LogKey, Arc<AttemptLog>)> {
        lock(&self.logs).iter().map(|(key, log)| (*key, Arc::clone(log))).collect()
    }

    /// Sends what there is to send over one stream, until that is gone.
    pub(crate) async fn pump(&self, stream: &mpsc::Sender<wire::AgentMessage>) {
        let mut resend = tokio::time::interval(RESEND_AFTER);
        loop {
            tokio::select! {
                () = self.pending.notified() => tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = self.full.notified() => {}
                    () = stream.closed() => return,
                },
                now = resend.tick() => {
                    self.all().iter().for_each(|log| lock(&log.1.outbox).rewind_if_silent(now, RESEND_AFTER));
                }
                () = stream.closed() => return,
            }
            // One batch of each in turn: a loud step does not silence the others.
            loop {
                let mut sent = false;
                for ((key, attempt), log) in self.all() {
                    let batch = lock(&log.outbox).next_batch(BATCH_BYTES, Instant::now());
                    let Some((first, frames)) = batch else { continue };
                    sent = true;
                    if stream.send(message(key, attempt, first, frames)).await.is_err() {
                        return;
                    }
                }
                if !sent {
                    break;
                }
            }
        }
    }
}

impl LogSender {
    /// Appends frames, waiting while the server is too far behind. Without a stream it does not wait.
    pub(crate) async fn append(&self, frames: Vec<NewFrame>) {
        for frame in frames {
            let mut moved = self.log.moved.subscribe();
            let mut frame = Some(frame);
            loop {
                // Before the look, so that no change between look and wait is missed.
                moved.mark_unchanged();
                {
                    let mut outbox = lock(&self.log.outbox);
                    if (!*self.hub.connected.borrow() || outbox.has_room())
                        && let Some(frame) = frame.take()
                    {
                        outbox.push(frame);
                        if outbox.unsent_bytes() >= FULL_BYTES {
                            self.hub.full.notify_one();
                        }
                    }
                }
                if frame.is_none() || moved.changed().await.is_err() {
                    break;
                }
            }
        }
        self.hub.pending.notify_one();
    }

    /// Returns when the server has stored everything, or has taken nothing for long although it could.
    pub(crate) async fn drained(&self) {
        let (mut moved, mut connected) = (self.log.moved.subscribe(), self.hub.connected.subscribe());
        loop {
            moved.mark_unchanged();
            let is_connected = *connected.borrow_and_update();
            {
                let mut outbox = lock(&self.log.outbox);
                outbox.end();
                if outbox.is_empty() {
                    return;
                }
            }
            // Nothing more is to be gathered.
            self.hub.full.notify_one();
            self.hub.pending.notify_one();
            tokio::select! {
                _ = moved.changed() => {}
                _ = connected.changed() => {}
                () = tokio::time::sleep(self.hub.limits.patience), if is_connected => {
                    tracing::warn!("server takes no more of a finished step's log");
                    return;
                }
            }
        }
    }
}

fn message(key: PlacementKey, attempt: AttemptNumber, first: u64, frames: Vec<NewFrame>) -> wire::AgentMessage {
    let attempt = cooper_api::agent::attempt_message(key, attempt);
    let frames = frames
        .into_iter()
        .map(|frame| wire::log_frames::Frame {
            time_us: frame.time.as_micros(),
            stream: stream_number(frame.stream).into(),
            vertex: frame.vertex.unwrap_or_default(),
            data: frame.data,
        })
        .collect();
    let frames = wire::LogFrames { key: attempt.key, attempt: attempt.attempt, first_sequence: first, frames };
    wire::AgentMessage { message: Some(wire::agent_message::Message::LogFrames(frames)) }
}

fn stream_number(stream: Stream) -> wire::log_frames::Stream {
    match stream {
        Stream::Service => wire::log_frames::Stream::Service,
        Stream::Stdout => wire::log_frames::Stream::Stdout,
        Stream::Stderr => wire::log_frames::Stream::Stderr,
        Stream::Vertex => wire::log_frames::Stream::Vertex,
        Stream::Gap => wire::log_frames::Stream::Gap,
    }
}

#[cfg(test)]
mod tests;
