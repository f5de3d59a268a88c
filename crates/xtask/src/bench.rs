//! `cargo xtask bench`: measurements against what people use today, on this machine, in the release profile.
//!
//! Owns the list of measurements. The two sides of a comparison take turns, so that a noisy machine troubles both.

mod dispatch;
mod memory;
mod quick_build;
mod steps;
mod times;
mod triggers;

use anyhow::bail;

use crate::report::Report;
use crate::workspace::Workspace;

/// The measurements there are.
const BENCHES: &[(&str, &str)] = &[
    (
        "quick-build",
        "`cooper build` against `docker build` and `docker push`: unchanged, cold, and with 20 MB of context",
    ),
    (
        "steps",
        "`cooper run` against a loop of `docker run` and the engine alone: twenty steps, twenty at once, a diamond, 100 MB of output",
    ),
    ("dispatch", "from a run's request to its step at an agent, with many agents and a long queue"),
    ("triggers", "many timers in one minute and webhooks of forges at a pace: until their runs are queued, each once"),
];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which measurement; without one, they are listed.
    name: Option<String>,
    /// `quick-build` and `steps`: how often each side runs.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// `steps`, `triggers`: a small round of it with the binary for development, whose figures say nothing.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    load: dispatch::Load,
    #[command(flatten)]
    triggers: triggers::Amount,
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
        Some("dispatch") => dispatch::run(workspace, report, &options.load),
        Some("triggers") => triggers::run(workspace, report, &options.triggers, options.quick),
        Some("quick-build") => quick_build::run(workspace, report, options.rounds),
        Some("steps") if options.quick => steps::run(workspace, report, &steps::Amount::QUICK),
        Some("steps") => steps::run(workspace, report, &steps::Amount::full(options.rounds)),
        Some(other) => bail!("there is no measurement `{other}`: `cargo xtask bench` lists them"),
    }
}
