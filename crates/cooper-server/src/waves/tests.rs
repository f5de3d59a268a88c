//! Waves over a real store: what a moved tag starts, once, and what people and other runs make of that.

mod chains;
mod notices;
mod pauses;
mod polling;
mod room;
mod unreadable;
mod world;

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
use world::{World, follows, two_tasks};

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
