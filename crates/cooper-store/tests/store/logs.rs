//! Conformance of the port for logs.

use cooper_engine::message::StepResult;
use cooper_engine::run::RunEvent;
use cooper_ports::logs::{AppendError, Frame, LogStore, MAX_FRAME_DATA, NewFrame, ReadLogError, Stream};
use cooper_types::{AttemptNumber, RunId, Timestamp};

use crate::fixture::{Fixture, Started, principal};

fn line(stream: Stream, data: impl Into<Vec<u8>>) -> NewFrame {
    NewFrame { time: Timestamp::from_micros(7), stream, vertex: None, data: data.into() }
}

fn stdout(data: &str) -> NewFrame {
    line(Stream::Stdout, data)
}

async fn all_text(fixture: &Fixture, run: RunId) -> String {
    String::from_utf8(fixture.store.read_text(run, 0, usize::MAX).await.unwrap().data).unwrap()
}

async fn all_frames(fixture: &Fixture, run: RunId) -> Vec<Frame> {
    let found = fixture.store.read_frames(run, 0, usize::MAX).await.unwrap();
    found.frames.into_iter().map(|(_, frame)| frame).collect()
}

#[tokio::test]
async fn frames_are_kept_once_and_in_order() {
    let mut fixture = Fixture::new().await;
    let Started { run, attempt, .. } = fixture.start().await;
    let before = all_text(&fixture, run).await;
    let store = &fixture.store;
    let append = async |first: u64, texts: &[&str]| {
        store.append_frames(run, attempt, first, texts.iter().map(|text| stdout(text)).collect()).await
    };
    assert_eq!(append(1, &["a", "b"]).await.unwrap(), 2);
    assert_eq!(append(1, &["a", "b"]).await.unwrap(), 2);
    assert_eq!(append(2, &["b", "c"]).await.unwrap(), 3);
    assert_eq!(append(4, &[]).await.unwrap(), 3);
    assert_eq!(append(4, &["d"]).await.unwrap(), 4);
    let hole = append(6, &["f"]).await.unwrap_err();
    assert!(matches!(hole, AppendError::Hole { first: 6, expected: 5, .. }), "{hole}");
    assert!(matches!(append(0, &["?"]).await.unwrap_err(), AppendError::Hole { .. }));
    fixture.reopen().await;
    assert_eq!(all_text(&fixture, run).await, format!("{before}abcd"));
    let frames = all_frames(&fixture, run).await;
    let seqs: Vec<u64> = frames.iter().filter(|frame| frame.attempt == Some(attempt)).map(|frame| frame.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
}

#[tokio::test]
async fn only_a_live_attempt_writes() {
    let fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    let store = &fixture.store;
    let never = store.append_frames(run, AttemptNumber(99), 1, vec![stdout("x")]).await.unwrap_err();
    assert!(matches!(never, AppendError::NotLive { attempt: AttemptNumber(99), .. }));
    let huge = store.append_frames(run, AttemptNumber(u64::MAX), 1, vec![stdout("x")]).await.unwrap_err();
    assert!(matches!(huge, AppendError::NotLive { .. }));
    store.append_frames(run, attempt, 1, vec![stdout("kept")]).await.unwrap();

    let result = StepResult::Lost { reason: "engine went away".to_owned() };
    fixture.apply(run, RunEvent::StepEnded { fence, attempt, result }).await.unwrap();
    let late = store.append_frames(run, attempt, 2, vec![stdout("late")]).await.unwrap_err();
    assert!(matches!(late, AppendError::NotLive { .. }));
    let text = all_text(&fixture, run).await;
    assert!(text.contains("kept") && !text.contains("late"), "{text}");
    // The loss is shown in the log.
    assert!(text.contains("gap in the log, unknown size"), "{text}");
    let unknown = store.append_service_frames(RunId::from_number(99), vec![stdout("x")]).await.unwrap_err();
    assert!(matches!(unknown, AppendError::UnknownRun(_)));
}

#[tokio::test]
async fn a_gap_shows_its_size_and_vertices_are_not_text() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    fixture.store.append_service_frames(run, vec![NewFrame::service(Timestamp::from_micros(1), "hi")]).await.unwrap();
    fixture.store.append_service_frames(run, vec![line(Stream::Vertex, "{}"), stdout("out")]).await.unwrap();
    let end = fixture.store.append_gap(run, Some(4096), "the agent's buffer was full").await.unwrap();
    let text = all_text(&fixture, run).await;
    assert_eq!(text, "hi\nout\n[gap in the log, 4096 bytes: the agent's buffer was full]\n");
    assert_eq!(end.text_offset, text.len() as u64);
    let streams: Vec<Stream> = all_frames(&fixture, run).await.iter().map(|frame| frame.stream).collect();
    assert_eq!(streams, [Stream::Service, Stream::Vertex, Stream::Stdout, Stream::Gap]);
}

