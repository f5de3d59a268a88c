//! Waves over a real store: what a moved tag starts, once, and what people and other runs make of that.

mod chains;
mod notices;
mod pauses;
mod polling;

use std::path::Path;

use cooper_api::problem::ProblemCode;
use cooper_engine::message::{BaseImage, StepOutput, StepResult};
use cooper_engine::run::{AgentRef, Phase, Run, RunEvent, Verdict};
use cooper_engine::task::{BaseImageChange, Cause, TaskChange};
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::registry::{Manifest, NewManifest, RegistryStore as _, Writer};
use cooper_ports::runs::RunQuery;
use cooper_store::Store;
use cooper_types::{AgentName, Digest, RepositoryName, RunId, Tag, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::stored_tasks::{self, For, Given};
use crate::testing;
use crate::testing::tasks::{self, name};

struct World {
    core: Arc<Core>,
    store: Store,
    clock: Arc<ManualClock>,
    _data: TempDir,
}

fn follows(enabled: bool) -> BaseImageChange {
    BaseImageChange { enabled: Some(enabled), steps: Some(true), ..BaseImageChange::default() }
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().expect("temp dir");
        Self::of(data, async |data, clock| testing::core_sending_here(data, Some(clock)).await).await
    }

    async fn of(data: TempDir, core: impl AsyncFnOnce(&Path, Arc<ManualClock>) -> (Arc<Core>, Store)) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_767_225_630_000_000)));
        let (core, store) = core(data.path(), clock.clone()).await;
        testing::token(&core, "ann", &["run", "repository:*:pull,push"]).await;
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
        self.make_of(task, "steps:\n  - cmd: localhost:5000/base:1 true\n", change).await;
    }

    /// A task of these steps.
    async fn make_of(&self, task: &str, text: &str, change: BaseImageChange) {
        self.make_for("ann", task, text, change).await;
    }

    /// A task of somebody.
    async fn make_for(&self, owner: &str, task: &str, text: &str, change: BaseImageChange) {
        let change = TaskChange { base_image: change, ..TaskChange::default() };
        tasks::make(&self.core, owner, task, text, change, self.clock.now()).await;
    }

    /// Changes a task.
    async fn change(&self, task: &str, change: TaskChange) {
        tasks::change(&self.core, task, change, self.clock.now()).await;
    }

    /// Runs a task by hand on what a tag stands for.
    async fn run(&self, task: &str, tag: &str, digest: &Digest) {
        let task = tasks::find(&self.core, task).await;
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
        self.end_on(id, &format!("localhost:5000/base:{tag}"), digest).await;
    }

    async fn end_on(&self, id: RunId, reference: &str, digest: Option<&Digest>) {
        let run = self.find(id).await;
        let image = |digest: &Digest| BaseImage {
            reference: reference.to_owned(),
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
        self.settle(&mut self.waves_loop()).await;
    }

    /// A loop that remembers nothing, as after a start.
    fn waves_loop(&self) -> Waves {
        Waves::new(Arc::clone(&self.core))
    }

    /// Looks until nobody is on the way.
    async fn settle(&self, waves: &mut Waves) {
        loop {
            waves.look().await.expect("a look");
            if waves.flights.is_empty() {
                return;
            }
            while let Some(landed) = waves.flights.join_next_with_id().await {
                waves.all_landed(landed).await;
            }
        }
    }

    /// Opens waves, and lets nobody begin.
    async fn open(&self) {
        self.waves_loop().open().await.expect("opened");
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

    /// Why a member of a wave is as it is.
    async fn why(&self, wave: u64, task: &str) -> String {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        let reasons = reasons(&self.core, &stored.wave).await.expect("store");
        let place = stored.wave.members.iter().position(|member| member.task == name(task)).expect("member");
        reasons[place].clone().unwrap_or_default()
    }

    /// The run of a member of a wave.
    async fn member_run(&self, wave: u64, task: &str) -> RunId {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        let member = stored.wave.members.iter().find(|member| member.task == name(task)).expect("member");
        member.state.run().expect("a run")
    }

    async fn count(&self) -> usize {
        let query = RunQuery {
            statuses: Vec::new(),
            run_type: None,
            task: None,
            principal: None,
            image: None,
            before: None,
            limit: 1000,
        };
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
    let task = tasks::find(&world.core, "first").await;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let run = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    world.start(run.record.run.id).await;
    world.push("1", "two").await;
    world.end(run.record.run.id, "1", Some(&one)).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=running"]);
}

#[tokio::test]
async fn a_push_of_what_a_tag_stands_for_already_moves_nothing_under_a_run() {
    let world = World::new().await;
    let old = world.push("1", "old").await;
    let new = world.push("1", "new").await;
    world.make("first", follows(true)).await;
    let task = tasks::find(&world.core, "first").await;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let run = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    let run = run.record.run.id;
    world.clock.advance(Duration::from_secs(1));
    world.start(run).await;
    assert_eq!(world.push("1", "new").await, new);
    // What it found elsewhere, as in a mirror: the tag has not moved since it began.
    world.end(run, "1", Some(&old)).await;
    world.pass().await;
    assert_eq!(world.waves().await, [""; 0]);
}

#[tokio::test]
async fn a_member_waits_for_a_run_of_its_task_and_is_spared_what_that_has_done() {
    let (world, _) = two_tasks().await;
    let task = tasks::find(&world.core, "first").await;
    let request = stored_tasks::request(&world.core, &task, Given::default(), Cause::Manual, None).await;
    let by_hand = stored_tasks::accept(&world.core, request.expect("a request"), For::Asker).await.expect("accepted");
    let by_hand = by_hand.record.run.id;
    world.start(by_hand).await;
    let two = world.push("1", "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=waiting other=running"]);
    assert_eq!(world.why(1, "first").await, format!("run {by_hand} of its task goes on"));
    assert!(world.why(1, "other").await.starts_with("its run waits for an agent"), "{}", world.why(1, "other").await);
    world.end(by_hand, "1", Some(&two)).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=unchanged other=running"]);
}

#[tokio::test]
async fn a_newer_wave_takes_over_what_waits_and_people_end_them() {
    let (world, _) = two_tasks().await;
    let ann = testing::principal("ann");
    world.push("1", "two").await;
    world.open().await;
    let first = WaveId::from_number(1);
    world.push("1", "three").await;
    world.pass().await;
    let expected = ["w1 over first=takenOver other=takenOver", "w2 running first=running other=running"];
    assert_eq!(world.waves().await, expected);
    let over = steer(&world.core, first, WaveEvent::Resume, &ann).await.expect_err("it is over");
    assert_eq!(over.0.code, ProblemCode::Conflict);
    let run = world.member_run(2, "first").await;
    world.start(run).await;
    let second = WaveId::from_number(2);
    steer(&world.core, second, WaveEvent::Cancel { by: ann.clone() }, &ann).await.expect("cancelled");
    // The one that no agent had ends at once, the other when its agent says so.
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 canceled first=running other=failed");
    let fence = world.find(run).await.last_fence;
    world.core.apply(run, RunEvent::Stopped { fence }).await.expect("stopped");
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 over first=failed other=failed");
}

#[tokio::test]
async fn a_crash_in_a_cancellation_leaves_no_run_behind() {
    let (world, _) = two_tasks().await;
    world.push("1", "two").await;
    world.pass().await;
    let run = world.member_run(1, "first").await;
    world.start(run).await;
    // What a process does that dies when the wave is cancelled and its runs are not.
    let mut stored = world.core.waves.find_wave(WaveId::from_number(1)).await.expect("store").expect("wave");
    let by = testing::principal("ann");
    let changed = stored.wave.apply(WaveEvent::Cancel { by }, world.clock.now()).expect("cancelled");
    assert!(world.core.waves.save_wave(SaveWave::of(&stored, &changed)).await.expect("saved"));
    world.pass().await;
    let verdict = Verdict::Canceled { by: testing::principal("ann") };
    assert_eq!(world.find(run).await.phase, Phase::Ending { verdict });
    let fence = world.find(run).await.last_fence;
    world.core.apply(run, RunEvent::Stopped { fence }).await.expect("stopped");
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 over first=failed other=failed"]);
}

#[tokio::test]
async fn all_waves_share_the_room_and_none_waits_for_a_large_one() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    for number in 0..6 {
        world.make(&format!("large-{number}"), follows(true)).await;
        world.run(&format!("large-{number}"), "1", &one).await;
    }
    world.make("small", follows(true)).await;
    world.run("small", "2", &two).await;
    world.push("1", "new one").await;
    world.open().await;
    world.push("2", "new two").await;
    world.pass().await;
    let running = |wave: &str| wave.matches("=running").count();
    let waves = world.waves().await;
    assert_eq!(waves.iter().map(|wave| running(wave)).collect::<Vec<_>>(), [3, 1], "{waves:?}");
    // A place is free only when a run has ended.
    world.pass().await;
    let id = world.member_run(2, "small").await;
    world.start(id).await;
    world.end(id, "2", None).await;
    world.pass().await;
    let waves = world.waves().await;
    assert_eq!(waves.iter().map(|wave| running(wave)).collect::<Vec<_>>(), [4, 0], "{waves:?}");
}

