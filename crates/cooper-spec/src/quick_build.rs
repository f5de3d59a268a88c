//! Quick builds (`cooper build`, ACR's `DockerBuildRequest`): from what was asked to a plan of a build and a push step.
//!
//! Owns the limits and the validation of a quick build. Names may hold run variables, so the plan is made where the
//! run's id is known: inside the transaction that accepts the run.

use std::collections::BTreeSet;
use std::time::Duration;

use cooper_types::{ContextId, ImageRef, ImageRefError, Platform, PrincipalName, RegistryName, RepositoryName, StepId};

use crate::plan::{ArgumentValue, BuildArgument, BuildWork, Plan, PlannedPlacement, PlannedStep, PushWork, Work};
use crate::template::{RunVariables, TemplateError, render};

/// How long the build step of a quick build may take (ACR contract §2.9); the run's own timeout is usually shorter.
const BUILD_STEP_TIMEOUT: Duration = Duration::from_secs(28_800);
/// How long the push step of a quick build may take.
const PUSH_STEP_TIMEOUT: Duration = Duration::from_secs(3_600);
/// More names, arguments, labels or secrets than this are refused: no real build has so many.
const MAX_ITEMS: usize = 256;

/// What a quick build was asked to do. Texts are as the user wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickBuild {
    /// Image names; run variables are allowed.
    pub image_names: Vec<String>,
    /// Whether the image is pushed.
    pub push: bool,
    /// Whether the build cache is left unused.
    pub no_cache: bool,
    /// The Dockerfile's path inside the context.
    pub dockerfile: String,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments; run variables are allowed in plain values.
    pub arguments: Vec<BuildArgument>,
    /// Labels; run variables are allowed in values.
    pub labels: Vec<(String, String)>,
    /// Ids of the secrets that come with the request.
    pub secrets: Vec<String>,
    /// What the image is for.
    pub platform: Platform,
    /// The uploaded context.
    pub context: ContextId,
}

/// Why a quick build can't be planned. Each names the part of the request that is wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A text holds an expression that can't be rendered.
    #[error("{part} `{text}` can't be rendered")]
    Template {
        /// Which part of the request.
        part: &'static str,
        /// Its text.
        text: String,
        /// What is wrong with it.
        #[source]
        source: TemplateError,
    },
    /// An image name is no reference.
    #[error("image name `{text}` can't be used")]
    Image {
        /// The name after rendering.
        text: String,
        /// What is wrong with it.
        #[source]
        source: ImageRefError,
    },
    /// An image name holds a digest, and a build can't choose its digest.
    #[error("image name `{0}` holds a digest; name a tag instead")]
    ImageDigest(String),
    /// The image name is for a registry that isn't the embedded one.
    #[error("image name `{image}` is for registry `{registry}`; a quick build pushes to `{own}` only")]
    ForeignRegistry {
        /// The image name.
        image: String,
        /// The registry that it names.
        registry: RegistryName,
        /// The registry that is pushed to.
        own: RegistryName,
    },
    /// The token that asks may not push there.
    #[error("{principal} may not push to repository `{repository}`: the token has no such scope")]
    PushDenied {
        /// Who asks.
        principal: PrincipalName,
        /// The repository.
        repository: RepositoryName,
    },
    /// Something is empty that needs a value.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The Dockerfile's path leaves the context.
    #[error("Dockerfile path `{0}` must be relative and stay inside the context")]
    DockerfilePath(String),
    /// A name is given twice.
    #[error("{part} `{name}` is given twice")]
    Twice {
        /// What kind of name.
        part: &'static str,
        /// The name.
        name: String,
    },
    /// A name holds characters that no such name can have.
    #[error("{part} `{name}` holds a `=` or a control character in its name")]
    Name {
        /// What kind of name.
        part: &'static str,
        /// The name.
        name: String,
    },
    /// There are too many of something.
    #[error("{part}: {count} are given, at most {MAX_ITEMS} are allowed")]
    TooMany {
        /// What there is too much of.
        part: &'static str,
        /// How many.
        count: usize,
    },
    /// A text holds a NUL character, which no engine can take.
    #[error("{0} holds a NUL character")]
    Nul(&'static str),
    /// Windows images can't be built by the agents of this release.
    #[error("platform `{0}` can't be built yet: only linux platforms can")]
    Platform(Platform),
}

impl QuickBuild {
    /// Makes the plan: a `build` step, and a `push` step if images are named and pushing is on.
    pub fn plan(&self, variables: &RunVariables, registry: &RegistryName) -> Result<Plan, PlanError> {
        self.check()?;
        let images = self.images(variables, registry)?;
        let arguments = self
            .arguments
            .iter()
            .map(|argument| {
                let value = match &argument.value {
                    ArgumentValue::Plain(text) => ArgumentValue::Plain(render_part("build argument", text, variables)?),
                    ArgumentValue::Secret => ArgumentValue::Secret,
                };
                Ok(BuildArgument { name: argument.name.clone(), value })
            })
            .collect::<Result<_, PlanError>>()?;
        let labels = self
            .labels
            .iter()
            .map(|(name, value)| Ok((name.clone(), render_part("label", value, variables)?)))
            .collect::<Result<_, PlanError>>()?;
        let build = BuildWork {
            context: self.context.clone(),
            dockerfile: self.dockerfile.clone(),
            target: self.target.clone(),
            arguments,
            labels,
            no_cache: self.no_cache,
            secrets: self.secrets.clone(),
        };
        let mut steps = vec![step("build", Vec::new(), BUILD_STEP_TIMEOUT, Work::Build(build))];
        if self.push && !images.is_empty() {
            let push = PushWork { built_by: 0, images };
            steps.push(step("push", vec![0], PUSH_STEP_TIMEOUT, Work::Push(push)));
        }
        Ok(Plan { placements: vec![PlannedPlacement { platform: self.platform.clone() }], steps })
    }

