//! The measurement of dispatch works, and so do many agents at once: a small round of it, whose figures say nothing.

use std::process::Command;
use std::time::Duration;

use cooper_e2e::{Running, ServerOptions, TestServer, cooper_binary};

#[test]
fn many_agents_take_a_queue_and_what_comes_after_it() {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let agent = server.cooper(&["token", "create", "scripted", "--scope", "agent"]).ok().stdout;
    // `cargo test` builds examples beside the binaries.
    let program = cooper_binary().with_file_name("examples").join("dispatch");
    let mut command = Command::new(program);
    let process = server.pid().expect("the server runs").as_raw_nonzero().to_string();
    command.args([&server.url(), &server.token(), agent.trim(), &process]).args(["20", "64", "20", "50", "1"]);
    let told = Running::start(&mut command).end(Duration::from_secs(120)).ok().stdout;
    for figure in ["accepted 64 runs", "64 queued:", "runs taken by 20 agents", "to the step at its agent, ms: p50"] {
        assert!(told.contains(figure), "no `{figure}` in:\n{told}");
    }
    let runs = server.cooper(&["runs", "list", "--top", "1000", "--output", "json"]).ok().json();
    let ended = runs.as_array().expect("runs").iter().filter(|run| run["status"] == "Succeeded").count();
    assert_eq!(ended, 84, "{runs:#}");
}
