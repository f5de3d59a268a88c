//! What `cooper doctor` sees, and what it says to do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cooper_e2e::{Context, Finished, ServerOptions, TestServer};
use serde_json::Value;

use crate::disk_full::SmallDisk;

/// The report of a doctor that is told these arguments too.
fn doctor(server: &TestServer, arguments: &[&str]) -> (Finished, Value) {
    let data = server.data().display().to_string();
    let mut all = vec!["doctor", "--output", "json"];
    if !arguments.contains(&"--data-dir") {
        all.extend(["--data-dir", data.as_str()]);
    }
    let ended = server.cooper(&[&all[..], arguments].concat());
    let report = ended.json();
    (ended, report)
}

#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("there is no check {name}: {report:#}"))
}

/// Asserts that one thing failed and nothing else did, and that what was seen and the remedy hold these words.
#[track_caller]
fn fails(outcome: &(Finished, Value), name: &str, seen: &str, remedy: &str) {
    let (ended, report) = outcome;
    assert_eq!((ended.code, report["ok"].as_bool()), (Some(6), Some(false)), "{ended}");
    let found = check(report, name);
    assert_eq!(found["status"], "failed", "{found:#}");
    assert!(found["seen"].as_str().unwrap().contains(seen), "{found:#}");
    assert!(found["remedy"].as_str().unwrap().contains(remedy), "{found:#}");
    let failed: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["status"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{failed:#?}");
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_healthy_server_is_found_healthy_and_each_ill_is_named() {
    let mut server = TestServer::start();
    let (ended, report) = doctor(&server, &[]);
    assert_eq!((ended.code, report["ok"].as_bool()), (Some(0), Some(true)), "{ended}");
    for name in [
        "settings",
        "server",
        "token",
        "tls",
        "clock",
        "registry",
        "data",
        "secrets",
        "database",
        "engine",
        "platforms",
        "limits",
    ] {
        assert_eq!(check(&report, name)["status"], "ok", "{report:#}");
    }
    // A disk may be busy with other things.
    let writes = check(&report, "durable-writes");
    assert!(writes["seen"].as_str().unwrap().starts_with("a small file took "), "{report:#}");
    assert!(matches!(writes["status"].as_str(), Some("ok" | "warning")), "{report:#}");
    let pid = server.pid().unwrap().as_raw_nonzero().to_string();
    assert!(check(&report, "data")["seen"].as_str().unwrap().contains(&format!("process {pid}")), "{report:#}");
    assert!(check(&report, "limits")["seen"].as_str().unwrap().contains("binds no image build"), "{report:#}");
    assert!(check(&report, "registry")["seen"].as_str().unwrap().contains("loopback"), "{report:#}");
    let data = server.data().display().to_string();
    let text = server.cooper(&["doctor", "--data-dir", &data]).ok();
    assert!(text.stdout.trim_end().lines().last().unwrap().starts_with("Noth"), "{text}");
    // Looking has left nothing behind.
    let names = std::fs::read_dir(server.data()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with(".doctor")));

    fails(&doctor(&server, &["--engine", "/nonexistent/e.sock"]), "engine", "/nonexistent/e.sock", "start the engine");
    let wrong = Context::empty().file("token", "cooper_wrong_token\n");
    let file = wrong.join("token").display().to_string();
    fails(&doctor(&server, &["--token-file", &file]), "token", "token", "cooper login");
    let key = server.data().join("key");
    chmod(&key, 0o644);
    fails(&doctor(&server, &[]), "secrets", "may be read by others", &format!("chmod 600 {}", key.display()));
    chmod(&key, 0o600);
    std::fs::rename(&key, key.with_extension("aside")).unwrap();
    fails(&doctor(&server, &[]), "secrets", "is not there", "backup");
    std::fs::rename(key.with_extension("aside"), &key).unwrap();

    server.stop();
    let down = doctor(&server, &[]);
    fails(&down, "server", "can't be reached", "cooper serve");
    assert!(check(&down.1, "data")["seen"].as_str().unwrap().contains("in use by no server"), "{:#}", down.1);
    std::fs::write(server.data().join("cooper.db"), "this was a database").unwrap();
    let damaged = doctor(&server, &[]);
    assert_eq!(check(&damaged.1, "database")["status"], "failed", "{:#}", damaged.1);
}

#[test]
fn a_name_that_leads_nowhere_and_a_full_disk_are_told() {
    let arguments = vec!["--no-agent".into(), "--registry-name".into(), "localhost:1".into()];
    let server = TestServer::with(ServerOptions { arguments, ..Default::default() });
    fails(&doctor(&server, &[]), "registry", "localhost:1", "--registry-name");

    let disk = SmallDisk::mount(1);
    let full = disk.path().join("full");
    std::fs::write(&full, vec![1; 2 << 20]).unwrap_err();
    let (ended, report) = doctor(&server, &["--data-dir", &disk.path().display().to_string()]);
    assert_eq!(ended.code, Some(6), "{ended}");
    for (name, remedy) in [("data-disk", "free some space"), ("durable-writes", "free some space")] {
        let found = check(&report, name);
        assert_eq!(found["status"], "failed", "{found:#}");
        assert!(found["remedy"].as_str().unwrap().contains(remedy), "{found:#}");
    }
    assert!(check(&report, "durable-writes")["seen"].as_str().unwrap().contains("No space left"), "{report:#}");
}

#[test]
fn without_anything_it_says_what_it_could_not_look_at() {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    server.cooper(&["logout"]).ok();
    let nowhere = Context::empty().join("nowhere").display().to_string();
    let (ended, report) = doctor(&server, &["--data-dir", &nowhere]);
    assert_eq!(ended.code, Some(0), "{ended}");
    for name in ["server", "data"] {
        assert_eq!(check(&report, name)["status"], "skipped", "{report:#}");
    }
    assert_eq!(check(&report, "engine")["status"], "ok", "{report:#}");
    // A setting that is wrong is told as the server's start would tell it.
    let wrong = Context::empty().file("cooper.toml", "slots = 0\n");
    let file = wrong.join("cooper.toml").display().to_string();
    let (ended, report) = doctor(&server, &["--config", &file]);
    assert_eq!(ended.code, Some(6), "{ended}");
    assert!(check(&report, "settings")["seen"].as_str().unwrap().contains("cooper.toml:1"), "{report:#}");
}

#[test]
fn tls_is_looked_at_with_the_trust_of_the_login() {
    let arguments = vec!["--no-agent".into(), "--tls-self-signed".into()];
    let server = TestServer::with(ServerOptions { arguments, ..Default::default() });
    let (ended, report) = doctor(&server, &[]);
    assert_eq!(ended.code, Some(0), "{ended}");
    for name in ["server", "tls", "registry", "secrets"] {
        assert_eq!(check(&report, name)["status"], "ok", "{report:#}");
    }
    assert!(check(&report, "tls")["seen"].as_str().unwrap().contains("trusted here"), "{report:#}");
    // The certificates are part of a backup.
    let place = Context::empty();
    let (data, file, copy) = (server.data().display().to_string(), place.join("b.tar"), place.join("copy"));
    server.cooper(&["backup", "--data-dir", &data, "--output", &file.display().to_string()]).ok();
    server.cooper(&["restore", &file.display().to_string(), "--data-dir", &copy.display().to_string()]).ok();
    let mut count = 0;
    for entry in std::fs::read_dir(server.data().join("tls")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |folder: &Path| std::fs::read(folder.join("tls").join(&name)).unwrap();
        assert_eq!(read(server.data()), read(&copy), "{name:?}");
        count += 1;
    }
    assert!(count > 1, "{count}");

    // Without the login's CA nobody here trusts it.
    let (url, token) = (server.url(), server.token_file().display().to_string());
    server.cooper(&["logout"]).ok();
    fails(&doctor(&server, &["--server", &url, "--token-file", &token]), "server", "not trusted", "--ca-file");
}
