//! The rules of source triggers: a table of what each says, and properties of all of them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use cooper_engine::trigger::event::{
    ChangedFiles, FileChange, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange,
    SourceChange, SourceEvent, TagPush,
};
use cooper_engine::trigger::filter::{NameFilter, PathFilter};
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_engine::trigger::repository::{EventRepository, RepositoryUrl};
use cooper_engine::trigger::{Definition, Firing, FiringKind, ForkRule, Rule, SourceTrigger, Verdict, decide};
use proptest::prelude::*;

fn name(text: &str) -> RefName {
    RefName::parse(text).unwrap()
}

fn commit(digit: char) -> CommitId {
    CommitId::parse(&digit.to_string().repeat(40)).unwrap()
}

fn repository(path: &str) -> EventRepository {
    let url = RepositoryUrl::parse(&format!("https://git.example/{path}.git")).unwrap();
    EventRepository { name: path.to_owned(), urls: vec![url], any_case: true }
}

/// Listens to everything of `main`.
fn trigger() -> SourceTrigger {
    SourceTrigger {
        task_enabled: true,
        enabled: true,
        repository: RepositoryUrl::parse("https://git.example/team/app").unwrap(),
        commits: true,
        pull_requests: true,
        tags: true,
        branch_filter: NameFilter::parse(&["main"]).unwrap(),
        tag_filter: NameFilter::parse(&["v*"]).unwrap(),
        path_filter: PathFilter::default(),
        drafts: false,
        honour_skip_ci: true,
        forks: ForkRule::Refuse,
    }
}

fn files(paths: &[&str]) -> ChangedFiles {
    let mut files = ChangedFiles::whole();
    for path in paths {
        files.note(path, FileChange::Modified);
    }
    files
}

fn event(change: SourceChange) -> SourceEvent {
    SourceEvent { repository: Some(repository("team/app")), change }
}

fn push() -> Push {
    Push {
        branch: name("main"),
        change: RefChange::Updated { before: commit('1'), after: commit('2'), forced: false },
        files: files(&["src/a.rs", "README.md"]),
        message: Some("Fix it".to_owned()),
        pusher: None,
    }
}

fn tag() -> TagPush {
    TagPush {
        tag: name("v1"),
        change: RefChange::Created { after: commit('4') },
        commit: Some(commit('2')),
        message: None,
        pusher: None,
    }
}

fn pull() -> PullRequest {
    let side = |branch: &str, digit| PullRequestSide {
        repository: Some(repository("team/app")),
        branch: name(branch),
        commit: Some(commit(digit)),
    };
    PullRequest {
        number: 7,
        action: PullRequestAction::Opened,
        draft: false,
        head: side("faster", '2'),
        base: side("main", '1'),
        head_owner: HeadOwner::Base,
        title: "Faster".to_owned(),
        message: None,
        author: None,
        files: ChangedFiles::unknown(),
    }
}

fn fork() -> PullRequest {
    let mut pull = pull();
    pull.head_owner = HeadOwner::Fork;
    pull.head.repository = Some(repository("ann/app"));
    pull
}

#[test]
fn what_was_there_before_is_known_of_pushes_that_moved_something() {
    let moved = RefChange::Updated { before: commit('3'), after: commit('4'), forced: true };
    let moved = with(tag(), |tag| tag.change = moved);
    let new = with(push(), |push| push.change = RefChange::Created { after: commit('2') });
    for (change, before) in [
        (SourceChange::Push(push()), Some(commit('1'))),
        (SourceChange::Push(new), None),
        (SourceChange::Tag(moved), Some(commit('3'))),
        (SourceChange::Tag(tag()), None),
        (SourceChange::PullRequest(Box::new(pull())), None),
    ] {
        assert_eq!(fires(&trigger(), change).before, before);
    }
}

fn fires(trigger: &SourceTrigger, change: SourceChange) -> Firing {
    match decide(trigger, &event(change)) {
        Verdict::Fires(firing) => *firing,
        Verdict::No(refusal) => panic!("{refusal:?}"),
    }
}

