//! Builds of archives behind URLs, of artifacts in the server's own registry, and of a tar on the standard input.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::Duration;

use cooper_e2e::{Archive, Context, FileServer, GitRepository, GitServer, ServerOptions, TestServer, run_to_end};
use serde_json::{Value, json};

const DOCKERFILE: &str = "ARG BASE\nFROM $BASE\nCOPY which /which\nRUN test \"$(cat /which)\" = right\n";
const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn sources_besides_folders_and_repositories_are_built() {
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let base = server.base_image();
    let registry = base.split('/').next().unwrap().to_owned();
    let base = format!("BASE={base}");
    let flags = ["build", "--no-logs", "--output", "json", "--build-arg", &base];

    let tar = Archive::new().file("top/Dockerfile", DOCKERFILE).file("top/which", "right").gzip();
    let files = FileServer::start(move |path, _| match path {
        "/src?sig=hunter2" => FileServer::answer("200 OK", &[], &tar),
        _ => FileServer::answer("404 Not Found", &[], b"no such archive"),
    });
    let source = format!("{}/src?sig=hunter2#:top", files.url());
    let finished = server.cooper(&[&flags[..], &["-t", "app:url", &source]].concat()).ok();
    let run = finished.json();
    assert_eq!(run["sourceLocation"], format!("{}/src?…#:top", files.url()));
    assert_eq!((&run["sourceCommit"], &run["dependencies"][0]["git"]), (&Value::Null, &Value::Null));
    let log = server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    assert!(log.contains("/src?…, sha256:"), "{log}");
    for text in [&log, &finished.stderr, &finished.stdout, &server.log()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let missing = format!("{}/none", files.url());
    let failed = server.cooper(&[&flags[..], &["--no-push", &missing]].concat()).expect(1);
    failed.error_names(&["/none", "answers 404: no such archive"]);

    server.push_artifact("context/app", "v1", &[("Dockerfile", DOCKERFILE), ("which", "right")]);
    let source = format!("oci://{registry}/context/app:v1");
    let run = server.cooper(&[&flags[..], &["-t", "app:oci", &source]].concat()).ok().json();
    assert_eq!(run["sourceLocation"], source);
    let failed = server.cooper(&[&flags[..], &["--no-push", &format!("oci://{registry}/context/app:v2")]].concat());
    failed.expect(1).error_names(&["context/app:v2", "404"]);

    let tar = Archive::new().file("docker/Dockerfile", DOCKERFILE).file("which", "right").tar();
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(&tar).unwrap();
    let piped = |arguments: &[&str], mut input: File| {
        input.rewind().unwrap();
        let mut command = server.command(&[&flags[..], arguments].concat());
        run_to_end(command.stdin(input), DEADLINE)
    };
    let run = piped(&["-t", "app:stdin", "-f", "docker/Dockerfile", "-"], input).ok().json();
    assert_eq!((&run["status"], &run["sourceLocation"]), (&Value::from("Succeeded"), &Value::Null));
    piped(&["--no-push", "-"], tempfile::tempfile().unwrap()).expect(2).error_names(&["standard input is empty"]);

    let task = "version: v1.1.0\nalias:\n  src: [names.yaml]\nsteps:\n  - build: -t $Registry/app:context --build-arg BASE=$base .\n  \
                - cmd: $Registry/app:context cat {{.Values.file}}\n";
    let tar = Archive::new()
        .file("acr-task.yaml", task)
        .file("values.yaml", "file: /which\n")
        .file("names.yaml", &format!("base: {}\n", base.trim_start_matches("BASE=")))
        .file("Dockerfile", DOCKERFILE)
        .file("which", "right");
    let context = upload(&server, &tar.gzip());
    let ask = |file: &str| {
        let body = json!({
            "type": "FileTaskRunRequest", "taskFilePath": file, "valuesFilePath": "values.yaml", "sourceLocation": context,
        });
        let kind = "Content-Type: application/json";
        let answer = server.ask("POST", "/api/v1/runs", &[kind], body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        let id = serde_json::from_str::<Value>(&answer.body).unwrap()["runId"].as_str().unwrap().to_owned();
        let log = server.cooper(&["logs", "--follow", &id]).stdout;
        (server.run(&id), log)
    };
    let (run, log) = ask("acr-task.yaml");
    assert_eq!((&run["status"], &run["sourceLocation"]), (&Value::from("Succeeded"), &Value::Null), "{log}");
    assert!(log.ends_with("right") || log.contains("\nright"), "{log}");
    let (run, log) = ask("nowhere.yaml");
    assert_eq!(run["status"], "Failed", "{log}");
    assert!(run["runErrorMessage"].as_str().unwrap().contains("the source has no file `nowhere.yaml`"), "{run}");
    server.expect_quiet_log();
}

#[test]
fn a_step_fetches_its_own_context_and_no_frontend_is_pulled() {
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    let dockerfile = format!("# syntax=docker/dockerfile:1\n{DOCKERFILE}");
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let commit =
        repository.commit_files(&[("sub/Dockerfile", &dockerfile), ("sub/which", "right"), ("which", "wrong")]);
    let tar = Archive::new().file("top/Dockerfile", &dockerfile).file("top/which", "right").gzip();
    let files = FileServer::start(move |_, _| FileServer::answer("200 OK", &[], &tar));
    let step = |tag: &str, context: String| {
        format!("  - build: -t $Registry/{tag}:1 --build-arg BASE=$Registry/base/busybox:1 {context}\n")
    };
    let task = [
        "version: v1.1.0\nsteps:\n".to_owned(),
        step("one", git.url("app.git") + "#main:sub"),
        step("two", files.url() + "/a?key=hunter2#:top"),
    ];
    let context = Context::new("FROM scratch\nCOPY . /\n").file("task.yaml", task.concat());
    let file = context.join("task.yaml").display().to_string();
    let log = server.cooper(&["run", "-f", &file, "/dev/null"]).ok().stdout;
    assert!(log.contains(&format!("#main:sub at commit {commit}\n")), "{log}");
    assert!(log.contains("`# syntax=docker/dockerfile:1` is the engine's own Dockerfile reader here"), "{log}");
    assert!(!log.contains("hunter2") && !server.log().contains("hunter2"), "{log}");

    let folder = context.display();
    for (flag, place) in
        [("evil/x", "`BUILDKIT_SYNTAX=evil/x`"), ("cooper.invalid/o/ca1:1", "BUILDKIT_SYNTAX=cooper.invalid")]
    {
        let argument = format!("BUILDKIT_SYNTAX={flag}");
        let failed = server.cooper(&["build", "--no-push", "--build-arg", &argument, &folder]).expect(1);
        failed.error_names(&[place, "--frontend"]);
    }
}

/// Uploads an archive as a context, and gives its id.
fn upload(server: &TestServer, archive: &[u8]) -> String {
    let created = server.ask("POST", "/api/v1/contexts", &[], b"").unwrap();
    let created: Value = serde_json::from_str(&created.body).unwrap();
    let uploaded = server.ask("PUT", created["uploadUrl"].as_str().unwrap(), &[], archive).unwrap();
    assert_eq!(uploaded.status, 201, "{}", uploaded.body);
    created["contextId"].as_str().unwrap().to_owned()
}
