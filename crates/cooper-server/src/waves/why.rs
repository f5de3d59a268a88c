//! Why the members of a wave are as they are, in words: what each that waits is waiting for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cooper_engine::wave::{Member, MemberState, Pauses, Wave, WavePhase};
use cooper_ports::store_error::StoreError;
use cooper_types::WaveId;

use super::{AGENTLESS, taken};
use crate::core::Core;

/// How many tasks are named that a member waits for.
const NAMED: usize = 3;

/// What the loop found of members that it has tried and lets be for now. It is lost without harm.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<BTreeMap<(WaveId, usize), String>>);

impl Waits {
    /// Writes down why a member is let be.
    pub(super) fn note(&self, member: (WaveId, usize), why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(member, why);
    }

    /// Forgets those that are let be no longer.
    pub(super) fn retain(&self, is_let_be: impl Fn(&(WaveId, usize)) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|member, _| is_let_be(member));
    }

    /// Why members of a wave are let be, by their places.
    fn of(&self, wave: WaveId) -> BTreeMap<usize, String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.range((wave, 0)..=(wave, usize::MAX)).map(|((_, place), why)| (*place, why.clone())).collect()
    }
}

/// What is around a wave that its members may wait for.
#[derive(Debug, Default)]
struct Around {
    pauses: Pauses,
    /// The members that run and whose runs wait for an agent.
    queued: BTreeSet<usize>,
    notes: BTreeMap<usize, String>,
    /// How many runs of all waves take room, and for how many there is.
    taken: usize,
    room: usize,
}

/// Why members are as they are, where there is something to be said, in their order.
pub(crate) async fn reasons(core: &Core, wave: &Wave) -> Result<Vec<Option<String>>, StoreError> {
    let mut around = Around { room: core.wave_concurrency, ..Around::default() };
    if wave.finished.is_none() {
        let heads = core.waves.open_waves(AGENTLESS).await?;
        around.taken = taken(&heads);
        for head in heads.iter().filter(|head| head.phase == WavePhase::Paused && head.id != wave.id) {
            around.pauses.hold(head.id, core.waves.waiting_in_wave(head.id).await?);
        }
        let queued = core.waves.open_waves(Duration::ZERO).await?.into_iter().find(|head| head.id == wave.id);
        around.queued = queued.into_iter().flat_map(|head| head.agentless).collect();
        around.notes = core.wave_waits.of(wave.id);
    }
    Ok(wave.members.iter().enumerate().map(|(place, member)| reason(wave, place, member, &around)).collect())
}

fn reason(wave: &Wave, place: usize, member: &Member, around: &Around) -> Option<String> {
    match &member.state {
        MemberState::Waiting => Some(waits_for(wave, place, member, around)),
        MemberState::Running { run } => around
            .queued
            .contains(&place)
            .then(|| format!("its run waits for an agent: `cooper runs show {run}` says for what")),
        MemberState::Done { .. } => None,
        MemberState::Unchanged => Some("what it stands on is what it was last built on".to_owned()),
        MemberState::TakenOver { by } => Some(format!("wave {by} does it")),
        MemberState::Failed { reason, .. } | MemberState::Skipped { reason } => Some(reason.clone()),
        MemberState::Canceled => Some(match &wave.canceled_by {
            Some(by) => format!("{by} has cancelled the wave"),
            None => "the wave was cancelled".to_owned(),
        }),
    }
}

fn waits_for(wave: &Wave, place: usize, member: &Member, around: &Around) -> String {
    if wave.phase == WavePhase::Paused {
        return format!("the wave is paused: `cooper wave resume {}` has it go on", wave.id);
    }
    let before = member.parents.iter().filter_map(|parent| wave.members.get(usize::try_from(*parent).ok()?));
    let before: Vec<&str> =
        before.filter(|parent| !parent.state.is_over()).map(|parent| parent.task.as_str()).collect();
    if !before.is_empty() {
        let more = match before.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = before.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        return format!("what it stands on is built first: {named}{more}");
    }
    let pauses: Vec<String> = around.pauses.holding(&member.task).map(|id| id.to_string()).collect();
    if let [first, ..] = &pauses[..] {
        return format!(
            "it waits in a paused wave as well, {}: `cooper wave resume {first}` or `cooper wave cancel {first}` has it go on",
            pauses.join(" and ")
        );
    }
    if let Some(note) = around.notes.get(&place) {
        return note.clone();
    }
    if around.taken >= around.room {
        let runs = if around.taken == 1 { "run goes" } else { "runs go" };
        return format!("no room: {} {runs} on in waves, and {} may (`--wave-concurrency`)", around.taken, around.room);
    }
    "its turn comes now".to_owned()
}

