use std::time::Duration;

use cooper_engine::message::PlacementKey;
use cooper_types::{Fence, RunId, Timestamp};

use super::*;

const ATTEMPT: AttemptNumber = AttemptNumber(1);

fn key() -> PlacementKey {
    PlacementKey { run: RunId::from_number(1), fence: Fence(1) }
}

fn hub(patience: Duration) -> (Arc<LogHub>, LogSender, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let hub = LogHub::new(Limits { memory_bytes: 1000, spool_bytes: 1000, patience });
    let sender = hub.open(key(), ATTEMPT, dir.path().to_owned());
    (hub, sender, dir)
}

fn frame(length: usize) -> NewFrame {
    NewFrame { time: Timestamp::from_micros(0), stream: Stream::Service, vertex: None, data: vec![b'x'; length] }
}

/// Whether a future is still waiting after a while.
async fn waits(future: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(Duration::from_millis(200), future).await.is_err()
}

/// Fails a test whose event does not come.
async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), event).await.unwrap_or_else(|_| panic!("not within 60 s: {what}"))
}

#[tokio::test]
async fn a_finished_attempt_waits_for_a_server_that_is_away_but_not_for_one_that_is_deaf() {
    let (hub, sender, _dir) = hub(Duration::from_millis(20));
    sender.append(vec![frame(10)]).await;
    assert!(waits(sender.drained()).await, "the server is away");
    hub.stream_opened();
    soon("the end of the patience with a server that takes nothing", sender.drained()).await;
    hub.stream_closed();
    hub.stored(key(), ATTEMPT, 1);
    soon("the end, as everything is stored", sender.drained()).await;
}

#[tokio::test]
async fn a_step_waits_for_room_until_something_moves() {
    let (hub, sender, _dir) = hub(Duration::ZERO);
    hub.stream_opened();
    sender.append(vec![frame(600), frame(600)]).await;
    let append = sender.append(vec![frame(1)]);
    tokio::pin!(append);
    assert!(waits(&mut append).await, "the memory is full");
    hub.stored(key(), ATTEMPT, 1);
    soon("room", &mut append).await;
    sender.append(vec![frame(600)]).await;
    let append = sender.append(vec![frame(2)]);
    tokio::pin!(append);
    assert!(waits(&mut append).await);
    hub.stream_closed();
    soon("a place on disk, without a stream", &mut append).await;
    let append = sender.append(vec![frame(3)]);
    hub.stream_opened();
    tokio::pin!(append);
    assert!(waits(&mut append).await, "what is on disk goes first");
    hub.close(key(), ATTEMPT);
    soon("the end, as nobody wants it any more", &mut append).await;
}

#[tokio::test]
async fn the_pump_goes_round_and_sends_again_after_a_hole() {
    let (hub, sender, dir) = hub(Duration::ZERO);
    let other = hub.open(key(), AttemptNumber(2), dir.path().to_owned());
    let (stream, mut sent) = mpsc::channel(16);
    let pump = Arc::clone(&hub);
    let pump = tokio::spawn(async move { pump.pump(&stream).await });
    hub.stream_opened();
    sender.append(vec![frame(1), frame(2)]).await;
    other.append(vec![frame(3)]).await;
    let mut next = async || {
        let message = soon("a message", sent.recv()).await;
        match message.expect("the pump lives").message {
            Some(wire::agent_message::Message::LogFrames(frames)) => {
                (frames.attempt, frames.first_sequence, frames.frames.len())
            }
            other => panic!("{other:?}"),
        }
    };
    let mut first = [next().await, next().await];
    first.sort_unstable();
    assert_eq!(first, [(1, 1, 2), (2, 1, 1)]);
    hub.stored(key(), ATTEMPT, 1);
    // The same again: what came after the first frame did not arrive.
    hub.stored(key(), ATTEMPT, 1);
    assert_eq!(next().await, (1, 2, 1));
    hub.stored(key(), ATTEMPT, 2);
    drop(sent);
    soon("the pump's end, with its stream", pump).await.expect("no panic");
}
