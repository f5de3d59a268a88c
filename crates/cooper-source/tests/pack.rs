//! Folders that are packed, and folders that can't be; what went in is read back by unpacking.

#![expect(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_source::{PackError, PackOptions, PackProgress, PackReport, UnpackLimits, pack, unpack};
use proptest::prelude::*;
use tempfile::TempDir;

/// A folder from lines: `path=content`, `path/`, `path>target`.
fn folder(lines: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for line in lines {
        let at = line.find(['=', '>']);
        let path = dir.path().join(&line[..at.unwrap_or(line.len())]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match at.map(|at| (&line[at..=at], &line[at + 1..])) {
            Some(("=", content)) => fs::write(path, content).unwrap(),
            Some((_, target)) => symlink(target, path).unwrap(),
            None => fs::create_dir_all(path).unwrap(),
        }
    }
    dir
}

fn options(folder: &Path, dockerfile: Option<&Path>) -> PackOptions {
    PackOptions { folder: folder.to_owned(), dockerfile: dockerfile.map(Path::to_owned), whole: false }
}

fn packed(folder: &Path, dockerfile: Option<&Path>) -> (PackReport, ContextTree, Vec<u8>) {
    let mut bytes = Vec::new();
    let report = pack(&options(folder, dockerfile), &mut bytes, &mut |_| {}).unwrap();
    let spool = tempfile::tempfile().unwrap();
    let tree = unpack(bytes.as_slice(), spool, &UnpackLimits::default(), &AtomicBool::new(false)).unwrap();
    (report, tree, bytes)
}

fn paths(tree: &ContextTree) -> Vec<&str> {
    tree.entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn content(tree: &ContextTree, path: &str) -> String {
    let entry = tree.get(path).unwrap_or_else(|| panic!("{path} is not in {:?}", paths(tree)));
    let EntryKind::File { offset, size } = entry.kind else { panic!("{path} is no file") };
    let mut bytes = vec![0; size as usize];
    tree.contents().read_exact_at(&mut bytes, offset).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn packs_by_the_rules() {
    type Row = (&'static str, &'static [&'static str], &'static [&'static str]);
    let table: &[Row] = &[
        (
            "everything",
            &["Dockerfile=", ".git/HEAD=x", "a/b=1", "e/"],
            &[".git", ".git/HEAD", "Dockerfile", "a", "a/b", "e"],
        ),
        (
            "ignored folders and files",
            &["Dockerfile=", ".dockerignore=target\n*.log\n", "target/x=", "a.log=", "b/a.log="],
            &[".dockerignore", "Dockerfile", "b", "b/a.log"],
        ),
        (
            "an exception brings its folders back, and nothing beside it",
            &["Dockerfile=", ".dockerignore=a\n!a/b/c\n", "a/b/c=", "a/b/d=", "a/e/f=", "a/g="],
            &[".dockerignore", "Dockerfile", "a", "a/b", "a/b/c"],
        ),
        (
            "a wild exception",
            &["Dockerfile=", ".dockerignore=**\n!**/*.go\n", "a/b/x.go=", "a/c/y=", "z.go="],
            &[".dockerignore", "Dockerfile", "a", "a/b", "a/b/x.go", "z.go"],
        ),
        (
            "Dockerfile and ignore file are sent though they are ignored",
            &["Dockerfile=", ".dockerignore=**\n", "a="],
            &[".dockerignore", "Dockerfile"],
        ),
        (
            "the Dockerfile's own ignore file comes first",
            &["Dockerfile=", "Dockerfile.dockerignore=b\n", ".dockerignore=a\n", "a=", "b="],
            &[".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a"],
        ),
        (
            "links are kept",
            &["Dockerfile=", "l>../..", "m>/etc/passwd", "d>a", "a/x="],
            &["Dockerfile", "a", "a/x", "d", "l", "m"],
        ),
        (
            "an ignore file that is a folder is none",
            &["Dockerfile=", ".dockerignore/x=", "a="],
            &[".dockerignore", ".dockerignore/x", "Dockerfile", "a"],
        ),
    ];
    for (name, lines, expected) in table {
        let folder = folder(lines);
        let (report, tree, _) = packed(folder.path(), None);
        assert_eq!(&paths(&tree), expected, "{name}");
        assert_eq!(report.dockerfile_name, "Dockerfile", "{name}");
    }
}

#[test]
fn a_workspace_has_the_dockerfile_that_a_step_may_build() {
    let whole = |lines: &[&str]| {
        let folder = folder(lines);
        let mut bytes = Vec::new();
        let options = PackOptions { whole: true, ..options(folder.path(), None) };
        pack(&options, &mut bytes, &mut |_| {}).unwrap();
        let spool = tempfile::tempfile().unwrap();
        let tree = unpack(bytes.as_slice(), spool, &UnpackLimits::default(), &AtomicBool::new(false)).unwrap();
        paths(&tree).iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()
    };
    let ignored = ["Dockerfile=", ".dockerignore=*\n!a\n", "a=", "b="];
    assert_eq!(whole(&ignored), [".dockerignore", "Dockerfile", "a"]);
    assert_eq!(whole(&["a="]), ["a"], "none is asked for");
}

#[test]
fn a_dockerfile_in_the_folder_keeps_its_name() {
    let folder = folder(&["Dockerfile=no", "build/web.Dockerfile=yes", "build/web.Dockerfile.dockerignore=*", "a="]);
    let expected = ["build", "build/web.Dockerfile", "build/web.Dockerfile.dockerignore"];
    for given in [folder.path().join("build/web.Dockerfile"), PathBuf::from("build/web.Dockerfile")] {
        let (report, tree, _) = packed(folder.path(), Some(&given));
        assert_eq!(report.dockerfile_name, "build/web.Dockerfile");
        assert!(report.ignore_file.unwrap().ends_with("build/web.Dockerfile.dockerignore"));
        assert_eq!(paths(&tree), expected);
    }
}

#[test]
fn a_dockerfile_elsewhere_is_added_and_hidden() {
    let other = folder(&["x.Dockerfile=FROM scratch", "x.Dockerfile.dockerignore=secret"]);
    let folder = folder(&["a=", "secret=", ".dockerignore=a", "l>Dockerfile.real", "Dockerfile.real=FROM linked"]);
    let (report, tree, bytes) = packed(folder.path(), Some(&other.path().join("x.Dockerfile")));
    let name = report.dockerfile_name;
    assert!(name.starts_with(".cooper.") && name.ends_with(".Dockerfile"), "{name}");
    assert_eq!(content(&tree, &name), "FROM scratch");
    let rules = content(&tree, &format!("{name}.dockerignore"));
    assert_eq!(rules, format!("secret\n/{name}\n/{name}.dockerignore\n"));
    let hidden = cooper_spec::ignore::IgnoreRules::parse("x", &rules).unwrap();
    assert!(hidden.is_ignored(&name) && hidden.is_ignored(&format!("{name}.dockerignore")));
    assert!(tree.get("secret").is_none() && tree.get("a").is_some());

    // The same again is the same archive, though a file of the reserved name is in the way.
    fs::write(folder.path().join(&name), "in the way").unwrap();
    let (_, _, again) = packed(folder.path(), Some(&other.path().join("x.Dockerfile")));
    assert_eq!(bytes, again);

    // A link is followed here, where it means something, and not on the agent.
    let (report, tree, _) = packed(folder.path(), Some(&folder.path().join("l")));
    assert_eq!(content(&tree, &report.dockerfile_name), "FROM linked");
}

#[test]
fn ownership_is_normalised_and_modes_times_and_names_are_kept() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let folder = folder(&["Dockerfile=", &format!("{long}=x"), &format!("l>{}", "t".repeat(300)), "naïve\n☺\\=1"]);
    fs::set_permissions(folder.path().join("Dockerfile"), Permissions::from_mode(0o4751)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
    fs::File::open(folder.path().join("Dockerfile")).unwrap().set_modified(time).unwrap();
    fs::hard_link(folder.path().join("Dockerfile"), folder.path().join("hard")).unwrap();
    let (report, tree, bytes) = packed(folder.path(), None);
    assert_eq!((report.files, report.bytes), (4, 2));
    let entry = tree.get("Dockerfile").unwrap();
    assert_eq!((entry.mode, entry.mtime_ns / 1_000_000_000), (0o4751, 1_700_000_000));
    assert!(matches!(tree.get("hard").unwrap().kind, EntryKind::File { .. }));
    assert_eq!(content(&tree, &long), "x");
    assert_eq!(content(&tree, "naïve\n☺\\"), "1");
    assert_eq!(tree.get("l").unwrap().kind, EntryKind::Symlink { target: "t".repeat(300) });
    // A second reader, so that our writer and our reader can't be wrong together.
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let mut seen = 0;
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        assert_eq!((header.username().unwrap(), header.groupname().unwrap()), (Some(""), Some("")));
        assert!(tree.get(entry.path().unwrap().to_str().unwrap().trim_end_matches('/')).is_some());
        seen += 1;
    }
    assert_eq!(seen, tree.entries().len());
}

#[test]
fn sockets_are_left_out_and_said() {
    let folder = folder(&["Dockerfile=", "run/"]);
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("run/s.sock")).unwrap();
    let (report, tree, _) = packed(folder.path(), None);
    assert_eq!(report.skipped, ["run/s.sock"]);
    assert_eq!(paths(&tree), ["Dockerfile", "run"]);
}

fn error_of(folder: &Path, dockerfile: Option<&Path>) -> PackError {
    pack(&options(folder, dockerfile), std::io::sink(), &mut |_| {}).expect_err("must not pack")
}

#[test]
fn errors_name_the_path_and_the_way_out() {
    let dir = folder(&["Dockerfile=", "sub/x=", "bad/Dockerfile=", "bad/.dockerignore=ok\n[", "dir/Dockerfile/"]);
    let root = dir.path();
    let shown = root.display();
    let message = |folder: &str, dockerfile: Option<&str>| {
        error_of(&root.join(folder), dockerfile.map(|name| root.join(name)).as_deref()).to_string()
    };
    assert_eq!(message("missing", None), format!("folder `{shown}/missing` does not exist"));
    assert!(
        message("Dockerfile", None).ends_with("/Dockerfile` is not a folder; give the folder that holds the sources")
    );
    let none = format!("no Dockerfile: looked for `{shown}/sub/Dockerfile`; name one with --file");
    assert_eq!(message("sub", None), none);
    let relative = error_of(&root.join("sub"), Some(Path::new("x.Dockerfile"))).to_string();
    assert!(relative.contains(&format!("looked for `x.Dockerfile` and `{shown}/sub/x.Dockerfile`")), "{relative}");
    assert!(message("sub", Some("sub/x/y")).starts_with("no Dockerfile"));
    assert!(message("dir", None).contains("dir/Dockerfile` is a directory; name the file in it with --file"));
    let bad = message("bad", None);
    assert!(bad.contains("bad/.dockerignore:2: ignore pattern `[` is not valid"), "{bad}");
    fs::write(root.join("sub/Dockerfile"), "").unwrap();
    fs::write(root.join("sub/.dockerignore"), b"\xff").unwrap();
    assert!(message("sub", None).ends_with("/sub/.dockerignore` is not UTF-8 text"));
    // Address 0 of a process can't be read, not even by root.
    let unreadable = error_of(root, Some(Path::new("/proc/self/mem"))).to_string();
    assert_eq!(unreadable, "can't read `/proc/self/mem`; fix its permissions");
}

#[test]
fn what_no_context_can_hold_is_an_error_unless_it_is_ignored() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = folder(&["Dockerfile=", "p/"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("p/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let expected = "`p/pipe` is a named pipe; remove it, or leave it out with a line in .dockerignore";
    assert_eq!(error_of(dir.path(), None).to_string(), expected);
    fs::write(dir.path().join(".dockerignore"), "p\nx*").unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"x\xff")), "").unwrap();
    assert_eq!(paths(&packed(dir.path(), None).1), [".dockerignore", "Dockerfile"]);
    fs::write(dir.path().join(".dockerignore"), "p").unwrap();
    assert!(error_of(dir.path(), None).to_string().starts_with("the name of `x\u{fffd}` is not UTF-8; rename it"));
}

#[test]
fn a_file_that_grows_or_shrinks_is_named() {
    // The kernel's own files say size 0 and have content: what a file that grows looks like.
    let dir = folder(&["Dockerfile=", "a=first"]);
    let proc = PathBuf::from("/proc/self/fdinfo");
    let error = error_of(&proc, Some(&dir.path().join("Dockerfile"))).to_string();
    assert!(error.ends_with("changed its size while it was read; build again when nothing writes to it"), "{error}");

    // Shrinks: the first file's progress call cuts the second one short while it is being read.
    fs::write(dir.path().join("b"), vec![7; 3 << 20]).unwrap();
    let mut cut = |progress: PackProgress| {
        if progress.bytes > 5 + 100_000 {
            fs::File::options().write(true).open(dir.path().join("b")).unwrap().set_len(1 << 20).unwrap();
        }
    };
    let error = pack(&options(dir.path(), None), std::io::sink(), &mut cut).expect_err("b shrinks");
    assert!(matches!(&error, PackError::Changed { path } if path == "b"), "{error}");
}

#[test]
fn progress_ends_at_the_whole() {
    let dir = folder(&["Dockerfile=12345", "a/b=123"]);
    let mut last = PackProgress::default();
    pack(&options(dir.path(), None), std::io::sink(), &mut |progress| {
        assert!(progress.files >= last.files && progress.bytes >= last.bytes);
        last = progress;
    })
    .unwrap();
    assert_eq!(last, PackProgress { files: 2, bytes: 8 });
}

/// What a random tree is made of.
#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>, u32),
    Link(String),
    Folder,
}

fn trees() -> impl Strategy<Value = BTreeMap<String, Thing>> {
    let name = "[a-c.é -]{1,3}".prop_filter("no dots alone", |name| name != "." && name != "..");
    let path = proptest::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let thing = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..2000), 0_u32..0o1000)
            .prop_map(|(content, mode)| Thing::File(content, mode | 0o400)),
        "[a-z./]{1,200}".prop_map(Thing::Link),
        Just(Thing::Folder),
    ];
    proptest::collection::btree_map(path, thing, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_packed_is_unpacked(things in trees()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), "").unwrap();
        let mut made = BTreeMap::new();
        for (path, thing) in &things {
            let place = dir.path().join(path);
            // Where another thing is in the way already, this one is left out; above all, nothing is made through a link.
            let above = path.match_indices('/').map(|(at, _)| dir.path().join(&path[..at]));
            let blocked = above.into_iter().any(|above| fs::symlink_metadata(above).is_ok_and(|found| !found.is_dir()));
            if blocked || fs::symlink_metadata(&place).is_ok() {
                continue;
            }
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            match thing {
                Thing::File(content, mode) => {
                    fs::write(&place, content).unwrap();
                    fs::set_permissions(&place, Permissions::from_mode(*mode)).unwrap();
                }
                Thing::Link(target) => symlink(target, &place).unwrap(),
                Thing::Folder => fs::create_dir_all(&place).unwrap(),
            }
            made.insert(path.clone(), thing.clone());
        }
        let (_, tree, bytes) = packed(dir.path(), None);
        for (path, thing) in made {
            let entry = tree.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
            match (thing, &entry.kind) {
                (Thing::File(content, mode), EntryKind::File { offset, size }) => {
                    let mut found = vec![0; *size as usize];
                    tree.contents().read_exact_at(&mut found, *offset).unwrap();
                    prop_assert_eq!(found, content);
                    prop_assert_eq!(entry.mode, mode);
                }
                (Thing::Link(target), EntryKind::Symlink { target: found }) => prop_assert_eq!(&target, found),
                (Thing::Folder, EntryKind::Directory) => {}
                (thing, found) => prop_assert!(false, "{} is {:?}, not {:?}", path, found, thing),
            }
        }
        prop_assert_eq!(bytes, packed(dir.path(), None).2);
    }
}

#[test]
fn a_folder_of_any_depth_is_packed() {
    const DEPTH: usize = 1500;
    let dir = folder(&["Dockerfile=FROM scratch"]);
    let deep = dir.path().join(vec!["d"; DEPTH].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "x").unwrap();
    // A thread of a runtime's pool has no more.
    let packing = std::thread::Builder::new().stack_size(256 << 10).spawn(move || {
        let (report, tree, _) = packed(dir.path(), None);
        (report.files, tree.entries().len())
    });
    assert_eq!(packing.unwrap().join().unwrap(), (2, DEPTH + 2));
}
