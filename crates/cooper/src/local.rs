//! A server of a command's own: started for one run on a free port of this machine, with a temporary folder for its data
//! and an agent beside the engine, and gone with everything of it when the run is over.
//!
//! It is `cooper serve` with other settings: the run goes through the same client, API, scheduler and agent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cooper_api::rest::{AgentState, Run, RunStep, StepStatus, StepType};
use cooper_client::{Client, ServerUrl, Trust};
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::engine::{ContainerEngine as _, EngineDescription, EngineError, EngineOwner};
use cooper_server::{CredentialKeeper, LocalAgent, Server, WorkFolder};
use cooper_types::{AgentName, Platform};

use crate::connection::read_token;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::logging;
use crate::output;
use crate::settings::{self, Flags, Key, LOCAL_AGENT, LocalSettings};
use crate::signals::Signals;
use crate::started::{WaitFlags, Whose, see_through};

/// How often a run is looked at whose steps are not known yet.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is looked whether the agent has connected, which it does as soon as its engine has answered.
const AGENT_LOOK: Duration = Duration::from_millis(10);
/// How long the agent may take for that.
const AGENT_PATIENCE: Duration = Duration::from_secs(30);

/// Whether to have a server of one's own, and what its operator, who is the user, allows.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "With --local")]
pub(crate) struct LocalArgs {
    /// Run it on this machine alone: with a server and an agent that this command starts, and removes at its end. What is
    /// pushed to their registry goes with them
    #[arg(long, conflicts_with_all = ["server", "token_file", "insecure", "ca_file", "agent_pool", "no_wait"])]
    pub(crate) local: bool,
    /// The container engine's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET", requires = "local")]
    engine: Option<String>,
    /// Let steps have all privileges: as good as root of this machine
    #[arg(long, requires = "local")]
    allow_privileged: bool,
    /// Let steps have ports of this machine
    #[arg(long, requires = "local")]
    allow_ports: bool,
    /// Let steps use this network of the engine, which is not made for them; host is the machine's own; repeatable
    #[arg(long, value_name = "NAME", requires = "local")]
    allow_network: Vec<String>,
    /// The memory that each step's container may take, swap included, such as 4GiB [default: unlimited]
    #[arg(long, value_name = "SIZE", requires = "local")]
    step_memory: Option<String>,
    /// How many processes and threads each step's container may have at once [default: 16384]
    #[arg(long, value_name = "N", requires = "local")]
    step_pids: Option<String>,
    /// A network that sources may be fetched from although it is not public, such as 10.0.0.0/8; repeatable
    #[arg(long, value_name = "NETWORK", requires = "local")]
    allow_source: Vec<String>,
    /// Certificates in PEM that hosts of sources and of other registries are trusted by, besides the system's. The engine has
    /// its own: Docker's are in /etc/docker/certs.d
    #[arg(long, value_name = "FILE", requires = "local")]
    source_ca_file: Option<String>,
    /// A name that the task may use for an image, such as bash=localhost:5000/tools/bash:5; repeatable
    #[arg(long, value_name = "NAME=IMAGE", requires = "local")]
    image_alias: Vec<String>,
    /// Show registries the logins of the Docker client for files from elsewhere, too: for those of this machine they are
    #[arg(long, requires = "local")]
    docker_logins: bool,
    /// A variable of this environment that the task may name as env://NAME; repeatable
    #[arg(long, value_name = "NAME", requires = "local")]
    secret_env: Vec<String>,
}

impl LocalArgs {
    /// The names of images that a server of one's own would have.
    pub(crate) fn image_aliases(&self, environment: &Environment) -> Result<BTreeMap<String, String>, Stop> {
        let settings = settings::resolve_local(&self.flags(), Path::new("/"), environment);
        Ok(settings.map_err(Stop::Faults)?.server.image_aliases)
    }

    fn flags(&self) -> Flags {
        let mut flags = Flags::new();
        let texts = [
            (Key::Engine, &self.engine),
            (Key::StepMemory, &self.step_memory),
            (Key::StepPids, &self.step_pids),
            (Key::SourceCaFile, &self.source_ca_file),
        ];
        flags.extend(texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))));
        for (key, is_allowed) in [(Key::AllowPrivileged, self.allow_privileged), (Key::AllowPorts, self.allow_ports)] {
            flags.extend(is_allowed.then(|| (key, "true".to_owned())));
        }
        let lists = [
            (Key::AllowNetwork, &self.allow_network),
            (Key::AllowSource, &self.allow_source),
            (Key::ImageAliases, &self.image_alias),
            (Key::SecretEnv, &self.secret_env),
        ];
        flags.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, list.join(","))));
        flags
    }
}

