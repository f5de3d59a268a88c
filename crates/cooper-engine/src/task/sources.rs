//! Source triggers of a task: their settings, and what an event comes to for the task.
//!
//! The rules themselves are [`crate::trigger`]'s. Here is which repository and which branches are meant where nothing is
//! said, and what a run that an event sets off builds.

use cooper_spec::source::{GitReference, GitSource, ReferenceKind, RemoteSource};
use cooper_types::{PoolName, TriggerName};
use serde::{Deserialize, Serialize};

use super::Task;
use crate::trigger::event::{SourceChange, SourceEvent};
use crate::trigger::filter::{FilterError, NameFilter, PathFilter};
use crate::trigger::provider::Provider;
use crate::trigger::repository::{RepositoryUrl, RepositoryUrlError};
use crate::trigger::{Firing, FiringKind, ForkRule, Refusal, Rule, SourceTrigger, Verdict, decide, hears};

/// The branches that are meant where neither the trigger nor the task's context names one.
pub const DEFAULT_BRANCHES: [&str; 2] = ["main", "master"];
/// The most patterns of all source triggers of a task: each event is compared with them.
pub const MAX_PATTERNS: usize = 500;

/// What a source trigger of a task listens to. The repository is the one of the task's context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSettings {
    /// Whose hooks.
    pub provider: Provider,
    /// Whether it listens at all.
    pub enabled: bool,
    /// Whether pushed commits start the task.
    pub commits: bool,
    /// Whether pull requests do.
    pub pull_requests: bool,
    /// Whether tags do.
    pub tags: bool,
    /// Patterns of branches; the context's branch if there are none, or else [`DEFAULT_BRANCHES`].
    pub branches: Vec<String>,
    /// Patterns of tags; all if there are none.
    pub tag_names: Vec<String>,
    /// Patterns of files that count; all if there are none.
    pub paths: Vec<String>,
    /// Patterns of files that don't count.
    pub exclude_paths: Vec<String>,
    /// Whether drafts start the task too.
    pub drafts: bool,
    /// Whether a commit's author may ask for no run.
    pub skip_ci: bool,
    /// The pool in which pull requests of forks run; they start nothing if absent.
    pub fork_pool: Option<PoolName>,
    /// Whether a pull request's new commit ends the runs of its earlier ones.
    pub cancel_superseded: bool,
}

/// Why a source trigger can't be as it is said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// The task's files come from elsewhere.
    #[error("source trigger `{0}` needs a context that is a Git repository: take it away, or name one")]
    NoRepository(TriggerName),
    /// The context is one commit or tag: no branch of it is meant.
    #[error(
        "source trigger `{0}` names no branch, and neither does the context: name the branches that start the task"
    )]
    NoBranch(TriggerName),
    /// It listens to nothing.
    #[error("source trigger `{0}` listens to nothing: name `commit`, `pullrequest` or `tag`")]
    NoEvent(TriggerName),
    /// A pattern is none.
    #[error("source trigger `{name}`: {fault}")]
    Filter {
        /// The trigger.
        name: TriggerName,
        /// What is wrong.
        fault: FilterError,
    },
    /// There are too many patterns.
    #[error("the source triggers have more than {MAX_PATTERNS} patterns together; write them with `*` or `{{a,b}}`")]
    TooManyPatterns,
    /// The context's URL names nothing that events could name.
    #[error("source trigger `{name}`: {fault}")]
    Repository {
        /// The trigger.
        name: TriggerName,
        /// What is wrong.
        fault: RepositoryUrlError,
    },
}

/// The trigger that an event set off, and the run that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The trigger's name.
    pub trigger: TriggerName,
    /// The run.
    pub firing: Firing,
    /// Where its files come from.
    pub source: RemoteSource,
    /// Other keys under which the same may be told: some forges name an annotated tag's own object, some its commit.
    pub also: Vec<String>,
}

impl Fired {
    /// All keys under which it may be told.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.firing.key()).chain(self.also.iter().cloned())
    }
}

/// The triggers of a task that take hooks of one kind of forge. They are read once for all events of a delivery: that costs
/// more than asking them.
#[derive(Debug)]
pub struct SourceRules<'a> {
    task: &'a Task,
    provider: Provider,
    triggers: Vec<(&'a TriggerName, Result<SourceTrigger, SourceFault>)>,
}

