//! What is known of hooks beside the store: what came and left nothing there, for whom something came, whose runs may have
//! been superseded. All of it may be lost: the store is looked at as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cooper_ports::references::Reference;
use cooper_types::{HookId, PrincipalName, RunId, TaskName, Timestamp};
use tokio::sync::Notify;

use super::rooms::Rooms;

/// The most hooks of which something is remembered; who came longest ago is forgotten first.
const MOST: usize = 10_000;

/// What is known of hooks beside the store.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    /// Has the deliveries looked at: one came.
    pub(super) wake: Notify,
    /// Has forges told how runs stand: one was accepted or has ended.
    pub(crate) tell: Notify,
    /// Has superseded runs ended: a newer one was accepted.
    pub(super) newer: Notify,
    /// Room for what is large or takes long.
    pub(super) rooms: Rooms,
    /// Has hooks registered at forges: a task, its secret or its token has changed.
    pub(crate) register: Notify,
    seen: Mutex<BTreeMap<HookId, Seen>>,
    came: Mutex<BTreeMap<String, (TaskName, PrincipalName)>>,
    superseding: Mutex<BTreeSet<RunId>>,
    /// Since when something that was found by looking is tried.
    trying: Mutex<BTreeMap<(String, Reference), Timestamp>>,
}

/// What came to a hook since the server's start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How many deliveries were kept.
    pub(crate) kept: u64,
    /// How many came again that were kept already.
    pub(crate) repeated: u64,
    /// How many were signed, and none of the task's triggers listens to what they told.
    pub(crate) passed_over: u64,
    /// How many were not believed or not understood.
    pub(crate) refused: u64,
    /// When the last one came.
    pub(crate) last: Option<Timestamp>,
    /// Why the last one that was passed over or refused was.
    pub(crate) why: Option<(Timestamp, String)>,
}

impl Hooks {
    /// What came to a hook.
    pub(crate) fn seen(&self, hook: &HookId) -> Seen {
        held(&self.seen).get(hook).cloned().unwrap_or_default()
    }

    /// Notes what came to a hook that exists.
    pub(super) fn note(&self, hook: &HookId, at: Timestamp, change: impl FnOnce(&mut Seen)) {
        let mut all = held(&self.seen);
        if all.len() >= MOST && !all.contains_key(hook) {
            // Hooks go with their tasks, and nobody says so here.
            let oldest = all.iter().min_by_key(|(_, seen)| seen.last).map(|(hook, _)| hook.clone());
            oldest.map(|oldest| all.remove(&oldest));
        }
        let seen = all.entry(hook.clone()).or_default();
        seen.last = Some(at);
        change(seen);
    }

    /// Says that a delivery waits for a task, and whose it is.
    pub(super) fn come(&self, task: TaskName, whose: PrincipalName) {
        held(&self.came).insert(task.key(), (task, whose));
        self.wake.notify_one();
    }

    /// For whom deliveries came since this was asked last.
    pub(super) fn came(&self) -> Vec<(TaskName, PrincipalName)> {
        std::mem::take(&mut *held(&self.came)).into_values().collect()
    }

    /// Since when something in a task's repository is tried. What was not tried for a long time is forgotten.
    pub(super) fn tried_since(
        &self,
        task: &TaskName,
        reference: &Reference,
        now: Timestamp,
        remembered: Duration,
    ) -> Timestamp {
        let mut trying = held(&self.trying);
        trying.retain(|_, since| now.since(*since) < remembered);
        *trying.entry((task.key(), reference.clone())).or_insert(now)
    }

    /// Says that it is tried no more.
    pub(super) fn tried(&self, task: &TaskName, reference: &Reference) {
        held(&self.trying).remove(&(task.key(), reference.clone()));
    }

    /// Says that a run may take others' places.
    pub(super) fn supersedes(&self, run: RunId) {
        held(&self.superseding).insert(run);
        self.newer.notify_one();
    }

    /// Says so of a run that could not be looked at: nobody is woken.
    pub(super) fn supersedes_later(&self, run: RunId) {
        held(&self.superseding).insert(run);
    }

    /// The runs of which that was said and that nobody has looked at.
    pub(super) fn superseding(&self) -> BTreeSet<RunId> {
        std::mem::take(&mut *held(&self.superseding))
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_are_gone_are_forgotten_in_the_end() {
        let hooks = Hooks::default();
        let id = |number: usize| HookId::parse(&format!("{number:032x}")).expect("valid");
        for number in 0..=MOST {
            let at = Timestamp::from_micros(i64::try_from(number).expect("small"));
            hooks.note(&id(number), at, |seen| seen.kept += 1);
        }
        assert_eq!((hooks.seen(&id(0)).kept, hooks.seen(&id(1)).kept, hooks.seen(&id(MOST)).kept), (0, 1, 1));
    }
}
