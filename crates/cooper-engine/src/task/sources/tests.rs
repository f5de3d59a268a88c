//! What a task's source triggers make of events.

use std::collections::BTreeMap;

use cooper_types::{PrincipalName, Scopes, TaskName, Timestamp};

use super::*;
use crate::task::{DockerChange, StepChange, TaskChange, TaskFault};
use crate::trigger::event::{ChangedFiles, Push, RefChange, TagPush};
use crate::trigger::name::{CommitId, RefName};
use crate::trigger::repository::EventRepository;

fn settings() -> SourceSettings {
    SourceSettings {
        provider: Provider::GitHub,
        enabled: true,
        commits: true,
        pull_requests: false,
        tags: true,
        branches: Vec::new(),
        tag_names: Vec::new(),
        paths: Vec::new(),
        exclude_paths: Vec::new(),
        drafts: false,
        skip_ci: true,
        fork_pool: None,
        cancel_superseded: false,
    }
}

fn name(text: &str) -> TriggerName {
    TriggerName::parse(text).expect("valid")
}

fn task(context: &str, sources: &[(&str, SourceSettings)]) -> Result<Task, TaskFault> {
    let step = DockerChange { image_names: Some(vec!["app:1".to_owned()]), ..DockerChange::default() };
    let change = TaskChange {
        step: Some(StepChange::Docker(step)),
        source: Some(Some(RemoteSource::parse(context).expect("valid"))),
        sources: sources.iter().map(|(text, settings)| (name(text), Some(settings.clone()))).collect(),
        ..TaskChange::default()
    };
    let principal = PrincipalName::parse("ann").expect("valid");
    let task = TaskName::parse("nightly").expect("valid");
    Task::new(task, principal, Scopes(Vec::new()), change, Timestamp::from_micros(0))
}

fn commit() -> CommitId {
    CommitId::parse(&"a1".repeat(20)).expect("valid")
}

fn event(change: SourceChange) -> SourceEvent {
    let urls = vec![RepositoryUrl::parse("git@github.com:acme/shop.git").expect("valid")];
    let repository = EventRepository { name: "acme/shop".to_owned(), urls, any_case: true };
    SourceEvent { repository: Some(repository), change }
}

fn push(branch: &str) -> SourceEvent {
    event(SourceChange::Push(Push {
        branch: RefName::parse(branch).expect("valid"),
        change: RefChange::Created { after: commit() },
        files: ChangedFiles::unknown(),
        message: None,
        pusher: None,
    }))
}

#[test]
fn the_contexts_branch_is_meant_where_none_is_named() {
    for (context, branch, expect) in [
        ("https://github.com/acme/shop.git", "main", true),
        ("https://github.com/acme/shop.git", "master", true),
        ("https://github.com/acme/shop.git", "topic", false),
        ("https://github.com/acme/shop.git#dev:app", "dev", true),
        ("https://github.com/acme/shop.git#dev:app", "main", false),
        ("https://github.com/acme/shop.git#refs/heads/a{b}!c", "a{b}!c", true),
        ("https://github.com/acme/shop.git#heads/x", "x", true),
    ] {
        let task = task(context, &[("t", settings())]).expect("a task");
        let fired = task.rules(Provider::GitHub, |_| false).fires(&push(branch));
        assert_eq!(fired.is_ok(), expect, "{context} {branch}: {fired:?}");
        if let Err(refusal) = fired {
            assert_eq!(refusal.rule, Rule::Branch);
        }
    }
}

#[test]
fn a_task_builds_the_branch_of_its_context() {
    for (context, branches, branch, expect) in [
        ("https://github.com/acme/shop.git", &[][..], "main", true),
        ("https://github.com/acme/shop.git", &["dev", "main"], "main", true),
        ("https://github.com/acme/shop.git", &["dev", "main"], "dev", false),
        ("https://github.com/acme/shop.git", &["trunk"], "trunk", true),
        ("https://github.com/acme/shop.git", &["*"], "feature", false),
        ("https://github.com/acme/shop.git", &["ma*"], "master", true),
        ("https://github.com/acme/shop.git#dev", &["dev", "main"], "dev", true),
        ("https://github.com/acme/shop.git#dev", &["dev", "main"], "main", false),
        ("https://github.com/acme/shop.git#refs/heads/dev:app", &["*"], "dev", true),
        ("https://github.com/acme/shop.git#refs/tags/dev", &["*"], "dev", false),
        (&format!("https://github.com/acme/shop.git#{}", "a1".repeat(20)), &["*"], "main", false),
    ] {
        let branches = branches.iter().map(|&text| text.to_owned()).collect();
        let task = task(context, &[("on-push", SourceSettings { branches, ..settings() })]).expect("a task");
        assert_eq!(task.builds_branch(&name("on-push"), branch), expect, "{context} {branch}");
    }
}

