//! What a test of the suite runs on: an engine, a registry beside it, and names of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cooper_docker::{DockerEngine, EngineSocket};
use cooper_engine::message::PlacementKey;
use cooper_ports::context_tree::ContextTree;
use cooper_ports::engine::scripted::{ScriptedBuild, ScriptedContainer, ScriptedEngine, ScriptedPull, ScriptedPush};
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEnd, ContainerEngine, ContainerError, ContainerEvent,
    ContainerRequest, EngineOwner, LocalName, OutputStream, Placement, PlacementRequest, PlacementScope, PushError,
    PushRequest, PushedImage, VolumeContent, VolumeRequest,
};
use cooper_types::{AttemptNumber, Digest, Fence, ImageRef, RunId, SecretString, StepId, VolumeName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::registry::TestRegistry;

/// One test's bench. Everything that it makes is removed when the test ends, however it ends.
pub(crate) struct Bench {
    pub(crate) engine: Arc<dyn ContainerEngine>,
    /// The fake, where it is one.
    script: Option<Arc<ScriptedEngine>>,
    pub(crate) registry: TestRegistry,
    pub(crate) owner: EngineOwner,
    names: AtomicU64,
}

pub(crate) struct DockerBench;
pub(crate) struct ScriptedBench;

impl DockerBench {
    pub(crate) async fn start() -> Bench {
        Bench::new(Arc::new(connect().await), None).await
    }
}

impl ScriptedBench {
    pub(crate) async fn start() -> Bench {
        let script = Arc::new(ScriptedEngine::new());
        Bench::new(script.clone(), Some(script)).await
    }
}

/// How long anything may take that is bound to come: what a test must not have waited for takes an hour.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Fails a test whose event does not come.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, event).await;
    came.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Fails a test whose condition never holds.
pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    soon(what, async {
        while !check() {
            a_moment().await;
        }
    })
    .await;
}

