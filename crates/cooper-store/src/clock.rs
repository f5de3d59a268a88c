//! The store's clocks: the one that judges leases, and the one on the wall, which timers follow.

use std::time::{Instant, SystemTime};

use cooper_ports::clock::Clock;
use cooper_types::Timestamp;

/// Judges leases: the wall clock read once, at open, and the monotonic clock from there on. It never shows a time before the newest one in the database, and later jumps of the wall clock do
/// not reach it. The price: it lags behind wall time by what the machine sleeps, until the store is opened again.
#[derive(Debug)]
pub(crate) struct StoreClock {
    start: Timestamp,
    opened: Instant,
}

impl StoreClock {
    /// A clock that starts at the wall clock's time, or at `newest` if that is later.
    pub(crate) fn starting_after(newest: Timestamp) -> Self {
        Self { start: wall_clock().max(newest), opened: Instant::now() }
    }
}

impl Clock for StoreClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.opened.elapsed())
    }
}

/// The time as people read it: what timers are due by. It jumps where the machine's clock is set, and with what the machine
/// sleeps.
#[derive(Debug)]
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        wall_clock()
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(0).after(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn never_starts_before_what_is_persisted() {
        let ahead = wall_clock().after(Duration::from_secs(3600));
        let clock = StoreClock::starting_after(ahead);
        let first = clock.now();
        assert!(first >= ahead);
        assert!(clock.now() >= first);
        assert!(StoreClock::starting_after(Timestamp::from_micros(0)).now() < ahead);
    }
}
