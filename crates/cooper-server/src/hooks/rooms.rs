//! Room for what is large or takes long: of all hooks together, and of those of each principal, however many tasks they have.
//!
//! Whoever knows a hook's id may send to it, so nothing here is taken before a signature is there, all of it is given back
//! within seconds, and no principal has more than their share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cooper_types::PrincipalName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

/// The large bodies of all hooks together, in KiB.
const LARGE_KIB: usize = 64 << 10;
/// What is large or takes long, of one principal at a time: a push to a repository is told to all tasks on it.
pub(super) const OF_PRINCIPAL: usize = 8;
/// The large bodies of one principal together, in KiB: half of the room, which is two of the largest.
const PRINCIPAL_KIB: usize = (32 << 10) + 512;
/// With more patterns than this, a task is asked beside the runtime: compiling them is what takes long.
pub(super) const MANY_PATTERNS: usize = 50;
/// What takes long, of all hooks at a time on each side: each takes a processor, and memory while it is parsed.
const LONG: usize = 2;
/// Where something takes long.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// While a forge waits for its answer.
    Receive,
    /// When runs are made of what came.
    Runs,
}

/// Leave to work beside the runtime.
#[derive(Debug)]
pub(super) struct Processor {
    _place: Option<OwnedSemaphorePermit>,
}

impl Processor {
    /// Works beside the runtime.
    pub(super) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        tokio::task::spawn_blocking(move || {
            // It is given back when the work is done, also where nobody waits for that any more.
            let _processor = self;
            work()
        })
        .await
    }
}

/// How long senders and what waits for room have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The beginning of a body.
    pub(super) first: Duration,
    /// Each 128 KiB of it more.
    pub(super) more: Duration,
    /// A whole body.
    pub(super) longest: Duration,
    /// The next 128 KiB of one that takes room.
    pub(super) stall: Duration,
    /// What waits for room. Forges wait for ten seconds.
    pub(super) wait: Duration,
}

impl Times {
    const USUAL: Self = Self {
        first: Duration::from_secs(10),
        more: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        stall: Duration::from_secs(5),
        wait: Duration::from_secs(5),
    };
}

/// The rooms.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(super) times: Times,
    large: Arc<Semaphore>,
    /// On the way in, and on the way to runs: neither waits for the other.
    long: [Arc<Semaphore>; 2],
    shares: Mutex<BTreeMap<PrincipalName, Arc<OfPrincipal>>>,
}

/// What a principal's hooks may take.
#[derive(Debug)]
struct OfPrincipal {
    places: Arc<Semaphore>,
    kib: Arc<Semaphore>,
}

/// A part of a principal's share.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<OfPrincipal>,
    _place: OwnedSemaphorePermit,
}

/// What has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    OfPrincipal,
    OfAll,
}

/// Room for a part of a body.
#[derive(Debug)]
pub(super) struct Room {
    _of_principal: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::with(Times::USUAL)
    }
}

impl Rooms {
    pub(super) fn with(times: Times) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_KIB));
        Self { times, large, long: [LONG, LONG].map(|long| Arc::new(Semaphore::new(long))), shares: Mutex::default() }
    }

    /// A part of the principal's share; nothing if none was given back in time.
    pub(super) async fn share(&self, whose: &PrincipalName) -> Option<Share> {
        let of = {
            let mut shares = self.shares.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // Who has or awaits a part has a handle, too.
            shares.retain(|_, share| Arc::strong_count(share) > 1);
            let new = || OfPrincipal {
                places: Arc::new(Semaphore::new(OF_PRINCIPAL)),
                kib: Arc::new(Semaphore::new(PRINCIPAL_KIB)),
            };
            Arc::clone(shares.entry(whose.clone()).or_insert_with(|| Arc::new(new())))
        };
        let place = self.in_time(Arc::clone(&of.places).acquire_owned()).await?;
        Some(Share { of, _place: place })
    }

    /// Room for so many KiB more; if there is none in time, whether it is the principal who has too much.
    pub(super) async fn large(&self, share: &Share, kib: u32) -> Result<Room, Lacks> {
        let of_principal =
            self.in_time(Arc::clone(&share.of.kib).acquire_many_owned(kib)).await.ok_or(Lacks::OfPrincipal)?;
        let of_all = self.in_time(Arc::clone(&self.large).acquire_many_owned(kib)).await.ok_or(Lacks::OfAll)?;
        Ok(Room { _of_principal: of_principal, _of_all: of_all })
    }

    /// A processor for what takes long, as soon as there is one.
    pub(super) async fn processor(&self, side: Side) -> Processor {
        let [receive, runs] = &self.long;
        let long = match side {
            Side::Receive => receive,
            Side::Runs => runs,
        };
        // Nobody closes it.
        Processor { _place: Arc::clone(long).acquire_owned().await.ok() }
    }

    /// A processor for what takes long; nothing if there is none in time.
    pub(super) async fn processor_in_time(&self, side: Side) -> Option<Processor> {
        tokio::time::timeout(self.times.wait, self.processor(side)).await.ok()
    }

    async fn in_time<T, E>(&self, room: impl Future<Output = Result<T, E>>) -> Option<T> {
        tokio::time::timeout(self.times.wait, room).await.ok()?.ok()
    }
}