/// Expects a no of this rule in these words.
fn refuses(trigger: &SourceTrigger, event: &SourceEvent, rule: Rule, text: &str) {
    match decide(trigger, event) {
        Verdict::Fires(firing) => panic!("{text}: {firing:?}"),
        Verdict::No(refusal) => assert_eq!((refusal.rule, refusal.text.as_str()), (rule, text)),
    }
}

fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

fn pushed(change: impl FnOnce(&mut Push)) -> SourceEvent {
    event(SourceChange::Push(with(push(), change)))
}

fn asked(change: impl FnOnce(&mut PullRequest)) -> SourceEvent {
    event(SourceChange::PullRequest(Box::new(with(pull(), change))))
}

#[test]
fn each_rule_says_no_in_words() {
    let plain = trigger();
    let only = |change: fn(&mut SourceTrigger)| with(trigger(), change);
    let push = pushed(|_| {});
    refuses(&only(|t| t.enabled = false), &push, Rule::Enabled, "the trigger is disabled");
    refuses(
        &only(|t| t.task_enabled = false),
        &push,
        Rule::Enabled,
        "the task is disabled, until `cooper task enable`",
    );
    refuses(&only(|t| t.commits = false), &push, Rule::Event, "the trigger does not listen to pushed commits");
    refuses(
        &only(|t| t.pull_requests = false),
        &asked(|_| {}),
        Rule::Event,
        "the trigger does not listen to pull requests",
    );
    let tag_event = event(SourceChange::Tag(tag()));
    refuses(&only(|t| t.tags = false), &tag_event, Rule::Event, "the trigger does not listen to tags");
    refuses(&plain, &event(SourceChange::Ping), Rule::Event, "the forge only tried the hook");
    let other = event(SourceChange::Other { name: "issues".to_owned() });
    refuses(&plain, &other, Rule::Event, "events `issues` start no task");

    let elsewhere = SourceEvent { repository: Some(repository("team/lib")), ..push.clone() };
    refuses(&plain, &elsewhere, Rule::Repository, "it happened in team/lib, the task's is git.example/team/app");
    let nowhere = SourceEvent { repository: None, ..push.clone() };
    refuses(&plain, &nowhere, Rule::Repository, "it names no repository");

    let deleted = pushed(|push| push.change = RefChange::Deleted { before: None });
    refuses(&plain, &deleted, Rule::Action, "branch main was deleted");
    let deleted = event(SourceChange::Tag(with(tag(), |tag| tag.change = RefChange::Deleted { before: None })));
    refuses(&plain, &deleted, Rule::Action, "tag v1 was deleted");
    let labeled = asked(|pull| pull.action = PullRequestAction::Other { name: "labeled".to_owned() });
    refuses(&plain, &labeled, Rule::Action, "`labeled` of pull request 7 changes no code");

    let fork_event = event(SourceChange::PullRequest(Box::new(fork())));
    let text = "pull request 7 comes from a fork (ann/app), and the task runs no pull requests of forks";
    refuses(&plain, &fork_event, Rule::Fork, text);
    let text = "pull request 7 comes from a fork (ann/app), and the task's pool is not marked for untrusted work";
    refuses(&only(|t| t.forks = ForkRule::Untrusted { pool_is_marked: false }), &fork_event, Rule::Fork, text);
    let unsaid = asked(|pull| pull.head_owner = HeadOwner::Unsaid);
    let text =
        "pull request 7 may come from a fork (the forge does not say), and the task runs no pull requests of forks";
    refuses(&plain, &unsaid, Rule::Fork, text);
    let why = "no branch is at it".to_owned();
    let unconfirmed = asked(|pull| pull.head_owner = HeadOwner::Unconfirmed { why });
    let text = "pull request 7 may come from a fork (the forge does not say, and no branch is at it), and the task runs no \
                pull requests of forks";
    refuses(&plain, &unconfirmed, Rule::Fork, text);

    refuses(&plain, &pushed(|push| push.branch = name("dev")), Rule::Branch, "branch dev is not one of `main`");
    refuses(&plain, &asked(|pull| pull.base.branch = name("dev")), Rule::Branch, "branch dev is not one of `main`");
    let other = event(SourceChange::Tag(with(tag(), |tag| tag.tag = name("nightly"))));
    refuses(&plain, &other, Rule::Tag, "tag nightly is not one of `v*`");

    refuses(&plain, &asked(|pull| pull.draft = true), Rule::Draft, "pull request 7 is a draft");
    let skip = pushed(|push| push.message = Some("Fix [skip ci]".to_owned()));
    refuses(&plain, &skip, Rule::SkipCi, "commit 222222222222 says `[skip ci]`");
    let skip = asked(|pull| pull.title = "Docs [CI skip]".to_owned());
    refuses(&plain, &skip, Rule::SkipCi, "pull request 7 says `[ci skip]`");

    let web = only(|t| t.path_filter = PathFilter::parse(&["web/"], &[]).unwrap());
    let text = "none of the 2 changed files, such as \"README.md\", passes the path filters";
    refuses(&web, &push, Rule::Paths, text);
    let one = pushed(|push| push.files = files(&["a"]));
    refuses(&web, &one, Rule::Paths, "the one changed file, \"a\", passes no path filter");
    refuses(&web, &pushed(|push| push.files = files(&[])), Rule::Paths, "no file was changed");
}

