//! What runs: steps that go one after the other, all at once, or fan out and in; as a task file and as a script.

use std::fmt;
use std::fmt::Write as _;

/// How steps follow each other. Each number is how many run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    name: &'static str,
    stages: Vec<usize>,
}

impl Shape {
    pub(super) fn sequence(steps: usize) -> Self {
        Self { name: "one after the other", stages: vec![1; steps] }
    }

    pub(super) fn parallel(steps: usize) -> Self {
        Self { name: "all at once", stages: vec![steps] }
    }

    pub(super) fn diamond(steps: usize) -> Self {
        Self { name: "a diamond", stages: vec![1, steps.saturating_sub(2), 1] }
    }

    pub(super) fn stages(&self) -> &[usize] {
        &self.stages
    }

    pub(super) fn steps(&self) -> usize {
        self.stages.iter().sum()
    }

    /// Whether no two run at the same time.
    pub(super) fn is_sequence(&self) -> bool {
        self.stages.iter().all(|stage| *stage == 1)
    }

    /// The task file whose steps are all this command.
    pub(super) fn task(&self, command: &str) -> String {
        let mut file = "version: v1.1.0\nsteps:\n".to_owned();
        let mut before: Vec<String> = vec!["\"-\"".to_owned()];
        for (number, stage) in self.stages.iter().enumerate() {
            let ids: Vec<String> = (0..*stage).map(|step| format!("s{number}x{step}")).collect();
            for id in &ids {
                let _ = writeln!(file, "  - id: {id}\n    cmd: {command}\n    when: [{}]", before.join(", "));
            }
            before = ids;
        }
        file
    }

    /// What does the same with the engine's client, in a network that it makes and removes.
    pub(super) fn script(&self, network: &str, image: &str, command: &str) -> String {
        let run = format!("docker run --rm --network {network} {image} {command}");
        let mut script = format!("set -e\ndocker network create {network}\n");
        for stage in &self.stages {
            if *stage == 1 {
                let _ = writeln!(script, "{run}");
                continue;
            }
            script.push_str("all=\n");
            for _ in 0..*stage {
                let _ = writeln!(script, "{run} & all=\"$all $!\"");
            }
            script.push_str("for one in $all; do wait $one; done\n");
        }
        let _ = writeln!(script, "docker network rm {network}");
        script
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps, {}", self.steps(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diamond_waits_for_its_middle() {
        let diamond = Shape::diamond(4);
        assert_eq!((diamond.steps(), diamond.is_sequence()), (4, false));
        let task = diamond.task("busybox true");
        assert!(task.contains("id: s1x0\n    cmd: busybox true\n    when: [s0x0]\n"), "{task}");
        assert!(task.ends_with("id: s2x0\n    cmd: busybox true\n    when: [s1x0, s1x1]\n"), "{task}");
        let script = diamond.script("n", "busybox", "true");
        assert_eq!(script.matches("docker run --rm --network n busybox true").count(), 4, "{script}");
        assert_eq!(script.matches(" & all=").count(), 2, "{script}");
    }

    #[test]
    fn shapes_are_as_long_as_they_say() {
        assert!(Shape::sequence(20).is_sequence());
        assert_eq!(Shape::parallel(20).stages(), [20]);
        assert_eq!(Shape::parallel(20).task("x").matches("when: [\"-\"]").count(), 20);
        assert_eq!(Shape::sequence(20).to_string(), "20 steps, one after the other");
    }
}
