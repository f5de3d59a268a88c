//! What each forge's deliveries become; and that nothing anybody sends is worse than an error.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "events/support.rs"]
mod support;

use std::fmt::Write as _;
use std::sync::LazyLock;

use cooper_engine::trigger::event::{ChangedFiles, HeadOwner, PullRequestAction, RefChange, SourceChange, SourceEvent};
use cooper_engine::trigger::skip_marker;
use cooper_forge::{Delivery, MAX_BODY, MAX_EVENTS, ParseError, parse};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::Fixture;

fn read(fixture: &Fixture) -> Result<Delivery, ParseError> {
    parse(fixture.provider, &fixture.headers, &fixture.body)
}

/// A delivery in lines that a person can compare with the fixture.
fn told(delivery: &Delivery) -> String {
    let mut text = format!("{}\n", delivery.id);
    for event in &delivery.events {
        writeln!(text, "{}", told_event(event)).unwrap();
    }
    text
}

fn told_event(event: &SourceEvent) -> String {
    let place = event.repository.as_ref().map(|repository| {
        let urls: Vec<String> = repository.urls.iter().map(ToString::to_string).collect();
        format!("{} [{}]", repository.name, urls.join(" "))
    });
    let place = place.unwrap_or_else(|| "-".to_owned());
    match &event.change {
        SourceChange::Push(push) => format!(
            "{place} branch {} {} by {}: {} {:?}",
            push.branch,
            told_change(&push.change),
            push.pusher.as_deref().unwrap_or("-"),
            told_files(&push.files),
            push.message
        ),
        SourceChange::Tag(tag) => format!(
            "{place} tag {} {} by {}: commit {}, {:?}",
            tag.tag,
            told_change(&tag.change),
            tag.pusher.as_deref().unwrap_or("-"),
            tag.commit.as_ref().map_or("-", |commit| commit.short()),
            tag.message
        ),
        SourceChange::PullRequest(pull) => {
            let side = |side: &cooper_engine::trigger::event::PullRequestSide| {
                let name = side.repository.as_ref().map_or("-", |repository| repository.name.as_str());
                format!("{name}:{}@{}", side.branch, side.commit.as_ref().map_or("-", |commit| commit.short()))
            };
            let action = match &pull.action {
                PullRequestAction::Opened => "opened",
                PullRequestAction::Synchronized => "synchronized",
                PullRequestAction::Reopened => "reopened",
                PullRequestAction::Ready => "ready",
                PullRequestAction::Other { name } => name,
            };
            let (is_fork, is_unsaid) = (pull.head_owner == HeadOwner::Fork, pull.head_owner == HeadOwner::Unsaid);
            let marks = [(pull.draft, " draft"), (is_fork, " fork"), (is_unsaid, " fork?")];
            let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
            format!(
                "{place} pull request {} {action}{marks} {} -> {} by {}: {:?} {:?}",
                pull.number,
                side(&pull.head),
                side(&pull.base),
                pull.author.as_deref().unwrap_or("-"),
                pull.title,
                pull.message
            )
        }
        SourceChange::Ping => format!("{place} ping"),
        SourceChange::Other { name } => format!("{place} other {name}"),
    }
}

fn told_change(change: &RefChange) -> String {
    let short = |commit: Option<&cooper_engine::trigger::name::CommitId>| {
        commit.map_or("-".to_owned(), |commit| commit.as_str()[..4].to_owned())
    };
    let forced = matches!(change, RefChange::Updated { forced: true, .. });
    format!("{}..{}{}", short(change.before()), short(change.after()), if forced { " forced" } else { "" })
}

fn told_files(files: &ChangedFiles) -> String {
    let mut paths: Vec<String> = files.iter().map(|(path, change)| format!("{change:?} {path}")).collect();
    if !files.complete() {
        paths.push("...".to_owned());
    }
    format!("{paths:?}")
}

