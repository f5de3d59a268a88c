//! What came to hooks and left nothing in the store: counted, and the last of it remembered for who looks for a fault.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cooper_types::{HookId, Timestamp};
use tokio::sync::{Notify, Semaphore};

/// Bodies of deliveries that are read at a time: each may be large.
const READ_AT_ONCE: usize = 32;

/// What is known of hooks beside the store.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Has the deliveries looked at: one came.
    pub(crate) wake: Notify,
    /// Has forges told how runs stand: one was accepted or has ended.
    pub(crate) tell: Notify,
    /// Room for bodies.
    pub(super) room: Semaphore,
    seen: Mutex<BTreeMap<HookId, Seen>>,
}

/// What came to a hook since the server's start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How many deliveries were kept.
    pub(crate) kept: u64,
    /// How many were signed, and none of the task's triggers listens to what they told.
    pub(crate) passed_over: u64,
    /// How many were not believed or not understood.
    pub(crate) refused: u64,
    /// When the last one came.
    pub(crate) last: Option<Timestamp>,
    /// Why the last one that was passed over or refused was.
    pub(crate) why: Option<(Timestamp, String)>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { wake: Notify::new(), tell: Notify::new(), room: Semaphore::new(READ_AT_ONCE), seen: Mutex::default() }
    }
}

impl Hooks {
    /// What came to a hook.
    pub(crate) fn seen(&self, hook: &HookId) -> Seen {
        self.all().get(hook).cloned().unwrap_or_default()
    }

    /// Notes what came to a hook that exists: there are no more entries than such hooks.
    pub(super) fn note(&self, hook: &HookId, at: Timestamp, change: impl FnOnce(&mut Seen)) {
        let mut all = self.all();
        let seen = all.entry(hook.clone()).or_default();
        seen.last = Some(at);
        change(seen);
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<HookId, Seen>> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