#[tokio::test]
async fn a_complete_log_takes_nothing() {
    let fixture = Fixture::new().await;
    let Started { run, attempt, .. } = fixture.start().await;
    let end = fixture.store.complete_log(run).await.unwrap();
    assert!(end.complete);
    assert_eq!(fixture.store.complete_log(run).await.unwrap(), end);
    for refused in [
        fixture.store.append_frames(run, attempt, 1, vec![stdout("x")]).await.map(drop),
        fixture.store.append_service_frames(run, vec![stdout("x")]).await.map(drop),
    ] {
        assert!(matches!(refused, Err(AppendError::Complete(id)) if id == run));
    }
    assert_eq!(fixture.store.log_end(run).await.unwrap(), end);
}

#[tokio::test]
async fn a_run_that_ends_completes_its_log() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    let applied = fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let end = applied.log_end.unwrap();
    assert!(end.complete);
    assert_eq!(fixture.store.log_end(run).await.unwrap(), end);
    assert!(all_text(&fixture, run).await.contains("was canceled"));
}

#[tokio::test]
async fn a_frame_has_a_limit() {
    let fixture = Fixture::new().await;
    let Started { run, attempt, .. } = fixture.start().await;
    let largest = line(Stream::Stdout, vec![b'x'; MAX_FRAME_DATA]);
    let larger = NewFrame { vertex: Some("v".to_owned()), ..largest.clone() };
    let refused = fixture.store.append_frames(run, attempt, 1, vec![stdout("a"), larger]).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { size } if size == MAX_FRAME_DATA + 1));
    assert_eq!(fixture.store.append_frames(run, attempt, 1, vec![largest]).await.unwrap(), 1);
}

