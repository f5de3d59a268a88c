//! An agent on a test's bench: a server, a work folder, and the words to talk with it.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cooper_agent::{Agent, AgentError, AgentSettings};
use cooper_api::agent::{
    BuildContextOrder, BuildOrder, CommandImageOrder, CommandOrder, EnvironmentOrder, PushFrom, PushOrder, PushTarget,
    RegistryAccess, StepOrder, StepWork,
};
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_engine::message::{PlacementKey, StepResult, ToAgent, ToServer};
use cooper_ports::clock::ManualClock;
use cooper_ports::engine::{ContainerEngine, EngineOwner};
use cooper_spec::dockerfile::FrontendRules;
use cooper_spec::plan::Tries;
use cooper_types::{
    AgentName, AttemptNumber, Digest, Fence, Platform, RegistryName, RepositoryName, RunId, SecretBytes, SecretString,
    StepId, Tag, Timestamp,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::{TOKEN, TestServer, TestStream};

/// The registry that orders name.
pub(crate) const REGISTRY: &str = "localhost:5000";

/// Everything that a test needs.
pub(crate) struct Bench {
    pub(crate) server: TestServer,
    pub(crate) streams: mpsc::Receiver<TestStream>,
    pub(crate) work_dir: tempfile::TempDir,
    shutdown: CancellationToken,
    agent: JoinHandle<Result<(), AgentError>>,
}

/// How long anything may take that is bound to come, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fails a test whose event does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {PATIENCE:?}"),
    }
}

/// This machine's engine. A busy one is asked again.
pub(crate) async fn real_engine() -> Arc<DockerEngine> {
    let since = Instant::now();
    loop {
        let socket = EngineSocket::choose(None, None).expect("the usual socket");
        match DockerEngine::connect(socket).await {
            Ok(engine) => return Arc::new(engine),
            Err(error) => {
                assert!(since.elapsed() < PATIENCE, "{error}: `cargo xtask test` installs and starts an engine")
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub(crate) fn key(run: u64) -> PlacementKey {
    PlacementKey { run: RunId::from_number(run), fence: Fence(run + 10) }
}

/// The usual settings.
pub(crate) fn settings(work_dir: &Path) -> AgentSettings {
    let settings = AgentSettings::new(
        AgentName::parse("tester").expect("valid"),
        2,
        work_dir.to_owned(),
        SecretString::new(TOKEN.to_owned()),
        EngineOwner::new("server/tester"),
    );
    // An engine that a test takes down for a moment is not to be noticed by chance.
    AgentSettings { engine_period: Duration::from_secs(3600), ..settings }
}

impl Bench {
    /// An agent with the usual settings.
    pub(crate) fn start(engine: Arc<dyn ContainerEngine>) -> Self {
        Self::start_with(engine, |_| {})
    }

    /// An agent with settings of its own.
    pub(crate) fn start_with(engine: Arc<dyn ContainerEngine>, change: impl FnOnce(&mut AgentSettings)) -> Self {
        let work_dir = tempfile::tempdir().expect("a temporary folder");
        let (server, streams) = TestServer::new();
        server.serve_context(archive(&[("Dockerfile", b"FROM localhost:5000/base:1\nRUN talk\n")]));
        let mut settings = settings(work_dir.path());
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000)));
        let agent = Agent::new(settings, engine, clock);
        let connector = Arc::new(server.connector());
        let agent = tokio::spawn(agent.run(connector, shutdown.clone()));
        Self { server, streams, work_dir, shutdown, agent }
    }

    /// The next stream that the agent opens.
    pub(crate) async fn stream(&mut self) -> TestStream {
        soon("stream", self.streams.recv()).await.expect("the server lives")
    }

    /// Tells the agent to end, without waiting.
    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Ends the agent.
    pub(crate) async fn shut_down(self) {
        self.shutdown.cancel();
        soon("end of the agent", self.agent).await.expect("no panic").expect("no error");
    }

    /// Everything that is left in the work folder.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.work_dir.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        names.filter(|name| name != "agent.lock").collect()
    }
}

impl TestStream {
    /// Offers a placement, which must be taken as soon as the engine is cleaned up.
    pub(crate) async fn place(&mut self, key: PlacementKey) {
        loop {
            self.say(ToAgent::Offer { key, platform: Platform::LINUX_AMD64 }).await;
            match soon("answer", self.message()).await {
                ToServer::Declined(_, why) if why.contains("its earlier life left") => {}
                answer => return assert_eq!(answer, ToServer::Accepted(key)),
            }
        }
    }

