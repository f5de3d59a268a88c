//! Secrets that task files name: kept, listed, looked for, and never seen in clear.

use std::time::Duration;

use cooper_e2e::{Finished, ServerOptions, TestServer, run_to_end};

const VALUE: &str = "hunter2-kept";
const VARIABLE: &str = "hunter2-variable";

fn set(server: &TestServer, name: &str, value: &str, arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("value");
    std::fs::write(&file, format!("{value}\n")).unwrap();
    let mut command = server.command(&[&["secret", "set", name], arguments].concat());
    command.stdin(std::fs::File::open(&file).unwrap());
    run_to_end(&mut command, Duration::from_secs(30))
}

#[test]
fn secrets_are_kept_with_versions_under_a_key_from_the_environment() {
    let key = "5a".repeat(32);
    let arguments =
        ["--no-agent", "--secret-env", "PROXY *", "--secret-env", "GONE", "--secret-vault", "v.example=store"];
    let environment = [("COOPER_SECRET_KEY", key.as_str()), ("PROXY", VARIABLE)];
    let mut server = TestServer::with(ServerOptions {
        arguments: arguments.map(str::to_owned).into(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ServerOptions::default()
    });
    assert!(!server.data().join("key").exists(), "the key is in the environment alone");
    set(&server, "npm-token", "first", &[]).ok();
    set(&server, "npm-token", VALUE, &["--principal", "admin", "--principal", "ci"]).ok();
    server.stop().ok();
    server.restart();

    let listed = server.cooper(&["secret", "list", "--output", "json"]).ok().json();
    assert_eq!(listed[0]["principals"], serde_json::json!(["admin", "ci"]));
    assert_eq!((&listed[0]["versions"][0]["version"], &listed[0]["versions"][1]["version"]), (&2.into(), &1.into()));
    let places = ["cooper://npm-token", "https://V.example/secrets/npm-token/1", "env://PROXY"];
    let checked = server.cooper(&[&["secret", "check"], &places[..]].concat()).ok().stdout;
    for place in ["cooper://npm-token/2", "https://v.example/secrets/npm-token/1", "env://PROXY"] {
        assert!(checked.contains(place), "{checked}");
    }
    let check = |place: &str| server.cooper(&["secret", "check", place]);
    check("env://GONE").expect(2).error_names(&["GONE was not set"]);
    check("env://PATH").expect(2).error_names(&["env://PATH", "--secret-env"]);
    check("cooper://other").expect(2).error_names(&["cooper secret set other"]);
    server.cooper(&["secret", "allow", "npm-token", "--principal", "ci"]).ok();
    check("cooper://npm-token").expect(2).error_names(&["cooper secret allow npm-token --principal"]);

    let texts = [checked, server.cooper(&["secret", "list"]).ok().stdout, server.log()];
    assert!(texts.iter().all(|text| !text.contains("hunter2")), "{texts:?}");
    for entry in std::fs::read_dir(server.data()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let seen = bytes.windows(7).any(|window| window == b"hunter2");
        assert!(!seen, "{} holds a secret in clear", entry.path().display());
    }
    server.cooper(&["secret", "delete", "npm-token/2"]).ok();
    server.cooper(&["secret", "delete", "npm-token"]).ok();
    server.cooper(&["secret", "delete", "npm-token"]).expect(5).error_names(&["npm-token"]);
}
