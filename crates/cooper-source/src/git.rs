//! Fetching a place in a Git repository into an archive that a build can be served from.
//!
//! The protocol is spoken here, over the egress client; libgit2 indexes what came and reads objects, and has no way to
//! a network, a configuration or a work tree: no hook, filter, helper or `insteadOf` can take part, and nothing is
//! checked out. The archive is written from the commit's tree: names and contents exactly as they are committed, so
//! `.gitattributes` (line ends, filters, `export-ignore`) means nothing. Only fetching exists; there is no push.
//!
//! A fetch takes one commit, shallow where the server can. Submodules that go into the archive are fetched at their
//! pinned commits. Large files in LFS are an error so far. Everything has a limit, and dropping the future, or its
//! token's cancellation, ends the work within a second.

mod acquire;
mod advertisement;
mod archive;
mod context;
mod error;
mod fetching;
mod guard;
mod modules;
mod objects;
mod pack;
mod packet;
mod remote;
mod resolve;
mod tree;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cooper_spec::source::{GitReference, GitSource, RepositoryUrl};
use cooper_types::{Digest, SecretString};
use tokio_util::sync::CancellationToken;

use crate::egress::Egress;
use crate::further::FurtherFiles;
use advertisement::RemoteRef;
pub use error::{GitError, GitNameFault};
use fetching::Fetching;
use remote::{Access, Remote};
use worker::Workers;

/// What to fetch, and what to make of it.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// The place.
    pub source: GitSource,
    /// The Dockerfile's path below the source's subdirectory, if the archive is for a build: then `.dockerignore`'s
    /// rules apply, as they do to a folder. Without it everything goes in.
    pub dockerfile: Option<String>,
    /// Files below the subdirectory that the caller wants to read: missing ones are missing in the answer.
    pub files: Vec<String>,
    /// More of them, by what those hold.
    pub further: FurtherFiles,
    /// The place in the same repository where the Dockerfile with its ignore rules and the named files are read, if not in the
    /// source. The archive has the source's files, and that Dockerfile under a name of its own.
    pub definition: Option<GitReference>,
    /// An empty directory that is this fetch's own. The caller removes it, with the archive in it.
    pub scratch: PathBuf,
    /// What it may ask for at most.
    pub limits: FetchLimits,
}

/// What a fetch may ask for at most. A breach names the limit.
#[derive(Clone, Debug)]
pub struct FetchLimits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of one file. A file is held in memory while it is read, and so are those that it is stored as the
    /// difference to.
    pub file_len: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of directories inside each other, as they are stored: those on the way from the root to one are held in
    /// memory together.
    pub directories: u64,
    /// Bytes that are received, over all repositories.
    pub received: u64,
    /// Bytes of one of the named files.
    pub named_file_len: u64,
    /// Repositories inside repositories.
    pub submodules: usize,
    /// How deep they may lie inside each other.
    pub submodule_depth: usize,
    /// How long everything may take.
    pub time: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            file_len: 512 << 20,
            bytes: 16 << 30,
            // A million entries in one take less.
            directories: 64 << 20,
            received: 16 << 30,
            named_file_len: 1 << 20,
            submodules: 100,
            submodule_depth: 10,
            time: Duration::from_secs(3_600),
        }
    }
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The branch, if one was named or the default branch was taken.
    pub branch: Option<String>,
    /// The full name of the reference that was taken; nothing if a commit was named.
    pub reference: Option<String>,
    /// The archive, a tar.gz in the scratch directory. The same commit and request give the same bytes.
    pub archive: PathBuf,
    /// The archive's digest.
    pub digest: Digest,
    /// The archive's bytes.
    pub size: u64,
    /// How many entries it has.
    pub entries: u64,
    /// What the Dockerfile is called in the archive, if one was asked for: another name if it is a link.
    pub dockerfile: Option<String>,
    /// The commit of the definition, if another place than the source was asked for.
    pub definition: Option<String>,
    /// The named files that were found, by the names that the caller gave.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A user name and a password or token for one host.
#[derive(Clone, Debug)]
pub struct GitCredential {
    /// The user name; many forges take any with a token.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

/// Where credentials come from. Asked only after a host has demanded some, at most once per host and fetch.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The credential for `host`, which is `HOST` or `HOST:PORT` in lower case; nothing if there is none. The port is
    /// missing for https's own alone: plain http always has one.
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>>;
}