/// Until it is looked again.
pub(crate) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The engine of this machine. A busy one is asked again.
pub(crate) async fn connect() -> DockerEngine {
    let since = Instant::now();
    loop {
        match DockerEngine::connect(socket()).await {
            Ok(engine) => return engine,
            Err(error) => assert!(
                since.elapsed() < PATIENCE,
                "these tests need a Docker Engine, which `cargo xtask test` installs and starts: {error}"
            ),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no settings; the engine is this machine's")]
pub(crate) fn socket() -> EngineSocket {
    EngineSocket::choose(None, std::env::var("DOCKER_HOST").ok().as_deref()).expect("DOCKER_HOST is a Unix socket")
}

/// Runs a test and cleans up after it.
pub(crate) async fn run<F>(bench: Bench, test: impl FnOnce(Arc<Bench>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let bench = Arc::new(bench);
    let result = tokio::spawn(test(bench.clone())).await;
    let reaped = bench.engine.reap(&bench.owner).await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
    reaped.expect("everything can be removed");
}

impl Bench {
    async fn new(engine: Arc<dyn ContainerEngine>, script: Option<Arc<ScriptedEngine>>) -> Self {
        let owner = EngineOwner::new(&format!("conformance {:x}", rand::random::<u128>()));
        Self { engine, script, registry: TestRegistry::start().await, owner, names: AtomicU64::new(0) }
    }

    /// Tells the fake what the next build does; the real engine finds out by itself.
    pub(crate) fn next_build(&self, script: impl FnOnce() -> ScriptedBuild) {
        if let Some(engine) = &self.script {
            engine.script_build(script());
        }
    }

    /// The same for the next push.
    pub(crate) fn next_push(&self, script: impl FnOnce() -> ScriptedPush) {
        if let Some(engine) = &self.script {
            engine.script_push(script());
        }
    }

    /// The same for the next container.
    pub(crate) fn next_container(&self, script: impl FnOnce() -> ScriptedContainer) {
        if let Some(engine) = &self.script {
            engine.script_container(script());
        }
    }

    /// The same for the next pull.
    pub(crate) fn next_pull(&self, script: impl FnOnce() -> ScriptedPull) {
        if let Some(engine) = &self.script {
            engine.script_pull(script());
        }
    }

    pub(crate) fn is_real(&self) -> bool {
        self.script.is_none()
    }

    pub(crate) fn local_name(&self) -> LocalName {
        let number = self.names.fetch_add(1, Ordering::Relaxed) + 1;
        LocalName::new(&self.owner, RunId::from_number(number), AttemptNumber(1))
    }

    pub(crate) fn request(&self, context: Context) -> BuildRequest {
        self.request_of(context.tree())
    }

    pub(crate) fn request_of(&self, context: ContextTree) -> BuildRequest {
        BuildRequest {
            name: self.local_name(),
            context,
            dockerfile: "Dockerfile".into(),
            target: None,
            platform: None,
            arguments: Vec::new(),
            // Images of two tests are never the same image: what one removes, the other keeps.
            labels: vec![("bench".into(), self.owner.label().into())],
            no_cache: false,
            secrets: BTreeMap::new(),
            logins: Arc::new(BTreeMap::new()),
            dockerfile_tree: None,
            bases: cooper_ports::engine::BaseImages::default(),
            network: cooper_ports::engine::BuildNetwork::default(),
            hosts: Vec::new(),
            cache_from: Vec::new(),
            cache_to: None,
            shared_key: self.owner.label().to_owned(),
            resolved: Vec::new(),
            copied: Vec::new(),
        }
    }

    /// Builds to the end; all that it said comes with the outcome.
    pub(crate) async fn build(&self, request: BuildRequest) -> (Result<BuiltImage, BuildError>, Said) {
        let (sink, mut events) = mpsc::channel(8);
        let listen = tokio::spawn(async move {
            let mut said = Said::default();
            while let Some(event) = events.recv().await {
                said.0.push(event);
            }
            said
        });
        let outcome = self.engine.build(request, sink, CancellationToken::new()).await;
        (outcome, listen.await.expect("the listener does not panic"))
    }

    pub(crate) async fn push(&self, image: Digest, reference: &str) -> Result<PushedImage, PushError> {
        let (sink, _events) = mpsc::channel(1024);
        let reference = ImageRef::parse(reference).expect("a reference");
        let request = PushRequest { image, reference, credential: self.registry.credential() };
        self.engine.push(request, sink, CancellationToken::new()).await
    }

    /// An image with a shell, of this bench alone.
    pub(crate) async fn shell(&self) -> Digest {
        self.image("FROM scratch\nCOPY bin /bin\n").await
    }

    /// An image of a Dockerfile for a context with a shell.
    pub(crate) async fn image(&self, dockerfile: &str) -> Digest {
        let (built, said) = self.build(self.request(Context::shell(dockerfile))).await;
        built.unwrap_or_else(|error| panic!("{error}\n{}", said.output())).image
    }

    /// A new placement's scope.
    pub(crate) fn scope(&self) -> PlacementScope {
        let number = self.names.fetch_add(1, Ordering::Relaxed) + 1;
        let key = PlacementKey { run: RunId::from_number(number), fence: Fence(number) };
        PlacementScope { owner: self.owner.clone(), key }
    }

    /// A placement with a shared network and one volume on disk, `work`.
    pub(crate) fn placement(&self) -> PlacementRequest {
        PlacementRequest {
            scope: self.scope(),
            volumes: vec![VolumeRequest { name: volume("work"), content: VolumeContent::Empty }],
            networks: Vec::new(),
            shared_network: true,
            registry: None,
        }
    }

    pub(crate) async fn open(&self, request: PlacementRequest) -> Arc<dyn Placement> {
        let opened = self.engine.open_placement(request, CancellationToken::new()).await;
        opened.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error))).into()
    }
}

pub(crate) fn volume(name: &str) -> VolumeName {
    VolumeName::parse(name).expect("a volume's name")
}

pub(crate) fn secrets(words: &[&str]) -> Vec<SecretString> {
    words.iter().map(|word| SecretString::new((*word).to_owned())).collect()
}

/// A container that runs a shell script.
pub(crate) fn script(image: &Digest, text: &str) -> ContainerRequest {
    let mut request = ContainerRequest::new(StepId::parse("step").expect("an id"), image.clone());
    request.arguments = secrets(&["/bin/sh", "-c", text]);
    request
}

/// Runs a container to the end; its standard output and error come with the outcome.
pub(crate) async fn run_in(
    placement: &dyn Placement,
    request: ContainerRequest,
) -> (Result<ContainerEnd, ContainerError>, String, String) {
    let (sink, mut events) = mpsc::channel(8);
    let listen = tokio::spawn(async move {
        let mut said = [Vec::new(), Vec::new()];
        while let Some(event) = events.recv().await {
            if let ContainerEvent::Output { stream, bytes } = event {
                said[usize::from(stream == OutputStream::Stderr)].extend_from_slice(&bytes);
            }
        }
        said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    });
    let outcome = placement.run(request, sink, CancellationToken::new()).await;
    let [out, err] = listen.await.expect("the listener does not panic");
    (outcome, out, err)
}

/// Runs a script that must succeed; its output.
pub(crate) async fn output_of(placement: &dyn Placement, request: ContainerRequest) -> String {
    let (outcome, out, err) = run_in(placement, request).await;
    match outcome {
        Ok(ContainerEnd::Exited { code: 0, .. }) => out,
        other => panic!("{other:?}\n{out}\n{err}"),
    }
}

/// What a build said.
#[derive(Debug, Default)]
pub(crate) struct Said(pub(crate) Vec<BuildEvent>);

impl Said {
    /// All output, as text.
    pub(crate) fn output(&self) -> String {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Log { bytes, .. } => Some(bytes.to_vec()),
                _ => None,
            })
            .flatten()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The newest state of the vertex whose name contains this.
    pub(crate) fn vertex(&self, part: &str) -> &cooper_ports::engine::VertexEvent {
        let found = self.0.iter().rev().find_map(|event| match event {
            BuildEvent::Vertex(vertex) if vertex.name.contains(part) => Some(vertex),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no vertex `{part}` in {:#?}", self.0))
    }
}
