//! What may begin in a wave, and what an event makes of it.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{PrincipalName, RunId, TaskName, Timestamp, WaveId};

use super::{Apart, MemberState, Pauses, PlannedMember, Wave, WavePhase};

/// What happens to a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveEvent {
    /// A member's run was accepted.
    Started {
        /// The member's place.
        member: usize,
        /// The run.
        run: RunId,
    },
    /// A member's bases are what they were when it was last built.
    Unchanged {
        /// The member's place.
        member: usize,
    },
    /// A member can't have a run.
    NotStarted {
        /// The member's place.
        member: usize,
        /// Why, in a line.
        reason: String,
    },
    /// A member's task is gone, or follows its bases no longer.
    Gone {
        /// The member's place.
        member: usize,
        /// Why, in a line.
        reason: String,
    },
    /// A member's run ended.
    Ended {
        /// The member's place.
        member: usize,
        /// What went wrong; nothing if it succeeded.
        failure: Option<RunFailure>,
    },
    /// A newer wave has these members as well; those of them that wait are its now.
    TakenOver {
        /// The members' places.
        members: Vec<usize>,
        /// The wave.
        by: WaveId,
    },
    /// No member is to begin for now.
    Pause,
    /// Members may begin again.
    Resume,
    /// No member is to begin any more.
    Cancel {
        /// Who says so.
        by: PrincipalName,
    },
}

/// How a member's run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// What went wrong, in a line.
    pub reason: String,
    /// Whether it had moved a tag by then.
    pub pushed: bool,
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaveRefusal {
    /// There is no such member, or it is not in a state for this.
    #[error("the member is not in a state for that")]
    Member,
    /// It has been cancelled.
    #[error("it was cancelled")]
    Canceled,
    /// All its members have ended.
    #[error("it is over")]
    Over,
}

impl Wave {
    /// The members whose turn has come, in the order in which they are to begin: whose task has waited longest comes first, or
    /// those at the end would never be built where waves come faster than they can be done. Whom a pause holds, this wave's or
    /// another one's, is not among them.
    pub fn ready(&self, pauses: &Pauses) -> Vec<usize> {
        let goes_on = |parent: &u32| {
            let parent = usize::try_from(*parent).ok().and_then(|parent| self.members.get(parent));
            parent.is_none_or(|parent| parent.state.lets_go_on())
        };
        if self.phase != WavePhase::Running {
            return Vec::new();
        }
        let members = self.members.iter().enumerate();
        let mut ready: Vec<usize> = members
            .filter(|(_, member)| member.state == MemberState::Waiting && member.parents.iter().all(goes_on))
            .filter(|(_, member)| !pauses.holds(&member.task))
            .map(|(place, _)| place)
            .collect();
        ready.sort_by_key(|place| (self.members[*place].since, *place));
        ready
    }

    /// How many members run.
    pub fn running(&self) -> usize {
        self.members.iter().filter(|member| matches!(member.state, MemberState::Running { .. })).count()
    }

    /// Which tasks stand apart from what a member's run sets off by its pushes: those whose runs led to it, and those that have
    /// their turn in this wave still, or that it has left out. `built` is the newest run of each of the latter that says what it
    /// stands on, if that began after the wave was opened: one that was built since follows what is pushed after that.
    pub fn apart(&self, task: &TaskName, built: &BTreeMap<String, RunId>) -> Apart {
        let key = task.key();
        let mut origins = self.origins.clone();
        if let Some(place) = self.members.iter().position(|member| member.task.key() == key) {
            // Members stand after their parents, so one look back is enough.
            let mut before = BTreeSet::from([place]);
            while let Some(place) = before.pop_last() {
                let Some(member) = self.members.get(place) else { continue };
                before.extend(member.parents.iter().filter_map(|parent| usize::try_from(*parent).ok()));
                origins.insert(member.task.key());
            }
        }
        origins.insert(key);
        let mut dealt_with = BTreeSet::new();
        for (place, member) in self.members.iter().enumerate() {
            let key = member.task.key();
            let is_dealt_with = match &member.state {
                MemberState::Waiting => true,
                MemberState::Canceled => !built.contains_key(&key),
                // One that was left out for what its task was may follow by now.
                MemberState::Skipped { .. } => {
                    self.stopping(place).next().is_some()
                        && !built.get(&key).is_some_and(|run| self.is_after(*run, place))
                }
                _ => false,
            };
            if is_dealt_with {
                dealt_with.insert(key);
            }
        }
        Apart { dealt_with, origins }
    }

    /// The members that a member waits for and that keep it from beginning.
    fn stopping(&self, place: usize) -> impl Iterator<Item = usize> {
        let parents = self.members.get(place).into_iter().flat_map(|member| &member.parents);
        let parents = parents.filter_map(|parent| usize::try_from(*parent).ok());
        parents.filter(|parent| {
            self.members.get(*parent).is_some_and(|parent| parent.state.is_over() && !parent.state.lets_go_on())
        })
    }

    /// Whether a run was accepted after those that failed, so that a member was left out.
    fn is_after(&self, run: RunId, place: usize) -> bool {
        let mut before: BTreeSet<usize> = self.stopping(place).collect();
        while let Some(place) = before.pop_last() {
            if self.members[place].state.run().is_some_and(|failed| run < failed) {
                return false;
            }
            before.extend(self.stopping(place));
        }
        true
    }

