//! What pauses hold: a task that waits in a paused wave is begun by no other wave either. Each wave keeps its members all the
//! same, and they have their turn when nothing holds them any more.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{TaskName, WaveId};

/// The tasks that wait in paused waves, by their keys, with the waves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<String, BTreeSet<WaveId>>);

impl Pauses {
    /// A paused wave holds the tasks that wait in it.
    pub fn hold(&mut self, wave: WaveId, tasks: impl IntoIterator<Item = String>) {
        for task in tasks {
            self.0.entry(task).or_default().insert(wave);
        }
    }

    /// The paused waves that hold a task, the oldest first.
    pub fn holding(&self, task: &TaskName) -> impl Iterator<Item = WaveId> {
        // No name is written anew where there is no pause, which is most of the time.
        let of_task = (!self.0.is_empty()).then(|| self.0.get(&task.key())).flatten();
        of_task.into_iter().flatten().copied()
    }

    /// Whether no wave is to begin a task.
    pub fn holds(&self, task: &TaskName) -> bool {
        self.holding(task).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use cooper_types::{PrincipalName, RunId, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::wave::{Member, MemberState, Wave, WaveEvent, WavePhase};

    const NOW: Timestamp = Timestamp::from_micros(5);

    fn name(task: usize) -> TaskName {
        TaskName::parse(&format!("task-{task}")).expect("valid")
    }

    #[test]
    fn a_task_is_held_as_long_as_one_paused_wave_holds_it() {
        let [one, two] = [1, 2].map(WaveId::from_number);
        let mut pauses = Pauses::default();
        assert!(!pauses.holds(&name(1)));
        pauses.hold(two, [name(1).key(), name(2).key()]);
        pauses.hold(one, [name(1).key()]);
        assert_eq!(pauses.holding(&name(1)).collect::<Vec<_>>(), [one, two]);
        assert!(pauses.holds(&TaskName::parse("TASK-2").expect("valid")) && !pauses.holds(&name(3)));
    }

    /// Tasks that stand on one base each, of which newer versions come, and the waves that follow.
    #[derive(Default)]
    struct World {
        /// What the base of each task is, what the task was built on, and how often that was.
        now: [u32; 4],
        on: [u32; 4],
        builds: [u32; 4],
        waves: Vec<Wave>,
        runs: u64,
    }

    impl World {
        fn pauses(&self) -> Pauses {
            let mut pauses = Pauses::default();
            for wave in self.waves.iter().filter(|wave| wave.phase == WavePhase::Paused) {
                let waiting = wave.members.iter().filter(|member| member.state == MemberState::Waiting);
                pauses.hold(wave.id, waiting.map(|member| member.task.key()));
            }
            pauses
        }

        /// New versions for some tasks: a wave that takes over what waits in older ones, those of paused ones excepted.
        fn push(&mut self, tasks: &[usize]) {
            let id = WaveId::from_number(self.waves.len() as u64 + 1);
            for wave in self.waves.iter_mut().filter(|wave| wave.phase != WavePhase::Paused) {
                let place = |task: &usize| wave.members.iter().position(|member| member.task == name(*task));
                let members = tasks.iter().filter_map(place).collect();
                let _ = wave.apply(WaveEvent::TakenOver { members, by: id }, NOW);
            }
            tasks.iter().for_each(|task| self.now[*task] += 1);
            let member = |task: &usize| Member {
                task: name(*task),
                level: 0,
                parents: Vec::new(),
                since: NOW,
                state: MemberState::Waiting,
            };
            self.waves.push(Wave {
                id,
                opened: NOW,
                phase: WavePhase::Running,
                finished: None,
                canceled_by: None,
                changes: Vec::new(),
                origins: BTreeSet::new(),
                cuts: Vec::new(),
                members: tasks.iter().map(member).collect(),
            });
        }

        fn is_running(&self, task: usize) -> bool {
            let runs =
                |member: &Member| member.task == name(task) && matches!(member.state, MemberState::Running { .. });
            self.waves.iter().flat_map(|wave| &wave.members).any(runs)
        }

        /// The turn of a member: it compares, and begins if something differs and no run of its task goes on.
        fn turn(&mut self, wave: usize, place: usize) {
            let member = &self.waves[wave].members[place].task;
            let task = (0..4).find(|task| name(*task) == *member).expect("a task");
            if self.on[task] == self.now[task] {
                self.waves[wave].apply(WaveEvent::Unchanged { member: place }, NOW).expect("it waits");
            } else if !self.is_running(task) {
                self.runs += 1;
                let run = RunId::from_number(self.runs);
                self.waves[wave].apply(WaveEvent::Started { member: place, run }, NOW).expect("it waits");
            }
        }

        fn end(&mut self, wave: usize, place: usize) {
            let task = (0..4).find(|task| name(*task) == self.waves[wave].members[place].task).expect("a task");
            self.on[task] = self.now[task];
            self.builds[task] += 1;
            self.waves[wave].apply(WaveEvent::Ended { member: place, failure: None }, NOW).expect("it ran");
        }

        /// Everything that can go on, one thing of it.
        fn step(&mut self, choice: usize) {
            let pauses = self.pauses();
            let mut turns = Vec::new();
            for (index, wave) in self.waves.iter().enumerate() {
                turns.extend(wave.ready(&pauses).into_iter().map(|place| (index, place, false)));
                let running = wave.members.iter().enumerate();
                let running = running.filter(|(_, member)| matches!(member.state, MemberState::Running { .. }));
                turns.extend(running.map(|(place, _)| (index, place, true)));
            }
            match turns.get(choice % turns.len().max(1)) {
                Some((wave, place, true)) => self.end(*wave, *place),
                Some((wave, place, false)) => {
                    let task = self.waves[*wave].members[*place].task.clone();
                    self.turn(*wave, *place);
                    assert!(!pauses.holds(&task));
                }
                None => {}
            }
        }
    }

    proptest! {
        #[test]
        fn nobody_is_built_twice_or_forgotten_whatever_is_paused_and_cancelled(
            choices in proptest::collection::vec((0_u8..10, any::<usize>()), 1..80),
        ) {
            let mut world = World::default();
            let mut pushes = [0; 4];
            let by = PrincipalName::parse("ann").expect("valid");
            for (kind, choice) in choices {
                let wave = choice % world.waves.len().max(1);
                let steer = |world: &mut World, event| world.waves.get_mut(wave).map(|wave| wave.apply(event, NOW));
                match kind {
                    0 | 1 => {
                        let tasks: Vec<usize> = (0..4).filter(|task| choice >> task & 1 == 1).collect();
                        tasks.iter().for_each(|task| pushes[*task] += 1);
                        world.push(&tasks);
                    }
                    2 | 3 => drop(steer(&mut world, WaveEvent::Pause)),
                    4 => drop(steer(&mut world, WaveEvent::Resume)),
                    5 => drop(steer(&mut world, WaveEvent::Cancel { by: by.clone() })),
                    _ => world.step(choice),
                }
            }
            for wave in &mut world.waves {
                let _ = wave.apply(WaveEvent::Resume, NOW);
            }
            for choice in 0..2000 {
                world.step(choice);
            }
            for wave in world.waves.iter().filter(|wave| !wave.members.is_empty()) {
                prop_assert!(wave.finished.is_some(), "{:?}", wave);
                for member in &wave.members {
                    if let MemberState::TakenOver { by } = member.state {
                        prop_assert!(by > wave.id, "what a pause holds is given to nobody");
                    }
                }
            }
            for (task, pushes) in pushes.into_iter().enumerate() {
                let newest = world.waves.iter().rev().flat_map(|wave| &wave.members).find(|member| member.task == name(task));
                let is_canceled = newest.is_some_and(|member| member.state == MemberState::Canceled);
                prop_assert!(world.on[task] == world.now[task] || is_canceled, "task {task}: {newest:?}");
                prop_assert!(world.builds[task] <= pushes, "no build without something new");
            }
        }
    }
}
