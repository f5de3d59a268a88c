//! The settings of `cooper agent`: in the same layers, and from the same file, as those of `cooper serve`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cooper_client::{ServerUrl, Trust};
use cooper_server::{DiskSettings, StepPolicy};
use cooper_types::{AgentName, Platform, PoolName};

use super::{Flags, Key, Layers, LogFormat, docker_host, read_file, value};
use crate::connection::read_trust;
use crate::environment::Environment;
use crate::fault::Fault;

/// How many placements an agent holds unless something else is said.
const DEFAULT_SLOTS: u32 = 2;
/// How long an agent's shutdown may take unless something else is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(20);

/// Everything that `cooper agent` needs to know.
#[derive(Debug)]
pub(crate) struct AgentProgramSettings {
    pub(crate) server: ServerUrl,
    pub(crate) trust: Trust,
    pub(crate) token_file: PathBuf,
    pub(crate) name: AgentName,
    pub(crate) pool: Option<PoolName>,
    pub(crate) platforms: BTreeSet<Platform>,
    pub(crate) engine_socket: Option<String>,
    pub(crate) slots: u32,
    pub(crate) disk: DiskSettings,
    pub(crate) steps: StepPolicy,
    pub(crate) source_roots: Option<Vec<u8>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) shutdown_grace: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) log_filter: String,
}

/// Resolves the settings. `file` is the one that `--config` names.
pub(crate) fn resolve_agent(
    flags: &Flags,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<AgentProgramSettings, Vec<Fault>> {
    let mut faults = Vec::new();
    let file = read_file(file, environment, &mut faults);
    let mut layers = Layers { flags, environment, file: &file, faults, flag: Key::agent_flag };

    let insecure = layers.take(Key::AgentInsecure, value::boolean).unwrap_or(false);
    let server = server(&mut layers, insecure);
    let trust = trust(&mut layers);
    let token_file = layers.take(Key::AgentTokenFile, value::path);
    if token_file.is_none() {
        layers.fault::<()>(
            "no token is given for the agent".to_owned(),
            Some("make one at the server with `cooper token create NAME --scope agent`, and name its file with --token-file"),
        );
    }
    let name = layers.take(Key::AgentName, |text| AgentName::parse(text).map_err(|error| error.to_string()));
    let name = name.or_else(|| value::agent_name_of(&environment.host_name()?));
    if name.is_none() {
        layers.fault::<()>("this machine has no name to call the agent by".to_owned(), Some("give it one with --name"));
    }
    let pool = layers.take(Key::AgentPool, |text| PoolName::parse(text).map_err(|error| error.to_string()));
    let platforms = layers.take(Key::AgentPlatform, value::platforms).unwrap_or_default();
    let engine_socket = layers.take(Key::Engine, value::socket).or_else(|| docker_host(environment));
    let slots = layers.take(Key::Slots, value::slots).unwrap_or(DEFAULT_SLOTS);
    let disk = super::disk(&mut layers);
    let steps = super::steps(&mut layers);
    let source_roots = layers.take(Key::SourceCaFile, value::certificates);
    let data_dir = layers.take(Key::AgentDataDir, value::path).or_else(|| environment.agent_data_dir());
    let data_dir = data_dir.and_then(|path| std::path::absolute(path).ok());
    if data_dir.is_none() {
        layers.fault::<()>("there is no place for the agent's data".to_owned(), Some("name a folder with --data-dir"));
    }
    let shutdown_grace = layers.take(Key::ShutdownGrace, value::seconds).unwrap_or(DEFAULT_GRACE);
    let log_format = layers.take(Key::LogFormat, value::log_format).unwrap_or_default();
    let log_filter = layers.take(Key::Log, value::log_filter).unwrap_or_else(|| "info".to_owned());
    match (layers.faults.is_empty(), server, token_file, name, data_dir) {
        (true, Some(server), Some(token_file), Some(name), Some(data_dir)) => Ok(AgentProgramSettings {
            server,
            trust,
            token_file,
            name,
            pool,
            platforms,
            engine_socket,
            slots,
            disk,
            steps,
            source_roots,
            data_dir,
            shutdown_grace,
            log_format,
            log_filter,
        }),
        _ => Err(layers.faults),
    }
}

/// The server.
fn server(layers: &mut Layers<'_>, insecure: bool) -> Option<ServerUrl> {
    let text = layers.take(Key::AgentServer, |text| Ok(text.to_owned()));
    let Some(text) = text else {
        let hint = Some("say --server https://HOST:PORT, or set COOPER_SERVER");
        return layers.fault("no server is named for the agent".to_owned(), hint);
    };
    let server = ServerUrl::parse(&text).and_then(|server| match insecure {
        true => Ok(server),
        false => server.require_private().map(|()| server),
    });
    match server {
        Ok(server) => Some(server),
        Err(error) => {
            layers.faults.push(error.into());
            None
        }
    }
}

fn trust(layers: &mut Layers<'_>) -> Trust {
    match layers.take(Key::AgentCaFile, value::path).map(|path| read_trust(&path)) {
        None => Trust::default(),
        Some(Ok(trust)) => trust,
        Some(Err(fault)) => {
            layers.faults.push(fault);
            Trust::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[(Key, &str)], variables: &[(&str, &str)]) -> Result<AgentProgramSettings, Vec<String>> {
        let mut all = vec![("HOME", "/home/dev"), ("COOPER_CONFIG_DIR", "/nonexistent")];
        all.extend_from_slice(variables);
        let flags: Flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let found = resolve_agent(&flags, None, &Environment::of(&all));
        found.map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn what_is_missing_is_told_at_once() {
        let faults = resolve(&[(Key::Slots, "0"), (Key::AgentPlatform, "linux/amd64,beos")], &[]).expect_err("faults");
        let begins =
            ["no server", "no token", "this machine has no name", "--platform: platform `beos`", "--slots: `0`"];
        let misnamed = resolve(&[(Key::AgentName, "a b")], &[]).expect_err("a blank in the name");
        assert!(misnamed.iter().any(|fault| fault.starts_with("--name: ")), "{misnamed:?}");
        assert_eq!(faults.len(), begins.len(), "{faults:?}");
        for (fault, begin) in faults.iter().zip(begins) {
            assert!(fault.starts_with(begin), "{fault}");
        }
    }

    #[test]
    fn flags_and_variables_meet() {
        let given = [(Key::AgentServer, "https://b.example.com"), (Key::AgentTokenFile, "/t"), (Key::AgentName, "a")];
        let found = resolve(&given, &[("COOPER_AGENT_POOL", "fast"), ("COOPER_SLOTS", "3")]).expect("valid");
        assert_eq!(found.server.to_string(), "https://b.example.com");
        assert_eq!((found.slots, found.pool.map(|pool| pool.to_string())), (3, Some("fast".to_owned())));
        assert_eq!(found.data_dir, Path::new("/home/dev/.local/share/cooper-agent"));
        let found =
            resolve(&given[1..], &[("COOPER_SERVER", "b.example.com"), ("COOPER_DATA_DIR", "/d")]).expect("valid");
        assert_eq!(
            (found.server.to_string().as_str(), found.data_dir.as_path()),
            ("https://b.example.com", Path::new("/d"))
        );
        let plain = [(Key::AgentServer, "http://b.example.com"), given[1], given[2]];
        assert!(resolve(&plain, &[]).expect_err("in clear")[0].contains("plain http"));
        assert!(resolve(&plain, &[("COOPER_AGENT_INSECURE", "true")]).is_ok());
        assert_eq!(value::agent_name_of("Büro 1").map(|name| name.to_string()).as_deref(), Some("B-ro-1"));
    }
}
