//! Purging as a user does: from outside, and as a step of a task, with nothing of any network.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_e2e::{Context, Finished, ServerOptions, TestServer, repository_path, request, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server that keeps what nothing refers to for a moment.
fn server() -> TestServer {
    let arguments = ["--blob-grace", "2s"].map(str::to_owned).into();
    TestServer::with(ServerOptions { arguments, ..ServerOptions::default() })
}

/// Pushes images `dev-1` … and `v1` … of contents of their own.
fn push(server: &TestServer, count: u32) {
    for number in 1..=count {
        let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", format!("content {number}\n"));
        let (dev, version) = (format!("team/app:dev-{number}"), format!("team/app:v{number}"));
        server.build(&["-t", &dev, "-t", &version], &context);
    }
}

fn purge(server: &TestServer, arguments: &[&str]) -> Finished {
    server.cooper(&[&["purge", "--ago", "0d"], arguments].concat())
}

fn tags(server: &TestServer) -> Vec<String> {
    let listed = server.cooper(&["repository", "show-tags", "team/app", "--output", "json"]).ok().json();
    let name = |tag: &serde_json::Value| tag["name"].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(name).collect()
}

fn blob_files(server: &TestServer) -> usize {
    let folder = server.data().join("blobs/sha256");
    let parts = std::fs::read_dir(folder).unwrap().map(|part| part.unwrap().path());
    parts.map(|part| std::fs::read_dir(part).unwrap().count()).sum()
}

/// The blobs of a tag's image, which have to be there.
fn pull(server: &TestServer, tag: &str) {
    let manifest = server.registry(&format!("/v2/team/app/manifests/{tag}"));
    assert_eq!(manifest.status, 200, "{tag}");
    let manifest: serde_json::Value = serde_json::from_str(&manifest.body).unwrap();
    for blob in [&manifest["config"], &manifest["layers"][0]] {
        let path = format!("/v2/team/app/blobs/{}", blob["digest"].as_str().unwrap());
        let answer = server.registry(&path);
        assert!(answer.status == 200 && !answer.body.is_empty(), "{tag}: {}", answer.status);
    }
}

#[test]
fn old_tags_go_and_their_space_is_free_after_the_grace() {
    let server = server();
    push(&server, 3);
    let all = ["dev-1", "dev-2", "dev-3", "v1", "v2", "v3"];
    assert_eq!(tags(&server), all);
    let before = blob_files(&server);

    let dry = purge(&server, &["--filter", "team/.*:^dev-|^v1$", "--keep", "1", "--untagged", "--dry-run"]).ok();
    let registry = format!("localhost:{}/team/app", server.port());
    for line in [
        format!("Would delete: {registry}:dev-2"),
        format!("Would delete: {registry}:v1"),
        "Number of tags to be deleted: 3".to_owned(),
        "Number of manifests to be deleted: 0".to_owned(),
    ] {
        assert!(dry.stdout.lines().any(|one| one == line), "{line}\n{dry}");
    }
    assert_eq!(tags(&server), all, "a dry run deletes nothing");
    let nothing = purge(&server, &["--filter", "app:.*"]).ok();
    assert_eq!(nothing.stdout.lines().next(), Some("Number of deleted tags: 0"));
    assert!(
        nothing.stderr.contains("filter `app:.*`: no repository that you may list has such a whole name"),
        "{nothing}"
    );
    let wrong = purge(&server, &["--filter", "team/app"]).expect(2);
    wrong.error_names(&["is not REPOSITORY-REGEX:TAG-REGEX"]);

    let purged = purge(&server, &["--filter", "team/.*:^dev-|^v1$", "--untagged"]).ok();
    assert!(purged.stdout.contains("Number of deleted tags: 4\nNumber of deleted manifests: 1\n"), "{purged}");
    assert_eq!(tags(&server), ["v2", "v3"]);
    wait_until("the first image's blobs are removed", PATIENCE, || blob_files(&server) < before);
    pull(&server, "v2");
    pull(&server, "v3");
    server.expect_quiet_log();
}