impl SourceRules<'_> {
    /// Whether any trigger listens to an event at all; if not, the no of the one that came closest.
    pub fn hear(&self, event: &SourceEvent) -> Result<(), Refusal> {
        self.first(|_, trigger| hears(trigger, event))
    }

    /// What an event comes to: the first trigger that it sets off, or the no of the one that came closest.
    pub fn fires(&self, event: &SourceEvent) -> Result<Box<Fired>, Refusal> {
        self.first(|name, trigger| {
            let firing = match decide(trigger, event) {
                Verdict::Fires(firing) => *firing,
                Verdict::No(refusal) => return Err(refusal),
            };
            let elsewhere = || Refusal::new(Rule::Repository, "the task's context is no repository".to_owned());
            let source = self.task.source_of(&firing, event).ok_or_else(elsewhere)?;
            let also = other_keys(&firing, event);
            Ok(Box::new(Fired { trigger: name.clone(), firing, source, also }))
        })
    }

    fn first<T>(&self, ask: impl Fn(&TriggerName, &SourceTrigger) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut closest = Refusal::new(Rule::Enabled, format!("the task has no trigger for {}", self.provider));
        for (name, trigger) in &self.triggers {
            let answer = match trigger {
                Ok(trigger) => ask(name, trigger),
                // What was kept has been checked: an older release kept it.
                Err(fault) => Err(Refusal::new(Rule::Enabled, fault.to_string())),
            };
            match answer {
                Ok(yes) => return Ok(yes),
                Err(refusal) if refusal.rule >= closest.rule => closest = refusal,
                Err(_) => {}
            }
        }
        Err(closest)
    }
}

impl Task {
    /// The kinds of forges that its triggers take hooks of.
    pub fn providers(&self) -> Vec<Provider> {
        let mut providers: Vec<Provider> = self.sources.values().map(|settings| settings.provider).collect();
        providers.sort_unstable();
        providers.dedup();
        providers
    }