    /// The members of a wave that tries again what came to nothing in this one, in its order.
    pub fn again(&self) -> Vec<PlannedMember> {
        let mut again: Vec<PlannedMember> = Vec::new();
        let mut places = vec![None; self.members.len()];
        for (place, member) in self.members.iter().enumerate() {
            let (MemberState::Failed { .. } | MemberState::Skipped { .. } | MemberState::Canceled) = member.state
            else {
                continue;
            };
            let parents = member.parents.iter().filter_map(|parent| places.get(*parent as usize).copied().flatten());
            let parents: Vec<u32> = parents.collect();
            let level = |parent: &u32| again.get(*parent as usize).map_or(0, |parent| parent.level + 1);
            let level = parents.iter().map(level).max().unwrap_or_default();
            places[place] = u32::try_from(again.len()).ok();
            again.push(PlannedMember { task: member.task.clone(), level, parents, images: Vec::new() });
        }
        again
    }

    /// Takes an event in, and says whose states changed. A refused one changes nothing.
    pub fn apply(&mut self, event: WaveEvent, now: Timestamp) -> Result<Vec<usize>, WaveRefusal> {
        if self.finished.is_some() {
            return Err(WaveRefusal::Over);
        }
        let changed = match event {
            WaveEvent::Started { member, run } => {
                if self.phase == WavePhase::Canceled {
                    return Err(WaveRefusal::Canceled);
                }
                self.waiting(member)?;
                self.put(member, MemberState::Running { run }, false)
            }
            WaveEvent::Unchanged { member } => {
                self.waiting(member)?;
                self.put(member, MemberState::Unchanged, false)
            }
            WaveEvent::NotStarted { member, reason } => {
                self.waiting(member)?;
                self.put(member, MemberState::Failed { run: None, reason }, false)
            }
            WaveEvent::Gone { member, reason } => {
                self.waiting(member)?;
                self.put(member, MemberState::Skipped { reason }, false)
            }
            WaveEvent::Ended { member, failure } => {
                let Some(MemberState::Running { run }) = self.members.get(member).map(|member| &member.state) else {
                    return Err(WaveRefusal::Member);
                };
                let run = *run;
                match failure {
                    None => self.put(member, MemberState::Done { run }, false),
                    Some(RunFailure { reason, pushed }) => {
                        self.put(member, MemberState::Failed { run: Some(run), reason }, pushed)
                    }
                }
            }
            WaveEvent::TakenOver { members, by } => {
                let mut changed = Vec::new();
                for member in members {
                    if self.waiting(member).is_ok() {
                        changed.extend(self.put(member, MemberState::TakenOver { by }, false));
                    }
                }
                changed
            }
            WaveEvent::Pause | WaveEvent::Resume if self.phase == WavePhase::Canceled => {
                return Err(WaveRefusal::Canceled);
            }
            WaveEvent::Pause => {
                self.phase = WavePhase::Paused;
                Vec::new()
            }
            WaveEvent::Resume => {
                self.phase = WavePhase::Running;
                Vec::new()
            }
            WaveEvent::Cancel { .. } if self.phase == WavePhase::Canceled => Vec::new(),
            WaveEvent::Cancel { by } => {
                self.canceled_by = Some(by);
                self.phase = WavePhase::Canceled;
                let waiting = (0..self.members.len()).filter(|index| self.waiting(*index).is_ok());
                let waiting: Vec<usize> = waiting.collect();
                for index in &waiting {
                    self.members[*index].state = MemberState::Canceled;
                }
                waiting
            }
        };
        if self.members.iter().all(|member| member.state.is_over()) {
            self.finished = Some(now);
        }
        Ok(changed)
    }

    fn waiting(&self, member: usize) -> Result<(), WaveRefusal> {
        match self.members.get(member).map(|member| &member.state) {
            Some(MemberState::Waiting) => Ok(()),
            Some(_) | None => Err(WaveRefusal::Member),
        }
    }

    /// Gives a member a state, and has those skipped that waited for one that failed. `pushed` says whether that moved a tag all
    /// the same.
    fn put(&mut self, member: usize, state: MemberState, pushed: bool) -> Vec<usize> {
        let blocks = state.is_over() && !state.lets_go_on();
        self.members[member].state = state;
        let mut changed = vec![member];
        if !blocks {
            return changed;
        }
        let task = self.members[member].task.clone();
        let mut blocked: BTreeSet<u32> = u32::try_from(member).into_iter().collect();
        // Members stand after their parents, so one look is enough.
        for index in member + 1..self.members.len() {
            let other = &self.members[index];
            // One that another wave does, or that has ended, stops nobody.
            if other.state == MemberState::Waiting && other.parents.iter().any(|parent| blocked.contains(parent)) {
                blocked.extend(u32::try_from(index).ok());
                let reason = match pushed {
                    false => format!("task {task}, which it stands on, was not built"),
                    true => format!(
                        "task {task}, which it stands on, has pushed and failed after that: this one is not built on it; \
                         `cooper wave retry {}` tries both again",
                        self.id
                    ),
                };
                self.members[index].state = MemberState::Skipped { reason };
                changed.push(index);
            }
        }
        changed
    }
}
