//! Each step's work on its agent.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{ImageRef, Platform, Tag};

use super::crossing::{Base, Crossing, Node, Pushed};
use super::fault::StepFault;
use super::images::OwnImages;
use super::texts::Texts;
use super::{TaskPlanError, isolation, places};
use crate::plan::{
    ArgumentValue, BuildArgument, BuildContext, BuildWork, CommandImage, CommandWork, IndexPart, Mount, NodeIds,
    PlannedStep, PushWork, PushedFrom, PushedName, SecretFile, StagedBase, Text, Tries, Work, stage,
};
use crate::source::RemoteSource;
use crate::task::{
    self, BuildLine, BuildSecretSource, Cache, CmdLine, DEFAULT_NETWORK, Faults, Isolation, Loaded, StepNetwork, Task,
    TaskStep, TaskWork,
};

/// Plans the steps of `task`; `shown` is the same file with other secrets. All that can't be planned is told together, each
/// at its step's place.
pub(super) fn plan(
    task: &Task,
    shown: &Loaded,
    images: &OwnImages<'_>,
    crossing: &Crossing<'_>,
    texts: &mut Texts,
) -> Result<Vec<PlannedStep>, TaskPlanError> {
    let Loaded { task: shown, places, .. } = shown;
    let is_same = |(step, shown): (&TaskStep, &TaskStep)| step.id == shown.id && step.after == shown.after;
    if task.steps.len() != shown.steps.len() || !task.steps.iter().zip(&shown.steps).all(is_same) {
        return Err(TaskPlanError::ShapeOfSecret);
    }
    let (placements, stages) = (crossing.placements(), crossing.stages());
    let shared = task.networks.is_empty() && !isolation::is_observable(task, &placements);
    let ids = NodeIds::beside(task.steps.iter().map(|step| &step.id));
    let mut planner = Planner {
        task,
        placements,
        images,
        crossing,
        shared,
        texts,
        ids,
        nodes: BTreeMap::new(),
        stages: BTreeMap::new(),
        planned: Vec::with_capacity(task.steps.len()),
    };
    let mut faults = Vec::new();
    for (index, (step, shown_step)) in task.steps.iter().zip(&shown.steps).enumerate() {
        let nodes = || (0..crossing.platforms(index).len()).map(|at| Node { step: index, at });
        let checked = check_shown(task, shown, index);
        let planned = checked.and_then(|()| nodes().try_for_each(|node| planner.node(node, step, shown_step)));
        if let Err(fault) = planned {
            faults.push(fault.at(&step.id, &places[index]));
            nodes().for_each(|node| planner.stand_in(node, step));
        }
        for node in nodes() {
            if let Some(staged) = stages.get(&node) {
                let stage = planner.stage(node, staged.images.clone(), &[], staged.is_ignored);
                planner.stages.insert(node, stage);
            }
        }
    }
    match faults.is_empty() {
        true => Ok(planner.planned),
        false => Err(TaskPlanError::File(Faults::new(faults))),
    }
}

/// A build's secrets: files of the run, and texts by their ids.
type BuildSecrets = (Vec<SecretFile>, Vec<(String, Text)>);

struct Planner<'a> {
    task: &'a Task,
    placements: Vec<Platform>,
    images: &'a OwnImages<'a>,
    crossing: &'a Crossing<'a>,
    /// Whether the steps share one network namespace.
    shared: bool,
    texts: &'a mut Texts,
    ids: NodeIds,
    /// Indexes in the plan of what was planned of the file's steps.
    nodes: BTreeMap<Node, usize>,
    /// And of the stages in the embedded registry.
    stages: BTreeMap<Node, usize>,
    planned: Vec<PlannedStep>,
}

