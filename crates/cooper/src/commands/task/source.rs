//! What flags say of a task's source trigger, and how triggers and hooks are shown.

use std::collections::BTreeMap;

use clap::Args;
use cooper_api::rest::{
    HookSetup, HookView, SourceEventType, SourceTriggerSettings, TaskSettings, TaskStatus, TaskView,
};
use cooper_client::ServerUrl;
use cooper_spec::source::{ReferenceKind, RemoteSource, SourceLocation};
use cooper_types::{TaskName, TriggerName};

use super::plain;
use super::what::said;
use crate::azure::boolean;
use crate::fault::Fault;
use crate::output;

/// The trigger's name where none is given, as in az.
const DEFAULT_NAME: &str = "defaultSourceTriggerName";

/// The source trigger of a task. What needs more than one writes them with `cooper task apply`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Source trigger")]
pub(super) struct SourceArgs {
    /// Whether pushed commits start it [default: true where the context is a branch of a Git repository]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    commit_trigger_enabled: Option<bool>,
    /// Whether pull requests start it [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    pull_request_trigger_enabled: Option<bool>,
    /// Whether tags start it [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    tag_trigger_enabled: Option<bool>,
    /// The trigger's name [default: defaultSourceTriggerName]
    #[arg(long, value_name = "NAME")]
    source_trigger_name: Option<String>,
    /// Whose hooks: github, gitlab, gitea, bitbucket-cloud, bitbucket-server, azure-devops or generic [default: what the
    /// context's host is known to be, or generic]
    #[arg(long, value_name = "KIND")]
    forge: Option<String>,
    /// A pattern of branches that count, or after ! of those that don't; may be repeated [default: the context's branch, or
    /// main and master]
    #[arg(long, value_name = "PATTERN")]
    branch: Vec<String>,
    /// A pattern of tags that count, or after ! of those that don't; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN")]
    git_tag: Vec<String>,
    /// A pattern of changed files that count, as in .gitignore; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN")]
    path: Vec<String>,
    /// A pattern of changed files that don't count; may be repeated
    #[arg(long, value_name = "PATTERN")]
    exclude_path: Vec<String>,
    /// Whether drafts of pull requests count [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    drafts: Option<bool>,
    /// Whether [skip ci] in a commit's message is honoured [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    skip_ci: Option<bool>,
    /// The pool for pull requests of forks, which run without secrets and pushes: one that was made with `cooper pool create
    /// --untrusted`. Without it, they start nothing
    #[arg(long, value_name = "POOL")]
    fork_pool: Option<String>,
    /// Whether a new commit of a pull request ends the runs of its earlier ones [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    cancel_superseded: Option<bool>,
}

type Triggers = BTreeMap<TriggerName, Option<SourceTriggerSettings>>;

impl SourceArgs {
    /// The triggers of a new task.
    pub(super) fn of_new(&self, context: Option<&str>) -> Result<Triggers, Fault> {
        if self.commit_trigger_enabled.is_none() && !is_branch(context) {
            let others = self.pull_request_trigger_enabled == Some(true) || self.tag_trigger_enabled == Some(true);
            if !others {
                return Ok(Triggers::new());
            }
        }
        let commits = self.commit_trigger_enabled.unwrap_or_else(|| is_branch(context));
        let earlier = SourceTriggerSettings {
            events: Some(if commits { vec![SourceEventType::Commit] } else { Vec::new() }),
            ..SourceTriggerSettings::default()
        };
        let settings = self.onto(earlier);
        match settings.events.as_deref() {
            Some([]) | None => Ok(Triggers::new()),
            Some(_) => Ok(BTreeMap::from([(self.name(None)?, Some(settings))])),
        }
    }

    /// What changes in the triggers of a task.
    pub(super) fn of_task(&self, task: &TaskSettings) -> Result<Triggers, Fault> {
        if !self.says_something() {
            return Ok(Triggers::new());
        }
        let name = self.name(Some(task))?;
        let earlier = task.source_triggers.get(&name).cloned().flatten();
        let is_new = earlier.is_none();
        let none = SourceTriggerSettings { events: Some(Vec::new()), ..SourceTriggerSettings::default() };
        let settings = self.onto(earlier.unwrap_or(none));
        match settings.events.as_deref() {
            Some([]) | None if is_new && self.switches_on() => {
                Err(Fault::usage(format!("source trigger `{name}` listens to nothing"))
                    .with_hint("add --commit-trigger-enabled, --pull-request-trigger-enabled or --tag-trigger-enabled"))
            }
            Some([]) | None if is_new => Ok(Triggers::new()),
            Some([]) | None => Ok(BTreeMap::from([(name, None)])),
            Some(_) => Ok(BTreeMap::from([(name, Some(settings))])),
        }
    }