#[tokio::test]
async fn the_principals_whose_tasks_are_in_a_wave_share_the_room() {
    let world = World::new().await;
    testing::token(&world.core, "bob", &["run", "repository:*:pull"]).await;
    let one = world.push("1", "one").await;
    let text = "steps:\n  - cmd: localhost:5000/base:1 true\n";
    for (owner, count) in [("ann", 8), ("bob", 3)] {
        for number in 0..count {
            let task = format!("{owner}-{number}");
            world.make_for(owner, &task, text, follows(true)).await;
            world.run(&task, "1", &one).await;
        }
    }
    world.push("1", "two").await;
    world.pass().await;
    let waves = world.waves().await;
    let running = |owner: &str| (0..8).filter(|n| waves[0].contains(&format!(" {owner}-{n}=running"))).count();
    assert_eq!((running("ann"), running("bob")), (2, 2), "{waves:?}");
}

#[tokio::test]
async fn a_paused_wave_takes_room_for_what_runs_and_for_nothing_that_waits() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    for number in 0..6 {
        world.make(&format!("paused-{number}"), follows(true)).await;
        world.run(&format!("paused-{number}"), "1", &one).await;
        world.make_of(&format!("other-{number}"), "steps:\n  - cmd: localhost:5000/base:2 true\n", follows(true)).await;
        world.run(&format!("other-{number}"), "2", &two).await;
    }
    world.push("1", "new one").await;
    world.pass().await;
    let (first, ann) = (WaveId::from_number(1), testing::principal("ann"));
    steer(&world.core, first, WaveEvent::Pause, &ann).await.expect("paused");
    world.push("2", "new two").await;
    world.pass().await;
    let running = async || world.waves().await.iter().map(|wave| wave.matches("=running").count()).collect::<Vec<_>>();
    assert_eq!(running().await, [4, 0], "they go on, and use the agents");
    for number in 0..2 {
        let run = world.member_run(1, &format!("paused-{number}")).await;
        world.start(run).await;
        world.end(run, "1", None).await;
    }
    world.pass().await;
    assert_eq!(running().await, [2, 2], "the two that wait take no room");
    steer(&world.core, first, WaveEvent::Cancel { by: ann.clone() }, &ann).await.expect("cancelled");
    world.pass().await;
    assert_eq!(running().await, [0, 4], "and those that are cancelled only until they end");
}

