//! Small runs, made by hand, and the events that move them.

use std::time::Duration;

use cooper_engine::message::{PreparedSource, PushedManifest, StepOutput, StepResult};
use cooper_engine::run::{
    AgentRef, Asked, Effect, NewRun, PendingReason, Phase, Placement, Policy, Provenance, Refusal, Run, RunEvent, Step,
    StepState,
};
use cooper_spec::plan::{
    BuildContext, BuildWork, CommandImage, CommandWork, IndexPart, Plan, PlannedPlacement, PlannedStep, PushWork,
    PushedFrom, PushedName, StagedBase, Work,
};
use cooper_spec::quick_build::{BuildSource, PlanError, QuickBuild};
use cooper_spec::source::GitSource;
use cooper_types::{
    AgentName, AttemptNumber, ContextId, Digest, Fence, ImageRef, Platform, PrincipalName, RegistryName, RunId, Scope,
    Scopes, StepId, Timestamp,
};

/// How long a step of these runs may take.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long these runs may take.
pub(super) const RUN_TIMEOUT: Duration = Duration::from_secs(3600);

/// A step: the placement that runs it, what it waits for, and the step that built what it pushes, if it is a push.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) placement: usize,
    pub(super) after: Vec<usize>,
    pub(super) pushes: Option<Pushes>,
    pub(super) is_command: bool,
    /// The step that built the image of a command.
    pub(super) runs: Option<usize>,
    /// The stage that left a build's base.
    pub(super) stands_on: Option<usize>,
    pub(super) ignores_errors: bool,
}

/// What a push step pushes.
#[derive(Clone, Debug)]
pub(super) enum Pushes {
    /// What a step built.
    Image(usize),
    /// The same, for other placements.
    Stage(usize),
    /// What a stage left.
    Staged(usize),
    /// An index of what stages left.
    Index(Vec<usize>),
}

/// Where stages leave things, and where what comes of them is pushed to.
pub(super) const SHARED: &str = "localhost:5000/shared";

pub(super) fn build(placement: usize, after: &[usize]) -> Shape {
    Shape {
        placement,
        after: after.to_vec(),
        pushes: None,
        is_command: false,
        runs: None,
        stands_on: None,
        ignores_errors: false,
    }
}

pub(super) fn command(placement: usize, after: &[usize]) -> Shape {
    Shape { is_command: true, ..build(placement, after) }
}

/// A command in the image that a step built.
pub(super) fn test(placement: usize, of: usize) -> Shape {
    Shape { runs: Some(of), ..command(placement, &[of]) }
}

/// A build that stands on what a stage left.
pub(super) fn consumer(placement: usize, stage: usize) -> Shape {
    Shape { stands_on: Some(stage), ..build(placement, &[stage]) }
}

/// A command whose failure does not matter.
pub(super) fn carefree(placement: usize, after: &[usize]) -> Shape {
    Shape { ignores_errors: true, ..command(placement, after) }
}

pub(super) fn push(placement: usize, of: usize) -> Shape {
    Shape { pushes: Some(Pushes::Image(of)), ..build(placement, &[of]) }
}

pub(super) fn stage(placement: usize, of: usize) -> Shape {
    Shape { pushes: Some(Pushes::Stage(of)), ..build(placement, &[of]) }
}

pub(super) fn staged(placement: usize, stage: usize) -> Shape {
    Shape { pushes: Some(Pushes::Staged(stage)), ..build(placement, &[stage]) }
}

pub(super) fn index_of(placement: usize, stages: &[usize]) -> Shape {
    Shape { pushes: Some(Pushes::Index(stages.to_vec())), ..build(placement, stages) }
}

