//! The clock of an agent by itself: the wall clock read once, and the monotonic clock from there on.

use std::time::{Instant, SystemTime};

use cooper_ports::clock::Clock;
use cooper_types::Timestamp;

/// Dates log frames. Leases are judged by the server's store, never by this.
#[derive(Debug)]
pub struct SystemClock {
    start: Timestamp,
    began: Instant,
}

impl SystemClock {
    /// A clock that shows the wall clock's time, and then goes its own way.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else in an agent asks")]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: Timestamp::from_micros(0).after(since_epoch), began: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.began.elapsed())
    }
}
