//! Images as another run resolved them: a plan that is run again takes the same ones.

use std::collections::BTreeMap;

use cooper_types::{Digest, ImageRef, Platform, StepId};
use serde::{Deserialize, Serialize};

use super::{CommandImage, CommandWork, Plan, PlannedStep, Work};

/// The most images of other steps that a build is pinned to.
const MAX_OTHERS: usize = 64;

/// What the images of a run's steps were resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pins(BTreeMap<StepId, BTreeMap<String, Digest>>);

impl Pins {
    /// Writes down what an image of a step was resolved to; in place of what was written down for it before. A name that
    /// says its digest itself needs no pin.
    pub fn add(&mut self, step: &StepId, reference: &str, digest: &Digest) {
        if ImageRef::parse(reference).is_ok_and(|image| image.digest.is_none()) {
            self.0.entry(step.clone()).or_default().insert(reference.to_owned(), digest.clone());
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What may be pinned in a step: what it was resolved to there. A step that came not so far is pinned to what others
    /// `beside` it were. The answer says, too, whether these are more than are taken.
    fn of<'a>(
        &'a self,
        step: &StepId,
        beside: impl Iterator<Item = &'a StepId>,
    ) -> (Vec<(&'a String, &'a Digest)>, bool) {
        if let Some(own) = self.0.get(step) {
            return (own.iter().collect(), false);
        }
        let mut all: BTreeMap<&String, &Digest> = BTreeMap::new();
        for (name, digest) in beside.filter_map(|other| self.0.get(other)).flatten() {
            all.entry(name).or_insert(digest);
        }
        let is_cut = all.len() > MAX_OTHERS;
        (all.into_iter().take(MAX_OTHERS).collect(), is_cut)
    }

    /// What one image is pinned to in a step: as it was there, or in one `beside` it.
    fn one<'a>(&'a self, step: &'a StepId, name: &str, beside: impl Iterator<Item = &'a StepId>) -> Option<&'a Digest> {
        std::iter::once(step).chain(beside).find_map(|id| self.0.get(id)?.get(name))
    }
}

impl Plan {
    /// What each step is for.
    pub fn platforms_of_steps(&self) -> BTreeMap<StepId, Platform> {
        let platform = |placement: usize| self.placements[placement].platform.clone();
        self.steps.iter().map(|step| (step.id.clone(), platform(step.placement))).collect()
    }

    /// Has steps take the images that they are pinned to. What the run itself builds, or has pushed before a step, is never
    /// pinned there. The answer is the steps that are not pinned to all that they could be: these may be more than the plan
    /// has, or nothing is known of a container's image.
    ///
    /// `platforms` says what the steps are for that the pins come from: what a name stands for can be another thing on
    /// another platform.
    pub fn pin(&mut self, pins: &Pins, platforms: &BTreeMap<StepId, Platform>) -> Vec<StepId> {
        let published = |step: &PlannedStep| match &step.work {
            Work::Push(push) if !push.is_stage => push.names.iter().map(|name| name.image.clone()).collect(),
            Work::Push(_) | Work::Prepare(_) | Work::Build(_) | Work::Command(_) => Vec::new(),
        };
        let pushed: Vec<Vec<ImageRef>> = self.steps.iter().map(published).collect();
        let before = self.all_before();
        let mut cut = Vec::new();
        for (step, before) in self.steps.iter_mut().zip(before) {
            let is_made = |name: &str| {
                let image = ImageRef::parse(name).map(ImageRef::tagged_by_default);
                image.is_ok_and(|image| before.iter().any(|earlier| pushed[*earlier].contains(&image)))
            };
            let platform = &self.placements[step.placement].platform;
            let beside = platforms.iter().filter(|(_, other)| *other == platform).map(|(id, _)| id);
            match &mut step.work {
                Work::Build(build) => {
                    let staged = |name: &String| build.staged_bases.iter().any(|base| base.name == *name);
                    let built = |name: &String| build.own_bases.iter().any(|(own, _)| own == name);
                    let own = |name: &String| is_made(name) || built(name) || staged(name);
                    let (found, is_cut) = pins.of(&step.id, beside);
                    let pinned = found.into_iter().filter(|(name, _)| !own(name));
                    build.pinned = pinned.map(|(name, digest)| (name.clone(), digest.clone())).collect();
                    if is_cut {
                        cut.push(step.id.clone());
                    }
                }
                Work::Command(CommandWork { image, .. }) => {
                    let exact = |name: &str| ImageRef::parse(name).is_ok_and(|image| image.digest.is_some());
                    if let CommandImage::Named(name) = image
                        && !is_made(name)
                        && !exact(name)
                    {
                        match pins.one(&step.id, name, beside) {
                            Some(digest) => {
                                *image = CommandImage::Pinned { name: name.clone(), digest: digest.clone() }
                            }
                            None => cut.push(step.id.clone()),
                        }
                    }
                }
                Work::Push(_) | Work::Prepare(_) => {}
            }
        }
        cut
    }
}

