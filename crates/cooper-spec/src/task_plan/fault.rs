//! What is wrong with a step that only its planning sees: what it says of other steps, of the workspace, of secrets.

use cooper_types::{ImageRef, Platform, StepId};

use crate::source::SourceError;
use crate::task::{Fault, Place};

/// What a step can't be planned for.
#[derive(Debug)]
pub(super) enum StepFault {
    /// A secret stands where everybody sees it.
    SecretIn(&'static str),
    /// No step that the push waits for builds it.
    NotBuilt(Box<ImageRef>),
    /// An image is wanted for a platform that it is not built for.
    OtherPlatform {
        /// What the step is for.
        wanted: Box<Platform>,
        image: Box<ImageRef>,
        /// The step that builds it.
        built_by: StepId,
        /// What that builds for.
        built: Vec<Platform>,
    },
    /// A context that nobody could fetch.
    Context(SourceError),
    /// A local context outside the workspace.
    OutsideWorkspace(String),
    /// A build secret that is no file of a mounted secret volume.
    SecretFile {
        /// The secret's id.
        id: String,
        /// The file.
        path: String,
    },
}

impl StepFault {
    /// As a fault of the file.
    pub(super) fn at(&self, step: &StepId, place: &Place) -> Fault {
        let (message, help) = self.text(step);
        Fault { place: Some(Box::new(place.clone())), message: format!("step {step}{message}"), help: Some(help) }
    }

    /// What is said behind the step's id, and the way out.
    fn text(&self, step: &StepId) -> (String, String) {
        match self {
            Self::SecretIn(property) => (
                format!(": property `{property}` holds a secret"),
                "only env, cmd, build arguments and volumes may".to_owned(),
            ),
            Self::NotBuilt(image) => (
                format!(": no step before it builds `{image}`"),
                format!("name the image in a build step with `-t {image}`, and the build step in `when`"),
            ),
            Self::OtherPlatform { wanted, image, built_by, built } => {
                let listed: Vec<String> = built.iter().map(Platform::to_string).collect();
                let first = listed.first().map(String::as_str).unwrap_or_default();
                let built = listed.join(" and ");
                (
                    format!(" for {wanted} runs `{image}`, which step {built_by} builds for {built}"),
                    format!("add {wanted} to its `platforms`, or say `platform: {first}` in step {step}"),
                )
            }
            Self::Context(error) => (": the context is no place that can be fetched".to_owned(), error.to_string()),
            Self::OutsideWorkspace(path) => {
                (format!(": `{path}` is outside the workspace"), "use a path below /workspace".to_owned())
            }
            Self::SecretFile { id, path } => (
                format!(": build secret `{id}` is file `{path}`, which is in none of the step's volumeMounts"),
                "secrets of builds come from secret volumes or from env".to_owned(),
            ),
        }
    }
}
