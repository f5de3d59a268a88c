//! What of one attempt's log the server has not stored yet. No IO but that of the [`Spool`], no waiting.
//!
//! ```text
//! stored by the server │ sent, in memory │ unsent, in memory │ unsent, on disk │ dropped
//!                      first             first + sent                          next
//! ```
//! Sequence numbers are given when a frame enters, so a frame has the same number on every stream. Frames that find
//! neither memory nor disk are counted, and a frame that says how much is missing takes their place.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use cooper_ports::logs::{Frame, NewFrame, Stream};
use cooper_types::Timestamp;
use tokio::time::Instant;

use super::spool::Spool;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes in memory. While there is a stream, more than this makes the step wait.
    pub(crate) memory_bytes: usize,
    /// Bytes on disk, used while there is no stream.
    pub(crate) spool_bytes: u64,
    /// How long a finished attempt waits for a server that has a stream but takes no frames.
    pub(crate) patience: Duration,
}

/// What a frame counts besides its data, in bytes.
const FRAME_COST: usize = 64;
/// The most bytes of a frame that was made of several: a reader gets it whole or not at all.
const MERGED_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Outbox {
    limits: Limits,
    memory: VecDeque<NewFrame>,
    memory_bytes: usize,
    /// Those of them that are not on the current stream.
    unsent_bytes: usize,
    /// The number of the first frame in memory.
    first: u64,
    /// How many of the frames in memory are on the current stream.
    sent: usize,
    /// The number that the next frame gets.
    next: u64,
    /// The highest number that was ever sent: a frame that was sent never changes.
    sent_ever: u64,
    spool: Spool,
    dropped: Option<Dropped>,
    /// Nobody wants more.
    closed: bool,
    /// When the server last showed that it takes something, or something was sent after a silence.
    progress: Option<Instant>,
    /// Whether what was sent since the last progress was sent again already.
    resent: bool,
}

#[derive(Debug)]
struct Dropped {
    text_bytes: u64,
    since: Timestamp,
}

fn cost(frame: &NewFrame) -> usize {
    frame.data.len() + FRAME_COST
}

impl Outbox {
    pub(super) fn new(limits: Limits, spool_dir: PathBuf) -> Self {
        Self {
            limits,
            memory: VecDeque::new(),
            memory_bytes: 0,
            unsent_bytes: 0,
            first: 1,
            sent: 0,
            next: 1,
            sent_ever: 0,
            spool: Spool::new(spool_dir),
            dropped: None,
            closed: false,
            progress: None,
            resent: false,
        }
    }

    /// Whether a frame can enter without going to disk.
    pub(super) fn has_room(&self) -> bool {
        self.closed || (self.memory_bytes < self.limits.memory_bytes && self.spool.is_empty())
    }

    /// Whether everything is stored.
    pub(super) fn is_empty(&self) -> bool {
        self.closed || (self.memory.is_empty() && self.spool.is_empty() && self.dropped.is_none())
    }

