//! Whole files: what they become, and what is said of those that are wrong.

mod faults;
mod hostile;
mod json;
mod meaning;
mod outside;
mod told;
mod variables;

use std::time::Duration;

use cooper_types::{Platform, RegistryName, RunId, Timestamp};

use super::*;
use crate::template::RunVariables;

fn inputs(text: &str) -> TaskInputs {
    let registry = RegistryName::parse("r.io").expect("valid");
    let (amd64, created) = (&Platform::LINUX_AMD64, Timestamp::from_micros(0));
    let run = RunVariables::quick_build(RunId::from_number(1), &registry, amd64, created);
    TaskInputs::new(NamedText { name: "task.yaml".to_owned(), text: text.to_owned() }, run)
}

pub(super) fn task(text: &str) -> Task {
    load(&inputs(text)).unwrap_or_else(|faults| panic!("{text}\n{faults}")).task
}

#[test]
fn a_plain_file_has_its_defaults() {
    let task = task("steps:\n- cmd: bash echo hi\n- id: b\n  build: -t app .\n- push: [app]\n");
    assert_eq!(task.version, TaskVersion::V1_0_0);
    let ids: Vec<&str> = task.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["acb_step_0", "b", "acb_step_2"]);
    let after: Vec<&[usize]> = task.steps.iter().map(|step| step.after.as_slice()).collect();
    assert_eq!(after, [&[][..], &[0], &[1]]);
    let cmd = &task.steps[0];
    assert_eq!((cmd.timeout, cmd.retry_delay), (Duration::from_secs(600), Duration::from_secs(5)));
    assert_eq!(cmd.working_directory, "/workspace");
    assert_eq!(cmd.network, StepNetwork::Run);
    let TaskWork::Cmd(line) = &cmd.work else { panic!("a cmd") };
    assert_eq!((line.image.to_string().as_str(), line.words.join(" ").as_str()), ("bash:latest", "echo hi"));
}

/// The faults of a file, a line each.
pub(super) fn faults(text: &str) -> String {
    load(&inputs(text)).map(|loaded| loaded.rendered).expect_err(text).to_string()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load(&inputs(text)).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
    loaded.warnings.iter().map(Fault::to_string).collect()
}

