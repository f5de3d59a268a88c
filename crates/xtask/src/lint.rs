//! `cargo xtask lint`: everything about the code that needs no running program.

use anyhow::bail;

use crate::command::run_visibly;
use crate::report::Report;
use crate::workspace::Workspace;
use crate::{codegen, layers, policy};

/// Runs every check, so that one run shows all that is wrong.
pub(crate) fn run(workspace: &Workspace, report: &Report) -> anyhow::Result<()> {
    let cargo = |arguments: &str| {
        let mut command = workspace.cargo(arguments.split(' '));
        command.env("RUSTDOCFLAGS", "-D warnings");
        run_visibly(&mut command)
    };
    let checks: [(&str, &dyn Fn() -> anyhow::Result<()>); 6] = [
        ("format: cargo fmt", &|| cargo("fmt --all --check")),
        ("layers: ARCHITECTURE.md", &|| layers::check(workspace)),
        ("dependencies: deny.toml", &|| policy::check(workspace, report)),
        ("lints: cargo clippy", &|| cargo("clippy --quiet --locked --workspace --all-targets -- -D warnings")),
        ("documentation: cargo doc", &|| cargo("doc --quiet --locked --workspace --no-deps")),
        ("generated files: schemas", &|| codegen::check(workspace)),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = report.step(name, check) {
            report.failure(&error);
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), checks.len(), failed.join("; "));
    }
    Ok(())
}
