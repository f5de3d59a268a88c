//! `cooper build` against `docker build` and `docker push`: both build the same folder and push to the same registry.
//!
//! Owns the folders that are built and what is measured of them: the time of the whole command as a user waits for it,
//! the bytes that cross the loopback network, and the server's memory. The docker client talks to its engine over a
//! socket file: what it sends there is on no network, and BuildKit's own count of it is shown instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::memory::{kilobytes, memory};
use super::times::Times;
use crate::command::Interrupt;
use crate::product::{Product, Server, build_release, choose_port, require_local};
use crate::provision::{Need, provision};
use crate::report::Report;
use crate::workspace::Workspace;

/// The large folder: this many files of this many bytes that no compression makes smaller.
const LARGE_FILES: usize = 200;
const LARGE_FILE_BYTES: usize = 100 * 1024;

/// What is built in a round.
#[derive(Clone, Copy)]
enum Scenario {
    /// Two small files, all layers known.
    Unchanged,
    /// Two small files, no layer taken from the cache.
    Cold,
    /// 20 MB, all layers known.
    Large,
    /// 20 MB, of which one file is new each time.
    LargeEdited,
}

impl Scenario {
    const ALL: [Self; 4] = [Self::Unchanged, Self::Cold, Self::Large, Self::LargeEdited];

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Cold => &["--no-cache"],
            Self::Unchanged | Self::Large | Self::LargeEdited => &[],
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "tiny folder, nothing changed",
            Self::Cold => "tiny folder, no cache",
            Self::Large => "20 MB, nothing changed",
            Self::LargeEdited => "20 MB, one file of 100 KiB changed",
        })
    }
}

/// What was seen of one scenario.
struct Seen {
    scenario: Scenario,
    ours: Side,
    theirs: Side,
}

/// What was seen of one side.
#[derive(Default)]
struct Side {
    times: Times,
    /// Bytes over the loopback network in one round, both ways counted once.
    network: u64,
    /// What BuildKit says it was sent of the folder in that round.
    context: String,
}

/// Measures all scenarios and shows them.
pub(super) fn run(workspace: &Workspace, report: &Report, rounds: u32) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let machine = provision(workspace, report, &interrupt, Need::Quickstart)?;
    let result = require_local(&machine).and_then(|()| {
        build_release(workspace, report, &interrupt)?;
        let product = Product::new(workspace, &interrupt, workspace.target("bench"))?;
        let server = report.step("started `cooper serve`", || product.serve(choose_port(None)?, &[]))?;
        let bench = Bench::new(&product, &server)?;
        let idle = memory(server.pid())?.now;
        let seen = Scenario::ALL
            .iter()
            .map(|scenario| bench.measure(report, *scenario, rounds))
            .collect::<Result<Vec<_>, _>>();
        let peak = memory(server.pid())?.peak;
        bench.clean_up();
        server.stop()?;
        Ok((seen?, idle, peak))
    });
    machine.stop_engine(report)?;
    let (seen, idle, peak) = result?;
    for Seen { scenario, ours, theirs } in &seen {
        report.line(format_args!(
            "\n  {:<28} {:>9} {:>9} {:>9}   ({rounds} rounds, ms)",
            scenario.to_string(),
            "median",
            "least",
            "most"
        ));
        for (name, side) in [("cooper build", ours), ("docker build + docker push", theirs)] {
            report.line(format_args!(
                "{}   network {}, context to the engine {}",
                side.times.row(name),
                kilobytes(side.network),
                side.context
            ));
        }
        let ratio = ours.times.median().as_secs_f64() / theirs.times.median().as_secs_f64();
        report.line(format_args!("  ratio of the medians: {ratio:.2}"));
    }
    report.line(format_args!(
        "\n  memory of `cooper serve` with its agent: {} when idle, {} at the peak",
        kilobytes(idle),
        kilobytes(peak)
    ));
    Ok(())
}

