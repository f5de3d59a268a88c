//! Two network namespaces stand for two machines: the server in one, an agent with an engine of its own in the other.

use std::net::TcpStream;
use std::time::Duration;

use cooper_e2e::{
    Cable, Context, Namespace, Pause, PrivateEngine, RemoteAgent, ServerOptions, TestServer, unique, wait_until,
};

#[test]
fn a_network_and_an_engine_of_ones_own() {
    let namespace = Namespace::new();
    let other = Namespace::new();
    let cable = namespace.connect(&other);
    let mut engine = PrivateEngine::start(&namespace);
    engine.client().docker(&["info"]).ok();
    engine.stop();
    engine.launch();
    engine.client().docker(&["images"]).ok();
    let listener = other.enter(|| std::net::TcpListener::bind((cable.second.as_str(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let connect_within = |time| namespace.enter(|| TcpStream::connect_timeout(&address, time).is_ok());
    let connect = || connect_within(Duration::from_secs(60));
    assert!(connect());
    cable.cut();
    assert!(!connect_within(Duration::from_millis(500)));
    cable.mend();
    cable.slow("1mbit");
    assert!(connect());
    cable.mend();
    assert!(connect());
}

/// A server on one machine, and another machine with an agent and its engine: two networks and a cable.
fn two_machines(tls: bool) -> (TestServer, RemoteAgent, PrivateEngine, Cable, Namespace) {
    let (here, there) = (Namespace::new(), Namespace::new());
    let cable = here.connect(&there);
    let mut arguments = vec!["--no-agent".to_owned()];
    if tls {
        arguments.extend(["--tls-self-signed", "--tls-name", &cable.first].map(str::to_owned));
    }
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(here), ..Default::default() });
    let engine = PrivateEngine::start(&there);
    let url = format!("{}://{}:{}", if tls { "https" } else { "http" }, cable.first, server.port());
    let socket = engine.socket().display().to_string();
    let more: &[&str] = if tls { &["--engine", &socket] } else { &["--engine", &socket, "--insecure"] };
    let agent = RemoteAgent::start(&server, "far", &url, Some(&there), more);
    (server, agent, engine, cable, there)
}

/// `FROM`, push and pull by the registry's one name, which is a loopback name on both machines.
fn a_build_elsewhere(tls: bool) {
    let (server, mut agent, engine, cable, there) = two_machines(tls);
    let far = format!("{}:{}", cable.first, server.port()).parse().unwrap();
    let base = server.base_image();
    assert_eq!(base, format!("localhost:{}/base/busybox:1", server.port()));
    let word = unique();
    let context = Context::new(&format!("FROM {base}\nRUN echo {word} > /word\nCMD [\"cat\", \"/word\"]\n"));
    let run = server.build(&["-t", "app:1"], &context);
    assert_eq!(run["status"], "Succeeded", "{run:#}");

    let client = engine.client();
    let registry = format!("localhost:{}", server.port());
    client.login(&registry, &server.token_file());
    client.pull(&format!("{registry}/app:1"));
    assert_eq!(client.run(&format!("{registry}/app:1")), format!("{word}\n"));

    // A short cut of the cable is no loss: the agent comes back by itself, and its work goes on.
    let mut pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {} && echo {}\n", pause.script(), unique()));
    let build = server.cooper(&["build", "--no-wait", "-t", "app:2", &context.display()]).ok();
    let id = build.stdout.trim();
    pause.begins();
    cable.cut();
    let knock = || TcpStream::connect_timeout(&far, Duration::from_millis(1500)).is_err();
    wait_until("nothing gets through", Duration::from_secs(20), || there.enter(knock));
    cable.mend();
    pause.end();
    wait_until("the run ends", Duration::from_secs(120), || !server.run(id)["finishTime"].is_null());
    assert_eq!(server.run(id)["status"], "Succeeded", "{:#}", server.run(id));
    // Its first attempt ended well: nothing was begun again.
    assert!(agent.log().contains(&format!("run={id} attempt=1 step=build")), "{}", agent.log());
    assert!(agent.log().contains(&format!("run={id} attempt=2 step=push")), "{}", agent.log());
    agent.stop();
}

#[test]
fn a_build_on_another_machine() {
    a_build_elsewhere(false);
}

#[test]
fn a_build_on_another_machine_over_tls() {
    a_build_elsewhere(true);
}

#[test]
fn an_agent_on_the_servers_own_machine_needs_no_port_of_its_own() {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let mut agent = RemoteAgent::start(&server, "near", &server.url(), None, &[]);
    let base = server.base_image();
    let context = Context::new(&format!("FROM {base}\nRUN echo {}\n", unique()));
    assert_eq!(server.build(&["-t", "near:1"], &context)["status"], "Succeeded");
    assert!(agent.log().contains("registry is on this machine"), "{}", agent.log());
    agent.stop();
    server.expect_quiet_log();
}

#[test]
fn what_keeps_an_agent_from_its_server_is_said() {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let says = |agent: &RemoteAgent, text: &str| {
        wait_until(text, Duration::from_secs(20), || agent.log().contains(text));
    };
    // A token that is no agent's.
    let path = server.token_file().display().to_string();
    let agent = RemoteAgent::start(&server, "wrong", &server.url(), None, &[]);
    says(&agent, "stream to the server is open");
    drop(agent);
    let folder = Context::empty();
    let data = |name: &str| folder.join(name).display().to_string();
    let run = |more: &[&str]| server.cooper(&[&["agent", "--server", &server.url(), "--name", "x"], more].concat());
    run(&["--token-file", "/nonexistent", "--data-dir", &data("a")]).expect(2).error_names(&["/nonexistent"]);
    run(&["--token-file", &path, "--data-dir", &data("a"), "--platform", "windows/amd64"])
        .expect(2)
        .error_names(&["can't run windows/amd64"]);
    let mut agent = RemoteAgent::start(&server, "first", &server.url(), None, &["--data-dir", &data("b")]);
    says(&agent, "stream to the server is open");
    run(&["--token-file", &path, "--data-dir", &data("b")]).expect(2).error_names(&[&data("b"), "in use"]);
    agent.stop();
    let mut wrong = RemoteAgent::start(&server, "second", &server.url(), None, &["--token-file", &path]);
    says(&wrong, "lacks the scope `agent`");
    wrong.stop();
}

#[test]
fn an_agent_that_dies_is_missed_at_once_and_its_loss_is_told() {
    let server = TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() });
    let mut agent = RemoteAgent::start(&server, "frail", &server.url(), None, &["--slots", "1"]);
    let shown = || server.cooper(&["agent", "show", "frail", "--output", "json"]).ok().json();
    wait_until("the agent tells of its disk", Duration::from_secs(30), || {
        server.cooper(&["agent", "show", "frail"]).code == Some(0) && shown()["diskTotalBytes"].as_u64().is_some()
    });
    assert!(server.cooper(&["agent", "show", "frail"]).ok().stdout.contains(" GiB free of "));
    assert!(agent.log().contains(&format!("server=\"{}\"", server.url())), "{}", agent.log());

    // Its host is well, and its token good for what it is for.
    let token = agent.token_file().display().to_string();
    let doctor = ["doctor", "--output", "json", "--server", &server.url(), "--token-file", &token];
    let report = server.cooper(&doctor).json();
    let of_token = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "token").unwrap();
    assert_eq!(of_token["status"], "ok", "{report:#}");

    let base = server.base_image();
    let pause = Pause::new();
    let context = Context::new(&format!("FROM {base}\nRUN {} && echo {}\n", pause.command(), unique()));
    let queued = server.cooper(&["build", "--no-wait", "-t", "frail:1", &context.display()]).ok();
    let id = queued.stdout.trim();
    pause.begins();
    agent.crash();
    let log = || server.cooper(&["logs", id]).ok().stdout;
    let gone = "The connection to agent 'frail' is gone; waiting ";
    // Long before its lease is over.
    wait_until("the log says it", Duration::from_secs(10), || log().contains(gone));
    agent.launch();
    let lost = "agent frail lost the run (the agent was restarted); loss 1 of 3";
    wait_until("the loss is told", Duration::from_secs(30), || log().contains(lost));
    assert!(server.log().contains("agent lost a run"), "{}", server.log());
    assert!(!log().contains("is connected again"), "{}", log());
    server.cooper(&["runs", "cancel", id]).ok();
    wait_until("the run ends", Duration::from_secs(40), || !server.run(id)["finishTime"].is_null());
    agent.stop();
}
