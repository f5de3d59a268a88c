use std::collections::BTreeSet;
use std::io::Write as _;

use cooper_ports::context_tree::ContextEntry;

use super::*;

fn engine(version: &str, features: &[EngineFeature]) -> EngineDescription {
    EngineDescription {
        name: "Docker Engine".into(),
        version: version.into(),
        api_version: "1.41".into(),
        native: Platform::LINUX_AMD64,
        emulated: BTreeSet::new(),
        features: features.iter().copied().collect(),
    }
}

/// A tree of these files and links; folders are made as needed.
fn tree(files: &[(&str, &str)], links: &[(&str, &str)]) -> ContextTree {
    let mut spool = tempfile::tempfile().expect("temporary file");
    let mut entries = Vec::new();
    let mut offset = 0;
    let entry = |path: &str, kind| ContextEntry { path: path.to_owned(), kind, mode: 0o644, mtime_ns: 0 };
    let mut folders = BTreeSet::new();
    for (path, _) in files.iter().chain(links) {
        let ends = path.match_indices('/').map(|(index, _)| path[..index].to_owned());
        folders.extend(ends);
    }
    for (path, content) in files {
        spool.write_all(content.as_bytes()).expect("written");
        let size = content.len() as u64;
        entries.push(entry(path, EntryKind::File { offset, size }));
        offset += size;
    }
    entries.extend(links.iter().map(|(path, target)| entry(path, EntryKind::Symlink { target: (*target).to_owned() })));
    entries.extend(folders.iter().map(|path| entry(path, EntryKind::Directory)));
    ContextTree::new(entries, spool)
}

fn run(
    context: &ContextTree,
    dockerfile: &str,
    target: Option<&str>,
    engine: &EngineDescription,
) -> Result<Scanned, String> {
    let scan_of = Scan { target, arguments: &[], platform: &Platform::LINUX_AMD64, engine };
    find(context, dockerfile).and_then(|found| scan(found, scan_of)).map_err(|ended| match ended {
        Ended::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    })
}

#[test]
fn dockerfiles_are_found_where_the_engine_would() {
    let context = tree(
        &[("Dockerfile", "FROM a"), ("sub/dir/File", "FROM b")],
        &[
            ("Link", "sub/dir/File"),
            ("far", "sub/dir"),
            ("sub/up", "../Dockerfile"),
            ("loop", "loop"),
            ("out", "../../etc/passwd"),
            ("abs", "/Dockerfile"),
        ],
    );
    let engine = engine("28.0", &[]);
    let check = |path: &str, expect: &str| {
        let scanned = run(&context, path, None, &engine).expect(path);
        assert_eq!(scanned.dependencies.and_then(|found| found.runtime).as_deref(), Some(expect), "{path}");
    };
    check("Dockerfile", "a");
    check("./sub//dir/../dir/File", "b");
    check("Link", "b");
    check("far/File", "b");
    check("sub/up", "a");
    check("abs", "a");
    assert_eq!(run(&context, "/sub/./dir/File", None, &engine).expect("found").path, "sub/dir/File");
    for path in ["Nope", "sub", "loop", "out", "../Dockerfile", "", "Dockerfile/x"] {
        let reason = run(&context, path, None, &engine).expect_err(path);
        assert_eq!(reason, format!("Dockerfile `{path}` is not in the context: name it with --file"));
    }
}

#[test]
fn what_the_engine_lacks_is_named() {
    let context = tree(&[("heredoc", "FROM a\nRUN <<E\ntrue\nE\n"), ("parents", "FROM a\nCOPY --parents b c\n")], &[]);
    let old = engine("20.10.24+dfsg1", &[EngineFeature::BuildKit]);
    assert_eq!(
        run(&context, "heredoc", None, &old).expect_err("refused"),
        "Dockerfile `heredoc`, line 2: heredocs need Docker Engine 23 or newer; this agent has Docker Engine 20.10.24+dfsg1"
    );
    assert!(run(&context, "parents", None, &old).is_err());
    let new = engine("29.1", &[EngineFeature::BuildKit, EngineFeature::Heredoc]);
    assert!(run(&context, "heredoc", None, &new).is_ok());
    assert!(run(&context, "parents", None, &new).is_ok());
}

#[test]
fn a_fault_has_its_file_and_its_line() {
    let engine = engine("20.10.24", &[]);
    let reason = |text: &str| run(&tree(&[("a/b", text)], &[]), "a/b", None, &engine).expect_err("a fault");
    assert!(reason("\nFORM x").starts_with("Dockerfile `a/b`, line 2: `FORM` comes before"), "{}", reason("\nFORM x"));
    assert!(reason("").starts_with("Dockerfile `a/b`: the Dockerfile has no FROM"), "{}", reason(""));
}

#[test]
fn a_file_of_another_frontend_is_left_to_it() {
    let context = tree(&[("other", "# syntax=r.io/front:1\nFROM a\nRUN <<E\ntrue\nE\n"), ("empty", "\n")], &[]);
    let old = engine("20.10", &[]);
    let scanned = run(&context, "other", Some("nope"), &old).expect("left alone");
    assert_eq!(scanned.dependencies, None);
    let reason = run(&context, "empty", None, &old).expect_err("refused");
    assert!(reason.starts_with("Dockerfile `empty`: the Dockerfile has no FROM"), "{reason}");
}
