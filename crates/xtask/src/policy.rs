//! The dependency policy of `deny.toml`: licences, bans, who may use what, and where crates come from.
//!
//! cargo-deny enforces it; this file gets the tool and runs it. The advisory database is fetched from the network,
//! so `cargo deny check advisories` is a command for people, not a part of the lint.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::command::run_visibly;
use crate::report::Report;
use crate::workspace::Workspace;

/// The version whose verdict counts, so that a lint passes everywhere or nowhere.
const CARGO_DENY: &str = "0.20.2";

/// Checks the whole dependency graph against `deny.toml`.
pub(crate) fn check(workspace: &Workspace, report: &Report) -> anyhow::Result<()> {
    let cargo_deny = tool(workspace, report)?;
    let mut command = Command::new(cargo_deny);
    command.args(["--log-level", "warn", "--locked", "check", "--hide-inclusion-graph"]);
    command.args(["bans", "licenses", "sources"]).current_dir(workspace.path(""));
    run_visibly(&mut command)
}

/// The tool: this version of it on the search path, else one that is built once into the build directory.
fn tool(workspace: &Workspace, report: &Report) -> anyhow::Result<PathBuf> {
    let root = workspace.target("tools");
    let ours = root.join("bin/cargo-deny");
    for candidate in [PathBuf::from("cargo-deny"), ours.clone()] {
        if is_wanted(&candidate) {
            return Ok(candidate);
        }
    }
    report.begin(format_args!("building cargo-deny {CARGO_DENY} (about two minutes, once)"));
    let mut install = workspace.cargo(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY]);
    // The tool's own build is nobody's business: with the caller's target directory it would rebuild the world.
    install.env_remove("CARGO_TARGET_DIR").arg("--root").arg(&root);
    // It runs for seconds: optimising it takes longer than all that it does.
    install.arg("--debug").env("CARGO_PROFILE_DEV_DEBUG", "0");
    report.step("built cargo-deny", || run_visibly(&mut install)).context("install the tool that checks deny.toml")?;
    Ok(ours)
}

fn is_wanted(program: &PathBuf) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deny {CARGO_DENY}"))
}
