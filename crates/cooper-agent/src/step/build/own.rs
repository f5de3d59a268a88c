//! Bases that stand under other names in the Dockerfile that is built: those that earlier steps of the run built, which are
//! in no registry, and in the engine under names of the agent's own; and those that are pinned to a digest.
//!
//! A build takes all of its bases from their registries, or prefers what the engine has: there is no choice for each
//! (`image-resolve-mode`, BuildKit 0.8 and 0.13). So a build on own images prefers the engine's, its Dockerfile names
//! those by names that nothing else has, and its other bases are pulled right before, so that the engine has what
//! their registries have. A pinned base is named by its digest, which changes nothing of where it comes from.

use std::io::Write as _;
use std::path::Path;

use cooper_api::agent::BuildOrder;
use cooper_ports::context_tree::{ContextEntry, ContextTree, EntryKind};
use cooper_ports::engine::{BuildEvent, LocalName, PullError, PullRequest, ResolvedBase};
use cooper_spec::dockerfile::{Dockerfile, DockerfileError};
use cooper_spec::plan::with_digest;
use cooper_types::{Digest, ImageRef};
use tokio::sync::mpsc;

use crate::step::bases::in_full;
use crate::step::dockerfile::Scanned;
use crate::step::{Attempt, Ended, Surroundings};

/// How engines call it when they look an image up.
const LOOK_UPS: [&str; 2] = ["[internal] load metadata for ", "resolve image config for "];

/// The images of a build that have other names in it.
#[derive(Debug, Default)]
pub(super) struct OwnImages {
    /// The Dockerfile with other names for them, if it names any.
    pub(super) dockerfile: Option<String>,
    /// Whether it names any that the engine alone has.
    pub(super) of_the_engine: bool,
    /// The run's own: their names in full, and those in the engine, or where other placements left them.
    names: Vec<(String, String)>,
    /// The pinned ones: their names in full, the names in full that say the digest, and that.
    pinned: Vec<(String, String, Digest)>,
    /// What was pulled for the build, which prefers what the engine has: an engine does not say what that is.
    pub(super) pulled: Vec<ResolvedBase>,
}

impl OwnImages {
    /// Whether a name is one of theirs.
    pub(super) fn is_one(&self, reference: &str) -> bool {
        let full = full(reference);
        self.names.iter().any(|(name, other)| *name == full || *other == full)
    }

    /// The Dockerfile with the other names, if it has any of the images.
    fn renamed(
        &self,
        order: &BuildOrder,
        scanned: &Scanned,
        arguments: &[(String, String)],
    ) -> Result<Option<String>, DockerfileError> {
        let other = |image: &str| {
            let image = full(image);
            let own = self.names.iter().find(|(name, _)| *name == image).map(|(_, local)| local.clone());
            own.or_else(|| self.pinned.iter().find(|(name, ..)| *name == image).map(|(_, exact, _)| exact.clone()))
        };
        Dockerfile::renamed(&scanned.text, arguments, Some(&order.platform), &other)
    }

    /// What an image was resolved to, as its name was written. What is pinned was asked for by its digest, which engines
    /// leave out of the name.
    pub(super) fn as_written(&self, base: ResolvedBase) -> ResolvedBase {
        let is_this = |(_, exact, digest): &&(String, String, Digest)| is_answer(&base, exact, digest);
        match self.pinned.iter().find(is_this) {
            Some((name, ..)) => ResolvedBase { reference: name.clone(), ..base },
            None => base,
        }
    }

    /// The digest that an image is pinned to.
    pub(super) fn pin(&self, reference: &str) -> Option<&Digest> {
        let full = full(reference);
        self.pinned.iter().find(|(name, ..)| *name == full).map(|(.., digest)| digest)
    }

