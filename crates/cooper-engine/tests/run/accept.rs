//! From a request to a run: the plan under the run's id, what the token allows, and the form in which it is kept.

use std::time::Duration;

use cooper_engine::run::{Asked, NewRun, PendingReason, Phase, Run, RunStatus};
use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::quick_build::{BuildSource, QuickBuild};
use cooper_types::{ContextId, Platform, PoolName, RegistryName, RunId, Scope, Scopes};

use super::fixture::{at, by};

fn request(scopes: &[&str]) -> NewRun {
    let argument = |name: &str, value| BuildArgument { name: name.to_owned(), value };
    NewRun {
        origin: Default::default(),
        principal: by(),
        scopes: Scopes(scopes.iter().map(|scope| Scope::parse(scope).expect("valid")).collect()),
        registry: RegistryName::parse("localhost:5000").expect("valid"),
        pool: PoolName::default_pool(),
        asked: Asked::Build {
            build: QuickBuild {
                image_names: vec!["team/app:{{.Run.ID}}".to_owned(), "team/app".to_owned(), "other".to_owned()],
                push: true,
                no_cache: true,
                dockerfile: "Dockerfile".to_owned(),
                target: Some("final".to_owned()),
                arguments: vec![
                    argument("A", ArgumentValue::Plain("{{.Run.ID}}".to_owned())),
                    argument("B", ArgumentValue::Secret),
                ],
                labels: vec![("k".to_owned(), "v".to_owned())],
                secrets: vec!["npm".to_owned()],
                platform: Platform::parse("linux/arm/v7").expect("valid"),
                platforms: Vec::new(),
                elsewhere: false,
            },
            source: BuildSource::Context(ContextId::parse("c1").expect("valid")),
        },
        timeout: Duration::from_millis(3_600_500),
        replay: None,
    }
}

fn build_of(request: &mut NewRun) -> &mut QuickBuild {
    match &mut request.asked {
        Asked::Build { build, .. } => build,
        Asked::Task(_) => unreachable!("these are builds"),
    }
}

#[test]
fn an_accepted_run_waits_and_can_be_written_down() {
    let run =
        request(&["run", "repository:*:push"]).accept(RunId::from_number(35), at(7)).expect("it can be planned").run;
    assert_eq!((run.status(), run.created, &run.phase), (RunStatus::Queued, at(7), &Phase::Live));
    assert_eq!((run.placements.len(), run.steps.len()), (1, 2));
    let images: Vec<String> = run.plan.pushed_images().map(ToString::to_string).collect();
    assert_eq!(
        images,
        ["localhost:5000/team/app:ca10", "localhost:5000/team/app:latest", "localhost:5000/other:latest"]
    );
    assert_eq!(run.pending_reason(), Some(&PendingReason::New));
    let text = serde_json::to_string(&run).expect("a run can be written down");
    assert_eq!(serde_json::from_str::<Run>(&text).expect("and read again"), run);
}

#[test]
fn a_run_never_pushes_where_its_token_may_not() {
    let refused = |scopes: &[&str]| match request(scopes).accept(RunId::from_number(1), at(0)) {
        Ok(_) => panic!("{scopes:?} must not be enough"),
        Err(error) => error.to_string(),
    };
    let denied =
        |repository: &str| format!("ann may not push to repository `{repository}`: the token has no such scope");
    assert_eq!(refused(&["run"]), denied("team/app"));
    assert_eq!(refused(&["run", "repository:*:pull"]), denied("team/app"));
    assert_eq!(refused(&["run", "repository:team/*:push"]), denied("other"));
    // Variables of a source are empty here, so this is `team/app` by another name.
    let mut hidden = request(&["run", "repository:other:push"]);
    build_of(&mut hidden).image_names = vec!["team/app{{.Run.Branch}}{{.Run.Commit}}:v1".to_owned()];
    let error = hidden.accept(RunId::from_number(1), at(0)).expect_err("what it comes to counts");
    assert_eq!(error.to_string(), denied("team/app"));
    let mut unpushed = request(&["run"]);
    build_of(&mut unpushed).push = false;
    let run = unpushed.accept(RunId::from_number(1), at(0)).expect("nothing is pushed").run;
    assert_eq!(run.steps.len(), 1);
}