#[cfg(test)]
mod tests {
    use cooper_types::{PrincipalName, RunId, TaskName, Timestamp};

    use super::*;

    fn member(task: &str, parents: &[u32], state: MemberState) -> Member {
        let task = TaskName::parse(task).expect("valid");
        Member { task, level: 0, parents: parents.to_vec(), since: Timestamp::from_micros(0), state }
    }

    fn wave(phase: WavePhase, members: Vec<Member>) -> Wave {
        Wave {
            id: WaveId::from_number(2),
            opened: Timestamp::from_micros(0),
            phase,
            finished: None,
            canceled_by: PrincipalName::parse("ann").ok().filter(|_| phase == WavePhase::Canceled),
            changes: Vec::new(),
            origins: BTreeSet::new(),
            cuts: Vec::new(),
            members,
        }
    }

    #[test]
    fn everybody_that_waits_says_for_what() {
        let run = RunId::from_number(7);
        let waiting = |task: &str, parents: &[u32]| member(task, parents, MemberState::Waiting);
        let members = || {
            vec![
                member("one-1", &[], MemberState::Running { run }),
                member("two-2", &[], MemberState::Running { run }),
                waiting("three", &[0, 1]),
                waiting("paused", &[]),
                waiting("noted", &[]),
                waiting("ready", &[]),
                member("left-out", &[], MemberState::Canceled),
            ]
        };
        let mut around = Around { room: 4, taken: 2, queued: BTreeSet::from([1]), ..Around::default() };
        around.pauses.hold(WaveId::from_number(1), ["paused".to_owned()]);
        around.notes.insert(4, "run ca3 of its task goes on".to_owned());
        let of = |wave: &Wave, around: &Around, task: &str| {
            let found = wave.members.iter().enumerate().find(|(_, member)| member.task.as_str() == task);
            let (place, member) = found.expect("a member");
            reason(wave, place, member, around).unwrap_or_default()
        };
        let running = wave(WavePhase::Running, members());
        for (task, expect) in [
            ("one-1", ""),
            ("two-2", "its run waits for an agent: `cooper runs show ca7` says for what"),
            ("three", "what it stands on is built first: one-1, two-2"),
            (
                "paused",
                "it waits in a paused wave as well, w1: `cooper wave resume w1` or `cooper wave cancel w1` has it go on",
            ),
            ("noted", "run ca3 of its task goes on"),
            ("ready", "its turn comes now"),
            ("left-out", "the wave was cancelled"),
        ] {
            assert_eq!(of(&running, &around, task), expect);
        }
        around.taken = 4;
        assert_eq!(of(&running, &around, "ready"), "no room: 4 runs go on in waves, and 4 may (`--wave-concurrency`)");
        let paused = wave(WavePhase::Paused, members());
        assert_eq!(of(&paused, &around, "three"), "the wave is paused: `cooper wave resume w2` has it go on");
        let canceled = wave(WavePhase::Canceled, members());
        assert_eq!(of(&canceled, &around, "left-out"), "ann has cancelled the wave");
    }

    #[test]
    fn many_tasks_are_counted() {
        let run = RunId::from_number(7);
        let mut members: Vec<Member> =
            (0..5).map(|n| member(&format!("base-{n}"), &[], MemberState::Running { run })).collect();
        members.push(member("upper", &[0, 1, 2, 3, 4], MemberState::Waiting));
        let wave = wave(WavePhase::Running, members);
        let told = reason(&wave, 5, &wave.members[5], &Around::default()).expect("it says why");
        assert_eq!(told, "what it stands on is built first: base-0, base-1, base-2 and 2 more");
    }
}
