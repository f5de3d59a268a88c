//! Getting one commit of one repository: what a reference means there, the commit alone if the server can, all of the
//! history if it can't, and the commit among what came.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cooper_spec::source::{GitReference, RepositoryUrl};
use git2::Oid;

use super::advertisement::{RemoteRef, Version};
use super::fetching::Fetching;
use super::objects::{Fetched, Found, Objects};
use super::pack::{Wants, can_be_shallow, can_leave_files, receive};
use super::remote::Remote;
use super::resolve::{Target, nearest, prefixes, target};
use super::{FetchEvent, GitError};

/// What names the commit that is wanted.
pub(super) enum Wanted<'a> {
    Named(Option<&'a GitReference>),
    Pinned(Oid),
}

/// What a reference was found to be.
#[derive(Default)]
pub(super) struct Resolved {
    pub(super) name: Option<String>,
    pub(super) branch: Option<String>,
}

impl Fetching<'_> {
    /// Fetches one commit of a repository, alone if the server can do that.
    pub(super) async fn repository(
        &mut self,
        url: &RepositoryUrl,
        wanted: &Wanted<'_>,
    ) -> Result<(Fetched, Resolved), GitError> {
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
                Target::Commit(self.workers.run(move |stop| abbreviated(&url, &objects, &digits, &asked, stop)).await?)
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
        let fetched = self.workers.run(move |stop| locate(&url, objects, &target, &asked, stop)).await?;
        Ok((fetched, resolved))
    }
}

/// Finds the wanted commit among the objects that came.
fn locate(
    url: &RepositoryUrl,
    objects: PathBuf,
    target: &Target,
    asked: &str,
    stop: &AtomicBool,
) -> Result<Fetched, GitError> {
    let opened = Objects::open(&objects, url.as_str(), stop)?;
    let not_found = || GitError::CommitNotFound { commit: asked.to_owned(), url: url.to_string() };
    let id = match target {
        Target::Reference { id, .. } | Target::Commit(id) => *id,
        Target::Abbreviation(digits) => abbreviated(url, &objects, digits, asked, stop)?,
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
fn abbreviated(
    url: &RepositoryUrl,
    objects: &Path,
    digits: &str,
    asked: &str,
    stop: &AtomicBool,
) -> Result<Oid, GitError> {
    match Objects::open(objects, url.as_str(), stop)?.abbreviated(digits)? {
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
