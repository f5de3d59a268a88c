//! Builds from Git repositories, fetched by an agent from a real server.

use std::time::Duration;

use cooper_e2e::{
    Finished, GitBehaviour, GitRepository, GitServer, ServerOptions, TestServer, expect_sealed, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// Fails to build unless `which` holds what the caller wants.
const DOCKERFILE: &str = "ARG BASE\nFROM $BASE\nARG WANT\nCOPY . /src/\nRUN test \"$(cat /src/which)\" = \"$WANT\"\n";
const SECRET: &str = "gh0-not-to-be-seen";

/// A server that may fetch from this machine, and a Git server on it.
struct World {
    server: TestServer,
    git: GitServer,
    repository: GitRepository,
    base: String,
    root: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(&["--allow-source", "127.0.0.1"])
    }

    fn with(arguments: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        let repository = GitRepository::new(root.path(), "app.git");
        let git = GitServer::start(root.path());
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
        let base = server.base_image();
        Self { server, git, repository, base, root }
    }

    fn commit(&self, which: &str) -> String {
        self.repository.commit_files(&[("Dockerfile", DOCKERFILE), ("which", which)])
    }

    /// Builds a place in the repository and wants `which` to hold this text.
    fn try_build(&self, place: &str, want: &str, flags: &[&str]) -> Finished {
        let (base, want) = (format!("BASE={}", self.base), format!("WANT={want}"));
        let source = format!("{}{place}", self.git.url("app.git"));
        let common = ["build", "--no-logs", "--output", "json", "--build-arg", &base, "--build-arg", &want];
        self.server.cooper(&[&common, flags, &[source.as_str()]].concat())
    }

    fn build(&self, place: &str, want: &str, flags: &[&str]) -> Value {
        self.try_build(place, want, flags).ok().json()
    }
}

#[test]
fn every_kind_of_reference_is_built() {
    let world = World::new();
    let first = world.commit("first");
    world.repository.git(["tag", "-a", "v1", "-m", "one"]);
    let pulled = world.commit("pulled");
    world.repository.git(["update-ref", "refs/pull/7/head", &pulled]);
    world.repository.git(["reset", "-q", "--hard", &first]);
    world.repository.git(["checkout", "-q", "-b", "feature/x"]);
    let feature = world.commit("feature");
    world.repository.git(["checkout", "-q", "main"]);
    let main = world.commit("main");

    let run =
        world.build("", "main", &["-t", "app:{{.Run.Branch}}-{{.Run.Commit}}", "--label", "from={{.Run.Repository}}"]);
    assert_eq!(run["sourceLocation"], world.git.url("app.git"));
    assert_eq!((&run["sourceCommit"], &run["sourceBranch"]), (&Value::from(main.clone()), &Value::from("main")));
    assert_eq!(run["outputImages"][0]["tag"], format!("main-{main}"));
    assert_eq!(run["dependencies"][0]["git"]["git-head-revision"], main);
    let steps: Vec<_> = run["steps"].as_array().unwrap().iter().map(|step| &step["id"]).collect();
    assert_eq!(steps, ["prepare", "build", "push"]);
    let shown = world.server.cooper(&["runs", "show", run["runId"].as_str().unwrap()]).ok().stdout;
    assert!(shown.contains(&format!("Commit:       {main}")), "{shown}");
    let log = world.server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    assert!(log.contains(&format!("at commit {main} on branch main")), "{log}");

    for (place, want, commit, branch) in [
        ("#feature/x", "feature", &feature, Value::from("feature/x")),
        ("#v1", "first", &first, Value::Null),
        ("#pull/7/head", "pulled", &pulled, Value::Null),
        (&format!("#{first}"), "first", &first, Value::Null),
        (&format!("#{}", &first[..10]), "first", &first, Value::Null),
    ] {
        let run = world.build(place, want, &["--no-push"]);
        assert_eq!((&run["sourceCommit"], &run["sourceBranch"]), (&Value::from(commit.clone()), &branch), "{place}");
    }
    let tagged = world.build("#v1", "first", &["-t", "app:{{.Run.GitTag}}"]);
    assert_eq!(tagged["outputImages"][0]["tag"], "v1");
    world.server.expect_quiet_log();
}