/// The words of a `cmd` step, with its image.
fn cmd(step: &TaskStep) -> String {
    match &step.work {
        TaskWork::Cmd(line) => format!("{} {}", line.image, line.words.join("|")).trim_end().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn ids(task: &Task) -> Vec<&str> {
    task.steps.iter().map(|step| step.id.as_str()).collect()
}

#[test]
fn aliases_come_before_templates() {
    let mut inputs = inputs(
        "version: v1.1.0\nalias:\n  src: [a.yaml, 'https://h/b.yaml']\n  values:\n    own: '{{.Values.x}}-{{.Run.OS}}'\n    \
         later: inline\nsteps:\n- cmd: $Registry/tool:$ID $own $both $later $HOME $$own\n- cmd: shell -c 'x'\n- cmd: both\n",
    );
    inputs.set = vec![SetValue::parse("x=1", false).expect("a value")];
    inputs.image_aliases.insert("shell".to_owned(), "r.io/sh:1".to_owned());
    let sources = alias_sources(&inputs).expect("sources");
    assert_eq!(sources, [AliasSource::File("a.yaml".to_owned()), AliasSource::Url("https://h/b.yaml".to_owned())]);
    inputs.alias_sources.insert("a.yaml".to_owned(), "both: first\nlater: of-a\n".to_owned());
    inputs.alias_sources.insert("https://h/b.yaml".to_owned(), "both: '{{.Run.RegistryName}}'\n".to_owned());
    let task = load(&inputs).unwrap_or_else(|faults| panic!("{faults}")).task;
    assert_eq!(cmd(&task.steps[0]), "r.io/tool:ca1 1-linux|r|inline|$HOME|$own");
    assert_eq!(cmd(&task.steps[1]), "r.io/sh:1 -c|x");
    assert_eq!(cmd(&task.steps[2]), "r:latest");
}

#[test]
fn acr_is_the_client_of_that_name_unless_the_operator_says_otherwise() {
    let mut inputs = inputs("version: v1.1.0\nsteps:\n- cmd: acr purge --ago 1d\n");
    let task = load(&inputs).unwrap_or_else(|faults| panic!("{faults}")).task;
    assert_eq!(cmd(&task.steps[0]), format!("{ACR_CLI} purge|--ago|1d"));
    assert!(is_acr_cli(&cooper_types::ImageRef::parse(ACR_CLI).expect("valid")));
    inputs.image_aliases.insert("acr".to_owned(), "r.io/own:1".to_owned());
    let task = load(&inputs).unwrap_or_else(|faults| panic!("{faults}")).task;
    assert_eq!(cmd(&task.steps[0]), "r.io/own:1 purge|--ago|1d");
}

#[test]
fn templates_see_run_values_and_secrets() {
    let mut inputs = inputs(
        "steps:\n{{- range .Values.names }}\n- id: {{ . }}-{{ $.Run.ID }}\n  cmd: 'img {{ $.Secrets.token }} {{ index $.Secrets \"a-b\" }}'\n{{- end }}\n- \
         cmd: img {{.Values.none}}x {{.Build.ID}} {{.ValuesJSON}}\n",
    );
    inputs.values =
        Some(NamedText { name: "values.yaml".to_owned(), text: "names: [A, B]\ndeep: {er: 1}\n".to_owned() });
    for (id, value) in [("token", "t0p"), ("a-b", "x y")] {
        inputs.secrets.insert(id.to_owned(), cooper_types::SecretString::new(value.to_owned()));
    }
    let loaded = load(&inputs).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(ids(&loaded.task), ["A-ca1", "B-ca1", "acb_step_2"]);
    assert_eq!(cmd(&loaded.task.steps[1]), "img:latest t0p|x|y");
    assert_eq!(cmd(&loaded.task.steps[2]), r#"img:latest x|ca1|{"deep":{"er":1},"names":["A","B"]}"#);
    assert!(loaded.rendered.contains("id: B-ca1"), "{}", loaded.rendered);
}

#[test]
fn faults_come_together_with_their_places() {
    let text = "steps:\n- cmd: bash\n  when: [x]\n  timeout: \"5\"\n- build: --frob .\n  id: a b\n";
    let expected = "\
task.yaml:3:10: step `acb_step_0` waits for `x`, which there is not; it is the first step, and waits for nothing
task.yaml:4:12: `timeout` of a step is `5`, which is no number; write a whole number, without quotes
task.yaml:5:10: `docker build` has no flag `--frob`; allowed are --tag, --file, --target, --build-arg, --label, --no-cache, \
--pull, --platform, --network, --add-host, --secret, --cache-from, --cache-to, --isolation
task.yaml:6:7: step id `a b` holds a blank; write letters, digits, `-`, `_` and `.`";
    assert_eq!(faults(text), expected);
    let text = "steps:\n- cmd: bash\n  retires: 3\n  entryPoint: sh\n  zzz: 1\n- push: [a]\n  env: [A=1]\n";
    assert_eq!(
        warnings(text)[0],
        "task.yaml:3:3: a step has no key `retires`; it has no effect; did you mean `retries`?"
    );
    assert!(
        warnings(text)[1].starts_with("task.yaml:5:3: a step has no key `zzz`; it has no effect; known are id, cmd,")
    );
    assert_eq!(
        warnings(text)[2],
        "task.yaml:7:3: `env` has no effect on a push step; it counts for build and cmd steps"
    );
}

#[test]
fn every_example_is_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tasks");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let mut inputs = inputs(&std::fs::read_to_string(&path).expect("a text"));
        inputs.set.push(SetValue::parse("user=me", true).expect("a value"));
        for secret in wanted_secrets(&inputs).expect("secrets") {
            inputs.secrets.insert(secret.id, cooper_types::SecretString::new("s3cret".to_owned()));
        }
        let loaded = load(&inputs).unwrap_or_else(|faults| panic!("{}: {faults}", path.display()));
        assert_eq!(loaded.warnings, [], "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 8, "{seen} examples");
}

#[test]
fn the_file_of_the_readme_is_right() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).expect("a text");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<&str> = blocks.filter(|text| text.starts_with("version:")).collect();
    assert!(!files.is_empty());
    assert!(files.iter().all(|text| warnings(text).is_empty()));
}

#[test]
fn a_file_with_errors_tells_its_warnings_too() {
    let text = "version: v1.1.0\nsteps:\n  - cmd: a\n    retrys: 3\n  - cmd: b\n    timeout: never\n";
    let faults = load(&inputs(text)).expect_err("a fault");
    assert_eq!((faults.faults.len(), faults.warnings.len()), (1, 1), "{faults}");
    assert!(faults.warnings[0].to_string().contains("retrys"), "{}", faults.warnings[0]);
}
