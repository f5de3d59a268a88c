//! Commands against the scripted server.

use std::path::Path;
use std::time::Duration;

use cooper_api::rest::{Run, RunStatus};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::server::{LOG, Server, TOKEN};
use super::{Cooper, Ended};

pub(super) async fn logged_in(server: &Server) -> Cooper {
    let cooper = Cooper::new();
    cooper.write("token", &format!("{TOKEN}\n"));
    let ended = cooper.run(["login", &server.url, "--token-file", "token"]).await;
    ended.succeeds();
    assert!(ended.stderr.contains("as dev (may: run repository:*:pull,push)"), "{ended:?}");
    cooper.write("src/Dockerfile", "FROM base\nRUN make\n");
    cooper.write("src/main.c", "int main;\n");
    cooper
}

#[tokio::test]
async fn a_build_sends_the_folder_and_shows_the_log() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    cooper.write("npmrc", "s3cret");
    let args = [
        "build",
        "-t",
        "app:v1",
        "--build-arg",
        "A=1",
        "--build-arg",
        "HOME",
        "--label",
        "l=x",
        "--secret",
        "id=npm,src=npmrc",
        "--target",
        "final",
        "--platform",
        "linux/arm64",
        "--no-cache",
        "-r",
        "myregistry",
        "src",
    ];
    let ended = cooper.run(args).await;
    ended.succeeds();
    assert_eq!(ended.stdout, format!("{LOG}\n"), "the log alone is on standard output");
    let notes = [
        "warning: --registry has no effect",
        "Packing source code into tar to upload...",
        "Sending context (",
        "Queued a build with ID: ca1",
        "Pending: no agent is connected",
        "Run ca1 succeeded after 2.5s.",
        "Pushed localhost:5000/app:v1@sha256:0000",
    ];
    let mut rest = ended.stderr.as_str();
    for note in notes {
        let at = rest.find(note).unwrap_or_else(|| panic!("`{note}` is not next in\n{}", ended.stderr));
        rest = &rest[at..];
    }
    assert_eq!(ended.stderr.matches("Pending:").count(), 1, "a reason to wait is told once");

    let context = server.script.context.lock().expect("lock").clone();
    assert_eq!(context.get("main.c").map(String::as_str), Some("int main;\n"));
    let request = server.asked_build();
    assert_eq!(
        (request.image_names.as_slice(), request.docker_file_path.as_str()),
        (&["app:v1".to_owned()][..], "Dockerfile")
    );
    assert_eq!(request.source_location, "ctx-1");
    assert!(request.is_push_enabled && request.no_cache);
    let values: Vec<&str> = request.arguments.iter().map(|argument| argument.value.as_str()).collect();
    assert_eq!(values, ["1", cooper.path().to_str().expect("text")]);
    assert_eq!(request.secrets[0].value.0.expose(), b"s3cret");
    assert_eq!(request.platform.expect("platform").to_string(), "linux/arm64");
}

#[tokio::test]
async fn a_dockerfile_outside_the_folder_is_sent_along() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    cooper.write("other/my.dockerfile", "FROM scratch\n");
    cooper.run(["build", "-t", "app", "-f", "other/my.dockerfile", "src"]).await.succeeds();
    let request = server.asked_build();
    let context = server.script.context.lock().expect("lock").clone();
    assert_eq!(context.get(&request.docker_file_path).map(String::as_str), Some("FROM scratch\n"), "{context:?}");
}

#[tokio::test]
async fn the_end_of_a_run_is_the_exit_code() {
    for (end, code, text) in [
        (RunStatus::Failed, 1, "run ca1 failed after 2.5s: step build: RUN make ended with exit code 2"),
        (RunStatus::Canceled, 3, "run ca1 was cancelled"),
        (RunStatus::Timeout, 4, "run ca1 timed out"),
        (RunStatus::Error, 6, "run ca1 was ended by a failure of the machinery"),
    ] {
        let server = Server::start(end, false).await;
        let cooper = logged_in(&server).await;
        cooper.run(["build", "-t", "app", "src"]).await.fails_with(code, &[text]);
        // Looking at a failed run is no failure.
        cooper.run(["runs", "show", "ca1"]).await.succeeds();
        cooper.run(["logs", "ca1"]).await.succeeds();
        cooper.run(["logs", "ca1", "--follow"]).await.succeeds();
    }
}

#[tokio::test]
async fn json_is_alone_on_standard_output() {
    let server = Server::start(RunStatus::Failed, false).await;
    let cooper = logged_in(&server).await;
    let ended = cooper.run(["build", "-t", "app", "--output", "json", "src"]).await;
    ended.fails_with(1, &[]);
    let run: Run = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(run.status, RunStatus::Failed);
    assert!(ended.stderr.contains("hello from RUN"), "{ended:?}");
    let ended = cooper.run(["build", "-t", "app", "--no-logs", "src"]).await;
    assert!(!ended.stderr.contains("hello") && ended.stdout.is_empty(), "{ended:?}");
    let ended = cooper.run(["build", "-t", "app", "--no-wait", "src"]).await;
    ended.succeeds();
    assert_eq!(ended.stdout, "ca1\n");
    let ended = cooper.run(["runs", "list", "-o", "json"]).await;
    let runs: Vec<Run> = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(runs.len(), 1);
}

