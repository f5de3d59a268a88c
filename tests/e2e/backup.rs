//! A backup of a serving server, and the server that is made of it; and archives that are none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cooper_e2e::{Archive, Context, Engine, Pause, ServerOptions, TestServer, request, unique, wait_until};
use serde_json::Value;

use crate::disk_full::SmallDisk;

fn is_final(run: &Value) -> bool {
    !matches!(run["status"].as_str(), Some("Queued" | "Started" | "Running"))
}

#[test]
fn a_backup_amid_a_build_becomes_the_server_that_it_was() {
    let engine = Engine::new();
    let mut server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    let word = unique();
    let app = Context::new(&format!("FROM {base}\nRUN echo kept-$((40 + 2))-{word}\nCMD [\"echo\", \"kept\"]\n"));
    server.build(&["-t", "app:1"], &app);
    let other = server.cooper(&["token", "create", "reader", "--scope", "read"]).ok().stdout.trim().to_owned();
    let mut pause = Pause::new();
    let script = format!("{} && grep -q hunter2 /run/secrets/t && echo {word}", pause.script());
    let slow = Context::new(&format!("FROM {base}\nRUN --mount=type=secret,id=t {script}\n")).file("secret", "hunter2");
    let secret = format!("id=t,src={}", slow.join("secret").display());
    server.cooper(&["build", "-t", "slow:1", "--no-wait", "--secret", &secret, &slow.display()]).ok();
    pause.begins();

    let place = Context::empty();
    let (file, restored) = (place.join("backup.tar"), place.join("restored"));
    let (file_text, restored_text) = (file.display().to_string(), restored.display().to_string());
    let data = server.data().display().to_string();
    let state = |server: &TestServer| {
        let list: Value = server.cooper(&["token", "list", "--output", "json"]).ok().json();
        (server.run("ca2"), server.cooper(&["logs", "ca2"]).ok().stdout, list)
    };
    let before = state(&server);
    let said = server.cooper(&["backup", "--data-dir", &data, "--output", &file_text]).ok();
    assert!(said.stderr.contains("1 unfinished runs with 1 contexts"), "{said}");
    assert!(said.stderr.contains("warning: the backup holds the server's key"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(place.path()), ["backup.tar"]);
    server
        .cooper(&["backup", "--data-dir", &data, "--output", &file_text])
        .expect(2)
        .error_names(&["is there already"]);
    // The server has felt nothing.
    assert_eq!(server.get("/readyz").status, 200);

    // The machine is lost; another one gets its place and its address.
    server.crash();
    pause.is_ended();
    server.cooper(&["restore", &file_text, "--data-dir", &restored_text]).ok();
    server.cooper(&["restore", &file_text, "--data-dir", &restored_text]).expect(2).error_names(&["is not empty"]);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&restored, &data).unwrap();
    server.restart();

    assert_eq!(state(&server), before);
    pause.end();
    assert!(before.1.contains(&format!("kept-42-{word}")), "{}", before.1);
    let authorization = format!("Authorization: Bearer {other}");
    let as_reader = request(server.authority(), "GET", "/api/v1/runs", &[&authorization], b"").unwrap();
    assert_eq!(as_reader.status, 200);
    engine.login(registry, &server.token_file());
    server.pull(&engine, &format!("{registry}/app:1"));
    assert_eq!(engine.run(&format!("{registry}/app:1")), "kept\n");
    // What was unfinished ends by itself, and its secret still opens.
    wait_until("the run ends", Duration::from_secs(170), || is_final(&server.run("ca3")));
    let run = server.run("ca3");
    assert_eq!(run["status"], "Succeeded", "{run:#}\n{}", server.cooper(&["logs", "ca3"]).stdout);
    // No number comes twice, whatever the old server gave out after the backup.
    let next = server.build(&["-t", "app:2"], &app)["runId"].as_str().unwrap().to_owned();
    assert!(next.len() > "ca99".len(), "{next}");
    let list: Value = server.cooper(&["runs", "list", "--output", "json"]).ok().json();
    let runs = list.as_array().or(list["value"].as_array()).unwrap();
    assert_eq!(runs[0]["runId"], next.as_str(), "{list:#}");
}

