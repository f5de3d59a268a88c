use std::time::Duration;

use cooper_types::{ContextId, ImageRef, Platform};
use proptest::prelude::*;

use super::*;
use crate::plan::{
    BuildContext, BuildWork, CommandImage, CommandWork, IndexPart, PlannedPlacement, PlannedStep, PushWork, PushedFrom,
    PushedName, StagedBase,
};

fn id(index: usize) -> StepId {
    StepId::parse(&format!("s{index}")).expect("valid")
}

fn build(own_bases: &[usize]) -> Work {
    let context = ContextId::parse("context").expect("valid");
    let own_bases = own_bases.iter().map(|index| (format!("own:{index}"), *index)).collect();
    Work::Build(BuildWork { own_bases, ..BuildWork::new(BuildContext::Uploaded(context), "Dockerfile") })
}

fn image() -> ImageRef {
    ImageRef::parse("localhost:5000/app:v1").expect("valid")
}

fn push(built_by: usize) -> Work {
    Work::Push(PushWork::of_one(built_by, [image()]))
}

fn push_from(from: PushedFrom) -> Work {
    Work::Push(PushWork::new(vec![PushedName { image: image(), from }]))
}

fn stage(built_by: usize) -> Work {
    Work::Push(PushWork::stage_of(built_by, [image()]))
}

fn command(image: CommandImage, detach: bool) -> Work {
    Work::Command(CommandWork { detach, ..CommandWork::new(image) })
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

#[test]
fn an_index_needs_the_stages_of_all_platforms_and_their_builds() {
    // build ── stage, on each of two platforms, and the push of their index; then a build on the other's image.
    let part = |staged_by, built_by| IndexPart { platform: Platform::LINUX_AMD64, staged_by, built_by };
    let based = BuildWork {
        staged_bases: vec![StagedBase { name: "app".to_owned(), image: image(), staged_by: 1 }],
        ..BuildWork::new(BuildContext::Uploaded(ContextId::parse("context").expect("valid")), "Dockerfile")
    };
    let all = plan(
        2,
        vec![
            step(0, 0, &[], build(&[])),
            step(1, 0, &[0], stage(0)),
            step(2, 1, &[], build(&[])),
            step(3, 1, &[2], stage(2)),
            step(4, 0, &[1, 3], push_from(PushedFrom::Index(vec![part(1, 0), part(3, 2)]))),
            step(5, 1, &[1], Work::Build(based)),
        ],
    );
    let rest = all.rest(&done(&[0, 1, 2, 3, 5]));
    assert_eq!((ids(&rest.plan).len(), rest.left_out), (5, vec![id(5)]));
    // Only the base's platform is done again for a build on it.
    let rest = all.rest(&done(&[0, 1, 2, 3, 4]));
    assert_eq!(ids(&rest.plan), ["s0", "s1", "s5"]);
}

#[test]
fn services_are_there_for_every_step_of_their_placement() {
    let busybox = || CommandImage::Named("busybox".to_owned());
    let all = plan(
        2,
        vec![
            step(0, 0, &[], command(busybox(), false)),
            step(1, 0, &[], build(&[])),
            step(2, 0, &[1], command(CommandImage::Built { step: 1 }, true)),
            step(3, 1, &[], command(busybox(), true)),
        ],
    );
    // Nothing says that the first step needs the service, but it may call it.
    let rest = all.rest(&done(&[1, 2, 3]));
    assert_eq!((ids(&rest.plan), rest.left_out), (vec!["s0".to_owned(), "s1".into(), "s2".into()], vec![id(3)]));
}

/// What a step of a random plan does, as far as that is possible with the steps before it.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Build,
    Push,
    Stage,
    PushStaged,
    PushIndex,
    Command,
    Service,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        3 => Just(Shape::Build),
        1 => Just(Shape::Push),
        2 => Just(Shape::Stage),
        1 => Just(Shape::PushStaged),
        1 => Just(Shape::PushIndex),
        2 => Just(Shape::Command),
        1 => Just(Shape::Service),
    ]
}