#[tokio::test]
async fn refusals_are_one_line_with_a_hint() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    cooper.run(["build", "-t", "a b", "src"]).await.fails_with(2, &["image name `a b` can't be used"]);
    cooper.run(["runs", "show", "ca9"]).await.fails_with(5, &["run `ca9` does not exist"]);
    let mut command = cooper.command(["runs", "list"]);
    command.env("COOPER_TOKEN", "wrong");
    let ended = Ended::new(command.output().await.expect("the binary runs"));
    ended.fails_with(5, &["the access token does not work"]);
    assert!(ended.stderr.contains("hint: log in with"), "{ended:?}");
    cooper.write("wrong", "wrong");
    cooper.run(["login", &server.url, "--token-file", "wrong"]).await.fails_with(5, &["does not work"]);
    cooper.run(["runs", "list"]).await.succeeds();
    cooper.run(["logout"]).await.succeeds();
    cooper.run(["runs", "list", "--server", &server.url]).await.fails_with(5, &["an access token is needed"]);
}

#[tokio::test]
async fn tables_and_logs_are_for_people() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let ended = cooper.run(["runs", "list"]).await;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    let cells: Vec<&str> = lines[1].split_whitespace().collect();
    let expect =
        ["ca1", "QuickBuild", "linux/amd64", "Succeeded", "2023-11-14T22:13:20Z", "2.5s", "localhost:5000/app:v1"];
    assert_eq!(cells, expect);
    assert_eq!(cooper.run(["logs", "CA1"]).await.stdout, LOG);
    assert_eq!(cooper.run(["logs", "ca1", "--follow"]).await.stdout, format!("{LOG}\n"));
    assert!(cooper.run(["runs", "cancel", "ca1"]).await.stderr.contains("Run ca1 is being cancelled."));
}

/// Away from a terminal, Ctrl-C and the signal to end stop waiting and leave the run alone, whichever command waits.
#[tokio::test]
async fn the_log_of_a_tasks_run_goes_on_until_the_run_ends() {
    let server = Server::start(RunStatus::Running, true).await;
    let cooper = logged_in(&server).await;
    for line in [&["task", "logs", "nightly"][..], &["task", "logs", "--run-id", "ca1"], &["task", "logs", "--follow"]]
    {
        let mut child = cooper.command(line).spawn().expect("the binary runs");
        let followed = server.script.followed.notified();
        tokio::time::timeout(Duration::from_secs(60), followed).await.expect("it is followed");
        assert!(child.try_wait().expect("asked").is_none(), "the run goes on: {line:?}");
        server.script.cancelled.notify_one();
        let ended = Ended::new(child.wait_with_output().await.expect("ended"));
        ended.succeeds();
        assert_eq!(ended.stdout, format!("{LOG}\n"), "{line:?}");
    }
    // What has ended is shown as it is kept.
    let server = Server::start(RunStatus::Failed, true).await;
    let cooper = logged_in(&server).await;
    let ended = cooper.run(["task", "logs", "nightly"]).await;
    ended.succeeds();
    assert_eq!(ended.stdout, LOG);
}

#[tokio::test]
async fn a_signal_leaves_the_run_alone_and_says_so() {
    let server = Server::start(RunStatus::Succeeded, true).await;
    let cooper = logged_in(&server).await;
    use rustix::process::Signal;
    let build: &[&str] = &["build", "-t", "app", "src"];
    for (arguments, signal, code) in
        [(build, Signal::INT, 130), (build, Signal::TERM, 143), (&["logs", "ca1", "--follow"], Signal::INT, 130)]
    {
        let mut child = cooper.command(arguments.iter().copied()).spawn().expect("the binary runs");
        // The first line of the log means that the command listens for signals.
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        stdout.read_line(&mut line).await.expect("a line");
        assert_eq!(line, "#1 [1/2] FROM base\n");
        let id = i32::try_from(child.id().expect("running")).expect("an id");
        let id = rustix::process::Pid::from_raw(id).expect("an id");
        rustix::process::kill_process(id, signal).expect("signalled");
        let ended = Ended::new(child.wait_with_output().await.expect("ended"));
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        let told = "Run ca1 goes on. Follow it with `cooper logs ca1 --follow`; end it with `cooper runs cancel ca1`.";
        assert!(ended.stderr.contains(told), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_login_is_private_and_knows_its_server() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    let file = cooper.path().join("config/credentials.toml");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&cooper.path().join("config")), 0o700);
    let mut command = cooper.command(["login", "--token-stdin", &server.url]);
    command.stdin(std::fs::File::open(cooper.path().join("token")).expect("token"));
    Ended::new(command.output().await.expect("the binary runs")).succeeds();
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_servers_names_for_images_count_before_anything_is_sent() {
    let server = Server::start(RunStatus::Succeeded, false).await;
    let cooper = logged_in(&server).await;
    // With the name known, one fault is left.
    cooper.write("task.yaml", "version: v1.1.0\nsteps:\n- cmd: $tool x\n- cmd: -v /:/host tool\n");
    let ended = cooper.run(["run", "-f", "task.yaml", "/dev/null"]).await;
    ended.fails_with(2, &["task.yaml:4:8: flag `-v` is not allowed"]);
    assert!(!ended.stderr.contains("$tool x"), "{ended:?}");

    let alone = Cooper::new();
    alone.write("task.yaml", "version: v1.1.0\nsteps:\n- cmd: $tool x\n");
    let ended = alone.run(["run", "-f", "task.yaml", "/dev/null"]).await;
    ended.fails_with(2, &["task.yaml:3:8: image `$tool` begins with a `$`"]);
    let local = ["run", "--local", "--engine", "/nonexistent.sock", "-f", "task.yaml", "/dev/null"];
    let ended = alone.run([&local[..], &["--image-alias", "tool=localhost:5000/tool:1"]].concat()).await;
    ended.fails_with(6, &["/nonexistent.sock"]);
    let ended = alone.run([&local[..], &["--image-alias", "tool", "--allow-source", "x"]].concat()).await;
    ended.fails_with(2, &["--allow-source: `x`"]);
    assert!(ended.stderr.contains("--image-alias: `tool` is not NAME=IMAGE"), "both are told: {ended:?}");
}
