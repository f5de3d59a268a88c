//! Why a task can't be planned.

use crate::task::{Fault, Faults};

/// Why a task file that was fetched can't be planned. Each names the way out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TaskPlanError {
    /// The file is not valid, or what its steps say can't be done.
    #[error("{0}")]
    File(Faults),
    /// With its secrets filled in, the file is not valid; which line says so may show a secret.
    #[error(
        "the task file is not valid with its secrets filled in, and the place is not shown because it may hold one; quote \
         secrets in the file: `{{{{.Secrets.NAME | quote}}}}` for YAML, `{{{{.Secrets.NAME | squote}}}}` for words of a `cmd`"
    )]
    OnlyWithSecrets,
    /// The file's steps are others with other secrets.
    #[error(
        "the task file's steps depend on the values of secrets; let only env, cmd, build arguments and volumes hold them"
    )]
    ShapeOfSecret,
    /// A secret stands where everybody sees it, outside of the steps.
    #[error(
        "property `{property}` of the task file holds a secret; only env, cmd, build arguments and volumes' contents may"
    )]
    SecretInFile {
        /// The property.
        property: &'static str,
    },
}

impl TaskPlanError {
    /// The same as faults of the file; all but those of its text have no place.
    pub fn into_faults(self) -> Faults {
        match self {
            Self::File(faults) => faults,
            error => Fault { place: None, message: error.to_string(), help: None }.into(),
        }
    }
}
