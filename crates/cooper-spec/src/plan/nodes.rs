//! What a build for several platforms becomes: one step for each, and stages that carry images to other placements.
//!
//! Owns the names of such steps and what a stage is; which are needed is for the planning of tasks and of quick builds.

use std::collections::BTreeSet;
use std::time::Duration;

use cooper_types::{ImageRef, Platform, StepId, Tag};

use super::{PlannedStep, PushWork, Work};

/// How long a stage may take: as long as the push of a quick build.
const STAGE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The longest id of a step.
const MAX_ID: usize = 128;
/// The longest tag.
const MAX_TAG: usize = 128;

/// Gives out ids for steps that no file names.
#[derive(Debug, Default)]
pub(crate) struct NodeIds {
    taken: BTreeSet<StepId>,
}

impl NodeIds {
    /// Ids that are none of these.
    pub(crate) fn beside<'a>(taken: impl IntoIterator<Item = &'a StepId>) -> Self {
        Self { taken: taken.into_iter().cloned().collect() }
    }

    /// The id of a step's node for one platform, such as `build-linux-arm64`.
    pub(crate) fn of_platform(&mut self, step: &StepId, platform: &Platform) -> StepId {
        self.next(step.as_str(), &dashed(platform))
    }

    /// The id of a node's stage, such as `build-linux-arm64-stage`.
    pub(crate) fn of_stage(&mut self, node: &StepId) -> StepId {
        self.next(node.as_str(), "stage")
    }

    /// The id of the step that fetches the source where a step of the file has its own, such as `prepare-source`.
    pub(crate) fn of_source(&mut self, step: &StepId) -> StepId {
        self.next(step.as_str(), "source")
    }

    /// A new id: long ones are cut, and taken ones get a number.
    fn next(&mut self, base: &str, end: &str) -> StepId {
        let ids = (1_u64..).map(|number| {
            let end = if number == 1 { format!("-{end}") } else { format!("-{end}-{number}") };
            let base = &base[..base.len().min(MAX_ID - end.len())];
            StepId::parse(&format!("{base}{end}")).expect("ids are ASCII, and so are platforms and numbers")
        });
        let taken = &mut self.taken;
        ids.into_iter().find(|id| taken.insert(id.clone())).expect("numbers don't end")
    }
}

/// The step that leaves what `node` built in the repositories of `images`. Who lets a build fail lets its stage fail, too.
/// One for other registries than the embedded one also waits for what its push waits for: what it writes can be seen.
pub(crate) fn stage(ids: &mut NodeIds, index: usize, node: &PlannedStep, images: Vec<ImageRef>) -> PlannedStep {
    let work = Work::Push(PushWork::stage_of(index, images));
    let stage = PlannedStep::new(ids.of_stage(&node.id), node.placement, vec![index], STAGE_TIMEOUT, work);
    PlannedStep { ignore_errors: node.ignore_errors, ..stage }
}

/// The tag of one platform's image beside the tag of its index, in registries that know no staging: `v1-linux-arm64`.
pub(crate) fn platform_tag(tag: &Tag, platform: &Platform) -> Tag {
    let end = format!("-{}", dashed(platform));
    let tag = tag.as_str();
    let tag = &tag[..tag.len().min(MAX_TAG - end.len())];
    Tag::parse(&format!("{tag}{end}")).expect("a tag's beginning with letters, digits and dashes behind it")
}

fn dashed(platform: &Platform) -> String {
    platform.to_string().replace('/', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> StepId {
        StepId::parse(text).expect("valid")
    }

    #[test]
    fn nodes_have_ids_of_their_own() {
        let (arm, amd) = (Platform::parse("linux/arm/v7").expect("valid"), Platform::LINUX_AMD64);
        let taken = [id("a"), id("a-linux-amd64")];
        let mut ids = NodeIds::beside(&taken);
        assert_eq!(ids.of_platform(&id("a"), &arm).as_str(), "a-linux-arm-v7");
        let node = ids.of_platform(&id("a"), &amd);
        assert_eq!(node.as_str(), "a-linux-amd64-2");
        assert_eq!(ids.of_stage(&node).as_str(), "a-linux-amd64-2-stage");
        let long = id(&"x".repeat(128));
        let first = ids.of_platform(&long, &amd);
        let second = ids.of_platform(&long, &amd);
        assert!(first != second && first.as_str().len() == 128, "{first} {second}");
    }

    #[test]
    fn tags_of_platforms_stand_beside_the_tag() {
        let arm = Platform::parse("linux/arm/v7").expect("valid");
        assert_eq!(platform_tag(&Tag::parse("v1").expect("valid"), &arm).as_str(), "v1-linux-arm-v7");
        let long = Tag::parse(&"x".repeat(128)).expect("valid");
        assert_eq!(platform_tag(&long, &arm).as_str().len(), 128);
    }
}
