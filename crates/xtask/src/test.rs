//! `cargo xtask test`: every test of the workspace, on a machine that has what they need.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, bail};

use crate::command::Interrupt;
use crate::product::build_debug;
use crate::provision::{Need, SecondEngine, provision};
use crate::report::Report;
use crate::workspace::Workspace;

/// The package that speaks to engines.
const ENGINES: &str = "cooper-docker";
/// How many tests of one program run at a time at most: all wait for one container engine and one disk, and more of them
/// would only wait longer.
const AT_ONCE: usize = 4;

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this package's tests; may be given several times.
    #[arg(long, short)]
    package: Vec<String>,
    /// Passed on to `cargo test`: a name to filter by, or `-- --nocapture` and the like.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Makes the machine ready, runs the tests, and leaves the machine as it was.
pub(crate) fn run(workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    let machine = provision(workspace, report, &interrupt, Need::Tests)?;
    report.line(format_args!("  container engine {} at {}", machine.version, machine.engine));
    let result = cargo_test(workspace, report, &interrupt, options);
    let newer = if options.is_about_engines() && interrupt.check().is_ok() {
        on_second_engine(workspace, report, &interrupt, options)
    } else {
        Ok(())
    };
    let stopped = machine.stop_engine(report);
    if let (Err(_), Err(error)) = (&result, &newer) {
        report.failure(error);
    }
    result.and(newer).and(stopped)
}

impl Options {
    /// Whether all tests of the adapter to engines are among those that are asked for.
    fn is_about_engines(&self) -> bool {
        self.arguments.is_empty() && (self.package.is_empty() || self.package.iter().any(|name| name == ENGINES))
    }

    /// Cargo's words for the packages.
    fn selection(&self) -> Vec<&str> {
        if self.package.is_empty() {
            return vec!["--workspace"];
        }
        self.package.iter().flat_map(|package| ["--package", package.as_str()]).collect()
    }
}

/// The adapter's conformance suite once more, on a newer engine that keeps its images in containerd's store.
fn on_second_engine(
    workspace: &Workspace,
    report: &Report,
    interrupt: &Interrupt,
    options: &Options,
) -> anyhow::Result<()> {
    let program = conformance(workspace, options)?;
    interrupt.check()?;
    let engine = SecondEngine::start(workspace, report, interrupt)?;
    report.line(format_args!("  second container engine {} at {}", engine.version, engine.address));
    let folder = workspace.path("crates").join(ENGINES);
    let mut command = engine.command(&program);
    command.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder);
    // What runs on the scripted engine and on pretenders has run.
    for other in ["on_script", "pretenders"] {
        command.args(["--skip", other]);
    }
    let result = run_tests(&mut command, report, interrupt).and_then(|totals| match totals.passed {
        0 => bail!("no test ran"),
        _ => Ok(()),
    });
    let stopped = report.step("stopped the second container engine", || engine.stop());
    result.context("on a newer engine with containerd's image store").and(stopped)
}

/// The suite's program, as it was built for the tests before.
fn conformance(workspace: &Workspace, options: &Options) -> anyhow::Result<PathBuf> {
    let mut command =
        workspace.cargo(["test", "--locked", "--no-run", "--message-format=json", "--test", "conformance"]);
    let output = command.args(options.selection()).stderr(Stdio::inherit()).output().context("start `cargo test`")?;
    if !output.status.success() {
        bail!("the conformance suite can't be built: see above");
    }
    let found = String::from_utf8_lossy(&output.stdout).lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message.get("target")?.get("name")? == "conformance";
        is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    });
    found.context("cargo says nothing of the conformance suite's program")
}

fn cargo_test(workspace: &Workspace, report: &Report, interrupt: &Interrupt, options: &Options) -> anyhow::Result<()> {
    build_debug(workspace)?;

    let mut command = workspace.cargo(["test", "--locked", "--no-fail-fast"]);
    command.args(options.selection()).args(&options.arguments);
    let totals = run_tests(&mut command, report, interrupt)?;
    if totals.passed == 0 && options.arguments.is_empty() {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs tests, and fails if one of them does.
fn run_tests(command: &mut Command, report: &Report, interrupt: &Interrupt) -> anyhow::Result<Totals> {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(AT_ONCE);
    command.env("RUST_TEST_THREADS", at_once.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the tests")?;
    let output = child.stdout.take().context("the tests have no output")?;
    let (status, totals) = thread::scope(|scope| {
        let totals = scope.spawn(|| count(output, report));
        let status = interrupt.wait_for(&mut child);
        (status, totals.join().unwrap_or_default())
    });
    let status = status?;
    report.line("");
    report.line(&totals);
    if !status.success() {
        bail!("tests failed: look for `failures:` above");
    }
    if totals.ignored > 0 {
        bail!("{} tests were ignored: nothing is skipped silently here", totals.ignored);
    }
    Ok(totals)
}

/// The sums over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Totals {
    /// Adds a line `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let &[number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Passes the output on while counting.
fn count(output: ChildStdout, report: &Report) -> Totals {
    let mut totals = Totals::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        totals.add(&line);
        report.line(&line);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut totals = Totals::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.30s",
            "test the_result ... ok",
            "test result: nonsense 5",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { passed: 5, failed: 1, ignored: 1 });
        assert_eq!(totals.to_string(), "5 passed, 1 failed");
    }
}