#[test]
fn each_fixture_becomes_what_it_says() {
    let table: String = Fixture::all()
        .iter()
        .map(|fixture| format!("## {}\n{}", fixture.name, told(&read(fixture).unwrap())))
        .collect();
    let expected = include_str!("fixtures/expected.txt");
    for (line, (found, expect)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expect, "line {} of expected.txt", line + 1);
    }
    assert_eq!(table.lines().count(), expected.lines().count(), "a fixture has no lines in expected.txt:\n{table}");
}

/// A fixture with one field changed.
fn altered(name: &str, pointer: &str, value: Option<Value>) -> Fixture {
    let mut fixture = Fixture::read(name);
    let mut body: Value = serde_json::from_slice(&fixture.body).unwrap();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(last.to_owned(), value),
        None => parent.remove(last),
    };
    fixture.body = serde_json::to_vec(&body).unwrap();
    fixture
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let many: Vec<Value> = vec![
        json!({"name": "refs/heads/a", "oldObjectId": "1".repeat(40), "newObjectId": "2".repeat(40)});
        MAX_EVENTS + 1
    ];
    for (name, pointer, value, expect) in [
        ("github/push", "/ref", None, "the github event `push` has no `ref`"),
        ("github/push", "/repository", None, "the github event `push` has no `repository`"),
        ("github/push", "/repository/full_name", None, "the github event `push` has no `repository.full_name`"),
        (
            "github/push",
            "/ref",
            Some(json!(7)),
            "the github event `push` has a `ref` that can't be used: it is no text",
        ),
        (
            "github/push",
            "/after",
            Some(json!("no commit")),
            "the github event `push` has a `after` that can't be used: `no commit` is no commit: its digits are hexadecimal",
        ),
        (
            "github/push",
            "/ref",
            Some(json!("refs/heads/../x")),
            "the github event `push` has a `ref` that can't be used: `../x` is no name of a branch or tag: Git allows no `..`, \
             no `@{` and no `.` at its end",
        ),
        (
            "github/push",
            "/commits",
            Some(json!("x")),
            "the github event `push` has a `commits` that can't be used: it is no list",
        ),
        (
            "github/pull-request-opened",
            "/pull_request/head/sha",
            Some(Value::Null),
            "the github event `pull_request` has no `pull_request.head.sha`",
        ),
        (
            "gitlab/merge-request-open",
            "/object_attributes/iid",
            Some(json!("3")),
            "the gitlab event `merge_request` has a `object_attributes.iid` that can't be used: it is no whole number",
        ),
        (
            "gitlab/push",
            "/project/path_with_namespace",
            None,
            "the gitlab event `push` has no `project.path_with_namespace`",
        ),
        ("gitea/push", "/repository/full_name", None, "the gitea event `push` has no `repository.full_name`"),
        ("bitbucket-cloud/push", "/push/changes", None, "the bitbucket-cloud event `repo:push` has no `push.changes`"),
        (
            "bitbucket-cloud/push",
            "/push/changes/1/new/name",
            None,
            "the bitbucket-cloud event `repo:push` has no `push.changes[1].new.name`",
        ),
        (
            "bitbucket-server/pull-request-opened",
            "/pullRequest/toRef/repository",
            None,
            "the bitbucket-server event `pr:opened` has no `pullRequest.toRef.repository`",
        ),
        ("azure-devops/push", "/eventType", None, "the azure-devops event `event` has no `eventType`"),
        ("azure-devops/push", "/resource", None, "the azure-devops event `git.push` has no `resource`"),
        (
            "azure-devops/push",
            "/resource/refUpdates",
            Some(Value::Array(many)),
            "the azure-devops event `git.push` changes more than 100 references; push fewer at once",
        ),
        ("generic/push", "/delivery", None, "the generic event `push` has no `delivery`"),
        ("generic/push", "/repository", None, "the generic event `push` has no `repository`"),
        (
            "generic/push-from-a-shell",
            "/files_base64",
            Some(json!("§")),
            "the generic event `push` has a `files_base64` that can't be used: it is no base64",
        ),
    ] {
        let found = read(&altered(name, pointer, value)).map(|delivery| told(&delivery)).unwrap_err();
        assert_eq!(found.to_string(), expect, "{name} without {pointer}");
    }
}