/// A name with a digest in place of its tag; as it is where it is no name.
pub fn with_digest(name: &str, digest: &Digest) -> String {
    match ImageRef::parse(name) {
        Ok(image) => ImageRef { tag: None, digest: Some(digest.clone()), ..image }.to_string(),
        Err(_) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{BuildContext, BuildWork, PlannedPlacement, PlannedStep, PushWork, PushedFrom, PushedName};
    use super::*;
    use cooper_types::{ContextId, Platform};

    #[test]
    fn builds_take_what_they_are_pinned_to_and_own_images_stay_own() {
        let id = |text: &str| StepId::parse(text).expect("valid");
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let mut build = BuildWork::new(BuildContext::Uploaded(ContextId::parse("c").expect("valid")), "Dockerfile");
        build.own_bases = vec![("own:1".to_owned(), 0)];
        let step = |name: &str, after| {
            PlannedStep::new(id(name), 0, after, Duration::from_secs(1), Work::Build(build.clone()))
        };
        let placements = vec![PlannedPlacement::new(Platform::LINUX_AMD64)];
        let mut plan = Plan { placements, steps: vec![step("a", Vec::new()), step("b", vec![0])] };
        let mut pins = Pins::default();
        pins.add(&id("a"), "base:1", &digest("a"));
        pins.add(&id("a"), "own:1", &digest("own"));
        pins.add(&id("a"), &format!("exact@{}", digest("x")), &digest("x"));
        pins.add(&id("c"), "base:1", &digest("c"));
        pins.add(&id("c"), "tool", &digest("tool"));
        pins.add(&id("d"), "arm", &digest("arm"));
        let arm = Platform::parse("linux/arm64").expect("valid");
        let mut platforms = plan.platforms_of_steps();
        platforms.extend([(id("c"), Platform::LINUX_AMD64), (id("d"), arm)]);
        assert_eq!(plan.pin(&pins, &platforms), []);
        let pinned = |plan: &Plan, index: usize| match &plan.steps[index].work {
            Work::Build(build) => build.pinned.clone(),
            other => panic!("{other:?}"),
        };
        let base = ("base:1".to_owned(), digest("a"));
        // What a step had itself is all that it is pinned to; one that had nothing is pinned to what others had.
        assert_eq!(pinned(&plan, 0), std::slice::from_ref(&base));
        assert_eq!(pinned(&plan, 1), [base, ("tool".to_owned(), digest("tool"))]);

        // However much others had, a plan does not grow with it.
        (0..MAX_OTHERS).for_each(|index| pins.add(&id("c"), &format!("more{index}"), &digest("more")));
        assert_eq!(plan.pin(&pins, &platforms), [id("b")]);
        assert!(pinned(&plan, 1).len() <= MAX_OTHERS);
    }

    #[test]
    fn a_base_that_the_run_pushes_later_is_pinned_and_one_that_it_pushed_is_not() {
        let id = |text: &str| StepId::parse(text).expect("valid");
        let image = ImageRef::parse("localhost:5000/base:1").expect("valid");
        let build = BuildWork::new(BuildContext::Uploaded(ContextId::parse("c").expect("valid")), "Dockerfile");
        let step = |name: &str, after, work| PlannedStep::new(id(name), 0, after, Duration::from_secs(1), work);
        let push = PushWork::new(vec![PushedName { image, from: PushedFrom::Built(0) }]);
        let steps = vec![
            step("first", Vec::new(), Work::Build(build.clone())),
            step("push", vec![0], Work::Push(push)),
            step("second", vec![1], Work::Build(build)),
        ];
        let mut plan = Plan { placements: vec![PlannedPlacement::new(Platform::LINUX_AMD64)], steps };
        let mut pins = Pins::default();
        let digest = Digest::sha256(b"base");
        pins.add(&id("first"), "localhost:5000/base:1", &digest);
        let platforms = plan.platforms_of_steps();
        assert_eq!(plan.pin(&pins, &platforms), []);
        let pinned = |index: usize| match &plan.steps[index].work {
            Work::Build(build) => build.pinned.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(pinned(0), [("localhost:5000/base:1".to_owned(), digest)]);
        assert_eq!(pinned(2), []);
    }

    #[test]
    fn a_digest_takes_the_tags_place() {
        let digest = Digest::sha256(b"x");
        assert_eq!(with_digest("localhost:5000/a/b:1", &digest), format!("localhost:5000/a/b@{digest}"));
        assert_eq!(with_digest("busybox", &digest), format!("busybox@{digest}"));
    }
}
