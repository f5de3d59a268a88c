use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { memory_bytes: 1000, spool_bytes: 2000, patience: Duration::ZERO };

fn outbox(dir: &tempfile::TempDir) -> Outbox {
    Outbox::new(LIMITS, dir.path().to_owned())
}

fn frame(data: &[u8]) -> NewFrame {
    NewFrame { time: Timestamp::from_micros(1), stream: Stream::Stdout, vertex: None, data: data.to_vec() }
}

/// A server that stores what comes in order, and answers as the real one does.
#[derive(Default)]
struct Server {
    stored: u64,
    text: Vec<u8>,
}

impl Server {
    fn take(&mut self, first: u64, frames: &[NewFrame]) -> u64 {
        for (sequence, frame) in (first..).zip(frames) {
            if sequence == self.stored + 1 {
                self.stored = sequence;
                self.text.extend_from_slice(&frame.data);
            }
        }
        self.stored
    }
}

#[derive(Clone, Debug)]
enum Action {
    Push(usize),
    Send,
    /// Sent, but the stream breaks.
    SendInVain,
    /// Sent and stored, but the answer is lost.
    SendUnheard,
    RepeatAnswer,
    Rewind,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (1usize..300).prop_map(Action::Push),
        3 => Just(Action::Send),
        1 => Just(Action::SendInVain),
        1 => Just(Action::SendUnheard),
        1 => Just(Action::RepeatAnswer),
        1 => Just(Action::Rewind),
    ]
}

proptest! {
    /// Whatever is lost on the way: the server ends with all text in order and once, less what a gap accounts for.
    #[test]
    fn nothing_is_lost_or_doubled_untold(actions in proptest::collection::vec(action(), 0..60)) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (mut outbox, mut server) = (outbox(&dir), Server::default());
        let now = Instant::now;
        let mut pushed = Vec::new();
        for (index, action) in actions.iter().enumerate() {
            match action {
                Action::Push(length) => {
                    let data = vec![b'a' + u8::try_from(index % 20).expect("small"); *length];
                    outbox.push(frame(&data));
                    pushed.extend_from_slice(&data);
                }
                Action::Send => if let Some((first, frames)) = outbox.next_batch(400, now()) {
                    let answer = server.take(first, &frames);
                    outbox.stored(answer, now());
                },
                Action::SendInVain => {
                    outbox.next_batch(400, now());
                }
                Action::SendUnheard => if let Some((first, frames)) = outbox.next_batch(400, now()) {
                    server.take(first, &frames);
                },
                Action::RepeatAnswer => outbox.stored(server.stored, now()),
                Action::Rewind => outbox.rewind(),
            }
        }
        outbox.rewind();
        outbox.end();
        for _ in 0..1000 {
            let Some((first, frames)) = outbox.next_batch(400, now()) else { break };
            let answer = server.take(first, &frames);
            outbox.stored(answer, now());
        }
        prop_assert!(outbox.is_empty());
        let text = String::from_utf8(server.text).expect("ASCII");
        let mut rest = pushed.as_slice();
        for (index, piece) in text.split('[').enumerate() {
            let kept = if index == 0 { piece } else {
                let (gap, kept) = piece.split_once("]\n").expect("a whole gap");
                let missing: usize = gap.split(' ').next().expect("a number").parse().expect("a number");
                rest = &rest[missing..];
                kept
            };
            prop_assert!(rest.starts_with(kept.as_bytes()));
            rest = &rest[kept.len()..];
        }
        prop_assert!(rest.is_empty());
    }
}

#[test]
fn a_full_memory_goes_to_disk_and_a_full_disk_is_told() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (mut outbox, mut server) = (outbox(&dir), Server::default());
    for _ in 0..20 {
        outbox.push(NewFrame { stream: Stream::Service, ..frame(&[b'x'; 200]) });
    }
    assert!(!outbox.has_room());
    while let Some((first, frames)) = outbox.next_batch(64 * 1024, Instant::now()) {
        let answer = server.take(first, &frames);
        outbox.stored(answer, Instant::now());
    }
    outbox.push(frame(b"after\n"));
    let (first, frames) = outbox.next_batch(1000, Instant::now()).expect("the last frame");
    server.take(first, &frames);
    let text = String::from_utf8(server.text).expect("ASCII");
    let kept = text.matches('x').count();
    assert!(kept > 2000 && kept < 4000, "{kept}");
    assert!(
        text.ends_with(&format!(
            "[{} bytes of output are missing here: the agent could not reach the server]\nafter\n",
            4000 - kept
        )),
        "{text}"
    );
}

#[test]
fn small_frames_become_one_until_they_are_sent() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut outbox = outbox(&dir);
    let now = Instant::now();
    outbox.push(frame(b"a"));
    outbox.push(frame(b"b"));
    outbox.push(NewFrame { stream: Stream::Stderr, ..frame(b"c") });
    let (first, frames) = outbox.next_batch(1000, now).expect("frames");
    assert_eq!((first, frames.iter().map(|frame| frame.data.len()).collect::<Vec<_>>()), (1, vec![2, 1]));
    // Sent once, a frame stays what it is, on this stream and the next.
    outbox.push(NewFrame { stream: Stream::Stderr, ..frame(b"d") });
    outbox.rewind();
    outbox.push(NewFrame { stream: Stream::Stderr, ..frame(b"e") });
    let (first, frames) = outbox.next_batch(1000, now).expect("frames");
    assert_eq!(
        (first, frames.iter().map(|frame| frame.data.clone()).collect::<Vec<_>>()),
        (1, vec![b"ab".to_vec(), b"c".to_vec(), b"de".to_vec()])
    );
}

#[test]
fn an_answer_beyond_the_end_closes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut outbox = outbox(&dir);
    outbox.push(frame(b"a"));
    outbox.stored(u64::MAX, Instant::now());
    assert!(outbox.is_empty() && outbox.has_room());
    outbox.push(frame(b"b"));
    assert!(outbox.is_empty());
}

#[test]
fn silence_sends_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut outbox = outbox(&dir);
    let start = Instant::now();
    outbox.push(frame(b"a"));
    assert!(outbox.next_batch(100, start).is_some());
    outbox.rewind_if_silent(start + Duration::from_secs(4), Duration::from_secs(5));
    assert!(outbox.next_batch(100, start).is_none());
    outbox.rewind_if_silent(start + Duration::from_secs(5), Duration::from_secs(5));
    assert_eq!(outbox.next_batch(100, start).map(|batch| batch.0), Some(1));
}
