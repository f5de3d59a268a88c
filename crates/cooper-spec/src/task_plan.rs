//! From a loaded task file to a plan: placements, resolved images, and texts without secrets.
//!
//! Owns what a file's steps become on agents. What a file means is `task`'s, what an agent does with a step its own.
//!
//! A plan holds no secret. The file is therefore loaded twice, with the secrets' values and with others in their place: a
//! text that differs holds a secret, and stands in the plan by a name alone (`texts`). See docs/decisions/0029.

mod crossing;
mod error;
mod fault;
mod images;
mod isolation;
mod places;
mod steps;
mod texts;

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{ContextId, Platform, RegistryName, Scopes, SecretString};

use crossing::Crossing;
pub use error::TaskPlanError;
use images::OwnImages;

use crate::plan::{Environment, Network, Plan, PlannedPlacement, SecretVolume, Text};
use crate::task::{self, AliasSource, Fault, Faults, Loaded, Task, TaskInputs, WantedSecret};

/// What stands for a secret in the second load. Letters, digits and base64 of such, so that what the first load takes
/// the second one takes as well.
const FILLER: &str = "Q29vcGVyRmlsbGVy";

/// What is to be planned.
#[derive(Clone, Debug)]
pub struct TaskPlanRequest<'a> {
    /// The file with everything that was fetched for it.
    pub inputs: &'a TaskInputs,
    /// What steps run for that don't say it themselves.
    pub platform: &'a Platform,
    /// The embedded registry's name.
    pub registry: &'a RegistryName,
    /// What the workspace is filled with.
    pub context: Option<&'a ContextId>,
    /// What the run may do: images are staged for builds that may stand on them where it may push.
    pub scopes: &'a Scopes,
}

/// A planned task.
#[derive(Clone, Debug)]
pub struct PlannedTask {
    /// What is done.
    pub plan: Plan,
    /// The secret texts by the names that the plan has for them, and the secrets themselves: all are to be masked.
    pub texts: BTreeMap<String, SecretString>,
    /// What the file's author should know.
    pub warnings: Vec<Fault>,
}

/// Plans a task file.
pub fn plan(request: &TaskPlanRequest<'_>) -> Result<PlannedTask, TaskPlanError> {
    let loaded = load(request.inputs)?;
    let shown = load_shown(request.inputs, &loaded)?;
    check_shared(&loaded.task, &shown.task)?;
    let mut texts = texts::Texts::new(request.inputs);
    let images = OwnImages::new(&loaded.task, request.registry);
    let crossing = Crossing::new(&loaded.task, &images, request.platform, request.scopes);
    let steps = steps::plan(&loaded.task, &shown, &images, &crossing, &mut texts)?;
    let volumes = volumes(&loaded.task, &mut texts);
    let placements = crossing.placements();
    let networks: Vec<Vec<Network>> =
        placements.iter().map(|platform| networks(&loaded.task, &placements, platform)).collect();
    let placements = placements.into_iter().zip(networks).map(|(platform, networks)| {
        let volumes = mounted(&loaded.task, &crossing, &platform, &volumes);
        let environment = Environment { context: request.context.cloned(), networks, volumes };
        PlannedPlacement { platform, environment: Some(environment) }
    });
    let plan = Plan { placements: placements.collect(), steps };
    // Warnings go into the log, and they may quote what a template made of a secret.
    Ok(PlannedTask { plan, texts: texts.into_inner(), warnings: shown.warnings })
}

/// The files and URLs that a file takes aliases from. None depends on a secret: URLs and errors would show it.
pub fn alias_sources(inputs: &TaskInputs) -> Result<Vec<AliasSource>, TaskPlanError> {
    without_secrets(inputs, "alias.src", task::alias_sources)
}

/// The secrets that a file names. None of the places depends on a secret: errors and records show them.
pub fn wanted_secrets(inputs: &TaskInputs) -> Result<Vec<WantedSecret>, TaskPlanError> {
    without_secrets(inputs, "secrets", task::wanted_secrets)
}

