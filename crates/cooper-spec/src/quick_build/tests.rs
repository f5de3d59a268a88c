//! Requests that can be planned and requests that can't, with what is said of them.

use std::error::Error;

use cooper_types::{RunId, Timestamp};

use super::*;

const LONG: usize = 257;

fn request() -> QuickBuild {
    QuickBuild {
        image_names: Vec::new(),
        push: true,
        no_cache: false,
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        arguments: Vec::new(),
        labels: Vec::new(),
        secrets: Vec::new(),
        platform: Platform::LINUX_AMD64,
        platforms: Vec::new(),
        elsewhere: false,
    }
}

fn registry() -> RegistryName {
    RegistryName::parse("localhost:5000").expect("valid")
}

fn planned(request: &QuickBuild) -> Result<Plan, PlanError> {
    let created = Timestamp::from_micros(1_706_745_599_000_000);
    let variables = RunVariables::quick_build(RunId::from_number(1), &registry(), &request.platform, created);
    request.plan(&ContextId::parse("c1").expect("valid"), &variables, &registry())
}

fn plan_of(change: impl FnOnce(&mut QuickBuild)) -> Plan {
    let mut request = request();
    change(&mut request);
    planned(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
}

fn plain(name: &str, value: &str) -> BuildArgument {
    BuildArgument { name: name.to_owned(), value: ArgumentValue::Plain(value.to_owned()) }
}

fn secret(name: &str) -> BuildArgument {
    BuildArgument { name: name.to_owned(), value: ArgumentValue::Secret }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn image_names_become_references() {
    let table: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["app"], &["localhost:5000/app:latest"]),
        (&["team/app:v1"], &["localhost:5000/team/app:v1"]),
        (&["localhost:5000/app:v1"], &["localhost:5000/app:v1"]),
        (&["{{.Run.Registry}}/app:{{ .Run.ID }}"], &["localhost:5000/app:ca1"]),
        (&["app:{{.Run.Date}}"], &["localhost:5000/app:20240131-235959z"]),
        (&["b:2", "a:1", "b:2", "localhost:5000/a:1"], &["localhost:5000/b:2", "localhost:5000/a:1"]),
        (&["app", "app:latest"], &["localhost:5000/app:latest"]),
    ];
    for (names, expected) in table {
        let plan = plan_of(|request| request.image_names = texts(names));
        let images: Vec<String> = plan.pushed_images().map(ToString::to_string).collect();
        assert_eq!(images, *expected, "{names:?}");
    }
}

#[test]
fn a_push_follows_the_build_where_there_is_something_to_push() {
    let ids = |plan: &Plan| plan.steps.iter().map(|step| step.id.to_string()).collect::<Vec<_>>();
    let plan = plan_of(|request| request.image_names = texts(&["app"]));
    assert_eq!(ids(&plan), ["build", "push"]);
    assert_eq!((plan.steps[0].after.as_slice(), plan.steps[1].after.as_slice()), (&[][..], &[0][..]));
    assert!(
        matches!(&plan.steps[1].work, Work::Push(push) if push.names.iter().all(|name| name.from == PushedFrom::Built(0)))
    );
    assert_eq!(plan.step_index(&plan.steps[1].id), Some(1));
    assert_eq!(plan.step_index(&StepId::parse("other").expect("valid")), None);
    assert_eq!(ids(&plan_of(|_| {})), ["build"], "nothing has a name");
    let unpushed = plan_of(|request| {
        request.image_names = texts(&["app"]);
        request.push = false;
    });
    assert_eq!(ids(&unpushed), ["build"]);
    assert_eq!(unpushed.pushed_images().count(), 0);
}

#[test]
fn the_build_is_what_was_asked_for() {
    let plan = plan_of(|request| {
        request.no_cache = true;
        request.dockerfile = "deploy/./Dockerfile.prod".to_owned();
        request.target = Some("final".to_owned());
        request.arguments = vec![plain("V", "1"), plain("ID", "{{.Run.ID}}"), plain("V", "2"), secret("TOKEN")];
        request.labels = vec![("run".to_owned(), "{{.Run.ID}}".to_owned()), ("empty".to_owned(), String::new())];
        request.secrets = texts(&["npm", "ssh"]);
        request.platform = Platform::parse("linux/arm64").expect("valid");
    });
    assert_eq!(plan.placements, [PlannedPlacement::new(Platform::parse("linux/arm64").expect("valid"))]);
    let expected = BuildWork {
        target: Some("final".to_owned()),
        // As with docker, the last value wins: both are handed on.
        arguments: vec![plain("V", "1"), plain("ID", "ca1"), plain("V", "2"), secret("TOKEN")],
        labels: vec![("run".to_owned(), "ca1".to_owned()), ("empty".to_owned(), String::new())],
        no_cache: true,
        secrets: texts(&["npm", "ssh"]),
        ..BuildWork::new(BuildContext::Uploaded(ContextId::parse("c1").expect("valid")), "deploy/./Dockerfile.prod")
    };
    assert_eq!(plan.steps[0].work, Work::Build(expected));
}

