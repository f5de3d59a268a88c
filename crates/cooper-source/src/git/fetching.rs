//! The course of a fetch: the repository, the subdirectory, the entries with their submodules, the archive.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cooper_spec::source::RepositoryUrl;
use git2::Oid;

use super::acquire::Wanted;
use super::archive::{self, Written};
use super::context::{Selection, named};
use super::modules::{self, Module};
use super::objects::{Fetched, Objects};
use super::remote::Access;
use super::tree::{Collector, Entry, Link, Place, Tally, find};
use super::worker::Workers;
use super::{CredentialSource, FetchEvent, FetchListener, FetchRequest, GitError, Snapshot};
use crate::egress::Egress;
use crate::further::Found;

/// `.gitmodules` of the largest collections has some hundred KiB.
const MODULES_LEN: u64 = 4 << 20;

/// One fetch on its way.
pub(super) struct Fetching<'run> {
    pub(super) access: Access<'run>,
    pub(super) request: FetchRequest,
    pub(super) listener: FetchListener,
    pub(super) workers: &'run Workers,
    /// Everything that was fetched: the source itself first.
    repositories: Vec<Fetched>,
    /// The submodules of each of them, once they were looked at.
    modules: HashMap<usize, Arc<Vec<Module>>>,
    /// Fetched submodules, by what was asked for.
    known: HashMap<(RepositoryUrl, Oid), usize>,
    /// How many directories of the scratch directory are in use.
    pub(super) places: usize,
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
        let context = self.context(0, &commit).await?;
        let definition = self.definition().await?;
        // A Dockerfile of another place is no file of this one.
        let is_foreign = definition.is_some();
        let (repository, tree) = match &definition {
            Some((_, work)) => (work.repository, work.tree),
            None => (context.repository, context.tree),
        };
        let fetched = self.fetched(repository)?;
        let (dockerfile, names, limits) =
            (self.request.dockerfile.clone(), self.request.files.clone(), self.request.limits.clone());
        let further = self.request.further.clone();
        let found =
            Found { commit: Some(commit.clone()), branch: resolved.branch.clone(), reference: resolved.name.clone() };
        let (selection, files) = self
            .workers
            .run(move |stop| {
                let objects = fetched.open(stop)?;
                let mut files = BTreeMap::new();
                named(&objects, tree, &names, &limits, &mut files)?;
                named(&objects, tree, &further.after(&found, &files), &limits, &mut files)?;
                Ok((Selection::find(&objects, tree, dockerfile.as_deref(), is_foreign, &limits)?, files))
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
            definition: definition.map(|(commit, _)| commit),
            files,
        })
    }

    /// The commit of the definition and the same directory in it, where it is another one's than the source's.
    async fn definition(&mut self) -> Result<Option<(String, Work)>, GitError> {
        let Some(reference) = self.request.definition.clone() else { return Ok(None) };
        let url = self.request.source.url.clone();
        let (fetched, resolved) = self.repository(&url, &Wanted::Named(Some(&reference))).await?;
        let commit = fetched.commit.to_string();
        (self.listener)(FetchEvent::Resolved { commit: commit.clone(), reference: resolved.name });
        let index = self.repositories.len();
        self.repositories.push(fetched);
        let work = self.context(index, &commit).await?;
        Ok(Some((commit, work)))
    }

    /// The directory of a fetched repository that is the context; it may lie in a submodule.
    async fn context(&mut self, root: usize, commit: &str) -> Result<Work, GitError> {
        let subdirectory = self.request.source.subdirectory.as_ref().map(|path| path.as_str().to_owned());
        let mut path = subdirectory.clone().unwrap_or_default();
        let shown = subdirectory.unwrap_or_default();
        let (mut repository, mut depth) = (root, 0);
        loop {
            let fetched = self.fetched(repository)?;
            let (tree, wanted, limits) = (fetched.tree, path.clone(), self.request.limits.clone());
            match self.workers.run(move |stop| find(&fetched.open(stop)?, tree, &wanted, &limits)).await? {
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
                    let objects = fetched.open(stop)?;
                    let (entries, links) = (Vec::new(), Vec::new());
                    let (selection, limits) = (&*selection, &limits);
                    let objects = &objects;
                    let mut collector =
                        Collector { objects, repository, selection, limits, entries, links, tally, open: 0 };
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
        let (fetched, limits) = (self.fetched(repository)?, self.request.limits.clone());
        let modules = self
            .workers
            .run(move |stop| {
                let objects = fetched.open(stop)?;
                // A link in this place is a trick, not a file.
                match find(&objects, fetched.tree, ".gitmodules", &limits)? {
                    Place::File { id, path } if path == ".gitmodules" => {
                        let text = objects.file(id, &path, MODULES_LEN)?;
                        Ok(modules::parse(&String::from_utf8_lossy(text.content())))
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
                let opened: Vec<Objects<'_>> =
                    repositories.iter().map(|one| one.open(stop)).collect::<Result<_, _>>()?;
                archive::write(&place, &opened, entries, &selection, &limits, stop)
            })
            .await
    }

    fn fetched(&self, index: usize) -> Result<Fetched, GitError> {
        // Indices are made by pushing, and nothing is taken away.
        self.repositories.get(index).cloned().ok_or(GitError::Cancelled)
    }
}

impl Fetched {
    fn open<'run>(&self, stop: &'run AtomicBool) -> Result<Objects<'run>, GitError> {
        Objects::open(&self.objects, self.url.as_str(), stop)
    }
}
