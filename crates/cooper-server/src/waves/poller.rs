//! The loop that asks other registries what tags stand for that tasks stand on.
//!
//! A tag is asked for again after a random time of the operator's range, hosts beside each other, and within a host as much as
//! its budget allows. A host that wants fewer questions gets none until the time that it names. Everything else is rows: when a
//! tag is due, and what it stood for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{RemoteAnswer, RemoteTag};
use cooper_source::{RemoteError, WatchError, Watched, watch};
use cooper_types::{RegistryName, Timestamp};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant as Moment;
use tokio_util::sync::CancellationToken;

use super::followers::{Followers, Refused};
use crate::core::Core;
use crate::problem::chain;

/// How often it looks whether a tag is due.
const PERIOD: Duration = Duration::from_secs(5);
/// Tags of one host that are taken on together.
const BATCH: u32 = 256;
/// Hosts that are asked at a time.
const HOSTS_AT_ONCE: usize = 64;
/// Questions to a host at a time, and the pause before each: its budget is two tags a second, however long it takes to answer.
const ASKED_AT_ONCE: usize = 4;
const SPACING: Duration = Duration::from_millis(500);
/// How long a question may take, logging in included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a host is left alone that wants fewer questions and does not say for how long, or that is not there.
const BUSY: Duration = Duration::from_secs(300);
/// So many questions in a row without an answer, and a host counts as not there.
const TROUBLES: u32 = 4;
/// A tag is asked for again after the operator's time and at most so many times that: 10 to 60 minutes, as in ACR.
const RANGE: u32 = 6;
/// A tag that is not answered for is asked for less and less often, up to so many times doubled.
const MAX_DOUBLINGS: u32 = 5;
/// However often it was not: it is asked for again within this time, or within what one that is answered for has, if that is
/// longer. An outage costs no more, once it is over.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, every: Duration, shutdown: CancellationToken) {
    let wake = Arc::clone(&core);
    let mut poller = Poller::new(core, every);
    loop {
        if let Err(error) = poller.look().await {
            tracing::error!(error = chain(&error), "base images of other registries can't be looked at; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wake.poller_wake.notified() => {}
            Some(landed) = poller.flights.join_next_with_id() => poller.all_landed(landed),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

type Landed = Result<(Id, Result<(), StoreError>), JoinError>;

pub(super) struct Poller {
    core: Arc<Core>,
    every: Duration,
    refused: Arc<Refused>,
    /// Until when hosts are left alone. A restart asks them once more.
    pauses: BTreeMap<RegistryName, Arc<Host>>,
    /// The hosts that are being asked: a slow one keeps no other waiting.
    asked: BTreeSet<RegistryName>,
    /// Tasks of their own: they hold connections of the store, for which the loop waits, too.
    flights: JoinSet<Result<(), StoreError>>,
    of_flight: HashMap<Id, RegistryName>,
}

/// What is remembered of a host.
#[derive(Default)]
struct Host {
    until: Mutex<Option<Timestamp>>,
    /// When the next question is its turn.
    turn: Mutex<Option<Moment>>,
    /// Questions in a row that it did not answer.
    troubles: AtomicU32,
}

impl Host {
    fn until(&self) -> Option<Timestamp> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a question may be asked; the one after that is later.
    fn turn(&self) -> Moment {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Moment::now();
        let own = turn.map_or(now, |turn| turn.max(now));
        *turn = Some(own + SPACING);
        own
    }

    /// Whether the next question has to wait for the last one.
    fn was_asked_just(&self, now: Moment) -> bool {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|turn| now < turn)
    }

    fn pause(&self, until: Timestamp) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

impl Poller {
    pub(super) fn new(core: Arc<Core>, every: Duration) -> Self {
        Self {
            core,
            every,
            refused: Arc::default(),
            pauses: BTreeMap::new(),
            asked: BTreeSet::new(),
            flights: JoinSet::new(),
            of_flight: HashMap::new(),
        }
    }

    /// Asks for what is due of the hosts that are not being asked.
    pub(super) async fn look(&mut self) -> Result<(), StoreError> {
        if self.asked.len() >= HOSTS_AT_ONCE {
            return Ok(());
        }
        let (now, moment) = (self.core.clock.now(), Moment::now());
        self.pauses.retain(|name, host| {
            let is_paused = host.until().is_some_and(|until| now < until.after(BUSY));
            is_paused
                || host.was_asked_just(moment)
                || self.asked.contains(name)
                || host.troubles.load(Ordering::Relaxed) > 0
        });
        let without: Vec<RegistryName> = self.asked.iter().cloned().collect();
        let due = self.core.waves.due_remote_tags(BATCH, &without).await?;
        let mut hosts: BTreeMap<RegistryName, Vec<RemoteTag>> = BTreeMap::new();
        for tag in due {
            if let Some(registry) = tag.image.registry.clone() {
                hosts.entry(registry).or_default().push(tag);
            }
        }
        for (name, tags) in hosts.into_iter().take(HOSTS_AT_ONCE - self.asked.len()) {
            self.asked.insert(name.clone());
            let host = Arc::clone(self.pauses.entry(name.clone()).or_default());
            let (core, every, refused) = (Arc::clone(&self.core), self.every, Arc::clone(&self.refused));
            let of = name.clone();
            let flight =
                self.flights.spawn(async move { ask_host(&core, (&of, &host), tags, (every, &refused)).await });
            self.of_flight.insert(flight.id(), name);
        }
        Ok(())
    }

    /// Waits until one host has been asked; tells which.
    #[cfg(test)]
    pub(super) async fn one_host(&mut self) -> Option<RegistryName> {
        let landed = self.flights.join_next_with_id().await?;
        let name = landed.as_ref().ok().and_then(|(id, _)| self.of_flight.get(id)).cloned();
        self.landed(landed);
        name
    }

    /// Takes in all hosts that have been asked by now: one look is enough for them.
    fn all_landed(&mut self, first: Landed) {
        let mut landed = Some(first);
        while let Some(one) = landed {
            self.landed(one);
            landed = self.flights.try_join_next_with_id();
        }
    }

    fn landed(&mut self, landed: Landed) {
        let (id, asked) = match landed {
            Ok((id, asked)) => (id, asked.map_err(|error| chain(&error))),
            Err(error) => (error.id(), Err(chain(&error))),
        };
        let Some(name) = self.of_flight.remove(&id) else { return };
        self.asked.remove(&name);
        if let Err(error) = asked {
            tracing::error!(registry = %name, error, "what a registry said can't be written down; trying again");
        }
    }
}

/// Asks a host for its tags, beside each other as far as its budget goes.
async fn ask_host(
    core: &Core,
    host: (&RegistryName, &Host),
    tags: Vec<RemoteTag>,
    how: (Duration, &Refused),
) -> Result<(), StoreError> {
    let asks: Vec<BoxFuture<'_, Result<(), StoreError>>> =
        tags.into_iter().map(|tag| -> BoxFuture<'_, _> { Box::pin(ask(core, host, tag, how)) }).collect();
    let mut asked = futures::stream::iter(asks).buffer_unordered(ASKED_AT_ONCE);
    let mut result = Ok(());
    while let Some(one) = asked.next().await {
        result = result.and(one);
    }
    result
}

/// Asks for one tag, unless its host is to be left alone.
async fn ask(
    core: &Core,
    (name, host): (&RegistryName, &Host),
    tag: RemoteTag,
    (every, refused): (Duration, &Refused),
) -> Result<(), StoreError> {
    let image = &tag.image;
    if host.until().is_none_or(|until| until <= core.clock.now()) {
        tokio::time::sleep_until(host.turn()).await;
    }
    if let Some(until) = host.until().filter(|until| core.clock.now() < *until) {
        let next = until.after(random(SPACING * BATCH, 1));
        return core.waves.remote_answer(image, RemoteAnswer::Later, next).await.map(drop);
    }
    let followers = Followers::new(core, image, refused);
    let names = (name, &image.repository, &image.tag);
    let asked = loop {
        let asked = watch(&core.egress, &followers, names, tag.etag.as_deref());
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        let Ok(Err(WatchError::Remote(error))) = &asked else { break asked };
        let is_paused = host.until().is_some_and(|until| core.clock.now() < until);
        if !followers.go_on_after(error).await? || is_paused {
            break asked;
        }
        tokio::time::sleep_until(host.turn()).await;
    };
    let (usual, longer) = ((every, every * RANGE), after_failures(every, tag.failures));
    let mut is_there = true;
    let (answer, (least, most)) = match asked {
        Ok(Ok(Watched::Same)) => (RemoteAnswer::Same, usual),
        Ok(Ok(Watched::Is { digest, etag })) => (RemoteAnswer::Is { digest, etag }, usual),
        Ok(Err(WatchError::Busy { pause, .. })) => {
            let until = core.clock.now().after(pause.unwrap_or(BUSY));
            host.pause(until);
            tracing::warn!(registry = %name, %until, "registry wants fewer questions; it is left alone");
            let next = until.after(random(SPACING * BATCH, 1));
            // It says nothing of the tag.
            return core.waves.remote_answer(image, RemoteAnswer::Later, next).await.map(drop);
        }
        Ok(Err(error)) => {
            is_there = !matches!(error, WatchError::Remote(RemoteError::Request { .. }));
            (RemoteAnswer::Failed(chain(&error)), longer)
        }
        Err(_) => {
            is_there = false;
            let why = format!("`{name}` did not answer within {} s", PATIENCE.as_secs());
            (RemoteAnswer::Failed(why), longer)
        }
    };
    if let RemoteAnswer::Failed(why) = &answer {
        // Told once, and again when it has been there in between.
        if tag.failures == 0 {
            tracing::warn!(%image, why, "base image can't be looked at; trying again later");
        } else {
            tracing::debug!(%image, why, "base image can't be looked at");
        }
    }
    if is_there {
        host.troubles.store(0, Ordering::Relaxed);
    } else if host.troubles.fetch_add(1, Ordering::Relaxed) + 1 == TROUBLES {
        host.troubles.store(0, Ordering::Relaxed);
        host.pause(core.clock.now().after(BUSY));
        tracing::warn!(registry = %name, "registry is not there for any of its tags; it is left alone for some minutes");
    }
    let next = core.clock.now().after(least + random(most.saturating_sub(least), 1));
    if core.waves.remote_answer(image, answer, next).await? {
        tracing::info!(%image, "base image of another registry has moved");
        core.waves_wake.notify_one();
    }
    Ok(())
}

/// When a tag is asked for again that is not answered for, at the earliest and at the latest; so often it was not before.
fn after_failures(every: Duration, before: u32) -> (Duration, Duration) {
    let most = (every * RANGE).max(LONGEST);
    let least = (every * 2_u32.pow(before.min(MAX_DOUBLINGS))).min(most / 2);
    (least, (least * RANGE).min(most))
}

/// A time up to so many times another one.
fn random(time: Duration, times: u32) -> Duration {
    time.mul_f64(rand::rng().random_range(0.0..=f64::from(times)))
}
