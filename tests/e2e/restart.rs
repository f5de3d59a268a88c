//! What is accepted stays, whatever happens to the server.

use std::time::Duration;

use cooper_e2e::{Context, Engine, Pause, TestServer, unique, wait_until};
use serde_json::Value;

fn is_final(run: &Value) -> bool {
    !matches!(run["status"].as_str(), Some("Queued" | "Started" | "Running"))
}

#[test]
fn everything_is_there_after_a_restart() {
    let engine = Engine::new();
    let mut server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    let word = unique();
    let context = Context::new(&format!("FROM {base}\nRUN echo kept-$((40 + 2))-{word}\nCMD [\"echo\", \"kept\"]\n"));
    server.build(&["-t", "app:1"], &context);
    let before = (
        server.cooper(&["runs", "list", "--output", "json"]).ok().stdout,
        server.run("ca2"),
        server.cooper(&["logs", "ca2"]).ok().stdout,
        server.token(),
    );

    server.stop();
    server.restart();

    let after = (
        server.cooper(&["runs", "list", "--output", "json"]).ok().stdout,
        server.run("ca2"),
        server.cooper(&["logs", "ca2"]).ok().stdout,
        server.token(),
    );
    assert_eq!(before, after);
    assert!(after.2.contains(&format!("kept-42-{word}")), "{}", after.2);
    engine.login(registry, &server.token_file());
    server.pull(&engine, &format!("{registry}/app:1"));
    assert_eq!(engine.run(&format!("{registry}/app:1")), "kept\n");
    // Ids go on where they were.
    assert_eq!(server.build(&["-t", "app:2"], &context)["runId"], "ca3");
    server.expect_quiet_log();
}

#[test]
fn a_run_ends_by_itself_after_a_crash_in_its_midst() {
    let mut server = TestServer::start();
    let base = server.base_image();
    let mut pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique()));
    let flags = ["build", "-t", "crash:1", "--no-wait", "--output", "json"];
    server.cooper(&[&flags[..], &[context.display().as_str()]].concat()).ok();
    pause.begins();

    server.crash();
    // The agent died with the server, and with its session the engine ends the build.
    pause.is_ended();
    server.restart();
    pause.end();

    wait_until("the run ends", Duration::from_secs(170), || is_final(&server.run("ca2")));
    let run = server.run("ca2");
    // The machinery's loss is the machinery's to repair: the user's build has not failed.
    assert_eq!(run["status"], "Succeeded", "{run:#}");
    assert_eq!(run["outputImages"].as_array().map(Vec::len), Some(1), "{run:#}");
}

#[test]
fn a_second_server_is_refused_the_same_data() {
    let server = TestServer::start();
    let data = server.data().display().to_string();
    let second = server.cooper(&["serve", "--listen", "127.0.0.1:0", "--no-agent", "--data-dir", &data]);
    assert_ne!(second.code, Some(0), "{second}");
    second.error_names(&[&data]);
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn stopping_in_order_amid_a_build_loses_nothing() {
    let mut server = TestServer::start();
    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {} && echo {}\n", pause.command(), unique()));
    let flags = ["build", "-t", "stop:1", "--no-wait", "--output", "json"];
    server.cooper(&[&flags[..], &[context.display().as_str()]].concat()).ok();
    pause.begins();

    server.stop();
    pause.is_ended();
    server.restart();
    // The run goes on: its step gets another attempt, without spending anything of the user's.
    pause.begins();
    server.cooper(&["runs", "cancel", "ca2"]).ok();
    wait_until("the run ends", Duration::from_secs(20), || is_final(&server.run("ca2")));
    assert_eq!(server.run("ca2")["status"], "Canceled");
}
