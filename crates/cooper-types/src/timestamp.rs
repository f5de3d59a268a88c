//! Points in time: UTC microseconds.

use std::fmt;
use std::time::Duration;

/// A point in time in microseconds since 1970-01-01T00:00:00Z. It shows itself as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point this many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This much later; the far future stands for what lies beyond it.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This much earlier; the far past stands for what lies beyond it.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc_3339_and_saturates() {
        let time = Timestamp::from_micros(1_000_000).after(Duration::from_millis(5));
        assert_eq!(time.to_string(), "1970-01-01T00:00:01.005000Z");
        assert_eq!(time.since(time.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(time.before(Duration::from_millis(5)), Timestamp::from_micros(1_000_000));
        assert_eq!(Timestamp::from_micros(i64::MIN).before(Duration::MAX).as_micros(), i64::MIN);
        assert_eq!(Timestamp::from_micros(i64::MAX).after(Duration::MAX).as_micros(), i64::MAX);
    }
}
