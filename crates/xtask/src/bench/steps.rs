//! `cooper run` of trivial steps against a plain loop of `docker run`, and against the engine alone.
//!
//! Owns what is run and what is shown of it. The loop has a network of its own, as a run has one. The engine alone
//! creates, starts, waits for and removes the same containers, in a network that is there already: what the others take
//! longer is theirs. 100 MB of output are [`output`]'s.

mod engine;
mod goals;
mod output;
mod record;
mod shape;

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::times::Times;
use crate::command::Interrupt;
use crate::product::{Product, build_debug, build_release, choose_port, require_local};
use crate::provision::{Need, Provisioned, provision};
use crate::report::Report;
use crate::workspace::{Workspace, find_program};
use engine::{Engine, container};
use goals::Goal;
use record::Record;
use shape::Shape;

/// What every step runs.
const COMMAND: &str = "true";

/// How much of everything.
pub(super) struct Amount {
    rounds: u32,
    steps: usize,
    diamond: usize,
    megabytes: usize,
    /// Whose binary it is, as a folder of the build directory.
    profile: &'static str,
}

impl Amount {
    /// Enough to see that it works.
    pub(super) const QUICK: Self = Self { rounds: 1, steps: 3, diamond: 4, megabytes: 3, profile: "debug" };

    pub(super) fn full(rounds: u32) -> Self {
        Self { rounds, steps: 20, diamond: 10, megabytes: 100, profile: "release" }
    }
}

/// Measures everything and shows it.
pub(super) fn run(workspace: &Workspace, report: &Report, amount: &Amount) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let machine = provision(workspace, report, &interrupt, Need::Quickstart)?;
    let result = require_local(&machine).and_then(|()| {
        match amount.profile {
            "release" => build_release(workspace, report, &interrupt)?,
            _ => drop(build_debug(workspace)?),
        }
        measure(workspace, report, &interrupt, &machine, amount)
    });
    machine.stop_engine(report)?;
    result
}

fn measure(
    workspace: &Workspace,
    report: &Report,
    interrupt: &Interrupt,
    machine: &Provisioned,
    amount: &Amount,
) -> anyhow::Result<()> {
    let folder = workspace.target("bench-steps").join(amount.profile);
    let product = Product::new(workspace, interrupt, folder)?.of_profile(amount.profile);
    let server = report.step("started `cooper serve`", || product.serve(choose_port(None)?, &[]))?;
    product.log_in(&server)?;
    let bench = Bench::new(&product, Engine::at(&machine.engine)?, amount)?;
    let shapes = [Shape::sequence(amount.steps), Shape::parallel(amount.steps), Shape::diamond(amount.diamond)];
    let seen: Vec<Seen> =
        shapes.into_iter().map(|shape| bench.measure(report, shape, amount.rounds)).collect::<anyhow::Result<_>>()?;
    let said = output::measure(&bench, report, &server, amount)?;
    server.stop()?;
    seen.iter().for_each(|seen| seen.show(report, amount.rounds));
    said.show(report, amount);
    // Of the binary for development the figures say nothing.
    if amount.profile == "release" {
        report.line("");
        let goals = seen.iter().filter_map(Seen::goal).chain(said.goals(amount));
        goals.for_each(|goal| report.line(format_args!("  {goal}")));
    }
    Ok(())
}

/// What was seen of one shape.
struct Seen {
    shape: Shape,
    ours: Times,
    theirs: Times,
    alone: Times,
    /// What the runs' records say.
    all: Times,
    first: Times,
    further: Times,
}

/// All sides, ready to run. What it made in the engine goes with it.
struct Bench<'a> {
    product: &'a Product<'a>,
    engine: Engine,
    image: String,
    /// What the engine's own side runs in: a network, a namespace in it, and volumes.
    network: String,
    namespace: String,
    volumes: [String; 2],
}

impl<'a> Bench<'a> {
    fn new(product: &'a Product<'a>, engine: Engine, amount: &Amount) -> anyhow::Result<Self> {
        let own = format!("cooper-bench-{}", std::process::id());
        let bench = Self {
            product,
            engine,
            image: format!("{own}:1"),
            network: format!("{own}-net"),
            namespace: format!("{own}-namespace"),
            volumes: ["workspace", "home"].map(|name| format!("{own}-{name}")),
        };
        bench.import(amount)?;
        bench.docker(&["network", "create", &bench.network])?;
        let sleep = ["run", "--detach", "--name", &bench.namespace, "--network", &bench.network, &bench.image];
        bench.docker(&[&sleep[..], &["sleep", "86400"]].concat())?;
        for volume in &bench.volumes {
            bench.docker(&["volume", "create", volume])?;
        }
        Ok(bench)
    }

