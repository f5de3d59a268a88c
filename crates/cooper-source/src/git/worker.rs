//! The blocking parts of a fetch: on tokio's blocking threads, told to stop when the fetch ends, waited for.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::GitError;

/// How long the end of a fetch waits for its threads. They look at the flag between files and between objects.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// The threads of one fetch.
#[derive(Debug)]
pub(super) struct Workers {
    tracker: TaskTracker,
    stop: Arc<AtomicBool>,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self { tracker: TaskTracker::new(), stop: Arc::new(AtomicBool::new(false)) }
    }

    /// Runs blocking work to its end. The work gets a flag that says that nobody wants its result any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> Result<T, GitError> + Send + 'static,
    ) -> Result<T, GitError> {
        let stop = Arc::clone(&self.stop);
        match self.tracker.spawn_blocking(move || work(&stop)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // Only a runtime that is shutting down cancels blocking work.
                Err(_) => Err(GitError::Cancelled),
            },
        }
    }

    /// Ends the work that is left, and waits a moment for it.
    pub(super) async fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tracker.close();
        // A thread that is still busy can do no harm but fail on a directory that is gone.
        drop(tokio::time::timeout(LEAVE_TIME, self.tracker.wait()).await);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Ends work that nobody waits for.
pub(super) fn check(stop: &AtomicBool) -> Result<(), GitError> {
    if stop.load(Ordering::Relaxed) { Err(GitError::Cancelled) } else { Ok(()) }
}