#[test]
fn a_step_purges_by_the_servers_own_program() {
    let server = server();
    push(&server, 2);
    let task = Context::empty().file(
        "acr-task.yaml",
        "version: v1.1.0\nsteps:\n- cmd: acr version\n- cmd: acr purge --filter 'team/app:^dev-' --ago 0d --dry-run\n\
         - cmd: mcr.microsoft.com/acr/acr-cli:0.14 purge -r $Registry -c none --verbose --filter 'team/app:^dev-|^v1$' \
         --ago 0d --untagged\n",
    );
    // Who may not delete does not delete by a step either.
    let scopes = ["--scope", "run", "--scope", "read", "--scope", "repository:*:pull,push"];
    let token = server.cooper(&[&["token", "create", "guest"], &scopes[..]].concat()).ok().stdout;
    let folder = Context::empty().file("token", token.trim());
    let token = folder.join("token").display().to_string();
    let refused = server.cooper(&["run", "--token-file", &token, &task.display()]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.lines().any(|line| line.starts_with("Version: ")), "{refused}");
    assert!(refused.stdout.contains("Number of tags to be deleted: 2"), "{refused}");
    assert!(refused.stdout.contains("does not allow to delete team/app"), "{refused}");
    assert_eq!(tags(&server), ["dev-1", "dev-2", "v1", "v2"]);

    let purged = server.cooper(&["run", &task.display()]).ok();
    assert!(purged.stdout.contains("Number of deleted tags: 3\nNumber of deleted manifests: 1\n"), "{purged}");
    assert_eq!(tags(&server), ["v2"]);
    pull(&server, "v2");
    // Nobody puts another program into its place.
    let path = "/v2/cooperage/acr-cli/blobs/uploads/";
    let header = format!("Authorization: Basic {}", STANDARD.encode(format!("tester:{}", server.token())));
    assert_eq!(request(server.authority(), "POST", path, &[&header], b"").unwrap().status, 403);
}

#[test]
fn acrs_client_purges_with_the_login_that_it_is_given() {
    let server = server();
    push(&server, 1);
    let (registry, token) = (format!("localhost:{}", server.port()), server.token());
    let acr = |login: &[&str]| {
        let purge = ["acr", "purge", "--registry", &registry, "--filter", "team/app:^dev-", "--ago", "0d"];
        server.cooper(&[&purge[..], login].concat())
    };
    for wrong in [&[][..], &["-u", "tester", "-p", "guessed"]] {
        let refused = acr(wrong);
        assert!(refused.code == Some(5) && refused.stdout.is_empty(), "{refused}");
    }
    acr(&["-u", "tester"]).expect(2).error_names(&["required"]);
    assert_eq!(tags(&server), ["dev-1", "v1"]);
    let purged = acr(&["-u", "tester", "-p", &token, "--config", "none", "--verbose"]).ok();
    assert!(purged.stdout.contains(&format!("Deleted: {registry}/team/app:dev-1\n")), "{purged}");
    assert_eq!(tags(&server), ["v1"]);
    // A token needs no name.
    let purge = ["acr", "purge", "-r", &registry, "-p", &token, "--untagged-only", "--filter", "team/app:none"];
    let purged = server.cooper(&purge).ok();
    assert_eq!(purged.stdout, "Number of deleted tags: 0\nNumber of deleted manifests: 0\n");
}

/// The example's nightly task, for images of any age.
fn nightly_task() -> Context {
    let text = std::fs::read_to_string(repository_path("examples/stored-tasks.yaml")).unwrap();
    let task = text.split("---\n").find(|part| part.contains("name: nightly-purge")).unwrap();
    assert_eq!(task.matches("--ago 30d --keep 5").count(), 2, "{task}");
    Context::empty().file("tasks.yaml", task.replace("--ago 30d --keep 5", "--ago 0d --keep 1"))
}

