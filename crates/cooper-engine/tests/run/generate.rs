//! Arbitrary plans and arbitrary events: mostly ones that fit the run's state, and enough that don't.

use std::time::Duration;

use cooper_engine::message::{BaseImage, Resolved, StepOutput, StepResult};
use cooper_engine::run::{PendingReason, Placement, Run, RunEvent};
use cooper_spec::plan::{Plan, Work};
use cooper_spec::source::SourcePin;
use cooper_types::{AttemptNumber, Digest, Fence};
use proptest::prelude::*;

use super::fixture::{
    Pushes, Shape, agent, build, built, by, index_of, plan, prepared, push, pushed, ran, run_of, stage, staged, test,
    wanted,
};

/// An event before it is known what the run looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) kind: Kind,
    pub(super) pick: Pick,
    /// How much later than the move before it.
    pub(super) later: Duration,
}

/// What kind of event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Offer { placement: usize, agent: u64 },
    Declined,
    Accepted,
    StepStarted,
    Resolved,
    Succeeded,
    WrongOutput,
    Failed,
    StepTimedOut,
    Lost,
    Stopped,
    Renewed,
    Replaced { agent: u64 },
    Removed { agent: u64 },
    Cancel,
    Explained { placement: usize },
    ServerStarted,
    Tick,
}

/// Which fence and attempt an event speaks of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    /// One that an agent holds, and a live attempt of it.
    Held(usize),
    /// One counted back from the newest; before the first come numbers that were never given out.
    Back(u64, u64),
}

/// Up to seven steps on one to three placements; a placement may be without steps.
pub(super) fn any_plan() -> impl Strategy<Value = Plan> {
    let shape = (any::<u8>(), any::<u8>(), any::<bool>(), any::<u8>());
    (1usize..=3, prop::collection::vec(shape, 0..=7)).prop_map(|(placements, raw)| {
        let mut shapes: Vec<Shape> = Vec::new();
        for (index, (place, bits, pushes, more)) in raw.into_iter().enumerate() {
            let after: Vec<usize> = (0..index).filter(|earlier| bits >> earlier & 1 == 1).collect();
            let placement = usize::from(place) % placements;
            let builds = |step: &usize| shapes[*step].pushes.is_none() && !shapes[*step].is_command;
            let builder = (0..index).rev().find(builds);
            let stages: Vec<usize> =
                (0..index).filter(|step| matches!(shapes[*step].pushes, Some(Pushes::Stage(_)))).collect();
            shapes.push(match builder {
                // A build's placement has its image; whatever is staged can be taken anywhere.
                Some(of) if pushes && more & 3 == 1 => {
                    Shape { ignores_errors: more & 12 == 12, ..stage(shapes[of].placement, of) }
                }
                Some(_) if pushes && more & 3 == 2 && !stages.is_empty() => index_of(placement, &stages),
                Some(_) if pushes && more & 3 == 3 && !stages.is_empty() => staged(placement, stages[0]),
                Some(of) if pushes => push(placement, of),
                Some(of) if more & 25 == 25 => test(shapes[of].placement, of),
                _ if more & 25 == 24 && !stages.is_empty() => {
                    let stage = stages[stages.len() - 1];
                    Shape { stands_on: Some(stage), ..build(placement, &[after, vec![stage]].concat()) }
                }
                _ => Shape { is_command: more & 1 == 1, ignores_errors: more & 6 == 6, ..build(placement, &after) },
            });
        }
        plan(placements, &shapes)
    })
}

/// A run of any plan, or one whose source is to be fetched.
pub(super) fn any_run() -> impl Strategy<Value = Run> {
    let fetched = prop_oneof![Just("app"), Just("app:{{.Run.Commit}}"), Just("{{.Run.Branch}}/app")]
        .prop_map(|name| wanted(name, &["repository:*:push"]).expect("it can be accepted"));
    prop_oneof![3 => any_plan().prop_map(run_of), 1 => fetched]
}

/// Events that make a run go on come more often than those that end it.
pub(super) fn any_moves() -> impl Strategy<Value = Vec<Move>> {
    let placement = 0usize..3;
    let who = 0u64..6;
    let kind = prop_oneof![
        40 => (placement.clone(), who.clone()).prop_map(|(placement, agent)| Kind::Offer { placement, agent }),
        1 => Just(Kind::Declined),
        40 => Just(Kind::Accepted),
        16 => Just(Kind::StepStarted),
        4 => Just(Kind::Resolved),
        40 => Just(Kind::Succeeded),
        1 => Just(Kind::WrongOutput),
        1 => Just(Kind::Failed),
        1 => Just(Kind::StepTimedOut),
        1 => Just(Kind::Lost),
        3 => Just(Kind::Stopped),
        16 => Just(Kind::Renewed),
        1 => who.clone().prop_map(|agent| Kind::Replaced { agent }),
        1 => who.prop_map(|agent| Kind::Removed { agent }),
        1 => Just(Kind::Cancel),
        1 => placement.prop_map(|placement| Kind::Explained { placement }),
        1 => Just(Kind::ServerStarted),
        8 => Just(Kind::Tick),
    ];
    let pick = prop_oneof![
        15 => (0usize..4).prop_map(Pick::Held),
        1 => (0u64..5, 0u64..8).prop_map(|(fence, attempt)| Pick::Back(fence, attempt)),
    ];
    let later = prop_oneof![
        80 => (0u64..1_000).prop_map(Duration::from_millis),
        4 => (3u64..30).prop_map(Duration::from_secs),
        1 => (30u64..4_000).prop_map(Duration::from_secs),
    ];
    let step = (kind, pick, later).prop_map(|(kind, pick, later)| Move { kind, pick, later });
    prop::collection::vec(step, 0..100)
}

