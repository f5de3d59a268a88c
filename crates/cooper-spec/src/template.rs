//! Run variables in texts: `{{.Run.ID}}` and its like (ACR contract §4.2).
//!
//! Only plain variables are known here; the template language of task files is another matter.

use cooper_types::{Platform, RegistryName, RunId, Timestamp};

/// The values of `.Run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunVariables {
    /// `.Run.ID`
    pub id: RunId,
    /// `.Run.Registry`
    pub registry: RegistryName,
    /// `.Run.OS` and `.Run.Architecture`
    pub platform: Platform,
    /// `.Run.Date` is made from this.
    pub created: Timestamp,
}

/// Why a text can't be rendered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The expression is none that is known.
    #[error("expression `{{{{{expression}}}}}` at column {column} is unknown; known are {known}")]
    Unknown {
        /// What stands between the braces.
        expression: String,
        /// Where it begins, from 1.
        column: usize,
        /// What there is.
        known: String,
    },
}

impl RunVariables {
    /// The variables of a quick build.
    pub fn quick_build(id: RunId, registry: &RegistryName, platform: &Platform, created: Timestamp) -> Self {
        Self { id, registry: registry.clone(), platform: platform.clone(), created }
    }
}

/// Replaces every expression of `text`.
pub fn render(text: &str, variables: &RunVariables) -> Result<String, TemplateError> {
    Ok(text.replace("{{.Run.ID}}", &variables.id.to_string()).replace("{{.Run.Registry}}", variables.registry.as_str()))
}
