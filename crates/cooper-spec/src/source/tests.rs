//! Tables of sources: what is Git, what is local, what is refused and how.

use proptest::prelude::*;

use super::*;

fn git(text: &str) -> GitSource {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Remote(RemoteSource::Git(source))) => source,
        other => panic!("{text}: {other:?}"),
    }
}

fn refused(text: &str) -> String {
    SourceLocation::parse(text).map_or_else(|error| error.to_string(), |source| panic!("{text}: {source:?}"))
}

#[test]
fn git_sources_have_url_reference_and_subdirectory() {
    type Parts = (&'static str, Option<&'static str>, Option<&'static str>);
    let table: &[(&str, Parts)] = &[
        ("https://h.io/o/r.git", ("https://h.io/o/r.git", None, None)),
        ("https://h.io/o/r.git#", ("https://h.io/o/r.git", None, None)),
        ("https://h.io/o/r.git#:", ("https://h.io/o/r.git", None, None)),
        ("https://h.io/o/r.git#main", ("https://h.io/o/r.git", Some("main"), None)),
        ("https://h.io/o/r.git#:app", ("https://h.io/o/r.git", None, Some("app"))),
        ("https://h.io/o/r.git#main:app/web", ("https://h.io/o/r.git", Some("main"), Some("app/web"))),
        ("https://h.io/o/r.git#main:/app//./web/", ("https://h.io/o/r.git", Some("main"), Some("app/web"))),
        ("https://h.io/o/r.git#feature/x#1", ("https://h.io/o/r.git", Some("feature/x#1"), None)),
        ("https://h.io/o/r.git#pull/12/head", ("https://h.io/o/r.git", Some("pull/12/head"), None)),
        ("https://h.io/o/r.git#v1:a:b", ("https://h.io/o/r.git", Some("v1"), Some("a:b"))),
        ("https://H.IO:443/o/r.git", ("https://h.io/o/r.git", None, None)),
        ("HTTPS://h.io:8443/r.git", ("https://h.io:8443/r.git", None, None)),
        ("http://127.1:3000/r.git", ("http://127.0.0.1:3000/r.git", None, None)),
        ("https://h.io/r.git/", ("https://h.io/r.git/", None, None)),
        ("github.com/o/r", ("https://github.com/o/r", None, None)),
        ("github.com/o/r.git#v2", ("https://github.com/o/r.git", Some("v2"), None)),
        ("https://github.com/o/r#main", ("https://github.com/o/r", Some("main"), None)),
        ("https://dev.azure.com/o/p/_git/r#main", ("https://dev.azure.com/o/p/_git/r", Some("main"), None)),
    ];
    for &(text, (url, reference, subdirectory)) in table {
        let source = git(text);
        assert_eq!(source.url.as_str(), url, "{text}");
        assert_eq!(source.reference.as_ref().map(GitReference::as_str), reference, "{text}");
        assert_eq!(source.subdirectory.as_ref().map(Subdirectory::as_str), subdirectory, "{text}");
        assert_eq!(git(&source.to_string()), source, "{text} as it is displayed");
    }
}

#[test]
fn the_kind_of_a_source_is_in_its_text() {
    let sha = format!("sha256:{}", "a".repeat(64));
    let pinned = format!("oci://r.io:5000/a/b@{sha}");
    let table: &[(&str, &str, &str)] = &[
        // The contract's kinds, with our differences: ssh is refused, GitHub's repositories need no `.git`.
        ("https://h.io/r.git#main:dir", "git", "https://h.io/r.git#main:dir"),
        ("http://h.io/r.git", "git", "http://h.io/r.git"),
        ("https://dev.azure.com/o/p/_git/r#main:dir", "git", "https://dev.azure.com/o/p/_git/r#main:dir"),
        ("https://o.VisualStudio.com/p/_git/r", "git", "https://o.visualstudio.com/p/_git/r"),
        ("github.com/o/r", "git", "https://github.com/o/r"),
        ("https://github.com/o/r", "git", "https://github.com/o/r"),
        ("https://github.com/o/r/tree/main", "archive", "https://github.com/o/r/tree/main"),
        ("https://github.com/o", "archive", "https://github.com/o"),
        ("https://h.io/a.tar.gz", "archive", "https://h.io/a.tar.gz"),
        ("HTTPS://H.io:443/a b?", "error", ""),
        ("HTTPS://H.io:443/a.txz", "archive", "https://h.io/a.txz"),
        ("http://h.io/get?id=7#:sub//dir/", "archive", "http://h.io/get?id=7#:sub/dir"),
        ("https://h.io/a.tgz#", "archive", "https://h.io/a.tgz"),
        ("oci://r.io/a/b:v1", "artifact", "oci://r.io/a/b:v1"),
        ("OCI://localhost/b", "artifact", "oci://localhost/b:latest"),
        ("oci://r.io:5000/a/b@SHA", "error", ""),
        (&pinned, "artifact", &pinned),
        ("oci://r.io/b:v1#:sub", "artifact", "oci://r.io/b:v1#:sub"),
        ("/dev/null", "nothing", ""),
        ("-", "stdin", ""),
        (".", "local", ""),
    ];
    for &(text, kind, form) in table {
        let parsed = SourceLocation::parse(text);
        let (found, shown) = match &parsed {
            Ok(SourceLocation::Nothing) => ("nothing", String::new()),
            Ok(SourceLocation::Stdin) => ("stdin", String::new()),
            Ok(SourceLocation::Local(_)) => ("local", String::new()),
            Ok(SourceLocation::Remote(source)) => {
                let kind = match source {
                    RemoteSource::Git(_) => "git",
                    RemoteSource::Archive(_) => "archive",
                    RemoteSource::Artifact(_) => "artifact",
                    RemoteSource::Uploaded(_) => "uploaded",
                };
                assert_eq!(RemoteSource::parse(&source.to_string()).as_ref(), Ok(source), "{text}");
                (kind, source.to_string())
            }
            Err(_) => ("error", String::new()),
        };
        assert_eq!((found, shown.as_str()), (kind, form), "{text}: {parsed:?}");
    }
    for text in [".", "-", "/dev/null"] {
        assert!(RemoteSource::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_a_query_holds_is_shown_to_nobody() {
    let source = RemoteSource::parse("https://h.io/a/b.tgz?sig=hunter2#:sub").unwrap();
    assert_eq!(source.shown(), "https://h.io/a/b.tgz?…#:sub");
    assert_eq!(source.place(), "https://h.io/a/b.tgz?…");
    assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    assert!(source.to_string().contains("hunter2"), "the request needs it");
    let RemoteSource::Archive(archive) = source else { panic!("{source:?}") };
    assert_eq!(archive.url.query(), Some("sig=hunter2"));
    let bare = archive.url.clone().with_query(Some(""));
    assert_eq!(bare.expose(), "https://h.io/a/b.tgz?");
    assert_eq!(bare.with_query(archive.url.query()), archive.url);
}

#[test]
fn a_page_about_a_repository_is_warned_of() {
    let warning = |text: &str| RemoteSource::parse(text).unwrap().warning();
    let expect = "https://github.com/o/r/tree/main is taken as an archive's URL; a repository's is \
                  https://github.com/OWNER/NAME.git";
    assert_eq!(warning("https://github.com/o/r/tree/main").as_deref(), Some(expect));
    for text in [
        "https://github.com/o/r",
        "https://github.com/o/r/archive/refs/heads/main.tar.gz",
        "https://github.com/o/r/releases/download/v1/r.tgz",
        "https://h.io/a.tgz",
        "oci://github.com/a/b:v1",
    ] {
        assert_eq!(warning(text), None, "{text}");
    }
}

#[test]
fn everything_else_without_a_scheme_is_local() {
    for text in [
        ".",
        "src/app",
        "/abs",
        "./github.com/o/r",
        "C:\\app",
        "a#b",
        "a@b",
        "./git@h:p",
        "./-",
        "--",
        "app.git",
        "a b",
    ] {
        assert_eq!(SourceLocation::parse(text), Ok(SourceLocation::Local(text.to_owned())));
    }
}

#[test]
fn refusals_name_the_way_out() {
    let table: &[(&str, &str)] = &[
        ("", "the source is empty"),
        ("git@github.com:o/r.git", "`ssh` is not supported; write https://github.com/o/r.git"),
        ("me@h.io:/o/r.git", "`ssh` is not supported; write https://h.io/o/r.git"),
        ("ssh://git@h.io/o/r.git", "`ssh` is not supported; write https://h.io/o/r.git"),
        ("git://h.io/r.git#main", "`git` is not supported; write https://h.io/r.git"),
        ("file:///etc", "`file://` sources are refused"),
        ("oci://", "names no artifact: image reference is empty"),
        ("oci://app:v1", "`oci://app:v1` names no registry"),
        ("oci://r.io/App:v1", "`oci://r.io/App:v1` names no artifact: "),
        ("oci://r.io/app#v1", "write `#:DIRECTORY`"),
        ("oci://r.io/app:v1#:../x", "leads out"),
        ("https://h.io/a.tgz#main", "`https://h.io/a.tgz` is taken as an archive, which has no `#main`"),
        ("https://h.io/a.tgz#main:x", "or `.git` at the path's end if it is a repository"),
        ("ftp://h/r.git", "sources over `ftp` are not supported"),
        ("https://h.io", "names nothing on its host"),
        ("https://h.io/?x", "names nothing on its host"),
        ("https://h.io/r.git?x=1", "has a query"),
        ("https:///r.git/../..", "source URL"),
        ("https://h.io:99999/r.git", "invalid port"),
        ("https://[::1/r.git", "invalid IPv6 address"),
        ("https://h.io/r .git", "a blank or a control character"),
        ("https://h.io/r\u{7}.git", "a blank or a control character"),
        ("https://h.io\\@evil/r.git", "a backslash"),
        ("https://h.io/r.git#main:../x", "subdirectory `../x` leads out of the source"),
        ("https://h.io/r.git#main:a/../../x", "leads out"),
        ("https://h.io/r.git#a..b", "reference `a..b` holds `..`"),
        ("https://h.io/r.git#-x", "begins with `-`"),
        ("https://h.io/r.git#a b", "holds a blank"),
        ("https://h.io/r.git#a^", "holds a blank, a control character or one of"),
        ("https://h.io/r.git#/a", "has an empty part"),
        ("https://h.io/r.git#.a", "a part that begins with `.`"),
        ("https://h.io/r.git#a.lock", "ends with `.lock`"),
        ("https://h.io/r.git#main:a\nb", "control character"),
    ];
    for &(text, expect) in table {
        let message = refused(text);
        assert!(message.contains(expect), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert!(refused(&format!("https://h.io/{}.git", "a".repeat(5_000))).contains("at most 4096"));
    assert!(refused(&format!("https://h.io/r.git#{}", "a".repeat(600))).contains("is too long"));
}

#[test]
fn credentials_are_refused_and_never_repeated() {
    for text in [
        "https://user:hunter2@h.io/r.git",
        "https://hunter2@h.io/r.git#main",
        "https://user:hunter2@h.io:99999/r.git",
        "https://user:hunter2@/r.git",
        "https://user:hunter2@h.io/r .git",
        "https://user:hunter2/x@h.io/r.git",
        "https://h.io/r.git?token=hunter2",
        "https://user:hunter2@h.io/a.tgz",
        "https://h.io/a.tgz?sig=hunter2#main",
        "https://h.io/?sig=hunter2",
        "oci://user:hunter2@r.io/a:b",
        "ssh://git:hunter2@h.io/r.git",
        "git://user:hunter2@h.io/r.git",
        "ftp://user:hunter2@h.io/r.git",
    ] {
        assert!(!refused(text).contains("hunter2"), "{}", refused(text));
    }
    let message = refused("https://user:hunter2@h.io:8443/r.git");
    assert!(message.contains("`cooper credential set h.io:8443`"), "{message}");
}

proptest! {
    #[test]
    fn a_password_is_shown_nowhere(
        scheme in "https?|ssh|git|ftp|HTTPS",
        user in "[a-z]{0,4}",
        between in "[:/@#?\\\\ %é\u{7}]{1,3}",
        rest in "[a-z/.:@?]{0,12}",
    ) {
        let text = format!("{scheme}://{user}:hunter2{between}@h.io/{rest}");
        // A `#` or `?` before the `@` makes the text another URL, whose password would be no password to anybody.
        prop_assume!(!between.contains(['#', '?']));
        if let Err(error) = SourceLocation::parse(&text) {
            prop_assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
        } else {
            prop_assert!(false, "{text} is taken");
        }
    }

    #[test]
    fn what_is_taken_is_displayed_as_it_can_be_written(
        path in "[a-zA-Z0-9._~%-]{1,8}(/[a-zA-Z0-9._-]{1,8}){0,2}",
        fragment in "(#[a-zA-Z0-9./_:#-]{0,12})?",
    ) {
        for text in [
            format!("https://h.io/{path}.git{fragment}"),
            format!("https://h.io/{path}.tgz?{path}{fragment}"),
            format!("oci://h.io/{path}{fragment}"),
        ] {
            if let Ok(SourceLocation::Remote(source)) = SourceLocation::parse(&text) {
                prop_assert_eq!(SourceLocation::parse(&source.to_string()), Ok(SourceLocation::Remote(source)));
            }
        }
    }

    #[test]
    fn no_text_is_too_much(text: String, url in "https://.{0,40}") {
        drop((SourceLocation::parse(&text), SourceLocation::parse(&url), GitSource::parse(&text)));
        let parent = RepositoryUrl::parse("https://h.io/o/r.git").unwrap();
        drop(parent.submodule(&text));
    }
}

#[test]
fn references_have_an_order_of_meanings() {
    let kind = |text: &str| GitReference::parse(text).unwrap().kind();
    let named = |text: &str, abbreviation: Option<&str>| ReferenceKind::Named {
        candidates: vec![format!("refs/heads/{text}"), format!("refs/tags/{text}"), format!("refs/{text}")],
        abbreviation: abbreviation.map(str::to_owned),
    };
    let sha = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(kind("HEAD"), ReferenceKind::Default);
    assert_eq!(kind("refs/merge-requests/3/head"), ReferenceKind::Full("refs/merge-requests/3/head".to_owned()));
    assert_eq!(kind(sha), ReferenceKind::Commit(sha.to_owned()));
    assert_eq!(kind(&sha.to_uppercase()), ReferenceKind::Commit(sha.to_owned()));
    assert_eq!(kind("main"), named("main", None));
    assert_eq!(kind("abc123"), named("abc123", None));
    assert_eq!(kind("abc1234"), named("abc1234", Some("abc1234")));
    assert_eq!(kind("pull/12/head"), named("pull/12/head", None));
}

#[test]
fn submodules_stand_relative_to_their_parent() {
    let parent = RepositoryUrl::parse("https://h.io:8443/o/r.git").unwrap();
    for (text, expect) in [
        ("../lib.git", "https://h.io:8443/o/lib.git"),
        ("../../p/lib.git", "https://h.io:8443/p/lib.git"),
        ("./lib", "https://h.io:8443/o/r.git/lib"),
        ("https://other.io/lib.git", "https://other.io/lib.git"),
        ("git@h.io:p/lib.git", "https://h.io:8443/p/lib.git"),
        ("ssh://git@h.io:22/p/lib.git", "https://h.io:8443/p/lib.git"),
    ] {
        assert_eq!(parent.submodule(text).map(|url| url.to_string()), Ok(expect.to_owned()), "{text}");
    }
    for (text, expect) in [
        ("../../../x", "above the host"),
        ("/srv/x.git", "it is a path"),
        ("file:///srv/x.git", "neither https:// nor http://"),
        ("git@other.io:p/lib.git", "write https://other.io/p/lib.git"),
        ("https://u:p@other.io/x.git", "holds credentials"),
        ("ext::sh -c x", "it is a path"),
        ("-x", "it is a path"),
    ] {
        let message = parent.submodule(text).expect_err(text).to_string();
        assert!(message.contains(expect), "{text}: {message}");
    }
}

#[test]
fn the_state_of_a_run_holds_the_text() {
    let source = RemoteSource::Git(git("https://h.io/o/r.git#main:app"));
    let json = serde_json::to_string(&source).unwrap();
    assert_eq!(json, "\"https://h.io/o/r.git#main:app\"");
    assert_eq!(serde_json::from_str::<RemoteSource>(&json).unwrap(), source);
    assert!(serde_json::from_str::<RemoteSource>("\"https://u:p@h.io/r.git\"").is_err());
    // An uploaded context can be written down, and is nothing that anybody could ask for.
    let source = RemoteSource::Uploaded(cooper_types::ContextId::parse("c-1").unwrap());
    let json = serde_json::to_string(&source).unwrap();
    assert_eq!((json.as_str(), serde_json::from_str::<RemoteSource>(&json).unwrap()), ("\"context:c-1\"", source));
    assert!(RemoteSource::parse("context:c-1").is_err() && RemoteSource::read("context:../c").is_err());
    // What is taken can be read again, also where it grows by being encoded.
    for length in [600, 2_000] {
        let text = format!("https://h.io/{}.git", "é".repeat(length));
        match GitSource::parse(&text) {
            Ok(source) => assert_eq!(GitSource::parse(&source.to_string()), Ok(source)),
            Err(error) => assert!(length == 2_000 && error.to_string().contains("at most 4096"), "{error}"),
        }
    }
}

#[test]
fn sources_are_found_again_where_they_were() {
    let (commit, digest) = ("0123456789012345678901234567890123456789", cooper_types::Digest::sha256(b"x"));
    let check = |text: &str, expect: &str| {
        let source = RemoteSource::parse(text).expect("valid");
        assert_eq!(source.pinned(Some(commit), Some(&digest)).to_string(), expect);
        assert_eq!(source.pinned(None, None), source);
    };
    check("https://h.io/a.git#main:sub", &format!("https://h.io/a.git#{commit}:sub"));
    check("https://h.io/a.git", &format!("https://h.io/a.git#{commit}"));
    check("oci://h.io/a:v1#:sub", &format!("oci://h.io/a@{digest}#:sub"));
    check("https://h.io/a.tgz?sig=1#:sub", "https://h.io/a.tgz?sig=1#:sub");
}

#[test]
fn queries_can_be_left_away() {
    let without = |text: &str| RemoteSource::parse(text).expect("valid").without_query().map(|it| it.to_string());
    let bare = without("https://h.io/a.tgz?sig=1#:sub").expect("it has one");
    assert_eq!(bare, "https://h.io/a.tgz?#:sub");
    assert_eq!(RemoteSource::parse(&bare).expect("valid").shown(), "https://h.io/a.tgz?…#:sub");
    assert_eq!(without(&bare), None);
    assert_eq!(without("https://h.io/a.tgz"), None);
    assert_eq!(without("https://h.io/a.git#main"), None);
}