/// The event that a move means for a run in its present state.
pub(super) fn event_of(run: &Run, step: Move) -> RunEvent {
    let (fence, attempt) = match step.pick {
        Pick::Held(nth) => held(run, nth),
        Pick::Back(fence, attempt) => {
            (Fence(run.last_fence.0.wrapping_sub(fence)), AttemptNumber(run.last_attempt.0.wrapping_sub(attempt)))
        }
    };
    let ended = |result| RunEvent::StepEnded { fence, attempt, result };
    let index = run.steps.iter().position(|step| step.state.live_attempt() == Some(attempt));
    let is_push = index.is_some_and(|index| matches!(run.plan.steps[index].work, Work::Push(_)));
    let prepares = index.is_some_and(|index| matches!(run.plan.steps[index].work, Work::Prepare(_)));
    let is_command = index.is_some_and(|index| matches!(run.plan.steps[index].work, Work::Command(_)));
    let life = |number: u64| agent(["a", "b", "c"][(number % 3) as usize], number / 3);
    let reason = "reason".to_owned();
    match step.kind {
        Kind::Offer { placement, agent } => RunEvent::Offer { placement, agent: life(agent) },
        Kind::Declined => RunEvent::Declined { fence, why: reason },
        Kind::Accepted => RunEvent::Accepted { fence, host: None },
        Kind::StepStarted => RunEvent::StepStarted { fence, attempt },
        Kind::Resolved => {
            let digest = Some(Digest::sha256(b"base"));
            let bases = vec![BaseImage { reference: "base:1".to_owned(), digest, runtime: true }];
            let resolved = Resolved { bases, context: Some(SourcePin::Commit("a".repeat(40))), tries: 2 };
            RunEvent::Resolved { fence, attempt, resolved }
        }
        Kind::Succeeded if is_push => ended(pushed(run, index.unwrap_or(0), attempt)),
        Kind::WrongOutput if !is_push => {
            ended(StepResult::Succeeded { output: StepOutput::Pushed { manifests: vec![] } })
        }
        // Of one branch in two no image name can be made.
        Kind::Succeeded if prepares => ended(prepared(if attempt.0 % 2 == 0 { "main" } else { "Feature/x" })),
        Kind::Succeeded if is_command => ended(ran()),
        Kind::Succeeded => ended(built(attempt)),
        Kind::WrongOutput if attempt.0 % 2 == 0 => ended(prepared("main")),
        Kind::WrongOutput => {
            let (image, bases) = (Digest::sha256(b"image"), Vec::new());
            ended(StepResult::Succeeded { output: StepOutput::Built { image, bases, frontend: None, context: None } })
        }
        Kind::Failed => ended(StepResult::Failed { exit_code: Some(1), reason }),
        Kind::StepTimedOut => ended(StepResult::TimedOut),
        Kind::Lost => ended(StepResult::Lost { reason }),
        Kind::Stopped => RunEvent::Stopped { fence },
        Kind::Renewed => RunEvent::Renewed { fence },
        Kind::Replaced { agent } => RunEvent::AgentReplaced { agent: life(agent) },
        Kind::Removed { agent } => RunEvent::AgentRemoved { name: life(agent).name },
        Kind::Cancel => RunEvent::CancelRequested { by: by() },
        Kind::Explained { placement } => RunEvent::Explained { placement, reason: PendingReason::NoAgent },
        Kind::ServerStarted => RunEvent::ServerStarted,
        Kind::Tick => RunEvent::Tick,
    }
}

fn held(run: &Run, nth: usize) -> (Fence, AttemptNumber) {
    let leases: Vec<_> = run
        .placements
        .iter()
        .enumerate()
        .filter_map(|(index, placement)| placement.lease().map(|lease| (index, lease.fence)))
        .collect();
    let Some((placement, fence)) = leases.get(nth % leases.len().max(1)).copied() else {
        return (run.last_fence, run.last_attempt);
    };
    let of_placement = run.steps.iter().zip(&run.plan.steps).filter(|(_, planned)| planned.placement == placement);
    let live: Vec<AttemptNumber> = of_placement.filter_map(|(step, _)| step.state.live_attempt()).collect();
    (fence, live.get(nth % live.len().max(1)).copied().unwrap_or(run.last_attempt))
}

/// Whether a placement's agent may still act on it.
pub(super) fn is_held(placement: &Placement) -> bool {
    placement.lease().is_some()
}
