//! Branches, tags, commits, pull requests, defaults, over both protocols.

use super::*;
use cooper_e2e::GitBehaviour as Behaviour;

/// A repository with history: main (two commits), a branch, tags, a pull request. Gives the commits by name.
fn history(world: &World, name: &str) -> BTreeMap<&'static str, String> {
    let repository = world.repository(name);
    let mut commits = BTreeMap::new();
    commits.insert("first", repository.commit_files(&[("Dockerfile", "FROM scratch\n"), ("f", "1")]));
    repository.git(["tag", "light"]);
    repository.git(["tag", "-a", "v1", "-m", "one"]);
    repository.git(["tag", "-a", "v1-again", "v1", "-m", "a tag of a tag"]);
    repository.git(["checkout", "-q", "-b", "feature/x"]);
    commits.insert("feature", repository.commit_files(&[("f", "x")]));
    repository.git(["checkout", "-q", "-b", "pull"]);
    commits.insert("pull", repository.commit_files(&[("f", "p")]));
    repository.git(["update-ref", "refs/pull/12/head", "HEAD"]);
    repository.git(["update-ref", "refs/merge-requests/3/head", "HEAD"]);
    repository.git(["checkout", "-q", "main"]);
    repository.git(["branch", "-q", "-D", "pull"]);
    commits.insert("main", repository.commit_files(&[("f", "2")]));
    repository.git(["tag", "blob", "main:f"]);
    repository.git(["tag", "main", "light"]);
    commits
}

#[tokio::test]
async fn everything_that_names_a_commit() {
    let world = World::new();
    let commits = history(&world, "app.git");
    history(&world, "old.git");
    world.server.behave("old.git", &[Behaviour::OldProtocol]);
    let (first, short) = (commits["first"].clone(), commits["first"][..10].to_owned());
    let table = [
        ("", "main", Some("main"), Some("refs/heads/main")),
        ("#HEAD", "main", Some("main"), Some("refs/heads/main")),
        ("#main", "main", Some("main"), Some("refs/heads/main")),
        ("#refs/heads/main", "main", Some("main"), Some("refs/heads/main")),
        ("#tags/main", "first", None, Some("refs/tags/main")),
        ("#feature/x", "feature", Some("feature/x"), Some("refs/heads/feature/x")),
        ("#light", "first", None, Some("refs/tags/light")),
        ("#v1", "first", None, Some("refs/tags/v1")),
        ("#v1-again", "first", None, Some("refs/tags/v1-again")),
        ("#pull/12/head", "pull", None, Some("refs/pull/12/head")),
        ("#refs/merge-requests/3/head", "pull", None, Some("refs/merge-requests/3/head")),
        (&format!("#{first}"), "first", None, None),
        (&format!("#{short}"), "first", None, None),
    ];
    for repository in ["app.git", "old.git"] {
        for (fragment, commit, branch, reference) in table {
            let place = format!("{repository}{fragment}");
            let done = world.fetch(&place).await.unwrap_or_else(|error| panic!("{place}: {}", error.line()));
            assert_eq!(done.snapshot.commit, commits[commit], "{place}");
            assert_eq!(done.snapshot.branch.as_deref(), branch, "{place}");
            assert_eq!(done.snapshot.reference.as_deref(), reference, "{place}");
            let content = BTreeMap::from([("first", "1"), ("feature", "x"), ("pull", "p"), ("main", "2")])[commit];
            assert_eq!(done.tree["f"], format!("644 {content}"), "{place}");
        }
    }
}

#[tokio::test]
async fn one_commit_comes_alone_where_the_server_can() {
    let world = World::new();
    let commits = history(&world, "app.git");
    history(&world, "refusing.git");
    history(&world, "tips.git");
    world.server.behave("refusing.git", &[Behaviour::RefuseShallow]);
    world.server.behave("tips.git", &[Behaviour::OldProtocol]);
    let whole = |done: &Done| done.events.iter().any(|line| line.contains("whole history"));
    let commit = format!("#{}", commits["first"]);
    assert!(!whole(&world.fetch("app.git").await.unwrap()));
    assert!(!whole(&world.fetch(&format!("app.git{commit}")).await.unwrap()));
    assert!(!whole(&world.fetch("tips.git#v1").await.unwrap()));
    // The old protocol gives away what is advertised, and this commit is where a tag is.
    assert!(!whole(&world.fetch(&format!("tips.git#{}", commits["main"])).await.unwrap()));
    let refused = world.fetch("refusing.git").await.unwrap();
    assert!(whole(&refused));
    assert_eq!(refused.snapshot.commit, commits["main"]);
    let refused = world.fetch(&format!("refusing.git{commit}")).await.unwrap();
    assert!(whole(&refused));
    assert_eq!(refused.snapshot.commit, commits["first"]);
}

