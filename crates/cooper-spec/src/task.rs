//! Task files (`acr-task.yaml`): from a file's text to its steps, with every default applied, or to all that is wrong with it.
//!
//! Owns the language: versions, aliases, values, YAML, properties, the words of `build` and `cmd`, and the order of steps.
//! It reads nothing itself: the caller fetches what [`alias_sources`] and [`wanted_secrets`] name, and then calls [`load`].

mod build_line;
mod cache;
mod cmd_line;
mod environment;
mod fault;
mod fields;
mod flags;
mod inputs;
mod keys;
mod lines;
mod model;
mod nearest;
mod order;
mod paths;
mod read;
mod step;
mod words;
mod yaml;

use std::collections::BTreeMap;

pub use build_line::{BuildContext, BuildLine, BuildSecret, BuildSecretSource};
pub use cmd_line::CmdLine;
pub use fault::{Fault, Faults, Place};
pub use inputs::{AliasSource, Loaded, NamedText, SetValue, TaskInputs, WantedSecret};
pub use model::{
    Cache, DEFAULT_NETWORK, Isolation, StepNetwork, Task, TaskNetwork, TaskStep, TaskVersion, TaskVolume, TaskWork,
    VolumeMount,
};

use fields::Report;
use lines::Source;

/// The files and URLs that the file takes aliases from, in their order; none below v1.1.0.
pub fn alias_sources(inputs: &TaskInputs) -> Result<Vec<AliasSource>, Faults> {
    let _ = inputs;
    Ok(Vec::new())
}

/// The secrets that the file names: [`load`] wants their values in [`TaskInputs::secrets`].
pub fn wanted_secrets(inputs: &TaskInputs) -> Result<Vec<WantedSecret>, Faults> {
    load(inputs).map(|loaded| loaded.task.secrets)
}

/// Loads a task file.
pub fn load(inputs: &TaskInputs) -> Result<Loaded, Faults> {
    let source = Source::new(&inputs.file.name, &inputs.file.text);
    let lines = source.lines();
    let rendered = lines.text();
    let mut report = Report::new(&lines);
    let task = match yaml::parse(&rendered) {
        Ok(document) => {
            if let Some(second) = document.second {
                report.warn(second, "a second document has no effect", "write one task in a file");
            }
            read::task(document.root.as_ref(), inputs, &BTreeMap::new(), &mut report)
        }
        Err(fault) => {
            report.fault(fault.at, fault.message, "write YAML");
            None
        }
    };
    match task {
        Some(task) if report.faults.is_empty() => Ok(Loaded { task, warnings: report.warnings, rendered }),
        _ => Err(Faults::new(report.faults)),
    }
}

#[cfg(test)]
mod tests;
