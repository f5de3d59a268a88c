//! Quick builds (`cooper build`, ACR's `DockerBuildRequest`): from what was asked to a plan of a build and a push step.
//!
//! Owns the limits and the validation of a quick build. Names may hold run variables, so the plan is made where the
//! run's id is known: inside the transaction that accepts the run. A build whose source an agent has to fetch is planned
//! twice: first the fetching alone, then, when the commit is known, the rest.

use std::collections::BTreeSet;
use std::time::Duration;

use cooper_types::{ContextId, ImageRef, ImageRefError, Platform, PrincipalName, RegistryName, RepositoryName, StepId};
use serde::{Deserialize, Serialize};

use crate::plan::{
    ArgumentValue, BuildArgument, BuildContext, BuildWork, IndexPart, NodeIds, Plan, PlannedPlacement, PlannedStep,
    PrepareWork, PushWork, PushedFrom, PushedName, Work, stage,
};
use crate::source::RemoteSource;
use crate::task_plan::TaskPlanError;
use crate::task_request::MissingText;
use crate::template::{RunVariables, TemplateError, needs_source, render};

/// How long the build step of a quick build may take (ACR contract §2.9); the run's own timeout is usually shorter.
const BUILD_STEP_TIMEOUT: Duration = Duration::from_secs(28_800);
/// How long the push step of a quick build may take.
const PUSH_STEP_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long it may take to fetch a source; the run's own timeout counts too.
const PREPARE_STEP_TIMEOUT: Duration = Duration::from_secs(1_800);
/// More names, arguments, labels or secrets than this are refused: no real build has so many.
const MAX_ITEMS: usize = 256;
/// What names, arguments and labels may have together, in bytes, when their variables are filled in: as much as a request
/// may have. They are kept with the run, and go to an agent in one message.
const MAX_TEXT: usize = 8 << 20;

/// Where the files of a build come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildSource {
    /// An uploaded context.
    Context(ContextId),
    /// A place that an agent fetches.
    Remote(RemoteSource),
}

/// What a quick build was asked to do, but for its source. Texts are as the user wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What the image is for; the first of several.
    pub platform: Platform,
    /// All that it is for, where that is more than one: each is built, and the names are given to an index of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
    /// Whether it may push to other registries than the embedded one: where the server is one user's own, and goes with the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
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
    /// A stranger's code is to be pushed and nothing else.
    #[error("the file does nothing but push, and a stranger's code is not pushed")]
    OnlyPushes,
    /// What a stranger's code makes on one platform is to be used on another.
    #[error("step {0} takes an image that another platform's agent builds, and a stranger's code is not pushed to it")]
    NeedsPush(StepId),
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
    /// A task file can't be planned.
    #[error(transparent)]
    Task(TaskPlanError),
    /// Something that a task file's request names is not there.
    #[error(transparent)]
    Missing(MissingText),
    /// Windows images can't be built by the agents of this release.
    #[error("platform `{0}` can't be built yet: only linux platforms can")]
    Platform(Platform),
}

