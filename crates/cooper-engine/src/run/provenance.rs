//! What a run was made from beside its plan: what was asked for, where it ran, and which run it repeats.
//!
//! Owns the form in which requests are kept. They hold names of secrets, never values, and no query of a URL, which may be
//! a signature. The texts that a task is planned from are kept beside them (`cooper_spec::task_request::KeptTexts`).

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_spec::plan::ArgumentValue;
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_spec::task_request::{TaskRequest, UsedSecret};
use cooper_types::{AgentName, ContextId, PoolName, StepId};
use serde::{Deserialize, Serialize};

use super::{Asked, NewRun, Replay, TaskSource};

/// What is known of how a run came to its results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// The run that this one repeats, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Box<Replay>>,
    /// Who has held each placement last, by its index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<usize, Host>,
    /// The secrets that the task file named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<UsedSecret>,
    /// What the contexts were found to be that steps fetched for themselves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<StepId, SourcePin>,
}

/// An agent as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub agent: AgentName,
    /// Its version.
    pub version: String,
    /// Its engine, with the engine's version.
    pub engine: String,
}

/// The form that requests are kept in; a later one is not understood.
pub const REQUEST_VERSION: u32 = 1;

/// A request as it is kept with its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRequest {
    /// The form: [`REQUEST_VERSION`] or an earlier one.
    pub version: u32,
    /// What was asked for.
    pub asked: KeptAsked,
    /// The pool whose agents may take it.
    pub pool: PoolName,
    /// How long the run may take.
    pub timeout: Duration,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeptAsked {
    /// One Dockerfile.
    Build {
        /// What is built.
        build: QuickBuild,
        /// Where the files come from.
        source: KeptSource,
    },
    /// A task file.
    Task {
        /// What is run, without the texts that came with it.
        request: TaskRequest,
        /// Where the files come from.
        source: KeptSource,
    },
}

/// Where the files come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeptSource {
    /// There are none.
    Nothing,
    /// They were uploaded.
    Context(ContextId),
    /// An agent fetches them.
    Remote(RemoteSource),
    /// An agent fetches them from a URL with a query, which is not kept.
    WithoutQuery(RemoteSource),
}

/// A secret that comes with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestSecret<'a> {
    /// A BuildKit secret of this id.
    Build(&'a str),
    /// A secret build argument.
    Argument(&'a str),
    /// A secret value of templates.
    Value(&'a str),
}

impl KeptSource {
    fn of(source: &RemoteSource) -> Self {
        match source.without_query() {
            Some(bare) => Self::WithoutQuery(bare),
            None => Self::Remote(source.clone()),
        }
    }
}

impl KeptRequest {
    /// What the request for a new run asks for.
    pub(super) fn of(new: &NewRun) -> Self {
        let asked = match &new.asked {
            Asked::Build { build, source } => KeptAsked::Build {
                build: build.clone(),
                source: match source {
                    BuildSource::Context(context) => KeptSource::Context(context.clone()),
                    BuildSource::Remote(source) => KeptSource::of(source),
                },
            },
            Asked::Task(task) => KeptAsked::Task {
                request: task.request.without_texts(),
                source: match &task.source {
                    TaskSource::Here { context: None, .. } => KeptSource::Nothing,
                    TaskSource::Here { context: Some(context), .. } => KeptSource::Context(context.clone()),
                    TaskSource::Remote(source) => KeptSource::of(source),
                },
            },
        };
        Self { version: REQUEST_VERSION, asked, pool: new.pool.clone(), timeout: new.timeout }
    }

    /// The secrets whose values came with the request; each once.
    pub fn secrets(&self) -> Vec<RequestSecret<'_>> {
        let mut secrets: Vec<RequestSecret<'_>> = match &self.asked {
            KeptAsked::Build { build, .. } => {
                let arguments = build.arguments.iter().filter(|argument| argument.value == ArgumentValue::Secret);
                let arguments = arguments.map(|argument| RequestSecret::Argument(&argument.name));
                build.secrets.iter().map(|id| RequestSecret::Build(id)).chain(arguments).collect()
            }
            KeptAsked::Task { request, .. } => {
                let secret = request.set.iter().filter(|set| set.value.is_none());
                secret.map(|set| RequestSecret::Value(&set.name)).collect()
            }
        };
        secrets.sort_unstable();
        secrets.dedup();
        secrets
    }

    /// Where the files come from.
    pub fn source(&self) -> &KeptSource {
        match &self.asked {
            KeptAsked::Build { source, .. } | KeptAsked::Task { source, .. } => source,
        }
    }
}
