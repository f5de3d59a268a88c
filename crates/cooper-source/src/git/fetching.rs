//! The course of a fetch: the repository, the subdirectory, the entries with their submodules, the archive.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cooper_spec::source::{GitReference, RepositoryUrl};
use git2::Oid;

use super::advertisement::{RemoteRef, Version};
use super::archive::{self, Written};
use super::context::{Selection, named};
use super::modules::{self, Module};
use super::objects::{Fetched, Found, Objects};
use super::pack::{Wants, can_be_shallow, can_leave_files, receive};
use super::remote::{Access, Remote};
use super::resolve::{Target, nearest, prefixes, target};
use super::tree::{Collector, Entry, Link, Place, Tally, find};
use super::worker::Workers;
use super::{CredentialSource, FetchEvent, FetchListener, FetchRequest, GitError, Snapshot};
use crate::egress::Egress;

/// `.gitmodules` of the largest collections has some hundred KiB.
const MODULES_LEN: u64 = 4 << 20;

/// One fetch on its way.
pub(super) struct Fetching<'run> {
    access: Access<'run>,
    request: FetchRequest,
    listener: FetchListener,
    workers: &'run Workers,
    /// Everything that was fetched: the source itself first.
    repositories: Vec<Fetched>,
    /// The submodules of each of them, once they were looked at.
    modules: HashMap<usize, Arc<Vec<Module>>>,
    /// Fetched submodules, by what was asked for.
    known: HashMap<(RepositoryUrl, Oid), usize>,
    /// How many directories of the scratch directory are in use.
    places: usize,
}

/// What names the commit that is wanted.
enum Wanted<'a> {
    Named(Option<&'a GitReference>),
    Pinned(Oid),
}

/// What a reference was found to be.
#[derive(Default)]
struct Resolved {
    name: Option<String>,
    branch: Option<String>,
}

/// A tree that is to be taken into the archive.
struct Work {
    repository: usize,
    tree: Oid,
    /// Its path in its repository.
    inside: String,
    /// Its path in the archive.
    path: String,
    /// How many submodules it lies in.
    depth: usize,
}

impl<'run> Fetching<'run> {
    pub(super) fn new(
        egress: &'run Egress,
        credentials: &'run dyn CredentialSource,
        request: FetchRequest,
        listener: FetchListener,
        workers: &'run Workers,
    ) -> Self {
        let access = Access::new(egress, credentials, request.limits.received);
        let (modules, known) = (HashMap::new(), HashMap::new());
        Self { access, request, listener, workers, repositories: Vec::new(), modules, known, places: 0 }
    }

    pub(super) async fn run(mut self) -> Result<Snapshot, GitError> {
        let source = self.request.source.clone();
        let (root, resolved) = self.repository(&source.url, &Wanted::Named(source.reference.as_ref())).await?;
        let commit = root.commit.to_string();
        (self.listener)(FetchEvent::Resolved { commit: commit.clone(), reference: resolved.name.clone() });
        self.repositories.push(root);
        let context = self.context(&commit).await?;
        let fetched = self.fetched(context.repository)?;
        let (dockerfile, names, limits) =
            (self.request.dockerfile.clone(), self.request.files.clone(), self.request.limits.clone());
        let tree = context.tree;
        let (selection, files) = self
            .workers
            .run(move |_| {
                let objects = fetched.open()?;
                let files = named(&objects, tree, &names, &limits)?;
                Ok((Selection::find(&objects, tree, dockerfile.as_deref())?, files))
            })
            .await?;
        let selection = Arc::new(selection);
        let entries = self.entries(context, &selection).await?;
        if let Some(dockerfile) = &selection.dockerfile
            && !selection.is_replaced(dockerfile)
            && !entries.iter().any(|entry| entry.path == *dockerfile)
        {
            return Err(GitError::NoDockerfile { path: dockerfile.clone() });
        }
        let archive = self.request.scratch.join("source.tar.gz");
        let written = self.write(entries, Arc::clone(&selection), archive.clone()).await?;
        (self.listener)(FetchEvent::Archived { entries: written.entries, size: written.size });
        Ok(Snapshot {
            commit,
            branch: resolved.branch,
            reference: resolved.name,
            archive,
            digest: written.digest,
            size: written.size,
            entries: written.entries,
            dockerfile: selection.dockerfile.clone(),
            files,
        })
    }

