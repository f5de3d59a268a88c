//! Which Dockerfile and which ignore file a build from Git uses: the same rules as for a folder (see `pack::selection`).

use std::collections::BTreeMap;

use cooper_spec::ignore::{IgnoreRules, IgnoreVerdict};
use git2::Oid;

use super::objects::Objects;
use super::tree::{Place, find};
use super::{FetchLimits, GitError};
use crate::pack::selection::replacement;

/// More than any Dockerfile, and little enough to hold in memory.
const TEXT_LIMIT: u64 = 16 << 20;

/// What goes into the archive besides and in spite of rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) rules: IgnoreRules,
    /// The Dockerfile's path in the archive.
    pub(super) dockerfile: Option<String>,
    /// Paths that go in though a rule ignores them.
    always: Vec<String>,
    /// Files that are not in the tree: name and content.
    pub(super) added: Vec<(String, Vec<u8>)>,
}

impl Selection {
    /// Looks at the tree that is the context, or, where the files come from another one, that the Dockerfile is read in.
    pub(super) fn find(
        objects: &Objects<'_>,
        tree: Oid,
        dockerfile: Option<&str>,
        is_foreign: bool,
        limits: &FetchLimits,
    ) -> Result<Self, GitError> {
        let Some(asked) = dockerfile else { return Ok(Self::default()) };
        let missing = || GitError::NoDockerfile { path: asked.to_owned() };
        let clean: Vec<&str> = asked.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let clean = clean.join("/");
        let (content, is_plain) = match find(objects, tree, &clean, limits)? {
            Place::File { id, path } => (Some(id), !is_foreign && path == clean),
            // It is looked for when the submodule is there; those of another place are not fetched.
            Place::Submodule { .. } if !is_foreign => (None, true),
            Place::Submodule { .. } | Place::Missing | Place::Directory { .. } => return Err(missing()),
        };
        let (file, text) = match text(objects, tree, &format!("{clean}.dockerignore"), limits)? {
            Some(text) => (format!("{clean}.dockerignore"), text),
            None => (".dockerignore".to_owned(), text(objects, tree, ".dockerignore", limits)?.unwrap_or_default()),
        };
        let mut selection = Self { rules: IgnoreRules::parse(&file, &text)?, ..Self::default() };
        selection.always.push(".dockerignore".to_owned());
        match content.filter(|_| !is_plain) {
            None => {
                selection.always.push(format!("{clean}.dockerignore"));
                selection.always.push(clean.clone());
                selection.dockerfile = Some(clean);
            }
            Some(id) => {
                let (name, added) = replacement(objects.file(id, asked, TEXT_LIMIT)?.content().to_vec(), &text);
                selection.added = added;
                selection.dockerfile = Some(name);
            }
        }
        Ok(selection)
    }

    /// The rules' verdict on a path, corrected for what must go in.
    pub(super) fn verdict(&self, verdict: IgnoreVerdict, path: &str) -> IgnoreVerdict {
        match verdict {
            IgnoreVerdict::Omit if self.always.iter().any(|always| always == path) => IgnoreVerdict::Keep,
            IgnoreVerdict::Prune if self.always.iter().any(|always| is_inside(always, path)) => IgnoreVerdict::Omit,
            verdict => verdict,
        }
    }

    /// Whether an entry of the tree must give way to an added file.
    pub(super) fn is_replaced(&self, path: &str) -> bool {
        self.added.iter().any(|(name, _)| name == path)
    }
}

fn is_inside(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn text(objects: &Objects<'_>, tree: Oid, path: &str, limits: &FetchLimits) -> Result<Option<String>, GitError> {
    let Place::File { id, .. } = find(objects, tree, path, limits)? else { return Ok(None) };
    let content = objects.file(id, path, TEXT_LIMIT)?;
    std::str::from_utf8(content.content())
        .map(|text| Some(text.to_owned()))
        .map_err(|_| GitError::IgnoreNotText { path: path.to_owned() })
}

/// Reads the files that the caller has named.
pub(super) fn named(
    objects: &Objects<'_>,
    tree: Oid,
    names: &[String],
    limits: &FetchLimits,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), GitError> {
    for name in names {
        if let Place::File { id, .. } = find(objects, tree, name, limits)? {
            files.insert(name.clone(), objects.file(id, name, limits.named_file_len)?.content().to_vec());
        }
    }
    Ok(())
}
