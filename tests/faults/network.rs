//! The network between server and agents fails: cut for a moment, for longer than a lease, one way only, and slow.

use std::time::{Duration, Instant};

use cooper_e2e::{Pause, unique, wait_until};

use crate::machine::END;
use crate::machines::{Near, pass};

#[test]
fn cut_for_a_moment_and_one_way() {
    let near = Near::new();
    let far = near.machine("far");
    let base = near.server.base_image();
    for round in 0..3 {
        let mut pause = Pause::new();
        let dockerfile = format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique());
        let (one, two) = (format!("cut:{round}-one"), format!("cut:{round}-two"));
        let submission = near.submit(&dockerfile, &[&one, &two]);
        pause.begins();
        match round {
            0 => far.cable.cut(),
            1 => far.cable.cut_into(&near.namespace),
            _ => far.cable.cut_into(&far.namespace),
        }
        pass(Duration::from_secs(5));
        far.cable.mend();
        pause.end();
        near.ends_at_the_first_try(submission);
    }
}

#[test]
fn slow_from_the_start() {
    let near = Near::new();
    let far = near.machine("far");
    far.cable.slow("1mbit");
    let base = near.server.base_image();
    let dockerfile = format!("FROM {base}\nRUN head -c 200000 /dev/urandom > /noise && echo {}\n", unique());
    let submission = near.submit(&dockerfile, &["slow:1", "slow:2"]);
    near.ends_at_the_first_try(submission);
}

#[test]
fn cut_amid_a_push_for_longer_than_a_lease() {
    let near = Near::new();
    let mut one = near.machine("one");
    let base = near.server.base_image();
    // A layer that takes more than a minute through a narrow cable.
    one.cable.slow("1mbit");
    let dockerfile = format!("FROM {base}\nRUN head -c 10000000 /dev/urandom > /noise && echo {}\n", unique());
    let mut submission = near.submit(&dockerfile, &["late:1", "late:2"]);
    let run = submission.run().unwrap().to_owned();
    wait_until("the push begins", END, || near.server.run(&run)["steps"][1]["status"] == "Running");
    pass(Duration::from_secs(2));
    one.cable.cut();
    let cut = Instant::now();
    // Another machine takes over once the lease is over.
    let _two = near.machine("two");
    let record = submission.end(&near.server, END);
    let log = submission.check(&near.server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    assert!(log.contains("agent one lost the run (") && log.contains("loss 1 of 3"), "{log}");
    let left = Duration::from_secs(60).saturating_sub(cut.elapsed());
    pass(left);
    // The old one returns with a push that it began when it still might: nothing of it shows.
    one.cable.mend();
    wait_until("the old agent is back", END, || one.agent.log().matches("stream to the server is open").count() > 1);
    pass(Duration::from_secs(10));
    let after = submission.record(&near.server).unwrap();
    assert_eq!(after, record);
    submission.check(&near.server, &after);
    one.agent.stop();
}
