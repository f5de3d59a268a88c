//! Another try of the agent's own, at what may pass: how often, after which pauses, and which of the server's answers are
//! worth one. The user's retries are `user_tries`.

use std::time::Duration;

use tonic::{Code, Status};

/// How often something is tried.
#[derive(Debug)]
pub(super) struct OwnTries {
    left: u32,
    pause: Duration,
}

impl OwnTries {
    /// So many tries in all; the pause after the first doubles.
    pub(super) fn new(tries: u32, first_pause: Duration) -> Self {
        Self { left: tries, pause: first_pause }
    }

    /// For what is between the agent and its server: over in six seconds.
    pub(super) fn at_the_server() -> Self {
        Self::new(6, Duration::from_millis(200))
    }

    /// A try has failed: how long to wait before the next one, or nothing if it was the last.
    pub(super) fn next_pause(&mut self) -> Option<Duration> {
        self.left = self.left.saturating_sub(1);
        let pause = (self.left > 0).then_some(self.pause);
        self.pause *= 2;
        pause
    }

    /// The same, and waits.
    pub(super) async fn again(&mut self) -> bool {
        match self.next_pause() {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }
}

/// Whether the server may answer otherwise a moment later.
pub(super) fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_and_pauses_double() {
        let mut tries = OwnTries::new(3, Duration::from_secs(1));
        let pauses: Vec<_> = std::iter::from_fn(|| tries.next_pause()).collect();
        assert_eq!(pauses, [1, 2].map(Duration::from_secs));
        assert_eq!(tries.next_pause(), None);
    }
}
