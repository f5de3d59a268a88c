//! The loop of what is to be done at forges, by rows that say when: done, then waited for the next or a wake-up.
//!
//! What is due, and what doing it means, is who calls it: [`super::registering`] and [`super::statuses`].

use std::sync::Arc;
use std::time::Duration;

use cooper_ports::store_error::StoreError;
use cooper_types::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

/// The longest sleep: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);
/// How long it waits after a failure of the store.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Does what is due, until cancelled. `pass` does all that is, and tells when the next will be.
pub(super) async fn keep_doing<F>(
    core: &Arc<Core>,
    shutdown: &CancellationToken,
    wake: &Notify,
    what: &str,
    pass: impl Fn() -> F,
) where
    F: Future<Output = Result<Option<Timestamp>, StoreError>>,
{
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = pass() => next,
        };
        let wait = match next {
            Ok(next) => next.map_or(LONGEST, |next| next.since(core.clock.now()).min(LONGEST)),
            Err(error) => {
                tracing::error!(error = chain(&error), "{what} can't be looked at; trying again");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