#[tokio::test]
async fn a_look_does_not_wait_for_those_that_are_on_their_way() {
    let mut world = World::new().await;
    Arc::get_mut(&mut world.core).expect("nobody else has it").wave_concurrency = 32;
    let one = world.push("1", "one").await;
    for number in 0..24 {
        world.make(&format!("many-{number}"), follows(true)).await;
        world.run(&format!("many-{number}"), "1", &one).await;
    }
    world.push("1", "two").await;
    let mut waves = world.waves_loop();
    let all = async {
        // More flights than the store has connections, for which the loop that lets them land waits, too.
        for _ in 0..50 {
            waves.look().await.expect("a look");
            if let Some(landed) = waves.flights.join_next_with_id().await {
                waves.landed(landed).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("nothing waits for ever");
    let waves = world.waves().await;
    assert_eq!(waves[0].matches("=running").count(), 24, "{waves:?}");
}

#[tokio::test]
async fn runs_that_no_agent_takes_keep_the_room_for_a_while_alone() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    for number in 0..5 {
        world.make(&format!("many-{number}"), follows(true)).await;
        world.run(&format!("many-{number}"), "1", &one).await;
    }
    world.push("1", "two").await;
    world.pass().await;
    let running = async || world.waves().await[0].matches("=running").count();
    assert_eq!(running().await, 4);
    let told = world.why(1, "many-4").await;
    assert_eq!(told, "no room: 4 runs go on in waves, and 4 may (`--wave-concurrency`)");
    world.clock.advance(Duration::from_secs(540));
    world.pass().await;
    assert_eq!(running().await, 4);
    world.clock.advance(Duration::from_secs(61));
    world.pass().await;
    assert_eq!(running().await, 5);
}

#[tokio::test]
async fn whose_runs_no_agent_takes_has_a_turn_all_the_same() {
    let world = World::new().await;
    testing::token(&world.core, "bob", &["run", "repository:*:pull"]).await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    let text = |tag: &str| format!("steps:\n  - cmd: localhost:5000/base:{tag} true\n");
    for number in 0..4 {
        world.make(&format!("away-{number}"), follows(true)).await;
        world.run(&format!("away-{number}"), "1", &one).await;
    }
    for number in 0..6 {
        world.make_for("bob", &format!("many-{number}"), &text("2"), follows(true)).await;
        world.run(&format!("many-{number}"), "2", &two).await;
    }
    world.make_of("last-one", &text("2"), follows(true)).await;
    world.run("last-one", "2", &two).await;
    world.push("1", "new one").await;
    world.pass().await;
    assert_eq!(world.waves().await[0].matches("=running").count(), 4);
    // Nobody takes them: others have the room, and what else there is of ann has its share of it.
    world.clock.advance(Duration::from_secs(601));
    world.push("2", "new two").await;
    world.pass().await;
    let waves = world.waves().await;
    assert_eq!(waves[1].matches("=running").count(), 4, "{waves:?}");
    assert!(waves[1].contains("last-one=running"), "{waves:?}");
}

#[tokio::test]
async fn waves_are_forgotten_when_they_have_been_over_for_long() {
    let (world, _) = two_tasks().await;
    world.push("1", "two").await;
    world.open().await;
    let ann = testing::principal("ann");
    steer(&world.core, WaveId::from_number(1), WaveEvent::Cancel { by: ann.clone() }, &ann).await.expect("cancelled");
    world.push("1", "three").await;
    world.open().await;
    let day = Duration::from_secs(24 * 3600);
    let expire = async |limit| world.core.waves.expire_waves(day, limit).await.expect("store");
    assert_eq!(expire(10).await, 0);
    world.clock.advance(day);
    // Two members and their wave, in parts.
    assert_eq!(expire(1).await, 1);
    assert_eq!(world.waves().await, ["w2 running first=waiting other=waiting"]);
    // Nobody tries a part of it again.
    let half = retry(&world.core, WaveId::from_number(1), &ann).await.expect_err("it is gone");
    assert_eq!(half.0.code, ProblemCode::NotFound);
    assert_eq!([expire(1).await, expire(10).await, expire(10).await], [1, 1, 0]);
    assert_eq!(world.waves().await, ["w2 running first=waiting other=waiting"], "what goes on stays");
}

#[tokio::test]
async fn rules_are_told_and_what_changes_in_between_counts() {
    let (world, one) = two_tasks().await;
    world.make("quiet", follows(false)).await;
    world.run("quiet", "1", &one).await;
    world.push("1", "two").await;
    world.open().await;
    world.change("other", TaskChange { enabled: Some(false), ..TaskChange::default() }).await;
    let first = tasks::find(&world.core, "first").await;
    world.core.tasks.delete_task(&first).await.expect("deleted");
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 over first=skipped other=skipped"]);
    let refusals = world.core.waves.list_refusals(&name("quiet"), 10).await.expect("store");
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].event.starts_with("base image base:1 became sha256:"), "{}", refusals[0].event);
    assert_eq!(refusals[0].rule, "its base image trigger is disabled");
}
