//! How much a task file may hold. A step is worked on beside every other, and so is a name beside every other: what the
//! text's own limit lets in would be billions of pairs.

use super::fields::{Fields, Report};
use super::model::{TaskStep, TaskWork};
use super::yaml::At;

pub(super) const STEPS: usize = 500;
pub(super) const SECRETS: usize = 100;
pub(super) const NETWORKS: usize = 100;
pub(super) const VOLUMES: usize = 100;
/// Of one volume.
pub(super) const FILES: usize = 100;
/// Entries of one `env`, and variables of one step with those of the task.
pub(super) const VARIABLES: usize = 1000;
/// Names that the steps of a file give to images and push, and those of one step.
pub(super) const IMAGES: usize = 256;
/// Bytes that the task's environment comes to in all steps.
const ENVIRONMENT: usize = 8 << 20;

/// The first entries of a list; more are a fault.
pub(super) fn limited<T>(
    fields: &Fields<'_>,
    name: &'static str,
    mut entries: Vec<T>,
    most: usize,
    report: &mut Report<'_>,
) -> Vec<T> {
    if entries.len() > most {
        report.fault(
            fields.at(name),
            format!("`{name}` has {} entries", entries.len()),
            format!("write at most {most}"),
        );
        entries.truncate(most);
    }
    entries
}

/// An entry of the task may be several variables, and a step has its own besides.
pub(super) fn check_variables(count: usize, at: At, report: &mut Report<'_>) {
    if count > VARIABLES {
        report.fault(at, format!("there are more than {VARIABLES} environment variables"), "set fewer");
    }
}

/// Every step has a copy of the task's environment.
pub(super) fn check_environment(variables: &[(String, String)], steps: usize, at: At, report: &mut Report<'_>) {
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes.saturating_mul(steps) > ENVIRONMENT {
        let message = format!("`env` of the task has {bytes} bytes, for each of {steps} steps");
        report.fault(at, message, "give it to the steps that need it");
    }
}

/// Names of images are looked for among each other.
pub(super) fn check_images(steps: &[TaskStep], at: At, report: &mut Report<'_>) {
    let names = steps.iter().map(|step| match &step.work {
        TaskWork::Build(build) => build.images.len(),
        TaskWork::Push(images) => images.len(),
        TaskWork::Cmd(_) => 0,
    });
    let names: usize = names.sum();
    // A push names what a build has named.
    if names > 2 * IMAGES {
        let message = format!("the steps name {names} images to build and push");
        report.fault(at, message, format!("name at most {}", 2 * IMAGES));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{faults, task};
    use super::*;

    fn steps(line: &str, count: usize) -> String {
        format!("steps:\n{}", format!("- {line}\n").repeat(count))
    }

    #[test]
    fn what_is_too_much_is_told() {
        assert_eq!(task(&steps("cmd: a", STEPS)).steps.len(), STEPS);
        // Each step waits for all above it: as much as so many can say.
        let after = |step: usize| (0..step).map(|before| format!("s{before},")).collect::<String>();
        let dense = (0..STEPS).map(|step| format!("- {{id: s{step}, cmd: a, when: [{}]}}\n", after(step)));
        assert_eq!(task(&format!("steps:\n{}", dense.collect::<String>())).steps[STEPS - 1].after.len(), STEPS - 1);
        let many = |name: &str, count: usize| (1..=count).map(|n| format!("{name}{n}")).collect::<Vec<_>>();
        let tags = many(" -t a", IMAGES + 1).concat();
        let volume = many("\n    f", FILES + 1).join(": YQ==");
        let table = [
            (steps("cmd: a", 30_000), "`steps` has 30000 entries; write at most 500"),
            (steps(&format!("build:{tags} ."), 1), "a build has more than 256 images"),
            (
                steps(&format!("push: [{}]", many("a", IMAGES + 1).join(", ")), 1),
                "a push step has more than 256 images",
            ),
            (steps("build: -t a -t b -t c .", 200), "the steps name 600 images to build and push"),
            (format!("env: [{}]\nsteps: []", many("A=", VARIABLES + 1).join(", ")), "`env` has 1001 entries"),
            (
                format!("env: ['{}']\nsteps: []", many("A", 1500).join("=1,") + "=1"),
                "more than 1000 environment variables",
            ),
            (
                format!("env: ['A={}']\n{}", "x".repeat(20_000), steps("cmd: a", STEPS)),
                "has 20001 bytes, for each of 500",
            ),
            (format!("volumes:\n- name: v\n  secret:{volume}: YQ==\nsteps: []"), "`secret` has 101 entries"),
            (format!("networks:\n{}steps: []", "- name: n\n".repeat(101)), "`networks` has 101 entries"),
            (format!("volumes:\n{}steps: []", "- name: n\n".repeat(101)), "`volumes` has 101 entries"),
            (format!("secrets:\n{}steps: []", "- id: n\n".repeat(101)), "`secrets` has 101 entries"),
        ];
        for (text, expected) in table {
            let told = faults(&text);
            assert!(told.contains(expected), "{expected}: {}", told.chars().take(300).collect::<String>());
        }
    }
}
