//! Listing, showing and reading runs.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_e2e::{Context, Running, TestServer, request, unique, wait_until};
use serde_json::Value;

#[test]
fn runs_are_listed_shown_and_read() {
    let server = TestServer::start();
    let base = server.base_image();
    let word = unique();
    let context = Context::new(&format!("FROM {base}\nRUN echo first-$((40 + 2)) && echo second-{word}\n"));
    let built = server.build(&["-t", "app:1"], &context);
    let id = built["runId"].as_str().unwrap();
    assert_eq!(id, "ca2");

    let shown = server.run(id);
    assert_eq!(shown, built, "a finished run never changes");
    let text = server.cooper(&["runs", "list"]).ok().stdout;
    let newest = text.find("ca2").unwrap_or_else(|| panic!("{text}"));
    assert!(newest < text.find("ca1").unwrap(), "the newest is first: {text}");
    assert!(text.contains("Succeeded"), "{text}");

    let log = server.cooper(&["logs", id]).ok().stdout;
    assert!(log.contains("first-42") && log.contains(&format!(" second-{word}")), "{log}");
    let again = server.cooper(&["logs", id, "--follow"]).ok().stdout;
    assert_eq!(log, again, "following a finished run replays it and ends");

    // As others read it, without our client: events of JSON, from any frame that they were told of.
    let authorization = format!("Authorization: Bearer {}", server.token());
    let events = |offset: &str| {
        let path = format!("/api/v1/runs/{id}/log/events?offset={offset}");
        let answer = request(server.authority(), "GET", &path, &[&authorization], b"").unwrap();
        let data = |event: &str| {
            let data = event.lines().find_map(|line| line.strip_prefix("data:"));
            serde_json::from_str::<Value>(data.unwrap_or_else(|| panic!("{event}"))).unwrap()
        };
        let is_log = |event: &&str| event.lines().any(|line| line == "event: log");
        answer.body.split("\n\n").filter(is_log).map(data).collect::<Vec<Value>>()
    };
    let whole = events("0");
    let frames: Vec<&Value> = whole.iter().flat_map(|batch| batch["frames"].as_array().unwrap()).collect();
    let text = frames.iter().filter(|frame| frame["stream"] != "vertex");
    let text: Vec<u8> = text.flat_map(|frame| STANDARD.decode(frame["data"].as_str().unwrap()).unwrap()).collect();
    assert_eq!(String::from_utf8(text).unwrap(), log);
    let last = whole.last().unwrap();
    assert_eq!(&events(&last["offset"].to_string())[0]["frames"], &last["frames"]);

    let missing = server.cooper(&["runs", "show", "ca999"]).expect(5);
    missing.error_names(&["ca999"]);
    server.cooper(&["runs", "show", "../../etc"]).expect(2);
}

#[test]
fn a_running_log_is_followed_live() {
    let server = TestServer::start();
    let base = server.base_image();
    // The step ends when the test has seen its first line: there is no other way for it to end in time.
    let context = Context::new(&format!("FROM {base}\nRUN echo live-$((40 + 2)) && sleep 86400\n"));
    let queued = server.cooper(&["build", "-t", "app:1", "--no-wait", "--output", "json", &context.display()]).ok();
    let id = queued.json()["runId"].as_str().unwrap().to_owned();
    let follower = server.cooper_running(&["logs", &id, "--follow"]);
    wait_until("the line is shown while the step runs", Duration::from_secs(60), || {
        follower.output().0.contains("live-42")
    });
    server.cooper(&["runs", "cancel", &id]).ok();
    let followed = follower.end(Duration::from_secs(30));
    let stored = server.cooper(&["logs", &id]).ok().stdout;
    assert_eq!(followed.stdout, stored, "the follower saw what is stored, once and in order");
    server.expect_quiet_log();
}

#[test]
fn a_terminal_is_painted_on_unless_it_is_not_to_be() {
    let server = TestServer::start();
    let base = server.base_image();
    let cmd = format!("{base} echo shown");
    for (more, is_painted) in [(&[][..], true), (&["--no-format"], false)] {
        let mut command = server.command(&[&["run", "--cmd", &cmd, "/dev/null"], more].concat());
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        let shown = Running::on_terminal(&command).end(Duration::from_secs(120)).ok().stdout;
        assert!(shown.contains("shown"), "{shown}");
        // A painted line is as wide as the terminal; moves of the cursor come where something is painted over.
        let painted = shown.contains("\x1b[") || shown.contains(&" ".repeat(20));
        assert_eq!(painted, is_painted, "{shown:?}");
    }
}
