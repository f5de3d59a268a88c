//! People: they start runs, and some they cancel.

use std::time::Duration;

use cooper_engine::run::{Asked, NewRun, PendingReason, Phase, Placement, Run, RunEvent, Step};
use cooper_spec::plan::{
    BuildContext, BuildWork, CommandImage, CommandWork, IndexPart, Plan, PlannedPlacement, PlannedStep, PushWork,
    PushedFrom, PushedName, Work,
};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_spec::source::GitSource;
use cooper_types::{
    AttemptNumber, ContextId, Fence, ImageRef, Platform, PrincipalName, RegistryName, RunId, Scope, Scopes, StepId,
    Timestamp,
};

use super::random::Random;
use super::store_model::ApplyError;
use super::world::{Event, Sabotage, World};

impl World {
    pub(super) fn user_starts(&mut self) {
        if !self.server.up || self.disk_full {
            // Refused: the person tries again.
            let later = self.random.millis(500, 3_000);
            return self.after(later, Event::UserStarts);
        }
        let now = self.store_clock();
        let timeout = self.random.millis(40_000, 400_000);
        let mut random = self.random.clone();
        let before = self.store.clone();
        let id = self.store.accept(now, |id| run(id, now, timeout, &mut random));
        self.random = random;
        if self.sabotage == Sabotage::AnswerBeforeCommit && self.random.chance(300) {
            self.server_crash();
            self.store = before;
        }
        if !self.crash_point() || self.sabotage == Sabotage::AnswerBeforeCommit {
            self.note(format_args!("user starts {id}"));
            self.oracle.answered.push(id);
        }
        self.wake();
    }

    pub(super) fn user_cancels(&mut self) {
        let open: Vec<RunId> = self.store.unfinished().iter().map(|run| run.id).collect();
        let Some(id) = self.random.pick(&open).copied() else { return };
        let by = PrincipalName::parse("ann").expect("valid");
        match self.apply(id, RunEvent::CancelRequested { by }) {
            Ok(_) | Err(ApplyError::Refused(_)) => {}
            Err(ApplyError::Down) => {
                let later = self.random.millis(500, 3_000);
                self.after(later, Event::UserCancels);
            }
            Err(error @ (ApplyError::Unknown | ApplyError::NotPushed)) => {
                self.breach(format!("cancel {id}: {error:?}"))
            }
        }
    }
}

fn run(id: RunId, now: Timestamp, timeout: Duration, random: &mut Random) -> Run {
    if random.chance(250) {
        return fetched(id, now, timeout);
    }
    let plan = plan(id, random);
    Run {
        id,
        principal: PrincipalName::parse("ann").expect("valid"),
        scopes: Scopes::default(),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: cooper_types::PoolName::default_pool(),
        platform: None,
        origin: Default::default(),
        timeout,
        created: now,
        started: None,
        last_fence: Fence(0),
        last_attempt: AttemptNumber(0),
        losses: Vec::new(),
        phase: Phase::Live,
        placements: plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }).collect(),
        steps: plan.steps.iter().map(|_| Step::NEW).collect(),
        plan,
        source: None,
        provenance: cooper_engine::run::Provenance::default(),
    }
}

/// A run whose source an agent has to fetch; of some branches' names no image name can be made.
fn fetched(id: RunId, now: Timestamp, timeout: Duration) -> Run {
    let new = NewRun {
        origin: Default::default(),
        principal: PrincipalName::parse("ann").expect("valid"),
        scopes: Scopes(vec![Scope::parse("repository:*:push").expect("valid")]),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: cooper_types::PoolName::default_pool(),
        asked: Asked::Build {
            build: QuickBuild {
                image_names: vec!["{{.Run.ID}}/{{.Run.Branch}}".to_owned()],
                push: true,
                no_cache: false,
                dockerfile: "Dockerfile".to_owned(),
                target: None,
                arguments: Vec::new(),
                labels: Vec::new(),
                secrets: Vec::new(),
                platform: Platform::LINUX_AMD64,
                platforms: Vec::new(),
                elsewhere: false,
            },
            source: BuildSource::Remote(GitSource::parse("https://git.example/app.git").expect("valid").into()),
        },
        timeout,
        replay: None,
    };
    new.accept(id, now).expect("it can be accepted").run
}

