//! Builds for several platforms, and images that cross from one placement to another.

use super::*;
use crate::plan::{IndexPart, PlannedStep, PushWork};

/// Steps as `id@platform <- ids`.
fn shown(plan: &Plan) -> Vec<String> {
    let show = |step: &PlannedStep| {
        let after: Vec<&str> = step.after.iter().map(|index| plan.steps[*index].id.as_str()).collect();
        let platform = &plan.placements[step.placement].platform;
        format!("{}@{platform} <- {}", step.id, after.join(" ")).trim_end().to_owned()
    };
    assert!(plan.steps.iter().enumerate().all(|(index, step)| step.after.iter().all(|after| *after < index)));
    plan.steps.iter().map(show).collect()
}

fn push(planned: &PlannedTask, id: &str) -> PushWork {
    let step = planned.plan.steps.iter().find(|step| step.id.as_str() == id);
    match &step.unwrap_or_else(|| panic!("no step {id}: {:?}", shown(&planned.plan))).work {
        Work::Push(push) => push.clone(),
        other => panic!("{other:?}"),
    }
}

fn images(push: &PushWork) -> Vec<String> {
    push.names.iter().map(|name| name.image.to_string()).collect()
}

const BOTH: &str = "platforms: [linux/amd64, linux/arm64]";

#[test]
fn a_build_for_several_platforms_is_a_step_for_each_and_the_push_an_index() {
    let planned = planned(&format!(
        "steps:\n  - id: image\n    build: -t app:v1 -t x.example/app:v1 .\n    {BOTH}\n    retries: 2\n  - id: test\n    cmd: \
         app:v1 check\n  - id: out\n    push: ['app:v1', 'app:v1', 'x.example/app:v1']\n"
    ));
    assert_eq!(
        shown(&planned.plan),
        [
            "image-linux-amd64@linux/amd64 <-",
            "image-linux-arm64@linux/arm64 <-",
            "image-linux-amd64-stage@linux/amd64 <- image-linux-amd64",
            "image-linux-arm64-stage@linux/arm64 <- image-linux-arm64",
            "test@linux/amd64 <- image-linux-amd64 image-linux-arm64",
            "image-linux-amd64-stage-2@linux/amd64 <- image-linux-amd64 test",
            "image-linux-arm64-stage-2@linux/arm64 <- image-linux-arm64 test",
            "out@linux/amd64 <- image-linux-amd64-stage image-linux-arm64-stage test image-linux-amd64-stage-2 \
             image-linux-arm64-stage-2",
        ],
        "what can be seen outside is not there before the test is through"
    );
    assert_eq!(command(&planned, 4).image, CommandImage::Built { step: 0 });
    assert!(planned.plan.steps[..2].iter().all(|step| step.tries.retries == 2));
    let stage = push(&planned, "image-linux-arm64-stage");
    assert!(stage.is_stage);
    assert_eq!(images(&stage), ["localhost:5000/app"]);
    let stage = push(&planned, "image-linux-arm64-stage-2");
    assert!(stage.is_stage);
    assert_eq!(images(&stage), ["x.example/app:v1-linux-arm64"]);
    let out = push(&planned, "out");
    assert_eq!(images(&out), ["localhost:5000/app:v1", "x.example/app:v1"]);
    let part = |platform: &str, staged_by, built_by| IndexPart {
        platform: Platform::parse(platform).expect("valid"),
        staged_by,
        built_by,
    };
    let ours = PushedFrom::Index(vec![part("linux/amd64", 2, 0), part("linux/arm64", 3, 1)]);
    let outside = PushedFrom::Index(vec![part("linux/amd64", 5, 0), part("linux/arm64", 6, 1)]);
    let from: Vec<&PushedFrom> = out.names.iter().map(|name| &name.from).collect();
    assert!(!out.is_stage && from == [&ours, &outside], "{out:?}");
}

