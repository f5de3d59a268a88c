//! Where `cooper run` takes its files, its task and its values from.

use std::io::{Seek as _, Write as _};
use std::time::Duration;

use cooper_e2e::{
    Archive, Context, FileServer, GitRepository, GitServer, ServerOptions, TestServer, run_to_end, unique,
};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(180);

/// A server that may fetch from this machine, with an image for steps.
fn server() -> TestServer {
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    server
}

/// A run that succeeds: its record, and what its log says.
fn run(server: &TestServer, arguments: &[&str]) -> (Value, String) {
    let run = server.cooper(&[&["run", "--no-logs", "--output", "json"], arguments].concat()).ok().json();
    let log = server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    (run, log)
}

/// A task that says this, in a line of its own.
fn saying(words: &str) -> String {
    format!("version: v1.1.0\nsteps:\n  - cmd: $Registry/base/busybox:1 echo {words}\n")
}

#[test]
fn a_task_file_has_its_usual_names_in_every_source() {
    let server = server();
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let source = git.url("app.git");
    let nothing = repository.commit_files(&[("data", "")]);
    let names = ["`acr-task.yaml`", "`acb.yaml`"];
    server.cooper(&["run", &format!("{source}#{nothing}")]).expect(1).error_names(&names);

    repository.commit_files(&[("acb.yaml", &saying("this is acb"))]);
    let (first, log) = run(&server, &[&source]);
    assert!(log.contains("\nthis is acb\n"), "{log}");
    let id = first["runId"].as_str().unwrap();
    assert_eq!(server.cooper(&["runs", "lock", id]).ok().json()["taskFile"]["name"], "acb.yaml");
    repository.commit_files(&[("acr-task.yaml", &saying("this is acr-task"))]);
    let (both, log) = run(&server, &[&source]);
    assert!(log.contains("\nthis is acr-task\n"), "{log}");
    let lock = server.cooper(&["runs", "lock", both["runId"].as_str().unwrap()]).ok().json();
    assert_eq!((&lock["taskFile"]["name"], &lock["aliasFiles"]), (&"acr-task.yaml".into(), &Value::Null));
    // The one has the file of its commit again, the other what there is now.
    for (flags, words) in [(&[id][..], "this is acb"), (&[id, "--fresh"], "this is acr-task")] {
        let log = server.cooper(&[&["runs", "rerun"], flags].concat()).ok().stdout;
        assert!(log.contains(&format!("\n{words}\n")), "{log}");
    }

    let folder = Context::empty().file("acb.yaml", saying("this is acb"));
    assert!(run(&server, &[&folder.display()]).1.contains("\nthis is acb\n"));
    let folder = folder.file("acr-task.yaml", saying("this is acr-task"));
    assert!(run(&server, &[&folder.display()]).1.contains("\nthis is acr-task\n"));
    server.expect_quiet_log();
}

/// A folder may be a part of something larger, into which its links lead.
#[test]
fn links_out_of_a_source_are_kept_as_they_are() {
    let server = server();
    let task = "version: v1.1.0\nsteps:\n  - cmd: $Registry/base/busybox:1 sh -c 'readlink up; readlink sub/far; readlink root'\n";
    let folder = Context::empty().file("acr-task.yaml", task).file("sub/file", "");
    let links = [("up", "../outside"), ("sub/far", "../../../outside"), ("root", "/workspace/../../etc")];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    }
    let (_, log) = run(&server, &[&folder.display()]);
    for (_, target) in links {
        assert!(log.contains(&format!("\n{target}\n")), "{log}");
    }
}

/// The log of a run that succeeds with this on its standard input.
fn piped(server: &TestServer, arguments: &[&str], input: &[u8]) -> String {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    let mut command = server.command(&[&["run"], arguments].concat());
    run_to_end(command.stdin(file), DEADLINE).ok().stdout
}

