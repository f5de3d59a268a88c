//! The pauses between attempts to reach the server.

use std::time::Duration;

use rand::RngExt as _;

use crate::settings::ReconnectWindow;

/// Doubles a window with each failure and picks a pause from its upper half: attempts of many agents spread out.
#[derive(Debug)]
pub(super) struct Backoff {
    bounds: ReconnectWindow,
    window: Duration,
}

impl Backoff {
    pub(super) fn new(bounds: ReconnectWindow) -> Self {
        Self { bounds, window: bounds.shortest }
    }

    /// The server was reached: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.window = self.bounds.shortest;
    }

    /// The next pause.
    pub(super) fn next_pause(&mut self) -> Duration {
        let window = self.window.min(self.bounds.longest);
        self.window = self.window.saturating_mul(2).min(self.bounds.longest);
        pick(window)
    }

    /// A pause of the longest kind, for a server that refuses.
    pub(super) fn longest(&mut self) -> Duration {
        self.window = self.bounds.longest;
        pick(self.bounds.longest)
    }
}

fn pick(window: Duration) -> Duration {
    window.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_start_again() {
        let bounds = ReconnectWindow { shortest: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let mut backoff = Backoff::new(bounds);
        for window in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.next_pause();
            assert!(pause >= Duration::from_millis(window / 2) && pause <= Duration::from_millis(window), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= bounds.shortest);
        assert!(backoff.longest() >= bounds.longest / 2);
    }
}
