//! Where the images of a run go in the embedded registry, and where they are found again.

use cooper_spec::plan::{PushWork, PushedName, Work};
use cooper_types::{Access, AttemptNumber, ImageRef, Tag};

use super::{Run, RunSource, StepState, TagTarget};
use crate::message::{PushedManifest, StepOutput};
use crate::task::TagOrder;

impl Run {
    /// The tags that an attempt pushes images of the embedded registry under, and what each stands for: one for each
    /// repository and image.
    ///
    /// They are unique to the attempt, so that two runs of one image name never meet in an engine's local names.
    pub fn tag_targets(&self, step: usize, attempt: AttemptNumber) -> Vec<TagTarget> {
        let Work::Push(push) = &self.plan.steps[step].work else { return Vec::new() };
        let mut targets: Vec<TagTarget> = Vec::new();
        for PushedName { image, from } in &push.names {
            if image.registry.as_ref() != Some(&self.registry) {
                continue;
            }
            let tags = if push.is_stage { Vec::new() } else { vec![image.tag.clone().unwrap_or_else(Tag::latest)] };
            let same = |target: &&mut TagTarget| target.repository == image.repository && target.from == *from;
            if let Some(target) = targets.iter_mut().find(same) {
                target.tags.extend(tags);
                continue;
            }
            let others = targets.iter().filter(|target| target.repository == image.repository).count();
            let staging_tag = match others {
                0 => format!("staged.{}.{attempt}", self.id),
                others => format!("staged.{}.{attempt}.{others}", self.id),
            };
            let staging_tag = Tag::parse(&staging_tag).expect("a run id and numbers with dots between make a tag");
            targets.push(TagTarget {
                repository: image.repository.clone(),
                from: from.clone(),
                staging_tag,
                tags,
                digest: None,
            });
        }
        targets
    }

    /// The tags of other registries that a push moves in the task's order, each once. A stage's are not among them: others of
    /// the run name what it leaves by digest, so it has to leave it (decision 0061).
    pub fn outside_tags(&self, step: usize) -> Vec<ImageRef> {
        let Work::Push(PushWork { names, is_stage: false, .. }) = &self.plan.steps[step].work else {
            return Vec::new();
        };
        let mut tags = Vec::new();
        for PushedName { image, .. } in names {
            let tag = Some(image.tag.clone().unwrap_or_else(Tag::latest));
            let image = ImageRef { tag, digest: None, ..image.clone() };
            if image.registry.as_ref() != Some(&self.registry) && !tags.contains(&image) {
                tags.push(image);
            }
        }
        tags
    }

    /// Those of them that an attempt has moved, as its agent says, where it has done its work.
    pub fn moved_outside(&self, step: usize, attempt: AttemptNumber) -> Vec<ImageRef> {
        let StepState::Succeeded { attempt: done, output: StepOutput::Pushed { manifests }, .. } =
            &self.steps[step].state
        else {
            return Vec::new();
        };
        let is_moved = |image: &ImageRef| {
            let is_it = |manifest: &PushedManifest| {
                (&manifest.registry, &manifest.repository) == (&image.registry, &image.repository)
                    && Some(&manifest.staging_tag) == image.tag.as_ref()
            };
            *done == attempt && manifests.iter().any(is_it)
        };
        let mut tags = self.outside_tags(step);
        tags.retain(is_moved);
        tags
    }

    /// How the run is put in order with others of its task that move the same tags.
    pub fn tag_order(&self) -> Option<TagOrder> {
        let branch = self.source.as_ref().and_then(RunSource::found).and_then(|found| found.branch.as_deref());
        self.origin.tag_order(branch)
    }

    /// Where a build's cache is kept in the embedded registry, if the run may write there.
    pub fn own_cache(&self, step: usize) -> Option<&ImageRef> {
        let Work::Build(build) = &self.plan.steps[step].work else { return None };
        let cache = build.cache.as_ref().filter(|cache| cache.registry.as_ref() == Some(&self.registry));
        cache.filter(|cache| self.scopes.repository(&cache.repository, Access::Push))
    }

    /// Whether what an attempt staged stays when it ends: it was a stage, and did its work.
    pub fn keeps_staged(&self, step: usize, attempt: AttemptNumber) -> bool {
        let is_stage = matches!(&self.plan.steps[step].work, Work::Push(push) if push.is_stage);
        is_stage && matches!(&self.steps[step].state, StepState::Succeeded { attempt: done, .. } if *done == attempt)
    }

    /// Where a stage left an image that is to be found at `place`, by its digest.
    pub fn staged_image(&self, stage: usize, place: &ImageRef) -> Option<ImageRef> {
        let StepState::Succeeded { output: StepOutput::Pushed { manifests }, .. } = &self.steps.get(stage)?.state
        else {
            return None;
        };
        let digest = self.pushed_manifest(manifests, place)?.digest.clone();
        Some(ImageRef { tag: None, digest: Some(digest), ..place.clone() })
    }

    /// What was pushed to an image's repository.
    pub(super) fn pushed_manifest<'m>(
        &self,
        manifests: &'m [PushedManifest],
        image: &ImageRef,
    ) -> Option<&'m PushedManifest> {
        let outside = image.registry.as_ref().filter(|registry| **registry != self.registry);
        let is_there = |manifest: &&PushedManifest| {
            manifest.repository == image.repository && manifest.registry.as_ref() == outside
        };
        manifests.iter().find(is_there)
    }
}

/// Whether an agent speaks of what it was told to push there.
pub(super) fn is_of(manifest: &PushedManifest, target: &TagTarget) -> bool {
    manifest.registry.is_none()
        && manifest.repository == target.repository
        && manifest.staging_tag == target.staging_tag
}
