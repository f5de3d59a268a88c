//! Each step's work on its agent.

use cooper_types::{ImageRef, Platform, Tag};

use super::images::OwnImages;
use super::texts::Texts;
use super::{TaskPlanError, TaskPlanRequest, isolation, places};
use crate::plan::{
    ArgumentValue, BuildArgument, BuildContext, BuildWork, CommandImage, CommandWork, Mount, PlannedStep, PushWork,
    PushedName, SecretFile, Text, Tries, Work,
};
use crate::task::{
    self, BuildLine, BuildSecretSource, Cache, CmdLine, DEFAULT_NETWORK, Isolation, StepNetwork, Task, TaskStep,
    TaskWork,
};

/// Plans the steps of `task`; `shown` is the same file with other secrets.
pub(super) fn plan(
    task: &Task,
    shown: &Task,
    request: &TaskPlanRequest<'_>,
    placements: &[Platform],
    texts: &mut Texts,
) -> Result<Vec<PlannedStep>, TaskPlanError> {
    if task.steps.len() != shown.steps.len() {
        return Err(TaskPlanError::ShapeOfSecret);
    }
    let images = OwnImages::new(task, request.registry);
    let shared = task.networks.is_empty() && !isolation::is_observable(task, placements);
    let mut planner = Planner { task, request, placements, images, shared, texts };
    task.steps
        .iter()
        .zip(&shown.steps)
        .enumerate()
        .map(|(index, (step, shown))| planner.step(index, step, shown))
        .collect()
}

/// A build's secrets: files of the run, and texts by their ids.
type BuildSecrets = (Vec<SecretFile>, Vec<(String, Text)>);

struct Planner<'a> {
    task: &'a Task,
    request: &'a TaskPlanRequest<'a>,
    placements: &'a [Platform],
    images: OwnImages<'a>,
    /// Whether the steps share one network namespace.
    shared: bool,
    texts: &'a mut Texts,
}

