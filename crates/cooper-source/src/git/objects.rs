//! The objects that came: commits, trees and files, read through libgit2 from the packs of one repository.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cooper_spec::source::RepositoryUrl;
use git2::{Blob, ErrorCode, ObjectType, Odb, Oid, Repository, Tree};

use super::GitError;
use super::worker::check;

/// How many tags may stand before a commit.
const MAX_TAGS: usize = 10;
/// Bytes of a commit or a tag: people write them.
const COMMIT_LEN: u64 = 16 << 20;

/// A repository that has been fetched.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) url: RepositoryUrl,
    /// Where its objects are.
    pub(super) objects: PathBuf,
    pub(super) commit: Oid,
    /// The commit's tree.
    pub(super) tree: Oid,
}

/// A repository's objects, opened. It has no references, no configuration and no work tree. Reading ends with an error
/// once nobody wants the result any more.
pub(super) struct Objects<'run> {
    repository: Repository,
    url: String,
    stop: &'run AtomicBool,
}

/// What a name's beginning leads to.
pub(super) enum Found {
    Commit(Oid),
    Missing,
    Ambiguous,
}

impl<'run> Objects<'run> {
    pub(super) fn open(objects: &Path, url: &str, stop: &'run AtomicBool) -> Result<Self, GitError> {
        let fault = |source| GitError::Objects { url: url.to_owned(), source };
        let path = objects.to_str().ok_or_else(|| {
            let text = format!("the path `{}` is not UTF-8", objects.display());
            GitError::Disk { source: std::io::Error::other(text) }
        })?;
        let database = Odb::new().map_err(fault)?;
        database.add_disk_alternate(path).map_err(fault)?;
        let repository = Repository::from_odb(database).map_err(fault)?;
        Ok(Self { repository, url: url.to_owned(), stop })
    }

    pub(super) fn fault(&self, source: git2::Error) -> GitError {
        GitError::Objects { url: self.url.clone(), source }
    }

    /// The commit that an object stands for, through tags, and its tree. Nothing if the object is not there or stands
    /// for something else.
    pub(super) fn commit(&self, mut id: Oid) -> Result<Option<(Oid, Oid)>, GitError> {
        let database = self.repository.odb().map_err(|error| self.fault(error))?;
        for _ in 0..=MAX_TAGS {
            let kind = match database.read_header(id) {
                Ok((length, ObjectType::Commit | ObjectType::Tag)) if length as u64 > COMMIT_LEN => {
                    return Err(GitError::Limit { what: "bytes in a commit or tag", limit: COMMIT_LEN });
                }
                Ok((_, kind)) => kind,
                Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(self.fault(error)),
            };
            match kind {
                ObjectType::Commit => {
                    let commit = self.repository.find_commit(id).map_err(|error| self.fault(error))?;
                    return Ok(Some((id, commit.tree_id())));
                }
                ObjectType::Tag => {
                    id = self.repository.find_tag(id).map_err(|error| self.fault(error))?.target_id();
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The commit whose name begins like this.
    pub(super) fn abbreviated(&self, digits: &str) -> Result<Found, GitError> {
        let database = self.repository.odb().map_err(|error| self.fault(error))?;
        let Ok(short) = Oid::from_str(digits) else { return Ok(Found::Missing) };
        match database.exists_prefix(short, digits.len()) {
            Ok(id) => Ok(match self.commit(id)? {
                Some((commit, _)) => Found::Commit(commit),
                None => Found::Missing,
            }),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(Found::Missing),
            Err(error) if error.code() == ErrorCode::Ambiguous => Ok(Found::Ambiguous),
            Err(error) => Err(self.fault(error)),
        }
    }

    /// A directory, and its bytes: libgit2 holds all of it in memory. With those of the directories above that are `open`,
    /// there may be `limit`.
    pub(super) fn tree(&self, id: Oid, open: u64, limit: u64) -> Result<(Tree<'_>, u64), GitError> {
        let length = self.len(id)?;
        if length.saturating_add(open) > limit {
            return Err(GitError::Limit { what: "bytes in directories inside each other", limit });
        }
        Ok((self.repository.find_tree(id).map_err(|error| self.fault(error))?, length))
    }

    /// An object's length, without reading it.
    pub(super) fn len(&self, id: Oid) -> Result<u64, GitError> {
        check(self.stop)?;
        let database = self.repository.odb().map_err(|error| self.fault(error))?;
        let (length, _) = database.read_header(id).map_err(|error| self.fault(error))?;
        Ok(length as u64)
    }

    /// A file's content; `path` is for the message if it has more than `limit` bytes.
    pub(super) fn file(&self, id: Oid, path: &str, limit: u64) -> Result<Blob<'_>, GitError> {
        if self.len(id)? > limit {
            return Err(GitError::FileTooLarge { path: path.escape_debug().to_string(), limit });
        }
        self.repository.find_blob(id).map_err(|error| self.fault(error))
    }
}