#[test]
fn requests_of_another_kind_are_refused_in_words() {
    let push = Fixture::read("github/push");
    let mut other = push.clone();
    other.headers.remove("x-github-event");
    let found = read(&other).unwrap_err().to_string();
    assert_eq!(found, "the github delivery's `X-GitHub-Event` header is missing; is the hook another forge's?");
    let mut other = push.clone();
    other.headers.append("x-github-delivery", "2".parse().unwrap());
    let found = read(&other).unwrap_err().to_string();
    assert_eq!(
        found,
        "the github delivery's `X-GitHub-Delivery` header is there several times; is the hook another forge's?"
    );
    let mut other = push.clone();
    other.body = b"payload={}".to_vec();
    assert!(matches!(read(&other), Err(ParseError::NotJson { .. })));
    other.body = vec![b' '; MAX_BODY + 1];
    assert!(matches!(read(&other), Err(ParseError::TooLarge { .. })));
    other.body = "[".repeat(100_000).into_bytes();
    assert!(matches!(read(&other), Err(ParseError::NotJson { .. })));
}

#[test]
fn a_form_holds_the_same_event() {
    let push = Fixture::read("github/push");
    let json = String::from_utf8(push.body.clone()).unwrap();
    let mut form = push.clone();
    form.body =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish().into_bytes();
    form.headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    assert_eq!(read(&form).unwrap(), read(&push).unwrap());
    form.body = b"other=1".to_vec();
    assert!(matches!(read(&form), Err(ParseError::NoPayload { .. })));
}

#[test]
fn ids_tell_deliveries_apart_where_a_forge_gives_none() {
    let one = Fixture::read("gitlab/push-old-release");
    let mut again = one.clone();
    assert_eq!(read(&one).unwrap().id, read(&again).unwrap().id);
    again.headers.insert("x-gitlab-event-uuid", "13792a34-0000-4000-8000-000000000099".parse().unwrap());
    assert_ne!(read(&one).unwrap().id, read(&again).unwrap().id);
    let mut github = Fixture::read("github/push");
    github.headers.remove("x-github-delivery");
    assert!(read(&github).unwrap().id.as_str().starts_with("sha256:"));
}

#[test]
fn long_lists_are_cut_and_said_to_be() {
    let file = |number: usize| json!(format!("f{number}"));
    let many: Vec<Value> = (0..20_000).map(file).collect();
    let delivery = read(&altered("github/push", "/commits/0/added", Some(Value::Array(many)))).unwrap();
    let SourceChange::Push(push) = &delivery.events[0].change else { panic!("{delivery:?}") };
    assert!(!push.files.complete() && push.files.len() == 10_000);
    let message = format!("{}\u{1}\n\nskip-checks: true", "ä".repeat(100_000));
    let delivery = read(&altered("github/push", "/head_commit/message", Some(json!(message)))).unwrap();
    let SourceChange::Push(push) = &delivery.events[0].change else { panic!("{delivery:?}") };
    let kept = push.message.as_deref().unwrap();
    assert!(kept.len() <= 16 << 10 && kept.starts_with("ää") && kept.contains("ä\n…\nä"), "{}", kept.len());
    assert!(kept.ends_with("ä \n\nskip-checks: true") && skip_marker(kept).is_some());
    let commits: Vec<Value> = (0..5000).map(|_| json!({"added": ["a"], "modified": [], "removed": []})).collect();
    for name in ["github/push", "gitea/push"] {
        let delivery = read(&altered(name, "/commits", Some(Value::Array(commits.clone())))).unwrap();
        let SourceChange::Push(push) = &delivery.events[0].change else { panic!("{delivery:?}") };
        assert!(!push.files.complete(), "{name}");
    }
}

