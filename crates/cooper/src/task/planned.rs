//! Whether a task file could be planned, as far as that is seen without a server: what a run would be refused for.

use std::collections::BTreeSet;

use cooper_spec::task::{Faults, Task, TaskInputs, TaskWork};
use cooper_spec::task_plan::{self, TaskPlanError, TaskPlanRequest};
use cooper_types::{ImageRef, RegistryName, Scope, Scopes};

/// How many of the registries that a file names are taken for the server's own.
const MAX_GUESSES: usize = 8;

/// Plans a file that was loaded. Where nobody says what the server's registry is called, each that the file names may be it.
pub(super) fn check(inputs: &TaskInputs, task: &Task, is_known: bool) -> Result<(), Faults> {
    let scopes = Scopes(vec![Scope::Admin]);
    let plan = |registry: &RegistryName| -> Result<(), TaskPlanError> {
        let platform = &inputs.run.platform;
        let request = TaskPlanRequest { inputs, platform, registry, context: None, scopes: &scopes };
        task_plan::plan(&request).map(drop)
    };
    let Err(error) = plan(&inputs.run.registry) else { return Ok(()) };
    let named: BTreeSet<&RegistryName> = images(task).filter_map(|image| image.registry.as_ref()).collect();
    match !is_known && named.into_iter().take(MAX_GUESSES).any(|registry| plan(registry).is_ok()) {
        true => Ok(()),
        false => Err(error.into_faults()),
    }
}

fn images(task: &Task) -> impl Iterator<Item = &ImageRef> {
    task.steps.iter().flat_map(|step| match &step.work {
        TaskWork::Build(line) => line.images.as_slice(),
        TaskWork::Cmd(line) => std::slice::from_ref(&line.image),
        TaskWork::Push(images) => images.as_slice(),
    })
}

#[cfg(test)]
mod tests {
    use cooper_spec::task::{self, NamedText};
    use cooper_spec::template::RunVariables;
    use cooper_types::{Platform, RunId, Timestamp};

    use super::*;

    #[test]
    fn a_file_is_planned_with_a_registry_that_it_may_mean() {
        let registry = RegistryName::parse("localhost:5000").expect("valid");
        let planned = |text: &str, is_known: bool| {
            let created = Timestamp::from_micros(0);
            let run = RunVariables::quick_build(RunId::from_number(1), &registry, &Platform::LINUX_AMD64, created);
            let inputs = TaskInputs::new(NamedText { name: "t.yaml".to_owned(), text: text.to_owned() }, run);
            let loaded = task::load(&inputs).unwrap_or_else(|faults| panic!("{faults}"));
            check(&inputs, &loaded.task, is_known).map_err(|faults| faults.to_string())
        };
        assert_eq!(planned("steps:\n- build: -t a .\n- push: [a, 'localhost:5000/a']\n", true), Ok(()));
        let own = "steps:\n- build: -t a .\n- push: ['builds.internal:5000/a']\n";
        assert_eq!(planned(own, false), Ok(()), "it may be what the server calls its registry");
        let told = planned(own, true).expect_err("it is not");
        assert!(
            told.starts_with("t.yaml:3:10: step acb_step_1: no step before it builds `builds.internal:5000/a"),
            "{told}"
        );
        let told = planned("steps:\n- push: [a]\n- build: -t r.io/b ..\n", false).expect_err("two");
        assert!(told.contains("t.yaml:2:10: ") && told.contains("\nt.yaml:3:10: "), "{told}");
    }
}
