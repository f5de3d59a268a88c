//! The log's way to the server: whole, in order, once, whatever happens to streams.

use std::time::Duration;

use cooper_api::agent::wire::log_frames;
use cooper_engine::message::{Held, StepResult};
use cooper_types::AttemptNumber;

use crate::bench::{Bench, build, key, soon};
use crate::driven::DrivenEngine;

#[tokio::test]
async fn a_result_waits_for_its_log() {
    let (engine, voice) = DrivenEngine::new();
    let mut bench = Bench::start(engine);
    bench.server.acknowledge(false);
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    voice.begin().await;
    voice.say("the last line\n").await;
    drop(voice);
    soon("log", bench.server.text_until("ca1", 1, |text| text.contains("the last line\n"))).await;
    assert_eq!(stream.waiting(), None, "the server may not have stored it");
    bench.server.acknowledge(true);
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    assert_eq!(bench.server.log("ca1", 1).text(), "#1 [1/1] RUN talk\n#1 0.000 the last line\n");
    bench.shut_down().await;
}

#[tokio::test]
async fn lost_streams_lose_and_double_nothing() {
    let (engine, voice) = DrivenEngine::new();
    let mut bench = Bench::start(engine);
    let mut stream = bench.stream().await;
    let incarnation = stream.hello.incarnation.clone();
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    voice.begin().await;
    let mut expect = "#1 [1/1] RUN talk\n".to_owned();
    for round in 0..5 {
        // Stored and not acknowledged, stored and acknowledged, on the way, said without a stream.
        bench.server.acknowledge(round % 2 == 0);
        for line in 0..20 {
            let line = format!("round {round} line {line}\n");
            voice.say(&line).await;
            expect.push_str(&format!("#1 0.000 {line}"));
        }
        if round > 0 {
            let last = format!("round {round} line 3\n");
            soon("log", bench.server.text_until("ca1", 1, |text| text.contains(&last))).await;
        }
        let repeated = bench.server.log("ca1", 1).repeated;
        bench.server.break_connections(false);
        stream.break_off().await;
        let line = format!("alone in round {round}\n");
        voice.say(&line).await;
        expect.push_str(&format!("#1 0.000 {line}"));
        bench.server.be_reachable();
        stream = bench.stream().await;
        assert_eq!(stream.hello.incarnation, incarnation, "it is the same life");
        let held = soon("report", stream.holding()).await;
        assert_eq!(held, [Held { key: key(1), attempts: vec![AttemptNumber(1)] }]);
        if round % 2 == 1 {
            soon("repetition", bench.server.log_until("ca1", 1, |log| log.repeated > repeated)).await;
        }
    }
    bench.server.acknowledge(true);
    drop(voice);
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    assert_eq!(bench.server.log("ca1", 1).text(), expect);
    bench.shut_down().await;
}

#[tokio::test]
async fn a_server_that_lags_slows_the_build_down() {
    let (engine, voice) = DrivenEngine::new();
    let mut bench = Bench::start_with(engine, |settings| settings.log_memory_bytes = 100_000);
    bench.server.acknowledge(false);
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    voice.begin().await;
    let line = format!("{}\n", "x".repeat(9_999));
    let mut said = 0;
    // Far more than the queues on the way hold: the build must be made to wait before all of it is taken.
    while said < 10_000 && tokio::time::timeout(Duration::from_millis(500), voice.say(&line)).await.is_ok() {
        said += 1;
    }
    assert!(said < 1_000, "{said} lines of 10 kB were taken");
    bench.server.acknowledge(true);
    drop(voice);
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    let text = bench.server.log("ca1", 1).text();
    assert!(text.len() >= said * 10_000 && !text.contains("missing"));
    bench.shut_down().await;
}

#[tokio::test]
async fn what_no_disk_holds_is_counted() {
    let (engine, voice) = DrivenEngine::new();
    let mut bench = Bench::start_with(engine, |settings| {
        settings.log_memory_bytes = 50_000;
        settings.log_spool_bytes = 200_000;
    });
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build()).await;
    voice.begin().await;
    voice.say("before\n").await;
    soon("log", bench.server.text_until("ca1", 1, |text| text.contains("before"))).await;
    bench.server.break_connections(false);
    stream.break_off().await;
    let line = format!("{}\n", "x".repeat(990));
    for _ in 0..1000 {
        soon("a build that is not held up", voice.say(&line)).await;
    }
    bench.server.be_reachable();
    let mut stream = bench.stream().await;
    voice.say("after\n").await;
    drop(voice);
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    let log = bench.server.log("ca1", 1);
    let gaps: Vec<String> = log
        .frames
        .iter()
        .filter(|frame| frame.stream() == log_frames::Stream::Gap)
        .map(|frame| String::from_utf8(frame.data.clone()).expect("text"))
        .collect();
    assert!(!gaps.is_empty());
    let missing: usize =
        gaps.iter().map(|gap| gap[1..].split(' ').next().expect("a number").parse::<usize>().expect("a number")).sum();
    let kept = log.text().len() - gaps.iter().map(String::len).sum::<usize>();
    let said = "#1 [1/1] RUN talk\n#1 0.000 before\n#1 0.000 after\n".len() + 1000 * (line.len() + "#1 0.000 ".len());
    assert_eq!(kept + missing, said);
    assert!(kept > 200_000 && log.text().ends_with("after\n"));
    stream.stop(key(1)).await;
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.shut_down().await;
}