#[test]
fn what_can_not_be_planned_is_named() {
    type Change = fn(&mut QuickBuild);
    let outside = |path: &str| format!("Dockerfile path `{path}` must be relative and stay inside the context");
    let table: &[(Change, String)] = &[
        (|r| r.dockerfile.clear(), "the Dockerfile's path is empty".to_owned()),
        (|r| r.dockerfile = "/etc/passwd".to_owned(), outside("/etc/passwd")),
        (|r| r.dockerfile = "../Dockerfile".to_owned(), outside("../Dockerfile")),
        (|r| r.dockerfile = "a/../../b".to_owned(), outside("a/../../b")),
        (|r| r.dockerfile = "a\\..\\b".to_owned(), outside("a\\\\..\\\\b")),
        (|r| r.dockerfile = "a\0b".to_owned(), outside("a\\0b")),
        (|r| r.dockerfile = "a\nb".to_owned(), outside("a\\nb")),
        (
            |r| r.arguments = vec![plain("A=B", "x")],
            "build argument `A=B` holds a `=` or a control character in its name".to_owned(),
        ),
        (
            |r| r.arguments = vec![secret("A\0")],
            "build argument `A\\0` holds a `=` or a control character in its name".to_owned(),
        ),
        (|r| r.secrets = texts(&["a\n"]), "secret `a\\n` holds a `=` or a control character in its name".to_owned()),
        (|r| r.dockerfile = format!("/{}", "x".repeat(9_999)), outside(&format!("/{}", "x".repeat(159)))),
        (|r| r.target = Some(String::new()), "the target stage is empty".to_owned()),
        (|r| r.target = Some("a\0".to_owned()), "a label or the target holds a NUL character".to_owned()),
        (
            |r| r.platform = Platform::parse("windows/amd64").expect("valid"),
            "platform `windows/amd64` can't be built yet: only linux platforms can".to_owned(),
        ),
        (|r| r.image_names = texts(&["App"]), "image name `App` can't be used".to_owned()),
        (|r| r.image_names = texts(&[""]), "image name `` can't be used".to_owned()),
        (|r| r.image_names = texts(&["app:{{.Run.ID}}:x"]), "image name `app:ca1:x` can't be used".to_owned()),
        (|r| r.image_names = texts(&["a{{.Run.Nope}}"]), "image name `a{{.Run.Nope}}` can't be rendered".to_owned()),
        (|r| r.image_names = texts(&["a\0"]), "image name holds a NUL character".to_owned()),
        (
            |r| r.image_names = vec![format!("app@sha256:{}", "0".repeat(64))],
            format!("image name `app@sha256:{}` holds a digest; name a tag instead", "0".repeat(64)),
        ),
        (
            |r| r.image_names = texts(&["docker.io/app:v1"]),
            "image name `docker.io/app:v1` is for registry `docker.io`; a quick build pushes to `localhost:5000` only"
                .to_owned(),
        ),
        (|r| r.image_names = texts(&["a"; LONG]), "image names: 257 are given, at most 256 are allowed".to_owned()),
        (
            |r| r.arguments = vec![plain("A", ""); LONG],
            "build arguments: 257 are given, at most 256 are allowed".to_owned(),
        ),
        (
            |r| r.labels = vec![("a".to_owned(), String::new()); LONG],
            "labels: 257 are given, at most 256 are allowed".to_owned(),
        ),
        (|r| r.secrets = texts(&["a"; LONG]), "secrets: 257 are given, at most 256 are allowed".to_owned()),
        (|r| r.arguments = vec![plain("", "x")], "a build argument's name is empty".to_owned()),
        (|r| r.arguments = vec![plain("A", "\0")], "build argument holds a NUL character".to_owned()),
        (|r| r.arguments = vec![plain("A", "{{")], "build argument `{{` can't be rendered".to_owned()),
        (|r| r.arguments = vec![secret("A"), secret("A")], "secret build argument `A` is given twice".to_owned()),
        (|r| r.arguments = vec![plain("A", "x"), secret("A")], "build argument `A` is given twice".to_owned()),
        (
            |r| r.labels = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
            "label `a` is given twice".to_owned(),
        ),
        (|r| r.labels = vec![(String::new(), "1".to_owned())], "label is empty".to_owned()),
        (
            |r| r.labels = vec![("a\0".to_owned(), String::new())],
            "a label or the target holds a NUL character".to_owned(),
        ),
        (|r| r.labels = vec![("a".to_owned(), "{{x}}".to_owned())], "label `{{x}}` can't be rendered".to_owned()),
        (|r| r.secrets = texts(&["npm", "npm"]), "secret `npm` is given twice".to_owned()),
        (|r| r.secrets = texts(&[""]), "secret is empty".to_owned()),
    ];
    for (change, expected) in table {
        let mut request = request();
        change(&mut request);
        let error = planned(&request).expect_err(expected);
        assert_eq!(error.to_string(), *expected);
        if let Some(source) = error.source() {
            assert!(!error.to_string().contains(&source.to_string()), "`{error}` repeats its source");
        }
    }
}