    fn check(&self) -> Result<(), PlanError> {
        if self.platform.os() != "linux" {
            return Err(PlanError::Platform(self.platform.clone()));
        }
        let path = &self.dockerfile;
        if path.is_empty() {
            return Err(PlanError::Empty("the Dockerfile's path"));
        }
        if path.starts_with('/')
            || path.split('/').any(|part| part == "..")
            || path.contains('\\')
            || path.chars().any(char::is_control)
        {
            return Err(PlanError::DockerfilePath(path.escape_debug().take(160).collect()));
        }
        if self.target.as_deref() == Some("") {
            return Err(PlanError::Empty("the target stage"));
        }
        let counts = [
            ("image names", self.image_names.len()),
            ("build arguments", self.arguments.len()),
            ("labels", self.labels.len()),
            ("secrets", self.secrets.len()),
        ];
        if let Some((part, count)) = counts.into_iter().find(|(_, count)| *count > MAX_ITEMS) {
            return Err(PlanError::TooMany { part, count });
        }
        unique("label", self.labels.iter().map(|(name, _)| name))?;
        unique("secret", self.secrets.iter())?;
        // The last value of a repeated build argument wins, as with docker; a secret and a plain one must not mix.
        let plain = self.arguments.iter().filter(|a| a.value != ArgumentValue::Secret).map(|a| &a.name);
        let secret = self.arguments.iter().filter(|a| a.value == ArgumentValue::Secret).map(|a| &a.name);
        unique("secret build argument", secret.clone())?;
        let plain: BTreeSet<_> = plain.collect();
        if let Some(name) = secret.into_iter().find(|name| plain.contains(name)) {
            return Err(PlanError::Twice { part: "build argument", name: name.clone() });
        }
        if self.arguments.iter().any(|argument| argument.name.is_empty()) {
            return Err(PlanError::Empty("a build argument's name"));
        }
        let bad_name = |name: &&String| name.chars().any(|c| c == '=' || c.is_control());
        if let Some(name) = self.arguments.iter().map(|argument| &argument.name).find(bad_name) {
            return Err(PlanError::Name { part: "build argument", name: name.escape_debug().take(160).collect() });
        }
        if let Some(id) = self.secrets.iter().find(|id| id.chars().any(char::is_control)) {
            return Err(PlanError::Name { part: "secret", name: id.escape_debug().take(160).collect() });
        }
        let texts = self.labels.iter().flat_map(|(name, value)| [name, value]).chain(self.target.iter());
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(PlanError::Nul("a label or the target"));
        }
        Ok(())
    }

    /// The image names, rendered, in the embedded registry, tagged, without repetitions, in order.
    fn images(&self, variables: &RunVariables, own: &RegistryName) -> Result<Vec<ImageRef>, PlanError> {
        let mut images: Vec<ImageRef> = Vec::new();
        for name in &self.image_names {
            let text = render_part("image name", name, variables)?;
            let image = ImageRef::parse(&text).map_err(|source| PlanError::Image { text: text.clone(), source })?;
            if image.digest.is_some() {
                return Err(PlanError::ImageDigest(text));
            }
            let image = image.in_registry_by_default(own).tagged_by_default();
            match &image.registry {
                Some(registry) if registry != own => {
                    let (registry, own) = (registry.clone(), own.clone());
                    return Err(PlanError::ForeignRegistry { image: text, registry, own });
                }
                _ => {}
            }
            if !images.contains(&image) {
                images.push(image);
            }
        }
        Ok(images)
    }
}

fn render_part(part: &'static str, text: &str, variables: &RunVariables) -> Result<String, PlanError> {
    if text.contains('\0') {
        return Err(PlanError::Nul(part));
    }
    render(text, variables).map_err(|source| PlanError::Template {
        part,
        text: text.chars().take(160).collect(),
        source,
    })
}

fn unique<'a>(part: &'static str, names: impl Iterator<Item = &'a String>) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(PlanError::Empty(part));
        }
        if !seen.insert(name) {
            return Err(PlanError::Twice { part, name: name.chars().take(160).collect() });
        }
    }
    Ok(())
}

fn step(id: &str, after: Vec<usize>, timeout: Duration, work: Work) -> PlannedStep {
    let id = StepId::parse(id).expect("`build` and `push` are step ids");
    PlannedStep { id, placement: 0, after, timeout, work }
}

#[cfg(test)]
mod tests;
