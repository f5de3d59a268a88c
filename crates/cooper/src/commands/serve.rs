//! `cooper serve`: settings to a running server.

use std::path::PathBuf;

use clap::Args;

use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::settings::{self, Flags, Key};

/// Where settings come from.
pub(crate) const LAYERS_HELP: &str = "\
Each setting is a flag, else an environment variable, else a line of the configuration file:
--max-context-size 1GiB, COOPER_MAX_CONTEXT_SIZE=1GiB, max-context-size = \"1GiB\". The flag
--no-agent is COOPER_AGENT=false and agent = false.";

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// The certificate to show, in PEM form; with it the server speaks https. It is read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key of --tls-cert, in PEM form
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Speak https with a certificate that the server makes, and say how to trust it
    #[arg(long)]
    tls_self_signed: bool,
    /// A name or address that the certificate of --tls-self-signed is for, beside the machine's own; repeatable
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Where the server keeps its data [default: ~/.local/share/cooper]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The embedded registry's name in image references [default: localhost:PORT]
    #[arg(long, value_name = "NAME[:PORT]")]
    registry_name: Option<String>,
    /// Where people and Git forges reach the server: what statuses of commits link to, and hooks are registered with [default: the
    /// registry's name, and no hooks]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Run no agent in this process
    #[arg(long)]
    no_agent: bool,
    /// The name of the agent in this process [default: local]
    #[arg(long, value_name = "NAME")]
    agent_name: Option<String>,
    /// The container engine's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    engine: Option<String>,
    /// How many runs the agent in this process works on at a time [default: 2]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
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
    /// Let everybody pull images without a token
    #[arg(long)]
    anonymous_pull: bool,
    /// The largest context, such as 500MiB [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    max_context_size: Option<String>,
    /// How long contexts are kept after the runs that used them, for `cooper runs rerun`, such as 12h or 30d; 0 keeps none
    /// [default: 7d]
    #[arg(long, value_name = "TIME")]
    context_retention: Option<String>,
    /// How much contexts of ended runs may take up together, such as 500MiB; beyond it those go first whose runs ended
    /// first [default: 20GiB]
    #[arg(long, value_name = "SIZE")]
    context_retention_size: Option<String>,
    /// How often tags of other registries are asked for that tasks stand on: after this time, and at most six times that;
    /// from 1m to 24h [default: 10m]
    #[arg(long, value_name = "TIME")]
    base_image_poll: Option<String>,
    /// How often repositories of tasks are looked at for what no webhook told of; forges for pull requests, after six times
    /// that; from 10s to 24h [default: 10m]
    #[arg(long, value_name = "TIME")]
    source_poll: Option<String>,
    /// How many of the runs that base images set off go on at a time, from 1 to 256 [default: 4]
    #[arg(long, value_name = "N")]
    wave_concurrency: Option<String>,
    /// A network that sources may be fetched from although it is not public, such as 10.0.0.0/8, and only from there over
    /// plain http; may be repeated [default: none]
    #[arg(long, value_name = "NETWORK")]
    allow_source: Vec<String>,
    /// A network that webhooks and the endpoints of tasks may be in although it is not public, and only there over plain http;
    /// may be repeated [default: none]
    #[arg(long, value_name = "NETWORK")]
    allow_webhook: Vec<String>,
    /// Certificates in PEM that hosts of sources and of other registries are trusted by, besides the system's. The engine has
    /// its own: Docker's are in /etc/docker/certs.d
    #[arg(long, value_name = "FILE")]
    source_ca_file: Option<String>,
    /// What stands for a frontend that a Dockerfile asks for with `# syntax=`: IMAGE=builtin is the engine's own reader,
    /// IMAGE=pull the image itself; others are refused; may be repeated [default: docker/dockerfile=builtin]
    #[arg(long, value_name = "IMAGE=builtin|pull")]
    frontend: Vec<String>,
    /// A name that task files may use for an image, such as bash=localhost:5000/tools/bash:5; may be repeated
    #[arg(long, value_name = "NAME=IMAGE")]
    image_alias: Vec<String>,
    /// A variable of the server's environment that tasks may name as env://NAME: NAME, or "NAME PRINCIPAL ..." for those
    /// principals' runs, or "NAME *" for everybody's [default users: runs of tokens with the scope admin]; may be repeated
    #[arg(long, value_name = "NAME [PRINCIPAL...]")]
    secret_env: Vec<String>,
    /// What stands for a vault that tasks name: HOST=store, HOST=env:PREFIX, HOST=vault:MOUNT[/PATH] or
    /// HOST=vault-kv1:MOUNT[/PATH], with users as for --secret-env; may be repeated
    #[arg(long, value_name = "HOST=TARGET [PRINCIPAL...]")]
    secret_vault: Vec<String>,
    /// The server of HashiCorp Vault that --secret-vault means
    #[arg(long, value_name = "URL")]
    vault_address: Option<String>,
    /// The file with the token for --vault-address; it is read at each use
    #[arg(long, value_name = "FILE")]
    vault_token_file: Option<String>,
    /// The namespace at --vault-address
    #[arg(long, value_name = "NAME")]
    vault_namespace: Option<String>,
    /// The certificate of the CA that --vault-address is trusted by, beside the system's
    #[arg(long, value_name = "FILE")]
    vault_ca_file: Option<String>,
    /// How long the registry keeps what no manifest refers to after its last use, such as 12h [default: 24h]
    #[arg(long, value_name = "DURATION")]
    blob_grace: Option<String>,
    /// How many seconds a shutdown may take [default: 20]
    #[arg(long, value_name = "SECONDS")]
    shutdown_grace: Option<String>,
    /// The form of the log: pretty or json [default: pretty]
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// What is logged, such as info or cooper_server=debug,info [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The configuration file [default: ~/.config/cooper/cooper.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

