//! Which part of a context the engine needs: it names paths, and wants the symbolic links on the way too.
//!
//! Sending more than was asked for is allowed, sending less breaks the build. So a pattern stands for everything under
//! its last fixed directory, and what cannot be understood stands for the whole context.

use std::collections::{HashSet, VecDeque};

use cooper_ports::context_tree::{ContextTree, EntryKind};

/// More paths than a Dockerfile can name in earnest: then everything is sent.
const MAX_PATHS: usize = 4096;
/// No entry of a context has a longer path, in bytes.
const MAX_PATH: usize = 4096;
/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// Indices of the entries to send, in walk order: each selected path, all under it, and its parent directories. Nothing
/// once `is_over`, which is asked as it goes.
pub(super) fn select(tree: &ContextTree, paths: &[String], is_over: &dyn Fn() -> bool) -> Option<Vec<usize>> {
    let all = || Some((0..tree.entries().len()).collect());
    if paths.is_empty() || paths.len() > MAX_PATHS || paths.iter().any(|path| path.len() > MAX_PATH) {
        return all();
    }
    let mut wanted = HashSet::new();
    for path in paths {
        if is_over() {
            return None;
        }
        if !follow(tree, path, &mut wanted) {
            return all();
        }
    }
    let parents: HashSet<&str> = wanted.iter().flat_map(|path| ancestors(path)).collect();
    let mut selected = Vec::new();
    // The wanted directory that the walk is in. A deep tree must not cost a look at all ancestors of each entry.
    let mut inside: Option<&str> = None;
    for (index, entry) in tree.entries().iter().enumerate() {
        if is_over() {
            return None;
        }
        let path = entry.path.as_str();
        let is_inside = |directory| path.strip_prefix(directory).is_some_and(|rest: &str| rest.starts_with('/'));
        inside = inside.filter(|directory| is_inside(*directory));
        if inside.is_none() && wanted.contains(path) {
            inside = Some(path);
        }
        if inside.is_some() || parents.contains(path) {
            selected.push(index);
        }
    }
    Some(selected)
}

/// Adds what a path stands for to `wanted`; false when that is the whole context.
fn follow(tree: &ContextTree, path: &str, wanted: &mut HashSet<String>) -> bool {
    let mut rest: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            // Above the context there is the context: as the engine resolves it, too.
            ".." => {
                at.pop();
                continue;
            }
            pattern if pattern.contains(['*', '?', '[', '\\']) => break,
            _ => at.push(part),
        }
        let here = at.join("/");
        if let Some(EntryKind::Symlink { target }) = tree.get(&here).map(|entry| &entry.kind) {
            links += 1;
            if links > MAX_LINKS {
                return false;
            }
            wanted.insert(here);
            if target.starts_with('/') {
                at.clear();
            } else {
                at.pop();
            }
            for part in target.split('/').rev() {
                rest.push_front(part.to_owned());
            }
        }
    }
    if at.is_empty() {
        return false;
    }
    wanted.insert(at.join("/"));
    true
}

/// `a/b/c` → `a/b`, `a`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.rmatch_indices('/').map(|(end, _)| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_ports::context_tree::ContextEntry;

    fn tree() -> ContextTree {
        let entry = |path: &str, kind| ContextEntry { path: path.into(), kind, mode: 0o644, mtime_ns: 0 };
        let file = || EntryKind::File { offset: 0, size: 0 };
        let link = |target: &str| EntryKind::Symlink { target: target.into() };
        let spool = tempfile::tempfile().expect("a file");
        ContextTree::new(
            vec![
                entry("Dockerfile", file()),
                entry("a", EntryKind::Directory),
                entry("a/b", EntryKind::Directory),
                entry("a/b/c.txt", file()),
                entry("a/d.txt", file()),
                entry("ab", file()),
                entry("direct", link("a/b")),
                entry("absolute", link("/a/d.txt")),
                entry("up", link("../../a/d.txt")),
                entry("loop", link("loop")),
            ],
            spool,
        )
    }

    fn check(paths: &[&str], expect: &[&str]) {
        let tree = tree();
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let got: Vec<&str> = select(&tree, &paths, &|| false)
            .expect("nothing ends it")
            .into_iter()
            .map(|index| tree.entries()[index].path.as_str())
            .collect();
        assert_eq!(got, expect, "{paths:?}");
    }

    #[test]
    fn a_path_brings_its_parents_its_children_and_its_links() {
        check(&["a/b/c.txt"], &["a", "a/b", "a/b/c.txt"]);
        check(&["a/b"], &["a", "a/b", "a/b/c.txt"]);
        check(&["./a//b/../d.txt"], &["a", "a/d.txt"]);
        check(&["Dockerfile", ".dockerignore"], &["Dockerfile"]);
        check(&["missing"], &[]);
        check(&["a"], &["a", "a/b", "a/b/c.txt", "a/d.txt"]);
        check(&["direct"], &["a", "a/b", "a/b/c.txt", "direct"]);
        check(&["direct/c.txt"], &["a", "a/b", "a/b/c.txt", "direct"]);
        check(&["absolute"], &["a", "a/d.txt", "absolute"]);
        check(&["up"], &["a", "a/d.txt", "up"]);
    }

    #[test]
    fn patterns_and_nonsense_bring_more_rather_than_less() {
        let all = ["Dockerfile", "a", "a/b", "a/b/c.txt", "a/d.txt", "ab", "absolute", "direct", "loop", "up"];
        check(&["a/b/*.txt"], &["a", "a/b", "a/b/c.txt"]);
        check(&["*.txt"], &all);
        check(&["/"], &all);
        check(&["../.."], &all);
        check(&["loop"], &all);
        check(&[], &all);
        check(&["a/".repeat(3000).as_str()], &all);
        assert_eq!(select(&tree(), &["a".to_owned()], &|| true), None);
    }

    #[test]
    fn a_deep_tree_costs_no_more_than_its_size() {
        const DEPTH: usize = 4000;
        let entry = |path: String, kind| ContextEntry { path, kind, mode: 0o644, mtime_ns: 0 };
        let deep = vec!["d"; DEPTH].join("/");
        let mut entries: Vec<_> =
            (1..=DEPTH).map(|depth| entry(deep[..depth * 2 - 1].into(), EntryKind::Directory)).collect();
        let file = |number| entry(format!("{deep}/{number}"), EntryKind::File { offset: 0, size: 0 });
        entries.extend((0..4000).map(file));
        let tree = ContextTree::new(entries, tempfile::tempfile().expect("a file"));
        let begun = std::time::Instant::now();
        assert_eq!(select(&tree, &["Dockerfile".to_owned()], &|| false), Some(Vec::new()));
        // With a look at each ancestor it takes many minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }
}
