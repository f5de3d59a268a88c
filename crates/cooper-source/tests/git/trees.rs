//! What a commit's tree becomes in the archive.

use super::*;

#[tokio::test]
async fn files_links_and_modes_come_as_they_are_committed() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.write("Dockerfile", "FROM scratch\n");
    repository.write("bin/run", "#!\n");
    repository.write(".gitattributes", "* text eol=crlf export-ignore filter=evil\n");
    repository.write("deep/er/file", "x\n");
    std::os::unix::fs::symlink("../../etc/passwd", repository.work().join("deep/link")).unwrap();
    repository.git(["add", "-A"]);
    repository.git(["update-index", "--chmod=+x", "bin/run"]);
    repository.commit_index("all");
    let done = world.fetch("app.git").await.unwrap();
    let expected = [
        (".gitattributes", "644 * text eol=crlf export-ignore filter=evil\n"),
        ("Dockerfile", "644 FROM scratch\n"),
        ("bin", "/"),
        ("bin/run", "755 #!\n"),
        ("deep", "/"),
        ("deep/er", "/"),
        ("deep/er/file", "644 x\n"),
        ("deep/link", "> ../../etc/passwd"),
    ];
    assert_eq!(done.tree, expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into());
    // Another fetch of the same commit is the same archive, to the byte.
    assert_eq!(world.fetch("app.git#main").await.unwrap().bytes, done.bytes);
    // A commit that changes nothing is another commit with the same archive.
    repository.commit_index("again");
    let again = world.fetch("app.git").await.unwrap();
    assert_ne!(again.snapshot.commit, done.snapshot.commit);
    assert_eq!(again.snapshot.digest, done.snapshot.digest);
}

#[tokio::test]
async fn a_subdirectory_is_the_whole_context() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.commit_files(&[
        ("web/app/Dockerfile", "FROM scratch\n"),
        ("web/app/x", "1"),
        ("web/y", "2"),
        ("z", "3"),
    ]);
    std::os::unix::fs::symlink("web/app", repository.work().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", repository.work().join("out")).unwrap();
    std::os::unix::fs::symlink("../../..", repository.work().join("web/up")).unwrap();
    std::os::unix::fs::symlink("loop", repository.work().join("loop")).unwrap();
    let commit = repository.commit("links");
    for place in ["app.git#:web/app", "app.git#main:/web/./app/", "app.git#:link"] {
        let done = world.fetch(place).await.unwrap();
        assert_eq!(done.tree.keys().collect::<Vec<_>>(), ["Dockerfile", "x"], "{place}");
    }
    for path in ["none", "web/none", "out", "web/up", "loop", "z/a"] {
        let line = world.fails(&format!("app.git#:{path}")).await;
        assert_eq!(line, format!("subdirectory `{path}` does not exist in commit {commit}"));
    }
    assert!(world.fails("app.git#:z").await.starts_with("subdirectory `z` is a file in commit"));
}

#[tokio::test]
async fn ignore_rules_apply_to_builds_as_they_do_to_folders() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.commit_files(&[
        ("Dockerfile", "FROM scratch\n"),
        (".dockerignore", "Dockerfile\n*.log\nlogs\n!logs/keep/this\n"),
        ("other/Dockerfile", "FROM scratch\n"),
        ("other/Dockerfile.dockerignore", "*\n!only\n"),
        ("a.log", ""),
        ("only", "1"),
        ("logs/a", ""),
        ("logs/keep/this", ""),
        ("logs/keep/that", ""),
    ]);
    let keys = |done: &Done| done.tree.keys().cloned().collect::<Vec<_>>();
    let built = |name: &'static str| {
        let world = &world;
        async move {
            world.fetch_with("app.git", &NoCredentials, |request| request.dockerfile = Some(name.to_owned())).await
        }
    };
    let done = built("Dockerfile").await.unwrap();
    let expected = [
        ".dockerignore",
        "Dockerfile",
        "logs",
        "logs/keep",
        "logs/keep/this",
        "only",
        "other",
        "other/Dockerfile",
        "other/Dockerfile.dockerignore",
    ];
    assert_eq!(keys(&done), expected);
    assert_eq!(done.snapshot.dockerfile.as_deref(), Some("Dockerfile"));
    let done = built("./other/Dockerfile").await.unwrap();
    assert_eq!(keys(&done), [".dockerignore", "only", "other", "other/Dockerfile", "other/Dockerfile.dockerignore"]);
    assert_eq!(done.snapshot.dockerfile.as_deref(), Some("other/Dockerfile"));
    // Without a Dockerfile nothing is left out.
    assert_eq!(world.fetch("app.git").await.unwrap().tree.len(), 12);
    for missing in ["none", "logs"] {
        let Err(error) = built(missing).await else { panic!("{missing}") };
        assert!(error.line().starts_with(&format!("no Dockerfile: `{missing}` does not exist")), "{}", error.line());
    }
}

#[tokio::test]
async fn what_a_folder_packs_a_repository_packs() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.commit_files(&[
        ("real/Dockerfile.base", "FROM scratch\n"),
        (".dockerignore", "**/*.tmp\n"),
        ("x.tmp", ""),
        ("dir/x", "1"),
    ]);
    std::os::unix::fs::symlink("real/Dockerfile.base", repository.work().join("Dockerfile")).unwrap();
    repository.commit("link");
    let done = world
        .fetch_with("app.git", &NoCredentials, |request| request.dockerfile = Some("Dockerfile".to_owned()))
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let options = cooper_source::PackOptions { folder: repository.work().to_owned(), dockerfile: None, whole: false };
    let report = cooper_source::pack(&options, &mut bytes, &mut |_| {}).unwrap();
    let spool = tempfile::tempfile().unwrap();
    let packed = unpack(bytes.as_slice(), spool, &UnpackLimits::default(), &AtomicBool::new(false)).unwrap();
    assert_eq!(shown(&packed), done.tree);
    assert_eq!(Some(report.dockerfile_name), done.snapshot.dockerfile);
}

