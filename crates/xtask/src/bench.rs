//! `cargo xtask bench`: timings against what people use today.

use crate::report::Report;
use crate::workspace::Workspace;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which measurement; without one, they are listed.
    name: Option<String>,
}

/// Runs one measurement, or lists them.
pub(crate) fn run(_workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    report.line(format_args!("{:?}", options.name));
    Ok(())
}