    /// Gives the engine an image with a shell and the output to be.
    fn import(&self, amount: &Amount) -> anyhow::Result<()> {
        let folder = self.product.folder().join("image");
        let programs = folder.join("bin");
        std::fs::create_dir_all(&programs).with_context(|| format!("make {}", programs.display()))?;
        let busybox = find_program("busybox").context("the program `busybox` is not on the search path")?;
        std::fs::copy(busybox, programs.join("busybox")).context("copy busybox")?;
        for name in ["true", "sleep", "cat"] {
            std::os::unix::fs::symlink("busybox", programs.join(name)).context("link to busybox")?;
        }
        output::write(&folder.join("data"), amount.megabytes)?;
        let archive = self.product.folder().join("image.tar");
        let mut pack = Command::new("tar");
        self.product.run(pack.arg("-C").arg(&folder).arg("-cf").arg(&archive).args(["bin", "data"]))?;
        let mut import = self.product.docker(&["import", "--change", "ENV PATH=/bin"]);
        self.product.run(import.arg(&archive).arg(&self.image))?;
        std::fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))
    }

    fn docker(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.product.run(&mut self.product.docker(arguments))
    }

    /// A file for one of the sides.
    fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.product.folder().join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    fn measure(&self, report: &Report, shape: Shape, rounds: u32) -> anyhow::Result<Seen> {
        let task = self.file("task.yaml", &shape.task(&format!("{} {COMMAND}", self.image)))?;
        let script = self.file("loop.sh", &shape.script(&format!("{}-loop", self.network), &self.image, COMMAND))?;
        let [ours, theirs, alone] = [(); 3].map(|()| Times::default());
        let [all, first, further] = [(); 3].map(|()| Times::default());
        let mut seen = Seen { shape, ours, theirs, alone, all, first, further };
        report.step(&format!("warmed all sides up: {}", seen.shape), || {
            self.alone(&seen.shape)?;
            self.theirs(&script)?;
            self.ours(&task).map(drop)
        })?;
        report.step(&format!("ran {rounds} rounds: {}", seen.shape), || {
            for round in 0..rounds {
                // Whoever goes first may find things warmer or busier: take turns.
                for turn in 0..3 {
                    match (round + turn) % 3 {
                        0 => {
                            let mut record = None;
                            seen.ours.measure(|| self.ours(&task).map(|read| record = Some(read)))?;
                            let record = record.context("there is no record")?;
                            let (first, further) = record.first_and_further();
                            seen.all.add(record.all());
                            seen.first.add(first);
                            seen.further.add(further);
                        }
                        1 => seen.theirs.measure(|| self.theirs(&script))?,
                        _ => seen.alone.measure(|| self.alone(&seen.shape))?,
                    }
                }
            }
            Ok(())
        })?;
        Ok(seen)
    }

    fn ours(&self, task: &std::path::Path) -> anyhow::Result<Record> {
        let mut run = self.product.cooper(&["run", "--no-logs", "--output", "json", "-f"]);
        let text = self.product.capture(run.arg(task).arg("/dev/null"))?;
        Record::read(&text)
    }

    fn theirs(&self, script: &std::path::Path) -> anyhow::Result<()> {
        let mut shell = Command::new("sh");
        self.product.run(shell.arg(script).env("DOCKER_CONFIG", self.product.docker_config()))
    }

    /// The containers of a shape, by the engine alone: where nothing runs beside, in one namespace, as our steps are.
    fn alone(&self, shape: &Shape) -> anyhow::Result<()> {
        let network = if shape.is_sequence() { format!("container:{}", self.namespace) } else { self.network.clone() };
        let body = self.container(&[COMMAND], &network);
        for stage in shape.stages() {
            if *stage == 1 {
                self.engine.run(&body)?;
                continue;
            }
            let all: Vec<_> = thread::scope(|scope| {
                let begun: Vec<_> = (0..*stage).map(|_| scope.spawn(|| self.engine.run(&body))).collect();
                begun.into_iter().map(|thread| thread.join()).collect()
            });
            for one in all {
                one.unwrap_or_else(|_| bail!("a thread panicked"))?;
            }
        }
        Ok(())
    }

    fn container(&self, command: &[&str], network: &str) -> serde_json::Value {
        let [workspace, home] = self.volumes.clone();
        container(&self.image, command, network, &[(workspace, "/workspace"), (home, "/acb/home")])
    }
}

impl Drop for Bench<'_> {
    /// Removes what the engine was left with. What can't be removed is no reason to lose the figures.
    fn drop(&mut self) {
        let _ = self.docker(&["rm", "--force", &self.namespace]);
        let _ = self.docker(&["network", "rm", &self.network]);
        for volume in &self.volumes {
            let _ = self.docker(&["volume", "rm", volume]);
        }
        let _ = self.docker(&["image", "rm", &self.image]);
    }
}

impl Seen {
    /// What a run takes of the loop's time.
    fn ratio(&self) -> f64 {
        self.ours.median().as_secs_f64() / self.theirs.median().as_secs_f64()
    }

    /// Steps that run beside others have namespaces of their own, as the loop's have: they are not expected to be quicker.
    fn goal(&self) -> Option<Goal> {
        let what = || format!("time of {}, against `docker run`", self.shape);
        self.shape.is_sequence().then(|| Goal::at_most(0.5, what(), self.ratio()))
    }

    fn show(&self, report: &Report, rounds: u32) {
        let each = |time: Duration| time.as_secs_f64() * 1000.0 / self.shape.steps() as f64;
        report.line(format_args!(
            "\n  {:<40} {:>9} {:>9} {:>9} {:>9}   ({rounds} rounds, ms)",
            self.shape.to_string(),
            "median",
            "least",
            "most",
            "a step"
        ));
        let sides = [("cooper run", &self.ours), ("docker run, in a network of the run", &self.theirs)];
        for (name, times) in sides.into_iter().chain([("the engine alone", &self.alone)]) {
            report.line(format_args!("  {} {:>9.1}", times.row_of(name, 40), each(times.median())));
        }
        let ratio = self.ratio();
        let added = each(self.ours.median()) - each(self.alone.median());
        report.line(format_args!(
            "  ratio to docker run {ratio:.2}; a step takes {added:.1} ms more than the engine's own"
        ));
        let ms = |times: &Times| times.median().as_secs_f64() * 1000.0;
        report.line(format_args!(
            "  of a run's time: all steps {:.1}, before and after them {:.1}; the first step {:.1}, each further one {:.1}",
            ms(&self.all),
            ms(&self.ours) - ms(&self.all),
            ms(&self.first),
            ms(&self.further)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_round_of_it_works() {
        let workspace = Workspace::find().unwrap();
        run(&workspace, &Report::new(), &Amount::QUICK).unwrap();
    }
}
