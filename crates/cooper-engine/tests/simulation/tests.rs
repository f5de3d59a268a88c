//! Many seeds, one seed, the same seed twice, and systems that are broken on purpose.

use std::collections::BTreeMap;

use super::world::{Outcome, Sabotage, simulate};

/// Seeds that are played when nothing is said.
const SEEDS: u64 = 200;
/// Lines of a trace that are shown when a promise was broken.
const SHOWN: usize = 400;

#[expect(clippy::disallowed_methods, reason = "a person asks a test for a seed; there are no settings to resolve")]
fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[expect(clippy::print_stdout, reason = "this is how a failing seed is explained")]
fn show(seed: u64, outcome: &Outcome) {
    let start = outcome.trace.len().saturating_sub(SHOWN);
    for line in &outcome.trace[start..] {
        println!("{line}");
    }
    if let Some(breach) = &outcome.breach {
        panic!("seed {seed}: {breach}; COOPER_SIM_SEED={seed} plays it again");
    }
}

#[test]
fn promises_are_kept_whatever_goes_wrong() {
    if let Some(seed) = asked("COOPER_SIM_SEED") {
        return show(seed, &simulate(seed, Sabotage::Nothing));
    }
    let seeds = asked("COOPER_SIM_SEEDS").unwrap_or(SEEDS);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut losses = 0;
    for seed in 0..seeds {
        let outcome = simulate(seed, Sabotage::Nothing);
        if outcome.breach.is_some() {
            show(seed, &outcome);
        }
        losses += outcome.losses;
        for status in outcome.statuses {
            *seen.entry(status.as_str()).or_default() += 1;
        }
    }
    println!("{seeds} seeds: {seen:?}, {losses} losses");
    // A storm that breaks everything, or nothing, would prove nothing.
    if seeds >= SEEDS {
        for status in ["Succeeded", "Failed", "Canceled", "Error", "Timeout"] {
            assert!(seen.get(status).is_some_and(|count| *count > 3), "too few runs are {status}: {seen:?}");
        }
        assert!(losses > 50, "{losses} losses");
    }
}

#[test]
fn a_seed_says_everything() {
    for seed in 0..10 {
        let (one, two) = (simulate(seed, Sabotage::Nothing), simulate(seed, Sabotage::Nothing));
        assert!(one.trace.len() > 50, "{} lines", one.trace.len());
        assert_eq!(one.trace, two.trace, "seed {seed}");
    }
    assert_ne!(simulate(1, Sabotage::Nothing).trace, simulate(2, Sabotage::Nothing).trace);
}

/// Plays seeds until the breach that a sabotage leads to is seen.
fn is_caught(sabotage: Sabotage, expect: &str) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match simulate(seed, sabotage).breach {
            Some(breach) if breach.contains(expect) => return,
            Some(breach) => others.push(breach),
            None => {}
        }
    }
    panic!("{sabotage:?} was not seen in {SEEDS} seeds; seen was {others:?}");
}

#[test]
fn pushes_that_are_not_looked_at_are_caught() {
    is_caught(Sabotage::StageWithoutLook, "promise 3: the registry took a push");
}

#[test]
fn containers_that_stay_are_caught() {
    is_caught(Sabotage::LeaveContainers, "never comes to rest");
}

#[test]
fn messages_that_are_never_said_again_are_caught() {
    is_caught(Sabotage::NeverRemind, "never said again");
}

#[test]
fn runs_that_are_answered_before_they_are_kept_are_caught() {
    is_caught(Sabotage::AnswerBeforeCommit, "promise 1");
}

#[test]
fn leases_by_the_wall_clock_are_caught() {
    is_caught(Sabotage::WallClock, "of silence");
    is_caught(Sabotage::WallClock, "clock went back");
}

#[test]
fn leases_that_pass_while_the_server_is_down_are_caught() {
    is_caught(Sabotage::NoLeaseAfterRestart, "of silence");
}

#[test]
fn a_server_that_never_looks_at_the_time_is_caught() {
    is_caught(Sabotage::NeverTick, "promise 6");
    is_caught(Sabotage::NeverTick, "never comes to rest");
}

#[test]
fn log_frames_that_are_acknowledged_and_not_kept_are_caught() {
    is_caught(Sabotage::AckBeforeCommit, "promise 5");
}

#[test]
fn leases_that_pass_while_the_disk_is_full_are_caught() {
    is_caught(Sabotage::NoLeaseAfterFullDisk, "of silence");
}
