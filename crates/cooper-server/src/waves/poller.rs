//! The loop that asks other registries what tags stand for that tasks stand on.
//!
//! A tag is asked for again after a random time of the operator's range, hosts beside each other, one question after the other
//! within a host. A host that wants fewer questions gets none until the time that it names. Everything else is rows: when a
//! tag is due, and what it stood for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::wave::ImageTag;
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{RemoteAnswer, RemoteTag};
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_source::{WatchError, Watched, watch};
use cooper_types::{RegistryName, SecretString, SourceHost, Timestamp};
use futures::StreamExt as _;
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::orders::{credential_purpose, task_credential_purpose};
use crate::problem::chain;

/// How often it looks whether a tag is due.
const PERIOD: Duration = Duration::from_secs(5);
/// Tags that are looked at together.
const BATCH: u32 = 256;
/// Hosts that are asked at a time.
const HOSTS_AT_ONCE: usize = 8;
/// The pause between two questions to a host: its budget is two tags a second.
const SPACING: Duration = Duration::from_millis(500);
/// How long a question may take, logging in included.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a host is left alone that wants fewer questions and does not say for how long.
const BUSY: Duration = Duration::from_secs(300);
/// A tag is asked for again after the operator's time and at most so many times that: 10 to 60 minutes, as in ACR.
const RANGE: u32 = 6;
/// A tag that is not answered for is asked for less and less often, up to so many times doubled.
const MAX_DOUBLINGS: u32 = 5;

/// What a loop remembers of hosts: until when they are left alone. A restart asks them once more.
#[derive(Default)]
struct Pauses(Mutex<HashMap<RegistryName, Timestamp>>);

impl Pauses {
    fn until(&self, host: &RegistryName) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    fn pause(&self, host: &RegistryName, until: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), until);
    }
}

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, every: Duration, shutdown: CancellationToken) {
    let pauses = Pauses::default();
    loop {
        let passed = tokio::select! {
            () = shutdown.cancelled() => return,
            passed = pass(&core, every, &pauses) => passed,
        };
        if let Err(error) = passed {
            tracing::error!(error = chain(&error), "base images of other registries can't be looked at; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.poller_wake.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Asks for what is due.
async fn pass(core: &Arc<Core>, every: Duration, pauses: &Pauses) -> Result<(), StoreError> {
    let due = core.waves.due_remote_tags(BATCH).await?;
    let mut hosts: BTreeMap<RegistryName, Vec<RemoteTag>> = BTreeMap::new();
    for tag in due {
        if let Some(registry) = tag.image.registry.clone() {
            hosts.entry(registry).or_default().push(tag);
        }
    }
    let asks = hosts.into_iter().map(|(host, tags)| async move { ask_host(core, &host, tags, every, pauses).await });
    let mut asked = futures::stream::iter(asks).buffer_unordered(HOSTS_AT_ONCE);
    let mut result = Ok(());
    while let Some(one) = asked.next().await {
        result = result.and(one);
    }
    result
}

/// Asks a host for its tags, one after the other.
async fn ask_host(
    core: &Arc<Core>,
    host: &RegistryName,
    tags: Vec<RemoteTag>,
    every: Duration,
    pauses: &Pauses,
) -> Result<(), StoreError> {
    for (index, tag) in tags.iter().enumerate() {
        let now = core.clock.now();
        if let Some(until) = pauses.until(host).filter(|until| now < *until) {
            let next = until.after(random(SPACING * BATCH, 1));
            core.waves.remote_answer(&tag.image, RemoteAnswer::Later, next).await?;
            continue;
        }
        if index > 0 {
            tokio::time::sleep(SPACING).await;
        }
        ask(core, host, tag, every, pauses).await?;
    }
    Ok(())
}

/// Asks for one tag.
async fn ask(
    core: &Arc<Core>,
    host: &RegistryName,
    tag: &RemoteTag,
    every: Duration,
    pauses: &Pauses,
) -> Result<(), StoreError> {
    let image = &tag.image;
    let credentials = Followers { core, image };
    let names = (host, &image.repository, &image.tag);
    let asked = watch(&core.egress, &credentials, names, tag.etag.as_deref());
    let (answer, wait) = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Watched::Same)) => (RemoteAnswer::Same, every),
        Ok(Ok(Watched::Is { digest, etag })) => (RemoteAnswer::Is { digest, etag }, every),
        Ok(Err(error)) => {
            if let WatchError::Busy { pause, .. } = &error {
                let until = core.clock.now().after(pause.unwrap_or(BUSY));
                pauses.pause(host, until);
                tracing::warn!(registry = %host, %until, "registry wants fewer questions; it is left alone");
            }
            (RemoteAnswer::Failed(chain(&error)), every * 2_u32.pow(tag.failures.min(MAX_DOUBLINGS)))
        }
        Err(_) => {
            let why = format!("`{host}` did not answer within {} s", PATIENCE.as_secs());
            (RemoteAnswer::Failed(why), every * 2_u32.pow(tag.failures.min(MAX_DOUBLINGS)))
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
    let next = core.clock.now().after(wait + random(wait, RANGE - 1));
    if core.waves.remote_answer(image, answer, next).await? {
        tracing::info!(%image, "base image of another registry has moved");
        core.waves_wake.notify_one();
    }
    Ok(())
}

/// A time up to so many times another one.
fn random(time: Duration, times: u32) -> Duration {
    time.mul_f64(rand::rng().random_range(0.0..=f64::from(times)))
}

/// What the tasks that follow an image may show to its registry.
struct Followers<'a> {
    core: &'a Core,
    image: &'a ImageTag,
}

#[async_trait]
impl CredentialSource for Followers<'_> {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        let host = SourceHost::parse(host)?;
        let Some(found) = self.core.waves.followers_credential(self.image, &host).await? else { return Ok(None) };
        let purpose = match &found.task {
            Some(task) => task_credential_purpose(task, &host),
            None => credential_purpose(&host),
        };
        let value = self.core.key.unseal(&purpose, &found.sealed)?;
        let password = SecretString::new(String::from_utf8(value.expose().to_vec())?);
        Ok(Some(GitCredential { username: found.username, password }))
    }
}
