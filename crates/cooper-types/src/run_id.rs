//! Run ids in ACR's form: two letters, then a counter in base 35.

use std::fmt;

use crate::parsed::text_form;

/// ACR counts with the digits and the letters `a` to `y`: `ca9`, `caa`, … `cay`, `ca10`.
const DIGITS: &[u8; 35] = b"0123456789abcdefghijklmnopqrstuvwxy";
/// The letters before the counter, as ACR's first runs have them.
const PREFIX: &str = "ca";

/// A run's id: short, lower-case, usable inside a tag, unique in its registry and never reused.
///
/// It is made from the registry's run counter inside the transaction that accepts the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

/// Why a text is not a run id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("run id `{0}` is not `ca` followed by a number in the digits 0-9 and a-y")]
pub struct RunIdError(String);

impl RunId {
    /// The id of the run with this number; numbers start at 1.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The run's number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Parses an id; capital letters are taken as small ones, because people type ids.
    pub fn parse(text: &str) -> Result<Self, RunIdError> {
        let error = || RunIdError(text.chars().take(40).collect());
        let lower = text.to_ascii_lowercase();
        let digits = lower.strip_prefix(PREFIX).filter(|d| !d.is_empty() && !d.starts_with('0')).ok_or_else(error)?;
        let mut number: u64 = 0;
        for byte in digits.bytes() {
            let digit = DIGITS.iter().position(|d| *d == byte).ok_or_else(error)? as u64;
            number = number.checked_mul(35).and_then(|n| n.checked_add(digit)).ok_or_else(error)?;
        }
        Ok(Self(number))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::new();
        let mut rest = self.0;
        loop {
            digits.push(DIGITS[(rest % 35) as usize]);
            rest /= 35;
            if rest == 0 {
                break;
            }
        }
        f.write_str(PREFIX)?;
        digits.iter().rev().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text_form!(RunId, RunIdError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_acr_does() {
        let check = |number, text: &str| {
            assert_eq!(RunId::from_number(number).to_string(), text);
            assert_eq!(RunId::parse(text), Ok(RunId::from_number(number)));
        };
        check(1, "ca1");
        check(9, "ca9");
        check(10, "caa");
        check(34, "cay");
        check(35, "ca10");
        check(u64::MAX, &RunId::from_number(u64::MAX).to_string());
    }

    proptest::proptest! {
        #[test]
        fn text_form_round_trips(number in 1u64..) {
            let id = RunId::from_number(number);
            proptest::prop_assert_eq!(RunId::parse(&id.to_string()), Ok(id));
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "ca", "ca0", "ca01", "cb1", "caz", "ca 1", "ca1-", "cayyyyyyyyyyyyyyyyyyyy"] {
            assert!(RunId::parse(text).is_err(), "{text}");
        }
    }
}