    /// The directory that is the context; it may lie in a submodule.
    async fn context(&mut self, commit: &str) -> Result<Work, GitError> {
        let subdirectory = self.request.source.subdirectory.as_ref().map(|path| path.as_str().to_owned());
        let mut path = subdirectory.clone().unwrap_or_default();
        let shown = subdirectory.unwrap_or_default();
        let (mut repository, mut depth) = (0, 0);
        loop {
            let fetched = self.fetched(repository)?;
            let (tree, wanted) = (fetched.tree, path.clone());
            match self.workers.run(move |_| find(&fetched.open()?, tree, &wanted)).await? {
                Place::Directory { tree, path: inside } => {
                    return Ok(Work { repository, tree, inside, path: String::new(), depth });
                }
                Place::File { .. } => {
                    return Err(GitError::SubdirectoryIsFile { path: shown, commit: commit.to_owned() });
                }
                Place::Missing => {
                    return Err(GitError::SubdirectoryNotFound { path: shown, commit: commit.to_owned() });
                }
                Place::Submodule { path: inside, commit, rest } => {
                    depth += 1;
                    let link = Link { path: inside.clone(), inside, commit };
                    let Some(found) = self.submodule(repository, &link, depth).await? else {
                        return Err(GitError::SubdirectoryNotFound { path: shown, commit: commit.to_string() });
                    };
                    repository = found;
                    path = rest;
                }
            }
        }
    }

    /// All entries of the archive, submodules fetched on the way.
    async fn entries(&mut self, context: Work, selection: &Arc<Selection>) -> Result<Vec<Entry>, GitError> {
        let mut entries = Vec::new();
        let mut tally = Tally::default();
        let mut waiting = VecDeque::from([context]);
        while let Some(work) = waiting.pop_front() {
            let (fetched, limits, selection) =
                (self.fetched(work.repository)?, self.request.limits.clone(), Arc::clone(selection));
            let (repository, depth) = (work.repository, work.depth);
            let (mut found, links, counted) = self
                .workers
                .run(move |stop| {
                    let objects = fetched.open()?;
                    let (entries, links) = (Vec::new(), Vec::new());
                    let (selection, limits) = (&*selection, &limits);
                    let objects = &objects;
                    let mut collector =
                        Collector { objects, repository, selection, limits, stop, entries, links, tally };
                    collector.collect(work.tree, &work.inside, &work.path)?;
                    Ok((collector.entries, collector.links, collector.tally))
                })
                .await?;
            entries.append(&mut found);
            tally = counted;
            for link in links {
                if let Some(found) = self.submodule(repository, &link, depth + 1).await? {
                    let tree = self.fetched(found)?.tree;
                    let (inside, path) = (String::new(), link.path);
                    waiting.push_back(Work { repository: found, tree, inside, path, depth: depth + 1 });
                }
            }
        }
        Ok(entries)
    }