pub(super) fn plan(placements: usize, shapes: &[Shape]) -> Plan {
    let steps = shapes.iter().enumerate().map(|(index, shape)| {
        let image = |text: &str| ImageRef::parse(text).expect("valid");
        let of_stages = |from: PushedFrom| {
            let names = ["v1", "v2"]
                .map(|tag| PushedName { image: image(&format!("{SHARED}:s{index}-{tag}")), from: from.clone() });
            Work::Push(PushWork::new(names.to_vec()))
        };
        let work = match &shape.pushes {
            Some(Pushes::Image(built_by)) => {
                let image = |tag: &str| image(&format!("localhost:5000/app{index}:{tag}"));
                Work::Push(PushWork::of_one(*built_by, [image("v1"), image("v2")]))
            }
            Some(Pushes::Stage(built_by)) => Work::Push(PushWork::stage_of(*built_by, [image(SHARED)])),
            Some(Pushes::Staged(stage)) => of_stages(PushedFrom::Staged(*stage)),
            Some(Pushes::Index(stages)) => {
                let part = |stage: &usize| IndexPart {
                    platform: Platform::LINUX_AMD64,
                    staged_by: *stage,
                    built_by: shapes[*stage].after[0],
                };
                of_stages(PushedFrom::Index(stages.iter().map(part).collect()))
            }
            None if shape.is_command => Work::Command(CommandWork::new(match shape.runs {
                Some(step) => CommandImage::Built { step },
                None => CommandImage::Named("busybox".to_owned()),
            })),
            None => {
                let context = ContextId::parse("c").expect("valid");
                let base = |staged_by| StagedBase { name: "base".to_owned(), image: image(SHARED), staged_by };
                let staged_bases = shape.stands_on.map(base).into_iter().collect();
                let build = BuildWork::new(BuildContext::Uploaded(context), "Dockerfile");
                Work::Build(BuildWork { staged_bases, ..build })
            }
        };
        let id = StepId::parse(&format!("s{index}")).expect("valid");
        let step = PlannedStep::new(id, shape.placement, shape.after.clone(), STEP_TIMEOUT, work);
        PlannedStep { ignore_errors: shape.ignores_errors, ..step }
    });
    let platforms = ["linux/amd64", "linux/arm64", "linux/arm/v7"];
    let placements =
        (0..placements).map(|index| PlannedPlacement::new(Platform::parse(platforms[index % 3]).expect("valid")));
    Plan { placements: placements.collect(), steps: steps.collect() }
}

/// A run as it is when it has just been accepted, at time zero.
pub(super) fn run_of(plan: Plan) -> Run {
    Run {
        id: RunId::from_number(1),
        principal: by(),
        scopes: Scopes::default(),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: cooper_types::PoolName::default_pool(),
        platform: None,
        origin: Default::default(),
        timeout: RUN_TIMEOUT,
        created: at(0),
        started: None,
        last_fence: Fence(0),
        last_attempt: AttemptNumber(0),
        losses: Vec::new(),
        phase: Phase::Live,
        placements: plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }).collect(),
        steps: plan.steps.iter().map(|_| Step::NEW).collect(),
        plan,
        source: None,
        provenance: Provenance::default(),
    }
}

/// A run whose source is to be fetched: a build of this name and a push come when it is there.
pub(super) fn wanted(image: &str, scopes: &[&str]) -> Result<Run, PlanError> {
    let new = NewRun {
        origin: Default::default(),
        principal: by(),
        scopes: Scopes(scopes.iter().map(|scope| Scope::parse(scope).expect("valid")).collect()),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: cooper_types::PoolName::default_pool(),
        asked: Asked::Build {
            build: QuickBuild {
                image_names: vec![image.to_owned()],
                push: true,
                no_cache: false,
                dockerfile: "Dockerfile".to_owned(),
                target: None,
                arguments: Vec::new(),
                labels: vec![("at".to_owned(), "{{.Run.Repository}}@{{.Run.Commit}}".to_owned())],
                secrets: Vec::new(),
                platform: Platform::LINUX_AMD64,
                platforms: Vec::new(),
                elsewhere: false,
            },
            source: BuildSource::Remote(
                GitSource::parse("https://git.example/app.git#main:sub").expect("valid").into(),
            ),
        },
        timeout: RUN_TIMEOUT,
        replay: None,
    };
    new.accept(RunId::from_number(1), at(0)).map(|accepted| accepted.run)
}

/// What a prepare step reports.
pub(super) fn prepared(branch: &str) -> StepResult {
    let output = StepOutput::Prepared(PreparedSource {
        commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        branch: Some(branch.to_owned()),
        tag: None,
        context: ContextId::parse("snapshot").expect("valid"),
        digest: Digest::sha256(b"archive"),
        size: 7,
        dockerfile: None,
        pinned: None,
        definition: None,
        files: Vec::new(),
    });
    StepResult::Succeeded { output }
}

pub(super) fn by() -> PrincipalName {
    PrincipalName::parse("ann").expect("valid")
}

/// A time, in seconds after the run was accepted.
pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(0).after(Duration::from_secs(seconds))
}

