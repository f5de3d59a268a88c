//! Servers that want to know who asks, that stall, die, redirect and lie; and a user who changes her mind.

use std::time::{Duration, Instant};

use super::*;
use cooper_e2e::GitBehaviour as Behaviour;

const SECRET: &str = "hunter2";

#[tokio::test]
async fn credentials_go_to_who_demands_them_and_nowhere_else() {
    let world = World::new();
    let (_, commit) = world.simple("app.git");
    world.simple("open.git");
    world.server.behave("app.git", &[Behaviour::Password("me", SECRET)]);
    let line = world.fails("app.git").await;
    assert!(line.contains("asks for credentials"), "{line}");

    let stored = Stored::one(world.server.host(), "me", SECRET);
    let done = world.fetch_with("app.git", &stored, |_| {}).await.unwrap();
    assert_eq!(done.snapshot.commit, commit);
    assert_eq!(*stored.asked.lock().unwrap(), [world.server.host()]);
    assert!(!format!("{:?}{:?}", done.events, done.snapshot).contains(SECRET));

    let wrong = Stored::one(world.server.host(), "me", "wrong");
    let Err(error) = world.fetch_with("app.git", &wrong, |_| {}).await else { panic!("wrong password") };
    assert!(error.line().contains("refuses the stored credentials"), "{}", error.line());
    assert!(!error.is_transient());
    assert!(!format!("{error:?}{}", error.line()).contains("wrong"));

    // Who demands nothing gets nothing, and nobody is asked.
    let before = world.server.seen().len();
    let stored = Stored::one(world.server.host(), "me", SECRET);
    world.fetch_with("open.git", &stored, |_| {}).await.unwrap();
    assert!(stored.asked.lock().unwrap().is_empty());
    assert!(world.server.seen()[before..].iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_along() {
    let world = World::new();
    let (_, commit) = world.simple("app.git");
    let other = GitServer::start(world.root.path());
    world.server.behave(
        "app.git",
        &[Behaviour::Password("me", SECRET), Behaviour::Redirect(format!("http://{}", other.host()))],
    );
    let stored = Stored::one(world.server.host(), "me", SECRET);
    let done = world.fetch_with("app.git", &stored, |_| {}).await.unwrap();
    assert_eq!(done.snapshot.commit, commit);
    assert!(!other.seen().is_empty());
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", other.seen());
    // The other host demands some: its own are looked up, not the first host's.
    other.behave("app.git", &[Behaviour::Password("me", SECRET)]);
    let stored = Stored::one(world.server.host(), "me", SECRET);
    let Err(error) = world.fetch_with("app.git", &stored, |_| {}).await else { panic!("not asked") };
    assert!(error.line().starts_with(&format!("`{}` asks for credentials", other.host())), "{}", error.line());
    assert_eq!(*stored.asked.lock().unwrap(), [world.server.host(), other.host()]);
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()), "{:?}", other.seen());
}

#[tokio::test]
async fn redirects_are_checked_like_the_first_address() {
    let world = World::new();
    world.simple("app.git");
    world.server.behave("app.git", &[Behaviour::Redirect("http://169.254.169.254".to_owned())]);
    assert!(world.fails("app.git").await.starts_with("host `169.254.169.254` has the address 169.254.169.254"));
    world.server.behave("app.git", &[Behaviour::Redirect("http://127.0.0.2:1".to_owned())]);
    assert!(world.fails("app.git").await.starts_with("host `127.0.0.2:1` has the address 127.0.0.2"));
    world.server.behave("app.git", &[Behaviour::Redirect("file://".to_owned())]);
    assert_eq!(world.fails("app.git").await, "`file` URLs are not followed");
    world.server.behave("app.git", &[Behaviour::Redirect(format!("http://{}", world.server.host()))]);
    assert!(world.fails("app.git").await.ends_with("redirects more than 5 times"));
    let other = GitServer::start(world.root.path());
    other.behave("app.git", &[Behaviour::RedirectAll(format!("http://{}", world.server.host()))]);
    world.server.behave("app.git", &[]);
    let source = GitSource::parse(&other.url("app.git")).unwrap();
    // The first request finds the real place, and commands go there.
    assert!(world.fetch_with("app.git", &NoCredentials, |request| request.source = source).await.is_ok());
}

