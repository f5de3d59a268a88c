//! Secrets that task files name: kept, listed, looked for, and never seen in clear.

use std::time::Duration;

use cooper_e2e::{Context, FileServer, Finished, ServerOptions, TestServer, run_to_end};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

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

/// HashiCorp Vault as far as it is asked: a secret whose newest version is the fourth.
fn vault() -> FileServer {
    FileServer::start(|path, head| {
        let value = r#"{"data":{"data":{"value":"hunter2-of-vault"},"metadata":{"version":4}}}"#;
        match (head.contains("Bearer hvs.right"), path) {
            (false, _) => FileServer::answer("403 Forbidden", &[], br#"{"errors":["permission denied"]}"#),
            (true, "/v1/kv/data/ci/npm" | "/v1/kv/data/ci/npm?version=4") => {
                FileServer::answer("200 OK", &[], value.as_bytes())
            }
            (true, _) => FileServer::answer("404 Not Found", &[], br#"{"errors":[]}"#),
        }
    })
}

#[test]
fn values_of_variables_and_vaults_reach_a_step() {
    let (vault, files) = (vault(), Context::empty().file("token", "hvs.right\n"));
    let (address, token) = (vault.url(), files.join("token").display().to_string());
    let arguments = [
        ["--secret-env", "PROXY *"],
        ["--secret-vault", "ci.vault.azure.net=env:CI_ *"],
        ["--secret-vault", "own.vault.azure.net=store"],
        ["--secret-vault", "team.vault.azure.net=vault:kv/ci *"],
        ["--vault-address", &address],
        ["--vault-token-file", &token],
    ];
    let environment = [("PROXY", VARIABLE), ("CI_NPM_TOKEN", "hunter2-mapped")];
    let mut server = TestServer::with(ServerOptions {
        arguments: arguments.as_flattened().iter().map(|&argument| argument.to_owned()).collect(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..ServerOptions::default()
    });
    server.base_image();
    set(&server, "kept", VALUE, &[]).ok();
    let task = "version: v1.1.0\nsecrets:\n  - id: variable\n    keyvault: env://PROXY\n  - id: mapped\n    keyvault: \
                https://CI.vault.azure.net/secrets/NPM-token\n  - id: kept\n    keyvault: \
                https://own.vault.azure.net/secrets/kept\n  - id: vault\n    keyvault: \
                https://team.vault.azure.net/secrets/npm\nsteps:\n  - cmd: $Registry/base/busybox:1 sh -c 'printf \"%s\\n\" \
                \"$A\" \"$B\" \"$C\" \"$D\" > all; echo \"sum $(sha256sum all)\"; cat all'\n    env: ['A={{.Secrets.variable}}', \
                'B={{.Secrets.mapped}}', 'C={{.Secrets.kept}}', 'D={{.Secrets.vault}}']\n";
    let context = Context::empty().file("acr-task.yaml", task);
    let expect = |log: &str, variable: &str| {
        let all = format!("{variable}\nhunter2-mapped\n{VALUE}\nhunter2-of-vault\n");
        let sum: String = Sha256::digest(all).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(log.contains(&format!("sum {sum}  all\n***\n***\n***\n***\n")), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    };
    let run = server.cooper(&["run", "--no-logs", "-o", "json", &context.display()]).ok().json();
    let first = run["runId"].as_str().unwrap();
    expect(&server.cooper(&["logs", first]).ok().stdout, VARIABLE);
    let lock = server.cooper(&["runs", "lock", first]).ok();
    assert!(!lock.stdout.contains("hunter2"), "{lock}");
    let lock = lock.json();
    let versions: Vec<_> = lock["secrets"].as_array().unwrap().iter().map(|secret| &secret["version"]).collect();
    assert_eq!(versions, [&Value::Null, &Value::Null, &"1".into(), &"4".into()], "{lock:#}");
    assert!(
        lock["secrets"].as_array().unwrap()[..2].iter().all(|secret| secret["fingerprint"].is_string()),
        "{lock:#}"
    );

    // A rerun has the versions, where there are such; of the other values it says that they moved.
    server.stop();
    server.set_variable("PROXY", "hunter2-moved");
    server.restart();
    let again = server.cooper(&["runs", "rerun", "--no-logs", "-o", "json", first]).ok().json();
    let log = server.cooper(&["logs", again["runId"].as_str().unwrap()]).ok().stdout;
    expect(&log, "hunter2-moved");
    let moved = format!("warning: secret variable (env://PROXY) has another value than run {first} had");
    assert_eq!((log.contains(&moved), log.matches("has another value").count()), (true, 1), "{log}");
    assert_eq!(vault.seen(), ["/v1/kv/data/ci/npm", "/v1/kv/data/ci/npm?version=4"]);
    assert!(!server.log().contains("hunter2"), "{}", server.log());
}
