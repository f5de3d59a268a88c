//! Whether anybody can tell that the steps of a run share one network namespace. Where nobody can, they do: it is up to
//! half a second faster for each step (DESIGN §8).

use cooper_types::Platform;

use crate::task::{StepNetwork, Task, TaskStep, TaskWork};

/// Whether steps need namespaces of their own. Windows has none that containers could share.
pub(super) fn is_observable(task: &Task, placements: &[Platform]) -> bool {
    if placements.iter().any(|platform| platform.os() == "windows") {
        return true;
    }
    let seen = |step: &TaskStep| {
        step.detach
            || step.privileged
            || !step.ports.is_empty()
            || !step.expose.is_empty()
            || matches!(step.network, StepNetwork::Named(_) | StepNetwork::Bridge)
    };
    task.steps.iter().filter(|step| is_container(step)).any(seen) || may_overlap(task)
}

fn is_container(step: &TaskStep) -> bool {
    matches!(step.work, TaskWork::Cmd(_))
}

/// Whether two `cmd` steps may run at the same time: neither waits for the other.
fn may_overlap(task: &Task) -> bool {
    let before = Task::ancestors(&task.steps);
    let containers: Vec<usize> = (0..task.steps.len()).filter(|index| is_container(&task.steps[*index])).collect();
    containers
        .iter()
        .enumerate()
        .any(|(position, later)| containers[..position].iter().any(|earlier| !before[*later][*earlier]))
}
