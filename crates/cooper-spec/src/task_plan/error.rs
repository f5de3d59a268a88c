//! Why a task can't be planned.

use cooper_types::{ImageRef, ImageRefError, Platform, StepId};

use crate::source::SourceError;
use crate::task::Faults;

/// Why a task file that was fetched can't be planned. Each names the step and the way out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TaskPlanError {
    /// The file is not valid.
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
    /// A secret stands where everybody sees it.
    #[error("step {step}: property `{property}` holds a secret; only env, cmd, build arguments and volumes may")]
    SecretInProperty {
        /// The step.
        step: StepId,
        /// Its property.
        property: &'static str,
    },
    /// A secret stands where everybody sees it, outside of the steps.
    #[error(
        "property `{property}` of the task file holds a secret; only env, cmd, build arguments and volumes' contents may"
    )]
    SecretInFile {
        /// The property.
        property: &'static str,
    },
    /// A name of an image is none.
    #[error("step {step}: image `{text}` can't be used")]
    Image {
        /// The step.
        step: StepId,
        /// The name.
        text: String,
        /// What is wrong with it.
        #[source]
        source: ImageRefError,
    },
    /// A digest can't be pushed.
    #[error("step {step}: `{image}` holds a digest; push a tag")]
    PushOfDigest {
        /// The step.
        step: StepId,
        /// The image.
        image: Box<ImageRef>,
    },
    /// No step that the push waits for builds it.
    #[error(
        "step {step}: no step before it builds `{image}`; name the image in a build step with `-t {image}`, and the build step \
         in `when`"
    )]
    NotBuilt {
        /// The step that pushes.
        step: StepId,
        /// The image.
        image: Box<ImageRef>,
    },
    /// An image is wanted for a platform that it is not built for.
    #[error(
        "step {step} for {wanted} runs `{image}`, which step {built_by} builds for {}; add {wanted} to its `platforms`, or say \
         `platform: {}` in step {step}",
        listed(.built), .built.first().map(Platform::to_string).unwrap_or_default()
    )]
    OtherPlatform {
        /// The step.
        step: StepId,
        /// What it is for.
        wanted: Box<Platform>,
        /// The image.
        image: Box<ImageRef>,
        /// The step that builds it.
        built_by: StepId,
        /// What that builds for.
        built: Vec<Platform>,
    },
    /// A context that nobody could fetch.
    #[error("step {step}: the context is no place that can be fetched")]
    Context {
        /// The step.
        step: StepId,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// A local context outside the workspace.
    #[error("step {step}: `{path}` is outside the workspace; use a path below /workspace")]
    OutsideWorkspace {
        /// The step.
        step: StepId,
        /// The path.
        path: String,
    },
    /// A build secret that is no file of a mounted secret volume.
    #[error(
        "step {step}: build secret `{id}` is file `{path}`, which is in none of the step's volumeMounts; secrets of builds come \
         from secret volumes or from env"
    )]
    SecretFile {
        /// The step.
        step: StepId,
        /// The secret's id.
        id: String,
        /// The file.
        path: String,
    },
}

fn listed(platforms: &[Platform]) -> String {
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(" and ")
}
