//! The life of an agent and of its placements: slots, cancelling, panics, refusals, shutting down.

use std::sync::Arc;
use std::time::Duration;

use cooper_agent::{Agent, AgentError, AgentSettings};
use cooper_engine::message::{Held, StepResult, ToAgent, ToServer};
use cooper_ports::clock::ManualClock;
use cooper_ports::engine::scripted::{EngineCall, Gate, ScriptedBuild, ScriptedEngine};
use cooper_ports::engine::{
    ContainerEngine as _, EngineOwner, PlacementRequest, PlacementScope, VolumeContent, VolumeRequest,
};
use cooper_types::{AttemptNumber, Platform, SecretString, Timestamp, VolumeName};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, build, key, settings, soon};
use crate::driven::DrivenEngine;
use crate::server::TestServer;

#[tokio::test]
async fn more_than_the_slots_is_declined() {
    let mut bench = Bench::start(Arc::new(ScriptedEngine::new()));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.place(key(2)).await;
    let offer = |run| ToAgent::Offer { key: key(run), platform: Platform::LINUX_AMD64 };
    stream.say(offer(3)).await;
    let declined = ToServer::Declined(key(3), "all 2 slots are in use".to_owned());
    assert_eq!(soon("answer", stream.message()).await, declined);
    stream.stop(key(1)).await;
    stream.place(key(3)).await;
    let held = soon("report", stream.holding()).await;
    assert_eq!(held.len(), 2);
    bench.shut_down().await;
}

#[tokio::test]
async fn an_agent_without_its_engine_declines_and_recovers_by_itself() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start_with(engine.clone(), |settings| settings.engine_period = Duration::from_millis(5));
    let mut stream = bench.stream().await;
    let mut next = 1;
    for down in [true, false] {
        engine.set_down(down);
        // Offers go on until the agent has noticed; `soon` bounds each wait, and the count bounds them all.
        let noticed = loop {
            stream.say(ToAgent::Offer { key: key(next), platform: Platform::LINUX_AMD64 }).await;
            let answer = soon("answer", stream.message()).await;
            if answer == ToServer::Accepted(key(next)) {
                stream.stop(key(next)).await;
            }
            next += 1;
            match answer {
                ToServer::Accepted(_) if down => {}
                ToServer::Declined(..) if !down => {}
                answer => break answer,
            }
            assert!(next < 10_000, "the agent never notices that its engine is down = {down}");
        };
        match noticed {
            ToServer::Declined(_, why) => assert!(down && why.contains("engine"), "{why}"),
            ToServer::Accepted(_) => assert!(!down),
            other => panic!("{other:?}"),
        }
    }
    bench.shut_down().await;
}

#[tokio::test]
async fn a_build_on_an_engine_that_stops_answering_is_lost() {
    let engine = Arc::new(ScriptedEngine::new());
    let gate = Gate::new();
    engine.script_build(ScriptedBuild::success("never", Vec::new()).waiting_at(&gate));
    let mut bench = Bench::start_with(engine.clone(), |settings| settings.engine_period = Duration::from_millis(5));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    soon("build", gate.arrival()).await;
    engine.set_down(true);
    match stream.result(key(1), 1).await {
        StepResult::Lost { reason } => assert!(reason.starts_with("engine stopped answering: "), "{reason}"),
        other => panic!("{other:?}"),
    }
    stream.stop(key(1)).await;
    engine.set_down(false);
    // Taken again, and without any doing.
    let mut next = 2;
    loop {
        stream.say(ToAgent::Offer { key: key(next), platform: Platform::LINUX_AMD64 }).await;
        match soon("answer", stream.message()).await {
            ToServer::Accepted(_) => break,
            ToServer::Declined(..) => next += 1,
            other => panic!("{other:?}"),
        }
        assert!(next < 10_000, "the agent never notices that its engine is back");
    }
    bench.shut_down().await;
}