impl ServeArgs {
    /// What the flags say.
    pub(crate) fn flags(&self) -> Flags {
        let texts = [
            (Key::Listen, &self.listen),
            (Key::TlsCert, &self.tls_cert),
            (Key::TlsKeyFile, &self.tls_key),
            (Key::DataDir, &self.data_dir),
            (Key::RegistryName, &self.registry_name),
            (Key::PublicUrl, &self.public_url),
            (Key::AgentName, &self.agent_name),
            (Key::Engine, &self.engine),
            (Key::Slots, &self.slots),
            (Key::CacheBudget, &self.cache_budget),
            (Key::MinFree, &self.min_free),
            (Key::StepMemory, &self.step_memory),
            (Key::StepPids, &self.step_pids),
            (Key::MaxContextSize, &self.max_context_size),
            (Key::ContextRetention, &self.context_retention),
            (Key::ContextRetentionSize, &self.context_retention_size),
            (Key::BaseImagePoll, &self.base_image_poll),
            (Key::SourcePoll, &self.source_poll),
            (Key::WaveConcurrency, &self.wave_concurrency),
            (Key::SourceCaFile, &self.source_ca_file),
            (Key::VaultAddress, &self.vault_address),
            (Key::VaultTokenFile, &self.vault_token_file),
            (Key::VaultNamespace, &self.vault_namespace),
            (Key::VaultCaFile, &self.vault_ca_file),
            (Key::BlobGrace, &self.blob_grace),
            (Key::ShutdownGrace, &self.shutdown_grace),
            (Key::LogFormat, &self.log_format),
            (Key::Log, &self.log),
        ];
        let mut flags: Flags = texts.into_iter().filter_map(|(key, text)| Some((key, text.clone()?))).collect();
        if self.tls_self_signed {
            flags.push((Key::TlsSelfSigned, "true".to_owned()));
        }
        if !self.tls_name.is_empty() {
            flags.push((Key::TlsName, self.tls_name.join(",")));
        }
        if !self.allow_webhook.is_empty() {
            flags.push((Key::AllowWebhook, self.allow_webhook.join(",")));
        }
        if !self.allow_source.is_empty() {
            flags.push((Key::AllowSource, self.allow_source.join(",")));
        }
        if !self.image_alias.is_empty() {
            flags.push((Key::ImageAliases, self.image_alias.join(",")));
        }
        for (key, entries) in [
            (Key::Frontend, &self.frontend),
            (Key::SecretEnv, &self.secret_env),
            (Key::SecretVault, &self.secret_vault),
        ] {
            if !entries.is_empty() {
                flags.push((key, entries.join(",")));
            }
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
        if self.no_agent {
            flags.push((Key::Agent, "false".to_owned()));
        }
        if self.anonymous_pull {
            flags.push((Key::AnonymousPull, "true".to_owned()));
        }
        flags
    }
}

pub(crate) fn run(args: &ServeArgs, environment: &Environment) -> Result<Exit, Stop> {
    let settings = settings::resolve(&args.flags(), args.config.as_deref(), environment).map_err(Stop::Faults)?;
    crate::serve::serve(settings)
}