/// A task that says what is in the workspace's `data`, and a value.
const SHOWS: &str =
    "version: v1.1.0\nsteps:\n  - cmd: $Registry/base/busybox:1 sh -c 'cat data; echo value={{.Values.v}}'\n";

/// What such a run has said.
#[track_caller]
fn expect_shown(log: &str, data: &str, value: &str) {
    assert!(log.contains(&format!("\n{data}\nvalue={value}\n")), "no {data} and {value} in\n{log}");
}

#[test]
fn files_come_from_archives_artifacts_and_the_standard_input() {
    let server = server();
    let registry = server.authority().replace("127.0.0.1", "localhost");
    let tar = Archive::new()
        .file("top/acr-task.yaml", SHOWS)
        .file("top/v.yaml", "v: of-the-archive\n")
        .file("top/data", "archived\n")
        .gzip();
    let files = FileServer::start(move |_, _| FileServer::answer("200 OK", &[], &tar));
    let source = format!("{}/source.tgz?sig=hunter22#:top", files.url());
    let (record, log) = run(&server, &["--values", "v.yaml", &source]);
    expect_shown(&log, "archived", "of-the-archive");
    assert_eq!(record["sourceLocation"], format!("{}/source.tgz?…#:top", files.url()));
    assert!(!log.contains("hunter22") && !server.log().contains("hunter22"), "{log}");

    server.push_artifact("sources/app", "v1", &[("acb.yaml", SHOWS), ("data", "pushed\n")]);
    let source = format!("oci://{registry}/sources/app:v1");
    let (record, log) = run(&server, &["--set", "v=set", &source]);
    expect_shown(&log, "pushed", "set");
    assert_eq!(record["sourceLocation"], source);
    let missing = server.cooper(&["run", &format!("oci://{registry}/sources/app:v2")]).expect(1);
    missing.error_names(&["sources/app:v2", "404"]);

    // The task and its values stay on this machine; the archive is the workspace.
    let here = Context::empty().file("task.yaml", SHOWS).file("v.yaml", "v: of-this-machine\n");
    let (task, values) = (here.join("task.yaml").display().to_string(), here.join("v.yaml").display().to_string());
    let tar = Archive::new().file("data", "piped\n").tar();
    expect_shown(&piped(&server, &["-f", &task, "--values", &values, "-"], &tar), "piped", "of-this-machine");
    server.cooper(&["run", "-"]).expect(2).error_names(&["no task file is named"]);
    server.expect_quiet_log();
}

#[test]
fn the_task_comes_from_the_standard_input_the_folder_or_this_machine() {
    let server = server();
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let word = unique();
    repository.commit_files(&[("data", &format!("{word}\n"))]);
    let folder = Context::empty().file("data", "in the folder\n").file("v.yaml", "v: of-the-folder\n");
    let text = SHOWS.as_bytes();
    expect_shown(&piped(&server, &["-f", "-", "--set", "v=1", &git.url("app.git")], text), &word, "1");
    let log = piped(&server, &["-f", "-", "--values", "v.yaml", &folder.display()], text);
    expect_shown(&log, "in the folder", "of-the-folder");
    let log = piped(&server, &["-f", "-", "/dev/null"], saying("from standard input").as_bytes());
    assert!(log.contains("\nfrom standard input\n"), "{log}");
    server.cooper(&["run", "-f", "-", "-"]).expect(2).error_names(&["both task file and source"]);

    // A name is looked for in the folder first, and then where the command runs.
    let here = Context::empty().file("a.yaml", saying("a of here")).file("b.yaml", saying("b of here"));
    let folder = folder.file("a.yaml", saying("a of the folder"));
    for (name, words) in [("a.yaml", "a of the folder"), ("b.yaml", "b of here")] {
        let mut command = server.command(&["run", "-f", name, &folder.display()]);
        let log = run_to_end(command.current_dir(here.path()), DEADLINE).ok().stdout;
        assert!(log.contains(&format!("\n{words}\n")), "{log}");
    }
    server.expect_quiet_log();
}
