//! `cargo xtask soak`: random mixtures of faults on the real system, and thousands of seeds of the simulation, for as
//! long as asked. A short form of both is among the tests.

use crate::command::{Interrupt, run_visibly};
use crate::provision::{Need, provision};
use crate::report::Report;
use crate::workspace::Workspace;

/// What to play.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the real system is put to the test.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The seed of the choices, as an earlier soak printed it [default: a new one]
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds of the simulation are played first.
    #[arg(long, default_value_t = 2000)]
    simulation: u64,
}

/// Plays the simulation, then the real system.
pub(crate) fn run(workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    if options.simulation > 0 {
        let filter = "promises_are_kept";
        let mut simulation =
            workspace.cargo(["test", "--locked", "--package", "cooper-engine", "--test", "simulation"]);
        simulation.args([filter, "--", "--nocapture"]).env("COOPER_SIM_SEEDS", options.simulation.to_string());
        run_visibly(&mut simulation)?;
    }
    if options.minutes > 0 {
        let machine = provision(workspace, report, &interrupt, Need::Tests)?;
        let mut soak = workspace.cargo(["test", "--locked", "--package", "cooper-e2e", "--test", "faults"]);
        soak.args(["soak::random_mixtures", "--", "--exact", "--nocapture"]);
        soak.env("COOPER_SOAK_SECONDS", (options.minutes * 60).to_string());
        if let Some(seed) = options.seed {
            soak.env("COOPER_FAULTS_SEED", seed.to_string());
        }
        let result = run_visibly(&mut soak);
        let stopped = machine.stop_engine(report);
        result.and(stopped)?;
    }
    Ok(())
}
