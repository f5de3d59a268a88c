use std::time::Duration;

use cooper_types::{ContextId, ImageRef, Platform};
use proptest::prelude::*;

use super::*;
use crate::plan::{BuildContext, BuildWork, PlannedPlacement, PlannedStep, PushWork};

fn id(index: usize) -> StepId {
    StepId::parse(&format!("s{index}")).expect("valid")
}

fn build(own_bases: &[usize]) -> Work {
    let context = ContextId::parse("context").expect("valid");
    let own_bases = own_bases.iter().map(|index| (format!("own:{index}"), *index)).collect();
    Work::Build(BuildWork { own_bases, ..BuildWork::new(BuildContext::Uploaded(context), "Dockerfile") })
}

fn push(built_by: usize) -> Work {
    Work::Push(PushWork::of_one(built_by, [ImageRef::parse("localhost:5000/app:v1").expect("valid")]))
}

fn step(index: usize, placement: usize, after: &[usize], work: Work) -> PlannedStep {
    PlannedStep::new(id(index), placement, after.to_vec(), Duration::from_secs(1), work)
}

fn plan(placements: usize, steps: Vec<PlannedStep>) -> Plan {
    let placement = PlannedPlacement::new(Platform::LINUX_AMD64);
    Plan { placements: vec![placement; placements], steps }
}

fn done(indexes: &[usize]) -> BTreeSet<StepId> {
    indexes.iter().map(|index| id(*index)).collect()
}

fn ids(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.id.to_string()).collect()
}

#[test]
fn branches_that_are_done_are_left_out() {
    // s0 ── s1 (failed), and s2 beside them.
    let all = plan(1, vec![step(0, 0, &[], build(&[])), step(1, 0, &[0], build(&[])), step(2, 0, &[], build(&[]))]);
    let rest = all.rest(&done(&[0, 2]));
    assert_eq!((ids(&rest.plan), rest.left_out), (vec!["s0".to_owned(), "s1".to_owned()], vec![id(2)]));
}

#[test]
fn nobody_needs_a_push_that_is_done_and_its_order_stays() {
    // build ── push ── build on another platform's image ── push
    let all = plan(
        2,
        vec![
            step(0, 0, &[], build(&[])),
            step(1, 0, &[0], push(0)),
            step(2, 1, &[1], build(&[])),
            step(3, 1, &[2], push(2)),
        ],
    );
    let rest = all.rest(&done(&[0, 1]));
    assert_eq!(ids(&rest.plan), ["s2", "s3"]);
    assert_eq!((rest.plan.placements.len(), rest.plan.steps[0].placement), (1, 0));
    assert_eq!((rest.plan.steps[0].after.clone(), rest.plan.steps[1].after.clone()), (vec![], vec![0]));
    assert_eq!(rest.plan.steps[1].work.image_steps(), [0]);

    // The image of a push that is to be done is built again, and the push between them is not.
    let all = plan(1, vec![step(0, 0, &[], build(&[])), step(1, 0, &[0], push(0)), step(2, 0, &[1], push(0))]);
    let rest = all.rest(&done(&[0, 1]));
    assert_eq!(ids(&rest.plan), ["s0", "s2"]);
    assert_eq!(rest.plan.steps[1].after, [0]);
}

#[test]
fn nothing_is_left_of_what_is_done() {
    let all = plan(1, vec![step(0, 0, &[], build(&[]))]);
    let rest = all.rest(&done(&[0]));
    assert_eq!((rest.plan.steps.len(), rest.plan.placements.len()), (0, 0));
    assert_eq!(all.rest(&BTreeSet::new()).plan, all);
}

/// A plan of up to twelve steps in up to three placements, and which of the steps are done.
fn any_plan() -> impl Strategy<Value = (Plan, Vec<bool>)> {
    let one = (0..3_usize, any::<u16>(), any::<u16>(), any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 1..12).prop_map(|shapes| {
        let mut steps: Vec<PlannedStep> = Vec::new();
        let mut is_done = Vec::new();
        for (index, (placement, after, images, is_push, done)) in shapes.into_iter().enumerate() {
            let after: Vec<usize> = (0..index).filter(|earlier| after & (1 << earlier) != 0).collect();
            let built = |earlier: &usize| matches!(steps[*earlier].work, Work::Build(_));
            let images: Vec<usize> = (0..index).filter(|earlier| images & (1 << earlier) != 0).filter(built).collect();
            let work = match images.first() {
                Some(image) if is_push => push(*image),
                _ => build(&images),
            };
            steps.push(step(index, placement, &after, work));
            is_done.push(done);
        }
        (plan(3, steps), is_done)
    })
}

proptest! {
    #[test]
    fn what_stays_has_all_that_it_needs((all, is_done) in any_plan()) {
        let finished: BTreeSet<StepId> = (0..is_done.len()).filter(|index| is_done[*index]).map(id).collect();
        let rest = all.rest(&finished);
        let old = |step: &PlannedStep| all.step_index(&step.id).expect("a step of the plan");
        let before = all.all_before();
        let before_now = rest.plan.all_before();

        // Whatever is not done stays, and what is left out is done.
        prop_assert!(rest.left_out.iter().all(|id| finished.contains(id)));
        prop_assert_eq!(rest.left_out.len() + rest.plan.steps.len(), all.steps.len());
        for (index, step) in rest.plan.steps.iter().enumerate() {
            let was = old(step);
            prop_assert!(step.after.iter().all(|earlier| *earlier < index));
            prop_assert_eq!(&rest.plan.placements[step.placement], &all.placements[all.steps[was].placement]);
            // Images are of the same steps.
            let images: Vec<usize> = step.work.image_steps().iter().map(|image| old(&rest.plan.steps[*image])).collect();
            prop_assert_eq!(images, all.steps[was].work.image_steps());
            // All that came before it and stays comes before it still, and nothing else does.
            let now: BTreeSet<usize> = before_now[index].iter().map(|earlier| old(&rest.plan.steps[*earlier])).collect();
            let kept = |earlier: &&usize| rest.plan.step_index(&all.steps[**earlier].id).is_some();
            prop_assert_eq!(now, before[was].iter().filter(kept).copied().collect::<BTreeSet<_>>());
            // What is missing of its own placement was published.
            for earlier in before[was].iter().filter(|earlier| !kept(earlier)) {
                let gone = &all.steps[*earlier];
                prop_assert!(gone.placement != all.steps[was].placement || matches!(gone.work, Work::Push(_)));
            }
        }
        let used: BTreeSet<usize> = rest.plan.steps.iter().map(|step| step.placement).collect();
        prop_assert_eq!(used, (0..rest.plan.placements.len()).collect());
    }
}
