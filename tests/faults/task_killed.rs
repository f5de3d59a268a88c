//! An agent is killed, or falls silent, in the middle of a task's steps: the placement begins anew elsewhere.

use std::time::Duration;

use cooper_e2e::{
    Context, Engine, GitRepository, GitServer, Pause, RemoteAgent, ServerOptions, TestServer, is_final, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::machine::END;

/// Within which a lost placement is made again.
const AGAIN: Duration = Duration::from_secs(180);
/// Within which nothing of a placement that is over is in the engine.
const CLEAN: Duration = Duration::from_secs(180);

struct Pair {
    // The agents end before their server.
    agents: [RemoteAgent; 2],
    server: TestServer,
    engine: Engine,
}

impl Pair {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(arguments: &[&str]) -> Self {
        let arguments = ["--no-agent"].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
        let options = ServerOptions { arguments, ..Default::default() };
        let server = TestServer::with(options);
        let agent = |name: &str| RemoteAgent::start(&server, name, &server.url(), None, &[]);
        let agents = [agent("one"), agent("two")];
        server.base_image();
        Self { agents, server, engine: Engine::new() }
    }

    fn begin(&self, task: &str) -> String {
        let context = Context::new("FROM scratch\nCOPY Dockerfile /\n").file("acr-task.yaml", task);
        self.server.cooper(&["run", "--no-wait", &context.display()]).ok().stdout.trim().to_owned()
    }

    /// Which of the agents has the step.
    fn holder(&self, run: &str, step: usize) -> usize {
        usize::from(self.server.run(run)["steps"][step]["agent"] == "two")
    }

    fn end(&self, run: &str) -> (Value, String) {
        wait_until("the run ends", END, || is_final(&self.server.run(run)));
        (self.server.run(run), self.server.cooper(&["logs", run]).ok().stdout)
    }

    /// Nothing of the run is in the engine, whoever made it.
    fn is_gone(&self, run: &str) {
        let left = || {
            let of = |agent: &RemoteAgent| agent.held_in(&self.engine, &self.server, run);
            self.agents.iter().flat_map(of).collect::<Vec<_>>()
        };
        wait_until("nothing of the run is in the engine", CLEAN, || left().is_empty());
    }
}

#[test]
fn killed_between_tries_and_nobodys_retries_are_spent() {
    let mut pair = Pair::new();
    let mut pause = Pause::new();
    // In each life the first try fails, the second one sleeps and fails, and the third one would be the last: with the
    // retry that the first life has spent, the second life would not get there.
    let script = format!(
        "echo x >> tries; n=$(wc -l < tries); echo try $n $(wc -l < note); test $n -ge 2 || exit 1; test $n -ge 3 && exit \
         0; {}; exit 1",
        pause.script()
    );
    let task = format!(
        "version: v1.1.0\nvolumes:\n- name: keys\n  secret: {{key: aHVudGVyMjI=}}\nsteps:\n- id: image\n  build: -t \
         $Registry/killed:1 .\n- id: push\n  push: [$Registry/killed:1]\n- id: write\n  cmd: $Registry/base/busybox:1 sh -c \
         'echo made >> note'\n  volumeMounts: [{{name: keys, mountPath: /keys}}]\n- id: serve\n  cmd: \
         $Registry/base/busybox:1 sleep 600\n  detach: true\n- id: slow\n  cmd: $Registry/base/busybox:1 sh -c '{script}'\n  \
         retries: 2\n  retryDelay: 1\n"
    );
    let run = pair.begin(&task);
    pause.begins();
    // What it has said is there, too.
    wait_until("the second try is told", END, || {
        pair.server.cooper(&["logs", &run]).ok().stdout.lines().any(|line| line == "try 2 1")
    });
    let holder = pair.holder(&run, 4);
    let held = pair.agents[holder].held_in(&pair.engine, &pair.server, &run);
    assert!(
        ["container", "network", "volume"].iter().all(|kind| held.iter().any(|one| one.starts_with(kind))),
        "{held:?}"
    );
    pair.agents[holder].crash();
    pause.end();
    let (record, log) = pair.end(&run);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    let attempts: Vec<u64> =
        record["steps"].as_array().unwrap().iter().map(|step| step["attempts"].as_u64().unwrap()).collect();
    // An image that nothing waits for any more is not built again, either.
    assert_eq!(attempts, [1, 1, 2, 2, 2], "what was pushed is not pushed again: {record:#}\n{log}");
    assert_eq!(record["steps"][4]["agent"], ["two", "one"][holder], "{record:#}");
    assert_eq!(log.matches("Executing step ID: push.").count(), 1, "{log}");
    // The second life begins with an empty workspace and all its tries.
    let tries: Vec<&str> = log.lines().filter(|line| line.starts_with("try ")).collect();
    assert_eq!(tries, ["try 1 1", "try 2 1", "try 1 1", "try 2 1", "try 3 1"], "{log}");
    assert_eq!(log.matches("waiting 1 seconds before retrying").count(), 3, "{log}");
    assert!(log.contains(&format!("agent {} lost the run", ["one", "two"][holder])), "{log}");
    assert!(log.contains("loss 1 of 3") && !log.contains("loss 2 of 3"), "{log}");
    // The one that was killed comes back, and clears what its last life has left.
    assert_ne!(pair.agents[holder].held_in(&pair.engine, &pair.server, &run), [""; 0]);
    pair.agents[holder].launch();
    pair.is_gone(&run);
}

#[test]
fn a_steps_own_context_is_fetched_again_with_its_placement() {
    let root = tempfile::TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let commit = |which: &str| {
        let dockerfile = "ARG BASE\nFROM $BASE\nCOPY which /which\n";
        repository.commit_files(&[("Dockerfile", dockerfile), ("which", which)])
    };
    let first = commit("first");
    let mut pair = Pair::with(&["--allow-source", "127.0.0.1"]);
    let mut pause = Pause::new();
    let task = format!(
        "version: v1.1.0\nsteps:\n- id: image\n  build: -t $Registry/own:1 --build-arg BASE=$Registry/base/busybox:1 \
         {}#main\n- id: show\n  cmd: $Registry/own:1 sh -c 'echo which is $(cat /which); {}'\n",
        git.url("app.git"),
        pause.script()
    );
    let run = pair.begin(&task);
    pause.begins();
    wait_until("the image's file is told", END, || {
        pair.server.cooper(&["logs", &run]).ok().stdout.lines().any(|line| line == "which is first")
    });
    let second = commit("second");
    let holder = pair.holder(&run, 1);
    pair.agents[holder].crash();
    pause.end();
    let (record, log) = pair.end(&run);
    assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
    let attempts = [&record["steps"][0]["attempts"], &record["steps"][1]["attempts"]];
    assert_eq!(attempts, [2, 2], "{record:#}\n{log}");
    // The branch has moved: the image is the new commit's, and so is what is on record.
    let told: Vec<&str> = log.lines().filter(|line| line.starts_with("which is ")).collect();
    assert_eq!(told, ["which is first", "which is second"], "{log}");
    for commit in [&first, &second] {
        assert!(log.contains(&format!("#main at commit {commit}\n")), "{log}");
    }
    let lock = pair.server.cooper(&["runs", "lock", &run]).ok().json();
    assert_eq!(lock["steps"][0]["context"]["commit"], second, "{lock:#}");
    pair.agents[holder].launch();
    pair.is_gone(&run);
}

#[test]
fn silent_for_longer_than_its_lease_and_told_to_stop() {
    let pair = Pair::new();
    let pause = Pause::new();
    let task = format!(
        "version: v1.1.0\nsteps:\n- id: write\n  cmd: $Registry/base/busybox:1 sh -c 'echo made >> note'\n- id: slow\n  cmd: \
         $Registry/base/busybox:1 sh -c 'wc -l < note; exec {}'\n",
        pause.command()
    );
    let run = pair.begin(&task);
    pause.begins();
    let (old, new) = (pair.holder(&run, 1), 1 - pair.holder(&run, 1));
    let held = |agent: usize| pair.agents[agent].held_in(&pair.engine, &pair.server, &run);
    pair.agents[old].process().signal(Signal::STOP);
    wait_until("the other one has it", AGAIN, || {
        pair.server.run(&run)["steps"][1]["attempts"] == 2 && !held(new).is_empty()
    });
    assert_ne!(held(old), [""; 0], "the silent one still runs it");
    pair.agents[old].process().signal(Signal::CONT);
    wait_until("it is told to stop", CLEAN, || held(old).is_empty());
    assert_eq!(pair.server.run(&run)["steps"][1]["status"], "Running");
    pause.begins();
    pair.server.cooper(&["runs", "cancel", &run]).ok();
    let (record, log) = pair.end(&run);
    assert_eq!(record["status"], "Canceled", "{record:#}\n{log}");
    assert_eq!(record["steps"][1]["agent"], ["one", "two"][new], "{record:#}");
    pair.is_gone(&run);
}
