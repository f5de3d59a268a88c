//! Images that a build needs and cannot have: which one, and what is the matter with it.

use cooper_ports::engine::BuildFailure;

use crate::container::create::LOST_SNAPSHOT;
use crate::trace::base_of;

const UNREACHABLE: [&str; 11] = [
    "dial tcp",
    "no such host",
    "i/o timeout",
    "connection refused",
    "x509:",
    "server gave HTTP response",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
];
const DENIED: [&str; 6] = [
    "insufficient_scope",
    "pull access denied",
    "401 Unauthorized",
    "403 Forbidden",
    "authorization failed",
    "failed to authorize",
];

/// The failure of a vertex that reads an image; `None` where it reads none, or the text says something else.
pub(super) fn failure(step: &str, error: &str) -> Option<BuildFailure> {
    let reference = reference_of(step)?;
    let message = error.strip_prefix(&reference).map_or(error, |rest| rest.trim_start_matches(": "));
    let has = |needle: &str| message.contains(needle);
    let message = message.to_owned();
    if UNREACHABLE.into_iter().any(has) {
        Some(BuildFailure::BaseUnreachable { reference, message })
    } else if DENIED.into_iter().any(has) {
        Some(BuildFailure::BaseDenied { reference, message })
    } else if has("no match for platform") {
        // It ends in `not found`, too, but the image is there.
        Some(BuildFailure::Other {
            step: None,
            message: format!("base image `{reference}` is not there for this platform: {message}"),
        })
    } else if has("not found") && !has(LOST_SNAPSHOT) {
        Some(BuildFailure::BaseMissing { reference })
    } else {
        None
    }
}

/// The image that a vertex reads: its content, its metadata, or a frontend that the Dockerfile's first line names.
fn reference_of(step: &str) -> Option<String> {
    let metadata = ["[internal] load metadata for ", "resolve image config for "];
    match metadata.into_iter().find_map(|prefix| step.strip_prefix(prefix)) {
        Some(name) => Some(name.strip_prefix("docker-image://").unwrap_or(name).to_owned()),
        None => base_of(step).map(|base| base.reference),
    }
}
