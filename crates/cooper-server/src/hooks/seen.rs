//! What is known of hooks beside the store: what came and left nothing there, for whom something came, whose runs may have
//! been superseded. All of it may be lost: the store is looked at as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cooper_ports::references::{LookWay, Reference};
use cooper_types::{HookId, PrincipalName, RunId, TaskName, Timestamp};
use tokio::sync::Notify;

use super::rooms::Rooms;

/// The most hooks of which something is remembered; who came longest ago is forgotten first.
const MOST: usize = 10_000;

/// So many deliveries of a hook that came again are remembered by name.
const AGAIN: usize = 8;

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
    /// When all repositories are looked at next, and all forges asked for pull requests; nothing while nobody does.
    planned: Mutex<Option<(Timestamp, Timestamp)>>,
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
    /// The last of those, and when they did.
    pub(crate) again: VecDeque<(String, Timestamp)>,
    /// How many were signed, and none of the task's triggers listens to what they told.
    pub(crate) passed_over: u64,
    /// How many were not believed or not understood.
    pub(crate) refused: u64,
    /// When the last one came.
    pub(crate) last: Option<Timestamp>,
    /// Why the last one that was passed over or refused was.
    pub(crate) why: Option<(Timestamp, String)>,
}

impl Seen {
    /// Notes that a delivery came again.
    pub(super) fn came_again(&mut self, delivery: String, at: Timestamp) {
        self.repeated += 1;
        self.again.retain(|(other, _)| *other != delivery);
        self.again.push_back((delivery, at));
        if self.again.len() > AGAIN {
            self.again.pop_front();
        }
    }
}

impl Hooks {
    /// What came to a hook.
    pub(crate) fn seen(&self, hook: &HookId) -> Seen {
        held(&self.seen).get(hook).cloned().unwrap_or_default()
    }

    /// When a delivery of a hook came again, if it is remembered that it did.
    pub(crate) fn again(&self, hook: &HookId, delivery: &str) -> Option<Timestamp> {
        let all = held(&self.seen);
        let (_, at) = all.get(hook)?.again.iter().find(|(other, _)| other == delivery)?;
        Some(*at)
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

    /// Says when all repositories are looked at next, and all forges asked.
    pub(super) fn plan_looks(&self, references: Timestamp, pulls: Timestamp) {
        *held(&self.planned) = Some((references, pulls));
    }

    /// When the next look is of which was said before that it would be `said`: what was said may be an earlier server's.
    pub(crate) fn next_look(&self, way: LookWay, said: Timestamp, now: Timestamp) -> Timestamp {
        let planned = held(&self.planned).map(|(references, pulls)| match way {
            LookWay::Git => references,
            LookWay::Forge => pulls,
        });
        match planned {
            Some(planned) if said < now => planned.max(now),
            Some(planned) => said.min(planned),
            None => said,
        }
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

    fn id(number: usize) -> HookId {
        HookId::parse(&format!("{number:032x}")).expect("valid")
    }

    #[test]
    fn hooks_that_are_gone_are_forgotten_in_the_end() {
        let hooks = Hooks::default();
        for number in 0..=MOST {
            let at = Timestamp::from_micros(i64::try_from(number).expect("small"));
            hooks.note(&id(number), at, |seen| seen.kept += 1);
        }
        assert_eq!((hooks.seen(&id(0)).kept, hooks.seen(&id(1)).kept, hooks.seen(&id(MOST)).kept), (0, 1, 1));
    }

    #[test]
    fn the_next_look_is_this_servers() {
        let (hooks, at) = (Hooks::default(), |second: i64| Timestamp::from_micros(second * 1_000_000));
        let next = |way, said| hooks.next_look(way, at(said), at(100));
        assert_eq!((next(LookWay::Git, 50), next(LookWay::Git, 700)), (at(50), at(700)), "nobody looks");
        hooks.plan_looks(at(130), at(160));
        for (way, planned) in [(LookWay::Git, 130), (LookWay::Forge, 160)] {
            assert_eq!([50, 700, 110].map(|said| next(way, said)), [at(planned), at(planned), at(110)], "{way:?}");
        }
    }

    #[test]
    fn few_of_those_that_came_again_are_remembered() {
        let (hooks, hook, at) = (Hooks::default(), id(1), Timestamp::from_micros);
        for number in 0..100_i64 {
            hooks.note(&hook, at(number), |seen| seen.came_again(format!("d{}", number / 2), at(number)));
        }
        let seen = hooks.seen(&hook);
        assert_eq!((seen.repeated, seen.again.len()), (100, AGAIN));
        assert_eq!(
            ["d49", "d42", "d41"].map(|delivery| hooks.again(&hook, delivery)),
            [Some(at(99)), Some(at(85)), None]
        );
        assert_eq!(hooks.again(&id(2), "d49"), None);
    }
}