#[test]
fn the_examples_nightly_task_looks_and_then_purges_as_who_made_it() {
    let server = server();
    push(&server, 3);
    let (folder, left) = (nightly_task(), ["dev-3", "v1", "v2", "v3"]);
    let file = folder.join("tasks.yaml").display().to_string();
    let rights = ["--scope", "run", "--scope", "read", "--scope"];
    let token = |name: &str, scope: &str| {
        let arguments = [&["token", "create", name], &rights[..], &[scope]].concat();
        let token = Context::empty().file("token", server.cooper(&arguments).ok().stdout.trim());
        (token.join("token").display().to_string(), token)
    };
    // Whoever may not delete has a task that does not.
    let (guest, _kept) = token("guest", "repository:*:pull,push");
    server.cooper(&["task", "apply", "-f", &file, "--yes", "--token-file", &guest]).ok();
    let refused = server.cooper(&["task", "run", "nightly-purge", "--token-file", &guest]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("does not allow to delete team/app"), "{refused}");
    assert_eq!(tags(&server).len(), 6);
    server.cooper(&["task", "delete", "nightly-purge", "--yes"]).ok();

    let (deleter, _kept) = token("deleter", "repository:team/*:pull,delete");
    server.cooper(&["task", "apply", "-f", &file, "--yes", "--token-file", &deleter]).ok();
    // By its timer, whoever looks on.
    let every_minute = ["--timer-name", "night", "--schedule", "* * * * *"];
    server.cooper(&[&["task", "timer", "update", "-n", "nightly-purge"], &every_minute[..]].concat()).ok();
    let runs = || server.cooper(&["task", "list-runs", "-n", "nightly-purge", "--output", "json"]).ok().json();
    let has_ended = |run: &serde_json::Value| run["task"] == "nightly-purge" && run["finishTime"].is_string();
    let purged = |run: &serde_json::Value| has_ended(run) && run["timerTrigger"].is_object();
    wait_until("the timer's run has ended", Duration::from_secs(300), || runs().as_array().unwrap().iter().any(purged));
    let runs = runs();
    let first = runs.as_array().unwrap().iter().rfind(|run| purged(run)).unwrap();
    assert_eq!(first["status"], "Succeeded", "{first}");
    let log = server.cooper(&["logs", first["runId"].as_str().unwrap()]).ok().stdout;
    let (look, purge) = (log.find("Number of tags to be deleted: 2"), log.find("Number of deleted tags: 2"));
    assert!(look.is_some() && look < purge, "{log}");
    assert_eq!(tags(&server), left);
}