#[test]
fn a_folder_of_the_repository_and_submodules_are_the_context() {
    let world = World::new();
    let library = GitRepository::new(world.root.path(), "library.git");
    let pinned = library.commit_files(&[("text", "from the library")]);
    library.commit_files(&[("text", "newer")]);
    let dockerfile = "ARG BASE\nFROM $BASE\nCOPY . /src/\nARG WANT\nRUN test \"$(cat /src/lib/text)\" = \"$WANT\" \
                      && test ! -e /src/ignored && test ! -e /src/outside\n";
    world.repository.commit_files(&[
        ("outside", "x"),
        ("sub/docker/Special", dockerfile),
        ("sub/.dockerignore", "ignored\n"),
        ("sub/ignored", "x"),
    ]);
    world.repository.add_submodule("sub/lib", "../library.git", &pinned);
    let run = world.build("#main:sub", "from the library", &["-t", "app:1", "-f", "docker/Special"]);
    assert_eq!(run["status"], "Succeeded");

    let agent = world.server.data().join("agent");
    wait_until("nothing of the sources is left in the agent's folder", Duration::from_secs(10), || {
        let entries = std::fs::read_dir(&agent).unwrap().flatten();
        entries
            .filter(|entry| entry.path().is_dir())
            .all(|entry| !entry.file_name().to_string_lossy().starts_with("ca"))
    });
}

#[test]
fn stored_credentials_open_a_repository_and_are_never_seen() {
    let world = World::new();
    world.commit("private");
    world.git.behave("app.git", &[GitBehaviour::Password("bot", SECRET)]);
    let host = world.git.host();

    let refused = world.try_build("", "private", &["--no-push"]).expect(1);
    refused.error_names(&["asks for credentials", &format!("cooper credential set {host}")]);

    let set = |arguments: &[&str]| {
        let mut command =
            world.server.command(&[&["credential", "set", &host, "--password-stdin"], arguments].concat());
        let file = world.root.path().join("password");
        std::fs::write(&file, format!("{SECRET}\n")).unwrap();
        command.stdin(std::fs::File::open(&file).unwrap());
        cooper_e2e::run_to_end(&mut command, Duration::from_secs(30))
    };
    let for_another = ["--username", "bot", "--principal", "somebody-else"];
    set(&for_another).expect(5).error_names(&["principal `somebody-else` does not exist"]);
    world.server.cooper(&["token", "create", "somebody-else", "--scope", "run"]).ok();
    set(&for_another).ok();
    world.try_build("", "private", &["--no-push"]).expect(1).error_names(&["asks for credentials"]);
    set(&["--username", "bot"]).ok();
    let run = world.build("", "private", &["--no-push"]);
    let id = run["runId"].as_str().unwrap();

    let listed = world.server.cooper(&["credential", "list"]).ok().stdout;
    assert!(listed.contains(&host) && listed.contains("bot"), "{listed}");
    let places = [
        listed,
        run.to_string(),
        world.server.cooper(&["logs", id]).ok().stdout,
        world.server.cooper(&["credential", "list", "--output", "json"]).ok().stdout,
        world.server.log(),
    ];
    assert!(places.iter().all(|text| !text.contains(SECRET)), "{places:?}");
    expect_sealed(world.server.data(), &host, &[SECRET]);

    world.server.cooper(&["credential", "delete", &host]).ok();
    world.server.cooper(&["credential", "delete", &host]).expect(5);
    world.try_build("", "private", &["--no-push"]).expect(1).error_names(&["asks for credentials"]);
}