/// A server without an agent that holds something of everything: a run that waits, its context, and a blob.
fn filled() -> TestServer {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    server.cooper(&["build", "-t", "app:1", "--no-wait", &Context::new("FROM scratch\n").display()]).ok();
    push_blob(&server, "app", b"a blob that is worth keeping");
    push_blob(&server, "app", &[7; 3 << 20]);
    server
}

fn push_blob(server: &TestServer, repository: &str, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    let token = format!("Authorization: Bearer {}", registry_token(server, repository));
    let begun =
        request(server.authority(), "POST", &format!("/v2/{repository}/blobs/uploads/"), &[&token], b"").unwrap();
    let place = begun.header("location").unwrap_or_else(|| panic!("{begun:?}"));
    let place = place.strip_prefix(&server.url()).unwrap_or(place);
    let glue = if place.contains('?') { '&' } else { '?' };
    let put = request(server.authority(), "PUT", &format!("{place}{glue}digest={digest}"), &[&token], bytes).unwrap();
    assert_eq!(put.status, 201, "{put:?}");
    digest
}

pub(crate) fn registry_token(server: &TestServer, repository: &str) -> String {
    let path = format!("/oauth2/token?service=x&scope=repository:{repository}:pull,push");
    let answer: Value = serde_json::from_str(&server.registry(&path).body).unwrap();
    let token = answer["access_token"].as_str().or(answer["token"].as_str());
    token.unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

/// With the system's own program: the harness has no hash.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let file = Context::empty().file("bytes", bytes);
    let sum = std::process::Command::new("sha256sum").arg(file.join("bytes")).output().unwrap();
    format!("sha256:{}", &String::from_utf8_lossy(&sum.stdout)[..64])
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_no_whole_backup_leaves_nothing_behind() {
    let server = filled();
    let data = server.data().display().to_string();
    let place = Context::empty();
    let path = |name: &str| place.join(name).display().to_string();
    // What a killed backup has left goes, and what is only called alike stays.
    std::fs::create_dir(place.join(".cooper-backup-killed")).unwrap();
    std::fs::write(place.join(".cooper-backup-killed/cooper.db"), "the key in clear").unwrap();
    std::fs::write(place.join(".cooper-backup-notes"), "mine").unwrap();
    server.cooper(&["backup", "--data-dir", &data, "--output", &path("good.tar")]).ok();
    assert_eq!(names(place.path()), [".cooper-backup-notes", "good.tar"]);
    std::fs::remove_file(place.join(".cooper-backup-notes")).unwrap();
    let good = std::fs::read(place.join("good.tar")).unwrap();
    let find = |text: &str| good.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    let blob = find("a blob that is worth keeping");
    // Its entry comes after the database, which knows the same words.
    let context = good.windows(9).rposition(|part| part == b"contexts/").unwrap() + 512;
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let manifest = |files: &str| {
        let text = format!("{{\"format\":1,\"version\":\"0\",\"schema\":1,\"newest\":0,\"files\":[{files}]}}");
        Archive::new().file("cooper-backup.json", &text).tar()
    };
    let of = |name: &str| format!("{{\"name\":\"{name}\",\"size\":1,\"digest\":\"{}\"}}", digest(b"x"));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "cut off"),
        ("noise", b"hello".repeat(1000), "no tar entry"),
        ("cut in the manifest", good[..600].to_vec(), "cut off"),
        ("cut in the database", good[..9000].to_vec(), "cut off at `cooper.db`"),
        ("cut before the end", good[..good.len() - 1024].to_vec(), "cut off"),
        ("longer", [&good[..], b"more"].concat(), "goes on"),
        ("database changed", changed(find("SQLite format 3") + 5000), "`cooper.db` is damaged"),
        ("blob changed", changed(blob), "is damaged"),
        ("context changed", changed(context), "is damaged"),
        ("another tar", Archive::new().file("a", "b").tar(), "`a`"),
        ("link", Archive::new().entry("cooper-backup.json", b'2', "/etc/passwd", b"").tar(), "Symlink"),
        ("newer", Archive::new().file("cooper-backup.json", "{\"format\":2}").tar(), "its form is 2"),
        ("no json", Archive::new().file("cooper-backup.json", "hello").tar(), "no JSON"),
        ("path", manifest(&[of("cooper.db"), of("../../evil")].join(",")), "no backup holds"),
        ("absolute", manifest(&[of("cooper.db"), of("/etc/evil")].join(",")), "no backup holds"),
        ("no database", manifest(&of("key")), "does not begin with the database"),
        ("twice", manifest(&[of("cooper.db"), of("key"), of("key")].join(",")), "twice"),
        (
            "strange database",
            [&manifest(&of("cooper.db"))[..1024], &Archive::new().file("cooper.db", "x").tar()].concat(),
            "database",
        ),
    ];
    for (name, bytes, expect) in cases {
        std::fs::write(place.join("bad.tar"), bytes).unwrap();
        let refused = server.cooper(&["restore", &path("bad.tar"), "--data-dir", &path("new")]);
        assert_eq!(refused.code, Some(2), "{name}: {refused}");
        assert!(refused.stderr.contains(expect), "{name}: {refused}");
        refused.error_names(&["bad.tar"]);
        assert_eq!(names(place.path()), ["bad.tar", "good.tar"], "{name}");
    }
    // Neither a folder with something in it nor a serving server's is touched.
    server.cooper(&["restore", &path("good.tar"), "--data-dir", &path("")]).expect(2).error_names(&["not empty"]);
    server.cooper(&["restore", &path("good.tar"), "--data-dir", &data]).expect(2).error_names(&["not empty"]);
    assert_eq!(names(place.path()), ["bad.tar", "good.tar"]);

    // A disk that is too small; its own folder stays, as empty as it was.
    let disk = SmallDisk::mount(1);
    let mount = disk.path().display().to_string();
    server.cooper(&["restore", &path("good.tar"), "--data-dir", &mount]).expect(6).error_names(&["No space left"]);
    assert_eq!(names(disk.path()), Vec::<String>::new());
    // And one that is not: a mounted disk is a data directory too.
    let disk = SmallDisk::mount(16);
    let mount = disk.path().display().to_string();
    server.cooper(&["restore", &path("good.tar"), "--data-dir", &mount]).ok();
    assert!(disk.path().join("cooper.db").exists() && !disk.path().join("restoring").exists());
}

