//! Repositories inside repositories.

use super::*;

/// `app.git` with a submodule at `path`, whose repository is written as `url`.
fn parent(world: &World, name: &str, path: &str, url: &str, commit: &str) -> GitRepository {
    let (repository, _) = world.simple(name);
    repository.add_submodule(path, url, commit);
    repository
}

#[tokio::test]
async fn submodules_are_taken_at_their_pinned_commits() {
    let world = World::new();
    let (inner, deepest) = world.simple("inner.git");
    let (lib, _) = world.simple("lib.git");
    let pinned = lib.add_submodule("in/ner", "../inner.git", &deepest);
    inner.commit_files(&[("later", "")]);
    lib.commit_files(&[("later", "")]);
    parent(&world, "app.git", "third/lib", &world.server.url("lib.git"), &pinned);
    let done = world.fetch("app.git").await.unwrap();
    let keys: Vec<_> = done.tree.keys().map(String::as_str).filter(|path| path.starts_with("third")).collect();
    let expected = [
        "third",
        "third/lib",
        "third/lib/.gitmodules",
        "third/lib/Dockerfile",
        "third/lib/in",
        "third/lib/in/ner",
        "third/lib/in/ner/Dockerfile",
        "third/lib/in/ner/src",
        "third/lib/in/ner/src/a.txt",
        "third/lib/src",
        "third/lib/src/a.txt",
    ];
    assert_eq!(keys, expected);
    let url = world.server.url("inner.git");
    assert!(done.events.contains(&format!("Submodule third/lib/in/ner from {url}")), "{:?}", done.events);
    // A subdirectory may lie inside one.
    let done = world.fetch("app.git#:third/lib/in/ner/src").await.unwrap();
    assert_eq!(done.tree.keys().collect::<Vec<_>>(), ["a.txt"]);
    // What no archive takes is not fetched.
    let done = world.fetch("app.git#:src").await.unwrap();
    assert!(!done.events.iter().any(|line| line.starts_with("Submodule")), "{:?}", done.events);
}

#[tokio::test]
async fn ignored_and_switched_off_submodules_stay_where_they_are() {
    let world = World::new();
    let app = parent(&world, "app.git", "lib", "https://nowhere.invalid/lib.git", &"1".repeat(40));
    app.write(".dockerignore", "lib\n");
    app.git(["add", ".dockerignore"]);
    app.commit_index("ignore");
    let built = |request: &mut FetchRequest| request.dockerfile = Some("Dockerfile".to_owned());
    let done = world.fetch_with("app.git", &NoCredentials, built).await.unwrap();
    assert!(!done.tree.contains_key("lib"));
    app.git(["config", "-f", ".gitmodules", "submodule.lib.update", "none"]);
    app.git(["add", ".gitmodules"]);
    app.commit_index("none");
    assert_eq!(world.fetch("app.git").await.unwrap().tree["lib"], "/");
}

#[tokio::test]
async fn submodules_that_cannot_be_fetched_are_named() {
    let world = World::new();
    let (_, lib) = world.simple("lib.git");
    let nowhere = "1".repeat(40);
    let table = [
        ("file:///etc", &lib, "submodule `lib` has a URL that can't be used: source URL `file:///etc` is not valid"),
        ("/srv/lib.git", &lib, "submodule `lib` has a URL that can't be used: source URL"),
        ("git@example.org:o/lib.git", &lib, "write https://example.org/o/lib.git"),
        ("http://u:hunter2@127.0.0.1/lib.git", &lib, "holds credentials"),
        ("http://169.254.169.254/lib.git", &lib, "can't fetch submodule `lib`: host `169.254.169.254` has the address"),
        ("../none.git", &lib, "can't fetch submodule `lib`: repository `"),
        (
            "../lib.git",
            &nowhere,
            "can't fetch submodule `lib`: commit `1111111111111111111111111111111111111111` was not",
        ),
    ];
    for (index, (url, commit, expected)) in table.into_iter().enumerate() {
        let name = format!("app{index}.git");
        parent(&world, &name, "lib", url, commit);
        let line = world.fails(&name).await;
        assert!(line.contains(expected), "{url}: {line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let app = world.repository("app.git");
    app.commit_files(&[("x", "")]);
    app.git(["update-index", "--add", "--cacheinfo", &format!("160000,{nowhere},bare")]);
    app.commit_index("no .gitmodules");
    assert_eq!(world.fails("app.git").await, "submodule `bare` has no URL in .gitmodules");
}

#[tokio::test]
async fn submodules_have_limits_of_number_and_depth() {
    let world = World::new();
    let (_, mut below) = world.simple("m0.git");
    for level in 1..4 {
        let (repository, _) = world.simple(&format!("m{level}.git"));
        below = repository.add_submodule("m", &format!("../m{}.git", level - 1), &below);
    }
    let limited = |change: fn(&mut FetchLimits)| {
        let world = &world;
        async move { world.fetch_with("m3.git", &NoCredentials, |request| change(&mut request.limits)).await }
    };
    assert!(limited(|limits| limits.submodule_depth = 3).await.is_ok());
    let Err(error) = limited(|limits| limits.submodule_depth = 2).await else { panic!("too deep") };
    assert_eq!(error.line(), "the source has more than 2 submodules inside each other");
    let Err(error) = limited(|limits| limits.submodules = 2).await else { panic!("too many") };
    assert_eq!(error.line(), "the source has more than 2 submodules");
}
