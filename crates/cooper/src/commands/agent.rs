//! `cooper agent`: settings to a running agent. What administrators do to agents is [`admin`]'s.

mod admin;

use std::path::PathBuf;

use clap::Args;

use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::settings::{self, Flags, Key};

/// Where settings come from.
pub(crate) const LAYERS_HELP: &str = "\
Each setting is a flag, else an environment variable, else a line of the configuration file:
--slots 4, COOPER_SLOTS=4, slots = 4. Those that only agents have are named so:
--server URL, COOPER_AGENT_SERVER (else COOPER_SERVER), agent-server = \"URL\".";

#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    command: Option<admin::AdminCommand>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// What it takes to be an agent.
#[derive(Args, Debug)]
struct RunArgs {
    /// The agent's name, unique among those of the server [default: the machine's]
    #[arg(long, alias = "agent-name", value_name = "NAME")]
    name: Option<String>,
    /// The pool whose work it takes [default: default]
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Take work for this platform only; repeatable [default: all that the engine can do]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<String>,
    /// How many runs it works on at a time [default: 2]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// The container engine's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    engine: Option<String>,
    /// What the engine's build cache may take, such as 50GiB; none never touches it [default: 20GiB, or half of the disk]
    #[arg(long, value_name = "SIZE")]
    cache_budget: Option<String>,
    /// What has to be free on the disk before work is taken, such as 5GiB or 10% [default: 2GiB, or 5% if that is less]
    #[arg(long, value_name = "SIZE|PERCENT%")]
    min_free: Option<String>,
    /// Let steps have all privileges: as good as root of this machine
    #[arg(long)]
    allow_privileged: bool,
    /// Let steps have ports of this machine
    #[arg(long)]
    allow_ports: bool,
    /// Let steps use this network of the engine, which is not made for them; host is the machine's own; repeatable, up to 48
    #[arg(long, value_name = "NAME")]
    allow_network: Vec<String>,
    /// The memory that each step's container may take, swap included, such as 4GiB [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    step_memory: Option<String>,
    /// How many processes and threads each step's container may have at once [default: 16384]
    #[arg(long, value_name = "N")]
    step_pids: Option<String>,
    /// Certificates in PEM that hosts of sources and of other registries are trusted by, besides the system's. The engine has
    /// its own: Docker's are in /etc/docker/certs.d
    #[arg(long, value_name = "FILE")]
    source_ca_file: Option<String>,
    /// Where it keeps what it works on [default: ~/.local/share/cooper-agent]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// How many seconds a shutdown may take [default: 20]
    #[arg(long, value_name = "SECONDS")]
    shutdown_grace: Option<String>,
    /// The form of the log: pretty or json [default: pretty]
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// What is logged, such as info or cooper_agent=debug,info [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The configuration file [default: ~/.config/cooper/cooper.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl RunArgs {
    fn flags(&self) -> Flags {
        let texts = [
            (Key::AgentName, &self.name),
            (Key::AgentPool, &self.pool),
            (Key::Slots, &self.slots),
            (Key::Engine, &self.engine),
            (Key::CacheBudget, &self.cache_budget),
            (Key::MinFree, &self.min_free),
            (Key::StepMemory, &self.step_memory),
            (Key::StepPids, &self.step_pids),
            (Key::SourceCaFile, &self.source_ca_file),
            (Key::AgentDataDir, &self.data_dir),
            (Key::ShutdownGrace, &self.shutdown_grace),
            (Key::LogFormat, &self.log_format),
            (Key::Log, &self.log),
        ];
        let mut flags: Flags = texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))).collect();
        if !self.platform.is_empty() {
            flags.push((Key::AgentPlatform, self.platform.join(",")));
        }
        if self.allow_privileged {
            flags.push((Key::AllowPrivileged, "true".to_owned()));
        }
        if self.allow_ports {
            flags.push((Key::AllowPorts, "true".to_owned()));
        }
        if !self.allow_network.is_empty() {
            flags.push((Key::AllowNetwork, self.allow_network.join(",")));
        }
        flags
    }
}

/// The server's flags, which an agent takes as settings.
fn server_flags(server: &ServerArgs) -> Flags {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let texts = [
        (Key::AgentServer, server.server.clone()),
        (Key::AgentTokenFile, path(&server.token_file)),
        (Key::AgentCaFile, path(&server.ca_file)),
        (Key::AgentInsecure, server.insecure.then(|| "true".to_owned())),
    ];
    texts.into_iter().filter_map(|(key, text)| Some((key, text?))).collect()
}

pub(crate) fn run(args: &AgentArgs, environment: &Environment) -> Result<Exit, Stop> {
    let AgentArgs { command, server, run } = args;
    let mut flags = run.flags();
    if let Some(command) = command {
        if let Some((key, _)) = flags.first() {
            return Err(Fault::usage(format!(
                "{} is for being an agent, not for asking about agents",
                key.agent_flag()
            ))
            .into());
        }
        return super::block_on(admin::run(command, server, environment));
    }
    flags.extend(server_flags(server));
    let settings = settings::resolve_agent(&flags, run.config.as_deref(), environment).map_err(Stop::Faults)?;
    crate::agent::run(settings)
}
