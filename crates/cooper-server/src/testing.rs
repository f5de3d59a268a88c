//! What the crate's tests begin with: the shared core over a real store in a directory of its own.

pub(crate) mod tasks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cooper_api::agent::SpokenByServer;
use cooper_e2e::Trap;
use cooper_engine::run::{Asked, NewRun};
use cooper_ports::access::AccessStore;
use cooper_ports::clock::Clock;
use cooper_ports::runs::{AcceptRun, RunType, Seal, SealedSecret};
use cooper_registry::SigningKey;
use cooper_source::{Cidr, Names};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_spec::source::GitSource;
use cooper_store::{Store, StoreOptions};
use cooper_types::{
    AgentName, ContextId, Digest, Platform, PoolName, PrincipalName, RegistryName, RunId, Scope, Scopes, SecretBytes,
    SecretString,
};
use tempfile::TempDir;

use crate::access::Access;
use crate::contexts::ContextFiles;
use crate::core::{Core, CoreParts};
use crate::keys::ServerKey;
use crate::secrets::Secrets;
use crate::settings::SecretSettings;

/// The bytes of every context that [`accept`] uploads.
pub(crate) const CONTEXT: &[u8] = b"an archive";

/// A core, and the directory that it lives in.
pub(crate) async fn core() -> (Arc<Core>, TempDir) {
    core_speaking(SpokenByServer::THIS).await
}

/// A core of a server that speaks these versions of the agents' protocol.
pub(crate) async fn core_speaking(spoken: SpokenByServer) -> (Arc<Core>, TempDir) {
    core_over(spoken, |store| Arc::new(store)).await
}

/// A core whose tokens are read through something else than the store itself.
pub(crate) async fn core_over(
    spoken: SpokenByServer,
    tokens: impl FnOnce(Store) -> Arc<dyn AccessStore>,
) -> (Arc<Core>, TempDir) {
    let data = tempfile::tempdir().expect("temp dir");
    let (core, _) = open(data.path(), spoken, tokens, None, Vec::new(), |_, _| {}).await;
    (core, data)
}

/// A core over this directory and clock, and its store, which is to be closed before the next one.
pub(crate) async fn core_in(data: &Path, clock: Arc<dyn Clock>) -> (Arc<Core>, Store) {
    core_of(data, clock, |_, _| {}).await
}

/// The same, made of other parts.
pub(crate) async fn core_of(
    data: &Path,
    clock: Arc<dyn Clock>,
    change: impl FnOnce(&mut CoreParts, &Store),
) -> (Arc<Core>, Store) {
    open(data, SpokenByServer::THIS, |store| Arc::new(store), Some(clock), Vec::new(), change).await
}

/// The same, of a server that may send to this machine.
pub(crate) async fn core_sending_here(data: &Path, clock: Option<Arc<dyn Clock>>) -> (Arc<Core>, Store) {
    let here = Cidr::parse("127.0.0.1").expect("valid");
    open(
        data,
        SpokenByServer::THIS,
        |store| Arc::new(store),
        clock,
        vec![here],
        |parts, _| {
            parts.allowed_webhooks.clone_from(&parts.allowed_sources);
        },
    )
    .await
}

/// The same, of a server that may fetch sources from this machine, and send nothing there but to webhooks.
pub(crate) async fn core_fetching_here(data: &Path) -> (Arc<Core>, Store) {
    let here = Cidr::parse("127.0.0.1").expect("valid");
    open(data, SpokenByServer::THIS, |store| Arc::new(store), None, vec![here], |_, _| {}).await
}

/// The same, of a server that may fetch from and send to the open side of a trap alone.
pub(crate) async fn core_beside(trap: &Trap, data: &Path, clock: Option<Arc<dyn Clock>>) -> (Arc<Core>, Store) {
    let listed = Cidr::parse(Trap::OPEN).expect("valid");
    let names = trap.names();
    open(
        data,
        SpokenByServer::THIS,
        |store| Arc::new(store),
        clock,
        vec![listed],
        |parts, _| {
            parts.allowed_webhooks.clone_from(&parts.allowed_sources);
            parts.names = Some(Names::new(names));
        },
    )
    .await
}

