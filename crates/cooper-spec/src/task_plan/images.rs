//! The run's own map of image names: which step built what a later step names.

use std::collections::BTreeSet;

use cooper_types::{ImageRef, RegistryName, Tag};

use super::isolation::ancestors;
use crate::task::{Task, TaskWork};

/// Which steps build which names.
pub(super) struct OwnImages<'a> {
    task: &'a Task,
    registry: &'a RegistryName,
    before: Vec<Vec<bool>>,
}

impl<'a> OwnImages<'a> {
    pub(super) fn new(task: &'a Task, registry: &'a RegistryName) -> Self {
        Self { task, registry, before: ancestors(task) }
    }

    /// The last step that has built this name for sure when `step` begins.
    pub(super) fn builder(&self, step: usize, image: &ImageRef) -> Option<usize> {
        let wanted = self.plain(image);
        (0..step).rev().filter(|index| self.before[step][*index]).find(|index| match &self.task.steps[*index].work {
            TaskWork::Build(build) => build.images.iter().any(|image| self.plain(image) == wanted),
            TaskWork::Cmd(_) | TaskWork::Push(_) => false,
        })
    }

    /// Every name that has been built when `step` begins, with its builder; the last builder of a name counts.
    pub(super) fn known(&self, step: usize) -> Vec<(&ImageRef, usize)> {
        let mut known: Vec<(&ImageRef, usize)> = Vec::new();
        let mut names = BTreeSet::new();
        for index in (0..step).rev().filter(|index| self.before[step][*index]) {
            let TaskWork::Build(build) = &self.task.steps[index].work else { continue };
            for image in &build.images {
                if names.insert(self.plain(image).to_string()) {
                    known.push((image, index));
                }
            }
        }
        known
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
