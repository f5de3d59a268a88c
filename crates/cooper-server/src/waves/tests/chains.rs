//! Tasks that stand on each other: what the pushes of a wave's runs set off, and what they do not.

use std::future::poll_fn;
use std::task::Poll;

use cooper_engine::message::PushedManifest;
use cooper_engine::wave::ImageTag;
use cooper_ports::registry::AttemptRef;

use super::*;

/// A task that builds and pushes an image of its own name.
pub(super) async fn make(world: &World, task: &str) {
    let image = format!("localhost:5000/{task}:1");
    let text = format!("steps:\n  - build: -t {image} .\n  - push: ['{image}']\n  - cmd: {image} true\n");
    world.make_of(task, &text, BaseImageChange::default()).await;
}

pub(super) fn image(repository: &str) -> ImageTag {
    let repository = RepositoryName::parse(repository).expect("valid");
    ImageTag { registry: None, repository, tag: Tag::parse("1").expect("valid") }
}

fn manifest(content: &str) -> Manifest {
    Manifest {
        digest: Digest::sha256(content.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes: content.as_bytes().to_vec().into(),
    }
}

impl World {
    /// Asks for a run by hand, which an agent takes.
    pub(super) async fn begin(&self, task: &str) -> RunId {
        let task = tasks::find(&self.core, task).await;
        let request = stored_tasks::request(&self.core, &task, Given::default(), Cause::Manual, None).await;
        let accepted = stored_tasks::accept(&self.core, request.expect("a request"), For::Asker).await;
        let run = accepted.expect("accepted").record.run.id;
        self.start(run).await;
        run
    }

    /// Builds and pushes in a run that an agent has, on what these stand for now.
    pub(super) async fn builds(&self, id: RunId, bases: &[&str], content: &str) {
        let found = self.stand_for(bases).await;
        self.builds_on(id, found, content).await;
    }

    /// What tags stand for now.
    async fn stand_for(&self, bases: &[&str]) -> Vec<BaseImage> {
        let mut found = Vec::new();
        for base in bases {
            let digest = self.core.waves.known_digest(&image(base)).await.expect("store");
            found.push(BaseImage { reference: format!("localhost:5000/{base}:1"), digest, runtime: true });
        }
        found
    }

    /// Builds and pushes in a run that an agent has, on these.
    async fn builds_on(&self, id: RunId, found: Vec<BaseImage>, content: &str) {
        let run = self.find(id).await;
        let output = StepOutput::Built { image: Digest::sha256(b"image"), bases: found, frontend: None, context: None };
        let result = StepResult::Succeeded { output };
        let (fence, attempt) = (run.last_fence, run.last_attempt);
        let run = self.core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("built").run;
        let attempt = run.last_attempt;
        self.core.apply(id, RunEvent::StepStarted { fence, attempt }).await.expect("begun");
        let mut manifests = Vec::new();
        for target in run.tag_targets(1, attempt) {
            let manifest = manifest(content);
            let digest = manifest.digest.clone();
            let (repository, tag) = (target.repository.clone(), Some(target.staging_tag.clone()));
            let new = NewManifest { repository, manifest, references: Vec::new(), tag };
            let attempt = Some(AttemptRef { run: id, step: run.plan.steps[1].id.clone(), attempt });
            let writer = Writer { principal: testing::principal("ann"), attempt };
            self.clock.advance(Duration::from_secs(1));
            self.store.put_manifest(new, &writer).await.expect("staged");
            let (repository, staging_tag) = (target.repository, target.staging_tag);
            manifests.push(PushedManifest { registry: None, repository, staging_tag, digest });
        }
        let result = StepResult::Succeeded { output: StepOutput::Pushed { manifests } };
        let run = self.core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("pushed").run;
        let attempt = run.last_attempt;
        self.core.apply(id, RunEvent::StepStarted { fence, attempt }).await.expect("begun");
    }

    /// Ends a run after its push.
    pub(super) async fn passes(&self, id: RunId, passes: bool) {
        let run = self.find(id).await;
        let result = match passes {
            true => StepResult::Succeeded { output: StepOutput::Ran { image: None } },
            false => StepResult::Failed { exit_code: Some(1), reason: "it does not start".to_owned() },
        };
        let (fence, attempt) = (run.last_fence, run.last_attempt);
        self.core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("ended");
        let _ = self.core.apply(id, RunEvent::Stopped { fence }).await;
        assert!(self.find(id).await.finished().is_some());
    }

    /// A whole run by hand.
    pub(super) async fn built(&self, task: &str, bases: &[&str], content: &str) {
        let run = self.begin(task).await;
        self.builds(run, bases, content).await;
        self.passes(run, true).await;
    }

    /// The whole run of a member.
    pub(super) async fn member_built(&self, wave: u64, task: &str, bases: &[&str], content: &str) {
        let run = self.member_run(wave, task).await;
        self.start(run).await;
        self.builds(run, bases, content).await;
        self.passes(run, true).await;
    }

    pub(super) async fn push_to(&self, repository: &str, content: &str) {
        let ImageTag { repository, tag, .. } = image(repository);
        let new = NewManifest { repository, manifest: manifest(content), references: Vec::new(), tag: Some(tag) };
        let writer = Writer { principal: testing::principal("bob"), attempt: None };
        self.clock.advance(Duration::from_secs(1));
        self.store.put_manifest(new, &writer).await.expect("pushed");
    }
}

/// `lower` on `base`, `upper` on `lower`: built once each.
pub(super) async fn two_levels() -> World {
    let world = World::new().await;
    world.push_to("base", "base one").await;
    make(&world, "lower").await;
    make(&world, "upper").await;
    world.built("lower", &["base"], "lower one").await;
    world.built("upper", &["lower"], "upper one").await;
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0]);
    world
}