/// Both sides, ready to build.
struct Bench<'a> {
    product: &'a Product<'a>,
    /// A client of the engine that builds with BuildKit.
    client: String,
    image: String,
    tiny: PathBuf,
    large: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(product: &'a Product<'a>, server: &Server) -> anyhow::Result<Self> {
        product.log_in(server)?;
        let base = product.build(&["-t", "base/busybox:1"], &product.busybox_context()?)?;
        product.log_in_docker(server, &base.registry)?;
        let tiny = product.folder().join("tiny");
        let dockerfile = format!(
            "FROM {}/base/busybox:1\nCOPY data /data\nRUN cat /data > /copy\nCMD [\"cat\", \"/copy\"]\n",
            base.registry
        );
        write(&tiny.join("Dockerfile"), dockerfile.as_bytes())?;
        write(&tiny.join("data"), b"unchanged\n")?;
        let large = product.folder().join("large");
        write(
            &large.join("Dockerfile"),
            format!("FROM {}/base/busybox:1\nCOPY files /files\n", base.registry).as_bytes(),
        )?;
        for number in 0..LARGE_FILES {
            write(&large.join(format!("files/{number}")), &noise(number as u64))?;
        }
        let client = buildkit_client(product)?;
        Ok(Self { product, client, image: format!("{}/bench-docker:latest", base.registry), tiny, large })
    }

    fn measure(&self, report: &Report, scenario: Scenario, rounds: u32) -> anyhow::Result<Seen> {
        let mut seen = Seen { scenario, ours: Side::default(), theirs: Side::default() };
        // No edit is the same as one of another scenario.
        let mut edit = (scenario as u64 + 1) << 32;
        report.step(&format!("warmed both sides up: {scenario}"), || {
            self.edit(scenario, &mut edit)?;
            self.docker(scenario)?;
            self.cooper(scenario)
        })?;
        report.step(&format!("ran {rounds} rounds: {scenario}"), || {
            for round in 0..rounds {
                // Whoever goes first may find the caches warmer: take turns. Each side meets an edit of its own.
                for turn in 0..2 {
                    self.edit(scenario, &mut edit)?;
                    if (round + turn) % 2 == 0 {
                        seen.ours.times.measure(|| self.cooper(scenario))?;
                    } else {
                        seen.theirs.times.measure(|| self.docker(scenario))?;
                    }
                }
            }
            Ok(())
        })?;
        report.step(&format!("counted bytes: {scenario}"), || {
            self.edit(scenario, &mut edit)?;
            seen.ours.count(|| self.cooper_log(scenario))?;
            self.edit(scenario, &mut edit)?;
            seen.theirs.count(|| self.docker_log(scenario))
        })?;
        Ok(seen)
    }

    fn folder(&self, scenario: Scenario) -> &Path {
        match scenario {
            Scenario::Unchanged | Scenario::Cold => &self.tiny,
            Scenario::Large | Scenario::LargeEdited => &self.large,
        }
    }

    /// Changes what the scenario says is new each time.
    fn edit(&self, scenario: Scenario, edit: &mut u64) -> anyhow::Result<()> {
        if let Scenario::LargeEdited = scenario {
            *edit += 1;
            write(&self.large.join("files/0"), &noise(*edit))?;
        }
        Ok(())
    }

    fn cooper(&self, scenario: Scenario) -> anyhow::Result<()> {
        let mut build = self.product.cooper(&["build", "-t", "bench-cooper:latest"]);
        self.product.run(build.args(scenario.flags()).arg(self.folder(scenario)))
    }

    fn docker(&self, scenario: Scenario) -> anyhow::Result<()> {
        let mut build = self.docker_build(scenario);
        self.product.run(build.arg("--quiet").arg(self.folder(scenario)))?;
        self.docker_push()
    }

    fn docker_build(&self, scenario: Scenario) -> Command {
        let mut build = configured(&self.client, self.product);
        build.args(["build", "--pull", "-t", &self.image]).args(scenario.flags());
        build
    }

    fn docker_push(&self) -> anyhow::Result<()> {
        self.product.run(configured(&self.client, self.product).args(["push", "--quiet", &self.image]))
    }

    /// A build with what it says.
    fn cooper_log(&self, scenario: Scenario) -> anyhow::Result<String> {
        let mut build = self.product.cooper(&["build", "-t", "bench-cooper:latest"]);
        self.product.capture(build.args(scenario.flags()).arg(self.folder(scenario)))
    }

    /// A build with what it says, and its push.
    fn docker_log(&self, scenario: Scenario) -> anyhow::Result<String> {
        let script = self.product.folder().join("docker-build.sh");
        // BuildKit's client writes its progress on standard error.
        write(&script, b"exec \"$@\" 2>&1\n")?;
        let build = self.docker_build(scenario);
        let mut shell = Command::new("sh");
        shell.arg(&script).arg(build.get_program()).args(build.get_args()).env("DOCKER_BUILDKIT", "1");
        let log = self.product.capture(shell.args(["--progress", "plain"]).arg(self.folder(scenario)))?;
        self.docker_push()?;
        Ok(log)
    }

    /// Removes what the engine was left with. What can't be removed is no reason to lose the figures.
    fn clean_up(&self) {
        let _ = self.product.run(&mut self.product.docker(&["image", "rm", &self.image]));
    }
}

