//! The rest of a plan of which some steps are done: what is to be run again, and what that needs.

use std::collections::BTreeSet;

use cooper_types::StepId;

use super::{Plan, PlannedStep, Work};

/// What is left of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The steps that are run again, and the placements that they need.
    pub plan: Plan,
    /// The steps that are not run again, in their order.
    pub left_out: Vec<StepId>,
}

impl Plan {
    /// The plan without the steps that are `done` and that nothing needs which is to be run again.
    ///
    /// A step needs the steps whose images it takes or that left such for it, and the steps of its own placement that come
    /// before it: they made what it finds in the workspace. Containers that serve others until the run's end are needed by
    /// every step of their placement, whatever the order is. Nobody needs a push that is done: what it published is there.
    /// A stage published nothing that outlives its run, so it is like any other step. The order of the steps that stay is
    /// what it was, where steps between them are gone, too.
    pub fn rest(&self, done: &BTreeSet<StepId>) -> Rest {
        let before = self.all_before();
        let kept = self.kept(done, &before);
        self.only(&kept, &before)
    }

    /// The plan without these steps. A step that takes an image from one of them can't do without it: it is the error.
    pub fn without(&self, gone: &BTreeSet<StepId>) -> Result<Self, StepId> {
        let kept: Vec<bool> = self.steps.iter().map(|step| !gone.contains(&step.id)).collect();
        let needs = |step: &&PlannedStep| {
            !gone.contains(&step.id) && step.work.image_steps().into_iter().any(|made| !kept[made])
        };
        match self.steps.iter().find(needs) {
            Some(step) => Err(step.id.clone()),
            None => Ok(self.only(&kept, &self.all_before()).plan),
        }
    }

    /// The pushes that are done, of images that are made again: what they published is not what the rest works with.
    pub fn outdated_pushes(&self, done: &BTreeSet<StepId>) -> Vec<StepId> {
        let kept = self.kept(done, &self.all_before());
        let is_outdated = |index: &usize| {
            let step = &self.steps[*index];
            let publishes = matches!(&step.work, Work::Push(push) if !push.is_stage);
            !kept[*index] && publishes && step.work.image_steps().into_iter().any(|made| kept[made])
        };
        (0..self.steps.len()).filter(is_outdated).map(|index| self.steps[index].id.clone()).collect()
    }

    /// Which steps are run again.
    fn kept(&self, done: &BTreeSet<StepId>, before: &[BTreeSet<usize>]) -> Vec<bool> {
        let is_done = |index: usize| done.contains(&self.steps[index].id);
        let mut kept: Vec<bool> = (0..self.steps.len()).map(|index| !is_done(index)).collect();
        let mut open: Vec<usize> = (0..self.steps.len()).filter(|index| kept[*index]).collect();
        while let Some(index) = open.pop() {
            for needed in self.needed_by(index, before) {
                if !kept[needed] {
                    kept[needed] = true;
                    open.push(needed);
                }
            }
        }
        kept
    }

    /// The steps that a step can't be run without.
    fn needed_by(&self, index: usize, before: &[BTreeSet<usize>]) -> Vec<usize> {
        let step = &self.steps[index];
        let is_here = |other: &usize| self.steps[*other].placement == step.placement;
        let is_published = |other: &usize| matches!(&self.steps[*other].work, Work::Push(push) if !push.is_stage);
        let serves = |other: &usize| matches!(&self.steps[*other].work, Work::Command(command) if command.detach);
        let earlier = before[index].iter().copied().filter(|other| is_here(other) && !is_published(other));
        let services = (0..self.steps.len()).filter(|other| is_here(other) && serves(other));
        step.work.image_steps().into_iter().chain(earlier).chain(services).collect()
    }

    /// For each step, all steps that come before it, directly or not.
    pub(super) fn all_before(&self) -> Vec<BTreeSet<usize>> {
        let mut all: Vec<BTreeSet<usize>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let mut before = BTreeSet::new();
            for &earlier in &step.after {
                before.insert(earlier);
                before.extend(&all[earlier]);
            }
            all.push(before);
        }
        all
    }

    fn only(&self, kept: &[bool], before: &[BTreeSet<usize>]) -> Rest {
        let renumbered = |kept: &dyn Fn(usize) -> bool, count: usize| -> Vec<usize> {
            let mut next = 0;
            let number = |index| {
                let own = next;
                next += usize::from(kept(index));
                own
            };
            (0..count).map(number).collect()
        };
        let steps = renumbered(&|index| kept[index], self.steps.len());
        let used: BTreeSet<usize> =
            self.steps.iter().zip(kept).filter(|(_, kept)| **kept).map(|(step, _)| step.placement).collect();
        let placements = renumbered(&|index| used.contains(&index), self.placements.len());
        let mut plan = Self { placements: Vec::new(), steps: Vec::new() };
        let mut left_out = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            if !kept[index] {
                left_out.push(step.id.clone());
                continue;
            }
            let mut step = step.clone();
            step.placement = placements[step.placement];
            step.after = match step.after.iter().all(|earlier| kept[*earlier]) {
                true => step.after.iter().map(|earlier| steps[*earlier]).collect(),
                // What came before a step that is gone comes before those that waited for it.
                false => {
                    before[index].iter().filter(|earlier| kept[**earlier]).map(|earlier| steps[*earlier]).collect()
                }
            };
            step.work.move_image_steps(|image| steps[image]);
            plan.steps.push(step);
        }
        let placed = self.placements.iter().enumerate().filter(|(index, _)| used.contains(index));
        plan.placements = placed.map(|(_, placement)| placement.clone()).collect();
        Rest { plan, left_out }
    }
}

#[cfg(test)]
mod tests;
