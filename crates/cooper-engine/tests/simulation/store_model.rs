//! What survives a crash: runs, live attempts, staged and real tags, logs. Each change is whole or not at all.

use std::collections::BTreeMap;

use cooper_engine::run::{Effect, Policy, Refusal, Run, RunEvent, TagTarget};
use cooper_types::{AttemptNumber, ContextId, RepositoryName, RunId, Tag, Timestamp};

/// The durable state.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) runs: BTreeMap<RunId, Run>,
    live: BTreeMap<(RunId, AttemptNumber), usize>,
    staged: BTreeMap<(RepositoryName, Tag), (RunId, AttemptNumber)>,
    /// What attempts uploaded.
    snapshots: BTreeMap<ContextId, (RunId, AttemptNumber)>,
    /// Each planning of a run, by the attempt that it stands on.
    pub(super) plannings: Vec<(RunId, AttemptNumber, ContextId)>,
    pub(super) moves: Vec<TagMove>,
    pub(super) logs: BTreeMap<RunId, Log>,
    last_run: u64,
    commits: u64,
    /// The newest time that was written down: a clock never starts before it.
    pub(super) newest: Option<Timestamp>,
}

/// A tag that was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagMove {
    pub(super) run: RunId,
    pub(super) step: usize,
    pub(super) attempt: AttemptNumber,
    pub(super) repository: RepositoryName,
    pub(super) tag: Tag,
    /// The transaction that moved it.
    pub(super) commit: u64,
}

/// A run's log.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Frame(AttemptNumber, u64),
    Line,
    Gap,
    /// Not shown to anybody: where an attempt ended, for the oracle.
    AttemptEnded(AttemptNumber),
}

/// Why an event was not stored.
#[derive(Debug)]
pub(super) enum ApplyError {
    Unknown,
    Refused(Refusal),
    NotPushed,
    /// The server is down: nobody is there to store anything.
    Down,
}

/// Why frames were not stored.
#[derive(Debug)]
pub(super) enum AppendError {
    Over,
    Hole(u64),
}

impl Store {
    pub(super) fn accept(&mut self, now: Timestamp, make: impl FnOnce(RunId) -> Run) -> RunId {
        self.last_run += 1;
        self.newest = Some(now);
        let id = RunId::from_number(self.last_run);
        self.runs.insert(id, make(id));
        self.logs.insert(id, Log::default());
        id
    }

    pub(super) fn unfinished(&self) -> Vec<Run> {
        self.runs.values().filter(|run| run.finished().is_none()).cloned().collect()
    }

    /// One transaction: the new state and every effect that belongs to it.
    pub(super) fn apply(
        &mut self,
        id: RunId,
        event: RunEvent,
        now: Timestamp,
        policy: &Policy,
    ) -> Result<(Run, Vec<Effect>), ApplyError> {
        let mut run = self.runs.get(&id).ok_or(ApplyError::Unknown)?.clone();
        let effects = run.apply(event, now, policy).map_err(ApplyError::Refused)?;
        // Looked at before anything is written, so that an error leaves nothing behind.
        for effect in &effects {
            if let Effect::Planned { attempt, context, .. } = effect
                && self.snapshots.get(context) != Some(&(id, *attempt))
            {
                return Err(ApplyError::NotPushed);
            }
            if let Effect::PublishTags { attempt, targets, .. } | Effect::KeepStaged { attempt, targets, .. } = effect {
                for target in targets {
                    let key = (target.repository.clone(), target.staging_tag.clone());
                    if self.staged.get(&key) != Some(&(id, *attempt)) {
                        return Err(ApplyError::NotPushed);
                    }
                }
            }
        }
        self.commits += 1;
        self.newest = Some(now);
        self.runs.insert(id, run.clone());
        for effect in &effects {
            self.effect(id, effect);
        }
        Ok((run, effects))
    }