#[tokio::test]
async fn named_files_are_read_without_unpacking() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.commit_files(&[("sub/acr-task.yaml", "steps: []\n"), ("sub/big", &"x".repeat(2_000))]);
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let world = &world;
        async move {
            world
                .fetch_with("app.git#:sub", &NoCredentials, |request| {
                    request.files = names;
                    request.limits.named_file_len = 1_000;
                })
                .await
        }
    };
    let done = named(&["acr-task.yaml", "values.yaml", "../outside"]).await.unwrap();
    assert_eq!(done.snapshot.files, BTreeMap::from([("acr-task.yaml".to_owned(), b"steps: []\n".to_vec())]));
    let further = |request: &mut FetchRequest| {
        request.files = vec!["acr-task.yaml".to_owned()];
        request.further = FurtherFiles::named_by(|found, files| {
            assert_eq!((found.branch.as_deref(), found.commit.as_ref().map(String::len)), (Some("main"), Some(40)));
            assert_eq!(files.keys().collect::<Vec<_>>(), ["acr-task.yaml"]);
            ["./more.yaml", "../outside", "missing"].map(str::to_owned).to_vec()
        });
    };
    repository.commit_files(&[("sub/more.yaml", "a: b\n")]);
    let done = world.fetch_with("app.git#:sub", &NoCredentials, further).await.unwrap();
    assert_eq!(done.snapshot.files.get("./more.yaml").map(Vec::as_slice), Some(&b"a: b\n"[..]));
    assert_eq!(done.snapshot.files.len(), 2);
    let Err(error) = named(&["big"]).await else { panic!("too large") };
    assert_eq!(error.line(), "`big` is larger than 1000 bytes");
}

#[tokio::test]
async fn what_no_context_can_hold_is_named() {
    let world = World::new();
    let repository = world.repository("lfs.git");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    repository.commit_files(&[("models/big.bin", pointer), ("Dockerfile", "FROM scratch\n")]);
    assert!(world.fails("lfs.git").await.starts_with("`models/big.bin` is a Git LFS pointer"));
    repository.commit_files(&[(".dockerignore", "models\n")]);
    let built = |request: &mut FetchRequest| request.dockerfile = Some("Dockerfile".to_owned());
    assert!(world.fetch_with("lfs.git", &NoCredentials, built).await.is_ok());

    let repository = world.repository("names.git");
    let raw = std::ffi::OsStr::new;
    std::fs::write(repository.work().join(raw("ok")), "").unwrap();
    let bad = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9");
    std::fs::write(repository.work().join(bad), "").unwrap();
    repository.commit("latin-1");
    let line = world.fails("names.git").await;
    assert_eq!(line, "the name of `caf\u{fffd}` is not UTF-8; rename it, or ignore it in .dockerignore");
}

#[tokio::test]
async fn names_that_git_itself_never_commits_are_refused() {
    let world = World::new();
    let repository = world.repository("evil.git");
    repository.commit_files(&[("x", "1")]);
    let blob = repository.git(["rev-parse", "HEAD:x"]);
    for name in ["..", ".", ".git", ".GIT", "a/b"] {
        // `mktree` refuses such names: the object is written as it is.
        let mut tree = format!("100644 {name}\0").into_bytes();
        tree.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap()));
        std::fs::write(repository.work().join("tree.bin"), &tree).unwrap();
        let id = repository.git(["hash-object", "-t", "tree", "-w", "--literally", "tree.bin"]);
        let commit = repository.git(["commit-tree", &id, "-m", "evil"]);
        repository.git(["update-ref", "refs/heads/evil", &commit]);
        let line = world.fails("evil.git#evil").await;
        assert!(line.ends_with("is one that no repository may hold"), "{name}: {line}");
    }
}

#[tokio::test]
async fn every_limit_is_named() {
    let world = World::new();
    let repository = world.repository("app.git");
    // The root has 114 bytes, each one below some 28: siblings don't add up, and what is inside each other does.
    let (a, b) = ("a".repeat(5_000), "b".repeat(5_000));
    repository.commit_files(&[("a", &a), ("b", &b), ("c/c/c/c", ""), ("d/d/d/d", "")]);
    type Change = fn(&mut FetchLimits);
    let table: &[(Change, &str)] = &[
        (|limits| limits.entries = 2, "the source has more than 2 entries"),
        (|limits| limits.file_len = 4_999, "`a` is larger than 4999 bytes"),
        (|limits| limits.bytes = 9_999, "the source has more than 9999 bytes"),
        (|limits| limits.directories = 198, "the source has more than 198 bytes in directories inside each other"),
        (|limits| limits.received = 300, "the source has more than 300 bytes to receive"),
        (|limits| limits.time = std::time::Duration::ZERO, "fetching the source took longer than 0 seconds"),
    ];
    for (change, expected) in table {
        let result = world.fetch_with("app.git", &NoCredentials, |request| change(&mut request.limits)).await;
        let Err(error) = result else { panic!("{expected}") };
        assert_eq!(error.line(), *expected);
        assert!(!error.is_transient(), "{expected}");
    }
    let fits = |request: &mut FetchRequest| request.limits.directories = 199;
    assert!(world.fetch_with("app.git", &NoCredentials, fits).await.is_ok());
}
