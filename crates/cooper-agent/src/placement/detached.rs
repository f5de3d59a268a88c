//! The output of detached containers on its way into the log.
//!
//! A detached container outlives the attempt that started it, and only live attempts may write. So what it says goes
//! with the output of whatever attempt of the placement runs: each takes what there is while it works. Between attempts
//! it waits here, and the container with it once there is much.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cooper_ports::logs::NewFrame;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait; a container that says more waits itself.
const MAX_BYTES: usize = 1 << 20;
/// What a frame takes besides its bytes, however few they are.
const FRAME_BYTES: usize = 128;

/// Frames that wait for an attempt.
#[derive(Debug, Default)]
pub(crate) struct DetachedOutput {
    waiting: Mutex<Waiting>,
    added: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<NewFrame>,
    bytes: usize,
}

impl DetachedOutput {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds frames, when there is room.
    pub(crate) async fn push(&self, frames: Vec<NewFrame>) {
        if frames.is_empty() {
            return;
        }
        loop {
            let taken = self.taken.notified();
            {
                let mut waiting = self.waiting();
                if waiting.bytes < MAX_BYTES {
                    waiting.bytes += frames.iter().map(|frame| frame.data.len() + FRAME_BYTES).sum::<usize>();
                    waiting.frames.extend(frames);
                    break;
                }
            }
            taken.await;
        }
        self.added.notify_one();
    }

    /// What waits.
    pub(crate) fn take(&self) -> Vec<NewFrame> {
        let frames: Vec<_> = std::mem::take(&mut *self.waiting()).frames.into();
        if !frames.is_empty() {
            self.taken.notify_waiters();
        }
        frames
    }

    /// What waits or comes; at least one frame, unless `done` fires.
    pub(crate) async fn next(&self, done: &CancellationToken) -> Vec<NewFrame> {
        loop {
            let frames = self.take();
            if !frames.is_empty() {
                return frames;
            }
            tokio::select! {
                () = self.added.notified() => {}
                () = done.cancelled() => {
                    // Another attempt may be asleep on what came just now.
                    self.added.notify_one();
                    return self.take();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cooper_ports::logs::Stream;
    use cooper_types::Timestamp;

    use super::*;

    fn frame(bytes: usize) -> NewFrame {
        NewFrame { time: Timestamp::from_micros(0), stream: Stream::Stdout, vertex: None, data: vec![b'x'; bytes] }
    }

    #[tokio::test]
    async fn what_is_said_between_attempts_waits_and_holds_the_speaker_up() {
        let output = Arc::new(DetachedOutput::default());
        let speaker = tokio::spawn({
            let output = Arc::clone(&output);
            async move {
                for _ in 0..64 {
                    output.push(vec![frame(64 * 1024)]).await;
                }
            }
        });
        while output.waiting().frames.len() < 16 {
            tokio::task::yield_now().await;
        }
        assert!(!speaker.is_finished());
        let done = CancellationToken::new();
        let mut got = 0;
        while got < 64 {
            got += output.next(&done).await.len();
        }
        speaker.await.expect("no panic");
        assert_eq!(got, 64);
        done.cancel();
        assert_eq!(output.next(&done).await.len(), 0);
    }

    #[tokio::test]
    async fn many_small_words_are_much_too() {
        let output = DetachedOutput::default();
        let mut words = 0;
        while futures::FutureExt::now_or_never(output.push(vec![frame(1)])).is_some() {
            words += 1;
        }
        assert!(words > 100 && words * FRAME_BYTES <= MAX_BYTES, "{words}");
    }
}
