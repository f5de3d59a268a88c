//! Environment variables of steps: a step's own, then the task's, then the run's (contract §1.9).
//!
//! ACR hands `--env NAME=VALUE` to a shell, so values are written with a shell's quotes, which are taken away here.

use super::fields::{Fields, Report, Told, clip};
use super::inputs::TaskInputs;
use super::limits;
use super::words::unquoted;

/// What all steps get that don't set it themselves: the task's, then the run's.
pub(super) fn of_task(fields: &Fields<'_>, inputs: &TaskInputs, report: &mut Report<'_>) -> Vec<(String, String)> {
    let windows = inputs.run.platform.os() == "windows";
    let mut merged = Vec::new();
    for told in limits::limited(fields, "env", fields.texts("env", report), limits::VARIABLES, report) {
        for piece in pieces(&told.value) {
            match pair(piece, windows) {
                Some(pair) => add(&mut merged, pair),
                None => refuse(piece, &told, report),
            }
        }
    }
    for text in &inputs.environment {
        for piece in pieces(text) {
            match pair(piece, windows) {
                Some(pair) => add(&mut merged, pair),
                None => report.faults.push(super::fault::Fault::bare(
                    format!("environment `{}` of the run is not NAME=VALUE", clip(piece)),
                    "write a name, `=` and the value",
                )),
            }
        }
    }
    limits::check_variables(merged.len(), fields.at("env"), report);
    merged
}

/// A step's own variables with those of the task behind them.
pub(super) fn of_step(
    fields: &Fields<'_>,
    task: &[(String, String)],
    windows: bool,
    report: &mut Report<'_>,
) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::new();
    for told in limits::limited(fields, "env", fields.texts("env", report), limits::VARIABLES, report) {
        match pair(&told.value, windows) {
            // As with docker, the last one of a name counts.
            Some(pair) => {
                merged.retain(|(name, _)| *name != pair.0);
                merged.push(pair);
            }
            None if told.value.contains('=') || told.value.is_empty() => refuse(&told.value, &told, report),
            None => {
                let message = format!("entry `{}` of env has no value", clip(&told.value));
                report.warn(told.at, message, "it is left out; write NAME=VALUE, or `NAME=` for an empty one");
            }
        }
    }
    task.iter().for_each(|pair| add(&mut merged, pair.clone()));
    limits::check_variables(merged.len(), fields.at("env"), report);
    merged
}

fn refuse(piece: &str, told: &Told<String>, report: &mut Report<'_>) {
    report.fault(
        told.at,
        format!("entry `{}` of env is not NAME=VALUE", clip(piece)),
        "write a name, `=` and the value",
    );
}

/// Adds a variable unless its name is there, or there are too many already.
fn add(merged: &mut Vec<(String, String)>, pair: (String, String)) {
    if merged.len() <= limits::VARIABLES && !merged.iter().any(|(name, _)| *name == pair.0) {
        merged.push(pair);
    }
}

/// An entry's name and value.
fn pair(text: &str, windows: bool) -> Option<(String, String)> {
    let text = unquoted(text, windows);
    let (name, value) = text.split_once('=')?;
    let wrong = name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) || value.contains('\0');
    (!wrong).then(|| (name.to_owned(), value.to_owned()))
}

/// ACR splits entries of a task at commas. Only where every part is a variable was that meant.
fn pieces(text: &str) -> Vec<&str> {
    let is_variable = |piece: &&str| {
        let Some((name, _)) = piece.split_once('=') else { return false };
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let parts: Vec<&str> = text.split(',').collect();
    if parts.iter().all(is_variable) { parts } else { vec![text] }
}
