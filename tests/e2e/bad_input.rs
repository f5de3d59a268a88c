//! Bad input is one line that names the object, and the server stays up.

use std::time::Duration;

use cooper_e2e::{Archive, Context, Finished, TestServer, request, wait_until};

/// Whether a mistake shows in the command's own error line, or in the run's.
#[track_caller]
fn refused(server: &TestServer, finished: Finished, code: i32, names: &[&str]) {
    finished.expect(code).error_names(names);
    assert_eq!(server.get("/readyz").status, 200, "the server stays up");
}

#[test]
fn mistakes_in_a_build_are_named() {
    let server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    let good = Context::new(&format!("FROM {base}\nRUN true\n"));
    let build = |context: &Context, flags: &[&str]| {
        let folder = context.display();
        server.cooper(&[&["build"], flags, &[folder.as_str()]].concat())
    };

    let empty = Context::empty().file("readme", "no Dockerfile here");
    refused(&server, build(&empty, &["-t", "a:1"]), 2, &["Dockerfile"]);
    refused(&server, build(&good, &["-t", "a:1", "-f", "other.Dockerfile"]), 2, &["other.Dockerfile"]);
    refused(&server, build(&good, &["-t", "Not A Name"]), 2, &["Not A Name"]);
    refused(&server, build(&good, &["-t", "a:{{.Run.Nonsense}}"]), 2, &["Run.Nonsense"]);
    refused(&server, build(&good, &["-t", "a:1", "--platform", "plan9/mips"]), 2, &["plan9/mips"]);
    refused(&server, build(&good, &["-t", "a:1", "--platform", "windows/amd64"]), 2, &["windows/amd64"]);
    refused(&server, build(&good, &["-t", "a:1", "--secret", "id=x,src=/does/not/exist"]), 2, &["/does/not/exist"]);
    let nowhere = build(&good, &["-t", "a:1", "--agent-pool", "gpu"]).expect(5);
    nowhere.error_names(&["agent pool `gpu` does not exist", "cooper pool list"]);
    for flags in [&["-t", "Not A Name"][..], &["-t", "elsewhere.example/a:1"], &["-t", "a", "--agent-pool", "gpu"]] {
        let early = build(&good, flags);
        assert!(!early.stderr.contains("Packing"), "before anything is sent: {early}");
    }
    let gone = server.cooper(&["build", "-t", "a:1", "/does/not/exist"]);
    refused(&server, gone, 2, &["/does/not/exist"]);

    let bad_line = Context::new(&format!("FROM {base}\nRUN true\nFRMO nowhere\n"));
    refused(&server, build(&bad_line, &["-t", "a:1"]), 1, &["3", "FRMO"]);
    let unknown = Context::new(&format!("FROM {registry}/base/no-such-image:9\n"));
    refused(&server, build(&unknown, &["-t", "a:1"]), 1, &["base/no-such-image:9"]);
    let target = Context::new(&format!("FROM {base} AS one\n"));
    refused(&server, build(&target, &["-t", "a:1", "--target", "two"]), 1, &["two"]);

    server.expect_quiet_log();
    // After all of that, a build works.
    server.build(&["-t", "a:1"], &good);
}

#[test]
fn a_folder_that_cannot_be_read_is_named() {
    let server = TestServer::start();
    let file = Context::empty().file("not-a-folder", "");
    let path = file.join("not-a-folder").display().to_string();
    server.cooper(&["build", "-t", "a:1", &path]).expect(2).error_names(&[&path]);
}

#[test]
fn hostile_archives_are_refused() {
    let server = TestServer::start();
    let dockerfile = || Archive::new().file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let victim = server.data().join("victim");
    let cases: [(&str, Vec<u8>); 6] = [
        ("a path that leaves", dockerfile().file("../../victim", "bad").gzip()),
        ("an absolute path", dockerfile().file(victim.to_str().unwrap(), "bad").gzip()),
        ("a device", dockerfile().entry("disk", b'3', "", b"").gzip()),
        ("a hard link that leaves", dockerfile().entry("link", b'1', "/etc/passwd", b"").gzip()),
        (
            "a file through a link",
            dockerfile().entry("out", b'2', server.data().to_str().unwrap(), b"").file("out/victim", "bad").gzip(),
        ),
        ("no archive", b"this is no archive".to_vec()),
    ];
    for (what, archive) in cases {
        let outcome = build_archive(&server, &archive);
        assert!(!outcome.starts_with("Succeeded"), "{what}: {outcome}");
        assert!(!victim.exists(), "{what} wrote outside of its context");
        assert_eq!(server.get("/readyz").status, 200, "{what}: the server stays up");
    }
    let harmless = build_archive(&server, &dockerfile().file("data", "fine").gzip());
    assert!(harmless.starts_with("Succeeded"), "{harmless}");
}

