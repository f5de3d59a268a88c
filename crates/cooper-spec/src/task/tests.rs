//! Whole files: what they become, and what is said of those that are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_types::{Platform, RegistryName, RunId, Timestamp};

use super::*;
use crate::template::RunVariables;

fn inputs(text: &str) -> TaskInputs {
    let registry = RegistryName::parse("r.io").expect("valid");
    TaskInputs {
        file: NamedText { name: "task.yaml".to_owned(), text: text.to_owned() },
        values: None,
        set: Vec::new(),
        alias_sources: BTreeMap::new(),
        image_aliases: BTreeMap::new(),
        run: RunVariables::quick_build(
            RunId::from_number(1),
            &registry,
            &Platform::LINUX_AMD64,
            Timestamp::from_micros(0),
        ),
        secrets: BTreeMap::new(),
        working_directory: None,
        environment: Vec::new(),
    }
}

fn task(text: &str) -> Task {
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
