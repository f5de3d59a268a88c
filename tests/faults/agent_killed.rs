//! An agent is killed: amid a build, between the build and the push, amid a push, and again and again.

use std::time::Duration;

use cooper_e2e::{Engine, Pause, RemoteAgent, ServerOptions, Submission, TestServer, unique, wait_until};
use serde_json::Value;

use crate::machine::END;

/// Within which nothing of a run has a name in the engine.
const CLEAN: Duration = Duration::from_secs(180);

/// A server without an agent of its own.
fn server() -> TestServer {
    TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() })
}

fn agent(server: &TestServer, name: &str) -> RemoteAgent {
    RemoteAgent::start(server, name, &server.url(), None, &[])
}

fn submit(server: &TestServer, base: &str, script: &str, images: &[&str]) -> Submission {
    let mut submission = Submission::new(&format!("FROM {base}\nRUN {script} && echo {}\n", unique()), images);
    assert!(submission.submit(server));
    submission
}

fn attempts(record: &Value, step: usize) -> u64 {
    record["steps"][step]["attempts"].as_u64().unwrap()
}

/// Nothing that a run's attempts on an agent made is left in the engine under a name.
fn names_are_gone(agent: &RemoteAgent, server: &TestServer, run: &str) {
    wait_until("the run's names are gone from the engine", CLEAN, || {
        agent.names_in(&Engine::new(), server, run).is_empty()
    });
}

#[test]
fn amid_a_build_and_another_agent_takes_over() {
    let server = server();
    let mut agents = [agent(&server, "one"), agent(&server, "two")];
    let base = server.base_image();
    let mut pause = Pause::new();
    let mut submission = submit(&server, &base, &pause.script(), &["killed:1", "killed:2"]);
    pause.begins();
    let run = submission.run().unwrap().to_owned();
    let holder = usize::from(server.run(&run)["steps"][0]["agent"] == "two");
    agents[holder].crash();
    // By itself it would go on for a day.
    pause.is_ended();
    pause.begins();
    pause.end();
    let record = submission.end(&server, END);
    let log = submission.check(&server, &record);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    assert_eq!(attempts(&record, 0), 2, "{record:#}\n{log}");
    let name = ["one", "two"][holder];
    assert!(log.contains(&format!("agent {name} lost the run")) && log.contains("loss 1 of 3"), "{log}");
    // The one that was killed comes back and takes nothing of the old.
    agents[holder].launch();
    agents.iter().for_each(|agent| names_are_gone(agent, &server, &run));
}

#[test]
fn between_the_build_and_the_push_and_amid_the_push() {
    let server = server();
    let mut agent = agent(&server, "alone");
    let base = server.base_image();
    for (number, failpoint) in ["context-fetched", "image-built", "image-pushed"].into_iter().enumerate() {
        agent.stop();
        agent.launch_to_die(failpoint);
        // Two repositories: after the first one's push the agent is dead, and neither tag may show.
        let (one, two) = (format!("first:{number}"), format!("second:{number}"));
        let mut submission = submit(&server, &base, "true", &[&one, &two]);
        let death = agent.end();
        assert!(death.stderr.contains(&format!("failpoint {failpoint}: ")), "{death}");
        let run = submission.run().unwrap().to_owned();
        let left = agent.names_in(&Engine::new(), &server, &run);
        assert_eq!(left.is_empty(), failpoint == "context-fetched", "{failpoint}: {left:?}");
        agent.launch();
        let record = submission.end(&server, END);
        let log = submission.check(&server, &record);
        assert_eq!(record["status"], "Succeeded", "{failpoint}: {record:#}\n{log}");
        // Its next life says at once that the last one is over: nobody waits for a lease.
        assert!(log.contains("(the agent was restarted); loss 1 of 3"), "{log}");
        assert!(!log.contains("loss 2 of 3"), "{log}");
        names_are_gone(&agent, &server, &run);
    }
}

#[test]
fn three_times_and_the_run_says_so() {
    let server = server();
    let mut agent = agent(&server, "unlucky");
    let base = server.base_image();
    agent.stop();
    agent.launch_to_die("image-built");
    let mut submission = submit(&server, &base, "true", &["unlucky:1", "unlucky:2"]);
    for life in 1..=3 {
        let death = agent.end();
        assert!(death.stderr.contains("failpoint image-built: "), "life {life}: {death}");
        if life < 3 {
            agent.launch_to_die("image-built");
        } else {
            agent.launch();
        }
    }
    let record = submission.end(&server, END);
    let log = submission.check(&server, &record);
    assert_eq!(record["status"], "Error", "{record:#}\n{log}");
    for loss in 1..=3 {
        let told = log.lines().find(|line| line.contains(&format!("loss {loss} of 3")));
        assert!(told.is_some_and(|line| line.contains("agent unlucky lost the run (")), "{loss}: {log}");
    }
    let reason = record["runErrorMessage"].as_str().unwrap_or_default();
    assert!(reason.contains("unlucky") && reason.contains('3'), "{record:#}");
    // The next build has a fresh start.
    let mut next = submit(&server, &base, "true", &["unlucky:3", "unlucky:4"]);
    assert_eq!(next.end(&server, END)["status"], "Succeeded");
}
