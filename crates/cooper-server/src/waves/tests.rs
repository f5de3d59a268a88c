//! Waves over a real store: what a moved tag starts, once, and what people and other runs make of that.

use std::collections::BTreeSet;

use cooper_engine::message::{BaseImage, StepOutput, StepResult};
use cooper_engine::run::{AgentRef, Run};
use cooper_engine::task::{BaseImageChange, EncodedChange, StepChange, Task, TaskChange};
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::registry::{Manifest, NewManifest, RegistryStore as _, Writer};
use cooper_ports::runs::RunQuery;
use cooper_ports::tasks::PutTask;
use cooper_store::Store;
use cooper_types::{AgentName, Digest, RepositoryName, Scope, Scopes, Tag, TaskName, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::testing;

struct World {
    core: Arc<Core>,
    store: Store,
    clock: Arc<ManualClock>,
    _data: TempDir,
}

fn name(text: &str) -> TaskName {
    TaskName::parse(text).expect("valid")
}

fn follows(enabled: bool) -> BaseImageChange {
    BaseImageChange { enabled: Some(enabled), steps: Some(true), ..BaseImageChange::default() }
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_767_225_630_000_000)));
        let (core, store) = testing::core_in(data.path(), clock.clone()).await;
        testing::token(&core, "ann", &["run", "repository:*:pull"]).await;
        Self { core, store, clock, _data: data }
    }

    /// Points a tag of the registry at some content.
    async fn push(&self, tag: &str, content: &str) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        let manifest = Manifest {
            digest: digest.clone(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes: content.as_bytes().to_vec().into(),
        };
        let repository = RepositoryName::parse("base").expect("valid");
        let tag = Some(Tag::parse(tag).expect("valid"));
        let new = NewManifest { repository, manifest, references: Vec::new(), tag };
        let writer = Writer { principal: testing::principal("bob"), attempt: None };
        self.clock.advance(Duration::from_secs(1));
        self.store.put_manifest(new, &writer).await.expect("pushed");
        digest
    }

    /// A task of one step that runs in an image.
    async fn make(&self, task: &str, change: BaseImageChange) {
        let text = "steps:\n  - cmd: localhost:5000/base:1 true\n".to_owned();
        let step = EncodedChange { text: Some(text), ..EncodedChange::default() };
        let change = TaskChange { step: Some(StepChange::Encoded(step)), base_image: change, ..TaskChange::default() };
        let scopes = Scopes(vec![Scope::Admin]);
        let task = Task::new(name(task), testing::principal("ann"), scopes, change, self.clock.now()).expect("a task");
        let put =
            PutTask { task, secrets: Vec::new(), all_secrets: BTreeSet::new(), replaces: None, hooks: Vec::new() };
        self.core.tasks.put_task(put).await.expect("kept");
    }

    /// Changes a task.
    async fn change(&self, task: &str, change: TaskChange) {
        let earlier = self.core.tasks.find_task(&name(task)).await.expect("store").expect("task").task;
        let task = earlier.changed(change, self.clock.now()).expect("changed");
        let put = PutTask {
            task,
            secrets: Vec::new(),
            all_secrets: BTreeSet::new(),
            replaces: Some(earlier.generation),
            hooks: Vec::new(),
        };
        self.core.tasks.put_task(put).await.expect("kept");
    }

    /// Runs a task by hand on what a tag stands for.
    async fn run(&self, task: &str, tag: &str, digest: &Digest) {
        let task = self.core.tasks.find_task(&name(task)).await.expect("store").expect("task").task;
        let request = stored_tasks::request(&self.core, &task, Given::default(), Cause::Manual, None).await;
        let accepted =
            stored_tasks::accept(&self.core, request.expect("a request"), For::Asker).await.expect("accepted");
        self.start(accepted.record.run.id).await;
        self.end(accepted.record.run.id, tag, Some(digest)).await;
    }

    /// Has an agent take a run.
    async fn start(&self, run: RunId) {
        let agent = AgentRef { name: AgentName::parse("one").expect("valid"), incarnation: "first".to_owned() };
        let fence =
            self.core.apply(run, RunEvent::Offer { placement: 0, agent }).await.expect("offered").run.last_fence;
        let taken = self.core.apply(run, RunEvent::Accepted { fence, host: None }).await.expect("accepted").run;
        let begun = RunEvent::StepStarted { fence, attempt: taken.last_attempt };
        self.core.apply(run, begun).await.expect("begun");
    }

    /// Ends a run that an agent has: it ran on what a tag stood for, or failed.
    async fn end(&self, id: RunId, tag: &str, digest: Option<&Digest>) {
        let run = self.find(id).await;
        let image = |digest: &Digest| BaseImage {
            reference: format!("localhost:5000/base:{tag}"),
            digest: Some(digest.clone()),
            runtime: true,
        };
        let result = match digest {
            Some(digest) => StepResult::Succeeded { output: StepOutput::Ran { image: Some(image(digest)) } },
            None => StepResult::Failed { exit_code: Some(1), reason: "it broke".to_owned() },
        };
        let (fence, attempt) = (run.last_fence, run.last_attempt);
        let ended = self.core.apply(id, RunEvent::StepEnded { fence, attempt, result }).await.expect("ended").run;
        if ended.finished().is_none() {
            self.core.apply(id, RunEvent::Stopped { fence }).await.expect("stopped");
        }
    }

    async fn find(&self, id: RunId) -> Run {
        self.core.runs.find_run(id).await.expect("store").expect("run").run
    }

    async fn pass(&self) {
        pass(&self.core).await.expect("pass");
    }

    /// The waves, the oldest first: `w1 running a=waiting b=running`.
    async fn waves(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for summary in self.core.waves.list_waves(100).await.expect("store").into_iter().rev() {
            let wave = self.core.waves.find_wave(summary.wave.id).await.expect("store").expect("wave").wave;
            let mut text =
                format!("{} {}", wave.id, if wave.finished.is_some() { "over" } else { wave.phase.as_str() });
            for member in &wave.members {
                text.push_str(&format!(" {}={}", member.task, member.state.as_str()));
            }
            shown.push(text);
        }
        shown
    }

    /// The run of a member of a wave.
    async fn member_run(&self, wave: u64, task: &str) -> RunId {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        let member = stored.wave.members.iter().find(|member| member.task == name(task)).expect("member");
        member.state.run().expect("a run")
    }

    async fn count(&self) -> usize {
        let query =
            RunQuery { statuses: Vec::new(), run_type: None, task: None, principal: None, before: None, limit: 100 };
        self.core.runs.list_runs(&query).await.expect("store").len()
    }
}

