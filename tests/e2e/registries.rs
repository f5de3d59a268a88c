//! Private images in a registry besides the server's own: another server of ours, which wants a login for everything.

use cooper_e2e::{Context, Emulation, EmulationTurn, Engine, Finished, ServerOptions, TestServer, unique};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

use super::platforms::{hello, index};

/// A name of this machine that is none of loopback and by which it reaches itself all the same; nothing where it has none.
pub(super) fn machine() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).ok()?;
    let is_here = addresses.into_iter().all(|address| address.ip() == std::net::Ipv4Addr::LOCALHOST);
    (is_here && name != "localhost").then_some(name)
}

/// Keeps a credential for a host.
pub(super) fn keep(server: &TestServer, host: &str, password: &str, flags: &[&str]) {
    let mut input = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut input, password.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let mut command = server.command(&["credential", "set", host, "--username", "robot", "--password-stdin"]);
    command.args(flags).stdin(Stdio::from(input));
    cooper_e2e::run_to_end(&mut command, Duration::from_secs(30)).ok();
}

/// A file with another principal's token, which may start runs and push.
fn token_of(server: &TestServer, principal: &str) -> tempfile::NamedTempFile {
    let body = json!({"principal": principal, "scopes": ["run", "repository:*:pull,push"]}).to_string();
    let answer = server.ask("POST", "/api/v1/tokens", &["Content-Type: application/json"], body.as_bytes()).unwrap();
    let created: Value = serde_json::from_str(&answer.body).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), created["token"].as_str().unwrap()).unwrap();
    file
}

#[test]
fn private_images_of_another_registry_are_pulled_and_pushed() {
    let other = TestServer::start();
    let base = other.base_image();
    let host = base.split('/').next().unwrap().to_owned();
    let server = TestServer::start();
    server.base_image();

    let build = format!("version: v1.1.0\nsteps:\n  - build: -t $Registry/app:1 --build-arg BASE={base} .\n");
    let push =
        format!("version: v1.1.0\nsteps:\n  - build: -t {host}/out/app:1 -f Own .\n  - push: [{host}/out/app:1]\n");
    let whole = format!(
        "version: v1.1.0\nsteps:\n  - id: image\n    build: -t {host}/out/app:1 --build-arg BASE={base} .\n  - push: \
         [{host}/out/app:1]\n  - cmd: {base} echo pulled-once\n  - cmd: {base} echo pulled-again\n    pull: true\n  - build: -t \
         two -f Two --build-arg BASE={base} .\n    when: [image]\n"
    );
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo built > /built\n")
        .file("Own", "FROM scratch\nCOPY Own /\n")
        .file(
            "Two",
            format!("ARG BASE\nFROM $BASE AS base\nFROM {host}/out/app:1\nCOPY --from=base /bin/busybox /again\n"),
        )
        .file("build.yaml", &build)
        .file("push.yaml", &push)
        .file("whole.yaml", &whole);
    let run = |file: &str, more: &[&str]| {
        server.cooper(&[&["run", "-f", file], more, &[context.display().as_str()]].concat())
    };
    let command = |more: &[&str]| {
        let words = format!("{base} echo pulled");
        server.cooper(&[&["run", "--cmd", words.as_str()], more, &["/dev/null"]].concat())
    };
    let keep_one = format!("`cooper credential set {host}`");
    let refused = |finished: Finished, advice: &str| finished.expect(1).error_names(&[host.as_str(), advice]);

    refused(command(&[]), &keep_one);
    refused(run("build.yaml", &[]), &keep_one);
    refused(run("push.yaml", &[]), &keep_one);

    keep(&server, &host, "wrong-password-of-mine", &[]);
    refused(command(&[]), "is not enough");

    keep(&server, &host, &other.token(), &[]);
    let log = run("whole.yaml", &[]).ok().stdout;
    for said in ["\nacb_step_2 | pulled-once\n", "\nacb_step_3 | pulled-again\n"] {
        assert!(log.contains(said), "{log}");
    }
    assert_eq!(other.registry("/v2/out/app/manifests/1").status, 200, "it was pushed");

    // The engine has the image now, and somebody else's run does not get it.
    let token = token_of(&server, "bob");
    let bob = ["--token-file".to_owned(), token.path().display().to_string()];
    refused(command(&bob.each_ref().map(String::as_str)), "is not for this run");

    Engine::new().docker(&["image", "rm", "--force", &base]).ok();
    let told = server.log();
    assert_eq!(told.matches("credential handed to a step").count(), 6, "once for each attempt that needs it:\n{told}");
    for text in [&log, &told] {
        assert!(!text.contains(&other.token()) && !text.contains("wrong-password"), "{text}");
    }
}

#[test]
fn an_index_goes_to_another_registry_and_is_pulled_from_there_for_each_platform() {
    let turn = EmulationTurn::wait();
    let _emulation = Emulation::register(&turn);
    // Its certificate is of a CA of its own, and its name is none that is spoken to in clear.
    let machine = machine().unwrap_or_else(|| "localhost".to_owned());
    let arguments = ["--tls-self-signed", "--tls-name", &machine].map(str::to_owned).to_vec();
    let other = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let host = &format!("{machine}:{}", other.port());
    let ca = other.ca_file().display().to_string();
    let arguments = ["--allow-source", "127.0.0.1", "--source-ca-file", &ca].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let word = unique();
    let name = format!("{host}/out/multi:1");
    let task = format!(
        "version: v1.1.0\nsteps:\n  - id: image\n    build: -t {name} .\n    platforms: [linux/amd64, linux/arm64]\n  - push: \
         [{name}]\n"
    );
    let context = hello(&word).file("acr-task.yaml", task);
    let run = || server.cooper(&["run", "--no-logs", "--output", "json", &context.display()]);
    run().expect(1).error_names(&[&format!("`cooper credential set {host}`")]);
    keep(&server, host, &other.token(), &[]);
    let run = run().ok().json();
    let log = server.cooper(&["logs", run["runId"].as_str().unwrap()]).ok().stdout;
    for line in ["image-linux-amd64 | #", "image-linux-arm64 | #"] {
        assert!(log.contains(&format!("\n{line}")), "one can tell whose it is: {log}");
    }
    let platforms: Vec<String> = index(&other, "out/multi", "1").into_iter().map(|(platform, _)| platform).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);

    let engine = Engine::new();
    engine.login(host, &other.token_file());
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        engine.docker(&["pull", "--quiet", "--platform", &platform, &name]).ok();
        let said = engine.docker(&["run", "--rm", "--platform", &platform, &name]).ok().stdout;
        assert_eq!(said, format!("{architecture} says {word}\n"));
    }
    engine.docker(&["image", "rm", "--force", &name]).ok();
}
