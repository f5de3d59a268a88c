//! What may begin in a wave, and what an event makes of it.

use std::collections::BTreeSet;

use cooper_types::{RunId, Timestamp, WaveId};

use super::{MemberState, Wave, WavePhase};

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
        /// What went wrong, in a line; nothing if it succeeded.
        failure: Option<String>,
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
    Cancel,
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
    /// The members that may begin now, in their order and as many as there is room for.
    pub fn ready(&self) -> Vec<usize> {
        self.candidates(0).take(self.room()).collect()
    }

    /// How many more members may run.
    pub fn room(&self) -> usize {
        let running = self.members.iter().filter(|member| matches!(member.state, MemberState::Running { .. })).count();
        usize::try_from(self.limit.max(1)).unwrap_or(usize::MAX).saturating_sub(running)
    }

    /// The members from a place on whose turn has come, whether there is room or not.
    pub fn candidates(&self, from: usize) -> impl Iterator<Item = usize> {
        let goes_on = |parent: &u32| {
            let parent = usize::try_from(*parent).ok().and_then(|parent| self.members.get(parent));
            parent.is_none_or(|parent| parent.state.lets_go_on())
        };
        let is_running = self.phase == WavePhase::Running;
        let members = self.members.iter().enumerate().skip(from).filter(move |_| is_running);
        members
            .filter(move |(_, member)| member.state == MemberState::Waiting && member.parents.iter().all(goes_on))
            .map(|(place, _)| place)
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
                self.put(member, MemberState::Running { run })
            }
            WaveEvent::Unchanged { member } => {
                self.waiting(member)?;
                self.put(member, MemberState::Unchanged)
            }
            WaveEvent::NotStarted { member, reason } => {
                self.waiting(member)?;
                self.put(member, MemberState::Failed { run: None, reason })
            }
            WaveEvent::Gone { member, reason } => {
                self.waiting(member)?;
                self.put(member, MemberState::Skipped { reason })
            }
            WaveEvent::Ended { member, failure } => {
                let Some(MemberState::Running { run }) = self.members.get(member).map(|member| &member.state) else {
                    return Err(WaveRefusal::Member);
                };
                let run = *run;
                match failure {
                    None => self.put(member, MemberState::Done { run }),
                    Some(reason) => self.put(member, MemberState::Failed { run: Some(run), reason }),
                }
            }
            WaveEvent::TakenOver { members, by } => {
                let mut changed = Vec::new();
                for member in members {
                    if self.waiting(member).is_ok() {
                        changed.extend(self.put(member, MemberState::TakenOver { by }));
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
            WaveEvent::Cancel => {
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

    /// Gives a member a state, and has those skipped that waited for one that failed.
    fn put(&mut self, member: usize, state: MemberState) -> Vec<usize> {
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
            if other.parents.iter().any(|parent| blocked.contains(parent)) {
                blocked.extend(u32::try_from(index).ok());
                if other.state == MemberState::Waiting {
                    let reason = format!("task {task}, which it stands on, was not built");
                    self.members[index].state = MemberState::Skipped { reason };
                    changed.push(index);
                }
            }
        }
        changed
    }
}