#[test]
fn each_platform_has_a_cache_of_its_own_where_its_name_is_short_enough() {
    let of = |id: &str, more: &str| {
        let text = format!("steps:\n  - id: {id}\n    build: -t app:v1 .\n    {more}\n");
        let planned = planned(&text);
        let caches = (0..planned.plan.steps.len()).map(|index| build(&planned, index).cache.as_ref());
        let caches: Vec<Option<String>> = caches.map(|cache| cache.map(ToString::to_string)).collect();
        (caches, planned.warnings.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let named = |tag: &str| Some(format!("localhost:5000/app:{tag}"));
    assert_eq!(of("image", "cache: disabled").0, [None]);
    assert_eq!(of("image", "cache: enabled"), (vec![named("cache_quickrun_image")], Vec::new()));
    let both = format!("cache: Enabled\n    {BOTH}");
    let own = ["linux-amd64", "linux-arm64"].map(|part| named(&format!("cache_quickrun_image_{part}")));
    assert_eq!(of("image", &both), (own.to_vec(), Vec::new()));
    // With a platform's name it is too long, and without it is not.
    let long = "i".repeat(105);
    assert!(of(&long, "cache: enabled").0[0].is_some());
    let (caches, warnings) = of(&long, &both);
    assert_eq!((caches, warnings.len()), (vec![None, None], 2), "{warnings:?}");
    assert!(warnings[0].contains("the cache's tag `cache_quickrun_iii"), "{warnings:?}");
    assert!(warnings[0].ends_with("the build goes on without; give the step a shorter id"), "{warnings:?}");
}

#[test]
fn without_a_push_nothing_is_staged() {
    let planned = planned(&format!("steps:\n  - id: a\n    build: -t app .\n    {BOTH}\n"));
    assert_eq!(shown(&planned.plan), ["a-linux-amd64@linux/amd64 <-", "a-linux-arm64@linux/arm64 <-"]);
}

#[test]
fn steps_of_a_platform_use_that_platforms_image_where_they_are() {
    let planned = planned(&format!(
        "steps:\n  - id: base\n    build: -t base .\n    {BOTH}\n  - id: run\n    cmd: base x\n    platform: linux/arm64\n  \
         - id: app\n    build: -t app -f D .\n    {BOTH}\n"
    ));
    assert_eq!(
        shown(&planned.plan),
        [
            "base-linux-amd64@linux/amd64 <-",
            "base-linux-arm64@linux/arm64 <-",
            "run@linux/arm64 <- base-linux-amd64 base-linux-arm64",
            "app-linux-amd64@linux/amd64 <- run",
            "app-linux-arm64@linux/arm64 <- run",
        ]
    );
    assert_eq!(command(&planned, 2).image, CommandImage::Built { step: 1 });
    for (step, base) in [(3, 0), (4, 1)] {
        let names = ["localhost:5000/base:latest", "base:latest"].map(|name| (name.to_owned(), base));
        assert_eq!(build(&planned, step).own_bases, names);
    }
}

#[test]
fn a_base_of_another_platform_crosses_by_the_embedded_registry() {
    let planned = planned(
        "steps:\n  - id: data\n    build: -t x.example/data -t team/data:v2 .\n  - id: only-outside\n    build: -t \
         x.example/other .\n  - id: app\n    build: -t app .\n    platform: linux/arm64\n",
    );
    assert_eq!(
        shown(&planned.plan),
        [
            "data@linux/amd64 <-",
            "data-stage@linux/amd64 <- data",
            "only-outside@linux/amd64 <- data",
            "app@linux/arm64 <- data-stage only-outside",
        ]
    );
    assert_eq!(images(&push(&planned, "data-stage")), ["localhost:5000/team/data"]);
    let app = build(&planned, 3);
    assert_eq!(app.own_bases, []);
    let staged: Vec<(&str, String, usize)> =
        app.staged_bases.iter().map(|base| (base.name.as_str(), base.image.to_string(), base.staged_by)).collect();
    let place = || "localhost:5000/team/data".to_owned();
    let names = ["x.example/data:latest", "localhost:5000/team/data:v2", "team/data:v2"];
    assert_eq!(staged, names.map(|name| (name, place(), 1)));
    assert_eq!(planned.plan.pushed_images().count(), 0);
    assert_eq!(planned.plan.written_images().count(), 1, "who may not write there may not run it");
}

#[test]
fn a_push_runs_where_its_first_image_is_and_has_others_staged() {
    let one =
        planned("steps:\n  - id: a\n    build: -t app .\n    platform: linux/arm64\n  - id: out\n    push: [app]\n");
    assert_eq!(shown(&one.plan), ["a@linux/arm64 <-", "out@linux/arm64 <- a"], "no other agent is needed");
    let two = planned(
        "steps:\n  - id: a\n    build: -t app .\n    platform: linux/arm64\n  - id: b\n    build: -t tool .\n    when: \
         ['-']\n  - id: out\n    push: [app, tool, 'tool']\n    when: [a, b]\n",
    );
    assert_eq!(
        shown(&two.plan),
        ["a@linux/arm64 <-", "b@linux/amd64 <-", "b-stage@linux/amd64 <- b", "out@linux/arm64 <- a b b-stage"]
    );
    let from: Vec<PushedFrom> = push(&two, "out").names.into_iter().map(|name| name.from).collect();
    assert_eq!(from, [PushedFrom::Built(0), PushedFrom::Staged(2)]);
    let made_by = |from: &PushedFrom| (0..4).filter(|step| two.plan.is_made_by(from, *step)).collect::<Vec<_>>();
    assert_eq!([made_by(&from[0]), made_by(&from[1])], [[0], [1]], "a stage made nothing itself");
}

#[test]
fn who_runs_an_image_for_a_platform_that_it_does_not_have_is_told_so() {
    let text = format!(
        "steps:\n  - id: image\n    build: -t app .\n    {BOTH}\n  - id: old\n    cmd: app x\n    platform: linux/arm/v7\n"
    );
    let error = plan_of(&inputs(&text)).expect_err("not built for it").to_string();
    let expect = "acr-task.yaml:6:10: step old for linux/arm/v7 runs `app:latest`, which step image builds for linux/amd64 and linux/arm64; add \
                  linux/arm/v7 to its `platforms`, or say `platform: linux/amd64` in step old";
    assert_eq!(error, expect);
}

#[test]
fn the_last_build_for_a_platform_counts() {
    let planned = planned(
        "steps:\n  - id: a\n    build: -t app .\n  - id: b\n    build: -t app .\n    platform: linux/arm64\n  - id: run\n    \
         cmd: app x\n  - id: out\n    push: [app]\n",
    );
    let run = planned.plan.step_index(&cooper_types::StepId::parse("run").expect("valid")).expect("planned");
    assert_eq!(command(&planned, run).image, CommandImage::Built { step: 0 });
    let out = push(&planned, "out");
    let built = planned.plan.steps.iter().position(|step| step.id.as_str() == "b").expect("planned");
    assert_eq!(out.names[0].from, PushedFrom::Built(built), "a tag has one image, the last one of its name");
}

#[test]
fn a_failure_that_is_ignored_is_ignored_in_its_stage() {
    let planned = planned(&format!(
        "steps:\n  - id: a\n    build: -t app .\n    ignoreErrors: true\n    {BOTH}\n  - push: [app]\n"
    ));
    assert!(planned.plan.steps[..4].iter().all(|step| step.ignore_errors), "{:?}", planned.plan);
}

#[test]
fn a_push_whose_errors_are_ignored_ignores_its_stages_too() {
    let text = |second: &str| {
        format!(
            "steps:\n  - id: a\n    build: -t app -t x.example/app .\n    {BOTH}\n  - push: [app, x.example/app]\n    \
             ignoreErrors: true\n{second}"
        )
    };
    let ignored = |planned: &PlannedTask| -> Vec<bool> {
        let stages = planned.plan.steps.iter().filter(|step| matches!(&step.work, Work::Push(push) if push.is_stage));
        stages.map(|step| step.ignore_errors).collect()
    };
    assert_eq!(ignored(&planned(&text(""))), [true; 4]);
    let shared = planned(&text("  - push: [app]\n"));
    assert_eq!(ignored(&shared), [false, false, true, true], "another push needs what is in the embedded registry");
}

#[test]
fn nothing_is_staged_on_a_guess_where_the_run_may_not_push() {
    let text = inputs(
        "steps:\n  - build: -t first -t second .\n  - id: b\n    build: -t other .\n    platform: linux/arm64\n",
    );
    let without = plan_with(&text, &["run", "repository:*:pull"]).expect("as if nothing crossed");
    assert_eq!(without.plan.steps.len(), 2, "{:?}", shown(&without.plan));
    assert_eq!(build(&without, 1).staged_bases, []);
    let second = plan_with(&text, &["run", "repository:second:push"]).expect("by the second name");
    let places: Vec<String> = second.plan.written_images().map(ToString::to_string).collect();
    assert_eq!(places, ["localhost:5000/second"]);
    assert_eq!(build(&second, 2).staged_bases.len(), 4, "both names stand for it, with and without the registry");
}

#[test]
fn plans_are_moved_behind_others_with_all_that_they_name() {
    let text = "steps:\n  - id: data\n    build: -t data .\n  - id: app\n    build: -t app .\n    platforms: [linux/arm64, \
                linux/arm/v7]\n  - id: own\n    build: -t own .\n    platform: linux/arm64\n  - push: [app]\n";
    let plan = planned(text).plan;
    let mut all = plan.clone();
    let mut second = plan.clone();
    second
        .steps
        .iter_mut()
        .for_each(|step| step.id = cooper_types::StepId::parse(&format!("x-{}", step.id)).expect("valid"));
    all.append(second);
    let count = plan.steps.len();
    let mut moved = 0;
    for (before, after) in plan.steps.iter().zip(&all.steps[count..]) {
        match (&before.work, &after.work) {
            (Work::Push(before), Work::Push(after)) => {
                for (before, after) in before.names.iter().zip(&after.names) {
                    let moved: Vec<usize> = before.from.steps().iter().map(|step| step + count).collect();
                    assert_eq!(after.from.steps(), moved);
                }
            }
            (Work::Build(before), Work::Build(after)) => {
                for (before, after) in before.staged_bases.iter().zip(&after.staged_bases) {
                    assert_eq!(after.staged_by, before.staged_by + count);
                }
                for (before, after) in before.own_bases.iter().zip(&after.own_bases) {
                    assert_eq!(after.1, before.1 + count);
                }
                moved += before.own_bases.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(moved > 0, "no build stood on one of its placement");
}
