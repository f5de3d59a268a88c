//! Contexts that build steps fetched for themselves, as another run found them: a plan that is run again takes the same
//! ones.

use std::collections::BTreeMap;

use cooper_types::StepId;
use serde::{Deserialize, Serialize};

use super::{BuildContext, BuildWork, Plan, Work};
use crate::source::{RemoteSource, SourcePin};

/// What the contexts of a run's steps were found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextPins(BTreeMap<StepId, ContextPin>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ContextPin {
    /// Where it is, without what may be a secret.
    place: String,
    /// What was asked for there.
    asked: String,
    found: SourcePin,
}

impl ContextPin {
    fn of(source: &str, found: &SourcePin) -> Option<Self> {
        let source = RemoteSource::parse(source).ok()?;
        Some(Self { place: source.place(), asked: source.shown(), found: found.clone() })
    }
}

impl ContextPins {
    /// Writes down what a step's context was found to be; in place of what was written down for it before.
    pub fn add(&mut self, step: &StepId, source: &str, found: &SourcePin) {
        if let Some(pin) = ContextPin::of(source, found) {
            self.0.insert(step.clone(), pin);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a step's context is pinned to: what it was there, or what another step was given for the same text. One that
    /// is at another place by now is not pinned.
    fn of(&self, step: &StepId, source: &str) -> Option<&SourcePin> {
        let source = RemoteSource::parse(source).ok()?;
        let own = self.0.get(step).filter(|own| own.place == source.place());
        let other = || self.0.values().find(|other| other.asked == source.shown());
        Some(&own.or_else(other)?.found)
    }
}

impl Plan {
    /// Has build steps fetch the contexts that they are pinned to. The answer is the steps whose own context is somewhere
    /// else now.
    pub fn pin_contexts(&mut self, pins: &ContextPins) -> Vec<StepId> {
        let mut moved = Vec::new();
        for step in &mut self.steps {
            let Work::Build(BuildWork { context: BuildContext::Remote { source, found }, .. }) = &mut step.work else {
                continue;
            };
            *found = pins.of(&step.id, source).cloned();
            if found.is_none() && pins.0.contains_key(&step.id) {
                moved.push(step.id.clone());
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cooper_types::{Digest, Platform};

    use super::super::{PlannedPlacement, PlannedStep};
    use super::*;

    #[test]
    fn a_step_fetches_what_it_had_and_a_new_one_what_others_had_for_the_same_name() {
        let id = |text: &str| StepId::parse(text).expect("valid");
        let commit = |digit: &str| SourcePin::Commit(digit.repeat(40));
        let digest = SourcePin::Digest(Digest::sha256(b"archive"));
        let (main, other) = ("https://h.io/a.git#main:sub", "https://h.io/b.git#main");
        let archive = "https://h.io/a.tar.gz?sig=1";
        let mut pins = ContextPins::default();
        pins.add(&id("one"), main, &commit("1"));
        pins.add(&id("tar"), archive, &digest);
        pins.add(&id("moved"), other, &commit("2"));

        let steps =
            [("one", "https://h.io/a.git#next"), ("tar", archive), ("late", main), ("new", other), ("moved", archive)];
        let step = |(name, source): (&str, &str)| {
            let context = BuildContext::Remote { source: source.to_owned(), found: None };
            let work = Work::Build(BuildWork::new(context, "Dockerfile"));
            PlannedStep::new(id(name), 0, Vec::new(), Duration::from_secs(1), work)
        };
        let steps: Vec<_> = steps.into_iter().chain([("gone", "https://h.io/c.git")]).map(step).collect();
        pins.add(&id("gone"), "https://h.io/d.git", &commit("3"));
        let mut plan = Plan { placements: vec![PlannedPlacement::new(Platform::LINUX_AMD64)], steps };
        assert_eq!(plan.pin_contexts(&pins), [id("gone")]);
        let found: Vec<Option<SourcePin>> = plan
            .steps
            .iter()
            .map(|step| match &step.work {
                Work::Build(BuildWork { context: BuildContext::Remote { found, .. }, .. }) => found.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected =
            [Some(commit("1")), Some(digest.clone()), Some(commit("1")), Some(commit("2")), Some(digest), None];
        assert_eq!(found, expected);
        assert_eq!(serde_json::to_value(&pins).expect("json")["one"]["found"]["commit"], "1".repeat(40));
    }
}
