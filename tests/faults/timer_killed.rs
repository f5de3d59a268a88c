//! The server is killed in the minute of a timer: between taking the instant and accepting its run, and right after.

use std::time::{Duration, SystemTime};

use cooper_e2e::{ServerOptions, TestServer, WallClock, wait_until};
use serde_json::Value;

const DAY: i64 = 86_400;
const NOON: i64 = DAY / 2;

/// Sets the clock to a moment of a day to come: 1 is tomorrow.
fn set(clock: &WallClock, day: usize, second: i64) {
    #[expect(clippy::disallowed_methods, reason = "the server's clock is set by how far it is off this machine's")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    clock.jump((now / DAY + i64::try_from(day).unwrap()) * DAY + second - now);
}

/// The instants of a timer for which there are runs.
fn runs_of(server: &TestServer, timer: &str) -> Vec<String> {
    let runs = server.cooper(&["task", "list-runs", "clock", "--output", "json"]).ok().json();
    let of_timer = |run: &&Value| run["timerTrigger"]["timerTriggerName"] == timer;
    let instant = |run: &Value| run["timerTrigger"]["scheduleOccurrence"].as_str().unwrap().to_owned();
    runs.as_array().unwrap().iter().filter(of_timer).map(instant).collect()
}

#[test]
fn in_a_timers_minute_and_the_instant_has_one_run() {
    let clock = WallClock::new();
    set(&clock, 0, NOON + 1800);
    let (arguments, environment) = (vec!["--no-agent".to_owned()], clock.environment());
    let mut server = TestServer::with(ServerOptions { arguments, environment, ..ServerOptions::default() });
    server.cooper(&["task", "create", "-n", "clock", "-c", "/dev/null", "--cmd", "busybox true"]).ok();
    for (name, schedule) in [("noon", "0 12 * * *"), ("after", "1 12 * * *")] {
        // However long a start takes, the instant is made up for.
        let timer = ["--timer-name", name, "--schedule", schedule, "--catch-up", "once"];
        server.cooper(&[&["task", "timer", "add", "-n", "clock"][..], &timer].concat()).ok();
    }
    for (day, point) in [(1, "instant-taken"), (2, "run-accepted")] {
        server.crash();
        set(&clock, day, NOON - 5);
        server.restart_to_die(point);
        let death = server.death(Duration::from_secs(120));
        assert!(death.code.is_none() && death.stderr.contains(&format!("failpoint {point}: ")), "{point}: {death}");
        // It is back within the minute. What comes after it shows that the timers have been looked at again.
        set(&clock, day, NOON + 55);
        server.restart();
        wait_until("the next minute's timer has fired", Duration::from_secs(120), || {
            runs_of(&server, "after").len() == day
        });
        let noons = runs_of(&server, "noon");
        assert_eq!(noons.len(), day, "{point}: {noons:?}");
        assert!(noons.iter().all(|noon| noon.contains("T12:00:00")), "{noons:?}");
    }
    let noons = runs_of(&server, "noon");
    assert!(noons[0] != noons[1], "one instant has two runs: {noons:?}");
}