/// Starts a server, which has the user's logins if the source is the user's own, has it do what `queue` asks of it, shows that to its end, and removes everything.
pub(crate) async fn run(
    args: &LocalArgs,
    wait: &WaitFlags,
    environment: &Environment,
    is_own_source: bool,
    queue: impl AsyncFnOnce(&Client) -> Result<Run, Stop>,
) -> Result<Exit, Stop> {
    let mut left = Vec::new();
    let folder = WorkFolder::after(&std::env::temp_dir(), "cooper-local-", |dead| left.push(dead_owner(dead)))
        .map_err(|error| Fault::machinery(format!("no temporary folder can be made: {error}")))?;
    let left: Vec<EngineOwner> = left.into_iter().flatten().collect();
    let mut settings = settings::resolve_local(&args.flags(), folder.path(), environment).map_err(Stop::Faults)?;
    if !is_own_source && !args.docker_logins {
        // What it names as a registry would be shown the user's login there.
        settings.server.docker_config = None;
        if let Some(agent) = &mut settings.server.local_agent {
            agent.credentials = CredentialKeeper::Nobody;
        }
    }
    // Before anything is begun, so that a signal from now on is answered by cleaning up.
    let mut signals = Signals::listen()?;
    logging::start(settings.log_format, &settings.log_filter);
    let begun = tokio::select! {
        begun = start(settings, &left) => begun?,
        signal = signals.next_or_hang_up() => return Ok(given_up(signal)),
    };
    let Begun { server, client, engine } = begun;
    let work = async {
        let queued = async {
            agent_is_there(&client).await;
            queue(&client).await
        };
        let run = tokio::select! {
            run = queued => run?,
            signal = signals.next_or_hang_up() => return Ok(given_up(signal)),
        };
        let registry = format!("localhost:{}", server.address().port());
        let impossible = nobody_for(&client, run.clone(), &engine);
        tokio::select! {
            biased;
            fault = impossible => Err(fault.into()),
            seen = see_through(&client, run, wait, environment, Whose::Ours { signals: &mut signals, registry }) => seen,
        }
    };
    let ended = work.await;
    // Also after a fault: there may be containers.
    tokio::select! {
        stopped = server.stop() => if let Err(error) = stopped {
            output::warning(&chain(&error));
        },
        signal = signals.next_or_hang_up() => {
            output::warning(&format!("{signal} again: what was being removed from the engine may be left there"));
        }
    }
    if let Err(error) = folder.close() {
        output::warning(&format!("the temporary folder can't be removed: {error}"));
    }
    ended
}

/// Waits for the server's agent to connect: no run is to be told that nobody is there, where somebody comes in a moment.
/// An agent whose engine has gone meanwhile does not, and the run says so then.
async fn agent_is_there(client: &Client) {
    let connected = async {
        while !client
            .list_agents()
            .await
            .is_ok_and(|all| all.value.iter().any(|one| one.state == AgentState::Connected))
        {
            tokio::time::sleep(AGENT_LOOK).await;
        }
    };
    // Too late is no fault.
    let _ = tokio::time::timeout(AGENT_PATIENCE, connected).await;
}

fn given_up(signal: &str) -> Exit {
    output::note(&format!("{signal}: given up before anything ran"));
    Exit::Canceled
}

/// The fault of a run with a step for a platform that its one agent can't do: nobody else will ever come. Nothing while
/// there is no such step.
async fn nobody_for(client: &Client, mut run: Run, engine: &EngineDescription) -> Fault {
    let is_done = |platform: &str| {
        Platform::parse(platform).is_ok_and(|platform| platform == engine.native || engine.emulated.contains(&platform))
    };
    loop {
        let missing = run.steps.iter().find_map(|step| {
            let platform = step.platform.as_ref().filter(|platform| !is_done(platform))?;
            Some((step.id.clone(), platform.clone()))
        });
        if let Some((step, platform)) = missing {
            // The server stops in any case: a cancellation would only race with this for what is said.
            let emulated: Vec<String> = engine.emulated.iter().map(Platform::to_string).collect();
            let emulated = if emulated.is_empty() { "nothing".to_owned() } else { emulated.join(", ") };
            return Fault::usage(format!(
                "step {step} is for {platform}, and this machine's engine runs {} (and emulates {emulated})",
                engine.native
            ))
            .with_hint("name another --platform, or install an emulator, such as Debian's qemu-user-static");
        }
        // What else is to be done is known when the source has been read.
        let is_open = |step: &RunStep| matches!(step.status, StepStatus::Pending | StepStatus::Running);
        if !run.steps.iter().any(|step| step.step_type == StepType::Prepare && is_open(step)) {
            return std::future::pending().await;
        }
        tokio::time::sleep(LOOK).await;
        if let Ok(newer) = client.get_run(run.run_id).await {
            run = newer;
        }
    }
}

/// Whose things a `--local` that was killed has left in its engine.
fn dead_owner(folder: &Path) -> Option<EngineOwner> {
    let name = AgentName::parse(LOCAL_AGENT).expect("a name of letters is an agent's name");
    cooper_server::owner_of(folder, &name)
}

/// A server at work.
struct Begun {
    server: Server,
    client: Client,
    /// What its agent's engine is.
    engine: Arc<EngineDescription>,
}

/// A server whose agent has an engine, and a client that is logged in to it. What is left of others in the engine is
/// removed first.
async fn start(settings: LocalSettings, left: &[EngineOwner]) -> Result<Begun, Stop> {
    // A server without an engine waits for one; nobody would wait here.
    let engine = connect(settings.server.local_agent.as_ref()).await?;
    for owner in left {
        if let Err(error) = engine.reap(owner).await {
            output::warning(&format!("what an earlier --local left in the engine can't be removed: {}", chain(&error)));
        }
    }
    let engine = engine.describe();
    let token_file = settings.server.data_dir.join("admin-token");
    let server = Server::start(settings.server).await.map_err(|error| Fault::machinery(chain(&error)))?;
    let url = ServerUrl::parse(&format!("http://{}", server.address())).map_err(Fault::from)?;
    let client = Client::trusting(url, Some(read_token(&token_file)?), &Trust::default())?;
    Ok(Begun { server, client, engine })
}

async fn connect(agent: Option<&LocalAgent>) -> Result<DockerEngine, Fault> {
    let named = agent.and_then(|agent| agent.engine_socket.as_deref());
    let socket = EngineSocket::choose(named, None);
    let connected = match socket {
        Ok(socket) => DockerEngine::connect(socket).await,
        Err(error) => Err(error),
    };
    connected.map_err(|error| match &error {
        EngineError::Address { .. } => Fault::usage(chain(&error)),
        _ => Fault::machinery(chain(&error)),
    })
}