/// What a file says with its secrets and with fillers alike. Its faults are told with fillers.
fn without_secrets<T: PartialEq>(
    inputs: &TaskInputs,
    property: &'static str,
    read: impl Fn(&TaskInputs) -> Result<T, Faults>,
) -> Result<T, TaskPlanError> {
    if !has_secrets(inputs) {
        return read(inputs).map_err(TaskPlanError::File);
    }
    let shown = read(&filled(inputs)).map_err(TaskPlanError::File)?;
    match read(inputs) {
        Ok(real) if real == shown => Ok(shown),
        Ok(_) => Err(TaskPlanError::SecretInFile { property }),
        Err(_) => Err(TaskPlanError::OnlyWithSecrets),
    }
}

/// Refuses secrets in the names of what all steps share. The contents of volumes may be some.
fn check_shared(task: &Task, shown: &Task) -> Result<(), TaskPlanError> {
    let names = |task: &Task| -> Vec<(String, Vec<String>)> {
        let name = |volume: &task::TaskVolume| (volume.name.clone(), volume.files.keys().cloned().collect());
        task.volumes.iter().map(name).collect()
    };
    if names(task) != names(shown) {
        return Err(TaskPlanError::SecretInFile { property: "volumes (its names)" });
    }
    if task.networks != shown.networks {
        return Err(TaskPlanError::SecretInFile { property: "networks" });
    }
    Ok(())
}

fn load(inputs: &TaskInputs) -> Result<Loaded, TaskPlanError> {
    task::load(inputs).map_err(|faults| match has_secrets(inputs) {
        false => TaskPlanError::File(faults),
        // A fault shows its line, and the line may show a secret: the file is told as it reads with fillers.
        true => match task::load(&filled(inputs)) {
            Err(faults) => TaskPlanError::File(faults),
            Ok(_) => TaskPlanError::OnlyWithSecrets,
        },
    })
}

/// The file with fillers in place of its secrets; itself, if it has none.
fn load_shown(inputs: &TaskInputs, loaded: &Loaded) -> Result<Loaded, TaskPlanError> {
    if !has_secrets(inputs) {
        return Ok(loaded.clone());
    }
    task::load(&filled(inputs)).map_err(|_| TaskPlanError::ShapeOfSecret)
}

fn has_secrets(inputs: &TaskInputs) -> bool {
    !inputs.secrets.is_empty() || inputs.set.iter().any(|set| set.secret)
}

fn filled(inputs: &TaskInputs) -> TaskInputs {
    let mut inputs = inputs.clone();
    inputs.secrets.values_mut().for_each(|value| *value = SecretString::new(FILLER.to_owned()));
    inputs.set.iter_mut().filter(|set| set.secret).for_each(|set| set.value = FILLER.to_owned());
    inputs
}

fn volumes(task: &Task, texts: &mut texts::Texts) -> Vec<SecretVolume> {
    let files = |volume: &task::TaskVolume, texts: &mut texts::Texts| {
        let file = |(name, data): (&String, _)| (name.clone(), texts.file(&volume.name, name, data));
        volume.files.iter().map(file).collect::<Vec<(String, Text)>>()
    };
    task.volumes.iter().map(|volume| SecretVolume { name: volume.name.clone(), files: files(volume, texts) }).collect()
}

/// The volumes that steps of a placement mount: not every engine can make one.
fn mounted(task: &Task, crossing: &Crossing<'_>, platform: &Platform, volumes: &[SecretVolume]) -> Vec<SecretVolume> {
    let is_there = |(index, _): &(usize, &task::TaskStep)| crossing.platforms(*index).contains(platform);
    let steps = task.steps.iter().enumerate().filter(is_there);
    let mounted: BTreeSet<usize> = steps.flat_map(|(_, step)| &step.volume_mounts).map(|mount| mount.volume).collect();
    mounted.into_iter().map(|volume| volumes[volume].clone()).collect()
}

/// The networks of a placement; none where nothing can tell whether steps have namespaces of their own.
fn networks(task: &Task, placements: &[Platform], own: &Platform) -> Vec<Network> {
    let declared = task.networks.iter().map(|network| Network {
        name: network.name.clone(),
        driver: network.driver.clone(),
        ipv6: network.ipv6,
        external: network.skip_creation,
    });
    let declared: Vec<Network> = declared.collect();
    if !declared.is_empty() || !isolation::is_observable(task, placements) {
        return declared;
    }
    // Engines on Linux have `bridge` by themselves (contract §1.8).
    let driver = (own.os() == "windows").then(|| "nat".to_owned());
    vec![Network { name: task::DEFAULT_NETWORK.to_owned(), driver, ipv6: false, external: false }]
}

#[cfg(test)]
mod tests;