#[test]
fn what_fires_says_what_to_build() {
    let plain = trigger();
    let firing = fires(&plain, SourceChange::Push(push()));
    assert_eq!(firing.kind, FiringKind::Commit { branch: name("main") });
    assert_eq!(
        (firing.commit.clone(), firing.definition.clone(), firing.untrusted),
        (commit('2'), Definition::Commit, false)
    );
    assert_eq!(firing.key(), format!("commit:refs/heads/main:{}", "2".repeat(40)));

    // The commit of an annotated tag, not the tag's own object.
    let firing = fires(&plain, SourceChange::Tag(tag()));
    assert_eq!((firing.commit.clone(), firing.branch()), (commit('2'), None));
    let firing = fires(&plain, SourceChange::Tag(with(tag(), |tag| tag.commit = None)));
    assert_eq!(firing.commit, commit('4'));

    let firing = fires(&plain, SourceChange::PullRequest(Box::new(pull())));
    assert_eq!(
        (firing.commit.clone(), firing.definition.clone(), firing.untrusted),
        (commit('2'), Definition::Commit, false)
    );
    assert_eq!(firing.branch(), Some(&name("main")));

    let marked = with(trigger(), |t| t.forks = ForkRule::Untrusted { pool_is_marked: true });
    let firing = fires(&marked, SourceChange::PullRequest(Box::new(fork())));
    assert!(firing.untrusted);
    assert_eq!(firing.definition, Definition::Base { branch: name("main"), commit: Some(commit('1')) });
    // Edited and pushed again, it is the same cause until its commit is another.
    let again = with(fork(), |pull| pull.action = PullRequestAction::Synchronized);
    assert_eq!(fires(&marked, SourceChange::PullRequest(Box::new(again))).key(), firing.key());
}

#[test]
fn what_nobody_calls_the_repositorys_own_is_a_strangers() {
    let marked = with(trigger(), |t| t.forks = ForkRule::Untrusted { pool_is_marked: true });
    let unsaid = with(pull(), |pull| {
        pull.head_owner = HeadOwner::Unsaid;
        pull.head.repository = None;
    });
    let firing = fires(&marked, SourceChange::PullRequest(Box::new(unsaid.clone())));
    assert!(firing.untrusted);
    assert_eq!(firing.notes, ["it counts as a fork's: the forge does not say"]);
    // So is what was kept before the owner was.
    let mut kept = serde_json::to_value(PullRequest { head_owner: HeadOwner::Base, ..unsaid.clone() }).unwrap();
    kept.as_object_mut().unwrap().remove("head_owner").unwrap();
    kept["is_fork"] = serde_json::json!(false);
    assert_eq!(serde_json::from_value::<PullRequest>(kept).unwrap(), unsaid);
}

