//! Which part of a context its `.dockerignore` leaves, as the engine's frontend has read it.

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_spec::ignore::{IgnoreRules, IgnoreVerdict};

/// Which entries the rules of the context's `.dockerignore` leave: the engine's frontend reads that file, and applying
/// it is ours, also where whoever made the context did so before, because an ignored Dockerfile is in the context all
/// the same and must not be copied. Nothing once `is_over`, which is asked as the walk goes.
pub(super) fn kept(tree: &ContextTree, rules: &IgnoreRules, is_over: &dyn Fn() -> bool) -> Option<Vec<bool>> {
    let entries = tree.entries();
    let mut kept = vec![false; entries.len()];
    let mut walk = rules.walk();
    // Indices of the directories above the entry.
    let mut parents: Vec<usize> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if is_over() {
            return None;
        }
        let is_above = |parent: &usize| {
            let parent = entries.get(*parent).map_or("", |parent| parent.path.as_str());
            entry.path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
        };
        while parents.last().is_some_and(|parent| !is_above(parent)) {
            parents.pop();
        }
        let is_directory = entry.kind == EntryKind::Directory;
        if walk.visit(&entry.path, is_directory) == IgnoreVerdict::Keep {
            for index in parents.iter().copied().chain([index]) {
                if let Some(kept) = kept.get_mut(index) {
                    *kept = true;
                }
            }
        }
        if is_directory {
            parents.push(index);
        }
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_ports::context_tree::ContextEntry;

    #[test]
    fn a_directory_is_kept_for_what_is_kept_inside() {
        let entry = |path: &str, kind| ContextEntry { path: path.into(), kind, mode: 0o755, mtime_ns: 0 };
        let file = || EntryKind::File { offset: 0, size: 0 };
        let tree = ContextTree::new(
            vec![
                entry("Dockerfile", file()),
                entry("a", EntryKind::Directory),
                entry("a/b", EntryKind::Directory),
                entry("a/b/keep", file()),
                entry("a/b/lose", file()),
                entry("a/c", EntryKind::Directory),
                entry("a/c/lose", file()),
                entry("ab", file()),
            ],
            tempfile::tempfile().expect("a file"),
        );
        let check = |patterns: &[&str], expect: &[&str]| {
            let rules = IgnoreRules::from_patterns(patterns.iter().copied()).expect("patterns");
            let kept = kept(&tree, &rules, &|| false).expect("nothing ends it");
            let paths: Vec<&str> = tree
                .entries()
                .iter()
                .zip(kept)
                .filter(|(_, kept)| *kept)
                .map(|(entry, _)| entry.path.as_str())
                .collect();
            assert_eq!(paths, expect, "{patterns:?}");
        };
        check(&["*", "!a/b/keep"], &["a", "a/b", "a/b/keep"]);
        check(&["a", "Dockerfile"], &["ab"]);
        check(&["**/lose", "a?"], &["Dockerfile", "a", "a/b", "a/b/keep", "a/c"]);
        let rules = IgnoreRules::from_patterns(["a"]).expect("patterns");
        assert_eq!(super::kept(&tree, &rules, &|| true), None);
    }
}