    /// Bytes in memory that are not on the current stream.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    pub(super) fn push(&mut self, frame: NewFrame) {
        if self.closed {
            return;
        }
        if self.dropped.is_some() && !self.tell_gap() {
            self.drop_frame(&frame);
            return;
        }
        let Some(frame) = self.merge(frame) else { return };
        if let Err(frame) = self.enter(frame) {
            self.drop_frame(&frame);
        }
    }

    /// Appends a frame's text to the last frame, if that waits in memory and is of the same kind; else gives it back.
    /// A build that says much in small pieces would cost more in frames than in text.
    fn merge(&mut self, frame: NewFrame) -> Option<NewFrame> {
        let is_text = matches!(frame.stream, Stream::Stdout | Stream::Stderr);
        if !is_text || !self.has_room() || self.next == self.sent_ever + 1 {
            return Some(frame);
        }
        let Some(last) = self.memory.back_mut() else { return Some(frame) };
        let is_same = (last.stream, &last.vertex) == (frame.stream, &frame.vertex);
        if !is_same || last.data.len() + frame.data.len() > MERGED_BYTES {
            return Some(frame);
        }
        last.data.extend_from_slice(&frame.data);
        self.memory_bytes += frame.data.len();
        self.unsent_bytes += frame.data.len();
        None
    }

    /// No frame comes any more: a gap at the end must be told all the same.
    pub(super) fn end(&mut self) {
        if self.dropped.is_some() && !self.closed {
            self.tell_gap();
        }
    }

    /// Puts a frame in memory or on disk, or gives it back.
    fn enter(&mut self, frame: NewFrame) -> Result<(), NewFrame> {
        if self.has_room() {
            self.remember(frame);
        } else {
            if self.spool.bytes() + cost(&frame) as u64 > self.limits.spool_bytes {
                return Err(frame);
            }
            let NewFrame { time, stream, vertex, data } = frame;
            let stored = Frame { attempt: None, seq: self.next, time, stream, vertex, data };
            if let Err(error) = self.spool.push(&stored) {
                tracing::warn!(%error, "spool a step's log");
                let Frame { time, stream, vertex, data, .. } = stored;
                return Err(NewFrame { time, stream, vertex, data });
            }
        }
        self.next += 1;
        Ok(())
    }

    fn remember(&mut self, frame: NewFrame) {
        self.memory_bytes += cost(&frame);
        self.unsent_bytes += cost(&frame);
        self.memory.push_back(frame);
    }

    fn drop_frame(&mut self, frame: &NewFrame) {
        let dropped = self.dropped.get_or_insert(Dropped { text_bytes: 0, since: frame.time });
        if frame.stream != Stream::Vertex {
            dropped.text_bytes += frame.data.len() as u64;
        }
    }

    /// Puts a frame where the dropped ones would have been; false if there is no room even for that.
    fn tell_gap(&mut self) -> bool {
        // Once memory is free again: a gap between any two frames that just fit would be worse than one long gap.
        if !self.has_room() {
            return false;
        }
        let Some(Dropped { text_bytes, since }) = self.dropped.take() else { return true };
        if text_bytes == 0 {
            return true;
        }
        let text = format!("[{text_bytes} bytes of output are missing here: the agent could not reach the server]\n");
        let gap = NewFrame { time: since, stream: Stream::Gap, vertex: None, data: text.into_bytes() };
        self.enter(gap).is_ok()
    }

    /// The next frames to send, with the number of the first: up to `max_bytes`, but one at least.
    pub(super) fn next_batch(&mut self, max_bytes: usize, now: Instant) -> Option<(u64, Vec<NewFrame>)> {
        let mut bytes = 0;
        let frames: Vec<NewFrame> = self
            .memory
            .iter()
            .skip(self.sent)
            .take_while(|frame| {
                let fits = bytes == 0 || bytes + cost(frame) <= max_bytes;
                bytes += cost(frame);
                fits
            })
            .cloned()
            .collect();
        if frames.is_empty() {
            return None;
        }
        let first = self.first + self.sent as u64;
        if self.sent == 0 {
            self.progress = Some(now);
        }
        self.sent += frames.len();
        self.sent_ever = self.sent_ever.max(self.first + self.sent as u64 - 1);
        self.unsent_bytes -= frames.iter().map(cost).sum::<usize>();
        Some((first, frames))
    }

    /// The server has everything up to `sequence`. Less than before is old news; the same again means that frames on
    /// the way were lost; more than there is means that it wants no more.
    pub(super) fn stored(&mut self, sequence: u64, now: Instant) {
        if sequence >= self.next {
            self.close();
            return;
        }
        let count = (sequence + 1).saturating_sub(self.first);
        if count == 0 {
            if sequence + 1 == self.first && self.sent > 0 && !self.resent {
                self.rewind();
                self.resent = true;
            }
            return;
        }
        self.progress = Some(now);
        self.resent = false;
        for _ in 0..count {
            let Some(frame) = self.memory.pop_front() else { break };
            self.memory_bytes -= cost(&frame);
            self.first += 1;
            match self.sent.checked_sub(1) {
                Some(sent) => self.sent = sent,
                None => self.unsent_bytes -= cost(&frame),
            }
        }
        self.refill();
    }

    fn refill(&mut self) {
        while self.memory_bytes < self.limits.memory_bytes {
            match self.spool.pop() {
                Ok(Some(Frame { time, stream, vertex, data, .. })) => {
                    self.remember(NewFrame { time, stream, vertex, data });
                }
                Ok(None) => break,
                Err(error) => {
                    // The frames in there have numbers already: one frame that takes up no text stands for each.
                    tracing::warn!(%error, "read a step's log back from the spool");
                    self.lose_spool();
                    break;
                }
            }
        }
        self.end();
    }

    /// Fills the numbers of unreadable frames, so that those after them still have their places.
    fn lose_spool(&mut self) {
        let text = b"[some output is missing here: the agent could not read it back from its disk]\n";
        for index in 0..self.spool.lose() {
            let data = if index == 0 { text.to_vec() } else { Vec::new() };
            self.remember(NewFrame { time: Timestamp::from_micros(0), stream: Stream::Gap, vertex: None, data });
        }
    }

    /// Sends everything again that is not stored.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.unsent_bytes = self.memory_bytes;
        self.resent = false;
    }

    /// The same, if the server has said nothing for so long about what it was sent.
    pub(super) fn rewind_if_silent(&mut self, now: Instant, patience: Duration) {
        if self.sent > 0 && self.progress.is_some_and(|progress| now.duration_since(progress) >= patience) {
            self.rewind();
        }
    }

    /// Nobody wants the rest.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.memory.clear();
        (self.memory_bytes, self.unsent_bytes) = (0, 0);
        self.first = self.next;
        self.sent = 0;
        self.spool.lose();
        self.dropped = None;
    }
}

#[cfg(test)]
mod tests;
