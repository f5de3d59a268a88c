//! The settings of a server that one command starts for itself. The user is its operator: what says how engine and steps
//! are treated counts as for `cooper serve`; what makes a lasting server (address, name, certificate, data, key, vaults)
//! doesn't.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cooper_server::{CacheBudget, CredentialKeeper, DiskSettings, LocalAgent, SecretSettings, Settings};
use cooper_types::AgentName;

use super::{Flags, Key, Layers, LogFormat, docker_host, read_file, secrets, value};
use crate::environment::Environment;
use crate::fault::Fault;

/// What its agent is called.
pub(crate) const LOCAL_AGENT: &str = "local";

/// A server of a command's own, and what it logs beside the run's log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LocalSettings {
    pub(crate) server: Settings,
    pub(crate) log_format: LogFormat,
    pub(crate) log_filter: String,
}

/// Resolves the settings of a server with its data in `folder`.
pub(crate) fn resolve_local(
    flags: &Flags,
    folder: &Path,
    environment: &Environment,
) -> Result<LocalSettings, Vec<Fault>> {
    let mut faults = Vec::new();
    let file = read_file(None, environment, &mut faults);
    let mut layers = Layers { flags, environment, file: &file, faults, flag: Key::flag };
    let engine_socket = layers.take(Key::Engine, value::socket).or_else(|| docker_host(environment));
    let min_free = layers.take(Key::MinFree, value::min_free).unwrap_or_default();
    // The engine is its user's: nothing that it keeps is taken from it.
    let disk = DiskSettings { cache_budget: CacheBudget::Unlimited, min_free, ..DiskSettings::default() };
    let steps = super::steps(&mut layers);
    let allowed_sources = layers.take(Key::AllowSource, value::networks).unwrap_or_default();
    let source_roots = layers.take(Key::SourceCaFile, value::certificates);
    let frontends = layers.take(Key::Frontend, value::frontends).unwrap_or_default();
    let log_format = layers.take(Key::LogFormat, value::log_format).unwrap_or_default();
    let log_filter = layers.take(Key::Log, value::log_filter).unwrap_or_else(|| "warn".to_owned());
    let image_aliases = layers.take(Key::ImageAliases, value::image_aliases).unwrap_or_default();
    let max_context_bytes =
        layers.take(Key::MaxContextSize, value::size).unwrap_or(Settings::DEFAULT_MAX_CONTEXT_BYTES);
    // A flag alone opens this user's variables to a task, and the server's key is always a fresh one: by its key an agent
    // knows what is its own in the engine, and a server with the same settings may run beside.
    let listed =
        flags.iter().find(|(key, _)| *key == Key::SecretEnv).map(|(_, text)| secrets::listed(text, environment));
    let listed =
        listed.transpose().unwrap_or_else(|reason| layers.fault(format!("{}: {reason}", Key::SecretEnv.flag()), None));
    let secrets = SecretSettings { environment: listed.unwrap_or_default(), ..SecretSettings::default() };
    match layers.faults.is_empty() {
        false => Err(layers.faults),
        true => Ok(LocalSettings {
            server: Settings {
                listen: "127.0.0.1:0".parse().expect("a constant that is an address"),
                tls: None,
                data_dir: folder.to_owned(),
                registry_name: None,
                public_url: None,
                local_agent: Some(LocalAgent {
                    name: AgentName::parse(LOCAL_AGENT).expect("a name of letters is an agent's name"),
                    engine_socket,
                    slots: 1,
                    disk,
                    steps,
                    credentials: CredentialKeeper::DockerClient,
                }),
                anonymous_pull: false,
                blob_grace: Settings::DEFAULT_BLOB_GRACE,
                max_context_bytes,
                context_retention: Duration::ZERO,
                context_retention_bytes: u64::MAX,
                base_image_poll: Settings::DEFAULT_BASE_IMAGE_POLL,
                source_poll: Settings::DEFAULT_SOURCE_POLL,
                wave_concurrency: Settings::DEFAULT_WAVE_CONCURRENCY,
                allowed_sources,
                allowed_webhooks: Vec::new(),
                source_roots,
                docker_config: docker_config(environment),
                frontends,
                secrets,
                image_aliases,
                // Nobody else would remove what is left, and who is in a hurry presses Ctrl-C again.
                shutdown_grace: 3 * Settings::DEFAULT_SHUTDOWN_GRACE,
            },
            log_format,
            log_filter,
        }),
    }
}

/// Where the user's Docker client has its logins.
fn docker_config(environment: &Environment) -> Option<PathBuf> {
    let folder = environment.raw("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from(environment.raw("HOME").filter(|home| !home.is_empty())?).join(".docker"));
    Some(folder.or_else(usual)?.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[(Key, &str)], variables: &[(&str, &str)]) -> Result<LocalSettings, Vec<String>> {
        let mut all = vec![("COOPER_CONFIG_DIR", "/nonexistent"), ("HOME", "/home/dev")];
        all.extend_from_slice(variables);
        let flags: Flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let found = resolve_local(&flags, Path::new("/tmp/x"), &Environment::of(&all));
        found.map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn what_makes_a_lasting_server_does_not_count() {
        let lasting = [
            ("COOPER_LISTEN", "0.0.0.0:1"),
            ("COOPER_TLS_SELF_SIGNED", "true"),
            ("COOPER_DATA_DIR", "/srv"),
            ("COOPER_REGISTRY_NAME", "r.example.com"),
            ("COOPER_AGENT", "false"),
            ("COOPER_SECRET_KEY", "00"),
            ("COOPER_SECRET_ENV", "HOME"),
            ("COOPER_SECRET_VAULT", "v.example=vault:kv"),
        ];
        assert_eq!(resolve(&[], &lasting), resolve(&[], &[]));
        let own = [("COOPER_ENGINE", "/run/e.sock"), ("COOPER_ALLOW_PORTS", "true")];
        let server = resolve(&[(Key::AllowNetwork, "lan")], &own).expect("valid").server;
        let agent = server.local_agent.expect("an agent");
        assert_eq!(agent.engine_socket.as_deref(), Some("/run/e.sock"));
        assert!(agent.steps.ports && agent.steps.networks.contains("lan") && !agent.steps.privileged);
    }

    #[test]
    fn a_flag_alone_opens_the_environment() {
        let variables = [("NPM", "n"), ("OTHER", "o")];
        let server = resolve(&[(Key::SecretEnv, "NPM,GONE")], &variables).expect("valid").server;
        let found: Vec<_> =
            server.secrets.environment.iter().map(|(name, (value, _))| (name, value.is_some())).collect();
        assert_eq!(found, [(&"GONE".to_owned(), false), (&"NPM".to_owned(), true)]);
        let faults = resolve(&[(Key::SecretEnv, "A B C=D"), (Key::AllowSource, "10.0.0.0")], &[]).expect_err("faults");
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
