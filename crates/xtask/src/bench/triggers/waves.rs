//! A base image with many dependents, three levels deep: from its push until the wave is there, and whether each is in it once.
//!
//! What they stand on is written into the stopped server's database, by the example `base_graph` of `cooper-store`: to build
//! thousands of images once would say nothing of planning.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::connection::Access;
use super::making;
use crate::command::{Interrupt, run_visibly};
use crate::report::Report;
use crate::workspace::Workspace;

/// How long the wave may take: the promise.
const LATEST: Duration = Duration::from_secs(5);

/// Makes the tasks.
pub(super) fn make(report: &Report, access: &Access, tasks: u32) -> anyhow::Result<()> {
    report.step(&format!("made {tasks} tasks with base images"), || making::make(access, tasks, "waved", &json!({})))
}

/// Writes down what the tasks stand on. The server must not run.
pub(super) fn seed(
    workspace: &Workspace,
    report: &Report,
    profile: &str,
    data: &std::path::Path,
) -> anyhow::Result<()> {
    let mut build = workspace.cargo(["build", "--locked", "--quiet", "--package", "cooper-store"]);
    build.args(["--example", "base_graph"]);
    if profile == "release" {
        build.arg("--release");
    }
    report.step("built what writes the graph", || run_visibly(&mut build))?;
    let mut write = Command::new(workspace.target(&format!("{profile}/examples/base_graph")));
    report.step("wrote what the tasks stand on", || run_visibly(write.arg(data)))
}

/// Pushes the base image, and shows when the wave was there and what was in it.
pub(super) fn measure(report: &Report, interrupt: &Interrupt, access: &Access, tasks: u32) -> anyhow::Result<()> {
    let mut connection = access.connect()?;
    let index = "application/vnd.oci.image.index.v1+json";
    let body = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [] }).to_string();
    let begun = Instant::now();
    connection.push("/v2/base/manifests/1", index, &body)?;
    let pushed = begun.elapsed();
    let found = interrupt.wait(LATEST, || {
        let waves = connection.json("GET", "/api/v1/waves?top=1", None)?;
        Ok(waves.pointer("/value/0/waveId").and_then(Value::as_str).map(str::to_owned))
    })?;
    let planned = begun.elapsed();
    let wave = found.with_context(|| format!("no wave within {} s of the push", LATEST.as_secs()))?;
    let wave = connection.json("GET", &format!("/api/v1/waves/{wave}"), None)?;
    let members = wave.get("members").and_then(Value::as_array).context("the wave has no members")?;
    let mut names = BTreeSet::new();
    let mut levels: BTreeMap<u64, u32> = BTreeMap::new();
    for member in members {
        names.insert(member.get("task").and_then(Value::as_str).context("a member has no task")?);
        *levels.entry(member.get("level").and_then(Value::as_u64).context("a member has no level")?).or_default() += 1;
    }
    if members.len() != tasks as usize || names.len() != tasks as usize || levels.len() != 3 {
        bail!(
            "a wave of {tasks} tasks in 3 levels has {} members of {} tasks in {levels:?}",
            members.len(),
            names.len()
        );
    }
    let levels: Vec<String> = levels.values().map(ToString::to_string).collect();
    report.line(format_args!("from a base image's push, ms          answered     wave is there"));
    report.line(format_args!(
        "  {tasks:>7} dependents, each once ({:>17}) {:>9.1} {:>9.1}",
        levels.join(" + "),
        pushed.as_secs_f64() * 1000.0,
        planned.as_secs_f64() * 1000.0
    ));
    Ok(())
}