#[test]
fn limits_are_where_they_are_said_to_be() {
    plan_of(|request| request.arguments = vec![plain("A", ""); MAX_ITEMS]);
    plan_of(|request| request.secrets = (0..MAX_ITEMS).map(|index| format!("s{index}")).collect());
    plan_of(|request| request.dockerfile = "a/b..c/..d/Dockerfile".to_owned());
    let label = |length: usize| vec![("k".to_owned(), "x".repeat(length))];
    plan_of(|request| request.labels = label(MAX_TEXT));
    let mut full = request();
    (full.labels, full.arguments) = (label(MAX_TEXT), vec![plain("A", "x")]);
    let error = planned(&full).expect_err("too much together");
    assert!(matches!(error, PlanError::Template { source: TemplateError::TooLong, .. }), "{error}");
}

#[test]
fn several_platforms_are_built_each_staged_and_pushed_as_an_index() {
    let both = || ["linux/arm64", "linux/amd64", "linux/arm64"].map(|text| Platform::parse(text).expect("valid"));
    let several = |push| {
        plan_of(|request| {
            request.image_names = texts(&["app:v1", "app:{{.Run.ID}}", "other"]);
            request.push = push;
            request.platform = both()[0].clone();
            request.platforms = both().to_vec();
            request.arguments = vec![plain("ARCH", "{{.Run.Architecture}}"), plain("ID", "{{.Run.ID}}")];
        })
    };
    let plan = several(true);
    let shown = |step: &PlannedStep| (step.id.to_string(), step.placement, step.after.clone());
    let expect = [
        ("build-linux-arm64", 0, vec![]),
        ("build-linux-amd64", 1, vec![]),
        ("build-linux-arm64-stage", 0, vec![0]),
        ("build-linux-amd64-stage", 1, vec![1]),
        ("push", 0, vec![2, 3]),
    ];
    let expect = expect.map(|(id, placement, after)| (id.to_owned(), placement, after));
    assert_eq!(plan.steps.iter().map(shown).collect::<Vec<_>>(), expect);
    let platforms: Vec<String> = plan.placements.iter().map(|placement| placement.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
    for (step, architecture) in plan.steps.iter().zip(["arm64", "amd64"]) {
        let Work::Build(build) = &step.work else { panic!("{step:?}") };
        assert_eq!(build.arguments, [plain("ARCH", architecture), plain("ID", "ca1")]);
    }
    let Work::Push(stage) = &plan.steps[2].work else { panic!("{plan:?}") };
    let staged: Vec<String> = stage.names.iter().map(|name| name.image.to_string()).collect();
    assert_eq!((stage.is_stage, staged), (true, texts(&["localhost:5000/app", "localhost:5000/other"])));
    let Work::Push(push) = &plan.steps[4].work else { panic!("{plan:?}") };
    let part = |platform: &Platform, staged_by, built_by| IndexPart { platform: platform.clone(), staged_by, built_by };
    let index = PushedFrom::Index(vec![part(&both()[0], 2, 0), part(&both()[1], 3, 1)]);
    assert!(!push.is_stage && push.names.iter().all(|name| name.from == index), "{push:?}");
    let images: Vec<String> = plan.pushed_images().map(ToString::to_string).collect();
    assert_eq!(images, ["localhost:5000/app:v1", "localhost:5000/app:ca1", "localhost:5000/other:latest"]);

    let unpushed = several(false);
    assert_eq!((unpushed.steps.len(), unpushed.written_images().count()), (2, 0));
    let once = plan_of(|request| request.platforms = vec![Platform::LINUX_AMD64]);
    assert_eq!(once.steps[0].id.as_str(), "build", "one platform that is named twice is one");
}

#[test]
fn a_server_of_one_user_s_own_pushes_anywhere() {
    let build = QuickBuild { image_names: texts(&["r.io/app:v1", "own"]), elsewhere: true, ..request() };
    let plan = planned(&build).expect("a plan");
    let images: Vec<String> = plan.pushed_images().map(ToString::to_string).collect();
    assert_eq!(images, ["r.io/app:v1", "localhost:5000/own:latest"]);
    let created = Timestamp::from_micros(0);
    let variables = RunVariables::quick_build(RunId::from_number(1), &registry(), &build.platform, created);
    let own: Vec<String> =
        build.certain_repositories(&variables, &registry()).iter().map(ToString::to_string).collect();
    assert_eq!(own, ["own"], "rights in the embedded registry are for what goes there");
}
