//! What a build stands on, and what that stood for when the build took it.
//!
//! An engine tells the digest of most bases. Where it does not, as those before 23 do for images that files are copied from,
//! the registry is asked: before the build, or while it begins, and never after it if that can be helped. A tag that moves
//! meanwhile is then told as what it stood for before: whoever follows it builds once too often, and not once too little. What
//! only another frontend knows of, which reads the file in the engine, can't be asked for before: the build says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use cooper_ports::engine::{LocalName, RegistryLogins, ResolvedBase};
use cooper_types::{Digest, ImageRef};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::trace;
use crate::wire::one_line;

/// How long a registry may take to tell a digest, and how long a build waits for all of them.
const RESOLVE: Duration = Duration::from_secs(15);
/// More base images than a Dockerfile can name in earnest; the engine's word is not trusted with our memory.
const MAX_BASES: usize = 4096;
/// Questions at a time.
const ASKED_AT_ONCE: usize = 8;

/// Where the digests of images are asked for that the engine did not tell.
struct Registries {
    docker: Docker,
    logins: Arc<dyn RegistryLogins>,
    room: Semaphore,
}

impl Registries {
    async fn digest_of(&self, reference: &str) -> Result<Digest, String> {
        let _place = self.room.acquire().await.map_err(|error| error.to_string())?;
        let registry = ImageRef::parse(reference).ok().and_then(|image| image.registry);
        let login = match registry {
            Some(registry) => self.logins.login(&registry).await.map_err(|error| error.to_string())?,
            None => None,
        };
        let login = login.map(|login| DockerCredentials {
            username: Some(login.username.clone()),
            password: Some(login.password.expose().to_owned()),
            ..DockerCredentials::default()
        });
        let ask = tokio::time::timeout(RESOLVE, self.docker.inspect_registry_image(reference, login));
        let answer = ask.await.map_err(|_| "its registry did not answer in time".to_owned())?;
        let descriptor = answer.map_err(|error| one_line(&error.to_string()))?.descriptor;
        let digest = descriptor.digest.ok_or_else(|| "its registry did not tell".to_owned())?;
        Digest::parse(&digest).map_err(|error| error.to_string())
    }
}

/// The bases of a build under way.
pub(super) struct Bases {
    registries: Arc<Registries>,
    /// By their references, with what the engine said.
    seen: BTreeMap<String, Option<Digest>>,
    /// What is known from elsewhere: from the caller, or by asking.
    known: BTreeMap<String, Digest>,
    /// What was known before the build began.
    early: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// They end with the build.
    asks: JoinSet<(String, Result<Digest, String>)>,
}

impl Bases {
    /// Nothing is seen yet. `resolved` is what the caller knows.
    pub(super) fn new(docker: &Docker, logins: Arc<dyn RegistryLogins>, resolved: Vec<ResolvedBase>) -> Self {
        let registries = Registries { docker: docker.clone(), logins, room: Semaphore::new(ASKED_AT_ONCE) };
        let known: BTreeMap<String, Digest> = resolved.into_iter().map(|base| (base.reference, base.digest)).collect();
        Self {
            registries: Arc::new(registries),
            seen: BTreeMap::new(),
            early: known.keys().cloned().collect(),
            known,
            asked: BTreeSet::new(),
            asks: JoinSet::new(),
        }
    }

    /// Asks for what the engine will not tell, and waits for that, though not for long.
    pub(super) async fn ask_before(&mut self, references: &[String]) {
        for reference in references {
            self.ask(reference);
        }
        // Whoever takes longer is not lost: the answer comes while the build goes on.
        let _ = tokio::time::timeout(RESOLVE, self.answers()).await;
        self.early.extend(self.known.keys().cloned());
    }

    fn ask(&mut self, reference: &str) {
        let is_new = !self.known.contains_key(reference) && self.asked.len() < MAX_BASES;
        if is_new && self.asked.insert(reference.to_owned()) {
            let (registries, reference) = (Arc::clone(&self.registries), reference.to_owned());
            self.asks.spawn(async move {
                let digest = registries.digest_of(&reference).await;
                (reference, digest)
            });
        }
    }

    async fn answers(&mut self) {
        while let Some(answered) = self.asks.join_next().await {
            match answered {
                Ok((reference, Ok(digest))) => drop(self.known.insert(reference, digest)),
                Ok((reference, Err(why))) => tracing::debug!(reference, why, "digest of a base is not known yet"),
                Err(error) => tracing::warn!(%error, "a question for a base's digest broke off"),
            }
        }
    }

    /// Notes a base that a vertex reads; gives it if its digest is news. One without a digest is asked for, now that the engine
    /// looks it up.
    pub(super) fn saw(&mut self, vertex_name: &str) -> Option<ResolvedBase> {
        let base = trace::base_of(vertex_name).filter(|_| self.seen.len() < MAX_BASES)?;
        if LocalName::is_one(&base.reference) {
            // What an earlier build made here is in no registry.
            return None;
        }
        let known = self.seen.entry(base.reference.clone()).or_default();
        let news = base.digest.as_ref().filter(|digest| known.as_ref() != Some(*digest)).cloned();
        *known = base.digest.or_else(|| known.take());
        if known.is_none() {
            self.ask(&base.reference);
        }
        Some(ResolvedBase { reference: base.reference, digest: news? })
    }

    /// The bases with their digests, and a line about each whose digest nobody tells, or that may be another one.
    pub(super) async fn resolved(mut self) -> (Vec<ResolvedBase>, Vec<String>) {
        self.answers().await;
        let (mut resolved, mut doubts) = (Vec::new(), Vec::new());
        for (reference, told) in self.seen {
            let is_late = told.is_none() && !self.early.contains(&reference);
            let digest = match told.or_else(|| self.known.remove(&reference)) {
                Some(digest) => Ok(digest),
                // Better what it stands for now than nothing.
                None => self.registries.digest_of(&reference).await,
            };
            match digest {
                Ok(digest) => {
                    if is_late {
                        doubts.push(format!(
                            "digest of {reference} was asked for when the build had begun: if the tag has moved since then, \
                             the image stands on what it was before"
                        ));
                    }
                    resolved.push(ResolvedBase { reference, digest });
                }
                Err(message) => doubts.push(format!("digest of {reference} is not known: {message}")),
            }
        }
        (resolved, doubts)
    }
}
