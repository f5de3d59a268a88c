//! A second container engine beside the machine's: a newer one, with containerd's image store, for the tests that hold the
//! adapter against engines of both kinds.
//!
//! It is Debian 13's, unpacked and not installed, in a network and a mount namespace of its own, so that the machine's engine
//! and its network stay as they are. It ends with this program, whatever becomes of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::engine::{EngineAddress, StartedEngine};
use super::{ENGINE_START, packages};
use crate::command::{Interrupt, Log};
use crate::report::Report;
use crate::workspace::{Workspace, environment, find_program};

/// Debian's signatures, by which the packages are known.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The release, newer than the one that Debian 12 has.
const SUITE: &str = "trixie";
/// The packages that the engine consists of; its `runc` is the machine's, for that of this release needs a newer C library.
const PACKAGES: [&str; 2] = ["docker.io", "containerd"];
/// An engine takes the `containerd` whose socket it finds: it is to find none, and to start its own.
const OWN_RUN: &str =
    "ip link set lo up && mkdir -p /run/containerd && mount -t tmpfs none /run/containerd && exec dockerd \"$@\"";
/// New installations of Docker Engine 29 and later have this store anyway.
const SETTINGS: &str = r#"{"features":{"containerd-snapshotter":true}}"#;

/// The engine, for as long as this lives.
pub(crate) struct SecondEngine {
    /// Where it answers, in its namespace and outside.
    pub(crate) address: EngineAddress,
    /// Its version, as it says.
    pub(crate) version: String,
    process: StartedEngine,
    pid: u32,
    folders: Folders,
}

/// What it leaves behind, to be removed.
struct Folders {
    /// Images and containers.
    data: PathBuf,
    /// Sockets. Short, as paths of sockets have to be.
    run: PathBuf,
}

impl SecondEngine {
    /// Fetches what is not there yet, and starts it.
    pub(crate) fn start(workspace: &Workspace, report: &Report, interrupt: &Interrupt) -> anyhow::Result<Self> {
        if !packages::is_root() {
            bail!("a second container engine takes root: run `sudo cargo xtask test`");
        }
        let programs = programs(workspace, report, interrupt)?;
        let folders = Folders {
            data: workspace.target("provision/second-engine"),
            run: PathBuf::from(format!("/run/cooper-test-engine-{}", std::process::id())),
        };
        folders.remove()?;
        fs::create_dir_all(&folders.run).with_context(|| format!("make {}", folders.run.display()))?;
        let log = workspace.target("provision/second-engine.log");
        report.begin(format_args!("starting a second container engine beside it, log in {}", log.display()));
        let process = StartedEngine::by_command(&mut folders.command(&programs)?, &log, &folders.run.join("pid"))?;
        let pid = process.pid().context("the second engine is a child")?;
        let address = EngineAddress::Unix(folders.socket());
        let mut engine = Self { address, version: String::new(), process, pid, folders };
        let answer = interrupt.wait(ENGINE_START, || {
            engine.process.check_alive()?;
            engine.address.answers()
        });
        let problem = match answer {
            Ok(Some(version)) => {
                engine.version = version;
                return Ok(engine);
            }
            Ok(None) => anyhow::anyhow!("it did not answer within {} s", ENGINE_START.as_secs()),
            Err(error) => error,
        };
        let hint = engine.process.log_hint();
        let _ = engine.stop();
        Err(problem.context(format!("start the second container engine ({hint})")))
    }

    /// A program that runs where the engine's loopback addresses are its own, and uses it.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).arg(program);
        command.env("DOCKER_HOST", self.address.to_string());
        command
    }

    /// Stops it, and removes all that it had.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        let stopped = self.process.stop();
        stopped.and(self.folders.remove())
    }
}

impl Folders {
    fn socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }

    fn remove(&self) -> anyhow::Result<()> {
        for folder in [&self.data, &self.run] {
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// The engine, in namespaces of its own: what it mounts is gone with it, too.
    fn command(&self, programs: &Path) -> anyhow::Result<Command> {
        let settings = self.run.join("daemon.json");
        fs::write(&settings, SETTINGS).with_context(|| format!("write {}", settings.display()))?;
        let mut path = vec![programs.join("usr/bin"), programs.join("usr/sbin")];
        path.extend(std::env::split_paths(&environment("PATH").unwrap_or_default()));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "unshare", "--net", "--mount", "sh", "-c"]);
        command.args([OWN_RUN, "sh", "--config-file"]).arg(settings);
        command.arg("--data-root").arg(&self.data).arg("--exec-root").arg(self.run.join("exec"));
        command.arg("--pidfile").arg(self.run.join("dockerd.pid"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.env("PATH", std::env::join_paths(path).context("a folder's name has a colon")?);
        Ok(command)
    }
}

/// The folder with the engine's programs.
fn programs(workspace: &Workspace, report: &Report, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let folder = workspace.target("provision").join(SUITE);
    let programs = folder.join("programs");
    if programs.exists() {
        return Ok(programs);
    }
    if find_program("apt-get").is_none() || find_program("dpkg").is_none() {
        bail!(
            "the second container engine comes from Debian's packages, and this machine has no `apt-get` and `dpkg`: run \
             the tests of single packages, `cargo xtask test -p NAME`, or these on Debian or Ubuntu"
        );
    }
    let log = Log::go_on(workspace.target("provision/install.log"))?;
    let mut missing = packages::Missing::default();
    if !Path::new(KEYRING).exists() {
        missing.add("debian-archive-keyring", "what Debian's packages are known by");
    }
    packages::install(&missing, report, &log, interrupt)?;
    report.step("fetched a newer container engine with apt-get", || {
        // Of a fetch that was interrupted, nothing is kept.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        let downloads = folder.join("downloads");
        for made in ["lists/partial", "cache/archives/partial"].map(|name| folder.join(name)).iter().chain([&downloads])
        {
            fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
        }
        let configuration = configuration(&folder)?;
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.args(arguments).env("APT_CONFIG", &configuration).current_dir(&downloads);
            apt
        };
        log.run(&mut apt(&["update"]), interrupt)?;
        log.run(apt(&["download"]).args(PACKAGES), interrupt)?;
        let unpacked = folder.join("unpacked");
        for package in fs::read_dir(&downloads).context("list the packages")? {
            let package = package.context("list the packages")?.path();
            log.run(Command::new("dpkg").arg("--extract").arg(package).arg(&unpacked), interrupt)?;
        }
        fs::rename(&unpacked, &programs).context("keep the engine's programs")?;
        fs::remove_dir_all(&downloads).context("remove the packages")
    })?;
    Ok(programs)
}

/// What has apt look at the one release, apart from what the machine has: it changes nothing of the machine's.
fn configuration(folder: &Path) -> anyhow::Result<PathBuf> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let sources = write(
        "debian.sources",
        format!(
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {SUITE}\nComponents: main\nSigned-By: {KEYRING}\n"
        ),
    )?;
    let status = write("status", String::new())?;
    let (folder, sources, status) = (folder.display(), sources.display(), status.display());
    write(
        "apt.conf",
        format!(
            "Dir::State \"{folder}\";\nDir::State::lists \"{folder}/lists\";\nDir::State::status \"{status}\";\n\
             Dir::Cache \"{folder}/cache\";\nDir::Etc::SourceList \"{sources}\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"
        ),
    )
}
