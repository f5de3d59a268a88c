//! The server's disk is full for longer than a lease, under a build: nothing is lost by it, and nothing that was accepted.

use std::time::{Duration, Instant};

use cooper_e2e::{Context, Pause, ServerOptions, SmallDisk, Submission, TestServer, unique, wait_until};

use crate::machine::END;

/// Longer than a lease.
const FULL: Duration = Duration::from_secs(25);

#[test]
fn a_disk_that_is_full_for_longer_than_a_lease() {
    let disk = SmallDisk::mount(64);
    let server = TestServer::with(ServerOptions { data: Some(disk.data()), ..Default::default() });
    let base = server.base_image();
    let mut pause = Pause::new();
    let dockerfile = format!("FROM {base}\nRUN echo before && {} && echo after-{}\n", pause.script(), unique());
    let mut submission = Submission::new(&dockerfile, &["full:1", "full:2"]);
    assert!(submission.submit(&server));
    pause.begins();
    disk.fill();
    let filled = Instant::now();
    // Whoever asks for something hears why it can't be had; what is there can still be read.
    let other = Context::new(&format!("FROM {base}\n"));
    let refused = server.cooper(&["build", "-t", "full:3", &other.display()]).expect(5);
    refused.error_names(&["space"]);
    wait_until("the disk is full for longer than a lease", FULL * 2, || {
        submission.look(&server);
        assert!(submission.record(&server).is_some(), "the run can't be read");
        filled.elapsed() > FULL
    });
    disk.free();
    pause.end();
    let record = submission.end(&server, END);
    let log = submission.check(&server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    assert_eq!(record["steps"][0]["attempts"], 1, "{record:#}\n{log}");
    assert!(log.contains("before") && log.contains("after-"), "{log}");
    let next = server.build(&["-t", "full:4"], &Context::new(&format!("FROM {base}\nRUN echo {}\n", unique())));
    assert_eq!(next["status"], "Succeeded");
}
