//! Removing containers that have ended: beside the steps that come after them, where those can't tell.
//!
//! A removal takes the engine 30 to 200 ms, for which nobody has to wait. What a placement's end waits for is in its
//! tracker, and what could not be removed goes with the placement. See docs/decisions/0039.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cooper_types::StepId;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::housekeeping;
use crate::placement::Room;

/// How many removals of a placement are under way at most; a step that ends beyond it waits.
const AT_ONCE: usize = 4;

/// The containers of a placement that have ended and are still there.
#[derive(Debug)]
pub(crate) struct Leaving {
    permits: Arc<Semaphore>,
    /// The last removal of each step that had a name in a network.
    named: Mutex<HashMap<StepId, JoinHandle<()>>>,
}

/// What of a container is to be removed, by the engine's names.
pub(super) struct Remains {
    pub(super) container: Option<String>,
    /// What holds its network namespace.
    pub(super) helper: Option<String>,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), named: Mutex::default() }
    }
}

impl Leaving {
    /// Waits until an earlier container of the step has left its networks: while both are there its name means either.
    pub(super) async fn until_gone(&self, step: &StepId) {
        let earlier = self.named().remove(step);
        if let Some(earlier) = earlier {
            // One that panicked is left to the placement's end.
            let _ = earlier.await;
        }
    }

    fn named(&self) -> std::sync::MutexGuard<'_, HashMap<StepId, JoinHandle<()>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remains {
    /// Removes them beside whatever comes next.
    pub(super) async fn leave(self, room: &Arc<Room>, step: &StepId) {
        let permit = Arc::clone(&room.leaving.permits).acquire_owned().await;
        let is_named = self.helper.is_some();
        let in_room = Arc::clone(room);
        let removal = room.tasks.spawn(async move {
            self.remove(&in_room).await;
            drop(permit);
        });
        if is_named {
            room.leaving.named().insert(step.clone(), removal);
        }
    }

    /// Removes them; they are gone when this returns, unless the engine fails.
    pub(super) async fn remove(self, room: &Room) {
        let current = room.engine.current();
        // The helper first: it has the names and ports that others may want.
        for name in [self.helper, self.container].into_iter().flatten() {
            if let Err(error) = housekeeping::remove_container(&current.docker, room.engine.socket(), &name).await {
                // The container's end has its own answer; what is left goes with the placement.
                tracing::warn!(%error, name, "container is left in the engine");
            }
        }
    }
}