#[tokio::test]
async fn an_engine_that_becomes_another_is_told_on_a_new_stream() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start_with(engine.clone(), |settings| {
        settings.engine_period = Duration::from_millis(5);
        settings.describe_period = Duration::from_millis(5);
    });
    let mut stream = bench.stream().await;
    assert_eq!(stream.hello.emulated_platforms, Vec::<String>::new());
    stream.place(key(1)).await;
    let mut description = (*engine.describe()).clone();
    description.emulated.insert(Platform::parse("linux/arm64").expect("a platform"));
    engine.set_description(description);
    let mut again = bench.stream().await;
    assert_eq!(again.hello.emulated_platforms, ["linux/arm64"]);
    assert_eq!(again.hello.incarnation, stream.hello.incarnation, "it is the same life");
    assert_eq!(soon("report", again.holding()).await, [Held { key: key(1), attempts: Vec::new() }], "and all goes on");
    bench.shut_down().await;
}

#[tokio::test]
async fn a_cancelled_build_is_gone() {
    let engine = Arc::new(ScriptedEngine::new());
    let gate = Gate::new();
    engine.script_build(ScriptedBuild::success("never", Vec::new()).waiting_at(&gate));
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    soon("build", gate.arrival()).await;
    stream.say(ToAgent::Stop { key: key(1) }).await;
    assert_eq!(soon("end", stream.message()).await, ToServer::Stopped(key(1)), "and no result");
    assert_eq!(engine.names(), Vec::<String>::new());
    assert!(matches!(engine.calls().last(), Some(EngineCall::RemoveNames(names)) if names.len() == 1));
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    // What it does not hold, it says to be stopped.
    stream.say(ToAgent::Stop { key: key(9) }).await;
    assert_eq!(soon("end", stream.message()).await, ToServer::Stopped(key(9)));
    bench.shut_down().await;
}