#[tokio::test]
async fn addresses_that_are_not_listed_are_refused_before_anything_is_sent() {
    let mut world = World::new();
    world.simple("app.git");
    world.egress = egress(&[]);
    let line = world.fails("app.git").await;
    assert!(
        line.contains("has the address 127.0.0.1, which is not public") && line.contains("--allow-source"),
        "{line}"
    );
    let port = world.server.host().rsplit(':').next().unwrap().to_owned();
    let named = GitSource::parse(&format!("http://localhost:{port}/app.git")).unwrap();
    let source = named.clone();
    let result = world.fetch_with("x.git", &NoCredentials, |request| request.source = source).await;
    let Err(error) = result else { panic!("by name") };
    assert!(error.line().starts_with(&format!("host `localhost:{port}` has the address")), "{}", error.line());
    assert!(world.server.seen().is_empty());
    world.egress = egress(&["127.0.0.0/8"]);
    assert!(world.fetch_with("x.git", &NoCredentials, |request| request.source = named).await.is_ok());
}

#[tokio::test]
async fn servers_that_are_not_there_or_are_something_else() {
    let world = World::new();
    let html = || b"<html>hello</html>".to_vec();
    let table = [
        (Behaviour::Answer("GET", "200 OK", "text/html", html()), "answers, but not as a Git repository does", false),
        (
            Behaviour::Answer("GET", "404 Not Found", "text/html", html()),
            "was not found; check the URL, and whether it is private",
            false,
        ),
        (Behaviour::Answer("GET", "403 Forbidden", "text/html", html()), "asks for credentials", false),
        (Behaviour::Answer("GET", "503 Busy", "text/html", html()), "answered with HTTP status 503", true),
        (Behaviour::Answer("GET", "429 Slow", "text/html", html()), "answered with HTTP status 429", true),
        (Behaviour::Answer("GET", "400 Bad", "text/html", html()), "answered with HTTP status 400", false),
        (
            Behaviour::Answer("GET", "200 OK", "application/x-git-upload-pack-advertisement", html()),
            "a packet without a length",
            false,
        ),
        (
            Behaviour::Answer("GET", "200 OK", "application/x-git-upload-pack-advertisement", b"0010x".to_vec()),
            "broke off",
            true,
        ),
        (
            Behaviour::Answer(
                "GET",
                "200 OK",
                "application/x-git-upload-pack-advertisement",
                b"0011ERR no\x1b[2J\n\n\n0000".to_vec(),
            ),
            "refuses: no\\u{1b}[2J",
            false,
        ),
    ];
    for (behaviour, expected, transient) in table {
        world.server.behave("app.git", std::slice::from_ref(&behaviour));
        let Err(error) = world.fetch("app.git").await else { panic!("{behaviour:?}") };
        assert!(error.line().contains(expected), "{behaviour:?}: {}", error.line());
        assert_eq!(error.is_transient(), transient, "{}", error.line());
    }
    assert!(world.fails("none.git").await.contains("was not found"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, expected, transient) in [
        (format!("http://{free}/app.git"), "refuses connections; check the URL's host and port", false),
        ("https://nowhere.invalid/app.git".to_owned(), "host `nowhere.invalid` was not found", false),
        (format!("https://{}/app.git", world.server.host()), "127.0.0.1", true),
    ] {
        let source = GitSource::parse(&url).unwrap();
        let result = world.fetch_with("x.git", &NoCredentials, |request| request.source = source).await;
        let Err(error) = result else { panic!("{url}") };
        assert!(error.line().contains(expected), "{url}: {}", error.line());
        if !url.starts_with("https://1") && !error.line().contains("Temporary failure") {
            assert_eq!(error.is_transient(), transient, "{}", error.line());
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_half_way_is_told_from_a_damaged_repository() {
    let world = World::new();
    let repository = world.repository("app.git");
    repository.commit_files(&[("random", &format!("{:?}", (0..20_000_u64).map(|n| n * n * n).collect::<Vec<_>>()))]);
    for old in [false, true] {
        for bytes in [0, 10, 100, 5_000] {
            let mut behaviours = vec![Behaviour::DieAfter(bytes)];
            behaviours.extend(old.then_some(Behaviour::OldProtocol));
            world.server.behave("app.git", &behaviours);
            let Err(error) = world.fetch("app.git").await else { panic!("{bytes}") };
            assert!(error.line().contains("broke off"), "{bytes}: {}", error.line());
            assert!(error.is_transient());
        }
    }
    world.server.behave("app.git", &[Behaviour::Trickle]);
    assert!(world.fetch("app.git#main").await.is_ok());
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let mut world = World::new();
    world.simple("app.git");
    let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.1").unwrap()] };
    let idle_timeout = Duration::from_millis(300);
    world.egress = Egress::new(EgressOptions { policy, idle_timeout, ..EgressOptions::default() });
    for behaviour in [Behaviour::Stall("GET"), Behaviour::Stall("POST"), Behaviour::StallAfter(60)] {
        world.server.behave("app.git", std::slice::from_ref(&behaviour));
        let Err(error) = world.fetch("app.git").await else { panic!("{behaviour:?}") };
        assert_eq!(error.line(), format!("`{}` stopped answering", world.server.host()), "{behaviour:?}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_cancel_does_not_wait_for_a_stalled_server() {
    let mut world = World::new();
    world.simple("app.git");
    let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.1").unwrap()] };
    let idle_timeout = Duration::from_secs(3600);
    world.egress = Egress::new(EgressOptions { policy, idle_timeout, ..EgressOptions::default() });
    for behaviour in [Behaviour::Stall("GET"), Behaviour::Stall("POST"), Behaviour::StallAfter(60)] {
        world.server.behave("app.git", std::slice::from_ref(&behaviour));
        let scratch = tempfile::tempdir().unwrap();
        let request = world.request("app.git", scratch.path());
        let cancelled = CancellationToken::new();
        let before = world.server.seen().len();
        let (egress, token) = (world.egress.clone(), cancelled.clone());
        let fetching =
            tokio::spawn(async move { fetch(&egress, &NoCredentials, request, Arc::new(|_| {}), &token).await });
        let wanted = before + if matches!(behaviour, Behaviour::Stall("GET")) { 1 } else { 3 };
        let wanted = if matches!(behaviour, Behaviour::Stall("POST")) { before + 2 } else { wanted };
        let deadline = Instant::now() + Duration::from_secs(60);
        while world.server.seen().len() < wanted {
            assert!(Instant::now() < deadline, "{behaviour:?}: {:?}", world.server.seen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancelled.cancel();
        let result = tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("it ends").unwrap();
        assert!(matches!(result, Err(GitError::Cancelled)), "{behaviour:?}: {result:?}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test hands itself a mark")]
fn no_configuration_of_the_machine_takes_part() {
    // The environment is a process's: this test runs itself again in a hostile one.
    const CHILD: &str = "COOPER_TEST_HOSTILE";
    if std::env::vars_os().any(|(name, _)| name == CHILD) {
        return tokio::runtime::Runtime::new().unwrap().block_on(async {
            let world = World::new();
            let (_, commit) = world.simple("app.git");
            let done = world.fetch("app.git").await.unwrap();
            assert_eq!(done.snapshot.commit, commit);
        });
    }
    let home = tempfile::tempdir().unwrap();
    let config = "[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://127.0.0.1\n[core]\n\thooksPath = /hooks\n\tfsync = x\n\
                  [http]\n\tproxy = http://127.0.0.1:1\n[credential]\n\thelper = \"!exit 1\"\n[broken\n";
    std::fs::write(home.path().join(".gitconfig"), config).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::no_configuration_of_the_machine_takes_part"])
        .env(CHILD, "1")
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("GIT_CONFIG_GLOBAL", home.path().join(".gitconfig"))
        .env("GIT_DIR", "/nonexistent")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