    /// Starts an attempt, which must begin.
    pub(crate) async fn start(&mut self, key: PlacementKey, attempt: u64, work: StepOrder) {
        let attempt = AttemptNumber(attempt);
        self.say(ToAgent::StartStep { key, attempt, work }).await;
        assert_eq!(soon("start", self.message()).await, ToServer::StepStarted(key, attempt));
    }

    /// Waits for an attempt's result and says that it is stored.
    pub(crate) async fn result(&mut self, key: PlacementKey, attempt: u64) -> StepResult {
        match soon("result", self.message()).await {
            ToServer::StepEnded(of, number, result) => {
                assert_eq!((of, number), (key, AttemptNumber(attempt)));
                self.say(ToAgent::ResultStored { key, attempt: number }).await;
                result
            }
            other => panic!("{other:?} instead of a result"),
        }
    }

    /// Ends a placement.
    pub(crate) async fn stop(&mut self, key: PlacementKey) {
        self.say(ToAgent::Stop { key }).await;
        assert_eq!(soon("end of the placement", self.message()).await, ToServer::Stopped(key));
    }
}

pub(crate) fn order(work: StepWork, masked: &[&str]) -> StepOrder {
    StepOrder {
        step: StepId::parse("step").expect("valid"),
        timeout: Duration::from_secs(3600),
        masked: masked.iter().map(|value| SecretBytes::new(value.as_bytes().to_vec())).collect(),
        registry: RegistryAccess {
            name: RegistryName::parse(REGISTRY).expect("valid"),
            username: "run".to_owned(),
            password: SecretString::new("registry-password".to_owned()),
        },
        environment: None,
        tries: Tries::default(),
        beside: false,
        work,
    }
}

/// A build of the context's `Dockerfile`.
pub(crate) fn build() -> StepOrder {
    build_of("Dockerfile", &[])
}

/// A build of this Dockerfile, with these values masked.
pub(crate) fn build_of(dockerfile: &str, masked: &[&str]) -> StepOrder {
    let build = BuildOrder {
        dockerfile: dockerfile.to_owned(),
        target: None,
        arguments: Vec::new(),
        labels: Vec::new(),
        no_cache: false,
        secrets: Vec::new(),
        platform: Platform::LINUX_AMD64,
        shared_key: "shared".to_owned(),
        context: BuildContextOrder::Fetched,
        network: None,
        add_hosts: Vec::new(),
        cache: None,
        own_bases: Vec::new(),
        staged_bases: Vec::new(),
        frontends: FrontendRules::default(),
        allowed_networks: Vec::new(),
        pinned: Vec::new(),
    };
    order(StepWork::Build(build), masked)
}

/// A container of this image with these words.
pub(crate) fn command(image: &str, words: &[&str]) -> StepOrder {
    command_with(image, words, |_, _| {})
}

/// The same, changed by the test.
pub(crate) fn command_with(
    image: &str,
    words: &[&str],
    change: impl FnOnce(&mut CommandOrder, &mut EnvironmentOrder),
) -> StepOrder {
    let mut command = CommandOrder {
        image: CommandImageOrder::Named(image.to_owned()),
        arguments: words.iter().map(|word| SecretString::new((*word).to_owned())).collect(),
        environment: Vec::new(),
        mounts: Vec::new(),
        platform: Platform::LINUX_AMD64,
        entry_point: None,
        working_directory: Some("/workspace".to_owned()),
        user: None,
        network: None,
        ports: Vec::new(),
        expose: Vec::new(),
        cpus: None,
        isolation: None,
        privileged: false,
        keep: false,
        detach: false,
        terminal: false,
        pull: false,
        pull_retries: 0,
        pull_retry_delay: Duration::ZERO,
    };
    let mut environment = EnvironmentOrder::default();
    change(&mut command, &mut environment);
    StepOrder { environment: Some(environment), ..order(StepWork::Command(command), &[]) }
}

/// A push of this image to these repositories.
pub(crate) fn push(image: Digest, repositories: &[&str]) -> StepOrder {
    let target = |name: &&str| PushTarget {
        repository: RepositoryName::parse(name).expect("valid"),
        staging_tag: Tag::parse("staged.1.2").expect("valid"),
        from: PushFrom::Image(image.clone()),
        registry: None,
    };
    let targets = repositories.iter().map(target).collect();
    order(StepWork::Push(PushOrder { targets, allowed_networks: Vec::new() }), &[])
}

/// A tar.gz of these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        // Not `set_path`, which refuses what a hostile archive holds.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        archive.append(&header, *content).expect("written");
    }
    archive.into_inner().and_then(GzEncoder::finish).expect("written")
}
