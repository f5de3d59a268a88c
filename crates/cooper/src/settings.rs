//! The settings of `cooper serve`: flags over environment over file over defaults, resolved once, with every fault
//! reported together before anything is bound.

mod agent;
mod file;
mod key;
mod local;
mod secrets;
mod shown;
mod value;
mod variables;

use std::path::Path;

use clap::ValueEnum;
use cooper_server::{CredentialKeeper, DiskSettings, LocalAgent, Settings, StepPolicy, TlsName, TlsSettings};
use cooper_types::{AgentName, RegistryName};

use crate::environment::Environment;
use crate::fault::Fault;
pub(crate) use agent::{AgentProgramSettings, resolve_agent};
use file::FileValues;
pub(crate) use key::Key;
pub(crate) use local::{LOCAL_AGENT, LocalSettings, resolve_local};
pub(crate) use shown::shown;
pub(crate) use variables::unknown_variables;

/// Everything that `cooper serve` needs to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServeSettings {
    pub(crate) server: Settings,
    pub(crate) log_format: LogFormat,
    /// Which events are logged, in the form of `tracing`'s filters.
    pub(crate) log_filter: String,
}

/// The form of the server's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Values that flags give, as text: they are checked together with those from elsewhere.
pub(crate) type Flags = Vec<(Key, String)>;

