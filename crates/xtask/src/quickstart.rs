//! `cargo xtask quickstart`: from nothing to a built, pulled and running image, on this machine, without the network
//! once the compiler has what it needs.
//!
//! Owns the order of the steps and what a newcomer reads. The server that it starts is `quickstart::server`'s.

mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::{Interrupt, Log, run_visibly};
use crate::provision::{Need, Provisioned, provision};
use crate::report::{Report, seconds};
use crate::workspace::{Workspace, environment_names, find_program};
use server::Server;

/// The port that the documentation speaks of.
const USUAL_PORT: u16 = 5000;

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the server (and an engine that had to be started) running.
    #[arg(long)]
    keep: bool,
    /// The server's port; by default 5000, or a free one when that is taken.
    #[arg(long)]
    port: Option<u16>,
}

/// Runs all steps, says what happened, and leaves nothing running unless it is told to.
pub(crate) fn run(workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    let start = Instant::now();
    let interrupt = Interrupt::install()?;
    let folder = workspace.target("quickstart");
    Server::refuse_second(&folder)?;
    report.line("Cooperage, from nothing to a running image:");

    let machine = provision(workspace, report, &interrupt, Need::Quickstart)?;
    let result = on_machine(workspace, report, options, &interrupt, &machine, &folder);
    let stop_engine = machine.stop_hint();
    if options.keep && result.is_ok() {
        machine.keep_engine();
    } else {
        machine.stop_engine(report)?;
    }
    let outcome = result?;
    report.line(format_args!("\nDone in {}. {}", seconds(start.elapsed()), outcome.summary));
    report.line(next_steps(&outcome, options.keep.then_some(stop_engine)));
    Ok(())
}

/// What a newcomer is told at the end.
struct Outcome {
    summary: String,
    cooper: PathBuf,
    config: PathBuf,
    address: String,
    image: String,
    run: String,
    server_pid: u32,
}

fn on_machine(
    workspace: &Workspace,
    report: &Report,
    options: &Options,
    interrupt: &Interrupt,
    machine: &Provisioned,
    folder: &Path,
) -> anyhow::Result<Outcome> {
    if !machine.engine.is_local() {
        bail!(
            "DOCKER_HOST names {}, whose loopback is not this machine's: the quickstart needs a local engine; unset \
             DOCKER_HOST",
            machine.engine
        );
    }
    report.line(format_args!("  ✓ container engine {} at {}", machine.version, machine.engine));

    let mut build = workspace.cargo(["build", "--release", "--locked", "--package", "cooper"]);
    report.begin("building the release binary (some minutes the first time)");
    if !report.is_terminal() {
        build.arg("--quiet");
    }
    report.step("built target/release/cooper", || run_visibly(&mut build))?;
    interrupt.check()?;

    let tour = Tour::new(workspace, folder, interrupt)?;
    let port = choose_port(options.port)?;
    let server = report.step(&format!("started `cooper serve` on 127.0.0.1:{port}"), || {
        Server::start(&tour.cooper(&[]), folder, port, interrupt)
    })?;
    // From here on, dropping the server stops it.
    let outcome = tour.take(report, &server)?;
    if options.keep {
        server.keep()?;
    } else {
        report.step("stopped the server", || server.stop())?;
    }
    Ok(outcome)
}

/// The client's side of the quickstart: its programs, its folders, its log.
struct Tour<'a> {
    workspace: &'a Workspace,
    interrupt: &'a Interrupt,
    folder: &'a Path,
    log: Log,
}