#[test]
fn a_purge_that_is_refused_says_how_far_it_came() {
    let server = server();
    let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", "content\n");
    for name in ["a/app:dev-1", "b/app:dev-1", "c/app:dev-1"] {
        server.build(&["-t", name], &context);
    }
    let scopes =
        ["--scope", "repository:*:pull", "--scope", "repository:a/app:delete", "--scope", "repository:c/app:delete"];
    let token = server.cooper(&[&["token", "create", "some"], &scopes[..]].concat()).ok().stdout;
    let folder = Context::empty().file("token", token.trim());
    let token = folder.join("token").display().to_string();
    let refused = purge(&server, &["--filter", ".*:^dev-", "--token-file", &token]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(refused.stderr.contains("Purged: a/app\n"), "{refused}");
    assert!(refused.stderr.contains("Not purged: b/app, c/app\n"), "{refused}");
    let is_there = |name: &str| server.registry(&format!("/v2/{name}/manifests/dev-1")).status == 200;
    assert_eq!(["a/app", "b/app", "c/app"].map(is_there), [false, true, true]);
}

#[test]
fn manifests_without_a_tag_go_alone_and_from_all_repositories() {
    let server = server();
    let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", "content\n");
    let names = ["a/app", "b/app", "c/app"];
    let digests = names.map(|name| {
        let run = server.build(&["-t", &format!("{name}:dev-1")], &context);
        run["outputImages"][0]["digest"].as_str().unwrap().to_owned()
    });
    for name in ["a/app:dev-1", "c/app:dev-1"] {
        server.cooper(&["repository", "untag", name]).ok();
    }
    let left = || [0, 1, 2].map(|at| server.registry(&format!("/v2/{}/manifests/{}", names[at], digests[at])).status);
    assert_eq!(left(), [200; 3]);
    // In as many pages as there are repositories, and with as much at once as there may be.
    let purge = ["purge", "--untagged-only", "--repository-page-size", "1", "--concurrency", "99"];
    let dry = server.cooper(&[&purge[..], &["--dry-run"]].concat()).ok();
    let line = |did: &str, at: usize| format!("{did}: localhost:{}/{}@{}", server.port(), names[at], digests[at]);
    for line in [line("Would delete", 0), line("Would delete", 2), "Number of manifests to be deleted: 2".to_owned()] {
        assert!(dry.stdout.lines().any(|one| one == line), "{line}\n{dry}");
    }
    assert_eq!(left(), [200; 3], "a dry run deletes nothing");
    // Those that were just pushed are not a day old.
    let young = server.cooper(&[&purge[..], &["--ago", "1d"]].concat()).ok();
    assert_eq!(young.stdout, "Number of deleted tags: 0\nNumber of deleted manifests: 0\n");
    let some = server.cooper(&[&purge[..], &["--filter", "c/.*:none"]].concat()).ok();
    assert!(some.stdout.lines().any(|one| one == line("Deleted", 2)), "{some}");
    assert_eq!(left(), [200, 200, 404], "of the filter's repositories, whatever it says of tags");
    let all = server.cooper(&purge).ok();
    assert!(all.stdout.lines().any(|one| one == line("Deleted", 0)), "{all}");
    assert!(all.stdout.ends_with("Number of deleted tags: 0\nNumber of deleted manifests: 1\n"), "{all}");
    assert_eq!(left(), [404, 200, 404]);
    assert_eq!(server.registry("/v2/b/app/manifests/dev-1").status, 200);
    server.expect_quiet_log();
}

/// Hands connections on to a server.
fn relay(listener: TcpListener, to: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(here), Ok(there)) = (stream, TcpStream::connect(&to)) else { continue };
            for (mut from, mut to) in [(here.try_clone().unwrap(), there.try_clone().unwrap()), (there, here)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn a_step_purges_a_registry_whose_name_containers_do_not_find() {
    let Some(machine) = super::registries::machine() else { return };
    // The registry's name has to be known before the server has its port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let arguments = ["--registry-name", &format!("{machine}:{port}"), "--tls-self-signed", "--tls-name", &machine];
    let arguments = arguments.map(str::to_owned).into();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    relay(listener, server.authority().to_owned());
    push(&server, 1);
    let task = Context::empty().file(
        "acr-task.yaml",
        "version: v1.1.0\nsteps:\n- cmd: acr purge --filter 'team/app:^dev-' --ago 0d --untagged\n",
    );
    let purged = server.cooper(&["run", &task.display()]).ok();
    assert!(purged.stdout.contains(&format!("Deleted: {machine}:{port}/team/app:dev-1\n")), "{purged}");
    assert_eq!(tags(&server), ["v1"]);
}

#[test]
fn a_collection_that_dies_between_a_file_and_its_row_is_made_good() {
    let mut server = server();
    let context = Context::new("FROM scratch\nCOPY file /file\n").file("file", "the same again\n");
    let build = |server: &TestServer| server.build(&["-t", "team/app:v1"], &context);
    build(&server);
    purge(&server, &["--filter", "team/app:.*", "--untagged"]).ok();
    server.stop();
    if server.restart_to_die("blob-removed") {
        wait_until("the server dies", PATIENCE, || server.has_died());
    }
    let death = server.death(PATIENCE);
    assert!(death.code.is_none() && death.stderr.contains("failpoint blob-removed"), "{death}");
    server.restart();
    // What is pushed again is whole, whatever is to be forgotten of it.
    build(&server);
    pull(&server, "v1");
    let grace = std::time::Instant::now() + Duration::from_secs(4);
    wait_until("the grace is over", PATIENCE, || std::time::Instant::now() > grace);
    pull(&server, "v1");
}
