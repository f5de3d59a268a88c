//! How long runs of a task and their logs are kept, as the task says it; archived ones stay.

use std::time::Duration;

use cooper_e2e::{ServerOptions, TestServer, WallClock, wait_until};

const DAY: i64 = 86_400;

#[test]
fn logs_and_runs_go_when_the_task_says_and_archived_ones_stay() {
    let clock = WallClock::new();
    let (arguments, environment) = (vec!["--no-agent".to_owned()], clock.environment());
    let mut server = TestServer::with(ServerOptions { arguments, environment, ..ServerOptions::default() });
    let create = ["task", "create", "-n", "nightly", "-c", "/dev/null", "--cmd", "busybox true"];
    server.cooper(&[&create[..], &["--run-retention", "5", "--log-retention", "2"]].concat()).ok();
    let run = || {
        let id = server.cooper(&["task", "run", "nightly", "--no-wait"]).ok().stdout.trim().to_owned();
        server.cooper(&["task", "cancel-run", "--run-id", &id]).ok();
        wait_until("it has ended", Duration::from_secs(60), || !server.run(&id)["finishTime"].is_null());
        id
    };
    let (kept, old) = (run(), run());
    server.cooper(&["task", "update-run", "--run-id", &kept, "--no-archive", "false"]).ok();
    let log = |server: &TestServer, id: &str| server.cooper(&["logs", id]).stdout;
    let before = log(&server, &kept);
    assert!(before.contains("canceled") && log(&server, &old).contains("canceled"), "{before}");

    days_later(&mut server, &clock, 3);
    let gone = "was removed after the time for which its task keeps logs";
    wait_until("the log is gone", Duration::from_secs(120), || log(&server, &old).contains(gone));
    assert_eq!(server.run(&old)["status"], "Canceled", "the run is still there");
    assert_eq!(log(&server, &kept), before);

    days_later(&mut server, &clock, 6);
    let is_there = |id: &str| server.cooper(&["runs", "show", id]).code == Some(0);
    wait_until("the run is gone", Duration::from_secs(120), || !is_there(&old));
    assert!(is_there(&kept));
    assert_eq!(log(&server, &kept), before, "an archived run keeps its log, too");
}

/// Starts the server again so many days after the test's beginning.
fn days_later(server: &mut TestServer, clock: &WallClock, days: i64) {
    server.stop();
    clock.jump(days * DAY);
    server.restart();
}
