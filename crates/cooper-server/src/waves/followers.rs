//! What the tasks that follow a tag may show to its registry: one's after the other's, until the registry takes one.
//!
//! Whoever follows a tag may keep a wrong credential for its registry: that is told with the task, and costs the others no
//! more than a question. What was refused is remembered, and shown again last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cooper_engine::wave::ImageTag;
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{FollowersCredential, NewRefusal};
use cooper_source::RemoteError;
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_types::{SecretString, SourceHost, TaskName};
use tokio::sync::OnceCell;

use crate::core::Core;
use crate::orders::{credential_purpose, task_credential_purpose};
use crate::problem::chain;

/// So many are shown to a registry at a time. Those that were not are first the next time.
const AT_A_TIME: usize = 8;
/// Of so many tags it is remembered what was refused.
const MOST_TAGS: usize = 10_000;

/// What registries have refused for each tag, sealed, the latest last; that of nobody is empty. A restart shows it once more.
#[derive(Default)]
pub(super) struct Refused(Mutex<BTreeMap<ImageTag, Vec<Vec<u8>>>>);

impl Refused {
    fn of(&self, image: &ImageTag) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned().unwrap_or_default()
    }

    /// Tells whether it was not known before.
    fn add(&self, image: &ImageTag, sealed: &[u8]) -> bool {
        let mut tags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() >= MOST_TAGS && !tags.contains_key(image) {
            tags.clear();
        }
        let refused = tags.entry(image.clone()).or_default();
        let before = refused.len();
        refused.retain(|known| known != sealed);
        let is_new = refused.len() == before;
        refused.push(sealed.to_vec());
        is_new
    }
}

/// The followers of one tag while its registry is asked.
pub(super) struct Followers<'a> {
    core: &'a Core,
    image: &'a ImageTag,
    refused: &'a Refused,
    /// In the order in which they are shown, nobody among them. They are read when the registry wants to see one.
    list: OnceCell<Vec<Option<FollowersCredential>>>,
    place: AtomicUsize,
    was_asked: AtomicBool,
}

impl<'a> Followers<'a> {
    pub(super) fn new(core: &'a Core, image: &'a ImageTag, refused: &'a Refused) -> Self {
        let (place, was_asked) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { core, image, refused, list: OnceCell::new(), place, was_asked }
    }

    async fn read(&self, host: &SourceHost) -> Result<Vec<Option<FollowersCredential>>, StoreError> {
        let found = self.core.waves.followers_credentials(self.image, host).await?;
        let refused = self.refused.of(self.image);
        // What is open to everybody is followed by tasks that keep nothing, too.
        let mut list: Vec<_> = found.into_iter().map(Some).chain([None]).collect();
        list.sort_by_cached_key(|one| refused.iter().position(|sealed| sealed == sealed_of(one.as_ref())));
        Ok(list)
    }

    /// Whether what was shown is refused, and there is something else to show. What is told of a task's own, is told once.
    pub(super) async fn go_on_after(&self, error: &RemoteError) -> Result<bool, StoreError> {
        let is_known = match error {
            RemoteError::Unauthorized { .. } | RemoteError::Credential { .. } => true,
            RemoteError::Status { status: 401 | 403, .. } => true,
            // Some say so of what they don't show to everybody; or it is not there.
            RemoteError::Status { status: 404, .. } => false,
            _ => return Ok(false),
        };
        let Some(list) = self.list.get().filter(|_| self.was_asked.swap(false, Ordering::Relaxed)) else {
            return Ok(false);
        };
        let place = self.place.fetch_add(1, Ordering::Relaxed);
        let Some(shown) = list.get(place).map(Option::as_ref) else { return Ok(false) };
        let is_new = list.len() > 1 && self.refused.add(self.image, sealed_of(shown));
        if let Some(shown) = shown.filter(|_| is_known && is_new) {
            let whose = if shown.task.is_some() { "the task's own" } else { "the one of `cooper credential`" };
            let told = |task: &TaskName| NewRefusal {
                task: task.clone(),
                event: format!("base image {} was to be looked at", self.image),
                rule: format!("its credential for the registry, {whose}, is of no use: {}", chain(error)),
            };
            self.core.waves.write_refusals(shown.followers.iter().map(told).collect()).await?;
        }
        Ok(place + 1 < list.len().min(AT_A_TIME))
    }
}

fn sealed_of(credential: Option<&FollowersCredential>) -> &[u8] {
    credential.map_or(&[], |credential| &credential.sealed)
}

#[async_trait]
impl CredentialSource for Followers<'_> {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        let host = SourceHost::parse(host)?;
        let list = self.list.get_or_try_init(|| self.read(&host)).await?;
        self.was_asked.store(true, Ordering::Relaxed);
        let Some(Some(found)) = list.get(self.place.load(Ordering::Relaxed)) else { return Ok(None) };
        let purpose = match &found.task {
            Some(task) => task_credential_purpose(task, &host),
            None => credential_purpose(&host),
        };
        let value = self.core.key.unseal(&purpose, &found.sealed)?;
        let password = SecretString::new(String::from_utf8(value.expose().to_vec())?);
        Ok(Some(GitCredential { username: found.username.clone(), password }))
    }
}