/// An agent's life; agents are told apart by name, their lives by the number.
pub(super) fn agent(name: &str, life: u64) -> AgentRef {
    AgentRef { name: AgentName::parse(name).expect("valid"), incarnation: life.to_string() }
}

/// What a build reports: no two attempts make the same image.
pub(super) fn built(attempt: AttemptNumber) -> StepResult {
    let image = Digest::sha256(format!("image of {attempt}").as_bytes());
    StepResult::Succeeded { output: StepOutput::Built { image, bases: Vec::new(), frontend: None, context: None } }
}

/// The manifest of what a step has built.
pub(super) fn manifest_of(run: &Run, build: usize) -> Option<Digest> {
    let StepState::Succeeded { output: StepOutput::Built { image, .. }, .. } = &run.steps[build].state else {
        return None;
    };
    Some(Digest::sha256(format!("manifest of {image}").as_bytes()))
}

/// What a stage left.
fn left_by(run: &Run, stage: usize) -> Option<Digest> {
    run.staged_image(stage, &ImageRef::parse(SHARED).expect("valid"))?.digest
}

pub(super) fn pushed(run: &Run, step: usize, attempt: AttemptNumber) -> StepResult {
    let nothing = || Digest::sha256(b"nothing");
    let manifests = run.tag_targets(step, attempt).into_iter().map(|target| PushedManifest {
        registry: None,
        repository: target.repository,
        staging_tag: target.staging_tag,
        digest: match &target.from {
            PushedFrom::Built(build) => manifest_of(run, *build).unwrap_or_else(nothing),
            PushedFrom::Staged(stage) => left_by(run, *stage).unwrap_or_else(nothing),
            PushedFrom::Index(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| left_by(run, part.staged_by)).collect();
                Digest::sha256(format!("index of {parts:?}").as_bytes())
            }
        },
    });
    StepResult::Succeeded { output: StepOutput::Pushed { manifests: manifests.collect() } }
}

/// What a container that ended well reports.
pub(super) fn ran() -> StepResult {
    StepResult::Succeeded { output: StepOutput::Ran { image: None } }
}

/// Ends a running step by the user's own doing.
pub(super) fn fails(run: &mut Run, seconds: u64, step: usize) -> Vec<Effect> {
    let attempt = live(run, step);
    let fence = run.placements[run.plan.steps[step].placement].lease().expect("held").fence;
    let result = StepResult::Failed { exit_code: Some(3), reason: "exit code 3".to_owned() };
    does(run, seconds, RunEvent::StepEnded { fence, attempt, result })
}

/// Applies an event that must be taken.
pub(super) fn does(run: &mut Run, seconds: u64, event: RunEvent) -> Vec<Effect> {
    run.apply(event.clone(), at(seconds), &Policy::DEFAULT).unwrap_or_else(|refusal| panic!("{event:?}: {refusal}"))
}

/// Applies an event that must be refused, and checks that nothing changed.
pub(super) fn refuses(run: &mut Run, seconds: u64, event: RunEvent) -> Refusal {
    let before = run.clone();
    let refusal = run.apply(event, at(seconds), &Policy::DEFAULT).expect_err("must be refused");
    assert_eq!(*run, before);
    refusal
}

/// Lets an agent take a placement; returns the fence.
pub(super) fn taken(run: &mut Run, seconds: u64, placement: usize, agent: &AgentRef) -> Fence {
    does(run, seconds, RunEvent::Offer { placement, agent: agent.clone() });
    let fence = run.last_fence;
    does(run, seconds, RunEvent::Accepted { fence, host: None });
    fence
}

/// The live attempt of a step.
pub(super) fn live(run: &Run, step: usize) -> AttemptNumber {
    run.steps[step].state.live_attempt().expect("the step runs")
}

/// Ends a running step well.
pub(super) fn succeeds(run: &mut Run, seconds: u64, step: usize) -> Vec<Effect> {
    let attempt = live(run, step);
    let fence = run.placements[run.plan.steps[step].placement].lease().expect("held").fence;
    let result = match run.plan.steps[step].work {
        Work::Prepare(_) => prepared("main"),
        Work::Build(_) => built(attempt),
        Work::Push(_) => pushed(run, step, attempt),
        Work::Command(_) => ran(),
    };
    does(run, seconds, RunEvent::StepEnded { fence, attempt, result })
}
