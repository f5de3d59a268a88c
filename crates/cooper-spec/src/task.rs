//! Task files (`acr-task.yaml`): from a file's text to its steps, with every default applied, or to all that is wrong with it.
//!
//! Owns the language: versions, aliases, values, YAML, properties, the words of `build` and `cmd`, and the order of steps.
//! It reads nothing itself: the caller fetches what [`alias_sources`] and [`wanted_secrets`] name, and then calls [`load`].

mod across;
mod alias;
mod build_line;
mod cache;
mod cmd_line;
mod data;
mod environment;
mod expand;
mod fault;
mod fields;
mod flags;
mod image_alias;
mod inputs;
mod json;
mod keys;
mod limits;
mod lines;
mod load;
mod missing;
mod model;
mod nearest;
mod order;
mod paths;
mod read;
mod scalar;
mod schema;
mod step;
mod version;
mod words;
mod yaml;

pub use alias::{ACR_CLI, is_acr_cli};
pub use build_line::{BuildContext, BuildLine, BuildSecret, BuildSecretSource};
pub(crate) use cache::of_platform as cache_of_platform;
pub use cmd_line::CmdLine;
pub use fault::{Fault, Faults, Place};
pub use image_alias::{ImageAlias, ImageAliasError};
pub use inputs::{AliasSource, Loaded, NamedText, RenderedText, SetValue, SetValueError, TaskInputs, WantedSecret};
pub use load::{SECRET_STAND_IN, alias_sources, load, render_text, wanted_secrets};
pub use model::{
    Cache, DEFAULT_NETWORK, Isolation, StepNetwork, Task, TaskNetwork, TaskStep, TaskVersion, TaskVolume, TaskWork,
    VolumeMount,
};
pub use schema::schema;

/// What a task file is called where nobody names one; the first that is there counts.
pub const DEFAULT_FILES: [&str; 2] = ["acr-task.yaml", "acb.yaml"];

#[cfg(test)]
mod tests;
