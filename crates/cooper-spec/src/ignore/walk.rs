//! Asking ignore rules about the entries of a tree in walk order, with leave to skip directories that cannot hold
//! anything kept: the conditions under which Docker's own walk (tonistiigi/fsutil) skips one.

use super::{IgnoreRules, ParentMatches};

/// What to do with an entry of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreVerdict {
    /// It is kept.
    Keep,
    /// It is ignored; a directory must still be visited, and is kept after all once something inside it is.
    Omit,
    /// It is an ignored directory in which nothing can be kept: it need not be visited.
    Prune,
}

/// A walk under some rules. Ask about a directory before its children, and about all of them before what comes after.
#[derive(Debug)]
pub struct IgnoreWalk<'rules> {
    rules: &'rules IgnoreRules,
    /// The fixed beginnings of all `!` patterns; nothing if one of them can match anywhere.
    exceptions: Option<Vec<&'rules str>>,
    /// The directories above the last entry, each with what it matched.
    parents: Vec<(String, ParentMatches)>,
}

impl<'rules> IgnoreWalk<'rules> {
    pub(super) fn new(rules: &'rules IgnoreRules) -> Self {
        let exceptions = rules.exceptions().map(|pattern| pattern.fixed_beginning()).collect();
        Self { rules, exceptions, parents: Vec::new() }
    }

    /// The verdict on the next entry of the walk.
    pub fn visit(&mut self, path: &str, is_directory: bool) -> IgnoreVerdict {
        if self.rules.is_empty() {
            return IgnoreVerdict::Keep;
        }
        while self.parents.last().is_some_and(|(parent, _)| !is_inside(path, parent)) {
            self.parents.pop();
        }
        let (ignored, matches) = self.rules.matches_in(path, self.parents.last().map(|(_, matches)| matches));
        if is_directory {
            self.parents.push((path.to_owned(), matches));
        }
        match (ignored, is_directory) {
            (false, _) => IgnoreVerdict::Keep,
            (true, true) if !self.can_keep_inside(path) => IgnoreVerdict::Prune,
            (true, _) => IgnoreVerdict::Omit,
        }
    }

    fn can_keep_inside(&self, directory: &str) -> bool {
        match &self.exceptions {
            None => true,
            Some(beginnings) => beginnings.iter().any(|head| *head == directory || is_inside(head, directory)),
        }
    }
}

fn is_inside(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}
