//! `cargo xtask quickstart`: from nothing to a built, pulled and running image, on this machine, without any public
//! registry.
//!
//! Owns the order of the steps and what a newcomer reads.

use std::path::PathBuf;
use std::time::Instant;

use crate::command::Interrupt;
use crate::product::{Product, Server, build_release, choose_port, require_local};
use crate::provision::{Need, Provisioned, provision};
use crate::report::{Report, seconds};
use crate::workspace::Workspace;

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the server (and an engine that had to be started) running.
    #[arg(long)]
    keep: bool,
    /// The server's port; by default 5000, or a free one when that is taken.
    #[arg(long)]
    port: Option<u16>,
}

/// Runs all steps, says what happened, and leaves nothing running unless it is told to.
pub(crate) fn run(workspace: &Workspace, report: &Report, options: &Options) -> anyhow::Result<()> {
    let start = Instant::now();
    let interrupt = Interrupt::install()?;
    Server::refuse_second(&workspace.target("quickstart"))?;
    report.line("Cooperage, from nothing to a running image:");

    let machine = provision(workspace, report, &interrupt, Need::Quickstart)?;
    let result = on_machine(workspace, report, options, &interrupt, &machine);
    let stop_engine = machine.stop_hint();
    if options.keep && result.is_ok() {
        machine.keep_engine();
    } else {
        machine.stop_engine(report)?;
    }
    let outcome = result?;
    report.line(format_args!("\nDone in {}. {}", seconds(start.elapsed()), outcome.summary));
    report.line(next_steps(&outcome, options.keep.then_some(stop_engine)));
    Ok(())
}

/// What a newcomer is told at the end.
struct Outcome {
    summary: String,
    cooper: PathBuf,
    config: PathBuf,
    docker_config: PathBuf,
    address: String,
    image: String,
    run: String,
    server_pid: u32,
}

fn on_machine(
    workspace: &Workspace,
    report: &Report,
    options: &Options,
    interrupt: &Interrupt,
    machine: &Provisioned,
) -> anyhow::Result<Outcome> {
    require_local(machine)?;
    report.line(format_args!("  ✓ container engine {} at {}", machine.version, machine.engine));
    build_release(workspace, report, interrupt)?;

    let product = Product::new(workspace, interrupt, workspace.target("quickstart"))?;
    let port = choose_port(options.port)?;
    let server = report.step(&format!("started `cooper serve` on 127.0.0.1:{port}"), || product.serve(port, &[]))?;
    // From here on, dropping the server stops it.
    let outcome = tour(workspace, report, &product, &server)?;
    if options.keep {
        server.keep()?;
    } else {
        report.step("stopped the server", || server.stop())?;
    }
    Ok(outcome)
}

/// Logs in, builds two images, pulls the second one, and runs it.
fn tour(workspace: &Workspace, report: &Report, product: &Product<'_>, server: &Server) -> anyhow::Result<Outcome> {
    report.step("logged in with the admin token", || product.log_in(server))?;
    report.step("built base/busybox:1, a base image from scratch", || {
        product.build(&["-t", "base/busybox:1"], &product.busybox_context()?).map(drop)
    })?;
    let built = report.step("built examples/hello on it, in two stages", || {
        let tags = ["-t", "hello:{{.Run.ID}}", "-t", "hello:latest"];
        let arguments = ["--build-arg", "REGISTRY={{.Run.Registry}}", "--build-arg", "RUN={{.Run.ID}}"];
        product.build(&[tags, arguments].concat(), &workspace.path("examples/hello"))
    })?;

    let image = built.image()?;
    report.step(&format!("pulled {image} with docker"), || {
        product.log_in_docker(server, &built.registry)?;
        product.run(&mut product.docker(&["pull", "--quiet", &image]))
    })?;
    let greeting = report
        .step("ran it", || product.capture(&mut product.docker(&["run", "--rm", "--network", "none", &image])))?;
    for line in greeting.lines() {
        report.line(format_args!("      {line}"));
    }
    // The pulled copy has done its work; the registry keeps the image.
    let _ = product.run(&mut product.docker(&["image", "rm", &image]));

    Ok(Outcome {
        summary: format!(
            "Cooperage built {image} (run {}) with your container engine,\nits own registry kept it, and the engine \
             pulled and ran it: no other registry was asked.",
            built.run
        ),
        cooper: workspace.cooper("release"),
        config: product.config(),
        docker_config: product.docker_config(),
        address: server.address().to_owned(),
        image,
        run: built.run,
        server_pid: server.pid(),
    })
}

/// What to try next. `kept` holds, when things were left running, how to stop an engine that we started.
fn next_steps(outcome: &Outcome, kept: Option<Option<String>>) -> String {
    let cooper = outcome.cooper.display();
    let Some(stop_engine) = kept else {
        return format!(
            "\nNothing was left running. What to try next:\n  \
             cargo xtask quickstart --keep               # the same, with the server left running\n  \
             {cooper} serve --data-dir ./data   # a server that stays, with its data in ./data\n  \
             {cooper} build --help              # what a build can do"
        );
    };
    let also = stop_engine.map(|command| format!(" && {command}")).unwrap_or_default();
    format!(
        "\nThe server runs at {} (process {}). What to try next:\n  \
         export COOPER_CONFIG_DIR={}\n  \
         {cooper} runs list\n  \
         {cooper} logs {}\n  \
         {cooper} build -t mine:v1 PATH/TO/A/FOLDER\n  \
         docker --config {} run --rm {}\n  \
         kill {}{also}   # stops what runs",
        outcome.address,
        outcome.server_pid,
        outcome.config.display(),
        outcome.run,
        outcome.docker_config.display(),
        outcome.image,
        outcome.server_pid,
    )
}
