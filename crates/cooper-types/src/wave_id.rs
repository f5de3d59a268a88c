//! Ids of waves: a `w` and a counter.

use std::fmt;

use crate::parsed::text_form;

/// A wave's id, unique in its registry and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaveId(u64);

/// Why a text is not a wave's id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("wave id `{0}` is not `w` followed by a number")]
pub struct WaveIdError(String);

impl WaveId {
    /// The id of the wave with this number; numbers start at 1.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The wave's number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Parses an id; a capital letter is taken as a small one, because people type ids.
    pub fn parse(text: &str) -> Result<Self, WaveIdError> {
        let error = || WaveIdError(text.chars().take(40).collect());
        let digits = text.strip_prefix(['w', 'W']).ok_or_else(error)?;
        if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error());
        }
        digits.parse().map(Self).map_err(|_| error())
    }
}

impl fmt::Display for WaveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

impl fmt::Debug for WaveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_form!(WaveId, WaveIdError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_shown() {
        for (number, text) in [(1, "w1"), (420, "w420"), (u64::MAX, "w18446744073709551615")] {
            assert_eq!(WaveId::from_number(number).to_string(), text);
            assert_eq!(WaveId::parse(&text.to_uppercase()), Ok(WaveId::from_number(number)));
        }
        for text in ["", "w", "w0", "w01", "w-1", "w1 ", "1", "w18446744073709551616"] {
            assert!(WaveId::parse(text).is_err(), "{text}");
        }
    }
}