impl Side {
    /// Counts the bytes of a round whose log this makes.
    fn count(&mut self, round: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        let before = loopback_bytes()?;
        let log = round()?;
        self.network = loopback_bytes()?.saturating_sub(before);
        self.context = context_sent(&log).unwrap_or("nothing said").to_owned();
        Ok(())
    }
}

/// What BuildKit says of the folder's transfer last: the first is that of the ignore rules.
fn context_sent(log: &str) -> Option<&str> {
    let mut said = log.lines().filter_map(|line| line.split_once("transferring context: "));
    said.next_back().and_then(|(_, size)| size.split_whitespace().next())
}

/// Bytes that the loopback interface has sent so far.
fn loopback_bytes() -> anyhow::Result<u64> {
    let table = std::fs::read_to_string("/proc/net/dev").context("read /proc/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next()).context("/proc/net/dev has no line `lo:`")?;
    bytes.parse().context("read the bytes of `lo` in /proc/net/dev")
}

/// Bytes that don't compress, the same for the same number.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(LARGE_FILE_BYTES);
    while bytes.len() < LARGE_FILE_BYTES {
        // xorshift64*: good enough that no compressor finds anything.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// The first of the engine's clients that builds with BuildKit: newer ones need a plugin for it, which may be missing.
fn buildkit_client(product: &Product<'_>) -> anyhow::Result<String> {
    let folder = product.folder().join("probe");
    write(&folder.join("Dockerfile"), b"FROM scratch\nLABEL probe=1\n")?;
    for client in ["docker", "/usr/bin/docker"] {
        let mut probe = configured(client, product);
        if product.run(probe.args(["build", "--quiet", "--no-cache"]).arg(&folder)).is_ok() {
            return Ok(client.to_owned());
        }
    }
    bail!("no `docker` here can build with BuildKit: install docker-buildx, or Debian 12's docker.io")
}

fn configured(client: &str, product: &Product<'_>) -> Command {
    let mut command = Command::new(client);
    command.env("DOCKER_BUILDKIT", "1").arg("--config").arg(product.docker_config());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_transfer_is_the_last_one() {
        let log = "#2 transferring context: 2B done\n#5 transferring context: 1.05MB\n#5 transferring context: 20.97MB 0.2s done\n";
        assert_eq!(context_sent(log), Some("20.97MB"));
        assert_eq!(context_sent("nothing"), None);
    }

    #[test]
    fn edits_differ() {
        assert_eq!(noise(1).len(), LARGE_FILE_BYTES);
        assert_eq!(noise(7), noise(7));
        assert_ne!(noise(7), noise(8));
    }
}