/// Uploads an archive and builds it by the API: the upload's refusal, or the run's last status with its message.
fn build_archive(server: &TestServer, archive: &[u8]) -> String {
    let token = format!("Authorization: Bearer {}", server.token());
    let ask = |method: &str, path: &str, kind: &str, body: &[u8]| {
        let kind = format!("Content-Type: {kind}");
        request(server.authority(), method, path, &[&token, &kind], body).unwrap()
    };
    let created = ask("POST", "/api/v1/contexts", "application/json", b"{}");
    assert_eq!(created.status, 201, "{created:?}");
    let created: serde_json::Value = serde_json::from_str(&created.body).unwrap();
    let context = created["contextId"].as_str().unwrap();
    let uploaded = ask("PUT", &format!("/api/v1/contexts/{context}"), "application/gzip", archive);
    if uploaded.status != 201 {
        assert!((400..500).contains(&uploaded.status), "{uploaded:?}");
        return format!("refused: {}", uploaded.body);
    }
    let body = serde_json::json!({
        "type": "DockerBuildRequest",
        "imageNames": ["hostile:1"],
        "sourceLocation": context,
        "platform": {"os": "Linux", "architecture": "amd64"},
    });
    let accepted = ask("POST", "/api/v1/runs", "application/json", body.to_string().as_bytes());
    if accepted.status != 201 {
        assert!((400..500).contains(&accepted.status), "{accepted:?}");
        return format!("refused: {}", accepted.body);
    }
    let run: serde_json::Value = serde_json::from_str(&accepted.body).unwrap();
    let id = run["runId"].as_str().unwrap();
    server.cooper(&["logs", id, "--follow"]);
    let run = server.run(id);
    format!("{} {}", run["status"].as_str().unwrap(), run["runErrorMessage"])
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let server = TestServer::start();
    // A port that nobody listens on, and that the system gives to nobody.
    let url = "http://127.0.0.1:1";
    let token = server.token_file().display().to_string();
    let context = Context::new("FROM scratch\n");
    for command in [&["runs", "list"][..], &["logs", "ca1"], &["build", "-t", "a:1", &context.display()]] {
        let arguments = [command, &["--server", url, "--token-file", &token]].concat();
        server.cooper(&arguments).expect(5).error_names(&[url]);
    }
    server.cooper(&["login", url, "--token-file", &token]).expect(5).error_names(&[url]);
}

#[test]
fn a_build_without_an_engine_waits_and_says_for_what() {
    let options = cooper_e2e::ServerOptions {
        arguments: vec!["--engine".into(), "/does/not/exist.sock".into()],
        ..Default::default()
    };
    let server = TestServer::with(options);
    let context = Context::new("FROM scratch\n");
    let queued = server.cooper(&["build", "-t", "a:1", "--no-wait", "--output", "json", &context.display()]).ok();
    let id = queued.json()["runId"].as_str().unwrap().to_owned();
    let run = server.run(&id);
    assert_eq!(run["status"], "Queued", "{run:#}");
    wait_until("it says which engine is missing", Duration::from_secs(30), || {
        server.run(&id)["pendingReason"].as_str().is_some_and(|reason| reason.contains("/does/not/exist.sock"))
    });
    let shown = server.cooper(&["agent", "show", "local"]).ok().stdout;
    assert!(
        shown.contains("connected") && shown.contains("Takes no work: ") && shown.contains("exist.sock"),
        "{shown}"
    );
    // A run that waits can be cancelled.
    server.cooper(&["runs", "cancel", &id]).ok();
    assert_eq!(server.run(&id)["status"], "Canceled");
}

#[test]
fn a_platform_that_no_agent_builds_waits_and_says_so() {
    let server = TestServer::start();
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let other = if cfg!(target_arch = "x86_64") { "linux/arm/v6" } else { "linux/386" };
    let flags = ["build", "-t", "a:1", "--platform", other, "--no-wait", "--output", "json"];
    let queued = server.cooper(&[&flags[..], &[context.display().as_str()]].concat()).ok();
    let id = queued.json()["runId"].as_str().unwrap().to_owned();
    wait_until("the run says what it waits for", Duration::from_secs(20), || {
        let run = server.run(&id);
        assert_eq!(run["status"], "Queued", "{run:#}");
        run["pendingReason"].as_str().is_some_and(|reason| reason.contains(other))
    });
    server.cooper(&["runs", "cancel", &id]).ok();
    assert_eq!(server.run(&id)["status"], "Canceled");
}
