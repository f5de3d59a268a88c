//! `cargo xtask`: the commands of a developer's day.
//!
//! Owns how the project is checked, tested, measured and shown. It knows the product only as the binary `cooper`
//! and depends on none of its crates, so that it compiles in seconds on a fresh clone.

mod bench;
mod codegen;
mod command;
mod graph;
mod layers;
mod lint;
mod policy;
mod product;
mod provision;
mod quickstart;
mod report;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::workspace::Workspace;

/// Checks, tests, measures and shows Cooperage.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks format, lints, documentation, generated files, layers and the dependency policy.
    Lint,
    /// Installs what tests need, then runs every test, those on a real container engine included.
    Test(test::Options),
    /// From nothing to a built, pulled and running image, on this machine.
    Quickstart(quickstart::Options),
    /// Times Cooperage against what people use today.
    Bench(bench::Options),
    /// Plays random faults for as long as asked, on the real system and in the simulation.
    Soak(soak::Options),
    /// Writes the generated files under `schemas/`.
    Codegen,
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    let report = Report::new();
    match run(task, &report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, report: &Report) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Lint => lint::run(&workspace, report),
        Task::Test(options) => test::run(&workspace, report, &options),
        Task::Quickstart(options) => quickstart::run(&workspace, report, &options),
        Task::Bench(options) => bench::run(&workspace, report, &options),
        Task::Soak(options) => soak::run(&workspace, report, &options),
        Task::Codegen => codegen::write(&workspace, report),
    }
}
