//! Names of stored tasks.

use std::fmt;

use crate::parsed::text_form;

/// The fewest characters of a name, as in ACR.
const MIN: usize = 5;
/// The most.
const MAX: usize = 50;

/// The name of a stored task: 5 to 50 letters, digits, `-` and `_`. It is kept as it was written, and unique without regard
/// to case: [`TaskName::key`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName(Box<str>);

/// Why a text is no task's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("task name `{0}` must be {MIN} to {MAX} characters of letters, digits, `-` and `_`")]
pub struct TaskNameError(String);

impl TaskName {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, TaskNameError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !(MIN..=MAX).contains(&text.len()) || !text.chars().all(is_allowed) {
            return Err(TaskNameError(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two names have in common that can't both be there.
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(TaskName, TaskNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_acrs_form() {
        for good in ["build", "a-b_C", "12345", &"x".repeat(50)] {
            assert_eq!(TaskName::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "four", &"x".repeat(51), "with space", "dot.dot", "bü-ild", "a/b/c/d"] {
            assert!(TaskName::parse(bad).is_err(), "{bad}");
        }
        let (one, other) = (TaskName::parse("Nightly").expect("valid"), TaskName::parse("nightLY").expect("valid"));
        assert_ne!(one, other);
        assert_eq!(one.key(), other.key());
    }
}