async fn open(
    data: &Path,
    spoken: SpokenByServer,
    tokens: impl FnOnce(Store) -> Arc<dyn AccessStore>,
    clock: Option<Arc<dyn Clock>>,
    allowed_sources: Vec<Cidr>,
    change: impl FnOnce(&mut CoreParts, &Store),
) -> (Arc<Core>, Store) {
    let registry = RegistryName::parse("localhost:5000").expect("valid");
    let options = StoreOptions { registry_name: registry.clone(), clock };
    let store = Store::open(data, options).await.expect("store");
    let key = Arc::new(ServerKey::load_or_create(&data.join("key")).expect("key"));
    let secrets = Secrets::open(&SecretSettings::default(), Arc::new(store.clone()), key.clone()).expect("secrets");
    let mut parts = CoreParts {
        runs: Arc::new(store.clone()),
        logs: Arc::new(store.clone()),
        tasks: Arc::new(store.clone()),
        waves: Arc::new(store.clone()),
        wave_concurrency: 4,
        webhooks: Arc::new(store.clone()),
        outbox: Arc::new(store.clone()),
        hook_store: Arc::new(store.clone()),
        statuses: Arc::new(store.clone()),
        references: Arc::new(store.clone()),
        registrations: Arc::new(store.clone()),
        outside_tags: Arc::new(store.clone()),
        is_public: true,
        public_url: "https://ci.example".to_owned(),
        contexts: Arc::new(store.clone()),
        credentials: Arc::new(store.clone()),
        secret_store: Arc::new(store.clone()),
        allowed_webhooks: Vec::new(),
        names: None,
        allowed_sources,
        image_aliases: std::collections::BTreeMap::new(),
        source_roots: None,
        docker_logins: None,
        frontends: Default::default(),
        context_retention: Duration::ZERO,
        context_retention_bytes: u64::MAX,
        context_files: ContextFiles::open(data.join("contexts"), 1024).await.expect("contexts"),
        clock: store.clock().clone(),
        wall_clock: store.wall_clock().clone(),
        access: Access::new(tokens(store.clone()), store.clock().clone()),
        key,
        secrets,
        signing: SigningKey::new(&SecretBytes::new(vec![7; 32])).expect("key"),
        registry,
        agent_store: Arc::new(store.clone()),
        spoken,
        local_agent: Some(AgentName::parse("local").expect("valid")),
    };
    change(&mut parts, &store);
    (Arc::new(Core::new(parts)), store)
}

/// A principal's name.
pub(crate) fn principal(name: &str) -> PrincipalName {
    PrincipalName::parse(name).expect("valid")
}

/// A token of a principal.
pub(crate) async fn token(core: &Core, name: &str, scopes: &[&str]) -> SecretString {
    let scopes = Scopes(scopes.iter().map(|text| Scope::parse(text).expect(text)).collect());
    core.access.create(principal(name), scopes, None).await.expect("token").1
}

/// An accepted run that builds and pushes nothing, with its context on disk.
pub(crate) async fn accept(core: &Core, secrets: Vec<SealedSecret>) -> RunId {
    let context = uploaded(core).await;
    accept_from(core, BuildSource::Context(context), secrets).await
}

/// A context of alice's, on disk.
pub(crate) async fn uploaded(core: &Core) -> ContextId {
    let context = ContextId::parse(&uuid::Uuid::new_v4().to_string()).expect("valid");
    let expires = core.clock.now().after(Duration::from_secs(3600));
    core.contexts.create_context(context.clone(), principal("alice"), expires).await.expect("created");
    std::fs::write(core.context_files.path(&context), CONTEXT).expect("written");
    let (size, digest) = (CONTEXT.len() as u64, Digest::sha256(CONTEXT));
    core.contexts.mark_uploaded(&context, &principal("alice"), size, &digest).await.expect("uploaded");
    context
}

/// An accepted run of alice's whose source an agent has to fetch.
pub(crate) async fn accept_git(core: &Core) -> RunId {
    let source = GitSource::parse("https://git.example/app.git#main").expect("valid");
    accept_from(core, BuildSource::Remote(source.into()), Vec::new()).await
}

/// An accepted run of two steps: it builds and pushes.
pub(crate) async fn accept_pushing(core: &Core) -> RunId {
    let context = uploaded(core).await;
    accept_build(core, BuildSource::Context(context), Vec::new(), &["app:1"]).await
}

async fn accept_from(core: &Core, source: BuildSource, secrets: Vec<SealedSecret>) -> RunId {
    accept_build(core, source, secrets, &[]).await
}

async fn accept_build(core: &Core, source: BuildSource, secrets: Vec<SealedSecret>, names: &[&str]) -> RunId {
    let build = QuickBuild {
        image_names: names.iter().map(|name| (*name).to_owned()).collect(),
        push: !names.is_empty(),
        no_cache: false,
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        arguments: Vec::new(),
        labels: Vec::new(),
        secrets: secrets.iter().map(|secret| secret.name.clone()).collect(),
        platform: Platform::LINUX_AMD64,
        platforms: Vec::new(),
        elsewhere: false,
    };
    let run = NewRun {
        origin: Default::default(),
        principal: principal("alice"),
        scopes: Scopes(vec![Scope::Admin]),
        registry: core.registry.clone(),
        pool: PoolName::default_pool(),
        asked: Asked::Build { build, source },
        timeout: Duration::from_secs(3600),
        replay: None,
    };
    let request = AcceptRun {
        run,
        run_type: RunType::QuickBuild,
        idempotency: None,
        secrets,
        seal: Seal::nothing(),
        context_of: None,
    };
    core.runs.accept_run(request).await.expect("accepted").record.run.id
}