    /// Fetches a submodule of a repository; nothing if its repository says that it stays empty.
    async fn submodule(&mut self, parent: usize, link: &Link, depth: usize) -> Result<Option<usize>, GitError> {
        let limits = &self.request.limits;
        if depth > limits.submodule_depth {
            return Err(GitError::Limit { what: "submodules inside each other", limit: limits.submodule_depth as u64 });
        }
        let path = link.path.clone();
        let modules = self.modules(parent).await?;
        let Some(module) = modules.iter().find(|module| module.path == link.inside) else {
            return Err(GitError::SubmoduleUnknown { path });
        };
        if module.skipped {
            return Ok(None);
        }
        let Some(text) = &module.url else { return Err(GitError::SubmoduleUnknown { path }) };
        let url = self.fetched(parent)?.url.submodule(text);
        let url = url.map_err(|source| GitError::SubmoduleUrl { path: path.clone(), source })?;
        let key = (url.clone(), link.commit);
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(*known));
        }
        if self.known.len() >= self.request.limits.submodules {
            return Err(GitError::Limit { what: "submodules", limit: self.request.limits.submodules as u64 });
        }
        (self.listener)(FetchEvent::Submodule { path: path.clone(), url: url.to_string() });
        let (fetched, _) = self.repository(&url, &Wanted::Pinned(link.commit)).await.map_err(|error| match error {
            // What ends the whole fetch is not the submodule's.
            GitError::Cancelled | GitError::Limit { .. } | GitError::Disk { .. } => error,
            error => GitError::Submodule { path, source: Box::new(error) },
        })?;
        let index = self.repositories.len();
        self.repositories.push(fetched);
        self.known.insert(key, index);
        Ok(Some(index))
    }

    async fn modules(&mut self, repository: usize) -> Result<Arc<Vec<Module>>, GitError> {
        if let Some(modules) = self.modules.get(&repository) {
            return Ok(Arc::clone(modules));
        }
        let fetched = self.fetched(repository)?;
        let modules = self
            .workers
            .run(move |_| {
                let objects = fetched.open()?;
                // A link in this place is a trick, not a file.
                match find(&objects, fetched.tree, ".gitmodules")? {
                    Place::File { id, path } if path == ".gitmodules" => {
                        let text = objects.file(id, &path, MODULES_LEN)?;
                        Ok(modules::parse(&String::from_utf8_lossy(&text)))
                    }
                    _ => Ok(Vec::new()),
                }
            })
            .await?;
        let modules = Arc::new(modules);
        self.modules.insert(repository, Arc::clone(&modules));
        Ok(modules)
    }

    async fn write(&self, entries: Vec<Entry>, selection: Arc<Selection>, place: PathBuf) -> Result<Written, GitError> {
        let (repositories, limits) = (self.repositories.clone(), self.request.limits.clone());
        self.workers
            .run(move |stop| {
                let opened: Vec<Objects> = repositories.iter().map(Fetched::open).collect::<Result<_, _>>()?;
                archive::write(&place, &opened, entries, &selection, &limits, stop)
            })
            .await
    }

    fn fetched(&self, index: usize) -> Result<Fetched, GitError> {
        // Indices are made by pushing, and nothing is taken away.
        self.repositories.get(index).cloned().ok_or(GitError::Cancelled)
    }

    /// Fetches one commit of a repository, alone if the server can do that.
    async fn repository(&mut self, url: &RepositoryUrl, wanted: &Wanted<'_>) -> Result<(Fetched, Resolved), GitError> {
        let places = &mut self.places;
        let scratch = &self.request.scratch;
        let mut next_place = || {
            *places += 1;
            scratch.join(format!("objects-{places}"))
        };
        let asked = match wanted {
            Wanted::Named(None) => "the default branch".to_owned(),
            Wanted::Named(Some(reference)) => reference.to_string(),
            Wanted::Pinned(commit) => commit.to_string(),
        };
        (self.listener)(FetchEvent::Asking { url: url.to_string(), reference: asked.clone() });
        let mut remote = Remote::discover(&self.access, url).await?;
        let target = match wanted {
            Wanted::Pinned(commit) => Target::Commit(*commit),
            Wanted::Named(reference) => {
                let prefixes = prefixes(*reference);
                let have = if prefixes.is_empty() { Vec::new() } else { remote.references(&prefixes).await? };
                target(*reference, &have)
            }
        };
        let target = match target {
            Target::Abbreviation(digits) if can_leave_files(&remote) => {
                let ids = everything(&mut remote).await?;
                if ids.is_empty() {
                    return Err(GitError::Empty { url: url.to_string() });
                }
                let objects = next_place();
                let wants = Wants { ids, shallow: false, commits_only: true };
                receive(&mut remote, &wants, &objects, &self.request.limits, self.workers, &self.listener).await?;
                let (url, asked) = (url.clone(), asked.clone());
                Target::Commit(self.workers.run(move |_| abbreviated(&url, &objects, &digits, &asked)).await?)
            }
            target => target,
        };
        let (alone, resolved) = match &target {
            Target::Missing => return Err(missing(&mut remote, &asked, wanted).await),
            Target::Reference { name, id, branch } => {
                (Some(*id), Resolved { name: Some(name.clone()), branch: branch.clone() })
            }
            Target::Commit(id) => (can_ask_for(&remote, *id).then_some(*id), Resolved::default()),
            Target::Abbreviation(_) => (None, Resolved::default()),
        };
        let mut objects = next_place();
        let mut refusal = None;
        let mut have_all = false;
        if let Some(id) = alone.filter(|_| can_be_shallow(&remote)) {
            let wants = Wants { ids: vec![id], shallow: true, commits_only: false };
            match receive(&mut remote, &wants, &objects, &self.request.limits, self.workers, &self.listener).await {
                Ok(()) => have_all = true,
                Err(GitError::Remote { message, .. }) if is_final(&remote, &target, &message) => {
                    return Err(GitError::CommitNotFound { commit: asked, url: url.to_string() });
                }
                // It may dislike shallowness, or commits that are no reference's.
                Err(error @ GitError::Remote { .. }) => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
        if !have_all {
            (self.listener)(FetchEvent::WholeHistory);
            let ids = match &target {
                Target::Reference { id, .. } => vec![*id],
                _ => everything(&mut remote).await?,
            };
            if ids.is_empty() {
                return Err(GitError::Empty { url: url.to_string() });
            }
            objects = next_place();
            let wants = Wants { ids, shallow: false, commits_only: false };
            let received =
                receive(&mut remote, &wants, &objects, &self.request.limits, self.workers, &self.listener).await;
            received.map_err(|error| refusal.unwrap_or(error))?;
        }
        let url = url.clone();
        let fetched = self.workers.run(move |_| locate(&url, objects, &target, &asked)).await?;
        Ok((fetched, resolved))
    }
}

impl Fetched {
    fn open(&self) -> Result<Objects, GitError> {
        Objects::open(&self.objects, self.url.as_str())
    }
}

/// Finds the wanted commit among the objects that came.
fn locate(url: &RepositoryUrl, objects: PathBuf, target: &Target, asked: &str) -> Result<Fetched, GitError> {
    let opened = Objects::open(&objects, url.as_str())?;
    let not_found = || GitError::CommitNotFound { commit: asked.to_owned(), url: url.to_string() };
    let id = match target {
        Target::Reference { id, .. } | Target::Commit(id) => *id,
        Target::Abbreviation(digits) => abbreviated(url, &objects, digits, asked)?,
        Target::Missing => return Err(not_found()),
    };
    match (opened.commit(id)?, target) {
        (Some((commit, tree)), _) => Ok(Fetched { url: url.clone(), objects, commit, tree }),
        (None, Target::Reference { .. }) => {
            Err(GitError::NotACommit { reference: asked.to_owned(), url: url.to_string() })
        }
        (None, _) => Err(not_found()),
    }
}

/// Finds the commit whose name begins like this among the objects that came.
fn abbreviated(url: &RepositoryUrl, objects: &Path, digits: &str, asked: &str) -> Result<Oid, GitError> {
    match Objects::open(objects, url.as_str())?.abbreviated(digits)? {
        Found::Commit(id) => Ok(id),
        Found::Missing => Err(GitError::CommitNotFound { commit: asked.to_owned(), url: url.to_string() }),
        Found::Ambiguous => Err(GitError::CommitAmbiguous { commit: asked.to_owned(), url: url.to_string() }),
    }
}

/// Whether it is worth asking for a commit that may be no reference's.
fn can_ask_for(remote: &Remote<'_>, id: Oid) -> bool {
    let advertisement = &remote.advertisement;
    match advertisement.version {
        Version::Two => true,
        Version::Old => {
            advertisement.references.iter().any(|one| one.id == id)
                || advertisement.capabilities.has("allow-reachable-sha1-in-want")
                || advertisement.capabilities.has("allow-tip-sha1-in-want")
        }
    }
}

/// Whether a refusal says that the commit is nowhere: git's own answer in version 2, which takes any commit it has.
fn is_final(remote: &Remote<'_>, target: &Target, message: &str) -> bool {
    let asks_commit = matches!(target, Target::Commit(_));
    asks_commit && remote.advertisement.version == Version::Two && message.contains("not our ref")
}

async fn all_references(remote: &mut Remote<'_>) -> Result<Vec<RemoteRef>, GitError> {
    let prefixes = ["HEAD", "refs/heads/", "refs/tags/"].map(str::to_owned);
    let mut references = remote.references(&prefixes).await?;
    references
        .retain(|one| one.name == "HEAD" || one.name.starts_with("refs/heads/") || one.name.starts_with("refs/tags/"));
    Ok(references)
}

/// The tips of all branches and tags.
async fn everything(remote: &mut Remote<'_>) -> Result<Vec<Oid>, GitError> {
    let mut ids: Vec<Oid> = all_references(remote).await?.into_iter().map(|one| one.id).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Says why nothing was found: the repository is empty, or has no such name.
async fn missing(remote: &mut Remote<'_>, asked: &str, wanted: &Wanted<'_>) -> GitError {
    let have = match all_references(remote).await {
        Ok(have) => have,
        Err(error) => return error,
    };
    if have.is_empty() {
        return GitError::Empty { url: remote.url() };
    }
    let (reference, near) = match wanted {
        Wanted::Named(Some(_)) => (asked.to_owned(), nearest(asked, &have)),
        _ => ("HEAD".to_owned(), nearest("main", &have)),
    };
    GitError::ReferenceNotFound { reference, url: remote.url(), near }
}