/// Mostly a build and a push; sometimes for two platforms, sometimes with pushes to two repositories, seldom nothing at all.
fn plan(id: RunId, random: &mut Random) -> Plan {
    if random.chance(30) {
        return Plan { placements: vec![PlannedPlacement::new(Platform::LINUX_AMD64)], steps: Vec::new() };
    }
    let platforms: &[&str] = match random.below(6) {
        0..=3 => &["linux/amd64"],
        4 => &["linux/arm64"],
        _ => &["linux/amd64", "linux/arm64"],
    };
    if platforms.len() > 1 && random.chance(500) {
        return image_for_all(id, platforms, random);
    }
    let mut steps = Vec::new();
    for placement in 0..platforms.len() {
        let built_by = steps.len();
        let context = BuildContext::Uploaded(ContextId::parse("c").expect("valid"));
        let build = BuildWork::new(context, "Dockerfile");
        if random.chance(400) {
            steps.extend(containers(steps.len(), placement, random));
            continue;
        }
        // The second platform sometimes waits for the first.
        let after = if placement > 0 && random.chance(300) { vec![0] } else { Vec::new() };
        steps.push(step(built_by, placement, after, Work::Build(build)));
        for _ in 0..=random.below(2) {
            let index = steps.len();
            let image = |tag: &str| ImageRef::parse(&format!("localhost:5000/{id}/s{index}:{tag}")).expect("valid");
            let push = PushWork::of_one(built_by, [image("v1"), image("latest")]);
            steps.push(step(index, placement, vec![built_by], Work::Push(push)));
        }
    }
    let platform = |text: &&str| PlannedPlacement::new(Platform::parse(text).expect("valid"));
    Plan { placements: platforms.iter().map(platform).collect(), steps }
}

/// One image for several platforms: each is built and staged, and an index is pushed.
fn image_for_all(id: RunId, platforms: &[&str], random: &mut Random) -> Plan {
    let platform = |text: &str| Platform::parse(text).expect("valid");
    let image = |end: &str| ImageRef::parse(&format!("localhost:5000/{id}/all{end}")).expect("valid");
    let mut steps = Vec::new();
    let mut parts = Vec::new();
    for (placement, name) in platforms.iter().enumerate() {
        let built_by = steps.len();
        let context = BuildContext::Uploaded(ContextId::parse("c").expect("valid"));
        steps.push(step(built_by, placement, Vec::new(), Work::Build(BuildWork::new(context, "Dockerfile"))));
        let stage = PushWork::stage_of(built_by, [image("")]);
        steps.push(step(built_by + 1, placement, vec![built_by], Work::Push(stage)));
        parts.push(IndexPart { platform: platform(name), staged_by: built_by + 1, built_by });
        if random.chance(400) {
            steps.extend(containers(steps.len(), placement, random));
        }
    }
    let after = parts.iter().map(|part| part.staged_by).collect();
    let name = |end: &str| PushedName { image: image(end), from: PushedFrom::Index(parts.clone()) };
    let push = PushWork::new(vec![name(":v1"), name(":latest")]);
    let placement = usize::from(random.chance(500));
    steps.push(step(steps.len(), placement, after, Work::Push(push)));
    Plan { placements: platforms.iter().map(|name| PlannedPlacement::new(platform(name))).collect(), steps }
}

/// What a task file may hold: containers after one another and side by side, some of whose failures don't matter.
fn containers(first: usize, placement: usize, random: &mut Random) -> Vec<PlannedStep> {
    let work = CommandWork::new(CommandImage::Named("busybox".to_owned()));
    let count = 2 + random.below(3) as usize;
    (first..first + count)
        .map(|index| {
            let after = (first..index).filter(|_| random.chance(500)).collect();
            let ignore_errors = random.chance(300);
            PlannedStep { ignore_errors, ..step(index, placement, after, Work::Command(work.clone())) }
        })
        .collect()
}

fn step(index: usize, placement: usize, after: Vec<usize>, work: Work) -> PlannedStep {
    let id = StepId::parse(&format!("s{index}")).expect("valid");
    PlannedStep::new(id, placement, after, Duration::from_secs(60), work)
}