#[tokio::test]
async fn commits_that_are_no_reference_of_an_old_server_are_found_in_its_history() {
    let world = World::new();
    let (repository, first) = world.simple("app.git");
    repository.commit_files(&[("more", "2")]);
    world.server.behave("app.git", &[Behaviour::OldProtocol]);
    let done = world.fetch(&format!("app.git#{first}")).await.unwrap();
    assert!(done.events.iter().any(|line| line.contains("whole history")), "{:?}", done.events);
    assert_eq!(done.snapshot.commit, first);
    repository.git(["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    let done = world.fetch(&format!("app.git#{first}")).await.unwrap();
    assert!(!done.events.iter().any(|line| line.contains("whole history")), "{:?}", done.events);
}

#[tokio::test]
async fn the_beginning_of_a_commit_is_looked_up_without_everybodys_files() {
    let world = World::new();
    let (repository, first) = world.simple("app.git");
    repository.commit_files(&[("more", "2")]);
    repository.git(["config", "uploadpack.allowFilter", "true"]);
    let done = world.fetch(&format!("app.git#{}", &first[..7])).await.unwrap();
    assert_eq!(done.snapshot.commit, first);
    assert!(!done.events.iter().any(|line| line.contains("whole history")), "{:?}", done.events);
    assert!(world.server.seen().iter().any(|seen| seen.body.contains("filter tree:0")));
    assert!(world.fails("app.git#1234567").await.starts_with("commit `1234567` was not found in"));
}

#[tokio::test]
async fn names_that_lead_nowhere() {
    let world = World::new();
    history(&world, "app.git");
    history(&world, "old.git");
    world.server.behave("old.git", &[Behaviour::OldProtocol]);
    let nowhere = "1234567890123456789012345678901234567890";
    for repository in ["app.git", "old.git"] {
        let url = world.server.url(repository);
        let line = world.fails(&format!("{repository}#feature/y")).await;
        let hint = format!("`feature/y` is no branch, tag or commit of `{url}`; did you mean `feature/x`?");
        assert_eq!(line, hint);
        assert!(world.fails(&format!("{repository}#refs/heads/zzz")).await.ends_with(&format!("commit of `{url}`")));
        let line = world.fails(&format!("{repository}#{nowhere}")).await;
        assert!(line.starts_with(&format!("commit `{nowhere}` was not found in")), "{line}");
        let line = world.fails(&format!("{repository}#1234567")).await;
        assert!(line.starts_with("commit `1234567` was not found in"), "{line}");
        let line = world.fails(&format!("{repository}#blob")).await;
        assert_eq!(line, format!("`blob` of `{url}` does not lead to a commit"));
    }
    let (alike, _) = world.simple("alike.git");
    // The names of these two files' objects begin alike.
    alike.commit_files(&[("one", "20738"), ("two", "37901")]);
    let line = world.fails("alike.git#65ba8ca").await;
    assert!(line.starts_with("`65ba8ca` is the beginning of several objects"), "{line}");
    let line = world.fails("alike.git#65ba8ca3").await;
    assert!(line.starts_with("commit `65ba8ca3` was not found"), "{line}");
    world.repository("empty.git");
    assert_eq!(world.fails("empty.git").await, format!("repository `{}` is empty", world.server.url("empty.git")));
    assert!(world.fails("empty.git#main").await.ends_with("is empty"));
    let (lost, _) = world.simple("lost.git");
    lost.git(["symbolic-ref", "HEAD", "refs/heads/gone"]);
    let line = world.fails("lost.git").await;
    assert!(line.starts_with("`HEAD` is no branch") && line.ends_with("did you mean `main`?"), "{line}");
    lost.git(["update-ref", "--no-deref", "HEAD", "refs/heads/main"]);
    let done = world.fetch("lost.git").await.unwrap();
    assert_eq!((done.snapshot.branch, done.snapshot.reference.as_deref()), (None, Some("HEAD")));
}

#[tokio::test]
async fn branches_and_tags_are_listed_without_a_fetch() {
    let world = World::new();
    let (repository, first) = world.simple("app.git");
    repository.git(["branch", "topic/a"]);
    repository.git(["tag", "v1"]);
    repository.git(["tag", "-a", "-m", "two", "v2"]);
    let tag = repository.git(["rev-parse", "v2"]).trim().to_owned();
    let second = repository.commit_files(&[("src/b.txt", "b\n")]);
    let list = async |name: &str, credentials: &dyn CredentialSource| {
        let source = GitSource::parse(&world.server.url(name)).unwrap();
        let list = references(&world.egress, credentials, &source.url, &["refs/heads/", "refs/tags/"]).await?;
        Ok::<_, GitError>(list.into_iter().collect::<std::collections::BTreeSet<_>>())
    };
    let of = |name: &str, id: &String, peeled: Option<&String>| ListedReference {
        name: name.to_owned(),
        id: id.clone(),
        peeled: peeled.cloned(),
    };
    let expect = std::collections::BTreeSet::from([
        of("refs/heads/main", &second, None),
        of("refs/heads/topic/a", &first, None),
        of("refs/tags/v1", &first, None),
        of("refs/tags/v2", &tag, Some(&first)),
    ]);
    assert_eq!(list("app.git", &NoCredentials).await.unwrap(), expect);
    world.server.behave("app.git", &[Behaviour::OldProtocol]);
    assert_eq!(list("app.git", &NoCredentials).await.unwrap(), expect, "by the older protocol too");
    for behaviour in [&[][..], &[Behaviour::OldProtocol]] {
        world.server.behave("app.git", behaviour);
        let source = GitSource::parse(&world.server.url("app.git")).unwrap();
        let one = references(&world.egress, &NoCredentials, &source.url, &["refs/heads/topic"]).await.unwrap();
        assert_eq!(one, [of("refs/heads/topic/a", &first, None)], "{behaviour:?}");
    }
    world.server.behave("app.git", &[Behaviour::Password("git", "secret")]);
    assert!(list("app.git", &NoCredentials).await.is_err());
    assert!(list("none.git", &NoCredentials).await.is_err());
}