#[tokio::test]
async fn a_circle_of_tasks_goes_round_once() {
    let world = World::new().await;
    make(&world, "left1").await;
    make(&world, "right").await;
    world.push_to("right", "right zero").await;
    world.built("left1", &["right"], "left one").await;
    world.built("right", &["left1"], "right one").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running left1=running"]);
    world.member_built(1, "left1", &["right"], "left on right one").await;
    world.pass().await;
    for round in 2..4 {
        // Whoever stands on what was pushed last is built, and what that pushes sets off nobody.
        let before = world.waves().await.len();
        world.built("left1", &["right"], &format!("left {round}")).await;
        world.pass().await;
        let waves = world.waves().await;
        assert_eq!(waves.len(), before + 1, "{waves:?}");
        assert!(waves[before].ends_with(" running right=running"), "{waves:?}");
        world.member_built(waves.len() as u64, "right", &["left1"], &format!("right {round}")).await;
        world.pass().await;
        world.pass().await;
        assert_eq!(world.waves().await.len(), before + 1, "{:?}", world.waves().await);
        let refusals = world.core.waves.list_refusals(&name("left1"), 10).await.expect("store");
        assert!(refusals[0].event.starts_with("base image right:1 became"), "{refusals:?}");
        assert!(refusals[0].rule.contains("a run of its own led to that"), "{refusals:?}");
    }
}

#[tokio::test]
async fn a_circle_of_tasks_that_are_built_at_once_ends() {
    let world = World::new().await;
    make(&world, "left1").await;
    make(&world, "right").await;
    world.push_to("right", "right zero").await;
    world.built("left1", &["right"], "left one").await;
    world.built("right", &["left1"], "right one").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running left1=running"]);
    let first = world.member_run(1, "left1").await;
    world.start(first).await;
    let mut runs = vec![("left1", "right", first), ("right", "left1", world.begin("right").await)];
    for round in 0..6 {
        // Each is built on what the other one was, and pushes while that is built.
        let mut on = Vec::new();
        for (_, base, _) in &runs {
            on.push(world.stand_for(&[base]).await);
        }
        for ((task, _, run), on) in runs.iter().zip(on) {
            world.builds_on(*run, on, &format!("{task} of {round}")).await;
        }
        for (_, _, run) in &runs {
            world.passes(*run, true).await;
        }
        world.pass().await;
        world.clock.advance(Duration::from_secs(16 * 60));
        world.pass().await;
        runs.clear();
        for (wave, text) in (1..).zip(&world.waves().await) {
            for (task, base) in [("left1", "right"), ("right", "left1")] {
                if text.contains(&format!("{task}=running")) {
                    let run = world.member_run(wave, task).await;
                    world.start(run).await;
                    runs.push((task, base, run));
                }
            }
        }
    }
    assert!(world.waves().await.len() <= 3, "{:?}", world.waves().await);
    assert!(world.waves().await.iter().all(|wave| wave.contains(" over ")), "{:?}", world.waves().await);
}

