//! The script of `docs/webhooks.md`, run by a real Git on a real push, with real openssl and curl.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cooper_engine::trigger::event::{RefChange, SourceChange, SourceEvent};
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::repository::RepositoryUrl;
use cooper_forge::{parse, verify};
use cooper_types::{SecretBytes, Timestamp};
use http::{HeaderMap, HeaderName};

const SECRET: &str = "a secret with 'quotes' and $signs";

/// The one script of the page.
fn script() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/webhooks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```sh\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    script.to_owned()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Gus", "-c", "user.email=gus@x.example", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("was not told"), "git {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Answers one request with 202, and says what was in it.
fn accept_one(listener: &TcpListener) -> (HeaderMap, Vec<u8>) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut headers = HeaderMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("POST /hooks/abc "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    (headers, body)
}

#[test]
fn a_push_is_told_signed_and_understood() {
    let scratch = tempfile::tempdir().unwrap();
    let (bare, work) = (scratch.path().join("app.git"), scratch.path().join("work"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = format!("http://{}/hooks/abc", listener.local_addr().unwrap());
    git(scratch.path(), &["init", "--quiet", "--bare", "app.git"]);
    git(scratch.path(), &["init", "--quiet", "work"]);
    git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
    // Two tasks listen, and the file's last line has no end.
    std::fs::write(bare.join("cooper-hooks"), format!("{hook} {SECRET}\n{hook} {SECRET}")).unwrap();
    let script_path = bare.join("hooks/post-receive");
    std::fs::write(&script_path, script()).unwrap();
    std::fs::set_permissions(&script_path, PermissionsExt::from_mode(0o755)).unwrap();

    let push = |arguments: &[&str]| -> (SourceEvent, String) {
        let mut all = vec!["push", "--quiet", "origin"];
        all.extend_from_slice(arguments);
        let (headers, body) = std::thread::scope(|scope| {
            let taken = scope.spawn(|| (accept_one(&listener), accept_one(&listener)));
            git(&work, &all);
            let (one, other) = taken.join().unwrap();
            assert_eq!(one.1, other.1, "each is told the same");
            one
        });
        let seconds: i64 = headers["cooper-timestamp"].to_str().unwrap().parse().unwrap();
        let now = Timestamp::from_micros((seconds + 1) * 1_000_000);
        let secrets = [SecretBytes::new(b"the next one".to_vec()), SecretBytes::new(SECRET.as_bytes().to_vec())];
        assert_eq!(verify(Provider::Generic, &secrets, &headers, &body, now), Ok(()));
        let late = Timestamp::from_micros((seconds + 301) * 1_000_000);
        let late = verify(Provider::Generic, &secrets, &headers, &body, late).unwrap_err().to_string();
        assert!(late.contains("`Cooper-Timestamp` header is more than 300 s from now"), "{late}");
        let mut altered = body.clone();
        *altered.last_mut().unwrap() = b' ';
        assert!(verify(Provider::Generic, &secrets, &headers, &altered, now).is_err());
        let mut delivery = parse(Provider::Generic, &headers, &body).unwrap();
        assert_eq!(delivery.events.len(), 1);
        (delivery.events.remove(0), delivery.id.to_string())
    };

    std::fs::write(work.join("a"), "1").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "first"]);
    let first = git(&work, &["rev-parse", "HEAD"]);
    let (event, id) = push(&["HEAD:refs/heads/a\"b"]);
    let SourceChange::Push(pushed) = event.change else { panic!("{event:?}") };
    assert_eq!(pushed.branch.as_str(), "a\"b");
    assert!(matches!(&pushed.change, RefChange::Created { after } if after.as_str() == first));
    assert!(!pushed.files.complete());
    let url = RepositoryUrl::parse("https://GIT.example.org/team/app").unwrap();
    assert!(event.repository.unwrap().is_at(&url));

    for name in ["größe", "with \"quotes\"", "with\nline", "a"] {
        std::fs::write(work.join(name), "2").unwrap();
    }
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "second \"line\" \\ [skip ci]"]);
    let (event, next) = push(&["HEAD:refs/heads/a\"b"]);
    assert_ne!(id, next);
    let SourceChange::Push(pushed) = event.change else { panic!("{event:?}") };
    assert!(matches!(&pushed.change, RefChange::Updated { before, .. } if before.as_str() == first));
    let files: Vec<&str> = pushed.files.iter().map(|(path, _)| path).collect();
    assert_eq!(files, ["a", "größe", "with\nline", "with \"quotes\""]);
    assert!(pushed.files.complete());
    assert_eq!(pushed.message.as_deref().map(str::trim), Some("second \"line\" \\ [skip ci]"));

    git(&work, &["tag", "-a", "-m", "a tag", "v1"]);
    let (event, _) = push(&["v1"]);
    let SourceChange::Tag(tag) = event.change else { panic!("{event:?}") };
    assert_eq!(tag.commit.map(String::from), Some(git(&work, &["rev-parse", "HEAD"])));
    assert_eq!(tag.tag.as_str(), "v1");

    let (event, _) = push(&["--delete", "v1"]);
    assert!(matches!(&event.change, SourceChange::Tag(tag) if tag.change.after().is_none()), "{event:?}");
}