    /// Whether a flag is there.
    pub(super) fn says_something(&self) -> bool {
        let events = [self.commit_trigger_enabled, self.pull_request_trigger_enabled, self.tag_trigger_enabled];
        events.iter().any(Option::is_some) || self.switches_on()
    }

    /// What may be repeated, by its flag.
    pub(super) fn lists(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            ("--branch", &self.branch),
            ("--git-tag", &self.git_tag),
            ("--path", &self.path),
            ("--exclude-path", &self.exclude_path),
        ]
    }

    /// Whether a flag says how it listens.
    fn switches_on(&self) -> bool {
        self.forge.is_some()
            || self.fork_pool.is_some()
            || self.lists().iter().any(|(_, list)| !list.is_empty())
            || [self.drafts, self.skip_ci, self.cancel_superseded].iter().any(Option::is_some)
    }

    /// The trigger that is meant: the one that is named, the only one, or the usual one.
    fn name(&self, task: Option<&TaskSettings>) -> Result<TriggerName, Fault> {
        if let Some(name) = &self.source_trigger_name {
            return TriggerName::parse(name).map_err(|error| Fault::usage(format!("--source-trigger-name: {error}")));
        }
        let mut names = task.iter().flat_map(|task| task.source_triggers.keys());
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) | (Some(_), Some(_)) => Ok(TriggerName::parse(DEFAULT_NAME).expect("a constant that is one")),
        }
    }

    fn onto(&self, earlier: SourceTriggerSettings) -> SourceTriggerSettings {
        let mut events = earlier.events.unwrap_or_default();
        for (wanted, event) in [
            (self.commit_trigger_enabled, SourceEventType::Commit),
            (self.pull_request_trigger_enabled, SourceEventType::PullRequest),
            (self.tag_trigger_enabled, SourceEventType::Tag),
        ] {
            let Some(listens) = wanted else { continue };
            events.retain(|other| *other != event);
            if listens {
                events.push(event);
            }
        }
        let list = |flag: &[String], earlier| said(flag).unwrap_or(earlier);
        let text = |flag: &Option<String>, earlier| match flag {
            Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            None => earlier,
        };
        SourceTriggerSettings {
            provider: text(&self.forge, earlier.provider),
            events: Some(events),
            branches: list(&self.branch, earlier.branches),
            tags: list(&self.git_tag, earlier.tags),
            paths: list(&self.path, earlier.paths),
            exclude_paths: list(&self.exclude_path, earlier.exclude_paths),
            drafts: self.drafts.or(earlier.drafts),
            skip_ci: self.skip_ci.or(earlier.skip_ci),
            fork_pool: text(&self.fork_pool, earlier.fork_pool),
            cancel_superseded: self.cancel_superseded.or(earlier.cancel_superseded),
            status: earlier.status,
        }
    }
}

/// Whether a context is a branch of a Git repository, as far as it says.
fn is_branch(context: Option<&str>) -> bool {
    let Some(Ok(SourceLocation::Remote(RemoteSource::Git(source)))) = context.map(SourceLocation::parse) else {
        return false;
    };
    match source.reference.map(|reference| reference.kind()) {
        Some(ReferenceKind::Commit(_)) => false,
        Some(ReferenceKind::Full(name)) => name.starts_with("refs/heads/"),
        Some(ReferenceKind::Default | ReferenceKind::Named { .. }) | None => true,
    }
}

/// A trigger in a line.
pub(super) fn describe(settings: &SourceTriggerSettings) -> String {
    let events = settings.events.iter().flatten().map(|event| match event {
        SourceEventType::Commit => "commits",
        SourceEventType::PullRequest => "pull requests",
        SourceEventType::Tag => "tags",
    });
    let mut text = events.collect::<Vec<_>>().join(", ");
    if let Some(provider) = &settings.provider {
        text.push_str(&format!(" of {provider}"));
    }
    for (what, list) in [
        ("branches", &settings.branches),
        ("tags", &settings.tags),
        ("paths", &settings.paths),
        ("without paths", &settings.exclude_paths),
    ] {
        if !list.is_empty() {
            text.push_str(&format!("; {what} {}", list.join(" ")));
        }
    }
    if let Some(pool) = &settings.fork_pool {
        text.push_str(&format!("; forks in pool {pool}"));
    }
    if settings.status == Some(TaskStatus::Disabled) {
        text.push_str("; disabled");
    }
    text
}

