//! The generated files under `schemas/`: written here, checked in, compared by the lint.

use anyhow::{Context, bail};

use crate::report::Report;
use crate::workspace::Workspace;

/// The REST API's OpenAPI document, which the product prints.
const OPENAPI: &str = "schemas/openapi.json";

/// Writes every generated file.
pub(crate) fn write(workspace: &Workspace, report: &Report) -> anyhow::Result<()> {
    let path = workspace.path(OPENAPI);
    report.step(&format!("wrote {OPENAPI}"), || {
        std::fs::write(&path, openapi(workspace)?).with_context(|| format!("write {}", path.display()))
    })
}

/// Fails when a generated file is not what would be generated now.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let path = workspace.path(OPENAPI);
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    if checked_in != openapi(workspace)? {
        bail!("{OPENAPI} is not what the product generates: run `cargo xtask codegen` and commit the result");
    }
    Ok(())
}

fn openapi(workspace: &Workspace) -> anyhow::Result<String> {
    let mut cargo = workspace.cargo(["run", "--quiet", "--locked", "--package", "cooper", "--", "openapi"]);
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("start `cooper openapi`")?;
    if !output.status.success() {
        bail!("`cooper openapi` failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout).context("read what `cooper openapi` printed")?;
    serde_json::from_str::<serde_json::Value>(&text).context("`cooper openapi` printed something that is no JSON")?;
    Ok(format!("{}\n", text.trim_end()))
}