impl Planner<'_> {
    fn step(&mut self, index: usize, step: &TaskStep, shown: &TaskStep) -> Result<PlannedStep, TaskPlanError> {
        check_shown(step, shown)?;
        if step.platforms.len() > 1 {
            return Err(TaskPlanError::SeveralPlatforms { step: step.id.clone() });
        }
        let placement = self.placement(step);
        let work = match (&step.work, &shown.work) {
            (TaskWork::Cmd(line), TaskWork::Cmd(shown_line)) => {
                Work::Command(self.command(index, step, line, shown, shown_line)?)
            }
            (TaskWork::Build(line), TaskWork::Build(shown_line)) => {
                Work::Build(self.build(index, step, line, shown, shown_line)?)
            }
            (TaskWork::Push(names), TaskWork::Push(_)) => Work::Push(self.push(index, step, names)?),
            (TaskWork::Cmd(_) | TaskWork::Build(_) | TaskWork::Push(_), _) => return Err(TaskPlanError::ShapeOfSecret),
        };
        let tries = Tries {
            start_delay: step.start_delay,
            retries: step.retries,
            retry_delay: step.retry_delay,
            retry_on_errors: step.retry_on_errors.clone(),
            repeat: step.repeat,
        };
        Ok(PlannedStep {
            id: step.id.clone(),
            placement,
            after: step.after.clone(),
            timeout: step.timeout,
            ignore_errors: step.ignore_errors,
            // What is tried once needs no rules for more.
            tries: if tries.retries == 0 && tries.repeat == 0 {
                Tries { start_delay: tries.start_delay, ..Tries::default() }
            } else {
                tries
            },
            work,
        })
    }

    fn platform<'s>(&'s self, step: &'s TaskStep) -> &'s Platform {
        step.platforms.first().unwrap_or(self.request.platform)
    }

    fn is_windows(&self, step: &TaskStep) -> bool {
        self.platform(step).os() == "windows"
    }

    fn placement(&self, step: &TaskStep) -> usize {
        let platform = self.platform(step);
        self.placements.iter().position(|one| one == platform).expect("a placement was made for each platform")
    }

    fn command(
        &mut self,
        index: usize,
        step: &TaskStep,
        line: &CmdLine,
        shown: &TaskStep,
        shown_line: &CmdLine,
    ) -> Result<CommandWork, TaskPlanError> {
        let image = match self.images.builder(index, &line.image) {
            Some(built_by) => {
                self.same_platform(step, &line.image, built_by)?;
                CommandImage::Built { step: built_by }
            }
            None => CommandImage::Named(line.image.to_string()),
        };
        let network = match &step.network {
            _ if self.shared => None,
            StepNetwork::Run => Some(DEFAULT_NETWORK.to_owned()),
            StepNetwork::Named(name) => Some(name.clone()),
            StepNetwork::Bridge => None,
        };
        let mounts = step.volume_mounts.iter().map(|mount| Mount {
            volume: self.task.volumes[mount.volume].name.clone(),
            path: mount.mount_path.clone(),
        });
        Ok(CommandWork {
            image,
            arguments: self.texts.row(&step.id, "cmd", &line.words, &shown_line.words),
            environment: self.environment(step, shown),
            entry_point: step.entry_point.clone(),
            working_directory: (!step.disable_working_directory_override).then(|| step.working_directory.clone()),
            user: step.user.clone(),
            network,
            ports: step.ports.clone(),
            expose: step.expose.clone(),
            mounts: mounts.collect(),
            cpus: step.cpus.clone(),
            isolation: self.isolation(step).map(|isolation| isolation.as_str().to_owned()),
            privileged: step.privileged,
            keep: step.keep,
            detach: step.detach,
            pull: step.pull,
            pull_retries: step.cmd_download_retries,
            pull_retry_delay: step.cmd_download_retry_delay,
        })
    }

    /// Containers of Windows are virtual machines where nobody says otherwise (contract §1.4).
    fn isolation(&self, step: &TaskStep) -> Option<Isolation> {
        step.isolation.or(self.is_windows(step).then_some(Isolation::Hyperv))
    }

    fn environment(&mut self, step: &TaskStep, shown: &TaskStep) -> Vec<(String, Text)> {
        let other = |name: &str| shown.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        let text = |(name, value): &(String, String)| {
            (name.clone(), self.texts.text(&step.id, &format!("env/{name}"), value, other(name)))
        };
        step.env.iter().map(text).collect()
    }

    fn build(
        &mut self,
        index: usize,
        step: &TaskStep,
        line: &BuildLine,
        shown: &TaskStep,
        shown_line: &BuildLine,
    ) -> Result<BuildWork, TaskPlanError> {
        let (context, dockerfile) = match &line.context {
            task::BuildContext::Local(path) => {
                let folder = self.in_workspace(step, path)?;
                let dockerfile = match &line.dockerfile {
                    None => "Dockerfile".to_owned(),
                    // It is relative to where the step works, not to the context (contract §2.6).
                    Some(path) => places::relative_to(&folder, &self.in_workspace(step, path)?),
                };
                (BuildContext::Workspace { folder }, dockerfile)
            }
            task::BuildContext::Git(source) | task::BuildContext::Tarball(source) | task::BuildContext::Oci(source) => {
                let dockerfile = line.dockerfile.clone().unwrap_or_else(|| "Dockerfile".to_owned());
                (BuildContext::Remote { source: source.clone() }, dockerfile)
            }
        };
        let mut arguments = Vec::with_capacity(line.arguments.len());
        for (position, (name, value)) in line.arguments.iter().enumerate() {
            let other = shown_line.arguments.get(position).filter(|(other, _)| other == name);
            let place = format!("build-arg/{position}");
            let value = match self.texts.text(&step.id, &place, value, other.map(|(_, value)| value.as_str())) {
                Text::Plain(text) => ArgumentValue::Plain(text),
                Text::Secret(name) => ArgumentValue::Kept(name),
            };
            arguments.push(BuildArgument { name: name.clone(), value });
        }
        let (secret_files, secret_texts) = self.build_secrets(step, line, shown)?;
        let own_bases = self.images.known(index).into_iter();
        let here = |built_by: &usize| self.platform(&self.task.steps[*built_by]) == self.platform(step);
        let own_bases = own_bases.filter(|(_, built_by)| here(built_by));
        Ok(BuildWork {
            target: line.target.clone(),
            arguments,
            labels: line.labels.clone(),
            no_cache: line.no_cache,
            secret_files,
            secret_texts,
            network: line.network.clone(),
            add_hosts: line.add_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect(),
            cache: match &step.cache {
                Cache::Enabled(reference) => reference.clone(),
                Cache::Disabled => None,
            },
            own_bases: own_bases.map(|(image, built_by)| (image.to_string(), built_by)).collect(),
            ..BuildWork::new(context, &dockerfile)
        })
    }

    /// The build's secrets: files of mounted volumes, and values of the step's environment.
    fn build_secrets(
        &mut self,
        step: &TaskStep,
        line: &BuildLine,
        shown: &TaskStep,
    ) -> Result<BuildSecrets, TaskPlanError> {
        let (mut files, mut values) = (Vec::new(), Vec::new());
        for secret in &line.secrets {
            match &secret.source {
                BuildSecretSource::File(path) => {
                    let file = places::mounted_file(self.task, step, path, self.is_windows(step));
                    let file = file.map(|(volume, file)| SecretFile {
                        id: secret.id.clone(),
                        volume: volume.to_owned(),
                        file: file.to_owned(),
                    });
                    let (id, path) = (secret.id.clone(), path.clone());
                    files.push(file.ok_or(TaskPlanError::SecretFile { step: step.id.clone(), id, path })?);
                }
                BuildSecretSource::Env(name) => {
                    let value = self.environment(step, shown).into_iter().find(|(other, _)| other == name);
                    let value = value.map_or_else(|| Text::Plain(String::new()), |(_, value)| value);
                    values.push((secret.id.clone(), value));
                }
            }
        }
        Ok((files, values))
    }

    fn push(&self, index: usize, step: &TaskStep, names: &[ImageRef]) -> Result<PushWork, TaskPlanError> {
        let mut pushed: Vec<PushedName> = Vec::with_capacity(names.len());
        for name in names {
            let image = self.images.plain(name);
            if image.digest.is_some() {
                return Err(TaskPlanError::PushOfDigest { step: step.id.clone(), image: Box::new(image) });
            }
            let built_by = self.images.builder(index, name);
            let built_by = built_by
                .ok_or_else(|| TaskPlanError::NotBuilt { step: step.id.clone(), image: Box::new(name.clone()) })?;
            self.same_platform(step, name, built_by)?;
            let image = ImageRef { tag: Some(image.tag.unwrap_or_else(Tag::latest)), ..image };
            if !pushed.iter().any(|other| other.image == image) {
                pushed.push(PushedName { image, built_by });
            }
        }
        Ok(PushWork { names: pushed })
    }

    /// An image is on the engine that built it.
    fn same_platform(&self, step: &TaskStep, image: &ImageRef, built_by: usize) -> Result<(), TaskPlanError> {
        let builder = &self.task.steps[built_by];
        if self.platform(builder) == self.platform(step) {
            return Ok(());
        }
        Err(TaskPlanError::OtherPlatform {
            step: step.id.clone(),
            wanted: Box::new(self.platform(step).clone()),
            image: Box::new(image.clone()),
            built_by: builder.id.clone(),
            built: Box::new(self.platform(builder).clone()),
        })
    }

    /// A path of the step, relative to the workspace's root.
    fn in_workspace(&self, step: &TaskStep, path: &str) -> Result<String, TaskPlanError> {
        places::in_workspace(&step.working_directory, path, self.is_windows(step))
            .ok_or_else(|| TaskPlanError::OutsideWorkspace { step: step.id.clone(), path: path.to_owned() })
    }
}