    fn effect(&mut self, run: RunId, effect: &Effect) {
        let log = self.logs.entry(run).or_default();
        match effect {
            Effect::AttemptBegan { step, attempt, .. } => {
                self.live.insert((run, *attempt), *step);
            }
            Effect::AttemptEnded { step, attempt } => {
                self.live.remove(&(run, *attempt));
                let kept = self.runs.get(&run).is_some_and(|state| state.keeps_staged(*step, *attempt));
                self.staged.retain(|_, owner| *owner != (run, *attempt) || kept);
                log.entries.push(Entry::AttemptEnded(*attempt));
            }
            Effect::PublishTags { step, attempt, targets } => {
                for target in targets {
                    self.moves.extend(target.tags.iter().map(|tag| TagMove {
                        run,
                        step: *step,
                        attempt: *attempt,
                        repository: target.repository.clone(),
                        tag: tag.clone(),
                        commit: self.commits,
                    }));
                }
            }
            Effect::Planned { attempt, context, .. } => self.plannings.push((run, *attempt, context.clone())),
            Effect::LogLine(_) => log.entries.push(Entry::Line),
            Effect::LogGap(_) => log.entries.push(Entry::Gap),
            Effect::Finished => log.complete = true,
            Effect::BasesResolved { .. }
            | Effect::KeepStaged { .. }
            | Effect::KeepCache { .. }
            | Effect::KeepSecrets(_)
            | Effect::KeepTexts(_)
            | Effect::SendOffer { .. }
            | Effect::SendStart { .. }
            | Effect::SendResultStored { .. }
            | Effect::SendStop { .. } => {}
        }
    }

    pub(super) fn is_live(&self, run: RunId, attempt: AttemptNumber) -> bool {
        self.live.contains_key(&(run, attempt))
    }

    pub(super) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Staged tags that nobody keeps.
    pub(super) fn staged_count(&self) -> usize {
        let kept = |(run, attempt): &(RunId, AttemptNumber)| {
            let run = &self.runs[run];
            (0..run.steps.len()).any(|step| run.keeps_staged(step, *attempt))
        };
        self.staged.values().filter(|owner| !kept(owner)).count()
    }

    /// Whether an attempt has this staged tag.
    pub(super) fn has_staged(&self, run: RunId, attempt: AttemptNumber, target: &TagTarget) -> bool {
        self.staged.get(&(target.repository.clone(), target.staging_tag.clone())) == Some(&(run, attempt))
    }

    /// A push under an attempt's staging tag; the caller has checked the attempt, in the same transaction.
    pub(super) fn stage(&mut self, run: RunId, attempt: AttemptNumber, repository: RepositoryName, staging_tag: Tag) {
        self.staged.insert((repository, staging_tag), (run, attempt));
    }

    /// An attempt's upload; the caller has checked the attempt, in the same transaction.
    pub(super) fn upload(&mut self, run: RunId, attempt: AttemptNumber) -> ContextId {
        let id = ContextId::parse(&format!("{run}-{attempt}")).expect("valid");
        self.snapshots.insert(id.clone(), (run, attempt));
        id
    }

    /// Appends frames of a live attempt, as the real store does. Returns the last one that is durable.
    pub(super) fn append(
        &mut self,
        run: RunId,
        attempt: AttemptNumber,
        first: u64,
        count: u64,
    ) -> Result<u64, AppendError> {
        if !self.is_live(run, attempt) {
            return Err(AppendError::Over);
        }
        let log = self.logs.entry(run).or_default();
        let is_own = |entry: &&Entry| matches!(entry, Entry::Frame(of, _) if *of == attempt);
        let last = log.entries.iter().filter(is_own).count() as u64;
        if first > last + 1 {
            return Err(AppendError::Hole(last));
        }
        for sequence in last + 1..first + count {
            log.entries.push(Entry::Frame(attempt, sequence));
        }
        Ok(last.max(first + count - 1))
    }
}