/// Shows the hooks that were made just now: those that a person sets at the forge with their secrets, which nothing shows again.
/// Says where a token is kept for nothing.
pub(super) fn tell_hooks(task: &TaskView, server: &ServerUrl) {
    let name = task.settings.name.as_ref().map(TaskName::as_str).unwrap_or_default();
    for warning in deaf(&task.settings, name) {
        output::warning(&plain(&warning));
    }
    for hook in &task.hooks {
        if hook.secret.is_some() {
            match hook.setup {
                HookSetup::Server => {
                    output::note(&plain(&format!("Webhook for {}: {}", hook.provider, url(hook, server))));
                }
                HookSetup::LacksToken | HookSetup::LacksPublicUrl | HookSetup::LacksForge | HookSetup::Hand => {
                    tell_secret(hook, server);
                }
            }
            output::note(&plain(&who_sets_up(hook, name)));
        } else if hook.setup == HookSetup::LacksForge {
            output::warning(&plain(&who_sets_up(hook, name)));
        }
    }
}

/// What is said of triggers that wait for what no hook of theirs tells.
fn deaf(settings: &TaskSettings, task: &str) -> Vec<String> {
    let is_deaf = |settings: &SourceTriggerSettings| {
        let waits = settings.events.iter().flatten().any(|event| *event == SourceEventType::PullRequest);
        waits && settings.provider.as_deref() == Some("generic")
    };
    let triggers = settings.source_triggers.iter();
    let deaf = triggers.filter(|(_, settings)| settings.as_ref().is_some_and(is_deaf));
    let warning = |(trigger, _)| {
        format!(
            "trigger {trigger} waits for pull requests, of which generic webhooks tell nothing: say what kind of forge it is with {}",
            kind_of_forge(task)
        )
    };
    deaf.map(warning).collect()
}

/// How a person says what kind of forge a task's repository is at.
fn kind_of_forge(task: &str) -> String {
    format!("`cooper task update {task} --forge KIND`, or as the trigger's `provider` in a file of tasks")
}

/// Shows a hook with its new secret.
pub(super) fn tell_secret(hook: &HookView, server: &ServerUrl) {
    let secret = hook.secret.as_deref().unwrap_or_default();
    output::note(&plain(&format!("Webhook for {}: {}", hook.provider, url(hook, server))));
    output::note(&plain(&format!("Its secret, which is not shown again: {secret}")));
}

/// Who sets a hook at its forge, and what would have the server do it.
pub(super) fn who_sets_up(hook: &HookView, task: &str) -> String {
    let host = hook.forge_host.as_deref().unwrap_or("the host");
    match hook.setup {
        HookSetup::Server => format!(
            "The server sets it at {host} with the task's token: there is nothing to do by hand. `cooper task hooks {task}` says how far that is."
        ),
        HookSetup::LacksToken => format!(
            "Set it at {host}. With a token the server does that itself: `cooper task credential add --name {task} --login-server {host}`."
        ),
        HookSetup::LacksPublicUrl => {
            format!("Set it at {host}: the server can't do that itself, because it was started without --public-url.")
        }
        HookSetup::LacksForge => format!(
            "The task keeps a token for {host}, but not what kind of forge that is, and its name does not tell: no hook is set and no commit \
             status told with it. Say it with {} (github, gitlab, gitea, bitbucket-server, …).",
            kind_of_forge(task)
        ),
        HookSetup::Hand => "Set it where pushes are to be told of.".to_owned(),
    }
}

/// Where a forge sends to: as the server is reached from outside, or else as this machine reaches it.
pub(super) fn url(hook: &HookView, server: &ServerUrl) -> String {
    hook.url.clone().unwrap_or_else(|| address(server, &hook.path))
}

