//! Logs of runs: frames in, frames or text out, both addressed by offsets.
//!
//! A log is a sequence of frames. A run's text is the data of all its frames but those of [`Stream::Vertex`], one
//! after another. Frame offsets count bytes of [encoded](frame) frames, text offsets count bytes of text; both are
//! handed out at the ends of frames and segments, and grow only.

use async_trait::async_trait;
use cooper_types::{AttemptNumber, RunId, Timestamp};

use crate::store_error::StoreError;

pub mod frame;
pub mod segment;

pub use frame::{Frame, FrameError, Stream};
pub use segment::{Segment, SegmentError};

/// The most bytes of data and vertex that one frame may carry.
pub const MAX_FRAME_DATA: usize = 1 << 20;

/// A frame before the store has placed it in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFrame {
    /// When its writer saw it.
    pub time: Timestamp,
    /// Which stream it belongs to.
    pub stream: Stream,
    /// The build step it belongs to, if any.
    pub vertex: Option<String>,
    /// The bytes, masked already.
    pub data: Vec<u8>,
}

/// How far a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Bytes of encoded frames.
    pub frame_offset: u64,
    /// Bytes of text.
    pub text_offset: u64,
    /// Whether nothing will follow.
    pub complete: bool,
}

/// A part of a log as frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFrames {
    /// Each frame with the offset after it.
    pub frames: Vec<(u64, Frame)>,
    /// The offset to go on from.
    pub next_offset: u64,
    /// The committed end when this was read.
    pub end: LogEnd,
}

/// A part of a log as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSegments {
    /// Whole segments, one after another; the first may begin before the offset that was asked for.
    pub segments: Vec<Segment>,
    /// The offset to go on from.
    pub next_offset: u64,
}

/// A part of a log as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText {
    /// The bytes.
    pub data: Vec<u8>,
    /// The offset to go on from.
    pub next_offset: u64,
    /// The committed end when this was read.
    pub end: LogEnd,
}

/// Why frames were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no such run.
    #[error("run {0} does not exist")]
    UnknownRun(RunId),
    /// The attempt is over or was never: what it says is not kept.
    #[error("attempt {attempt} of run {run} is over")]
    NotLive {
        /// The run.
        run: RunId,
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The log is complete.
    #[error("log of run {0} is complete")]
    Complete(RunId),
    /// Frames before these are missing: the sender goes on from `expected`.
    #[error("frame {first} of attempt {attempt} came before frame {expected}")]
    Hole {
        /// The attempt.
        attempt: AttemptNumber,
        /// The first frame that came.
        first: u64,
        /// The frame that should have come.
        expected: u64,
    },
    /// A frame is too large.
    #[error("log frame of {size} bytes is larger than {MAX_FRAME_DATA}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a log was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// There is no such run.
    #[error("run {0} does not exist")]
    UnknownRun(RunId),
    /// The offset is beyond the log's end, or a frame offset that was never handed out.
    #[error("offset {offset} is not one of the log of run {run}")]
    Offset {
        /// The run.
        run: RunId,
        /// The offset.
        offset: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps logs.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Appends frames of a live attempt. The first frame's sequence number is `first_seq`, numbers start at 1 and have
    /// no holes; frames that were appended before are left out. Returns the last sequence number that is durable now.
    async fn append_frames(
        &self,
        run: RunId,
        attempt: AttemptNumber,
        first_seq: u64,
        frames: Vec<NewFrame>,
    ) -> Result<u64, AppendError>;

    /// Appends frames of the server's own. Returns the new end.
    async fn append_service_frames(&self, run: RunId, frames: Vec<NewFrame>) -> Result<LogEnd, AppendError>;

    /// Shows that something is missing: `bytes` if the number is known, and why, in a line.
    async fn append_gap(&self, run: RunId, bytes: Option<u64>, reason: &str) -> Result<LogEnd, AppendError>;

    /// Ends the log: nothing can be appended after this. A second time changes nothing.
    async fn complete_log(&self, run: RunId) -> Result<LogEnd, AppendError>;

    /// How far the log goes.
    async fn log_end(&self, run: RunId) -> Result<LogEnd, ReadLogError>;

    /// Frames from `offset` on: at least one if there is one, and no more after `limit` encoded bytes.
    async fn read_frames(&self, run: RunId, offset: u64, limit: usize) -> Result<LogFrames, ReadLogError>;

    /// The segments that hold what follows `offset`, an offset that was handed out: at least one if something does, and
    /// no more after `limit` bytes of encoded frames. Nothing is unpacked.
    async fn read_segments(&self, run: RunId, offset: u64, limit: usize) -> Result<LogSegments, ReadLogError>;

    /// Text from `offset` on, `limit` bytes at most; any offset up to the end is valid.
    async fn read_text(&self, run: RunId, offset: u64, limit: usize) -> Result<LogText, ReadLogError>;
}

impl NewFrame {
    /// A frame of the server's own.
    pub fn service(time: Timestamp, line: &str) -> Self {
        Self { time, stream: Stream::Service, vertex: None, data: format!("{line}\n").into_bytes() }
    }

    /// The frame that shows a gap, with its size where that is known.
    pub fn gap(time: Timestamp, bytes: Option<u64>, reason: &str) -> Self {
        let size = match bytes {
            Some(1) => "1 byte".to_owned(),
            Some(bytes) => format!("{bytes} bytes"),
            None => "unknown size".to_owned(),
        };
        // The line before may be cut in its middle, so this starts a new one.
        let text = format!("\n[gap in the log, {size}: {reason}]\n");
        Self { time, stream: Stream::Gap, vertex: None, data: text.into_bytes() }
    }

    /// Bytes that count against [`MAX_FRAME_DATA`].
    pub fn size(&self) -> usize {
        self.data.len() + self.vertex.as_ref().map_or(0, String::len)
    }
}
