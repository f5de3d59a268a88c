//! The generated files under `schemas/`: written here, checked in, compared by the lint.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::product::build_debug;
use crate::report::Report;
use crate::workspace::Workspace;

/// The files, and the command of the product that prints each.
const FILES: &[(&str, &[&str])] = &[
    ("schemas/openapi.json", &["openapi"]),
    ("schemas/acr-task.schema.json", &["schema"]),
    ("schemas/stored-task.schema.json", &["schema", "--stored-tasks"]),
];

/// Writes every generated file.
pub(crate) fn write(workspace: &Workspace, report: &Report) -> anyhow::Result<()> {
    let product = build_debug(workspace)?;
    for (file, command) in FILES {
        let path = workspace.path(file);
        report.step(&format!("wrote {file}"), || {
            std::fs::write(&path, printed(&product, command)?).with_context(|| format!("write {}", path.display()))
        })?;
    }
    Ok(())
}

/// Fails when a generated file is not what would be generated now.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let product = build_debug(workspace)?;
    for (file, command) in FILES {
        let checked_in = std::fs::read_to_string(workspace.path(file)).unwrap_or_default();
        if checked_in != printed(&product, command)? {
            bail!("{file} is not what the product generates: run `cargo xtask codegen` and commit the result");
        }
    }
    Ok(())
}

/// The JSON that a command of the product prints.
fn printed(product: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut cooper = Command::new(product);
    cooper.args(arguments);
    let command = arguments.join(" ");
    let started = || format!("start `cooper {command}`");
    let output = cooper.stderr(Stdio::inherit()).output().with_context(started)?;
    if !output.status.success() {
        bail!("`cooper {command}` failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("read what `cooper {command}` printed"))?;
    serde_json::from_str::<serde_json::Value>(&text)
        .with_context(|| format!("`cooper {command}` printed something that is no JSON"))?;
    Ok(format!("{}\n", text.trim_end()))
}
