//! Who is next: waves share the room, and so do the principals whose tasks are in them. A wave spans the tasks of several: one
//! with thousands of tasks keeps nobody else's waiting.

use std::collections::{BTreeMap, VecDeque};

use cooper_types::{PrincipalName, WaveId};

/// Members whose runs are asked for at a time, however long that takes.
pub(super) const ASKED_AT_ONCE: usize = 64;
/// Nobody has more than this part of the places that are free: what one principal's tasks name may be slow, and others' need
/// places, too.
const PART_OF_ONE: usize = 4;

/// Whose a task is; nobody's, where it is gone.
pub(super) type Owner = Option<PrincipalName>;

/// Members that may be tried now, and how much runs or is on its way.
#[derive(Debug, Default)]
pub(super) struct Queues {
    waiting: BTreeMap<(WaveId, Owner), VecDeque<usize>>,
    of_wave: BTreeMap<WaveId, usize>,
    of_owner: BTreeMap<Owner, usize>,
    asked_of: BTreeMap<Owner, usize>,
}

/// When whose tasks had a turn last: the turn goes round among those that have as much as each other.
#[derive(Debug, Default)]
pub(super) struct Turns {
    count: u64,
    last: BTreeMap<Owner, u64>,
}

/// A member whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) wave: WaveId,
    pub(super) owner: Owner,
    /// Its place.
    pub(super) member: usize,
}

impl Queues {
    /// Takes a member in that may be tried. Of a wave and a principal, the first that is taken in is the first to begin.
    pub(super) fn waits(&mut self, wave: WaveId, owner: Owner, member: usize) {
        self.waiting.entry((wave, owner)).or_default().push_back(member);
    }

    /// Counts one that runs.
    pub(super) fn runs(&mut self, wave: WaveId, owner: &Owner) {
        *self.of_wave.entry(wave).or_default() += 1;
        *self.of_owner.entry(owner.clone()).or_default() += 1;
    }

    /// Counts one that is being asked for.
    pub(super) fn is_asked(&mut self, wave: WaveId, owner: &Owner) {
        self.runs(wave, owner);
        *self.asked_of.entry(owner.clone()).or_default() += 1;
    }

    /// Who is next: of the principal that has least and has had no turn for longest, in the wave that has least.
    pub(super) fn next(&mut self, turns: &mut Turns) -> Option<Next> {
        let Self { waiting, of_wave, of_owner, asked_of } = self;
        let free = ASKED_AT_ONCE.saturating_sub(asked_of.values().sum());
        let may = |owner: &Owner| asked_of.get(owner).copied().unwrap_or_default() * PART_OF_ONE < free;
        let open = waiting.iter_mut().filter(|((_, owner), _)| may(owner));
        let least = |(wave, owner): &(WaveId, Owner)| {
            let last = turns.last.get(owner).copied();
            (of_owner.get(owner).copied(), last, of_wave.get(wave).copied(), *wave)
        };
        let ((wave, owner), queue) = open.min_by_key(|(key, _)| least(key))?;
        let (key, member) = ((*wave, owner.clone()), queue.pop_front());
        if queue.is_empty() {
            waiting.remove(&key);
        }
        let (wave, owner) = key;
        turns.count += 1;
        turns.last.insert(owner.clone(), turns.count);
        Some(Next { wave, owner, member: member? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Some(PrincipalName::parse(name).expect("valid"))
    }

    /// The next ones, each of which is asked for.
    fn order(queues: &mut Queues) -> Vec<String> {
        let (mut order, mut turns) = (Vec::new(), Turns::default());
        while let Some(Next { wave, owner, member }) = queues.next(&mut turns) {
            queues.is_asked(wave, &owner);
            order.push(format!("{wave} {} {member}", owner.map_or_else(String::new, |owner| owner.to_string())));
        }
        order
    }

    #[test]
    fn who_has_least_is_next() {
        let (one, two) = (WaveId::from_number(1), WaveId::from_number(2));
        let mut queues = Queues::default();
        for member in 0..4 {
            queues.waits(one, owner("ann"), member);
        }
        queues.waits(two, owner("ann"), 0);
        queues.waits(one, owner("bob"), 7);
        queues.waits(one, None, 9);
        queues.runs(one, &owner("bob"));
        let expected = ["w2 ann 0", "w1  9", "w1 bob 7", "w1 ann 0", "w1 ann 1", "w1 ann 2", "w1 ann 3"];
        assert_eq!(order(&mut queues), expected);
        assert!(queues.waiting.is_empty());
    }

    #[test]
    fn nobody_has_all_places() {
        let wave = WaveId::from_number(1);
        let mut queues = Queues::default();
        for member in 0..100 {
            queues.waits(wave, owner("ann"), member);
        }
        assert_eq!(order(&mut queues).len(), 13);
        queues.waits(wave, owner("bob"), 100);
        assert_eq!(order(&mut queues), ["w1 bob 100"]);
    }

    #[test]
    fn whoever_comes_later_has_a_place_whatever_others_have_taken() {
        let wave = WaveId::from_number(1);
        let mut queues = Queues::default();
        for one in 0..15 {
            for member in 0..100 {
                queues.waits(wave, owner(&format!("slow-{one}")), member);
            }
            assert!(!order(&mut queues).is_empty(), "{one}");
        }
        assert_eq!(queues.asked_of.values().sum::<usize>(), ASKED_AT_ONCE);
    }

    #[test]
    fn the_turn_goes_round() {
        let (wave, mut turns) = (WaveId::from_number(1), Turns::default());
        let mut had = Vec::new();
        for member in 0..6 {
            // There is one place, and it is free again each time.
            let mut queues = Queues::default();
            for name in ["ann", "bob", "cid"] {
                queues.waits(wave, owner(name), member);
            }
            had.extend(queues.next(&mut turns).and_then(|next| next.owner).map(|owner| owner.to_string()));
        }
        assert_eq!(had, ["ann", "bob", "cid", "ann", "bob", "cid"]);
    }
}
