//! A server of a command's own: started for one run on a free port of this machine, with a temporary folder for its data
//! and an agent beside the engine, and gone with everything of it when the run is over.
//!
//! It is `cooper serve` with other settings: the run goes through the same client, API, scheduler and agent.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use cooper_api::rest::Run;
use cooper_client::{Client, ServerUrl, Trust};
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::engine::EngineError;
use cooper_server::{LocalAgent, Server};
use tempfile::TempDir;

use crate::connection::read_token;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::logging;
use crate::output;
use crate::settings::{self, Flags, Key, LocalSettings};
use crate::signals::Signals;
use crate::started::{WaitFlags, Whose, see_through};

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
    /// A name that the task may use for an image, such as bash=localhost:5000/tools/bash:5; repeatable
    #[arg(long, value_name = "NAME=IMAGE", requires = "local")]
    image_alias: Vec<String>,
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
        let texts =
            [(Key::Engine, &self.engine), (Key::StepMemory, &self.step_memory), (Key::StepPids, &self.step_pids)];
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

/// Starts a server, has it do what `queue` asks of it, shows that to its end, and removes everything.
pub(crate) async fn run(
    args: &LocalArgs,
    wait: &WaitFlags,
    environment: &Environment,
    queue: impl AsyncFnOnce(&Client) -> Result<Run, Stop>,
) -> Result<Exit, Stop> {
    let folder = TempDir::with_prefix("cooper-local-")
        .map_err(|error| Fault::machinery(format!("no temporary folder can be made: {error}")))?;
    let settings = settings::resolve_local(&args.flags(), folder.path(), environment).map_err(Stop::Faults)?;
    // Before anything is begun, so that a signal from now on is answered by cleaning up.
    let mut signals = Signals::listen()?;
    logging::start(settings.log_format, &settings.log_filter);
    let begun = tokio::select! {
        begun = start(settings) => begun?,
        signal = signals.next_or_hang_up() => return Ok(given_up(signal)),
    };
    let (server, client) = begun;
    let work = async {
        let run = tokio::select! {
            run = queue(&client) => run?,
            signal = signals.next_or_hang_up() => return Ok(given_up(signal)),
        };
        let registry = format!("localhost:{}", server.address().port());
        see_through(&client, run, wait, environment, Whose::Ours { signals: &mut signals, registry }).await
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

fn given_up(signal: &str) -> Exit {
    output::note(&format!("{signal}: given up before anything ran"));
    Exit::Canceled
}

/// A server whose agent has an engine, and a client that is logged in to it.
async fn start(settings: LocalSettings) -> Result<(Server, Client), Stop> {
    // A server without an engine waits for one; nobody would wait here.
    check_engine(settings.server.local_agent.as_ref()).await?;
    let token_file = settings.server.data_dir.join("admin-token");
    let server = Server::start(settings.server).await.map_err(|error| Fault::machinery(chain(&error)))?;
    let url = ServerUrl::parse(&format!("http://{}", server.address())).map_err(Fault::from)?;
    let client = Client::trusting(url, Some(read_token(&token_file)?), &Trust::default())?;
    Ok((server, client))
}

async fn check_engine(agent: Option<&LocalAgent>) -> Result<(), Fault> {
    let named = agent.and_then(|agent| agent.engine_socket.as_deref());
    let socket = EngineSocket::choose(named, None);
    let connected = match socket {
        Ok(socket) => DockerEngine::connect(socket).await.map(|_| ()),
        Err(error) => Err(error),
    };
    connected.map_err(|error| match &error {
        EngineError::Address { .. } => Fault::usage(chain(&error)),
        _ => Fault::machinery(chain(&error)),
    })
}