/// A plan of up to fourteen steps in up to three placements, what each step's work stands on, and which steps are done.
fn any_plan() -> impl Strategy<Value = (Plan, Vec<BTreeSet<usize>>, Vec<bool>)> {
    let one = (0..3_usize, any::<u16>(), any::<u16>(), any_shape(), any::<bool>());
    proptest::collection::vec(one, 1..14).prop_map(|shapes| {
        let mut steps: Vec<PlannedStep> = Vec::new();
        let mut inputs: Vec<BTreeSet<usize>> = Vec::new();
        let mut is_done = Vec::new();
        for (index, (placement, after, chosen, shape, done)) in shapes.into_iter().enumerate() {
            let after: Vec<usize> = (0..index).filter(|earlier| after & (1 << earlier) != 0).collect();
            let earlier: Vec<usize> = (0..index).filter(|earlier| chosen & (1 << earlier) != 0).collect();
            let builds = earlier.iter().copied().filter(|step| matches!(steps[*step].work, Work::Build(_)));
            let builds: Vec<usize> = builds.collect();
            let stages = earlier.iter().copied();
            let stages = stages.filter(|step| matches!(&steps[*step].work, Work::Push(push) if push.is_stage));
            let stages: Vec<usize> = stages.collect();
            let of_stage = |stage: &usize| (*stage, *inputs[*stage].first().expect("a stage is of a build"));
            let busybox = CommandImage::Named("busybox".to_owned());
            let (work, stands_on) = match (shape, builds.first(), stages.first()) {
                (Shape::Push, Some(built), _) => (push(*built), vec![*built]),
                (Shape::Stage, Some(built), _) => (stage(*built), vec![*built]),
                (Shape::PushStaged, _, Some(stage)) => (push_from(PushedFrom::Staged(*stage)), vec![*stage]),
                (Shape::PushIndex, _, Some(_)) => {
                    let part =
                        |(staged_by, built_by)| IndexPart { platform: Platform::LINUX_AMD64, staged_by, built_by };
                    let parts: Vec<(usize, usize)> = stages.iter().map(of_stage).collect();
                    let stands_on = parts.iter().flat_map(|(stage, built)| [*stage, *built]).collect();
                    (push_from(PushedFrom::Index(parts.into_iter().map(part).collect())), stands_on)
                }
                (Shape::Command, Some(built), _) => {
                    (command(CommandImage::Built { step: *built }, false), vec![*built])
                }
                (Shape::Command, None, _) => (command(busybox, false), Vec::new()),
                (Shape::Service, ..) => (command(busybox, true), Vec::new()),
                (Shape::Build | Shape::Push | Shape::Stage | Shape::PushStaged | Shape::PushIndex, ..) => {
                    let base = |staged_by: &usize| StagedBase {
                        name: format!("staged:{staged_by}"),
                        image: image(),
                        staged_by: *staged_by,
                    };
                    let Work::Build(plain) = build(&builds) else { unreachable!("it makes builds") };
                    let staged_bases = stages.iter().map(base).collect();
                    let stands_on = builds.iter().chain(&stages).copied().collect();
                    (Work::Build(BuildWork { staged_bases, ..plain }), stands_on)
                }
            };
            steps.push(step(index, placement, &after, work));
            inputs.push(stands_on.into_iter().collect());
            is_done.push(done);
        }
        (plan(3, steps), inputs, is_done)
    })
}

proptest! {
    #[test]
    fn what_stays_has_all_that_it_needs((all, inputs, is_done) in any_plan()) {
        let finished: BTreeSet<StepId> = (0..is_done.len()).filter(|index| is_done[*index]).map(id).collect();
        let rest = all.rest(&finished);
        let old = |step: &PlannedStep| all.step_index(&step.id).expect("a step of the plan");
        let before = all.all_before();
        let before_now = rest.plan.all_before();
        let is_kept = |step: usize| rest.plan.step_index(&all.steps[step].id).is_some();

        // Whatever is not done stays, and what is left out is done.
        prop_assert!(rest.left_out.iter().all(|id| finished.contains(id)));
        prop_assert_eq!(rest.left_out.len() + rest.plan.steps.len(), all.steps.len());
        for (index, step) in rest.plan.steps.iter().enumerate() {
            let was = old(step);
            prop_assert!(step.after.iter().all(|earlier| *earlier < index));
            prop_assert_eq!(&rest.plan.placements[step.placement], &all.placements[all.steps[was].placement]);
            // All that its work stands on is there, and is the same step.
            prop_assert!(inputs[was].iter().all(|input| is_kept(*input)), "step {} of {:?}", step.id, rest.plan);
            let images: Vec<usize> = step.work.image_steps().iter().map(|image| old(&rest.plan.steps[*image])).collect();
            prop_assert_eq!(&images, &all.steps[was].work.image_steps());
            prop_assert_eq!(&images.into_iter().collect::<BTreeSet<_>>(), &inputs[was]);
            prop_assert!(step.uses().iter().all(|used| *used < index));
            // All that came before it and stays comes before it still, and nothing else does.
            let now: BTreeSet<usize> = before_now[index].iter().map(|earlier| old(&rest.plan.steps[*earlier])).collect();
            prop_assert_eq!(now, before[was].iter().copied().filter(|earlier| is_kept(*earlier)).collect::<BTreeSet<_>>());
            for (other, gone) in all.steps.iter().enumerate().filter(|(other, _)| !is_kept(*other)) {
                let is_here = gone.placement == all.steps[was].placement;
                // What is missing of its own placement was published, and no service of it is missing.
                let is_published = matches!(&gone.work, Work::Push(push) if !push.is_stage);
                prop_assert!(!is_here || !before[was].contains(&other) || is_published);
                prop_assert!(!is_here || !matches!(&gone.work, Work::Command(command) if command.detach));
            }
        }
        let used: BTreeSet<usize> = rest.plan.steps.iter().map(|step| step.placement).collect();
        prop_assert_eq!(used, (0..rest.plan.placements.len()).collect());
    }
}
