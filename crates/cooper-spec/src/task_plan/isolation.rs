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
            || asks_for_itself(step)
    };
    task.steps.iter().filter(|step| is_container(step)).any(seen) || may_overlap(task)
}

fn is_container(step: &TaskStep) -> bool {
    matches!(step.work, TaskWork::Cmd(_))
}

/// Whether a command seems to ask for its own step's name, as of a host: in a shared namespace it has none.
fn asks_for_itself(step: &TaskStep) -> bool {
    let TaskWork::Cmd(cmd) = &step.work else { return false };
    let id = step.id.as_str();
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_host = |text: &str, at: usize| {
        let (before, after) = (&text[..at], &text[at + id.len()..]);
        let in_url = before.ends_with("//") || before.ends_with('@');
        let has_port = after.strip_prefix(':').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        (in_url || has_port) && !before.ends_with(is_part) && !after.starts_with(is_part)
    };
    cmd.words.iter().any(|word| word.match_indices(id).any(|(at, _)| is_host(word, at)))
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
