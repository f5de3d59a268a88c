//! The container engine, seen through its own client.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::outcome::{Finished, quiet, run_to_end};

/// How long the engine's client may take for anything that a test asks.
const LIMIT: Duration = Duration::from_secs(120);

/// The client `docker` with a configuration of its own. Images that it pulled go when it is dropped.
pub struct Engine {
    config: TempDir,
    /// Where the engine listens, if not where the client looks by itself.
    host: Option<String>,
    pulled: Mutex<Vec<String>>,
}

impl Engine {
    /// This machine's engine. Fails when none answers.
    pub fn new() -> Self {
        Self::of(None)
    }

    /// The engine that listens on a socket.
    pub fn at(socket: &Path) -> Self {
        Self::of(Some(format!("unix://{}", socket.display())))
    }

    fn of(host: Option<String>) -> Self {
        let config = TempDir::with_prefix("cooper-docker-").expect("make a temporary folder");
        let engine = Self { config, host, pulled: Mutex::default() };
        let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]);
        assert_eq!(
            version.code,
            Some(0),
            "these tests need a container engine and its client: `cargo xtask test` installs and starts them\n{version}"
        );
        engine
    }

    /// Runs the client.
    pub fn docker(&self, arguments: &[&str]) -> Finished {
        run_to_end(self.command().args(arguments), LIMIT)
    }

    fn command(&self) -> Command {
        let mut command = quiet("docker");
        command.arg("--config").arg(self.config.path());
        if let Some(host) = &self.host {
            command.args(["--host", host]);
        }
        command
    }

    /// What the engine has with all of these labels (`NAME=VALUE`): containers, networks and volumes, a line each.
    #[track_caller]
    pub fn held(&self, labels: &[&str]) -> Vec<String> {
        let filters: Vec<String> = labels.iter().map(|label| format!("label={label}")).collect();
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter.as_str()]).collect();
        let kinds: [&[&str]; 3] = [
            &["ps", "--all", "--format", "container {{.Names}}"],
            &["network", "ls", "--format", "network {{.Name}}"],
            &["volume", "ls", "--format", "volume {{.Name}}"],
        ];
        let of_kind = |kind: &&[&str]| self.docker(&[*kind, &filters].concat()).ok().stdout;
        kinds.iter().map(of_kind).collect::<String>().lines().map(str::to_owned).collect()
    }

    /// Logs the client in at a registry.
    #[track_caller]
    pub fn login(&self, registry: &str, token_file: &Path) {
        let mut command = self.command();
        command.args(["login", "--username", "tester", "--password-stdin", registry]);
        command.stdin(std::fs::File::open(token_file).expect("open the token file"));
        run_to_end(&mut command, LIMIT).ok();
    }

    /// Pulls an image, which must work.
    #[track_caller]
    pub fn pull(&self, image: &str) {
        self.docker(&["pull", "--quiet", image]).ok();
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner).push(image.to_owned());
    }

    /// Runs an image without a network and gives what it printed.
    #[track_caller]
    pub fn run(&self, image: &str) -> String {
        self.docker(&["run", "--rm", "--network", "none", image]).ok().stdout
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for image in self.pulled.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = self.command().args(["image", "rm", "--force", image]).output();
        }
    }
}
