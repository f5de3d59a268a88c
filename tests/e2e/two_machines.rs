//! What all of it is for: a server on one machine and agents on two others, a build from Git, and an agent that dies.

use std::time::Duration;

use cooper_e2e::{
    Cable, GitRepository, GitServer, Namespace, Pause, PrivateEngine, RemoteAgent, ServerOptions, TestServer, unique,
    wait_until,
};
use tempfile::TempDir;

/// Where the Git server is, for everybody: an address of the server's machine that all cables lead to.
const FORGE: &str = "10.78.0.1";

/// An agent with its engine, on a machine of its own.
pub(crate) struct Machine {
    name: &'static str,
    // Ends before its engine.
    agent: RemoteAgent,
    pub(crate) engine: PrivateEngine,
    _cable: Cable,
}

impl Machine {
    /// An agent of this name, with more flags.
    pub(crate) fn new(server: &TestServer, here: &Namespace, name: &'static str, more: &[&str]) -> Self {
        let there = Namespace::new();
        let cable = here.connect(&there);
        there.ip(&["route", "add", FORGE, "via", &cable.first]);
        let engine = PrivateEngine::start(&there);
        let url = format!("http://{}:{}", cable.first, server.port());
        let socket = engine.socket().display().to_string();
        let agent = RemoteAgent::start(
            server,
            name,
            &url,
            Some(&there),
            &[&["--insecure", "--engine", &socket], more].concat(),
        );
        wait_until("the agent is at work", Duration::from_secs(30), || {
            agent.log().contains("stream to the server is open")
        });
        Self { name, agent, engine, _cable: cable }
    }
}

#[test]
fn a_build_from_git_survives_the_death_of_its_agent() {
    let here = Namespace::new();
    here.ip(&["address", "add", &format!("{FORGE}/32"), "dev", "lo"]);
    let root = TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = here.enter(|| GitServer::start_on(&format!("{FORGE}:0"), root.path()));
    let arguments = ["--no-agent", "--allow-source", FORGE].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(here.clone()), ..Default::default() });
    let mut machines = vec![Machine::new(&server, &here, "east", &[]), Machine::new(&server, &here, "west", &[])];
    let base = server.base_image();

    let word = unique();
    let mut pause = Pause::new();
    let script = format!("{} && echo {word} > /word", pause.script());
    let dockerfile = format!("FROM {base}\nRUN {script}\nCMD [\"cat\", \"/word\"]\n");
    let commit = repository.commit_files(&[("image/Dockerfile", &dockerfile)]);
    let source = format!("{}#main:image", git.url("app.git"));
    let asked = ["build", "--no-wait", "-t", "app:1", "-t", "app:{{.Run.Commit}}", &source];
    let id = server.cooper(&asked).ok().stdout.trim().to_owned();
    wait_until("the image is being built", Duration::from_secs(60), || {
        server.cooper(&["logs", &id]).ok().stdout.contains(&pause.command())
    });
    pause.begins();
    // The log names the agent of each attempt.
    let begun = |log: &str, step: &str, machine: &Machine| {
        let step = format!("Executing step ID: {step}.");
        let agent = format!("Agent: '{}'", machine.name);
        log.lines().any(|line| line.contains(&step) && line.contains(&agent))
    };
    let log = server.cooper(&["logs", &id]).ok().stdout;
    let builder = machines.iter().position(|machine| begun(&log, "build", machine));
    let mut dead = machines.remove(builder.expect("somebody builds it"));
    dead.agent.crash();
    pause.end();
    let other = &machines[0];

    wait_until("the run ends", Duration::from_secs(120), || !server.run(&id)["finishTime"].is_null());
    let run = server.run(&id);
    assert_eq!(run["status"], "Succeeded", "{run:#}");
    assert_eq!(run["sourceCommit"], commit);
    let log = server.cooper(&["logs", &id]).ok().stdout;
    assert!(begun(&log, "build", other) && begun(&log, "push", other), "{log}");
    assert!(!begun(&log, "prepare", other), "what was fetched is built without another fetch:\n{log}");
    assert!(log.contains(&format!("agent {}", dead.name)), "the log tells who was lost:\n{log}");
    let tags: Vec<_> = run["outputImages"].as_array().unwrap().iter().map(|image| image["tag"].clone()).collect();
    assert_eq!(tags, ["1", &commit]);

    // The image is the same by the same name on the machine that lives.
    let registry = format!("localhost:{}", server.port());
    let client = other.engine.client();
    client.login(&registry, &server.token_file());
    client.pull(&format!("{registry}/app:{commit}"));
    assert_eq!(client.run(&format!("{registry}/app:{commit}")), format!("{word}\n"));

    // And the dead agent is at work again as soon as it is started.
    dead.agent.launch();
    wait_until("the agent is back", Duration::from_secs(30), || {
        dead.agent.log().contains("stream to the server is open")
    });
}