#[test]
fn switches_let_drafts_and_skipped_ones_through() {
    let open = with(trigger(), |t| {
        t.drafts = true;
        t.honour_skip_ci = false;
    });
    fires(&open, SourceChange::Push(with(push(), |push| push.message = Some("[skip ci]".to_owned()))));
    fires(&open, SourceChange::PullRequest(Box::new(with(pull(), |pull| pull.draft = true))));
}

#[test]
fn a_list_with_gaps_can_not_say_no() {
    let web = with(trigger(), |t| t.path_filter = PathFilter::parse(&["web/"], &[]).unwrap());
    let mut some = files(&["src/a.rs"]);
    some.is_missing_some();
    let firing = fires(&web, SourceChange::Push(with(push(), |push| push.files = some)));
    assert_eq!(firing.notes, ["path filters were passed over: the forge did not list all changed files"]);
    let mut found = files(&["web/a.ts"]);
    found.is_missing_some();
    let firing = fires(&web, SourceChange::Push(with(push(), |push| push.files = found)));
    assert_eq!(firing.notes, [""; 0]);
}

fn any_change() -> impl Strategy<Value = RefChange> {
    prop_oneof![
        Just(RefChange::Created { after: commit('2') }),
        any::<bool>().prop_map(|forced| RefChange::Updated { before: commit('1'), after: commit('2'), forced }),
        Just(RefChange::Deleted { before: Some(commit('1')) }),
    ]
}

fn any_files() -> impl Strategy<Value = ChangedFiles> {
    let paths = prop::collection::vec(prop_oneof![Just("web/a"), Just("src/b"), Just("c.md")], 0..3);
    (paths, any::<bool>()).prop_map(|(paths, whole)| {
        let mut files = files(&paths);
        if !whole {
            files.is_missing_some();
        }
        files
    })
}

fn any_event() -> impl Strategy<Value = SourceEvent> {
    let branch = || prop_oneof![Just("main"), Just("dev"), Just("v1")].prop_map(name);
    let message = || prop_oneof![Just(None), Just(Some("x".to_owned())), Just(Some("[skip ci]".to_owned()))];
    let action = prop_oneof![
        Just(PullRequestAction::Opened),
        Just(PullRequestAction::Synchronized),
        Just(PullRequestAction::Reopened),
        Just(PullRequestAction::Ready),
        Just(PullRequestAction::Other { name: "closed".to_owned() }),
    ];
    let stranger = prop_oneof![
        Just(HeadOwner::Fork),
        Just(HeadOwner::Unsaid),
        Just(HeadOwner::Unconfirmed { why: "no branch is at it".to_owned() }),
    ];
    let change = prop_oneof![
        (branch(), any_change(), any_files(), message()).prop_map(|(branch, change, files, message)| {
            SourceChange::Push(Push { branch, change, files, message, pusher: None })
        }),
        (branch(), any_change(), message()).prop_map(|(tag, change, message)| {
            SourceChange::Tag(TagPush { tag, change, commit: None, message, pusher: None })
        }),
        (branch(), action, any_files(), message(), any::<[bool; 3]>(), stranger).prop_map(
            |(base, action, files, message, flags, stranger)| {
                let [draft, is_fork, has_commit] = flags;
                let mut pull = if is_fork { PullRequest { head_owner: stranger, ..fork() } } else { pull() };
                pull.base.branch = base;
                if !has_commit {
                    pull.head.commit = None;
                }
                SourceChange::PullRequest(Box::new(PullRequest { action, files, message, draft, ..pull }))
            }
        ),
        Just(SourceChange::Ping),
        Just(SourceChange::Other { name: "x".to_owned() }),
    ];
    let place = prop_oneof![Just(None), Just(Some(repository("team/app"))), Just(Some(repository("team/lib")))];
    (place, change).prop_map(|(repository, change)| SourceEvent { repository, change })
}