#[test]
fn a_backup_tells_what_is_missing_and_works_without_a_server() {
    let mut server = filled();
    let data = server.data().display().to_string();
    let place = Context::empty();
    let path = |name: &str| place.join(name).display().to_string();
    server.stop();
    // Through pipes, without a server, and without its key.
    let line = format!(
        "\"$0\" backup --without-key --data-dir '{data}' --output - | \"$0\" restore - --data-dir '{}'",
        path("new")
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]).arg(cooper_e2e::cooper_binary()).env("HOME", place.path());
    let said = cooper_e2e::run_to_end(&mut shell, Duration::from_secs(60)).ok();
    assert!(said.stderr.contains("without the server's key"), "{said}");
    let files = names(&place.join("new"));
    assert!(files.contains(&"cooper.db".to_owned()) && !files.contains(&"key".to_owned()), "{files:?}");
    // A server that was half restored is told from one that has no data yet.
    std::fs::create_dir(place.join("new/restoring")).unwrap();
    let refused = server.cooper(&["serve", "--no-agent", "--listen", "127.0.0.1:0", "--data-dir", &path("new")]);
    refused.expect(2).error_names(&["restore that was broken off"]);
    std::fs::remove_dir_all(place.join("new")).unwrap();

    let digest = digest(b"a blob that is worth keeping");
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blob = server.data().join(format!("blobs/sha256/{}/{hex}", &hex[..2]));
    std::fs::write(&blob, "a blob that is worth nothing").unwrap();
    let backup = ["backup", "--data-dir", &data, "--output", &path("b.tar")];
    server.cooper(&backup).expect(6).error_names(&[hex, "is damaged"]);
    std::fs::remove_file(&blob).unwrap();
    server.cooper(&backup).expect(6).error_names(&[hex, "not on disk"]);
    assert_eq!(names(place.path()), Vec::<String>::new());
    assert!(!names(server.data()).iter().any(|name| name.starts_with(".backup")), "{:?}", names(server.data()));
    let absent = path("nowhere");
    let refused = server.cooper(&["backup", "--data-dir", &absent, "--output", &path("b.tar")]);
    refused.expect(2).error_names(&[&absent]);
}
