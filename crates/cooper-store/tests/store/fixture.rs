//! A store in a directory of its own, and the steps that most tests begin with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::run::{AgentRef, Asked, Effect, NewRun, Policy, Run, RunEvent};
use cooper_ports::clock::{Clock, ManualClock};
use cooper_ports::contexts::ContextStore;
use cooper_ports::runs::{AcceptRun, Applied, ApplyError, RunRecord, RunStore, RunType, Seal};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_store::{OpenError, Store, StoreOptions};
use cooper_types::{
    AgentName, AttemptNumber, ContextId, Digest, Fence, Platform, PoolName, PrincipalName, RegistryName, RunId, Scope,
    Scopes, Timestamp,
};
use tempfile::TempDir;

/// A store, its directory, and the clock that tests move.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = open_with(directory.path(), Some(clock.clone())).await.unwrap();
        Self { store, clock, directory }
    }

    /// Closes the store and opens it again, as a restart does.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open_with(self.directory.path(), Some(self.clock.clone())).await.unwrap();
    }

    /// All runs that have not ended, oldest first.
    pub(crate) async fn unfinished_runs(&self) -> Vec<Run> {
        let found = self.store.unfinished_changes(&BTreeMap::new()).await.unwrap();
        assert!(found.unreadable.is_empty() && found.gone.is_empty());
        found.changed.into_iter().map(|(_, run)| run).collect()
    }

    /// An accepted run of alice's.
    pub(crate) async fn accept(&self) -> RunRecord {
        upload(&self.store, "alice", "source").await;
        self.store.accept_run(quick_build("alice", "source")).await.unwrap().record
    }

    /// An accepted run whose build step is live on an agent.
    pub(crate) async fn start(&self) -> Started {
        upload(&self.store, "alice", "source").await;
        self.start_of(quick_build("alice", "source")).await
    }

    /// An accepted run of this request, whose first step is live on an agent.
    pub(crate) async fn start_of(&self, request: AcceptRun) -> Started {
        let run = self.store.accept_run(request).await.unwrap().record.run.id;
        let offered = self.apply(run, RunEvent::Offer { placement: 0, agent: agent() }).await.unwrap();
        let fence = offered.run.last_fence;
        let accepted = self.apply(run, RunEvent::Accepted { fence, host: None }).await.unwrap();
        let starts = accepted.send.iter().any(|effect| matches!(effect, Effect::SendStart { .. }));
        assert!(starts, "{:?}", accepted.send);
        Started { run, fence, attempt: accepted.run.last_attempt }
    }

    pub(crate) async fn apply(&self, run: RunId, event: RunEvent) -> Result<Applied, ApplyError> {
        self.store.apply_event(run, event, &Policy::DEFAULT).await
    }

    /// How many rows a query counts.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.store.readers()).await.unwrap()
    }
}

/// A run whose first step is live.
#[derive(Clone, Copy)]
pub(crate) struct Started {
    pub(crate) run: RunId,
    pub(crate) fence: Fence,
    pub(crate) attempt: AttemptNumber,
}

pub(crate) fn agent() -> AgentRef {
    AgentRef { name: AgentName::parse("agent-1").unwrap(), incarnation: "first".to_owned() }
}

pub(crate) fn principal(name: &str) -> PrincipalName {
    PrincipalName::parse(name).unwrap()
}

pub(crate) fn context(id: &str) -> ContextId {
    ContextId::parse(id).unwrap()
}

/// Makes an uploaded context, if it is not there yet.
pub(crate) async fn upload(store: &Store, owner: &str, id: &str) {
    let (id, owner) = (context(id), principal(owner));
    if store.find_context(&id, &owner).await.unwrap().is_none() {
        let expires = store.clock().now().after(Duration::from_secs(3600));
        store.create_context(id.clone(), owner.clone(), expires).await.unwrap();
        store.mark_uploaded(&id, &owner, 10, &Digest::sha256(b"context")).await.unwrap();
    }
}

/// A request to build and push `app:v1` from a context.
pub(crate) fn quick_build(owner: &str, source: &str) -> AcceptRun {
    let build = QuickBuild {
        image_names: vec!["app:v1".to_owned(), "app:{{.Run.ID}}".to_owned()],
        push: true,
        no_cache: false,
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        arguments: Vec::new(),
        labels: Vec::new(),
        secrets: Vec::new(),
        platform: Platform::LINUX_AMD64,
        platforms: Vec::new(),
        elsewhere: false,
    };
    let run = NewRun {
        origin: Default::default(),
        principal: principal(owner),
        scopes: Scopes(vec![Scope::Admin]),
        registry: registry(),
        pool: PoolName::default_pool(),
        asked: Asked::Build { build, source: BuildSource::Context(context(source)) },
        timeout: Duration::from_secs(3600),
        replay: None,
    };
    AcceptRun {
        run,
        run_type: RunType::QuickBuild,
        idempotency: None,
        secrets: Vec::new(),
        seal: Seal::nothing(),
        context_of: None,
    }
}

/// The build that a request asks for.
pub(crate) fn build_of(request: &mut AcceptRun) -> (&mut QuickBuild, &mut BuildSource) {
    match &mut request.run.asked {
        Asked::Build { build, source } => (build, source),
        Asked::Task(_) => unreachable!("the fixture asks for builds"),
    }
}

pub(crate) async fn open(directory: &Path) -> Result<Store, OpenError> {
    open_with(directory, None).await
}

pub(crate) async fn open_with(directory: &Path, clock: Option<Arc<ManualClock>>) -> Result<Store, OpenError> {
    let clock = clock.map(|clock| clock as Arc<dyn Clock>);
    Store::open(directory, StoreOptions { registry_name: registry(), clock }).await
}

fn registry() -> RegistryName {
    RegistryName::parse("localhost:5000").unwrap()
}

/// The whole chain of an error, as a log shows it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
