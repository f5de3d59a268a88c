//! How fast a server hands work to agents: a real server in the release profile, and scripted agents over real streams.
//!
//! Owns the server and the order of events; the agents, the requests and the figures are those of the example `dispatch`
//! of `cooper-agent`, which speaks the agents' protocol.

use anyhow::Context;

use crate::command::{Interrupt, run_visibly};
use crate::product::{Product, build_release, choose_port};
use crate::report::Report;
use crate::workspace::Workspace;

/// How long the server's use is watched, in seconds.
const WATCHED: u32 = 10;

/// How much of everything.
#[derive(clap::Args)]
pub(super) struct Load {
    /// `dispatch`: how many agents are connected.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    agents: u32,
    /// `dispatch`: how many runs wait before the first agent comes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(16..))]
    queued: u32,
    /// `dispatch`: how many runs are timed one by one.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// `dispatch`: how many of them are asked for in a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: u32,
}

/// Measures, and shows the figures as they come.
pub(super) fn run(workspace: &Workspace, report: &Report, load: &Load) -> anyhow::Result<()> {
    let interrupt = Interrupt::install()?;
    build_release(workspace, report, &interrupt)?;
    let mut build = workspace.cargo(["build", "--release", "--locked", "--quiet", "--package", "cooper-agent"]);
    report.step("built the scripted agents", || run_visibly(build.args(["--example", "dispatch"])))?;

    let product = Product::new(workspace, &interrupt, workspace.target("bench"))?;
    let server =
        report.step("started `cooper serve --no-agent`", || product.serve(choose_port(None)?, &["--no-agent"]))?;
    product.log_in(&server)?;
    let agent = product.capture(&mut product.cooper(&["token", "create", "scripted", "--scope", "agent"]))?;
    let file = server.token_file();
    let admin = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;

    let mut agents = std::process::Command::new(workspace.target("release/examples/dispatch"));
    agents.args([server.address(), admin.trim(), agent.trim(), &server.pid().to_string()]);
    agents.args([load.agents, load.queued, load.runs, load.per_second, WATCHED].map(|number| number.to_string()));
    let ended = run_visibly(&mut agents).context("measure dispatch");
    server.stop()?;
    ended
}