/// No credentials for anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCredentials;

#[async_trait]
impl CredentialSource for NoCredentials {
    async fn for_host(&self, _: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(None)
    }
}

/// What happens during a fetch; displayed, a line for the run's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchEvent {
    /// A repository is asked for a reference.
    Asking {
        /// The repository.
        url: String,
        /// What is asked for.
        reference: String,
    },
    /// The server cannot do what would be quickest: all of the history comes.
    WholeHistory,
    /// A line that the server wants the user to see, made harmless.
    Remote(String),
    /// A repository is being received; said now and then.
    Receiving {
        /// Bytes so far.
        bytes: u64,
    },
    /// A repository has been received.
    Received {
        /// Objects in it.
        objects: u64,
        /// Bytes on the wire.
        bytes: u64,
    },
    /// What the reference stands for.
    Resolved {
        /// The commit.
        commit: String,
        /// The reference's full name.
        reference: Option<String>,
    },
    /// A submodule is fetched.
    Submodule {
        /// Where it lies in the source.
        path: String,
        /// Its repository.
        url: String,
    },
    /// The archive is written.
    Archived {
        /// Entries in it.
        entries: u64,
        /// Its bytes.
        size: u64,
    },
}

impl fmt::Display for FetchEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asking { url, reference } => write!(f, "Fetching {reference} from {url}"),
            Self::WholeHistory => f.write_str("The server can't send this commit alone; fetching the whole history"),
            Self::Remote(line) => write!(f, "remote: {line}"),
            Self::Receiving { bytes } => write!(f, "Receiving, {bytes} bytes so far"),
            Self::Received { objects, bytes } => write!(f, "Received {objects} objects, {bytes} bytes"),
            Self::Resolved { commit, reference: Some(reference) } => write!(f, "{reference} is commit {commit}"),
            Self::Resolved { commit, reference: None } => write!(f, "Using commit {commit}"),
            Self::Submodule { path, url } => write!(f, "Submodule {path} from {url}"),
            Self::Archived { entries, size } => write!(f, "Packed {entries} entries into {size} bytes"),
        }
    }
}

/// Hears of a fetch's events, also from threads.
pub type FetchListener = Arc<dyn Fn(FetchEvent) + Send + Sync>;

/// Fetches a source. Must be called inside a tokio runtime; the blocking parts run on its blocking threads.
///
/// When `cancelled` fires, network and threads are let go of, and [`GitError::Cancelled`] is the result. Dropping the
/// future does the same, but does not wait for the threads to leave the scratch directory.
pub async fn fetch(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    request: FetchRequest,
    listener: FetchListener,
    cancelled: &CancellationToken,
) -> Result<Snapshot, GitError> {
    let limit = request.limits.time;
    let workers = Workers::new();
    let result = {
        let fetching = Fetching::new(egress, credentials, request, listener, &workers);
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(GitError::Cancelled),
            result = tokio::time::timeout(limit, fetching.run()) => {
                result.unwrap_or(Err(GitError::TooSlow { limit }))
            }
        }
    };
    workers.stop().await;
    result
}

/// A reference of a repository, such as a branch or a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedReference {
    /// Its full name.
    pub name: String,
    /// What it points at, 40 hexadecimal digits: of an annotated tag, the tag's own object.
    pub id: String,
    /// What an annotated tag leads to.
    pub peeled: Option<String>,
}

/// The references of a repository whose full names begin with one of these, without fetching anything.
pub async fn references(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    url: &RepositoryUrl,
    prefixes: &[&str],
) -> Result<Vec<ListedReference>, GitError> {
    /// Bytes of the list, and of what a server says beside it.
    const LIST: u64 = 64 << 20;
    let access = Access::new(egress, credentials, LIST);
    let mut remote = Remote::discover(&access, url).await?;
    let asked: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
    let references = remote.peeled_references(&asked).await?;
    let listed = references.into_iter().filter(|one| prefixes.iter().any(|prefix| one.name.starts_with(prefix)));
    let listed = listed.map(|RemoteRef { name, id, peeled, .. }| ListedReference {
        name,
        id: id.to_string(),
        peeled: peeled.map(|id| id.to_string()),
    });
    Ok(listed.collect())
}