impl QuickBuild {
    /// Makes the plan of what is known from the start: everything, or the `prepare` step of a source that is to be
    /// fetched. Then all is checked that can be without the source.
    pub fn plan_first(
        &self,
        source: &BuildSource,
        variables: &RunVariables,
        registry: &RegistryName,
    ) -> Result<Plan, PlanError> {
        let source = match source {
            BuildSource::Context(context) => return self.plan(context, variables, registry),
            BuildSource::Remote(source) => source.clone(),
        };
        // What depends on the source has some value by now; whether the real one fits is seen when it is there.
        let guess = RunVariables {
            commit: "0".repeat(40),
            branch: "branch".to_owned(),
            git_tag: "tag".to_owned(),
            ..variables.clone()
        };
        self.check()?;
        let mut room = MAX_TEXT;
        self.arguments(&guess, &mut room)?;
        self.labels(&guess, &mut room)?;
        for name in &self.image_names {
            match self.image(name, &guess, registry, &mut room) {
                // What a branch's name may make of it is not known yet.
                Err(PlanError::Image { .. }) if needs_source(name).unwrap_or(false) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        let dockerfile = Some(self.dockerfile.clone());
        let prepare = PrepareWork { source, dockerfile, files: Vec::new(), task_file: None, definition: None };
        let steps = vec![step("prepare", Vec::new(), PREPARE_STEP_TIMEOUT, Work::Prepare(prepare))];
        Ok(Plan { placements: vec![PlannedPlacement::new(self.platform.clone())], steps })
    }

    /// The repositories that the build is going to push to whatever its source is.
    pub fn certain_repositories(&self, variables: &RunVariables, registry: &RegistryName) -> Vec<RepositoryName> {
        if !self.push {
            return Vec::new();
        }
        let guesses = ["a", "b"].map(|text| RunVariables {
            commit: text.repeat(40),
            branch: text.to_owned(),
            git_tag: text.to_owned(),
            ..variables.clone()
        });
        let repository = |name: &String| {
            let image = |guess: &RunVariables| self.image(name, guess, registry, &mut { MAX_TEXT });
            let [first, second] = guesses.each_ref().map(image);
            let (first, second) = (first.ok()?, second.ok()?);
            let is_own = first.registry.as_ref() == Some(registry);
            (is_own && first.repository == second.repository).then_some(first.repository)
        };
        self.image_names.iter().filter_map(repository).collect()
    }

    /// Makes the plan for a context: a `build` step, and a `push` step if images are named and pushing is on.
    pub fn plan(
        &self,
        context: &ContextId,
        variables: &RunVariables,
        registry: &RegistryName,
    ) -> Result<Plan, PlanError> {
        self.check()?;
        let mut room = MAX_TEXT;
        let images = self.images(variables, registry, &mut room)?;
        let pushed = self.push && !images.is_empty();
        let platforms = self.all_platforms();
        let mut ids = NodeIds::beside([&step_id("build"), &step_id("push")]);
        let mut steps = Vec::new();
        for (placement, platform) in platforms.iter().enumerate() {
            // Its own variables; the names are the whole image's.
            let variables = RunVariables { platform: platform.clone(), ..variables.clone() };
            let build = BuildWork {
                target: self.target.clone(),
                arguments: self.arguments(&variables, &mut room)?,
                labels: self.labels(&variables, &mut room)?,
                no_cache: self.no_cache,
                secrets: self.secrets.clone(),
                ..BuildWork::new(BuildContext::Uploaded(context.clone()), &self.dockerfile)
            };
            let mut step = step("build", Vec::new(), BUILD_STEP_TIMEOUT, Work::Build(build));
            if platforms.len() > 1 {
                step.id = ids.of_platform(&step.id, platform);
            }
            steps.push(PlannedStep { placement, ..step });
        }
        if pushed {
            let push = if platforms.len() > 1 {
                self.push_of_several(&platforms, images, &mut ids, &mut steps)
            } else {
                step("push", vec![0], PUSH_STEP_TIMEOUT, Work::Push(PushWork::of_one(0, images)))
            };
            steps.push(push);
        }
        let placements = platforms.into_iter().map(PlannedPlacement::new).collect();
        Ok(Plan { placements, steps })
    }

    /// What the image is for, each once.
    fn all_platforms(&self) -> Vec<Platform> {
        let mut all = vec![self.platform.clone()];
        for platform in &self.platforms {
            if !all.contains(platform) {
                all.push(platform.clone());
            }
        }
        all
    }

    /// Adds a stage for each platform, and gives the step that pushes the index of all.
    fn push_of_several(
        &self,
        platforms: &[Platform],
        images: Vec<ImageRef>,
        ids: &mut NodeIds,
        steps: &mut Vec<PlannedStep>,
    ) -> PlannedStep {
        let mut repositories: Vec<ImageRef> = Vec::new();
        for image in &images {
            let repository = ImageRef { tag: None, ..image.clone() };
            if !repositories.contains(&repository) {
                repositories.push(repository);
            }
        }
        let mut parts = Vec::with_capacity(platforms.len());
        for (built_by, platform) in platforms.iter().enumerate() {
            parts.push(IndexPart { platform: platform.clone(), staged_by: steps.len(), built_by });
            steps.push(stage(ids, built_by, &steps[built_by], repositories.clone()));
        }
        let after = parts.iter().map(|part| part.staged_by).collect();
        let name = |image| PushedName { image, from: PushedFrom::Index(parts.clone()) };
        let push = PushWork::new(images.into_iter().map(name).collect());
        step("push", after, PUSH_STEP_TIMEOUT, Work::Push(push))
    }

    /// The build arguments, rendered.
    fn arguments(&self, variables: &RunVariables, room: &mut usize) -> Result<Vec<BuildArgument>, PlanError> {
        self.arguments
            .iter()
            .map(|argument| {
                let value = match &argument.value {
                    ArgumentValue::Plain(text) => {
                        ArgumentValue::Plain(render_part("build argument", text, variables, room)?)
                    }
                    kept @ (ArgumentValue::Secret | ArgumentValue::Kept(_)) => kept.clone(),
                };
                Ok(BuildArgument { name: argument.name.clone(), value })
            })
            .collect()
    }

    /// The labels, rendered.
    fn labels(&self, variables: &RunVariables, room: &mut usize) -> Result<Vec<(String, String)>, PlanError> {
        let labels = self.labels.iter();
        labels.map(|(name, value)| Ok((name.clone(), render_part("label", value, variables, room)?))).collect()
    }

    fn check(&self) -> Result<(), PlanError> {
        if let Some(platform) = self.all_platforms().into_iter().find(|platform| platform.os() != "linux") {
            return Err(PlanError::Platform(platform));
        }
        let path = &self.dockerfile;
        if path.is_empty() {
            return Err(PlanError::Empty("the Dockerfile's path"));
        }
        if !is_inside(path) {
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

    /// The image names, rendered, in the embedded registry unless they name another, tagged, without repetitions, in order.
    fn images(
        &self,
        variables: &RunVariables,
        own: &RegistryName,
        room: &mut usize,
    ) -> Result<Vec<ImageRef>, PlanError> {
        let mut images: Vec<ImageRef> = Vec::new();
        for name in &self.image_names {
            let image = self.image(name, variables, own, room)?;
            if !images.contains(&image) {
                images.push(image);
            }
        }
        Ok(images)
    }

    fn image(
        &self,
        name: &str,
        variables: &RunVariables,
        own: &RegistryName,
        room: &mut usize,
    ) -> Result<ImageRef, PlanError> {
        let text = render_part("image name", name, variables, room)?;
        let image = ImageRef::parse(&text).map_err(|source| PlanError::Image { text: text.clone(), source })?;
        if image.digest.is_some() {
            return Err(PlanError::ImageDigest(text));
        }
        let image = image.in_registry_by_default(own).tagged_by_default();
        match &image.registry {
            Some(registry) if registry != own && !self.elsewhere => {
                let (registry, own) = (registry.clone(), own.clone());
                Err(PlanError::ForeignRegistry { image: text, registry, own })
            }
            _ => Ok(image),
        }
    }
}

/// Whether a path is relative and stays inside of what it is relative to, however it is read.
pub fn is_inside(path: &str) -> bool {
    !path.starts_with('/')
        && !path.split('/').any(|part| part == "..")
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
}

/// A text, rendered, that takes its bytes from the room that there is.
fn render_part(
    part: &'static str,
    text: &str,
    variables: &RunVariables,
    room: &mut usize,
) -> Result<String, PlanError> {
    if text.contains('\0') {
        return Err(PlanError::Nul(part));
    }
    let failed = |source| PlanError::Template { part, text: text.chars().take(160).collect(), source };
    let rendered = render(text, variables, *room).map_err(failed)?;
    *room -= rendered.len();
    Ok(rendered)
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
    PlannedStep::new(step_id(id), 0, after, timeout, work)
}

fn step_id(id: &str) -> StepId {
    StepId::parse(id).expect("`prepare`, `build` and `push` are step ids")
}

#[cfg(test)]
mod tests;
