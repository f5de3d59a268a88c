//! A source whose Dockerfile and named files come from another place of its repository: a fork's commit, the base's definition.

use super::*;
use cooper_spec::source::GitReference;

/// A repository whose `main` has a definition, and a fork's commit that has its own, kept as forges do.
fn with_fork(world: &World) -> (String, String) {
    let repository = world.repository("app.git");
    let base = repository.commit_files(&[
        ("svc/Dockerfile", "FROM base\n"),
        ("svc/.dockerignore", "secret\n"),
        ("svc/task.yaml", "ours\n"),
        ("svc/a.txt", "old\n"),
    ]);
    let fork = repository.commit_files(&[
        ("svc/Dockerfile", "FROM evil\n"),
        ("svc/Dockerfile.dockerignore", "*\n"),
        ("svc/task.yaml", "theirs\n"),
        ("svc/a.txt", "new\n"),
        ("svc/secret", "x\n"),
    ]);
    repository.git(["update-ref", "refs/pull/1/head", &fork]);
    repository.git(["reset", "-q", "--hard", &base]);
    (base, fork)
}

#[tokio::test]
async fn the_definition_comes_from_the_base_and_all_else_from_the_fork() {
    let world = World::new();
    let (base, fork) = with_fork(&world);
    let place = format!("app.git#{fork}:svc");
    let ask = async |dockerfile: Option<&str>, definition: &str| {
        let definition = GitReference::parse(definition).unwrap();
        let change = |request: &mut FetchRequest| {
            request.definition = Some(definition);
            request.dockerfile = dockerfile.map(str::to_owned);
            request.files = vec!["task.yaml".to_owned()];
        };
        world.fetch_with(&place, &NoCredentials, change).await
    };
    let done = ask(Some("Dockerfile"), "refs/heads/main").await.unwrap();
    assert_eq!((&done.snapshot.commit, done.snapshot.definition.as_ref()), (&fork, Some(&base)));
    assert_eq!(done.snapshot.files["task.yaml"], b"ours\n");
    let name = done.snapshot.dockerfile.clone().unwrap();
    assert!(name.starts_with(".cooper.") && done.tree[&name] == "644 FROM base\n", "{name}: {:?}", done.tree);
    assert!(done.tree[&format!("{name}.dockerignore")].starts_with("644 secret\n"), "{:?}", done.tree);
    assert_eq!((&*done.tree["a.txt"], &*done.tree["Dockerfile"]), ("644 new\n", "644 FROM evil\n"));
    assert!(!done.tree.contains_key("secret"), "the base's rules leave it out: {:?}", done.tree);
    let told = format!("refs/heads/main is commit {base}");
    assert!(done.events.contains(&told), "{:?}", done.events);

    // A file of the fork under the name that the base's Dockerfile gets is not it.
    let repository = GitRepository::new(world.root.path(), "again.git");
    repository.git(["fetch", "-q", &world.server.url("app.git"), "+refs/pull/*:refs/pull/*", "+main:main"]);
    repository.git(["reset", "-q", "--hard", &fork]);
    let trick = repository.commit_files(&[(&format!("svc/{name}"), "FROM evil\n")]);
    repository.git(["update-ref", "refs/heads/main", &base]);
    repository.git(["update-ref", "refs/pull/2/head", &trick]);
    let change = |request: &mut FetchRequest| {
        request.definition = Some(GitReference::parse("refs/heads/main").unwrap());
        request.dockerfile = Some("Dockerfile".to_owned());
    };
    let again = world.fetch_with(&format!("again.git#{trick}:svc"), &NoCredentials, change).await.unwrap();
    assert_eq!((again.snapshot.dockerfile.as_ref(), &*again.tree[&name]), (Some(&name), "644 FROM base\n"));

    // A task file alone; a commit in place of a branch.
    let done = ask(None, &base).await.unwrap();
    assert_eq!((done.snapshot.dockerfile, done.snapshot.definition), (None, Some(base.clone())));
    assert_eq!((&*done.snapshot.files["task.yaml"], &*done.tree["task.yaml"]), (&b"ours\n"[..], "644 theirs\n"));

    // What the base has not is nowhere, though the fork has it.
    let error = ask(Some("Dockerfile.dockerignore"), "refs/heads/main").await.unwrap_err().line();
    assert!(error.contains("Dockerfile.dockerignore"), "{error}");
    let error = ask(None, "refs/heads/gone").await.unwrap_err().line();
    assert!(error.contains("refs/heads/gone"), "{error}");
}