/// A small generator: the test must be the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test]
async fn any_reader_at_any_offset_sees_the_same_log() {
    let fixture = Fixture::new().await;
    let Started { run, attempt, .. } = fixture.start().await;
    let store = &fixture.store;
    let mut random = Random(0x5eed);
    let mut text = all_text(&fixture, run).await.into_bytes();
    let mut seq = 1;
    for _ in 0..60 {
        let frames: Vec<NewFrame> = (0..random.below(6))
            .map(|_| {
                // Some appends are larger than a segment.
                let length = [0, 1, 40, 3000, 90_000][random.below(5) as usize];
                let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                let stream = if random.below(4) == 0 { Stream::Vertex } else { Stream::Stderr };
                line(stream, data)
            })
            .collect();
        frames.iter().filter(|frame| frame.stream == Stream::Stderr).for_each(|frame| text.extend(&frame.data));
        seq = store.append_frames(run, attempt, seq, frames).await.unwrap() + 1;
    }
    let end = store.log_end(run).await.unwrap();
    assert_eq!(end.text_offset, text.len() as u64);
    let segments = fixture.count("SELECT count(*) FROM log_segments").await;
    assert!(segments > 40, "{segments}");

    for _ in 0..40 {
        let from = random.below(end.text_offset + 1);
        let limit = 1 + random.below(400_000) as usize;
        let part = store.read_text(run, from, limit).await.unwrap();
        let expect = &text[from as usize..text.len().min(from as usize + limit)];
        assert!(part.data == expect, "text from {from}, {limit} bytes");
        assert_eq!(part.next_offset, from + expect.len() as u64);
    }

    let whole = store.read_frames(run, 0, usize::MAX).await.unwrap();
    assert_eq!(whole.next_offset, end.frame_offset);
    for limit in [1, 5_000, 300_000] {
        let mut frames = Vec::new();
        let mut offset = 0;
        while offset < end.frame_offset {
            let part = store.read_frames(run, offset, limit).await.unwrap();
            assert!(!part.frames.is_empty());
            assert!(part.frames.len() == 1 || part.next_offset - offset <= limit as u64);
            offset = part.next_offset;
            frames.extend(part.frames);
        }
        assert!(frames == whole.frames, "limit {limit}");
    }
    // As they are kept, from anywhere: whole segments, within the limit from the second on, and no frame is missing.
    for limit in [1, 5_000, 300_000, usize::MAX] {
        let mut offset = whole.frames[whole.frames.len() / 2].0;
        let mut frames = Vec::new();
        while offset < end.frame_offset {
            let part = store.read_segments(run, offset, limit).await.unwrap();
            assert!(part.segments.len() == 1 || part.next_offset - offset <= limit as u64);
            assert_eq!(part.segments.last().unwrap().end, part.next_offset);
            let held = part.segments.iter().flat_map(|segment| segment.frames().unwrap());
            frames.extend(held.filter(|(at, _)| *at >= offset).map(|(_, frame)| frame));
            offset = part.next_offset;
        }
        let expect: Vec<_> =
            whole.frames[whole.frames.len() / 2 + 1..].iter().map(|(_, frame)| frame.clone()).collect();
        assert!(frames == expect, "limit {limit}");
    }
    assert!(store.read_segments(run, end.frame_offset, 1).await.unwrap().segments.is_empty());
    // Each offset that was handed out is one to go on from; others are refused.
    for (index, (offset, _)) in whole.frames.iter().enumerate() {
        let rest = store.read_frames(run, *offset, 1).await.unwrap();
        assert_eq!(rest.frames.first(), whole.frames.get(index + 1));
        let refused = store.read_frames(run, offset - 1, 1).await.unwrap_err();
        assert!(matches!(refused, ReadLogError::Offset { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_part_of_the_longest_segment_is_found() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    let frame = |size: usize, byte| line(Stream::Stdout, vec![byte; size]);
    let first = (256 << 10) - 100;
    fixture.store.append_service_frames(run, vec![frame(first, b'a'), frame(MAX_FRAME_DATA, b'b')]).await.unwrap();
    fixture.store.append_service_frames(run, vec![frame(10, b'c')]).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM log_segments").await, 2);
    let end = first + MAX_FRAME_DATA;
    for (offset, limit, expect) in
        [(0, 3, "aaa"), (first - 1, 3, "abb"), (end - 1, 3, "bcc"), (end, 99, "cccccccccc"), (end + 10, 5, "")]
    {
        let text = fixture.store.read_text(run, offset as u64, limit).await.unwrap();
        assert_eq!(String::from_utf8(text.data).unwrap(), expect);
    }
}

#[tokio::test]
async fn offsets_beyond_the_end_are_refused() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    let end = fixture.store.append_service_frames(run, vec![stdout("x")]).await.unwrap();
    assert!(fixture.store.read_frames(run, end.frame_offset, 1).await.unwrap().frames.is_empty());
    assert!(fixture.store.read_text(run, end.text_offset, 1).await.unwrap().data.is_empty());
    for offset in [end.frame_offset + 1, u64::MAX] {
        let refused = fixture.store.read_frames(run, offset, 1).await.unwrap_err();
        assert!(matches!(refused, ReadLogError::Offset { .. }));
        let refused = fixture.store.read_text(run, offset, 1).await.unwrap_err();
        assert!(matches!(refused, ReadLogError::Offset { .. }));
    }
    let unknown = fixture.store.read_text(RunId::from_number(99), 0, 1).await.unwrap_err();
    assert!(matches!(unknown, ReadLogError::UnknownRun(_)));
}
