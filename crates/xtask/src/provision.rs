//! What a fresh machine lacks: a container engine and the programs that the quickstart and the tests use.
//!
//! It says each thing that it installs or starts, never starts a second engine, and remembers what it started, so
//! that the caller can leave the machine as it was. Installing works as root on Debian and Ubuntu; elsewhere it
//! says what is needed.

mod engine;
mod packages;
mod second_engine;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

pub(crate) use engine::EngineAddress;
use engine::{Ping, StartedEngine};
pub(crate) use second_engine::SecondEngine;

use crate::command::{Interrupt, Log};
use crate::report::Report;
use crate::workspace::{Workspace, find_program};

/// How long an engine may take from its start to its first answer.
const ENGINE_START: Duration = Duration::from_secs(180);
/// How long a service manager may take to begin starting an engine that was just installed.
const SERVICE_START: Duration = Duration::from_secs(120);

/// A program, and the Debian package that holds it.
struct Program {
    name: &'static str,
    package: &'static str,
}

const BUSYBOX: Program = Program { name: "busybox", package: "busybox-static" };
const FAKETIME: Program = Program { name: "faketime", package: "faketime" };
const GIT: Program = Program { name: "git", package: "git" };
const IP: Program = Program { name: "ip", package: "iproute2" };
const IPTABLES: Program = Program { name: "iptables", package: "iptables" };
const NSENTER: Program = Program { name: "nsenter", package: "util-linux" };
const PODMAN: Program = Program { name: "podman", package: "podman" };
const QEMU: Program = Program { name: "qemu-aarch64-static", package: "qemu-user-static" };
const SETPRIV: Program = Program { name: "setpriv", package: "util-linux" };
const SKOPEO: Program = Program { name: "skopeo", package: "skopeo" };
const SYSTEMD: Program = Program { name: "systemd-analyze", package: "systemd" };
const TC: Program = Program { name: "tc", package: "iproute2" };
const UNSHARE: Program = Program { name: "unshare", package: "util-linux" };

/// What the machine must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// An engine, its command-line client, and a static busybox.
    Quickstart,
    /// The same, and the clients that the tests hold the registry against.
    Tests,
}

impl Need {
    fn programs(self) -> &'static [Program] {
        match self {
            Self::Quickstart => &[BUSYBOX],
            Self::Tests => {
                &[BUSYBOX, FAKETIME, GIT, IP, IPTABLES, NSENTER, PODMAN, QEMU, SETPRIV, SKOPEO, SYSTEMD, TC, UNSHARE]
            }
        }
    }
}

/// A machine that has what was needed.
pub(crate) struct Provisioned {
    /// Where the engine answers.
    pub(crate) engine: EngineAddress,
    /// The engine's version, as it says.
    pub(crate) version: String,
    started: Option<StartedEngine>,
}

impl Provisioned {
    /// How to stop the engine by hand, when it is one that we started.
    pub(crate) fn stop_hint(&self) -> Option<String> {
        self.started.as_ref().map(StartedEngine::stop_hint)
    }

    /// Stops the engine when it is one that we started.
    pub(crate) fn stop_engine(mut self, report: &Report) -> anyhow::Result<()> {
        match self.started.take() {
            Some(started) => report.step("stopped the container engine", || started.stop()),
            None => Ok(()),
        }
    }

    /// Leaves the engine running for whoever comes next.
    pub(crate) fn keep_engine(mut self) {
        if let Some(started) = self.started.take() {
            started.leave();
        }
    }
}

/// Makes the machine ready, or says what a person has to do.
pub(crate) fn provision(
    workspace: &Workspace,
    report: &Report,
    interrupt: &Interrupt,
    need: Need,
) -> anyhow::Result<Provisioned> {
    let address = EngineAddress::from_environment()?;
    let found = find_engine(&address, interrupt)?;

    let mut missing = packages::Missing::default();
    for program in need.programs() {
        if find_program(program.name).is_none() {
            missing.add(program.package, format!("the program `{}`", program.name));
        }
    }
    if find_program("docker").is_none() {
        missing.add("docker.io", "the engine's client `docker`");
    }
    if found.is_none() {
        if let Some(hint) = address.remote_hint() {
            bail!("no container engine answers at {address}: {hint}");
        }
        if find_program("dockerd").is_none() {
            missing.add("docker.io", "a container engine");
        }
        if packages::lacks_control_groups() {
            missing.add("cgroupfs-mount", "mounted control groups, which containers need");
        }
    }
    let log = Log::create(workspace.target("provision/install.log"))?;
    packages::install(&missing, report, &log, interrupt)?;

    let (version, started) = match found {
        Some(version) => (version, None),
        None => start_engine(workspace, report, interrupt, &address, !missing.is_empty())?,
    };
    Ok(Provisioned { engine: address, version, started })
}

/// The version of the engine that answers; fails when one is there that this user can't or shouldn't use.
fn find_engine(address: &EngineAddress, interrupt: &Interrupt) -> anyhow::Result<Option<String>> {
    match address.ping()? {
        Ping::Answers(version) => return Ok(Some(version)),
        Ping::Forbidden if packages::is_root() => bail!("the engine at {address} refuses root: see its permissions"),
        Ping::Forbidden => bail!(
            "a container engine runs at {address}, but you may not use it: run this as root, or have root run \
             `usermod -aG docker $USER` and log in again"
        ),
        Ping::Silent => {}
    }
    // An engine that is still starting holds its pid file already. A second one beside it would tear down its network.
    let Some(pid) = engine::running_pid() else { return Ok(None) };
    interrupt
        .wait(SERVICE_START, || address.answers())?
        .map(Some)
        .with_context(|| format!("an engine runs (process {pid}) but does not answer at {address}: look at its log"))
}

/// Starts the engine that is installed, by the service manager where there is one, else by hand.
fn start_engine(
    workspace: &Workspace,
    report: &Report,
    interrupt: &Interrupt,
    address: &EngineAddress,
    just_installed: bool,
) -> anyhow::Result<(String, Option<StartedEngine>)> {
    if !packages::is_root() {
        bail!(
            "no container engine answers at {address}, and starting one takes root: run `sudo dockerd` \
             (or `sudo systemctl start docker`), then this again"
        );
    }
    let systemd = Path::new("/run/systemd/system").is_dir();
    let started = if systemd {
        report.begin("starting the container engine with `systemctl start docker`");
        StartedEngine::by_systemd()?
    } else if let Some(pid) = just_installed.then(engine::running_pid).flatten() {
        report.begin("the package started the container engine");
        StartedEngine::by_package(pid)
    } else {
        let log = workspace.target("provision/dockerd.log");
        report.begin(format_args!("starting the container engine by hand: dockerd, log in {}", log.display()));
        StartedEngine::by_hand(&log, &workspace.target("provision/dockerd.pid"))?
    };
    let mut started = started;
    let answer = interrupt.wait(ENGINE_START, || {
        started.check_alive()?;
        address.answers()
    });
    let problem = match answer {
        Ok(Some(version)) => return Ok((version, Some(started))),
        Ok(None) => anyhow::anyhow!("the engine did not answer at {address} within {} s", ENGINE_START.as_secs()),
        Err(error) => error,
    };
    let log = started.log_hint();
    let _ = started.stop();
    Err(problem.context(format!("start the container engine ({log})")))
}
