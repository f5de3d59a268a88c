//! Bodies that come slowly, that are large, and many at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::SinkExt as _;
use futures::channel::mpsc::{Sender, channel};

use super::*;
use crate::hooks::rooms::{OF_PRINCIPAL, Times};

type Frames = Sender<Result<Bytes, std::io::Error>>;

fn whose(name: &str) -> PrincipalName {
    PrincipalName::parse(name).expect("valid")
}

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(3600);
const NO_WAIT: Duration = Duration::from_millis(100);

/// Rooms in which nothing is too slow.
fn rooms() -> Arc<Rooms> {
    Arc::new(Rooms::with(Times { first: LONG, more: LONG, longest: LONG, stall: LONG, wait: NO_WAIT }))
}

/// Rooms in which everything is too slow that does not hurry.
fn quick_rooms() -> Arc<Rooms> {
    let millis = Duration::from_millis;
    let (first, more) = (millis(400), millis(20));
    Arc::new(Rooms::with(Times { first, more, longest: LONG, stall: LONG, wait: NO_WAIT }))
}

/// A body that is being read, and the way to go on with it.
fn begin(rooms: &Arc<Rooms>, principal: PrincipalName) -> (Frames, tokio::task::JoinHandle<Result<Read, Fault>>) {
    let (frames, stream) = channel(0);
    let rooms = Arc::clone(rooms);
    let read = async move { read(&rooms, &principal, &HeaderMap::new(), Body::from_stream(stream)).await };
    (frames, tokio::spawn(read))
}

async fn send(frames: &mut Frames, bytes: usize) {
    frames.send(Ok(vec![b' '; bytes].into())).await.expect("it is read");
}

async fn whole(rooms: &Rooms, principal: PrincipalName, bytes: usize) -> Result<Read, Fault> {
    read(rooms, &principal, &HeaderMap::new(), Body::from(vec![b' '; bytes])).await
}

#[tokio::test]
async fn slow_bodies_keep_nobody_waiting() {
    let rooms = rooms();
    let mut slow = Vec::new();
    for number in 0..100 {
        let (mut frames, read) = begin(&rooms, whose("a"));
        // So many of them take the principal's share.
        send(&mut frames, if number < OF_PRINCIPAL { LARGE + 1 } else { 1000 }).await;
        slow.push((frames, read));
    }
    for bytes in [1000, LARGE, 10 << 20] {
        let read = whole(&rooms, whose("b"), bytes).await.expect("there is room");
        assert_eq!(read.bytes.len(), bytes);
    }
    assert!(slow.iter().all(|(_, read)| !read.is_finished()), "they were waited for");
    slow.iter().for_each(|(_, read)| read.abort());
}

#[tokio::test]
async fn slow_bodies_are_given_up() {
    let rooms = quick_rooms();
    let mut slow = Vec::new();
    for bytes in [0, 1, 1000, LARGE + 1] {
        let (mut frames, read) = begin(&rooms, whose("a"));
        if bytes > 0 {
            // One that was given up before takes nothing any more.
            let _ = frames.send(Ok(vec![b' '; bytes].into())).await;
        }
        slow.push((frames, read));
    }
    for (frames, read) in slow {
        assert_eq!(read.await.expect("no panic").expect_err("it is slow"), TOO_SLOW);
        drop(frames);
    }
}

#[tokio::test]
async fn a_body_that_goes_on_has_its_time() {
    // Each part gives it more time than a machine can be slow.
    let first = Duration::from_secs(4);
    let rooms = Arc::new(Rooms::with(Times { first, more: LONG, longest: LONG, stall: LONG, wait: NO_WAIT }));
    let (mut frames, read) = begin(&rooms, whose("a"));
    // Longer than the beginning may take.
    let start = Instant::now();
    let mut parts = 0;
    while parts < 20 || start.elapsed() < first * 3 / 2 {
        send(&mut frames, A_PART).await;
        parts += 1;
        tokio::time::sleep(first / 10).await;
    }
    drop(frames);
    assert_eq!(read.await.expect("no panic").expect("it is read").bytes.len(), parts * A_PART);
    // A drop now and then is not enough.
    let (mut frames, read) = begin(&quick_rooms(), whose("a"));
    send(&mut frames, LARGE + 1).await;
    while frames.send(Ok(Bytes::from_static(b" "))).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(read.await.expect("no panic").expect_err("it is slow"), TOO_SLOW);
}

#[tokio::test]
async fn a_principal_has_their_share_of_large_bodies_and_all_have_their_room() {
    let rooms = rooms();
    let one = whole(&rooms, whose("a"), MAX_BODY).await.expect("there is room");
    let _two = whole(&rooms, whose("a"), MAX_BODY).await.expect("it is another hook's");
    assert_eq!(whole(&rooms, whose("a"), 1 << 20).await.expect_err("these are their bytes"), NO_SHARE);
    whole(&rooms, whose("a"), LARGE).await.expect("a small one needs none");
    let mut places = Vec::new();
    for _ in 0..OF_PRINCIPAL {
        places.push(whole(&rooms, whose("b"), LARGE + 1).await.expect("there is room"));
    }
    assert_eq!(whole(&rooms, whose("b"), LARGE + 1).await.expect_err("these are their places"), NO_SHARE);
    let _three = whole(&rooms, whose("c"), MAX_BODY).await.expect("there is room");
    assert_eq!(whole(&rooms, whose("d"), MAX_BODY).await.expect_err("it is full"), NO_ROOM);
    drop(one);
    whole(&rooms, whose("d"), MAX_BODY).await.expect("it was given back");
    assert_eq!(whole(&rooms, whose("d"), MAX_BODY + 1).await.expect_err("too large"), TOO_LARGE);
}

#[tokio::test]
async fn a_large_body_that_stops_gives_its_room_back_soon() {
    let stall = Duration::from_millis(300);
    let rooms = Arc::new(Rooms::with(Times { first: LONG, more: LONG, longest: LONG, stall, wait: LONG }));
    let (mut small, read_small) = begin(&rooms, whose("a"));
    send(&mut small, 1000).await;
    let (mut large, read_large) = begin(&rooms, whose("a"));
    send(&mut large, 1 << 20).await;
    let ended = tokio::time::timeout(Duration::from_secs(120), read_large).await.expect("it holds its room");
    assert_eq!(ended.expect("no panic").expect_err("it has stopped"), TOO_SLOW);
    assert!(!read_small.is_finished(), "that one takes none");
    drop((small, large));
}

#[tokio::test]
async fn who_has_begun_in_earnest_has_room_for_all_that_was_announced() {
    let rooms = rooms();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, MAX_BODY.into());
    let (mut frames, stream) = channel(0);
    let begun = {
        let rooms = Arc::clone(&rooms);
        async move { read(&rooms, &whose("a"), &headers, Body::from_stream(stream)).await }
    };
    let begun = tokio::spawn(begun);
    send(&mut frames, IN_EARNEST + 1).await;
    // Handed over when it is asked for, which is after the room was taken.
    send(&mut frames, 1).await;
    let _others = [whole(&rooms, whose("b"), MAX_BODY).await, whole(&rooms, whose("c"), MAX_BODY).await];
    let _third = whole(&rooms, whose("d"), MAX_BODY).await.expect("there is room");
    assert_eq!(whole(&rooms, whose("e"), MAX_BODY).await.expect_err("it is full"), NO_ROOM);
    send(&mut frames, MAX_BODY - IN_EARNEST - 2).await;
    drop(frames);
    assert_eq!(begun.await.expect("no panic").expect("it ends").bytes.len(), MAX_BODY);
}