impl<'a> Tour<'a> {
    /// Makes the folders afresh.
    fn new(workspace: &'a Workspace, folder: &'a Path, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)
                .with_context(|| format!("remove what an earlier run left in {}", folder.display()))?;
        }
        let log = Log::create(folder.join("quickstart.log"))?;
        Ok(Self { workspace, interrupt, folder, log })
    }

    /// The product, seeing its own configuration and no setting of the person's.
    fn cooper(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.workspace.cooper("release"));
        for name in environment_names("COOPER_") {
            command.env_remove(name);
        }
        command.env("COOPER_CONFIG_DIR", self.folder.join("cli")).args(arguments).current_dir(self.workspace.path(""));
        command
    }

    /// The engine's client, with a configuration of its own: no login of the person's is read or changed.
    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--config").arg(self.folder.join("docker")).args(arguments);
        command
    }

    /// Logs in, builds two images, pulls the second one, and runs it.
    fn take(&self, report: &Report, server: &Server) -> anyhow::Result<Outcome> {
        let token = server.token_file();
        report.step("logged in with the admin token", || {
            let mut login = self.cooper(&["login", server.address(), "--token-file"]);
            self.log.run(login.arg(&token), self.interrupt)
        })?;

        let base = self.busybox_context()?;
        report.step("built base/busybox:1, a base image from scratch", || {
            self.build(&["-t", "base/busybox:1"], &base).map(drop)
        })?;
        let hello = self.workspace.path("examples/hello");
        let built = report.step("built examples/hello on it, in two stages", || {
            let tags = ["-t", "hello:{{.Run.ID}}", "-t", "hello:latest"];
            let arguments = ["--build-arg", "REGISTRY={{.Run.Registry}}", "--build-arg", "RUN={{.Run.ID}}"];
            self.build(&[tags, arguments].concat(), &hello)
        })?;

        let image = built.image()?;
        report.step(&format!("pulled {image} with docker"), || {
            let mut login = self.docker(&["login", "--username", "quickstart", "--password-stdin", &built.registry]);
            let secret = std::fs::File::open(&token).with_context(|| format!("open {}", token.display()))?;
            self.log.run_with_input(&mut login, secret.into(), self.interrupt)?;
            self.log.run(&mut self.docker(&["pull", "--quiet", &image]), self.interrupt)
        })?;
        let greeting = report.step("ran it", || {
            let mut run = self.docker(&["run", "--rm", "--network", "none", &image]);
            self.log.capture(&mut run, self.interrupt)
        })?;
        for line in greeting.lines() {
            report.line(format_args!("      {line}"));
        }
        // The pulled copy has done its work; the registry keeps the image.
        let _ = self.log.run(&mut self.docker(&["image", "rm", &image]), self.interrupt);

        Ok(Outcome {
            summary: format!(
                "Cooperage built {image} (run {}) with your container engine,\nits own registry kept it, and the \
                 engine pulled and ran it: no other registry was asked.",
                built.run
            ),
            cooper: self.workspace.cooper("release"),
            config: self.folder.join("cli"),
            address: server.address().to_owned(),
            image,
            run: built.run,
            server_pid: server.pid(),
        })
    }

    /// A copy of `examples/busybox` that has the program, which is this machine's own.
    fn busybox_context(&self) -> anyhow::Result<PathBuf> {
        let copy = self.folder.join("busybox");
        std::fs::create_dir_all(&copy).with_context(|| format!("make {}", copy.display()))?;
        let program = find_program("busybox").context("the program `busybox` is not on the search path")?;
        let dockerfile = self.workspace.path("examples/busybox/Dockerfile");
        for (from, to) in [(program, copy.join("busybox")), (dockerfile, copy.join("Dockerfile"))] {
            std::fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        }
        Ok(copy)
    }

    fn build(&self, flags: &[&str], source: &Path) -> anyhow::Result<Built> {
        let mut command = self.cooper(&["build", "--output", "json"]);
        command.args(flags).arg(source);
        let text = self.log.capture(&mut command, self.interrupt)?;
        let run = serde_json::from_str(&text).context("read the run that `cooper build --output json` printed")?;
        Built::from_run(&run)
    }
}

/// What a build left behind, as the run's record says.
struct Built {
    run: String,
    registry: String,
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
    fn image(&self) -> anyhow::Result<String> {
        let tag = format!(":{}", self.run);
        let found = self.images.iter().find(|image| image.ends_with(&tag));
        found.cloned().with_context(|| format!("run {} pushed no tag {tag}, but {}", self.run, self.images.join(", ")))
    }
}

/// The port asked for, else the usual one, else a free one.
fn choose_port(asked: Option<u16>) -> anyhow::Result<u16> {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| Ok(listener.local_addr()?.port()));
    match asked {
        Some(port) => free(port).with_context(|| format!("port {port} can't be used: choose another with --port")),
        None => free(USUAL_PORT).or_else(|_| free(0)).context("no port is free on 127.0.0.1"),
    }
}

/// What to try next. `kept` holds, when things were left running, how to stop an engine that we started.
fn next_steps(outcome: &Outcome, kept: Option<Option<String>>) -> String {
    let cooper = outcome.cooper.display();
    let Some(stop_engine) = kept else {
        return format!(
            "\nNothing was left running. What to try next:\n  \
             cargo xtask quickstart --keep               # the same, with the server left running\n  \
             {cooper} serve --data-dir ./data   # a server that stays, with its data in ./data\n  \
             {cooper} build --help              # what a build can do"
        );
    };
    let also = stop_engine.map(|command| format!(" && {command}")).unwrap_or_default();
    format!(
        "\nThe server runs at {} (process {}). What to try next:\n  \
         export COOPER_CONFIG_DIR={}\n  \
         {cooper} runs list\n  \
         {cooper} logs {}\n  \
         {cooper} build -t mine:v1 PATH/TO/A/FOLDER\n  \
         docker run --rm {}\n  \
         kill {}{also}   # stops what runs",
        outcome.address,
        outcome.server_pid,
        outcome.config.display(),
        outcome.run,
        outcome.image,
        outcome.server_pid,
    )
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