/// A path of the server, as this machine reaches it.
pub(in crate::commands) fn address(server: &ServerUrl, path: &str) -> String {
    format!("{}{path}", server.to_string().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        source: SourceArgs,
    }

    fn flags(text: &str) -> SourceArgs {
        Flags::try_parse_from(std::iter::once("x").chain(text.split_whitespace())).expect("flags").source
    }

    fn events(triggers: &Triggers) -> Option<Vec<SourceEventType>> {
        triggers.values().next()?.as_ref()?.events.clone()
    }

    #[test]
    fn a_new_task_listens_to_commits_where_its_context_is_a_branch() {
        use SourceEventType::{Commit, PullRequest};
        let git = "https://git.example/a.git";
        let commit = format!("{git}#{}", "a1".repeat(20));
        for (context, said, expect) in [
            (git, "", Some(vec![Commit])),
            (git, "--commit-trigger-enabled false", None),
            (git, "--commit-trigger-enabled --pull-request-trigger-enabled true", Some(vec![Commit, PullRequest])),
            (&*commit, "", None),
            (&*commit, "--commit-trigger-enabled", Some(vec![Commit])),
            ("https://git.example/a.tar.gz", "", None),
            ("/dev/null", "", None),
        ] {
            let triggers = flags(said).of_new(Some(context)).expect("sound");
            assert_eq!(events(&triggers), expect, "{context} {said}");
        }
    }

    #[test]
    fn an_update_changes_what_is_named_and_removes_what_listens_to_nothing() {
        let of = |task: &TaskSettings, said: &str| flags(said).of_task(task);
        let made = flags("--branch main --path docs").of_new(Some("https://git.example/a.git")).expect("sound");
        let task = TaskSettings { source_triggers: made.clone(), ..TaskSettings::default() };
        assert_eq!(of(&task, "").expect("sound"), Triggers::new());
        let changed = of(&task, "--tag-trigger-enabled --branch x").expect("sound");
        let trigger = changed.values().next().cloned().flatten().expect("a trigger");
        assert_eq!((trigger.branches, trigger.paths), (vec!["x".to_owned()], vec!["docs".to_owned()]));
        assert_eq!(events(&changed), Some(vec![SourceEventType::Commit, SourceEventType::Tag]));
        let lists = ["--branch", "main", "--git-tag", "v*", "--path", "docs", "--exclude-path", "a"];
        let full = Flags::try_parse_from(["x", "--forge", "gitea", "--fork-pool", "forks"].into_iter().chain(lists));
        let full = full.expect("flags").source.of_new(Some("https://git.example/a.git")).expect("sound");
        let task = TaskSettings { source_triggers: full, ..TaskSettings::default() };
        let empty = ["--forge", "--fork-pool", "--branch", "--git-tag", "--path", "--exclude-path"];
        let empty = std::iter::once("x").chain(empty.into_iter().flat_map(|flag| [flag, ""]));
        let bare = Flags::try_parse_from(empty).expect("flags").source.of_task(&task).expect("sound");
        let events = Some(vec![SourceEventType::Commit]);
        let expect = SourceTriggerSettings { events, ..SourceTriggerSettings::default() };
        assert_eq!(bare.values().collect::<Vec<_>>(), [&Some(expect)]);
        let gone = of(&task, "--commit-trigger-enabled false").expect("sound");
        assert_eq!(gone.values().collect::<Vec<_>>(), [&None]);
        let none = TaskSettings::default();
        assert_eq!(of(&none, "--commit-trigger-enabled false").expect("sound"), Triggers::new());
        assert!(of(&none, "--branch x").expect_err("nothing").message.contains("listens to nothing"));
    }

    #[test]
    fn a_hook_is_where_the_server_is_reached_from_outside() {
        let server = ServerUrl::parse("http://127.0.0.1:7070/").expect("a URL");
        let mut hook: HookView = serde_json::from_value(serde_json::json!({
            "id": "5f0c", "provider": "gitea", "path": "/hooks/5f0c", "creationDate": "2026-01-01T00:00:00Z",
        }))
        .expect("a hook");
        assert_eq!(url(&hook, &server), "http://127.0.0.1:7070/hooks/5f0c");
        hook.url = Some("https://ci.example/sub/hooks/5f0c".to_owned());
        assert_eq!(url(&hook, &server), "https://ci.example/sub/hooks/5f0c");
    }

    #[test]
    fn what_generic_hooks_do_not_tell_is_said_for_flags_and_files() {
        let of = |said: &str| {
            let source_triggers = flags(said).of_new(Some("https://git.example/a.git")).expect("sound");
            deaf(&TaskSettings { source_triggers, ..TaskSettings::default() }, "nightly")
        };
        let warnings = of("--forge generic --pull-request-trigger-enabled");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("cooper task update nightly --forge KIND"), "{warnings:?}");
        assert!(warnings[0].contains("`provider` in a file of tasks"), "{warnings:?}");
        assert!(of("--forge generic").is_empty());
        assert!(of("--forge gitea --pull-request-trigger-enabled").is_empty());
    }
}