#[test]
fn mistakes_are_the_users_and_are_named() {
    let world = World::new();
    world.commit("x");
    for (place, names) in [
        ("#nope", &["`nope` is no branch, tag or commit"][..]),
        ("#main:nowhere", &["subdirectory `nowhere` does not exist"]),
        ("#main:which", &["subdirectory `which` is a file"]),
    ] {
        world.try_build(place, "x", &["--no-push"]).expect(1).error_names(names);
    }
    world.try_build("", "x", &["--no-push", "-f", "Other"]).expect(1).error_names(&["`Other` does not exist"]);
    let missing = world.server.cooper(&["build", "--no-logs", "--no-push", &world.git.url("none.git")]).expect(1);
    missing.error_names(&["none.git", "was not found"]);
    let uppercase = world.repository.git(["branch", "Upper/x"]);
    assert_eq!(uppercase, "");
    let unplanned = world.try_build("#Upper/x", "x", &["-t", "app:{{.Run.Branch}}"]).expect(1);
    unplanned.error_names(&["can't be planned", "app:Upper/x"]);

    // What can be seen before anything is sent is not sent.
    let runs = world.server.cooper(&["runs", "list", "--top", "100", "--output", "json"]).ok().json();
    for (source, name) in [
        ("git@git.example:a/b.git", "https://git.example/a/b.git"),
        ("https://u:p@git.example/a.git", "holds credentials"),
        ("https://git.example/a.git#:../b", "leads out"),
        ("https://git.example/a.tar.gz#v1", "is taken as an archive, which has no `#v1`"),
    ] {
        world.server.cooper(&["build", "-t", "a", source]).expect(2).error_names(&[name]);
    }
    let outside = world.server.cooper(&["build", "-t", "a", "-f", "/x", "https://git.example/a.git"]).expect(2);
    outside.error_names(&["--file"]);
    let after = world.server.cooper(&["runs", "list", "--top", "100", "--output", "json"]).ok().json();
    assert_eq!(runs.as_array().unwrap().len(), after.as_array().unwrap().len());
}

#[test]
fn addresses_that_are_not_listed_are_not_reached() {
    let world = World::new();
    world.commit("x");
    let inside = GitServer::start_on("127.0.0.2:0", world.root.path());
    world.git.behave("app.git", &[GitBehaviour::Redirect(format!("http://{}", inside.host()))]);
    let refused = world.try_build("", "x", &["--no-push"]).expect(1);
    refused.error_names(&["127.0.0.2"]);
    assert!(inside.seen().is_empty(), "{:?}", inside.seen());

    let strict = TestServer::start();
    let refused = strict.cooper(&["build", "--no-logs", "--no-push", &world.git.url("app.git")]).expect(1);
    refused.error_names(&["127.0.0.1", "--allow-source"]);
}

#[test]
fn cancelling_ends_a_fetch_that_hangs() {
    let world = World::new();
    world.commit("x");
    world.git.behave("app.git", &[GitBehaviour::Stall("POST")]);
    let source = world.git.url("app.git");
    let build = world.server.cooper_running(&["build", "--no-push", &source]);
    wait_until("the fetch hangs", Duration::from_secs(30), || {
        world.git.seen().iter().any(|request| request.method == "POST")
    });
    world.server.cooper(&["runs", "cancel", "ca2"]).ok();
    build.end(Duration::from_secs(10)).expect(3);
    let run = world.server.run("ca2");
    assert_eq!((&run["status"], &run["steps"].as_array().unwrap().len()), (&Value::from("Canceled"), &1));

    world.git.behave("app.git", &[]);
    world.build("", "x", &["--no-push"]);
}

#[test]
fn a_host_that_is_away_fails_the_run_with_one_sentence() {
    let world = World::new();
    world.commit("x");
    // The system gives this port to nobody.
    let free = "127.0.0.1:1";
    let source = format!("http://{free}/app.git");
    let refused = world.server.cooper(&["build", "--no-logs", "--no-push", &source]).expect(1);
    let host = format!("host `{free}` refuses connections; check the URL's host and port, and that the server runs");
    refused.error_names(&[&host]);

    // One that breaks off is asked a few times by the same attempt.
    world.git.behave("app.git", &[GitBehaviour::DieAfter(60)]);
    let ended = world.try_build("", "x", &["--no-push"]).expect(1);
    ended.error_names(&["broke off"]);
    let log = world.server.cooper(&["logs", "ca3"]).ok().stdout;
    assert_eq!(log.matches("trying again in").count(), 2, "{log}");
    for run in ["ca2", "ca3"] {
        let run = world.server.run(run);
        assert_eq!((&run["status"], &run["steps"][0]["attempts"]), (&Value::from("Failed"), &Value::from(1)), "{run}");
    }
}
