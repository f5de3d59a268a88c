//! Failpoints: named places at which a test has the process die, as a power cut would have it.
//!
//! They exist where debug assertions do, so never in a release build: there [`pass`] is nothing and [`arm`] refuses.
//! One point is armed for the life of a process, before anything else runs.

use std::fmt;

/// A place at which the process can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failpoint {
    /// A server's store is open, nothing is recovered yet.
    StoreOpened,
    /// A server has given an unfinished run's leases their time after a start; others may follow.
    LeaseExtended,
    /// A group of changes has run and is not committed.
    WriterBeforeCommit,
    /// A group of changes is durable, nobody is answered.
    WriterAfterCommit,
    /// A run is durable, its client is not answered.
    RunAccepted,
    /// A context's file has its name, no row says that it is uploaded.
    ContextRenamed,
    /// A context's row is durable, its client is not answered.
    ContextRecorded,
    /// A blob's file has its name, which is not durable yet, and no row.
    BlobRenamed,
    /// A blob's file is gone, its row still says that it is to go.
    BlobRemoved,
    /// A run's change is durable, nothing of what follows from it is sent.
    EventStored,
    /// A push is recorded and its tags have moved, nothing of what follows is sent.
    TagsPublished,
    /// A delivery of a forge is durable, and the forge is not answered.
    DeliveryKept,
    /// An instant of a timer has come, and its run is not accepted.
    InstantTaken,
    /// The receiver of an event has answered, no row says so.
    EventTaken,
    /// A wave is opened, none of its members has begun.
    WaveOpened,
    /// A change of a wave's members is durable, nothing follows from it yet.
    WaveSaved,
    /// A wave is cancelled, its runs go on.
    WaveCanceled,
    /// An agent has a context whole and has built nothing of it.
    ContextFetched,
    /// An agent has built an image and has told nobody.
    ImageBuilt,
    /// An agent has pushed to at least one repository and has told nobody.
    ImagePushed,
}

impl Failpoint {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::StoreOpened,
        Self::LeaseExtended,
        Self::WriterBeforeCommit,
        Self::WriterAfterCommit,
        Self::RunAccepted,
        Self::ContextRenamed,
        Self::ContextRecorded,
        Self::BlobRenamed,
        Self::BlobRemoved,
        Self::EventStored,
        Self::TagsPublished,
        Self::DeliveryKept,
        Self::InstantTaken,
        Self::EventTaken,
        Self::WaveOpened,
        Self::WaveSaved,
        Self::WaveCanceled,
        Self::ContextFetched,
        Self::ImageBuilt,
        Self::ImagePushed,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoreOpened => "store-opened",
            Self::LeaseExtended => "lease-extended",
            Self::WriterBeforeCommit => "writer-before-commit",
            Self::WriterAfterCommit => "writer-after-commit",
            Self::RunAccepted => "run-accepted",
            Self::ContextRenamed => "context-renamed",
            Self::ContextRecorded => "context-recorded",
            Self::BlobRenamed => "blob-renamed",
            Self::BlobRemoved => "blob-removed",
            Self::EventStored => "event-stored",
            Self::TagsPublished => "tags-published",
            Self::DeliveryKept => "delivery-kept",
            Self::InstantTaken => "instant-taken",
            Self::EventTaken => "event-taken",
            Self::WaveOpened => "wave-opened",
            Self::WaveSaved => "wave-saved",
            Self::WaveCanceled => "wave-canceled",
            Self::ContextFetched => "context-fetched",
            Self::ImageBuilt => "image-built",
            Self::ImagePushed => "image-pushed",
        }
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a failpoint is not armed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// This build has none.
    #[error("this build has no failpoints: only builds with debug assertions have")]
    NotBuiltIn,
    /// The text names none.
    #[error("`{0}` is no failpoint; write NAME or NAME@N for its Nth pass, with one of: {names}", names = names())]
    Unknown(String),
    /// One is armed.
    #[error("a failpoint is armed already")]
    Twice,
}

fn names() -> String {
    Failpoint::ALL.map(Failpoint::as_str).join(", ")
}

/// Arms one failpoint from `NAME` or `NAME@N`: the process dies when it passes it for the Nth time, the first by default.
pub fn arm(text: &str) -> Result<(), ArmError> {
    if !cfg!(debug_assertions) {
        return Err(ArmError::NotBuiltIn);
    }
    let (point, passes) = parse(text).ok_or_else(|| ArmError::Unknown(text.to_owned()))?;
    #[cfg(debug_assertions)]
    armed::set(point, passes)?;
    #[cfg(not(debug_assertions))]
    let _ = (point, passes);
    Ok(())
}

fn parse(text: &str) -> Option<(Failpoint, u64)> {
    let (name, passes) = text.split_once('@').unwrap_or((text, "1"));
    let point = Failpoint::ALL.into_iter().find(|point| point.as_str() == name)?;
    Some((point, passes.parse().ok().filter(|passes| *passes > 0)?))
}

/// Passes a point. The process dies here if it is the armed one's turn.
#[inline]
pub fn pass(point: Failpoint) {
    #[cfg(debug_assertions)]
    armed::pass(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod armed {
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{ArmError, Failpoint};

    static ARMED: OnceLock<(Failpoint, AtomicU64)> = OnceLock::new();

    pub(super) fn set(point: Failpoint, passes: u64) -> Result<(), ArmError> {
        ARMED.set((point, AtomicU64::new(passes))).map_err(|_| ArmError::Twice)
    }

    pub(super) fn pass(point: Failpoint) {
        let Some((armed, left)) = ARMED.get() else { return };
        if *armed == point && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = std::io::stderr().write_all(format!("failpoint {point}: the process dies\n").as_bytes());
            // No destructor, no flush: what a kill would leave is what is left.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_named() {
        assert_eq!(parse("run-accepted"), Some((Failpoint::RunAccepted, 1)));
        assert_eq!(parse("writer-after-commit@7"), Some((Failpoint::WriterAfterCommit, 7)));
        for wrong in ["", "run", "run-accepted@0", "run-accepted@x", "run-accepted@"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for point in Failpoint::ALL {
            assert_eq!(parse(point.as_str()), Some((point, 1)));
        }
        assert!(matches!(arm("nowhere"), Err(ArmError::Unknown(_))));
    }
}
