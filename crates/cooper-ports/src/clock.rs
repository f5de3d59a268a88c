//! The one clock that judges leases, deadlines and records.

use std::sync::Mutex;
use std::time::Duration;

use cooper_types::Timestamp;

/// Tells the time. It never goes backwards, and jumps of the machine's wall clock do not move it.
pub trait Clock: Send + Sync {
    /// The time now, in UTC microseconds.
    fn now(&self) -> Timestamp;
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new(start))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *now = now.after(by);
    }

    /// Sets the clock, also back: as somebody sets the clock of a machine.
    pub fn set(&self, to: Timestamp) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = to;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
