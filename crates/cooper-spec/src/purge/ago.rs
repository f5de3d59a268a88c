//! Ages: whole days and a Go duration, such as `2d3h6m`.

use std::str::FromStr;
use std::time::Duration;

use cooper_types::Timestamp;

/// The greatest age: what is older by its rows is nothing that a registry has.
const LONGEST: Duration = Duration::from_secs(150 * 365 * 86400);
const DAY: u64 = 86400;

/// How old something must be at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ago(Duration);

/// A text is no age.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no age; write whole days and a duration, such as 7d, 36h or 2d3h6m")]
pub struct AgoError(String);

impl Ago {
    /// The time that something must have been changed before.
    pub fn before(self, now: Timestamp) -> Timestamp {
        now.before(self.0)
    }
}

impl FromStr for Ago {
    type Err = AgoError;

    fn from_str(text: &str) -> Result<Self, AgoError> {
        let error = || AgoError(text.chars().take(80).collect());
        let (days, rest) = match text.split_once('d') {
            Some((days, rest)) => (days.parse::<u32>().map_err(|_| error())?, rest),
            None => (0, text),
        };
        let rest = match rest {
            "" if text.is_empty() => return Err(error()),
            "" | "0" => Duration::ZERO,
            rest => go_duration(rest).ok_or_else(error)?,
        };
        let days = Duration::from_secs(u64::from(days) * DAY);
        Ok(Self(days.saturating_add(rest).min(LONGEST)))
    }
}

/// Numbers with units, as Go writes them, without a sign.
fn go_duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(end);
        if !number.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).unwrap_or(Duration::MAX);
        total = total.saturating_add(part);
        text = rest;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_days_and_go_durations() {
        for (text, seconds) in [
            ("0", 0),
            ("0d", 0),
            ("1d", 86_400),
            ("2d3h6m", 2 * 86_400 + 3 * 3600 + 6 * 60),
            ("30m", 1800),
            ("1.5h", 5400),
            ("1h0.5h", 5400),
            ("1d1ms", 86_400),
            ("99999999d", 150 * 365 * 86_400),
            ("9999999999999999999h", 150 * 365 * 86_400),
        ] {
            assert_eq!(text.parse::<Ago>().map(|ago| ago.0.as_secs()), Ok(seconds), "{text}");
        }
        // ACR takes `1.5d` for one day.
        for text in ["", "d", "1.5d", "-1d", "-1h", "1", "1w", "h", "1h3", "1.h.", ".h", "1d2d", "1 d", "10d "] {
            assert!(text.parse::<Ago>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[0-9.dhmsnuµ -]{0,12}") {
            let _ = text.parse::<Ago>();
        }
    }
}
