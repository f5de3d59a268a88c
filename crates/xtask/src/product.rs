//! The product as a task's tool: its release binary, its client with a configuration of its own, its server.
//!
//! Owns what the quickstart and the measurements share. What they do with it is theirs.

mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::{Interrupt, Log, run_visibly};
use crate::provision::Provisioned;
use crate::report::Report;
use crate::workspace::{Workspace, environment_names, find_program};
pub(crate) use server::Server;

/// The port that the documentation speaks of.
const USUAL_PORT: u16 = 5000;

/// Builds the release binary.
pub(crate) fn build_release(workspace: &Workspace, report: &Report, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut build = workspace.cargo(["build", "--release", "--locked", "--package", "cooper"]);
    report.begin("building the release binary (some minutes the first time)");
    if !report.is_terminal() {
        build.arg("--quiet");
    }
    report.step("built target/release/cooper", || run_visibly(&mut build))?;
    interrupt.check()
}

/// Builds the binary for development and the scripted agents, which no test target would build, and tells where the binary is.
///
/// Of all packages, as the tests are: what is built for one package has other features, and all that it stands on would be
/// compiled once more.
pub(crate) fn build_debug(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    run_visibly(&mut workspace.cargo([
        "build",
        "--locked",
        "--workspace",
        "--bin",
        "cooper",
        "--example",
        "dispatch",
    ]))?;
    Ok(workspace.cooper("debug"))
}

/// Fails when the engine's loopback addresses, and so the registry's name, are not this machine's.
pub(crate) fn require_local(machine: &Provisioned) -> anyhow::Result<()> {
    if !machine.engine.is_local() {
        bail!(
            "DOCKER_HOST names {}, whose loopback is not this machine's: this needs a local engine; unset DOCKER_HOST",
            machine.engine
        );
    }
    Ok(())
}

/// The client's side: its programs, its folders, its log.
pub(crate) struct Product<'a> {
    workspace: &'a Workspace,
    interrupt: &'a Interrupt,
    folder: PathBuf,
    log: Log,
    profile: &'static str,
}

impl<'a> Product<'a> {
    /// Makes the folder afresh.
    pub(crate) fn new(workspace: &'a Workspace, interrupt: &'a Interrupt, folder: PathBuf) -> anyhow::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("remove what an earlier run left in {}", folder.display()))?;
        }
        let log = Log::create(folder.join("commands.log"))?;
        Ok(Self { workspace, interrupt, folder, log, profile: "release" })
    }

    /// The same with the binary of another profile, which somebody has built.
    pub(crate) fn of_profile(self, profile: &'static str) -> Self {
        Self { profile, ..self }
    }

    /// The folder of this task's data, logins and logs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The client's configuration folder.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("cli")
    }

    /// The configuration folder of the engine's client.
    pub(crate) fn docker_config(&self) -> PathBuf {
        self.folder.join("docker")
    }

    /// Starts a server on this port of the loopback address, with more arguments.
    pub(crate) fn serve(&self, port: u16, arguments: &[&str]) -> anyhow::Result<Server> {
        Server::start(self.cooper(&[]), &self.folder, port, arguments, self.interrupt)
    }

    /// The product, seeing its own configuration and no setting of the person's.
    pub(crate) fn cooper(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.workspace.cooper(self.profile));
        for name in environment_names("COOPER_") {
            command.env_remove(name);
        }
        command.env("COOPER_CONFIG_DIR", self.config()).args(arguments).current_dir(self.workspace.path(""));
        command
    }

    /// The engine's client, with a configuration of its own: no login of the person's is read or changed.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--config").arg(self.docker_config()).args(arguments);
        command
    }

    /// Runs a command with its output in the log.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        self.log.run(command, self.interrupt)
    }

    /// Runs a command and gives its standard output.
    pub(crate) fn capture(&self, command: &mut Command) -> anyhow::Result<String> {
        self.log.capture(command, self.interrupt)
    }

    /// Logs the product's client in as the administrator.
    pub(crate) fn log_in(&self, server: &Server) -> anyhow::Result<()> {
        self.run(self.cooper(&["login", server.address(), "--token-file"]).arg(server.token_file()))
    }

    /// Logs the engine's client in at the registry.
    pub(crate) fn log_in_docker(&self, server: &Server, registry: &str) -> anyhow::Result<()> {
        let token = server.token_file();
        let secret = std::fs::File::open(&token).with_context(|| format!("open {}", token.display()))?;
        let mut login = self.docker(&["login", "--username", "quickstart", "--password-stdin", registry]);
        self.log.run_with_input(&mut login, secret.into(), self.interrupt)
    }

    /// Builds a folder.
    pub(crate) fn build(&self, flags: &[&str], source: &Path) -> anyhow::Result<Built> {
        let mut command = self.cooper(&["build", "--output", "json"]);
        let text = self.capture(command.args(flags).arg(source))?;
        let run = serde_json::from_str(&text).context("read the run that `cooper build --output json` printed")?;
        Built::from_run(&run)
    }

    /// A copy of `examples/busybox` that has the program, which is this machine's own.
    pub(crate) fn busybox_context(&self) -> anyhow::Result<PathBuf> {
        let copy = self.folder.join("busybox");
        std::fs::create_dir_all(&copy).with_context(|| format!("make {}", copy.display()))?;
        let program = find_program("busybox").context("the program `busybox` is not on the search path")?;
        let dockerfile = self.workspace.path("examples/busybox/Dockerfile");
        for (from, to) in [(program, copy.join("busybox")), (dockerfile, copy.join("Dockerfile"))] {
            std::fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
        Ok(copy)
    }
}