/// Two tasks that were built on `base:1`.
async fn two_tasks() -> (World, Digest) {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    for task in ["first", "other"] {
        world.make(task, follows(true)).await;
        world.run(task, "1", &one).await;
    }
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0], "nothing has moved since");
    (world, one)
}

#[tokio::test]
async fn a_moved_tag_starts_each_task_once_below_what_people_wait_for() {
    let (world, one) = two_tasks().await;
    world.push("1", "one").await;
    world.push("2", "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0], "the same digest, and a tag that nobody stands on");
    let two = world.push("1", "two").await;
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.waves().await, ["w1 running first=running other=running"]);
    assert_eq!(world.count().await, 4);
    let id = world.member_run(1, "first").await;
    let run = world.find(id).await;
    assert!(run.priority() < -100, "{}", run.priority());
    let Cause::BaseImage { wave, images } = &run.origin.cause else { panic!("{:?}", run.origin.cause) };
    assert_eq!((wave.number(), images.len(), &images[0].from, &images[0].to), (1, 1, &Some(one), &two));
    world.start(id).await;
    world.end(id, "1", None).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=failed other=running"]);
    let id = world.member_run(1, "other").await;
    world.start(id).await;
    world.end(id, "1", Some(&two)).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 over first=failed other=done"]);
    // The tag goes back and forth: what was built on the new one is built again, and the other is where it was.
    world.push("1", "one").await;
    world.pass().await;
    assert_eq!(world.waves().await[1..], ["w2 running other=running"]);
}

#[tokio::test]
async fn what_moves_while_a_run_goes_on_is_not_missed() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    world.make("first", follows(true)).await;
    let task = world.core.tasks.find_task(&name("first")).await.expect("store").expect("task").task;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let run = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    world.start(run.record.run.id).await;
    world.push("1", "two").await;
    world.end(run.record.run.id, "1", Some(&one)).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=running"]);
}

#[tokio::test]
async fn a_member_waits_for_a_run_of_its_task_and_is_spared_what_that_has_done() {
    let (world, _) = two_tasks().await;
    let task = world.core.tasks.find_task(&name("first")).await.expect("store").expect("task").task;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let by_hand = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    let by_hand = by_hand.record.run.id;
    world.start(by_hand).await;
    let two = world.push("1", "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=waiting other=running"]);
    world.end(by_hand, "1", Some(&two)).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=unchanged other=running"]);
}

#[tokio::test]
async fn a_newer_wave_takes_over_what_waits_and_people_hold_and_end_them() {
    let (world, _) = two_tasks().await;
    let ann = testing::principal("ann");
    world.push("1", "two").await;
    open(&world.core).await.expect("opened");
    let first = WaveId::from_number(1);
    steer(&world.core, first, WaveEvent::Pause, &ann).await.expect("paused");
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 paused first=waiting other=waiting"]);
    world.push("1", "three").await;
    world.pass().await;
    let expected = ["w1 over first=takenOver other=takenOver", "w2 running first=running other=running"];
    assert_eq!(world.waves().await, expected);
    let over = steer(&world.core, first, WaveEvent::Resume, &ann).await.expect_err("it is over");
    assert_eq!(over.0.code, ProblemCode::Conflict);
    let run = world.member_run(2, "first").await;
    world.start(run).await;
    let second = WaveId::from_number(2);
    steer(&world.core, second, WaveEvent::Cancel, &ann).await.expect("cancelled");
    // The one that no agent had ends at once, the other when its agent says so.
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 canceled first=running other=failed");
    let fence = world.find(run).await.last_fence;
    world.core.apply(run, RunEvent::Stopped { fence }).await.expect("stopped");
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 over first=failed other=failed");
}

#[tokio::test]
async fn rules_are_told_and_what_changes_in_between_counts() {
    let (world, one) = two_tasks().await;
    world.make("quiet", follows(false)).await;
    world.run("quiet", "1", &one).await;
    world.push("1", "two").await;
    open(&world.core).await.expect("opened");
    world.change("other", TaskChange { enabled: Some(false), ..TaskChange::default() }).await;
    world.core.tasks.delete_task(&name("first")).await.expect("deleted");
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 over first=skipped other=skipped"]);
    let refusals = world.core.waves.list_refusals(&name("quiet"), 10).await.expect("store");
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].event.starts_with("base image base:1 became sha256:"), "{}", refusals[0].event);
    assert_eq!(refusals[0].rule, "its base image trigger is disabled");
}