#[tokio::test]
async fn names_that_the_engine_keeps_are_removed_later() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    stream.result(key(1), 1).await;
    engine.set_down(true);
    stream.stop(key(1)).await;
    engine.set_down(false);
    assert_eq!(engine.names().len(), 1);
    stream.place(key(2)).await;
    stream.stop(key(2)).await;
    assert_eq!(engine.names(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn names_that_a_hanging_engine_kept_are_removed_when_it_is_back() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start_with(engine.clone(), |settings| settings.engine_period = Duration::from_millis(5));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    stream.result(key(1), 1).await;
    engine.set_down(true);
    stream.stop(key(1)).await;
    assert_eq!(engine.names().len(), 1);
    for next in 2.. {
        stream.say(ToAgent::Offer { key: key(next), platform: Platform::LINUX_AMD64 }).await;
        match soon("answer", stream.message()).await {
            ToServer::Declined(_, why) if why.contains("engine") => break,
            ToServer::Declined(..) | ToServer::Accepted(_) => {}
            other => panic!("{other:?}"),
        }
    }
    engine.set_down(false);
    let gone = async {
        while !engine.names().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon("end of the names", gone).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn a_step_that_panics_is_lost_and_the_agent_lives() {
    // The driven engine has one build, and panics when it is asked for another.
    let (engine, voice) = DrivenEngine::new();
    drop(voice);
    let mut bench = Bench::start(engine);
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    stream.start(key(1), 2, build()).await;
    let lost = StepResult::Lost { reason: "the agent failed: one build".to_owned() };
    assert_eq!(stream.result(key(1), 2).await, lost);
    stream.stop(key(1)).await;
    stream.place(key(2)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn an_unstored_result_is_said_again_on_the_next_stream() {
    let mut bench = Bench::start(Arc::new(ScriptedEngine::new()));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    let result = soon("result", stream.message()).await;
    assert!(matches!(result, ToServer::StepEnded(..)));
    stream.break_off().await;
    let mut stream = bench.stream().await;
    assert_eq!(soon("report", stream.holding()).await, [Held { key: key(1), attempts: vec![AttemptNumber(1)] }]);
    assert_eq!(soon("result", stream.message()).await, result);
    stream.say(ToAgent::ResultStored { key: key(1), attempt: AttemptNumber(1) }).await;
    loop {
        let held = soon("report", stream.holding()).await;
        if held == [(Held { key: key(1), attempts: Vec::new() })] {
            break;
        }
    }
    bench.shut_down().await;
}

#[tokio::test]
async fn refusals_and_nonsense_end_in_another_try() {
    let mut bench = Bench::start(Arc::new(ScriptedEngine::new()));
    let stream = bench.stream().await;
    bench.server.refuse(2, 0);
    stream.say_nonsense().await;
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn a_shutdown_stops_builds_cleans_up_and_says_so() {
    let engine = Arc::new(ScriptedEngine::new());
    let gate = Gate::new();
    engine.script_build(ScriptedBuild::success("never", Vec::new()).waiting_at(&gate));
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.place(key(2)).await;
    stream.start(key(1), 1, build()).await;
    soon("build", gate.arrival()).await;
    bench.begin_shutdown();
    let mut stopped =
        [soon("end", stream.message()).await, soon("end", stream.message()).await].map(|m| format!("{m:?}"));
    stopped.sort();
    assert_eq!(stopped, [ToServer::Stopped(key(1)), ToServer::Stopped(key(2))].map(|m| format!("{m:?}")));
    soon("end of the stream", stream.ended()).await;
    assert_eq!(engine.names(), Vec::<String>::new());
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn a_shutdown_without_a_server_ends_too() {
    let mut bench = Bench::start(Arc::new(ScriptedEngine::new()));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    bench.server.break_connections(false);
    stream.break_off().await;
    bench.shut_down().await;
}

#[tokio::test]
async fn what_an_earlier_life_left_is_gone_before_the_first_work() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start_with(engine.clone(), |settings| {
        let left = settings.work_dir.join("ca5-17");
        std::fs::create_dir(&left).expect("a folder");
        std::fs::write(left.join("spool"), "x").expect("a file");
    });
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    assert!(!bench.leftovers().contains(&"ca5-17".to_owned()));
    let owner = EngineOwner::new("server/tester");
    assert!(matches!(engine.calls().first(), Some(EngineCall::Reap(reaped)) if *reaped == owner));
    bench.shut_down().await;
}

/// What a life that dies has asked for may come to be after the next one has looked: it looks again while it finds things.
#[tokio::test]
async fn an_engine_that_held_something_is_looked_through_again() {
    let engine = Arc::new(ScriptedEngine::new());
    let left = async |run| {
        let request = PlacementRequest {
            scope: PlacementScope { owner: EngineOwner::new("server/tester"), key: key(run) },
            volumes: vec![VolumeRequest {
                name: VolumeName::parse("home").expect("a name"),
                content: VolumeContent::Empty,
            }],
            networks: Vec::new(),
            shared_network: false,
            registry: None,
        };
        engine.open_placement(request, CancellationToken::new()).await.expect("a placement")
    };
    let _before = left(8).await;
    let bench = Bench::start_with(engine.clone(), |_| {});
    let reaped = || engine.calls().iter().filter(|call| matches!(call, EngineCall::Reap(_))).count();
    let times = async |times| {
        while reaped() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the first look", times(1)).await;
    let _meanwhile = left(9).await;
    soon("a look that finds nothing", times(3)).await;
    assert_eq!(engine.placements(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn a_refused_token_is_tried_again_and_holds_nothing_up() {
    let engine = Arc::new(ScriptedEngine::new());
    let bench = Bench::start_with(engine.clone(), |settings| {
        settings.token = SecretString::new("revoked".to_owned());
    });
    soon("second try", bench.server.wrong_tokens(2)).await;
    // What is in the engine under its name may be that of another process, which the server knows.
    assert!(!engine.calls().iter().any(|call| matches!(call, EngineCall::Reap(_))));
    bench.shut_down().await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    async fn error(change: impl FnOnce(&mut AgentSettings)) -> AgentError {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("file"), "x").expect("a file");
        let mut settings = settings(dir.path());
        change(&mut settings);
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let agent = Agent::new(settings, Arc::new(ScriptedEngine::new()), clock);
        let (server, _streams) = TestServer::new();
        let connector = Arc::new(server.connector());
        soon("refusal", agent.run(connector, CancellationToken::new())).await.expect_err("refused")
    }
    assert!(matches!(error(|settings| settings.slots = 0).await, AgentError::NoSlots));
    let token = SecretString::new("two\nlines".to_owned());
    assert!(matches!(error(|settings| settings.token = token).await, AgentError::Token));
    let inside_a_file = error(|settings| settings.work_dir.push("file/dir")).await;
    assert!(inside_a_file.to_string().ends_with("file/dir cannot be used"), "{inside_a_file}");
}