#[test]
fn an_event_is_kept_in_little_room_whatever_was_sent() {
    let long = |number: usize| json!(format!("{number}{}", "\"".repeat(4000)));
    let many = Value::Array((0..1500).map(long).collect());
    let delivery = read(&altered("github/push", "/commits/0/added", Some(many))).unwrap();
    let SourceChange::Push(push) = &delivery.events[0].change else { panic!("{delivery:?}") };
    assert!(!push.files.complete());
    assert!(serde_json::to_string(&delivery.events).unwrap().len() < 600 << 10);
    let mut small = Fixture::read("github/push");
    small.body = format!("[{}0]", "{\"\":0},".repeat(2_000_000)).into_bytes();
    assert!(matches!(read(&small), Err(ParseError::TooMuch { .. })));
}

/// Values that don't belong where they are put.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([null, 1, "x", {}])),
        Just(json!(true)),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,60}".prop_map(Value::from),
        Just(json!("0".repeat(40))),
        Just(json!("refs/tags/x")),
        Just(json!("https://[::1/x")),
    ]
}

/// Replaces the value that `at` leads to, counted over all values of the body.
fn replace(value: &mut Value, at: &mut usize, by: &Value) {
    if *at == 0 {
        *value = by.clone();
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| {
            if *at != usize::MAX {
                replace(item, at, by)
            }
        }),
        Value::Object(fields) => fields.values_mut().for_each(|field| {
            if *at != usize::MAX {
                replace(field, at, by)
            }
        }),
        _ => {}
    }
}

/// Read once: the properties take one of them a thousand times.
static ALL: LazyLock<Vec<Fixture>> = LazyLock::new(Fixture::all);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_wrong_value_anywhere_is_an_event_or_an_error(which in any::<prop::sample::Index>(), at in 0_usize..120, by in odd()) {
        let mut fixture = which.get(&ALL).clone();
        let mut body: Value = serde_json::from_slice(&fixture.body).unwrap();
        replace(&mut body, &mut at.clone(), &by);
        fixture.body = serde_json::to_vec(&body).unwrap();
        match read(&fixture) {
            Ok(delivery) => {
                prop_assert!(delivery.events.len() <= MAX_EVENTS);
                prop_assert!(delivery.id.as_str().len() <= 200);
                // What is kept can be kept: it is read again as it was written.
                let kept = serde_json::to_string(&delivery.events).unwrap();
                prop_assert_eq!(serde_json::from_str::<Vec<SourceEvent>>(&kept).unwrap(), delivery.events);
            }
            Err(error) => prop_assert!(error.to_string().contains(fixture.provider.as_str())),
        }
    }

    #[test]
    fn broken_bytes_are_an_event_or_an_error(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut fixture = which.get(&ALL).clone();
        let at = at.index(fixture.body.len());
        if cut { fixture.body.truncate(at) } else { fixture.body[at] = byte }
        drop(read(&fixture));
    }
}

/// Azure DevOps names forks, and nobody promises that it names each: what names none is nobody's own by that.
#[test]
fn a_pull_request_that_may_come_from_a_fork_is_never_taken_for_an_own_one() {
    let value = |text: &str| Some(json!(text));
    for (name, pointer, value, owner) in [
        ("azure-devops/pull-request-created", "/resourceVersion", value("1.0"), HeadOwner::Unsaid),
        ("azure-devops/pull-request-created", "/resourceVersion", None, HeadOwner::Unsaid),
        ("azure-devops/pull-request-fork", "/resource/forkSource", None, HeadOwner::Unsaid),
        ("azure-devops/pull-request-fork", "/resource/forkSource", value("odd"), HeadOwner::Fork),
        ("azure-devops/pull-request-fork", "/resource/forkSource/repository", None, HeadOwner::Fork),
        ("github/pull-request-opened", "/pull_request/head/repo", None, HeadOwner::Fork),
    ] {
        let delivery = read(&altered(name, pointer, value)).unwrap();
        let SourceChange::PullRequest(pull) = &delivery.events[0].change else { panic!("{delivery:?}") };
        assert_eq!(pull.head_owner, owner, "{name} {pointer}");
        assert_eq!(pull.head.repository, None, "{name} {pointer}");
    }
}