/// Resolves the settings. `file` is the one that `--config` names.
pub(crate) fn resolve(
    flags: &Flags,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<ServeSettings, Vec<Fault>> {
    let mut faults = Vec::new();
    let file = read_file(file, environment, &mut faults);
    let mut layers = Layers { flags, environment, file: &file, faults, flag: Key::flag };

    let listen = layers.take(Key::Listen, value::listen).unwrap_or_else(value::default_listen);
    let tls = tls(&mut layers);
    let data_dir = layers.take(Key::DataDir, value::path).or_else(|| environment.data_dir());
    let data_dir = match data_dir.map(std::path::absolute) {
        Some(Ok(path)) => path,
        Some(Err(error)) => layers.fault(format!("the data folder has no absolute path: {error}"), None),
        None => layers.fault(
            "there is no place for the server's data: HOME is not set".to_owned(),
            Some("name a folder with --data-dir or COOPER_DATA_DIR"),
        ),
    };
    let registry_name = layers.take(Key::RegistryName, |text| RegistryName::parse(text).map_err(|e| e.to_string()));
    let public_url = layers.take(Key::PublicUrl, value::public_url);
    let agent = layers.take(Key::Agent, value::boolean).unwrap_or(true);
    let name = layers.take(Key::AgentName, |text| AgentName::parse(text).map_err(|e| e.to_string()));
    let engine_socket = layers.take(Key::Engine, value::socket).or_else(|| docker_host(environment));
    let slots = layers.take(Key::Slots, value::slots).unwrap_or(Settings::DEFAULT_SLOTS);
    let disk = disk(&mut layers);
    let steps = steps(&mut layers);
    let anonymous_pull = layers.take(Key::AnonymousPull, value::boolean).unwrap_or(false);
    let blob_grace = layers.take(Key::BlobGrace, value::grace).unwrap_or(Settings::DEFAULT_BLOB_GRACE);
    let max_context_bytes =
        layers.take(Key::MaxContextSize, value::size).unwrap_or(Settings::DEFAULT_MAX_CONTEXT_BYTES);
    let base_image_poll =
        layers.take(Key::BaseImagePoll, value::base_image_poll).unwrap_or(Settings::DEFAULT_BASE_IMAGE_POLL);
    let source_poll = layers.take(Key::SourcePoll, value::source_poll).unwrap_or(Settings::DEFAULT_SOURCE_POLL);
    let wave_concurrency =
        layers.take(Key::WaveConcurrency, value::slots).unwrap_or(Settings::DEFAULT_WAVE_CONCURRENCY);
    let context_retention =
        layers.take(Key::ContextRetention, value::span).unwrap_or(Settings::DEFAULT_CONTEXT_RETENTION);
    let context_retention_bytes =
        layers.take(Key::ContextRetentionSize, value::size).unwrap_or(Settings::DEFAULT_CONTEXT_RETENTION_BYTES);
    let allowed_sources = layers.take(Key::AllowSource, value::networks).unwrap_or_default();
    let allowed_webhooks = layers.take(Key::AllowWebhook, value::networks).unwrap_or_default();
    let source_roots = layers.take(Key::SourceCaFile, value::certificates);
    let frontends = layers.take(Key::Frontend, value::frontends).unwrap_or_default();
    let image_aliases = layers.take(Key::ImageAliases, value::image_aliases).unwrap_or_default();
    let secrets = secrets::take(&mut layers);
    let shutdown_grace = layers.take(Key::ShutdownGrace, value::seconds).unwrap_or(Settings::DEFAULT_SHUTDOWN_GRACE);
    let log_format = layers.take(Key::LogFormat, value::log_format).unwrap_or_default();
    let log_filter = layers.take(Key::Log, value::log_filter).unwrap_or_else(|| "info".to_owned());
    let default_name = || AgentName::parse("local").expect("a name of letters is an agent's name");
    let local_agent = agent.then(|| LocalAgent {
        name: name.unwrap_or_else(default_name),
        engine_socket,
        slots,
        disk,
        steps,
        credentials: CredentialKeeper::Server,
    });
    let faults = layers.faults;
    match faults.is_empty() {
        false => Err(faults),
        true => Ok(ServeSettings {
            server: Settings {
                listen,
                tls,
                data_dir,
                registry_name,
                public_url,
                local_agent,
                anonymous_pull,
                blob_grace,
                max_context_bytes,
                context_retention,
                context_retention_bytes,
                docker_config: None,
                base_image_poll,
                source_poll,
                wave_concurrency,
                allowed_sources,
                allowed_webhooks,
                source_roots,
                frontends,
                secrets,
                image_aliases,
                shutdown_grace,
            },
            log_format,
            log_filter,
        }),
    }
}

fn read_file(named: Option<&Path>, environment: &Environment, faults: &mut Vec<Fault>) -> FileValues {
    let named = named.map(Path::to_owned).or_else(|| environment.path("COOPER_CONFIG"));
    let (path, must_exist) = match named {
        Some(path) => (path, true),
        None => match environment.config_dir() {
            Some(folder) => (folder.join("cooper.toml"), false),
            None => return FileValues::default(),
        },
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => FileValues::parse(&path, &text, faults),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => FileValues::default(),
        Err(error) => {
            faults.push(Fault::usage(format!("configuration file {} can't be read: {error}", path.display())));
            FileValues::default()
        }
    }
}

/// How an agent treats disks.
fn disk(layers: &mut Layers<'_>) -> DiskSettings {
    DiskSettings {
        cache_budget: layers.take(Key::CacheBudget, value::cache_budget).unwrap_or_default(),
        min_free: layers.take(Key::MinFree, value::min_free).unwrap_or_default(),
        ..DiskSettings::default()
    }
}

/// What steps may do on an agent beyond the usual, and what each may use.
fn steps(layers: &mut Layers<'_>) -> StepPolicy {
    StepPolicy {
        privileged: layers.take(Key::AllowPrivileged, value::boolean).unwrap_or(false),
        ports: layers.take(Key::AllowPorts, value::boolean).unwrap_or(false),
        networks: layers.take(Key::AllowNetwork, value::network_names).unwrap_or_default(),
        memory: layers.take(Key::StepMemory, value::step_memory).unwrap_or_default(),
        pids: layers.take(Key::StepPids, value::step_pids).unwrap_or(StepPolicy::DEFAULT_PIDS),
    }
}

/// Where the server's certificate comes from, if it is to have one.
fn tls(layers: &mut Layers<'_>) -> Option<TlsSettings> {
    let certificate = layers.take(Key::TlsCert, value::path);
    let key = layers.take(Key::TlsKeyFile, value::path);
    let self_signed = layers.take(Key::TlsSelfSigned, value::boolean).unwrap_or(false);
    let names = layers.take(Key::TlsName, value::tls_names);
    if names.is_some() && !self_signed {
        layers.fault::<()>(
            "--tls-name is for a certificate that the server makes".to_owned(),
            Some("add --tls-self-signed, or have the names in the certificate of --tls-cert"),
        );
    }
    match (certificate, key, self_signed) {
        (None, None, false) => None,
        (None, None, true) => {
            let host = layers.environment.host_name().and_then(|name| TlsName::parse(&name).ok());
            let names = host.into_iter().chain(names.unwrap_or_default()).collect();
            Some(TlsSettings::SelfSigned { names })
        }
        (Some(certificate), Some(key), false) => Some(TlsSettings::Files { certificate, key }),
        (_, _, true) => layers.fault(
            "--tls-self-signed and --tls-cert or --tls-key exclude each other".to_owned(),
            Some("name certificate and key, or let the server make them"),
        ),
        (_, _, false) => layers.fault("--tls-cert and --tls-key belong together".to_owned(), Some("name both")),
    }
}

/// The engine that the docker command would use, where that is a socket of this machine.
fn docker_host(environment: &Environment) -> Option<String> {
    let host = environment.text("DOCKER_HOST").ok().flatten()?;
    host.strip_prefix("unix://").map(str::to_owned)
}

/// Where a value comes from.
enum Origin {
    Flag,
    Variable(String),
    /// A line of the configuration file, as `FILE:LINE`.
    File(String),
}

impl Origin {
    /// The origin of this key's value, as messages begin with it; `flag` names the key's flag.
    fn of(&self, key: Key, flag: fn(Key) -> String) -> String {
        match self {
            Self::Flag => flag(key),
            Self::Variable(name) => name.clone(),
            Self::File(line) => format!("{line}: key `{}`", key.name()),
        }
    }
}

struct Layers<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    file: &'a FileValues,
    faults: Vec<Fault>,
    /// How the command whose settings these are names a key's flag.
    flag: fn(Key) -> String,
}

