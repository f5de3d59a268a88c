//! `cargo xtask bench`: timings against what people use today, on this machine, in the release profile.
//!
//! Owns the measurements and how they are shown. The two sides of a comparison take turns, so that a noisy machine
//! troubles both.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::command::Interrupt;
use crate::product::{Product, Server, build_release, choose_port, require_local};
use crate::provision::{Need, provision};
use crate::report::Report;
use crate::workspace::Workspace;

/// The measurements there are.
const BENCHES: &[(&str, &str)] =
    &[("quick-build", "`cooper build` against `docker build` and `docker push`, nothing changed")];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which measurement; without one, they are listed.
    name: Option<String>,
    /// How often each side runs.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Runs one measurement, or lists them.
pub(crate) fn run(workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    match options.name.as_deref() {
        None => {
            for (name, what) in BENCHES {
                report.line(format_args!("{name:<14} {what}"));
            }
            Ok(())
        }
        Some("quick-build") => quick_build(workspace, report, options.rounds),
        Some(other) => bail!("there is no measurement `{other}`: `cargo xtask bench` lists them"),
    }
}

fn quick_build(workspace: &Workspace, report: &Report, rounds: u32) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let machine = provision(workspace, report, &interrupt, Need::Quickstart)?;
    let result = require_local(&machine).and_then(|()| {
        build_release(workspace, report, &interrupt)?;
        let product = Product::new(workspace, &interrupt, workspace.target("bench"))?;
        let server = report.step("started `cooper serve`", || product.serve(choose_port(None)?))?;
        let times = compare(report, &product, &server, rounds)?;
        server.stop()?;
        Ok(times)
    });
    machine.stop_engine(report)?;
    let (cooper, docker) = result?;
    report.line(format_args!("\n  {:<28} {:>9} {:>9} {:>9}   ({rounds} rounds, ms)", "", "median", "least", "most"));
    report.line(row("cooper build", &cooper));
    report.line(row("docker build + docker push", &docker));
    let ratio = cooper.median().as_secs_f64() / docker.median().as_secs_f64();
    report.line(format_args!("  ratio of the medians: {ratio:.2}"));
    Ok(())
}

/// Both sides build the same folder, whose layers are all known, and push the result to the same registry.
fn compare(report: &Report, product: &Product<'_>, server: &Server, rounds: u32) -> anyhow::Result<(Times, Times)> {
    product.log_in(server)?;
    let base = product.build(&["-t", "base/busybox:1"], &product.busybox_context()?)?;
    product.log_in_docker(server, &base.registry)?;
    let context = product.folder().join("context");
    write_context(&context, &base.registry)?;
    let client = buildkit_client(product)?;
    let image = format!("{}/bench-docker:latest", base.registry);

    let docker = |product: &Product<'_>| {
        let mut build = configured(&client, product);
        product.run(build.args(["build", "--quiet", "--pull", "-t", &image]).arg(&context))?;
        product.run(configured(&client, product).args(["push", "--quiet", &image]))
    };
    let cooper = |product: &Product<'_>| {
        let mut build = product.cooper(&["build", "-t", "bench-cooper:latest"]);
        product.run(build.arg(&context))
    };
    report.step("warmed both sides up", || {
        docker(product)?;
        cooper(product)
    })?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    report.step(&format!("ran {rounds} rounds"), || {
        for round in 0..rounds {
            // Whoever goes first may find the caches warmer: take turns.
            if round % 2 == 0 {
                ours.measure(|| cooper(product))?;
                theirs.measure(|| docker(product))?;
            } else {
                theirs.measure(|| docker(product))?;
                ours.measure(|| cooper(product))?;
            }
        }
        Ok(())
    })?;
    let _ = product.run(&mut product.docker(&["image", "rm", &image]));
    Ok((ours, theirs))
}

fn write_context(folder: &Path, registry: &str) -> anyhow::Result<()> {
    let dockerfile =
        format!("FROM {registry}/base/busybox:1\nCOPY data /data\nRUN cat /data > /copy\nCMD [\"cat\", \"/copy\"]\n");
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, text) in [("Dockerfile", dockerfile.as_str()), ("data", "unchanged\n")] {
        std::fs::write(folder.join(name), text).with_context(|| format!("write {name} in {}", folder.display()))?;
    }
    Ok(())
}

/// The first of the engine's clients that builds with BuildKit: newer ones need a plugin for it, which may be missing.
fn buildkit_client(product: &Product<'_>) -> anyhow::Result<String> {
    let folder = product.folder().join("probe");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    std::fs::write(folder.join("Dockerfile"), "FROM scratch\nLABEL probe=1\n").context("write a Dockerfile")?;
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

/// The times of one side.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn measure(&mut self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let start = Instant::now();
        work()?;
        self.0.push(start.elapsed());
        self.0.sort();
        Ok(())
    }

    /// The middle time, the later one of two.
    fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

fn row(name: &str, times: &Times) -> String {
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let (median, least, most) = (times.median(), times.0.first(), times.0.last());
    format!("  {name:<28} {:>9.1} {:>9.1} {:>9.1}", ms(Some(&median)), ms(least), ms(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let times = Times([1, 2, 3, 40, 500].map(Duration::from_millis).to_vec());
        assert_eq!(times.median(), Duration::from_millis(3));
        assert_eq!(Times::default().median(), Duration::ZERO);
        assert!(row("x", &times).contains("500.0"));
    }
}
