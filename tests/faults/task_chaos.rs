//! A random mixture of task runs, cancels, time limits, killed agents and a killed server: in the end nothing of any run
//! is in the engine.

use std::time::{Duration, Instant};

use cooper_e2e::{Chance, Context, Engine, RemoteAgent, ServerOptions, TestServer, is_final, wait_until};

use crate::machines::pass;

/// Runs that are begun.
const RUNS: usize = 12;
/// Within which all of them end once nothing is broken any more.
const REST: Duration = Duration::from_secs(300);
/// How often it is looked, with a second between two looks, until nothing of them is in the engine: within half a minute, and
/// what a busy engine takes to answer the looks counts neither for nor against the agents, which wait for its answers, too.
const LOOKS: usize = 30;

/// Tasks that leave something of every kind in an engine; each takes a few seconds at most, and some fail.
fn task(chance: &mut Chance) -> String {
    let busybox = "$Registry/base/busybox:1";
    let sleep = chance.below(4);
    let steps = match chance.below(7) {
        0 => format!(
            "networks: [{{name: back, isDefault: true}}]\nsteps:\n- {{id: web, cmd: '{busybox} httpd -f -p 80', detach: \
             true}}\n- {{cmd: '{busybox} wget -q -O - http://web/', retries: 1, retryDelay: 1, ignoreErrors: true}}\n- \
             {{cmd: '{busybox} sleep {sleep}'}}\n"
        ),
        1 => format!(
            "volumes: [{{name: keys, secret: {{key: aHVudGVyMjI=}}}}]\nsteps:\n- {{cmd: '{busybox} sleep {sleep}', \
             volumeMounts: [{{name: keys, mountPath: /keys}}]}}\n- {{cmd: '{busybox} cat /keys/key', when: ['-'], \
             volumeMounts: [{{name: keys, mountPath: /keys}}]}}\n"
        ),
        2 => format!(
            "steps:\n- {{cmd: '{busybox} true', keep: true}}\n- {{cmd: '{busybox} sleep 30', timeout: 1, keep: true}}\n"
        ),
        3 => format!(
            "steps:\n- {{cmd: '{busybox} sleep {sleep}', ports: ['18081:80'], expose: ['81'], keep: true}}\n- {{cmd: \
             '{busybox} sh -c \"exit 3\"'}}\n- {{cmd: '{busybox} sleep 9', when: ['-']}}\n"
        ),
        4 => format!(
            "steps:\n- {{id: image, build: -t $Registry/chaos:{sleep} .}}\n- {{push: ['$Registry/chaos:{sleep}']}}\n- {{cmd: \
             '{busybox} sleep {sleep}'}}\n"
        ),
        5 => format!(
            "networks: [{{name: a}}, {{name: b}}]\nsteps:\n- {{cmd: '{busybox} sleep {sleep}', network: a, when: \
             ['-']}}\n- {{cmd: '{busybox} sleep {sleep}', network: b, when: ['-']}}\n- {{cmd: '{busybox} sleep {sleep}', \
             when: ['-']}}\n"
        ),
        _ => format!(
            "steps:\n- {{cmd: '{busybox} sh -c \"echo x > note\"'}}\n- {{cmd: '{busybox} sleep {sleep}', repeat: 1}}\n- \
             {{cmd: '{busybox} cat note'}}\n"
        ),
    };
    format!("version: v1.1.0\n{steps}")
}

#[test]
fn nothing_is_left_of_runs_that_are_over() {
    let mut chance = Chance::from_environment();
    let seed = chance.seed();
    let engine = Engine::new();
    let options = ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() };
    let mut server = TestServer::with(options);
    let agent = |name: &str| RemoteAgent::start(&server, name, &server.url(), None, &["--slots", "3"]);
    let mut agents = [agent("one"), agent("two")];
    server.base_image();
    let start = Instant::now();
    let note = |what: String| {
        let line = format!("{:>8.1} {what}\n", start.elapsed().as_secs_f64());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    };
    let mut runs: Vec<String> = Vec::new();
    let mut server_died = false;
    while runs.len() < RUNS {
        let task = task(&mut chance);
        let context = Context::new("FROM scratch\nCOPY Dockerfile /\n").file("acr-task.yaml", &task);
        let run = server.cooper(&["run", "--no-wait", &context.display()]).ok().stdout.trim().to_owned();
        note(format!("begin {run}"));
        runs.push(run);
        match chance.below(6) {
            0 | 1 => {
                let one = &runs[chance.below(runs.len() as u64) as usize];
                // One that has ended can't be cancelled any more.
                let code = server.cooper(&["runs", "cancel", one]).code;
                note(format!("cancel {one}: {code:?}"));
            }
            2 => {
                let one = chance.below(2) as usize;
                note(format!("kill agent {one}"));
                agents[one].crash();
                agents[one].launch();
            }
            3 if !server_died => {
                note("kill the server".to_owned());
                server.crash();
                server.restart();
                server_died = true;
            }
            _ => {}
        }
    }
    // Every mixture has each of them, whatever the dice said.
    if !server_died {
        server.crash();
        server.restart();
    }
    agents[0].crash();
    agents[0].launch();
    for run in &runs {
        wait_until(&format!("seed {seed}: {run} ends"), REST, || is_final(&server.run(run)));
        let record = server.run(run);
        note(format!("{run}: {} {}", record["status"], record["runErrorMessage"]));
        // Who is unlucky is lost three times.
        let is_unlucky = || server.cooper(&["logs", run]).ok().stdout.contains("loss 3 of 3");
        assert!(record["status"] != "Error" || is_unlucky(), "seed {seed}: {record:#}");
    }
    let left = || agents.iter().flat_map(|agent| agent.all_held_in(&engine, &server)).collect::<Vec<_>>();
    let (over, mut held) = (Instant::now(), left());
    for _ in 0..LOOKS {
        if held.is_empty() {
            break;
        }
        pass(Duration::from_secs(1));
        held = left();
    }
    let took = over.elapsed();
    let logs = || agents.iter().map(RemoteAgent::log).collect::<Vec<_>>().join("\n---\n");
    assert!(held.is_empty(), "seed {seed}: after {took:?} the engine still holds {held:?}\n{}", logs());
    note(format!("clean after {took:?}"));
}
