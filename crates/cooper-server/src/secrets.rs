//! Secrets that tasks name: where they come from, and to whose runs they are given.

use cooper_types::SecretName;

/// The largest secret that a task can name, in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 64 * 1024;

/// What a named secret is bound to when it is sealed: moved to another name, it does not open.
pub(crate) fn secret_purpose(name: &SecretName) -> String {
    format!("secret/{name}")
}