    /// A text of the engine's with their names as people know them.
    pub(super) fn shown(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, local)| text.replace(local, name))
    }

    /// The image that a vertex looks up, if it is another run's.
    pub(super) fn foreign(&self, vertex: &str) -> Option<String> {
        let looked_up = LOOK_UPS.iter().find_map(|prefix| vertex.strip_prefix(prefix))?;
        let name = looked_up.strip_prefix("docker-image://").unwrap_or(looked_up);
        let own = self.names.iter().any(|(_, local)| local == name);
        (LocalName::is_one(name) && !own).then(|| name.to_owned())
    }

    /// An event with their names as people know them.
    pub(super) fn shown_in(&self, event: BuildEvent) -> BuildEvent {
        match event {
            BuildEvent::Vertex(mut vertex) if !self.names.is_empty() => {
                vertex.name = self.shown(&vertex.name);
                vertex.error = vertex.error.map(|error| self.shown(&error));
                BuildEvent::Vertex(vertex)
            }
            event => event,
        }
    }
}

/// Whether an image was resolved for a name with this digest, which engines leave out of what they say.
pub(super) fn is_answer(base: &ResolvedBase, exact: &str, digest: &Digest) -> bool {
    let is_named =
        exact == base.reference || exact.strip_suffix(&format!("@{digest}")) == Some(base.reference.as_str());
    *digest == base.digest && is_named
}

impl Attempt<'_> {
    /// Makes a build's own images known to the engine under names that its Dockerfile then has, and pins others.
    pub(super) async fn own_images(
        &self,
        order: &BuildOrder,
        scanned: &Scanned,
        arguments: &[(String, String)],
        around: &Surroundings<'_>,
    ) -> Result<OwnImages, Ended> {
        if order.own_bases.is_empty() && order.staged_bases.is_empty() && order.pinned.is_empty() {
            return Ok(OwnImages::default());
        }
        let mut own = OwnImages::default();
        for (name, image) in &order.own_bases {
            let local = self.shared.name_of(image);
            let local = local.ok_or_else(|| Ended::Lost(format!("image `{name}` of the run is not on this engine")))?;
            own.names.push((full(name), local.to_string()));
        }
        let on_the_engine = own.names.len();
        // Other placements' images are read where they left them, by digest.
        own.names.extend(order.staged_bases.iter().map(|(name, image)| (full(name), image.to_string())));
        for (name, digest) in &order.pinned {
            own.pinned.push((full(name), full(&with_digest(name, digest)), digest.clone()));
        }
        let renamed = match own.renamed(order, scanned, arguments) {
            Ok(renamed) => renamed,
            // The engine reads the file, or another frontend, and may know more than we do.
            Err(error) if own.names.is_empty() => {
                self.log.service(&format!("base images are resolved anew: they can't be pinned, {error}")).await;
                return Ok(OwnImages::default());
            }
            Err(error) => {
                let reason = format!("Dockerfile `{}`: {error}", scanned.path);
                return Err(Ended::Failed { exit_code: None, reason });
            }
        };
        let Some(text) = renamed else { return Ok(OwnImages::default()) };
        let others = scanned.dependencies.iter().flat_map(|found| found.runtime.iter().chain(&found.buildtime));
        let others: Vec<&String> = others.filter(|name| !own.is_one(name)).collect();
        own.dockerfile = Some(text);
        let named = |name: &String| own.names[..on_the_engine].iter().any(|(own, _)| *own == full(name));
        let all = || scanned.dependencies.iter().flat_map(|found| found.runtime.iter().chain(&found.buildtime));
        own.of_the_engine = on_the_engine > 0 && (scanned.dependencies.is_none() || all().any(named));
        if !own.of_the_engine {
            // All bases are in registries: they are resolved there, as without own ones.
            return Ok(own);
        }
        for name in others {
            let exact = own.pin(name).map(|digest| with_digest(name, digest));
            own.pulled.extend(self.pull_base(exact.as_ref().unwrap_or(name), order, around).await?);
        }
        Ok(own)
    }

    /// Has the engine hold what a base's name stands for at its registry now, and says what that is.
    pub(super) async fn pull_base(
        &self,
        name: &str,
        order: &BuildOrder,
        around: &Surroundings<'_>,
    ) -> Result<Option<ResolvedBase>, Ended> {
        // What is no reference fails in the build, with its line.
        let Ok(reference) = ImageRef::parse(name) else { return Ok(None) };
        let reference = in_full(reference);
        let is_ours = reference.registry.as_ref() == Some(around.registry);
        let request = PullRequest {
            reference: reference.clone(),
            credential: around.logins.of(reference.registry.as_ref().unwrap_or(around.registry)).await?.credential,
            platform: Some(order.platform.clone()),
            retries: 0,
            retry_delay: std::time::Duration::ZERO,
        };
        self.log.service(&format!("pulling base image {name}")).await;
        let (sink, mut events) = mpsc::channel(16);
        let pull = self.runner.engine.pull(request, sink, self.stop.clone());
        let (pulled, ()) = tokio::join!(pull, async { while events.recv().await.is_some() {} });
        match pulled {
            Ok(pulled) => Ok(Some(ResolvedBase { reference: reference.to_string(), digest: pulled.digest })),
            Err(PullError::Cancelled) => Err(Ended::Stopped),
            Err(PullError::Machinery { source, .. }) => Err(Ended::lost("base image can't be pulled", &source)),
            Err(error @ PullError::Unreachable { .. }) if is_ours => {
                Err(Ended::lost("base image can't be pulled", &error))
            }
            Err(error) => {
                let advice = match &error {
                    PullError::Unauthorized { .. } => around.logins.advice(&reference),
                    _ => String::new(),
                };
                Err(Ended::Failed { exit_code: None, reason: format!("base image: {error}{advice}") })
            }
        }
    }
}