#[test]
fn what_is_built_is_the_commit_in_the_contexts_folder() {
    let task = task("https://github.com/acme/shop.git#main:app", &[("t", settings())]).expect("a task");
    let fired = task.rules(Provider::GitHub, |_| false).fires(&push("main")).expect("it fires");
    assert_eq!(fired.source.to_string(), format!("https://github.com/acme/shop.git#{}:app", commit()));
    let tag = |leads_to: Option<CommitId>| {
        let tag = RefName::parse("v1").expect("valid");
        let change = RefChange::Created { after: commit() };
        event(SourceChange::Tag(TagPush { tag, change, commit: leads_to, message: None, pusher: None }))
    };
    let fired = task.rules(Provider::GitHub, |_| false).fires(&tag(None)).expect("it fires");
    assert_eq!(fired.source.to_string(), "https://github.com/acme/shop.git#refs/tags/v1:app");
    let other = CommitId::parse(&"b2".repeat(20)).expect("valid");
    let fired = task.rules(Provider::GitHub, |_| false).fires(&tag(Some(other.clone()))).expect("it fires");
    assert_eq!(fired.source.to_string(), format!("https://github.com/acme/shop.git#{other}:app"));
}

#[test]
fn of_several_triggers_the_closest_no_is_told() {
    let others = SourceSettings { branches: vec!["release/*".to_owned()], ..settings() };
    let off = SourceSettings { enabled: false, ..settings() };
    let task =
        task("https://github.com/acme/shop.git", &[("a", off), ("b", others), ("c", settings())]).expect("a task");
    let fired = task.rules(Provider::GitHub, |_| false).fires(&push("release/1")).expect("it fires");
    assert_eq!(fired.trigger, name("b"));
    let refusal = task.rules(Provider::GitHub, |_| false).fires(&push("topic")).expect_err("no");
    assert_eq!(refusal.rule, Rule::Branch);
    let refusal = task.rules(Provider::GitLab, |_| false).fires(&push("main")).expect_err("no");
    assert!(refusal.text.contains("no trigger for gitlab"), "{}", refusal.text);
    assert_eq!(task.providers(), [Provider::GitHub]);
}

#[test]
fn what_no_trigger_hears_is_told_before_anything_of_the_change_counts() {
    let paths = SourceSettings { paths: vec!["src".to_owned()], ..settings() };
    let task = task("https://github.com/acme/shop.git", &[("t", paths)]).expect("a task");
    let rules = task.rules(Provider::GitHub, |_| false);
    let mut skipped = push("main");
    if let SourceChange::Push(push) = &mut skipped.change {
        push.message = Some("x [skip ci]".to_owned());
    }
    assert_eq!(rules.hear(&skipped), Ok(()));
    assert_eq!(rules.fires(&skipped).expect_err("it is skipped").rule, Rule::SkipCi);
    for event in [push("topic"), event(SourceChange::Ping)] {
        assert_eq!(rules.hear(&event).expect_err("no"), rules.fires(&event).expect_err("no"));
    }
}

#[test]
fn what_can_not_be_listened_to_is_refused() {
    for (context, settings, expect) in [
        ("https://x.example/a.tar.gz", settings(), "needs a context that is a Git repository"),
        (&*format!("https://github.com/acme/shop.git#{}", commit()), settings(), "names no branch"),
        ("https://github.com/acme/shop.git#refs/tags/v1", settings(), "names no branch"),
        (
            "https://github.com/acme/shop.git",
            SourceSettings { commits: false, tags: false, ..settings() },
            "listens to nothing",
        ),
        (
            "https://github.com/acme/shop.git",
            SourceSettings { branches: vec!["[".to_owned()], ..settings() },
            "is no pattern",
        ),
    ] {
        let fault = task(context, &[("t", settings)]).expect_err(expect).to_string();
        assert!(fault.contains("source trigger `t`") && fault.contains(expect), "{fault}");
    }
    // Each filter may have so many, all together not.
    let many = SourceSettings {
        paths: (0..150).map(|number| number.to_string()).collect(),
        exclude_paths: (0..150).map(|number| number.to_string()).collect(),
        ..settings()
    };
    task("https://github.com/acme/shop.git", &[("t", many.clone())]).expect("these are few enough");
    let fault = task("https://github.com/acme/shop.git", &[("t", many.clone()), ("u", many)]).expect_err("too many");
    assert!(fault.to_string().contains("more than 500 patterns together"), "{fault}");
    let tags = SourceSettings { commits: false, ..settings() };
    task("https://github.com/acme/shop.git#refs/tags/v1", &[("t", tags)]).expect("tags have no branch");
}

#[test]
fn a_trigger_is_changed_and_removed_by_its_name() {
    let one = task("https://github.com/acme/shop.git", &[("t", settings())]).expect("a task");
    let change = |sources| TaskChange { sources, ..TaskChange::default() };
    let now = Timestamp::from_micros(1);
    let gone = one.changed(change(BTreeMap::from([(name("t"), None)])), now).expect("changed");
    assert!(gone.sources.is_empty());
    let fault = one.changed(change(BTreeMap::from([(name("u"), None)])), now).expect_err("there is none");
    assert_eq!(fault, TaskFault::UnknownTrigger(name("u")));
}
