//! Images as another run resolved them: a plan that is run again takes the same ones.

use std::collections::BTreeMap;

use cooper_types::{Digest, ImageRef, StepId};
use serde::{Deserialize, Serialize};

use super::{CommandImage, CommandWork, Plan, Work};

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

    /// What an image is pinned to: by the step itself, or by any other one where that came not so far.
    fn of(&self, step: &StepId, reference: &str) -> Option<&Digest> {
        let own = self.0.get(step).and_then(|images| images.get(reference));
        own.or_else(|| self.0.values().find_map(|images| images.get(reference)))
    }

    /// All that may be pinned in a step.
    fn for_step(&self, step: &StepId) -> BTreeMap<String, Digest> {
        let names = self.0.values().flat_map(BTreeMap::keys);
        names.filter_map(|name| Some((name.clone(), self.of(step, name)?.clone()))).collect()
    }
}

impl Plan {
    /// Has steps take the images that they are pinned to. What the run itself builds or pushes is never pinned.
    pub fn pin(&mut self, pins: &Pins) {
        let pushed: Vec<ImageRef> = self.pushed_images().cloned().collect();
        let is_made = |name: &str| ImageRef::parse(name).is_ok_and(|image| pushed.contains(&image.tagged_by_default()));
        for step in &mut self.steps {
            match &mut step.work {
                Work::Build(build) => {
                    let staged = |name: &String| build.staged_bases.iter().any(|base| base.name == *name);
                    let built = |name: &String| build.own_bases.iter().any(|(own, _)| own == name);
                    let own = |name: &String| is_made(name) || built(name) || staged(name);
                    let pinned = pins.for_step(&step.id).into_iter().filter(|(name, _)| !own(name));
                    build.pinned = pinned.collect();
                }
                Work::Command(CommandWork { image, .. }) => {
                    if let CommandImage::Named(name) = image
                        && !is_made(name)
                        && let Some(digest) = pins.of(&step.id, name)
                    {
                        *image = CommandImage::Pinned { name: name.clone(), digest: digest.clone() };
                    }
                }
                Work::Push(_) | Work::Prepare(_) => {}
            }
        }
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

    use super::super::{BuildContext, BuildWork, PlannedPlacement, PlannedStep};
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
        pins.add(&id("c"), "base:1", &digest("c"));
        pins.add(&id("c"), "tool", &digest("tool"));
        pins.add(&id("a"), "own:1", &digest("own"));
        pins.add(&id("a"), &format!("exact@{}", digest("x")), &digest("x"));
        plan.pin(&pins);
        let pinned = |index: usize| match &plan.steps[index].work {
            Work::Build(build) => build.pinned.clone(),
            other => panic!("{other:?}"),
        };
        let expect = vec![("base:1".to_owned(), digest("a")), ("tool".to_owned(), digest("tool"))];
        assert_eq!((pinned(0), pinned(1)), (expect.clone(), expect));
    }

    #[test]
    fn a_digest_takes_the_tags_place() {
        let digest = Digest::sha256(b"x");
        assert_eq!(with_digest("localhost:5000/a/b:1", &digest), format!("localhost:5000/a/b@{digest}"));
        assert_eq!(with_digest("busybox", &digest), format!("busybox@{digest}"));
    }
}
