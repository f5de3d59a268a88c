//! The run's own map of image names: which step built what a later step names.

use std::collections::BTreeSet;

use cooper_types::{ImageRef, RegistryName, Tag};

use crate::task::{Task, TaskWork};

/// Which steps build which names.
pub(super) struct OwnImages<'a> {
    task: &'a Task,
    registry: &'a RegistryName,
    before: Vec<Vec<bool>>,
}

impl<'a> OwnImages<'a> {
    pub(super) fn new(task: &'a Task, registry: &'a RegistryName) -> Self {
        Self { task, registry, before: Task::ancestors(&task.steps) }
    }

    /// The steps that have built this name for sure when `step` begins, the last one first.
    pub(super) fn builders(&self, step: usize, image: &ImageRef) -> impl Iterator<Item = usize> {
        let wanted = self.plain(image);
        let builds = move |index: &usize| match &self.task.steps[*index].work {
            TaskWork::Build(build) => build.images.iter().any(|image| self.plain(image) == wanted),
            TaskWork::Cmd(_) | TaskWork::Push(_) => false,
        };
        (0..step).rev().filter(move |index| self.before[step][*index]).filter(builds)
    }

    /// Every name by which a Dockerfile can mean what has been built when `step` begins; each once, those of later steps first.
    /// One that was built without a registry is meant with the embedded one's name, too.
    pub(super) fn known(&self, step: usize) -> Vec<ImageRef> {
        let mut known: Vec<ImageRef> = Vec::new();
        let mut names = BTreeSet::new();
        for index in (0..step).rev().filter(|index| self.before[step][*index]) {
            let TaskWork::Build(build) = &self.task.steps[index].work else { continue };
            let spelled = build.images.iter().flat_map(|image| [self.plain(image), image.clone().tagged_by_default()]);
            known.extend(spelled.filter(|image| names.insert(image.to_string())));
        }
        known
    }

    /// Whether a name is the embedded registry's.
    pub(super) fn is_ours(&self, image: &ImageRef) -> bool {
        image.registry.as_ref().is_none_or(|registry| registry == self.registry)
    }

    /// A name in its longest form. One without a registry is the embedded one's: nothing else can be meant by `-t app`.
    pub(super) fn plain(&self, image: &ImageRef) -> ImageRef {
        let mut image = image.clone();
        image.registry.get_or_insert_with(|| self.registry.clone());
        if image.digest.is_none() {
            image.tag.get_or_insert_with(Tag::latest);
        }
        image
    }
}