impl Layers<'_> {
    /// The value of a key from the highest layer that has it. A value that is not valid is a fault, and counts as absent.
    fn take<T>(&mut self, key: Key, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (origin, text) = self.find(key)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.faults.push(Fault::usage(format!("{}: {reason}", origin.of(key, self.flag))));
                None
            }
        }
    }

    fn find(&mut self, key: Key) -> Option<(Origin, String)> {
        if let Some((_, text)) = self.flags.iter().find(|(flag, _)| *flag == key) {
            return Some((Origin::Flag, text.clone()));
        }
        for variable in key.variables() {
            match self.environment.text(&variable) {
                Ok(Some(text)) => return Some((Origin::Variable(variable), text)),
                Ok(None) => {}
                Err(fault) => self.faults.push(fault),
            }
        }
        self.file.get(key).map(|(line, text)| (Origin::File(line), text))
    }

    fn fault<T: Default>(&mut self, message: String, hint: Option<&str>) -> T {
        let fault = Fault::usage(message);
        self.faults.push(match hint {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        });
        T::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(flags: &[(Key, &str)], variables: &[(&str, &str)], file: &str) -> Result<ServeSettings, Vec<String>> {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("cooper.toml"), file).expect("write");
        let mut all = vec![("COOPER_CONFIG_DIR", folder.path().to_str().expect("text")), ("HOME", "/home/dev")];
        all.extend_from_slice(variables);
        let flags: Flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let place = format!("{}/", folder.path().display());
        resolve(&flags, None, &Environment::of(&all))
            .map_err(|faults| faults.into_iter().map(|fault| fault.message.replace(&place, "")).collect())
    }

    #[test]
    fn defaults() {
        let found = settings(&[], &[], "").expect("valid");
        let expect = ServeSettings {
            server: Settings {
                listen: "127.0.0.1:5000".parse().expect("address"),
                tls: None,
                data_dir: "/home/dev/.local/share/cooper".into(),
                registry_name: None,
                public_url: None,
                local_agent: Some(LocalAgent {
                    name: AgentName::parse("local").expect("name"),
                    engine_socket: None,
                    slots: Settings::DEFAULT_SLOTS,
                    disk: DiskSettings::default(),
                    steps: StepPolicy::default(),
                    credentials: CredentialKeeper::Server,
                }),
                anonymous_pull: false,
                blob_grace: Settings::DEFAULT_BLOB_GRACE,
                allowed_sources: Vec::new(),
                allowed_webhooks: Vec::new(),
                source_roots: None,
                frontends: Default::default(),
                secrets: Default::default(),
                image_aliases: std::collections::BTreeMap::new(),
                max_context_bytes: Settings::DEFAULT_MAX_CONTEXT_BYTES,
                context_retention: Settings::DEFAULT_CONTEXT_RETENTION,
                context_retention_bytes: Settings::DEFAULT_CONTEXT_RETENTION_BYTES,
                docker_config: None,
                base_image_poll: Settings::DEFAULT_BASE_IMAGE_POLL,
                source_poll: Settings::DEFAULT_SOURCE_POLL,
                wave_concurrency: Settings::DEFAULT_WAVE_CONCURRENCY,
                shutdown_grace: Settings::DEFAULT_SHUTDOWN_GRACE,
            },
            log_format: LogFormat::Pretty,
            log_filter: "info".to_owned(),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn flags_beat_the_environment_and_that_beats_the_file() {
        let file = "listen = \"127.0.0.1:1\"\nslots = 1\n";
        let port = |flags: &[(Key, &str)], variables: &[(&str, &str)]| {
            settings(flags, variables, file).expect("valid").server.listen.port()
        };
        assert_eq!(port(&[], &[]), 1);
        assert_eq!(port(&[], &[("COOPER_LISTEN", "127.0.0.1:2")]), 2);
        assert_eq!(port(&[(Key::Listen, "127.0.0.1:3")], &[("COOPER_LISTEN", "127.0.0.1:2")]), 3);
        assert_eq!(port(&[], &[("COOPER_LISTEN", "")]), 1, "an empty variable is none");
    }

    #[test]
    fn every_key_works_in_every_layer() {
        let file = "listen = \"localhost:0\"\ntls-self-signed = true\ntls-name = \"a.example.com, 10.0.0.1\"\ndata-dir = \"/srv\"\nregistry-name = \"r.example.com\"\npublic-url = \"https://ci.example.com/\"\nagent = true\n\
            agent-name = \"a1\"\nengine = \"unix:///run/e.sock\"\nslots = 7\ncache-budget = \"none\"\nmin-free = \"7%\"\nallow-privileged = true\nallow-ports = true\nallow-network = \"host, lan\"\nstep-memory = \"2GiB\"\nstep-pids = 500\nanonymous-pull = true\nblob-grace = \"12h\"\n\
            max-context-size = \"2GiB\"\ncontext-retention = \"48h\"\ncontext-retention-size = \"1GiB\"\nbase-image-poll = \"90s\"\nsource-poll = \"20s\"\nwave-concurrency = 16\nallow-source = \"10.0.0.0/8, fd00::/8\"\nallow-webhook = \"10.1.0.0/16\"\nfrontend = \"docker/dockerfile=pull, r.io/f:1=builtin\"\nsecret-env = \"A,B bob\"\nsecret-vault = \"v.example=vault:kv/ci *\"\nvault-address = \"https://vault.example\"\n\
            vault-token-file = \"/run/token\"\nvault-namespace = \"team\"\nvault-ca-file = \"/etc/ca.pem\"\nshutdown-grace = 5\nlog-format = \"json\"\nlog = \"debug\"\n\
            [image-aliases]\nbash = \"r.example.com/bash:5\"\naz = \"az\"\n";
        let from_file = settings(&[], &[], file).expect("valid");
        let pairs: Vec<(Key, String)> = [
            (Key::Listen, "localhost:0"),
            (Key::TlsSelfSigned, "on"),
            (Key::TlsName, "a.example.com,10.0.0.1"),
            (Key::DataDir, "/srv"),
            (Key::RegistryName, "r.example.com"),
            (Key::PublicUrl, "https://ci.example.com"),
            (Key::Agent, "true"),
            (Key::AgentName, "a1"),
            (Key::Engine, "/run/e.sock"),
            (Key::Slots, "7"),
            (Key::CacheBudget, "none"),
            (Key::MinFree, "7%"),
            (Key::AllowPrivileged, "on"),
            (Key::AllowPorts, "true"),
            (Key::AllowNetwork, "lan,host"),
            (Key::StepMemory, "2048MiB"),
            (Key::StepPids, "500"),
            (Key::AnonymousPull, "yes"),
            (Key::BlobGrace, "720m"),
            (Key::MaxContextSize, "2147483648"),
            (Key::ContextRetention, "2d"),
            (Key::ContextRetentionSize, "1024MiB"),
            (Key::BaseImagePoll, "90s"),
            (Key::SourcePoll, "20s"),
            (Key::WaveConcurrency, "16"),
            (Key::AllowSource, "10.0.0.0/8,fd00::/8"),
            (Key::AllowWebhook, "10.1.0.0/16"),
            (Key::Frontend, "docker/dockerfile=pull r.io/f:1=builtin"),
            (Key::ImageAliases, "az=az, bash=r.example.com/bash:5"),
            (Key::SecretEnv, "A, B  bob"),
            (Key::SecretVault, "v.example=vault:kv/ci *"),
            (Key::VaultAddress, "https://vault.example/"),
            (Key::VaultTokenFile, "/run/token"),
            (Key::VaultNamespace, "team"),
            (Key::VaultCaFile, "/etc/ca.pem"),
            (Key::ShutdownGrace, "5"),
            (Key::LogFormat, "json"),
            (Key::Log, "debug"),
        ]
        .map(|(key, text)| (key, text.to_owned()))
        .into();
        // A certificate comes from files, or is made; certificates of others are read from a file that has to be there.
        assert_eq!(pairs.len() + 3, Key::ALL.iter().filter(|key| !key.is_agents_own()).count());
        let as_flags: Vec<(Key, &str)> = pairs.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let names: Vec<(String, &str)> = pairs.iter().map(|(key, text)| (key.variable(), text.as_str())).collect();
        let as_variables: Vec<(&str, &str)> = names.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        assert_eq!(settings(&as_flags, &[], "").expect("valid"), from_file);
        assert_eq!(settings(&[], &as_variables, "").expect("valid"), from_file);
        assert_eq!(from_file.server.shutdown_grace, Duration::from_secs(5));
        assert_eq!(from_file.server.allowed_sources.len(), 2);
        assert_eq!(from_file.server.local_agent.expect("agent").slots, 7);
    }

    #[test]
    fn all_faults_come_together_with_their_origin() {
        let file = "slots = \"many\"\nlog-fromat = \"json\"\nengine = [\"a\"]\nzzz = 1\n";
        let faults =
            settings(&[(Key::Listen, "nowhere")], &[("COOPER_ANONYMOUS_PULL", "perhaps")], file).expect_err("bad");
        let expect = [
            "cooper.toml:2: unknown key `log-fromat`; did you mean `log-format`?",
            "cooper.toml:3: key `engine` must be a text, a number or true/false",
            "cooper.toml:4: unknown key `zzz`; known keys are listen, tls-cert, tls-key, tls-self-signed, tls-name, data-dir, registry-name, public-url, agent, agent-name, engine, \
             slots, cache-budget, min-free, allow-privileged, allow-ports, allow-network, step-memory, step-pids, anonymous-pull, blob-grace, max-context-size, context-retention, context-retention-size, base-image-poll, source-poll, wave-concurrency, allow-source, allow-webhook, source-ca-file, frontend, image-aliases, secret-env, secret-vault, vault-address, vault-token-file, vault-namespace, vault-ca-file, shutdown-grace, log-format, log, agent-server, \
             agent-token-file, agent-platform, agent-pool, agent-data-dir, agent-ca-file, agent-insecure",
            "--listen: `nowhere` is not an address and port such as 127.0.0.1:5000",
            "cooper.toml:1: key `slots`: `many` is not a number from 1 to 256",
            "COOPER_ANONYMOUS_PULL: `perhaps` is neither true nor false",
        ];
        assert_eq!(faults, expect);
    }

    #[test]
    fn a_certificate_is_named_whole_or_made() {
        let tls = |flags: &[(Key, &str)]| settings(flags, &[], "").map(|found| found.server.tls);
        let (certificate, key) = ((Key::TlsCert, "/c"), (Key::TlsKeyFile, "/k"));
        let files = TlsSettings::Files { certificate: "/c".into(), key: "/k".into() };
        assert_eq!(tls(&[certificate, key]), Ok(Some(files)));
        let made = (Key::TlsSelfSigned, "true");
        assert_eq!(tls(&[made]), Ok(Some(TlsSettings::SelfSigned { names: Vec::new() })));
        for (flags, fault) in [
            (&[certificate][..], "belong together"),
            (&[certificate, key, made], "exclude each other"),
            (&[certificate, key, (Key::TlsName, "a")], "--tls-name is for"),
            (&[made, (Key::TlsName, "a,b c")], "--tls-name: `b c` is neither"),
        ] {
            let faults = tls(flags).expect_err(fault);
            assert!(faults.len() == 1 && faults[0].contains(fault), "{faults:?}");
        }
    }

    #[test]
    fn a_broken_or_absent_file_is_named() {
        let faults = settings(&[], &[], "a = 1\nlisten =\n").expect_err("bad");
        assert!(faults[0].starts_with("cooper.toml:2: "), "{faults:?}");
        let environment = Environment::of(&[("HOME", "/home/dev")]);
        let faults = resolve(&Vec::new(), Some(Path::new("/nonexistent/c.toml")), &environment).expect_err("absent");
        assert!(faults[0].message.contains("/nonexistent/c.toml"), "{faults:?}");
        assert!(resolve(&Vec::new(), None, &environment).is_ok());
        let faults = resolve(&Vec::new(), None, &Environment::of(&[])).expect_err("no home");
        assert!(faults[0].hint.as_ref().is_some_and(|hint| hint.contains("--data-dir")), "{faults:?}");
    }

    #[test]
    fn without_an_agent_there_is_none() {
        assert_eq!(settings(&[(Key::Agent, "false")], &[], "").expect("valid").server.local_agent, None);
    }

    #[test]
    fn the_docker_commands_socket_is_the_last_resort() {
        let socket = |flags: &[(Key, &str)], host: &str| {
            let found = settings(flags, &[("DOCKER_HOST", host)], "").expect("valid");
            found.server.local_agent.expect("agent").engine_socket
        };
        assert_eq!(socket(&[], "unix:///run/user/1/docker.sock"), Some("/run/user/1/docker.sock".into()));
        assert_eq!(socket(&[], "tcp://1.2.3.4:2375"), None);
        assert_eq!(socket(&[(Key::Engine, "/e")], "unix:///x"), Some("/e".into()));
    }
}
