//! Tables of the words of a build and what they become (contract §2.1, §2.3).

use super::super::words::{self, Rules};
use super::*;

fn read_text(text: &str) -> ReadBuild {
    let words = words::split(text, Rules { windows: false, lines_go_on: true }).expect(text).words;
    read(&words, &[("FOO".to_owned(), "bar".to_owned())])
}

fn line(text: &str) -> BuildLine {
    let read = read_text(text);
    assert!(read.notes.iter().all(|note| !note.fault), "{text}: {:?}", read.notes);
    read.line
}

fn notes(text: &str) -> Vec<String> {
    read_text(text).notes.iter().map(|note| format!("{}; {}", note.message, note.help)).collect()
}

#[test]
fn the_contract_s_vectors() {
    let git = |text: &str| BuildContext::Git(text.to_owned());
    let here = || BuildContext::Local(".".to_owned());
    let table = [
        ("-t a:1 .", None, None, here()),
        ("-f src/D -t a https://h/r.git#main:sub", Some("src/D"), None, git("https://h/r.git#main:sub")),
        ("https://h/r.git -f D -t a", Some("D"), None, git("https://h/r.git")),
        ("--target stage -t a https://h/r.git#:x", None, Some("stage"), git("https://h/r.git#:x")),
        // From here on ACR's scanner is wrong, and Docker is right.
        ("--file=D -t a .", Some("D"), None, here()),
        ("--no-cache https://h/r.git", None, None, git("https://h/r.git")),
        ("--build-arg \"A=x y\" -f D .", Some("D"), None, here()),
        (". --build-arg \"A=x y\"", None, None, here()),
        ("--build-arg \"A=x y\" https://h/r.git", None, None, git("https://h/r.git")),
        ("", None, None, here()),
        ("-f 'my D' -t a 'my app'", Some("my D"), None, BuildContext::Local("my app".to_owned())),
        ("-f a -f b .", Some("b"), None, here()),
    ];
    for (text, dockerfile, target, context) in table {
        let line = line(text);
        assert_eq!((line.dockerfile.as_deref(), line.target.as_deref()), (dockerfile, target), "{text}");
        assert_eq!(line.context, context, "{text}");
    }
}

#[test]
fn tags_arguments_and_the_rest() {
    let line = line(
        "-t 'a' --tag=r.io/b:2 -ta --build-arg X=1 --build-arg FOO --label k=v --label k=w --label e --no-cache --pull \
         --platform linux/amd64,linux/arm64 --network host --add-host h:::1 --secret id=s,src=/run/s --secret id=FOO \
         --cache-from type=registry,ref=r.io/c --cache-to x .",
    );
    assert_eq!(line.images.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:latest", "r.io/b:2"]);
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(line.arguments, [pair("X", "1"), pair("FOO", "bar")]);
    assert_eq!(line.labels, [pair("k", "w"), pair("e", "")]);
    assert!(line.no_cache && line.pull);
    assert_eq!(line.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    assert_eq!(line.network.as_deref(), Some("host"));
    assert_eq!(line.add_hosts, [pair("h", "::1")]);
    let secrets = [
        BuildSecret { id: "s".to_owned(), source: BuildSecretSource::File("/run/s".to_owned()) },
        BuildSecret { id: "FOO".to_owned(), source: BuildSecretSource::Env("FOO".to_owned()) },
    ];
    assert_eq!(line.secrets, secrets);
    assert_eq!((line.cache_from.len(), line.cache_to.len()), (1, 1));
    assert!(!self::line("--no-cache=false --pull=0 .").no_cache);
}

#[test]
fn what_is_wrong_is_told_with_the_way_out() {
    let table = [
        ("-t app . src", "two contexts: `.` and `src`; name one folder or URL; quote a value that holds blanks"),
        ("-", "context `-` would be read from a terminal; name a folder of the workspace, or a URL"),
        ("-t App .", "image reference `App` is not valid"),
        ("-t $Registry/app .", "image name `$Registry/app` holds a `$`; aliases such as `$Registry` count from"),
        (
            "-t app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 .",
            "holds a digest; name a tag",
        ),
        ("--build-arg =x .", "a `--build-arg` has no name; write --build-arg NAME=VALUE"),
        ("--build-arg NONE .", "build argument `NONE` has no value; it is left out"),
        ("--platform linux/mips .", "platform `linux/mips` is not"),
        ("--network mine .", "flag `--network` of a build is `mine`; BuildKit knows default, none and host"),
        ("--add-host x .", "flag `--add-host` is `x`; write NAME:ADDRESS"),
        ("--secret src=x .", "a `--secret` has no id"),
        ("--secret id=a,foo=b .", "flag `--secret` holds `foo=b`"),
        ("--secret id=a,env=NONE .", "build secret `a` is `NONE` of the environment, which the step doesn't set"),
        ("--secret id=a --secret id=a .", "build secret `a` is there twice"),
        ("-f '' .", "flag `-f` names no file"),
        ("--push -t a .", "flag `--push` is not allowed; push with a `push` step"),
        ("--image a .", "flag `--image` is not allowed; name the image with `-t`"),
        ("--memory 1g .", "flag `--memory` has no effect; BuildKit"),
        ("-m 1g .", "flag `-m` has no effect"),
        (
            "--cache-from r.io/a .",
            "flag `--cache-from` has no effect; keep the build's cache with the property `cache: enabled`",
        ),
        ("--cache-to type=inline .", "flag `--cache-to` has no effect"),
        ("--biuld-arg A=1 .", "`docker build` has no flag `--biuld-arg`; did you mean `--build-arg`?"),
        ("https://github.com/o/r/x", "context `https://github.com/o/r/x` is taken for an archive; end the URL"),
    ];
    for (text, expected) in table {
        let notes = notes(text);
        assert!(notes.iter().any(|note| note.contains(expected)), "{text}: {notes:?}");
    }
}

#[test]
fn contexts_are_classified_as_in_the_contract() {
    let table = [
        (".", "local"),
        ("src/app", "local"),
        ("git://h/r", "git"),
        ("git@h:o/r", "git"),
        ("github.com/o/r", "git"),
        ("https://h/r.git", "git"),
        ("http://h/r.git#main", "git"),
        ("https://h/r.git#", "git"),
        ("https://github.com/o/r", "git"),
        ("https://h/a.tar.gz", "tarball"),
        ("https://dev.azure.com/o/p/_git/r#main:dir", "git"),
        ("https://user@dev.azure.com/o/p/_git/r", "git"),
        ("https://dev.azure.com/o/p/_git/r?x=1", "tarball"),
        ("http://dev.azure.com/o/p/_git/r", "git"),
        ("https://o.visualstudio.com/p/_git/r", "git"),
        ("https://O.VisualStudio.com/p/_GIT/r", "git"),
        ("https://xdev.azure.com/o/p/_git/r", "git"),
        ("oci://r.io/a:1", "oci"),
        ("OCI://r.io/a:1", "oci"),
        ("file.git", "local"),
    ];
    for (text, expected) in table {
        let kind = match BuildContext::of(text) {
            BuildContext::Local(_) => "local",
            BuildContext::Git(_) => "git",
            BuildContext::Tarball(_) => "tarball",
            BuildContext::Oci(_) => "oci",
        };
        assert_eq!(kind, expected, "{text}");
    }
}