    /// The triggers that take hooks of a kind of forge, to be asked about events. `is_marked` tells whether a pool is for
    /// untrusted work.
    pub fn rules(&self, provider: Provider, is_marked: impl Fn(&PoolName) -> bool) -> SourceRules<'_> {
        let listening = self.sources.iter().filter(|(_, settings)| settings.provider == provider);
        let read = |(name, settings)| (name, self.source_trigger(name, settings, &is_marked));
        SourceRules { task: self, provider, triggers: listening.map(read).collect() }
    }

    /// How many patterns its source triggers have: what asking them may cost.
    pub fn patterns(&self) -> usize {
        let count = |settings: &SourceSettings| {
            [&settings.branches, &settings.tag_names, &settings.paths, &settings.exclude_paths]
                .map(Vec::len)
                .iter()
                .sum()
        };
        self.sources.values().map(count).fold(0, usize::saturating_add)
    }

    /// Whether a commit on a branch is of the one that the task's own runs build, such as those for base images. Which one a
    /// context without a reference has is its repository's to say: it counts as one of [`DEFAULT_BRANCHES`] where the trigger
    /// takes those, and as any that the trigger takes otherwise.
    pub fn builds_branch(&self, trigger: &TriggerName, branch: &str) -> bool {
        let Some(RemoteSource::Git(context)) = &self.source else { return false };
        match context.reference.as_ref().map(|reference| (reference.kind(), reference.as_str())) {
            None | Some((ReferenceKind::Default, _)) => {
                let named = self.sources.get(trigger).map(|settings| NameFilter::parse(&settings.branches));
                let takes_default = |filter: &NameFilter| DEFAULT_BRANCHES.iter().any(|default| filter.takes(default));
                let names_others_alone = matches!(named, Some(Ok(filter)) if !takes_default(&filter));
                DEFAULT_BRANCHES.contains(&branch) || names_others_alone
            }
            Some((ReferenceKind::Commit(_), _)) => false,
            Some((ReferenceKind::Full(name), _)) => name.strip_prefix("refs/heads/") == Some(branch),
            Some((ReferenceKind::Named { .. }, name)) => name.strip_prefix("heads/").unwrap_or(name) == branch,
        }
    }

    /// A trigger in the form of the rules.
    pub(super) fn source_trigger(
        &self,
        name: &TriggerName,
        settings: &SourceSettings,
        is_marked: impl Fn(&PoolName) -> bool,
    ) -> Result<SourceTrigger, SourceFault> {
        let Some(RemoteSource::Git(context)) = &self.source else {
            return Err(SourceFault::NoRepository(name.clone()));
        };
        let repository = RepositoryUrl::parse(&context.url.to_string())
            .map_err(|fault| SourceFault::Repository { name: name.clone(), fault })?;
        let branches = match (&settings.branches[..], branches_of(context)) {
            ([], Some(branches)) => branches,
            // Tags alone have no branch.
            ([], None) if !settings.commits && !settings.pull_requests => Vec::new(),
            ([], None) => return Err(SourceFault::NoBranch(name.clone())),
            (branches, _) => branches.to_vec(),
        };
        let wrong = |fault| SourceFault::Filter { name: name.clone(), fault };
        Ok(SourceTrigger {
            task_enabled: self.enabled,
            enabled: settings.enabled,
            repository,
            commits: settings.commits,
            pull_requests: settings.pull_requests,
            tags: settings.tags,
            branch_filter: NameFilter::parse(&branches).map_err(wrong)?,
            tag_filter: NameFilter::parse(&settings.tag_names).map_err(wrong)?,
            path_filter: PathFilter::parse(&settings.paths, &settings.exclude_paths).map_err(wrong)?,
            drafts: settings.drafts,
            honour_skip_ci: settings.skip_ci,
            forks: match &settings.fork_pool {
                None => ForkRule::Refuse,
                Some(pool) => ForkRule::Untrusted { pool_is_marked: is_marked(pool) },
            },
        })
    }

    /// The commit that is to be built, of the context's repository and in its folder. Where a tag points at an object of its
    /// own and the forge says no more, the tag itself is taken.
    fn source_of(&self, firing: &Firing, event: &SourceEvent) -> Option<RemoteSource> {
        let Some(RemoteSource::Git(context)) = &self.source else { return None };
        let reference = match (&firing.kind, &event.change) {
            (FiringKind::Tag { tag }, SourceChange::Tag(pushed)) if pushed.commit.is_none() => {
                format!("refs/tags/{tag}")
            }
            _ => firing.commit.as_str().to_owned(),
        };
        let reference = GitReference::parse(&reference).ok()?;
        Some(RemoteSource::Git(GitSource { reference: Some(reference), ..context.clone() }))
    }

    pub(super) fn check_sources(&self) -> Result<(), SourceFault> {
        if self.patterns() > MAX_PATTERNS {
            return Err(SourceFault::TooManyPatterns);
        }
        for (name, settings) in &self.sources {
            if !settings.commits && !settings.pull_requests && !settings.tags {
                return Err(SourceFault::NoEvent(name.clone()));
            }
            self.source_trigger(name, settings, |_| false)?;
        }
        Ok(())
    }
}

fn other_keys(firing: &Firing, event: &SourceEvent) -> Vec<String> {
    let SourceChange::Tag(pushed) = &event.change else { return Vec::new() };
    let object = pushed.change.after().filter(|object| **object != firing.commit);
    object.map(|object| Firing { commit: object.clone(), ..firing.clone() }.key()).into_iter().collect()
}

/// The branches that a context means, as patterns; none where it is a commit or a tag.
fn branches_of(context: &GitSource) -> Option<Vec<String>> {
    let defaults = || DEFAULT_BRANCHES.map(str::to_owned).to_vec();
    let Some(reference) = &context.reference else { return Some(defaults()) };
    match reference.kind() {
        ReferenceKind::Default => Some(defaults()),
        ReferenceKind::Commit(_) => None,
        ReferenceKind::Full(name) => name.strip_prefix("refs/heads/").map(|branch| vec![as_it_is(branch)]),
        ReferenceKind::Named { .. } => {
            let text = reference.as_str();
            Some(vec![as_it_is(text.strip_prefix("heads/").unwrap_or(text))])
        }
    }
}

/// A name as a pattern that matches it alone.
fn as_it_is(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for char in name.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

#[cfg(test)]
mod tests;
