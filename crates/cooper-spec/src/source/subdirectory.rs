//! A directory inside a source, as a user writes it behind the source's name.

use std::fmt;

use super::error::{SubdirectoryError, shown};

/// The longest subdirectory, in bytes.
pub(super) const MAX_SUBDIRECTORY_LEN: usize = 1024;

/// A directory inside a source: relative, with `/` between its parts, without empty, `.` or `..` parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subdirectory(String);

impl Subdirectory {
    /// Reads a directory's path; nothing for the root itself. A leading `/` means the source's root, as with docker.
    pub fn parse(text: &str) -> Result<Option<Self>, SubdirectoryError> {
        if text.len() > MAX_SUBDIRECTORY_LEN {
            return Err(SubdirectoryError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(SubdirectoryError::Control);
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(SubdirectoryError::Parent(shown(text)));
        }
        Ok((!parts.is_empty()).then(|| Self(parts.join("/"))))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subdirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
