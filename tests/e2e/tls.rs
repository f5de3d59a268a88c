//! A server with TLS: its own CA, who trusts it and who does not, and the engine on the same machine.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_e2e::{Archive, Context, Engine, ServerOptions, TestServer, request};
use sha2::{Digest as _, Sha256};

fn secure_server(more: &[&str]) -> TestServer {
    let arguments = ["--tls-self-signed"].iter().chain(more).map(|text| (*text).to_owned()).collect();
    TestServer::with(ServerOptions { arguments, ..Default::default() })
}

#[test]
fn a_build_and_a_pull_where_the_ca_is_trusted() {
    let engine = Engine::new();
    let mut server = secure_server(&[]);
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let log = server.log();
    assert!(log.contains("--ca-file") && log.contains("certs.d"), "it says how to trust it: {log}");
    // The login keeps the CA: nothing more is said from here on.
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    let context = Context::new(&format!("FROM {base}\nRUN echo safe > /word\nCMD [\"cat\", \"/word\"]\n"));
    server.build(&["-t", "app:1"], &context);
    engine.login(registry, &server.token_file());
    server.pull(&engine, &format!("{registry}/app:1"));
    assert_eq!(engine.run(&format!("{registry}/app:1")), "safe\n");

    // The CA outlives the server's process.
    server.stop();
    server.restart();
    server.cooper(&["runs", "show", "ca2"]).ok();
    server.expect_quiet_log();
}

#[test]
fn who_does_not_trust_the_ca_says_nothing_to_the_server() {
    let server = secure_server(&["--no-agent", "--tls-name", "build.example.com"]);
    let stranger = secure_server(&["--no-agent"]);
    let (url, token) = (server.url(), server.token_file().display().to_string());
    let ca = |server: &TestServer| server.ca_file().display().to_string();
    let login = |more: &[&str]| server.cooper(&[&["login", &url, "--token-file", &token], more].concat());

    let refused = login(&["--ca-file", &ca(&stranger)]).expect(5);
    refused.error_names(&[&url, "certificate that is not trusted"]);
    assert!(refused.stderr.contains("--ca-file"), "the way out is named: {refused}");
    login(&[]).expect(5).error_names(&["not trusted"]);
    login(&["--ca-file", &token]).expect(2).error_names(&[&token, "no certificate"]);
    login(&["--ca-file", &ca(&server)]).ok();

    // The environment names it as well, and a login's CA is for its own server.
    let mut command = stranger.command(&["runs", "list", "--server", &url, "--token-file", &token]);
    command.env("COOPER_CA_FILE", ca(&server));
    cooper_e2e::run_to_end(&mut command, std::time::Duration::from_secs(30)).ok();
    stranger
        .cooper(&["runs", "list", "--server", &url, "--token-file", &token])
        .expect(5)
        .error_names(&["not trusted"]);
}

#[test]
fn a_source_behind_a_ca_of_its_own_is_fetched_where_that_is_named() {
    let other = secure_server(&["--no-agent", "--anonymous-pull"]);
    let archive = Archive::new().file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n").gzip();
    let digest: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = format!("Authorization: Basic {}", STANDARD.encode(format!("tester:{}", other.token())));
    let kind = "Content-Type: application/octet-stream";
    let path = format!("/v2/source/app/blobs/uploads/?digest=sha256:{digest}");
    let answer = request(other.authority(), "POST", &path, &[&credential, kind], &archive).unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let source = format!("{}/v2/source/app/blobs/sha256:{digest}", other.url());
    let build = |more: &[&str]| {
        let arguments = [&["--allow-source", "127.0.0.1"], more].concat().into_iter().map(str::to_owned).collect();
        let server = TestServer::with(ServerOptions { arguments, ..Default::default() });
        server.cooper(&["build", "--no-push", &source])
    };
    build(&[]).expect(1).error_names(&[other.authority(), "certificate"]);
    build(&["--source-ca-file", &other.ca_file().display().to_string()]).ok();
}

#[test]
fn faults_of_certificates_are_told_before_anything_is_bound() {
    let server = TestServer::start();
    let folder = Context::empty().file("cert.pem", "nothing");
    let path = folder.join("cert.pem").display().to_string();
    let serve = |more: &[&str]| {
        let data = folder.join("data").display().to_string();
        server.cooper(&[&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data], more].concat())
    };
    serve(&["--tls-cert", &path]).expect(2).error_names(&["--tls-cert and --tls-key"]);
    serve(&["--tls-cert", &path, "--tls-key", &path]).expect(2).error_names(&[&path, "certificate in PEM"]);
    serve(&["--tls-cert", "/nonexistent", "--tls-key", &path]).expect(2).error_names(&["/nonexistent"]);
    serve(&["--source-ca-file", &path]).expect(2).error_names(&["--source-ca-file", &path, "no certificate in PEM"]);
}
