//! How a server stands the moments in which much begins at once: a real server, and what sets runs off.
//!
//! Owns the order of the parts. Runs are only queued: no agent takes them.

mod connection;
mod deliveries;
mod making;
mod timers;
mod waves;

use crate::command::Interrupt;
use crate::product::{Product, build_debug, build_release, choose_port};
use crate::report::Report;
use crate::workspace::Workspace;
use connection::Access;
use deliveries::Pace;

/// How much of everything.
#[derive(clap::Args)]
pub(super) struct Amount {
    /// `triggers`: how many tasks have a timer in the same minute.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    tasks: u32,
    /// `triggers`: how many deliveries of forges' webhooks come in a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    deliveries: u32,
    /// `triggers`: for how many seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// `triggers`: how many tasks stand on a base image that is pushed.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(12..))]
    dependents: u32,
}

/// Enough to see that it works.
const QUICK_TASKS: u32 = 100;
const QUICK_DEPENDENTS: u32 = 200;
const QUICK_PACE: Pace = Pace { per_second: 50, seconds: 2 };

/// Measures, and shows the figures as they come.
pub(super) fn run(workspace: &Workspace, report: &Report, amount: &Amount, quick: bool) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    match quick {
        true => drop(build_debug(workspace)?),
        false => build_release(workspace, report, &interrupt)?,
    }
    let profile = if quick { "debug" } else { "release" };
    let product = Product::new(workspace, &interrupt, workspace.target("bench-triggers"))?.of_profile(profile);
    let server =
        report.step("started `cooper serve --no-agent`", || product.serve(choose_port(None)?, &["--no-agent"]))?;
    let access = Access::of(&server)?;
    let tasks = if quick { QUICK_TASKS } else { amount.tasks };
    let dependents = if quick { QUICK_DEPENDENTS } else { amount.dependents };
    let pace = match quick {
        true => QUICK_PACE,
        false => Pace { per_second: amount.deliveries, seconds: amount.seconds },
    };
    timers::measure(report, &interrupt, &access, tasks)?;
    let server = deliveries::measure(report, &interrupt, &product, server, pace)?;
    waves::make(report, &Access::of(&server)?, dependents)?;
    let data = server.data().to_owned();
    server.stop()?;
    waves::seed(workspace, report, profile, &data)?;
    let server = report.step("started the server again", || product.serve(choose_port(None)?, &["--no-agent"]))?;
    waves::measure(report, &interrupt, &Access::of(&server)?, dependents)?;
    server.stop()
}