#[tokio::test]
async fn a_task_that_stands_on_its_own_image_is_told_why_it_is_not_built() {
    let world = World::new().await;
    make(&world, "myself").await;
    world.push_to("myself", "zero").await;
    world.built("myself", &["myself"], "one").await;
    world.built("myself", &["myself"], "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0]);
    let refusals = world.core.waves.list_refusals(&name("myself"), 10).await.expect("store");
    assert!(refusals.iter().all(|one| one.rule.contains("a run of its own led to that")), "{refusals:?}");
    assert!(!refusals.is_empty());
}

#[tokio::test]
async fn who_is_taken_over_waits_for_what_is_built_below_it() {
    let world = two_levels().await;
    world.push_to("side", "side one").await;
    world.built("upper", &["lower", "side"], "upper with side").await;
    world.push_to("base", "base two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=running upper=waiting"]);
    let lower = world.member_run(1, "lower").await;
    world.start(lower).await;
    // Another of its bases moves: the newer wave has it, and lets `lower` be built first.
    world.push_to("side", "side two").await;
    world.pass().await;
    let expected = ["w1 running lower=running upper=takenOver", "w2 running upper=waiting"];
    assert_eq!(world.waves().await, expected);
    let told = world.why(2, "upper").await;
    assert_eq!(told, "task lower, which makes what it stands on, is built first in another wave");
    world.builds(lower, &["base"], "lower two").await;
    world.passes(lower, true).await;
    world.pass().await;
    let expected = ["w1 over lower=done upper=takenOver", "w2 over upper=takenOver", "w3 running upper=running"];
    assert_eq!(world.waves().await, expected, "the push of `lower` is not lost");
    world.member_built(3, "upper", &["lower", "side"], "upper two").await;
    world.pass().await;
    assert_eq!(world.waves().await[2], "w3 over upper=done");
    assert_eq!(world.core.waves.base_changes(10).await.expect("store"), []);
}

#[tokio::test]
async fn who_has_waited_for_long_waits_for_nobody_else() {
    let world = two_levels().await;
    world.push_to("side", "side one").await;
    world.built("upper", &["lower", "side"], "upper with side").await;
    world.push_to("base", "base two").await;
    world.pass().await;
    world.push_to("side", "side two").await;
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 running upper=waiting");
    world.clock.advance(Duration::from_secs(16 * 60));
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 running upper=running");
}

#[tokio::test]
async fn a_base_that_moves_faster_than_it_is_built_starves_nobody() {
    let world = two_levels().await;
    let mut built = 0;
    for round in 0..16 {
        world.push_to("base", &format!("base {round}")).await;
        world.clock.advance(Duration::from_secs(180));
        world.pass().await;
        // Each push comes while `lower` is built for the one before.
        for (wave, text) in (1..).zip(&world.waves().await) {
            for (task, base) in [("lower", "base"), ("upper", "lower")] {
                if !text.contains(&format!("{task}=running")) {
                    continue;
                }
                let run = world.member_run(wave, task).await;
                if world.find(run).await.started.is_none() {
                    world.start(run).await;
                } else {
                    world.builds(run, &[base], &format!("{task} of {round}")).await;
                    world.passes(run, true).await;
                    built += usize::from(task == "upper");
                }
            }
        }
    }
    assert!(built >= 2, "{built}: {:?}", world.waves().await);
}

#[tokio::test]
async fn one_that_pushed_and_failed_says_what_became_of_the_others_and_both_are_tried_again() {
    let world = two_levels().await;
    world.push_to("base", "base two").await;
    world.pass().await;
    let lower = world.member_run(1, "lower").await;
    world.start(lower).await;
    world.builds(lower, &["base"], "lower two").await;
    world.pass().await;
    world.passes(lower, false).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 over lower=failed upper=skipped"]);
    let refusals = world.core.waves.list_refusals(&name("upper"), 10).await.expect("store");
    assert_eq!(refusals[0].event, "wave w1 came to it");
    assert!(refusals[0].rule.contains("has pushed and failed after that"), "{refusals:?}");
    assert!(refusals[0].rule.contains("cooper wave retry w1"), "{refusals:?}");

    let ann = testing::principal("ann");
    let again = retry(&world.core, WaveId::from_number(1), &ann).await.expect("tried again");
    assert_eq!((again.wave.id.number(), again.wave.changes.len()), (2, 1));
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 running lower=running upper=waiting");
    // The same digest, which moves nothing: `upper` differs from it all the same.
    world.member_built(2, "lower", &["base"], "lower two").await;
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 running lower=done upper=running");
    world.member_built(2, "upper", &["lower"], "upper two").await;
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 over lower=done upper=done");
    let nothing = retry(&world.core, WaveId::from_number(2), &ann).await.expect_err("nothing failed");
    assert_eq!(nothing.0.code, ProblemCode::Conflict);
    let none = retry(&world.core, WaveId::from_number(9), &ann).await.expect_err("no wave");
    assert_eq!(none.0.code, ProblemCode::NotFound);
}