/// Refuses secrets in what everybody sees: names, images, times, switches.
fn check_shown(step: &TaskStep, shown: &TaskStep) -> Result<(), TaskPlanError> {
    if step.id != shown.id || step.after != shown.after {
        return Err(TaskPlanError::ShapeOfSecret);
    }
    let refused = |property| Err(TaskPlanError::SecretInProperty { step: step.id.clone(), property });
    match (&step.work, &shown.work) {
        (TaskWork::Cmd(line), TaskWork::Cmd(other)) if line.image != other.image => return refused("cmd (its image)"),
        (TaskWork::Build(line), TaskWork::Build(other)) => {
            let names = |line: &BuildLine| line.arguments.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let bare = |line: &BuildLine| BuildLine { arguments: Vec::new(), ..line.clone() };
            if names(line) != names(other) || bare(line) != bare(other) {
                return refused("build (outside of --build-arg values)");
            }
        }
        (TaskWork::Push(names), TaskWork::Push(others)) if names != others => return refused("push"),
        _ => {}
    }
    let names = |step: &TaskStep| step.env.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if names(step) != names(shown) {
        return refused("env (its names)");
    }
    let bare = |step: &TaskStep| TaskStep { env: Vec::new(), work: TaskWork::Push(Vec::new()), ..step.clone() };
    if bare(step) != bare(shown) {
        return refused("one of its settings");
    }
    Ok(())
}