fn full(reference: &str) -> String {
    ImageRef::parse(reference).map_or_else(|_| reference.to_owned(), |image| in_full(image).to_string())
}

impl Attempt<'_> {
    /// A tree with another text of a Dockerfile, and with its own ignore file.
    pub(super) fn rewritten(&self, tree: &ContextTree, path: &str, text: &str) -> Result<ContextTree, Ended> {
        let ignore = format!("{path}.dockerignore");
        let rules = match crate::step::dockerfile::is_there(tree, &ignore) {
            true => Some(crate::step::dockerfile::find(tree, &ignore)?.text),
            false => None,
        };
        let files: Vec<(&str, &str)> =
            [(path, text)].into_iter().chain(rules.as_deref().map(|rules| (ignore.as_str(), rules))).collect();
        let written = few_files(&self.runner.placement_dir(self.key), &files);
        written.map_err(|error| Ended::lost("Dockerfile can't be written", &error))
    }
}

/// A tree with files of one folder, whose times tell their contents.
fn few_files(dir: &Path, files: &[(&str, &str)]) -> std::io::Result<ContextTree> {
    std::fs::create_dir_all(dir)?;
    let mut spool = tempfile::tempfile_in(dir)?;
    let all: String = files.iter().map(|(_, text)| *text).collect();
    spool.write_all(all.as_bytes())?;
    let head: String = Digest::sha256(all.as_bytes()).hex().chars().take(12).collect();
    let mtime_ns = i64::from_str_radix(&head, 16).unwrap_or_default();
    let path = files.first().map_or("", |(path, _)| *path);
    let entry = |path: &str, kind| ContextEntry { path: path.to_owned(), kind, mode: 0o755, mtime_ns };
    let mut entries: Vec<_> = path.match_indices('/').map(|(at, _)| entry(&path[..at], EntryKind::Directory)).collect();
    let mut offset = 0;
    for (path, text) in files {
        let size = text.len() as u64;
        entries.push(entry(path, EntryKind::File { offset, size }));
        offset += size;
    }
    Ok(ContextTree::new(entries, spool))
}