/// What a build left behind, as the run's record says.
pub(crate) struct Built {
    /// The run's id.
    pub(crate) run: String,
    /// The registry's name in image references.
    pub(crate) registry: String,
    images: Vec<String>,
}

impl Built {
    fn from_run(run: &Value) -> anyhow::Result<Self> {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let images = run.get("outputImages").and_then(Value::as_array).context("the run has no outputImages")?;
        let first = images.first().context("the run pushed no image")?;
        let name = |image: &Value| {
            Some(format!("{}/{}:{}", text(image, "registry")?, text(image, "repository")?, text(image, "tag")?))
        };
        Ok(Self {
            run: text(run, "runId").context("the run has no runId")?,
            registry: text(first, "registry").context("the run's image has no registry")?,
            images: images.iter().filter_map(name).collect(),
        })
    }

    /// The image whose tag is the run's id.
    pub(crate) fn image(&self) -> anyhow::Result<String> {
        let tag = format!(":{}", self.run);
        let found = self.images.iter().find(|image| image.ends_with(&tag));
        found.cloned().with_context(|| format!("run {} pushed no tag {tag}, but {}", self.run, self.images.join(", ")))
    }
}

/// The port asked for, else the usual one, else a free one.
pub(crate) fn choose_port(asked: Option<u16>) -> anyhow::Result<u16> {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| Ok(listener.local_addr()?.port()));
    match asked {
        Some(port) => free(port).with_context(|| format!("port {port} can't be used: choose another with --port")),
        None => free(USUAL_PORT).or_else(|_| free(0)).context("no port is free on 127.0.0.1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_to_pull_is_the_one_tagged_with_the_run() {
        let image = |tag: &str| serde_json::json!({"registry": "localhost:5000", "repository": "hello", "tag": tag, "digest": "sha256:0"});
        let run = serde_json::json!({"runId": "ca2", "outputImages": [image("latest"), image("ca2")]});
        assert_eq!(Built::from_run(&run).unwrap().image().unwrap(), "localhost:5000/hello:ca2");

        let other = serde_json::json!({"runId": "ca2", "outputImages": [image("latest")]});
        let error = Built::from_run(&other).unwrap().image().unwrap_err().to_string();
        assert!(error.contains("localhost:5000/hello:latest"), "{error}");
        assert!(Built::from_run(&serde_json::json!({"runId": "ca2", "outputImages": []})).is_err());
    }

    #[test]
    fn a_taken_port_is_refused_or_avoided() {
        let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        assert!(choose_port(Some(taken)).unwrap_err().to_string().contains("--port"));
        assert_ne!(choose_port(None).unwrap(), taken);
    }
}