impl Planner<'_> {
    /// Plans a step's part for one of its platforms.
    fn node(&mut self, node: Node, step: &TaskStep, shown: &TaskStep) -> Result<(), StepFault> {
        // Who waits for a step waits for all that became of it; for a stage waits who needs what it left.
        let waits = |parent: &usize| self.nodes.range(Node { step: *parent, at: 0 }..Node { step: parent + 1, at: 0 });
        let waits: Vec<usize> = step.after.iter().flat_map(waits).map(|(_, index)| *index).collect();
        let (work, needed) = match (&step.work, &shown.work) {
            (TaskWork::Cmd(line), TaskWork::Cmd(shown_line)) => {
                (Work::Command(self.command(node, step, line, shown, shown_line)?), Vec::new())
            }
            (TaskWork::Build(line), TaskWork::Build(shown_line)) => {
                let build = self.build(node, step, line, shown, shown_line)?;
                let needed = build.staged_bases.iter().map(|base| base.staged_by).collect();
                (Work::Build(build), needed)
            }
            (TaskWork::Push(names), TaskWork::Push(_)) => {
                let push = self.push(node, names, &waits)?;
                let needed = push.names.iter().flat_map(|name| name.from.steps()).collect();
                (Work::Push(push), needed)
            }
            (TaskWork::Cmd(_) | TaskWork::Build(_) | TaskWork::Push(_), _) => {
                return Err(StepFault::SecretIn(step.work.kind()));
            }
        };
        let tries = Tries {
            start_delay: step.start_delay,
            retries: step.retries,
            retry_delay: step.retry_delay,
            retry_on_errors: step.retry_on_errors.clone(),
            repeat: step.repeat,
        };
        let after: BTreeSet<usize> = waits.into_iter().chain(needed).collect();
        let id = match self.crossing.platforms(node.step) {
            [_] => step.id.clone(),
            many => self.ids.of_platform(&step.id, &many[node.at]),
        };
        let planned = PlannedStep {
            id,
            placement: self.placement(node),
            after: after.into_iter().collect(),
            timeout: step.timeout,
            ignore_errors: step.ignore_errors,
            // What is tried once needs no rules for more.
            tries: if tries.retries == 0 && tries.repeat == 0 {
                Tries { start_delay: tries.start_delay, ..Tries::default() }
            } else {
                tries
            },
            work,
        };
        self.nodes.insert(node, self.planned.len());
        self.planned.push(planned);
        Ok(())
    }

    /// Puts something in the place of what can't be planned: what is wrong with the steps behind it is told, too.
    fn stand_in(&mut self, node: Node, step: &TaskStep) {
        if !self.nodes.contains_key(&node) {
            let work = Work::Push(PushWork::new(Vec::new()));
            let stand_in = PlannedStep::new(step.id.clone(), self.placement(node), Vec::new(), step.timeout, work);
            self.nodes.insert(node, self.planned.len());
            self.planned.push(stand_in);
        }
    }

    /// Plans what leaves a node's image for other placements, when `waits` are done, and says where it is in the plan.
    fn stage(&mut self, node: Node, images: Vec<ImageRef>, waits: &[usize], is_ignored: bool) -> usize {
        let built_by = self.nodes[&node];
        let mut stage = stage(&mut self.ids, built_by, &self.planned[built_by], images);
        let after: BTreeSet<usize> = stage.after.iter().chain(waits).copied().collect();
        stage.after = after.into_iter().collect();
        stage.ignore_errors |= is_ignored;
        self.planned.push(stage);
        self.planned.len() - 1
    }

    /// Plans what brings the parts of a push's names to other registries. They can be seen there: nothing is brought before
    /// the push itself could begin.
    fn outside_stages(&mut self, step: usize, names: &[ImageRef], waits: &[usize]) -> BTreeMap<Node, usize> {
        let mut parts: BTreeMap<Node, Vec<ImageRef>> = BTreeMap::new();
        for name in names.iter().filter(|name| !self.images.is_ours(name)) {
            for node in self.crossing.taken(step, name) {
                let image = self.crossing.staged_at(node, name);
                let images = parts.entry(node).or_default();
                if !images.contains(&image) {
                    images.push(image);
                }
            }
        }
        let is_ignored = self.task.steps[step].ignore_errors;
        parts.into_iter().map(|(node, images)| (node, self.stage(node, images, waits, is_ignored))).collect()
    }

    fn platform(&self, node: Node) -> &Platform {
        &self.crossing.platforms(node.step)[node.at]
    }

    /// Whether a step's paths are Windows': those of a build for several platforms are the first one's.
    fn is_windows(&self, step: &TaskStep) -> bool {
        step.platforms.first().unwrap_or(self.crossing.default_platform()).os() == "windows"
    }

    fn placement(&self, node: Node) -> usize {
        let platform = self.platform(node);
        self.placements.iter().position(|one| one == platform).expect("a placement was made for each platform")
    }

    fn command(
        &mut self,
        node: Node,
        step: &TaskStep,
        line: &CmdLine,
        shown: &TaskStep,
        shown_line: &CmdLine,
    ) -> Result<CommandWork, StepFault> {
        let wanted = self.platform(node);
        let image = match self.crossing.built_for(node.step, &line.image, wanted) {
            Some(built) => CommandImage::Built { step: self.nodes[&built] },
            None => match self.images.builders(node.step, &line.image).next() {
                Some(builder) => {
                    return Err(StepFault::OtherPlatform {
                        wanted: Box::new(wanted.clone()),
                        image: Box::new(line.image.clone()),
                        built_by: self.task.steps[builder].id.clone(),
                        built: self.crossing.platforms(builder).to_vec(),
                    });
                }
                None => CommandImage::Named(line.image.to_string()),
            },
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
            terminal: line.tty,
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
        node: Node,
        step: &TaskStep,
        line: &BuildLine,
        shown: &TaskStep,
        shown_line: &BuildLine,
    ) -> Result<BuildWork, StepFault> {
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
                RemoteSource::parse(source).map_err(StepFault::Context)?;
                (BuildContext::Remote { source: source.clone(), found: None }, dockerfile)
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
        let (mut own_bases, mut staged_bases) = (Vec::new(), Vec::new());
        for image in self.images.known(node.step) {
            let name = image.to_string();
            match self.crossing.base(node.step, &image, self.platform(node)) {
                Some(Base::Here(built)) => own_bases.push((name, self.nodes[&built])),
                Some(Base::Elsewhere(built, image)) => {
                    staged_bases.push(StagedBase { name, image, staged_by: self.stages[&built] });
                }
                None => {}
            }
        }
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
                Cache::Enabled(Some(name)) if self.crossing.platforms(node.step).len() > 1 => {
                    task::cache_of_platform(name, self.platform(node)).ok()
                }
                Cache::Enabled(name) => name.clone(),
                Cache::Disabled => None,
            },
            own_bases,
            staged_bases,
            ..BuildWork::new(context, &dockerfile)
        })
    }

    /// The build's secrets: files of mounted volumes, and values of the step's environment.
    fn build_secrets(
        &mut self,
        step: &TaskStep,
        line: &BuildLine,
        shown: &TaskStep,
    ) -> Result<BuildSecrets, StepFault> {
        let (mut files, mut values) = (Vec::new(), Vec::new());
        for secret in &line.secrets {
            match &secret.source {
                BuildSecretSource::File(path) => {
                    let file = places::mounted_file(self.task, step, path);
                    let file = file.map(|(volume, file)| SecretFile {
                        id: secret.id.clone(),
                        volume: volume.to_owned(),
                        file: file.to_owned(),
                    });
                    let (id, path) = (secret.id.clone(), path.clone());
                    files.push(file.ok_or(StepFault::SecretFile { id, path })?);
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

    fn push(&mut self, node: Node, names: &[ImageRef], waits: &[usize]) -> Result<PushWork, StepFault> {
        let mut found: Vec<(ImageRef, Pushed)> = Vec::with_capacity(names.len());
        for name in names {
            let image = self.images.plain(name);
            let pushed =
                self.crossing.pushed(node.step, name).ok_or_else(|| StepFault::NotBuilt(Box::new(name.clone())))?;
            found.push((image, pushed));
        }
        let outside = self.outside_stages(node.step, names, waits);
        let mut pushed: Vec<PushedName> = Vec::with_capacity(names.len());
        for (image, found) in found {
            let stages = if self.images.is_ours(&image) { &self.stages } else { &outside };
            let from = match found {
                Pushed::Here(built) => PushedFrom::Built(self.nodes[&built]),
                Pushed::Elsewhere(built) => PushedFrom::Staged(stages[&built]),
                Pushed::Several(built) => {
                    let part = |built: Node| IndexPart {
                        platform: self.platform(built).clone(),
                        staged_by: stages[&built],
                        built_by: self.nodes[&built],
                    };
                    PushedFrom::Index(built.into_iter().map(part).collect())
                }
            };
            let image = ImageRef { tag: Some(image.tag.unwrap_or_else(Tag::latest)), ..image };
            if !pushed.iter().any(|other| other.image == image) {
                pushed.push(PushedName { image, from });
            }
        }
        Ok(PushWork::new(pushed))
    }

    /// A path of the step, relative to the workspace's root.
    fn in_workspace(&self, step: &TaskStep, path: &str) -> Result<String, StepFault> {
        places::in_workspace(&step.working_directory, path, self.is_windows(step))
            .ok_or_else(|| StepFault::OutsideWorkspace(path.to_owned()))
    }
}

/// Refuses secrets in what everybody sees: names, images, times, switches.
fn check_shown(task: &Task, other: &Task, index: usize) -> Result<(), StepFault> {
    let (step, shown) = (&task.steps[index], &other.steps[index]);
    let refused = |property| Err(StepFault::SecretIn(property));
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
        return refused(task.other_setting(other, index).unwrap_or("one of its settings"));
    }
    Ok(())
}