fn any_trigger() -> impl Strategy<Value = SourceTrigger> {
    let names = || prop_oneof![Just(vec![]), Just(vec!["main"]), Just(vec!["!dev"]), Just(vec!["v*", "m*"])];
    let paths = prop_oneof![Just(vec![]), Just(vec!["web/"]), Just(vec!["*.md"])];
    let forks = prop_oneof![
        Just(ForkRule::Refuse),
        any::<bool>().prop_map(|pool_is_marked| ForkRule::Untrusted { pool_is_marked })
    ];
    (any::<[bool; 6]>(), names(), names(), paths, forks).prop_map(|(flags, branches, tags, paths, forks)| {
        SourceTrigger {
            task_enabled: true,
            enabled: flags[0],
            commits: flags[1],
            pull_requests: flags[2],
            tags: flags[3],
            drafts: flags[4],
            honour_skip_ci: flags[5],
            branch_filter: NameFilter::parse(&branches).unwrap(),
            tag_filter: NameFilter::parse(&tags).unwrap(),
            path_filter: PathFilter::parse(&paths, &[]).unwrap(),
            forks,
            ..trigger()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_event_has_an_answer_and_a_yes_breaks_no_rule(trigger in any_trigger(), event in any_event()) {
        let firing = match decide(&trigger, &event) {
            Verdict::No(refusal) => {
                prop_assert!(!refusal.text.is_empty() && !refusal.text.ends_with('.'));
                return Ok(());
            }
            Verdict::Fires(firing) => firing,
        };
        prop_assert!(trigger.enabled);
        prop_assert!(event.repository.as_ref().unwrap().is_at(&trigger.repository));
        match &event.change {
            SourceChange::Push(push) => {
                prop_assert!(trigger.commits && trigger.branch_filter.takes(push.branch.as_str()));
                prop_assert_eq!(Some(&firing.commit), push.change.after());
                let whole = push.files.complete() && !trigger.path_filter.is_empty();
                prop_assert!(!whole || push.files.iter().any(|(path, _)| trigger.path_filter.takes(path)));
                prop_assert!(!firing.untrusted);
            }
            SourceChange::Tag(tag) => {
                prop_assert!(trigger.tags && trigger.tag_filter.takes(tag.tag.as_str()));
                prop_assert!(!firing.untrusted);
            }
            SourceChange::PullRequest(pull) => {
                prop_assert!(trigger.pull_requests && (trigger.drafts || !pull.draft));
                let is_stranger = pull.head_owner != HeadOwner::Base;
                prop_assert_eq!(firing.untrusted, is_stranger);
                // A stranger's code never chooses what is run, and never runs where it is not allowed.
                prop_assert_eq!(is_stranger, matches!(firing.definition, Definition::Base { .. }));
                let allowed = trigger.forks == ForkRule::Untrusted { pool_is_marked: true };
                prop_assert!(!is_stranger || allowed);
            }
            SourceChange::Ping | SourceChange::Other { .. } => prop_assert!(false, "{firing:?}"),
        }
    }

    #[test]
    fn a_rule_less_never_takes_a_yes_back(trigger in any_trigger(), event in any_event()) {
        let open = SourceTrigger {
            branch_filter: NameFilter::default(),
            tag_filter: NameFilter::default(),
            path_filter: PathFilter::default(),
            drafts: true,
            honour_skip_ci: false,
            forks: ForkRule::Untrusted { pool_is_marked: true },
            ..trigger.clone()
        };
        if matches!(decide(&trigger, &event), Verdict::Fires(_)) {
            prop_assert!(matches!(decide(&open, &event), Verdict::Fires(_)));
        }
    }
}
