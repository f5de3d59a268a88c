//! Tables of sources: what is Git, what is local, what is refused and how.

use proptest::prelude::*;

use super::*;

fn git(text: &str) -> GitSource {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Git(source)) => source,
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
fn everything_else_without_a_scheme_is_local() {
    for text in
        [".", "src/app", "/abs", "./github.com/o/r", "C:\\app", "a#b", "a@b", "./git@h:p", "-", "app.git", "a b"]
    {
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
        ("oci://r.io/a:b", "not supported yet"),
        ("ftp://h/r.git", "sources over `ftp` are not supported"),
        ("https://h.io/a.tar.gz", "`https://h.io/a.tar.gz` does not look like a Git repository; add `.git`"),
        ("https://github.com/o", "does not look like a Git repository"),
        ("https://h.io", "names no repository"),
        ("https://h.io/r.git?x=1", "has a query"),
        ("https:///r.git/../..", "source URL"),
        ("https://h.io:99999/r.git", "invalid port"),
        ("https://[::1/r.git", "invalid IPv6 address"),
        ("https://h.io/r .git", "a blank or a control character"),
        ("https://h.io/r\u{7}.git", "a blank or a control character"),
        ("https://h.io\\@evil/r.git", "a backslash"),
        ("https://h.io/r.git#main:../x", "subdirectory `../x` leads out of the repository"),
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
        if let Ok(SourceLocation::Git(source)) = SourceLocation::parse(&format!("https://h.io/{path}.git{fragment}")) {
            prop_assert_eq!(SourceLocation::parse(&source.to_string()), Ok(SourceLocation::Git(source)));
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
    let source = git("https://h.io/o/r.git#main:app");
    let json = serde_json::to_string(&source).unwrap();
    assert_eq!(json, "\"https://h.io/o/r.git#main:app\"");
    assert_eq!(serde_json::from_str::<GitSource>(&json).unwrap(), source);
    assert!(serde_json::from_str::<GitSource>("\"https://u:p@h.io/r.git\"").is_err());
    // What is taken can be read again, also where it grows by being encoded.
    for length in [600, 2_000] {
        let text = format!("https://h.io/{}.git", "é".repeat(length));
        match GitSource::parse(&text) {
            Ok(source) => assert_eq!(GitSource::parse(&source.to_string()), Ok(source)),
            Err(error) => assert!(length == 2_000 && error.to_string().contains("at most 4096"), "{error}"),
        }
    }
}
