//! Wall clocks jump by an hour, either way: nothing is lost by it.

use std::time::{Duration, Instant};

use cooper_e2e::{Context, Pause, RemoteAgent, ServerOptions, Submission, TestServer, WallClock, unique, wait_until};

use crate::machine::END;

const HOUR: i64 = 3600;
/// Longer than what passes between two looks of anybody: sweeps, reports, renewals.
const A_WHILE: Duration = Duration::from_secs(4);

#[test]
fn a_server_and_its_agent_whose_clock_jumps() {
    let clock = WallClock::new();
    let mut server = TestServer::with(ServerOptions { environment: clock.environment(), ..Default::default() });
    let base = server.base_image();
    let mut pause = Pause::new();
    let dockerfile = format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique());
    let mut submission = Submission::new(&dockerfile, &["clock:1", "clock:2"]);
    assert!(submission.submit(&server));
    pause.begins();
    for offset in [HOUR, -HOUR] {
        clock.jump(offset);
        let jumped = Instant::now();
        wait_until("a while passes", A_WHILE * 2, || {
            assert!(pause.is_on(), "the step was stopped after a jump to {offset} s");
            jumped.elapsed() > A_WHILE
        });
    }
    pause.end();
    let record = submission.end(&server, END);
    let log = submission.check(&server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}");
    assert_eq!(record["steps"][0]["attempts"], 1, "{record:#}\n{log}");

    // A server that starts with its clock an hour back goes on from where its own time was.
    let mut pause = Pause::new();
    let dockerfile = format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique());
    let mut submission = Submission::new(&dockerfile, &["clock:3", "clock:4"]);
    clock.jump(HOUR);
    assert!(submission.submit(&server));
    pause.begins();
    let first = |log: String| log.split_whitespace().next().unwrap().to_owned();
    let before = first(server.log());
    server.crash();
    clock.jump(-HOUR);
    server.restart();
    pause.end();
    let after = first(server.log());
    assert!(after < before, "the server's clock does not follow the test's: {before}, then {after}");
    let record = submission.end(&server, END);
    submission.check(&server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}");
    server.build(&["-t", "clock:5"], &Context::new(&format!("FROM {base}\nRUN echo {}\n", unique())));
}

#[test]
fn an_agent_whose_clock_jumps() {
    let clock = WallClock::new();
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let agent = RemoteAgent::start_with(&server, "astray", &server.url(), None, &[], clock.environment());
    let base = server.base_image();
    let mut pause = Pause::new();
    let dockerfile = format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique());
    let mut submission = Submission::new(&dockerfile, &["clock:1"]);
    assert!(submission.submit(&server));
    pause.begins();
    for offset in [HOUR, -HOUR] {
        clock.jump(offset);
        let jumped = Instant::now();
        wait_until("a while passes", A_WHILE * 2, || {
            assert!(pause.is_on(), "the step was stopped after a jump to {offset} s");
            jumped.elapsed() > A_WHILE
        });
    }
    pause.end();
    let record = submission.end(&server, END);
    let log = submission.check(&server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    assert_eq!(record["steps"][0]["attempts"], 1, "{record:#}\n{log}");
    // The agent did live an hour in the past: its own log says so.
    let times: Vec<String> = agent.log().lines().filter_map(|line| line.get(..13).map(str::to_owned)).collect();
    assert!(times.last() < times.first(), "the agent's clock does not follow the test's: {times:?}");
}