#[tokio::test]
async fn one_that_was_left_out_and_built_since_follows_what_is_pushed_later() {
    let world = two_levels().await;
    make(&world, "other").await;
    world.built("other", &["base"], "other one").await;
    world.built("upper", &["lower", "other"], "upper on both").await;
    world.push_to("base", "base two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=running other=running upper=waiting"]);
    let lower = world.member_run(1, "lower").await;
    world.start(lower).await;
    world.builds(lower, &["base"], "lower two").await;
    world.passes(lower, false).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=failed other=running upper=skipped"]);
    // `other` takes long: `upper` is built on what there is of it.
    world.built("lower", &["base"], "lower three").await;
    world.pass().await;
    world.clock.advance(Duration::from_secs(16 * 60));
    world.pass().await;
    let expected = ["w1 running lower=failed other=running upper=takenOver", "w2 running upper=running"];
    assert_eq!(world.waves().await, expected);
    world.member_built(2, "upper", &["lower", "other"], "upper on three").await;
    world.pass().await;
    world.member_built(1, "other", &["base"], "other two").await;
    world.pass().await;
    let expected =
        ["w1 over lower=failed other=done upper=takenOver", "w2 over upper=done", "w3 running upper=running"];
    assert_eq!(world.waves().await, expected);
}

#[tokio::test]
async fn one_that_was_left_out_and_built_by_hand_follows_what_is_pushed_later() {
    let world = two_levels().await;
    make(&world, "other").await;
    world.built("other", &["base"], "other one").await;
    world.built("upper", &["lower", "other"], "upper on both").await;
    world.push_to("base", "base two").await;
    world.pass().await;
    let lower = world.member_run(1, "lower").await;
    world.start(lower).await;
    world.end(lower, "1", None).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=failed other=running upper=skipped"]);
    world.built("upper", &["lower", "other"], "upper by hand").await;
    world.pass().await;
    world.member_built(1, "other", &["base"], "other two").await;
    world.pass().await;
    let expected = ["w1 over lower=failed other=done upper=takenOver", "w2 running upper=running"];
    assert_eq!(world.waves().await, expected);
}

#[tokio::test]
async fn whoever_stands_on_a_member_since_the_wave_was_planned_is_built_as_well() {
    let world = two_levels().await;
    make(&world, "newer").await;
    world.built("newer", &["base"], "newer one").await;
    world.push_to("base", "base two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=running newer=running upper=waiting"]);
    // Its Dockerfile names `lower` by now, and it is built before that.
    world.member_built(1, "newer", &["lower"], "newer two").await;
    world.pass().await;
    world.member_built(1, "lower", &["base"], "lower two").await;
    world.pass().await;
    let expected = ["w1 running lower=done newer=done upper=running", "w2 running newer=running"];
    assert_eq!(world.waves().await, expected);
}

#[tokio::test]
async fn a_strangers_run_keeps_no_member_waiting() {
    let (world, _) = two_tasks().await;
    let task = tasks::find(&world.core, "first").await;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let mut request = request.expect("a request");
    let pool = cooper_types::PoolName::parse("strangers").expect("valid");
    world.core.agent_store.create_pool(pool.clone(), String::new(), true).await.expect("made");
    (request.run.origin.untrusted, request.run.pool) = (true, pool);
    let stranger = stored_tasks::accept(&world.core, request, For::Asker).await.expect("accepted").record.run.id;
    world.start(stranger).await;
    world.push("1", "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=running other=running"]);
}

/// A look that is given up somewhere is as good as a process that dies there: what is durable is, and nothing else.
#[tokio::test]
async fn wherever_a_look_ends_each_is_built_once() {
    let world = two_levels().await;
    for (round, polls) in (1_u64..).zip(0..40) {
        let before = world.count().await;
        world.push_to("base", &format!("base for {round}")).await;
        let mut waves = world.waves_loop();
        let mut look = Box::pin(world.settle(&mut waves));
        let mut left = polls;
        poll_fn(|context| match left {
            0 => Poll::Ready(()),
            _ => {
                left -= 1;
                look.as_mut().poll(context)
            }
        })
        .await;
        drop(look);
        drop(waves);
        world.pass().await;
        world.member_built(round, "lower", &["base"], &format!("lower for {round}")).await;
        world.pass().await;
        world.member_built(round, "upper", &["lower"], &format!("upper for {round}")).await;
        world.pass().await;
        let expected = format!("w{round} over lower=done upper=done");
        assert_eq!(world.waves().await.last(), Some(&expected), "{polls}");
        assert_eq!(world.count().await, before + 2, "{polls}");
    }
}
