//! Two runs of one task file at once on one engine: they share every name, and nothing else.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cooper_e2e::{Chance, Context, Engine, Pause, RemoteAgent, ServerOptions, TestServer, is_final, wait_until};

/// Names of every kind: a step's id, a network, a volume, a file of the workspace, an exposed and a published port.
const TASK: &str = "\
version: v1.1.0
networks: [{name: back, isDefault: true}]
volumes: [{name: keys, secret: {who: '{{.Values.who | b64enc}}'}}]
steps:
- id: write
  cmd: $Registry/base/busybox:1 sh -c 'test ! -e note && echo workspace {{.Values.who}} > note && mkdir www && echo site {{.Values.who}} > www/who'
- id: web
  cmd: $Registry/base/busybox:1 httpd -f -p 80 -h www
  detach: true
  expose: ['80']
  ports: ['{{.Values.port}}:80']
- id: ask
  cmd: $Registry/base/busybox:1 sh -c '{{.Values.pause}}; cat note; echo volume $(cat /keys/who); wget -q -O - http://web/who'
  retries: 60
  retryDelay: 1
  volumeMounts: [{name: keys, mountPath: /keys}]
";

fn begin(server: &TestServer, who: &str, port: u16, pause: &Pause) -> String {
    let context = Context::empty().file("acr-task.yaml", TASK);
    let values = [format!("who={who}"), format!("port={port}"), format!("pause={}", pause.script())];
    let sets = values.each_ref().map(|value| ["--set", value]).concat();
    let asked = server.cooper(&[&["run", "--no-wait"], &sets[..], &[&context.display()]].concat());
    asked.ok().stdout.trim().to_owned()
}

fn server() -> TestServer {
    TestServer::with(ServerOptions { arguments: vec!["--no-agent".into()], ..Default::default() })
}

/// A port that nobody has, and that the system gives to nobody who asks for any.
fn free_port() -> u16 {
    let mut chance = Chance::from_environment();
    let port = std::iter::repeat_with(|| 20_000 + chance.below(12_000) as u16);
    port.take(1000).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap()
}

#[test]
fn networks_volumes_ports_and_workspaces_are_each_runs_own() {
    let (server, engine) = (server(), Engine::new());
    let agent = RemoteAgent::start(&server, "both", &server.url(), None, &[]);
    server.base_image();
    let port = free_port();
    let mut pauses = [Pause::new(), Pause::new()];
    let runs = [("ann", &pauses[0]), ("bob", &pauses[1])].map(|(who, pause)| (who, begin(&server, who, port, pause)));
    pauses.iter().for_each(Pause::begins);
    pauses.iter_mut().for_each(Pause::end);
    for (who, run) in &runs {
        wait_until("the run ends", Duration::from_secs(60), || is_final(&server.run(run)));
        let record = server.run(run);
        let log = server.cooper(&["logs", run]).ok().stdout;
        assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
        let said: Vec<&str> = log.lines().filter(|line| line.ends_with("ann") || line.ends_with("bob")).collect();
        assert_eq!(said, [format!("workspace {who}"), format!("volume {who}"), format!("site {who}")], "{log}");
        // The machine's ports are nobody's where the operator gives no leave.
        assert!(log.contains(&format!("port {port}:80 is not opened on the agent's machine")), "{log}");
        wait_until("nothing is left of the run", Duration::from_secs(30), || {
            agent.held_in(&engine, &server, run).is_empty()
        });
    }
}

#[test]
fn a_port_of_the_machine_is_the_first_ones() {
    let server = server();
    let agent = RemoteAgent::start(&server, "open", &server.url(), None, &["--allow-ports"]);
    server.base_image();
    let port = free_port();
    let mut pause = Pause::new();
    let first = begin(&server, "ann", port, &pause);
    pause.begins();
    let leads = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("the machine's port leads to the step", Duration::from_secs(60), leads);
    let second = begin(&server, "bob", port, &Pause::new());
    wait_until("the second one ends", Duration::from_secs(60), || is_final(&server.run(&second)));
    let record = server.run(&second);
    assert_eq!(record["status"], "Failed", "{record:#}");
    let reason = record["runErrorMessage"].as_str().unwrap();
    assert!(reason.contains(&format!("step ID: web: port {port} of the agent's machine is taken")), "{reason}");
    assert!(!reason.contains("loss"), "{reason}");
    pause.end();
    wait_until("the first one ends", Duration::from_secs(60), || is_final(&server.run(&first)));
    assert_eq!(server.run(&first)["status"], "Succeeded", "{:#}", server.run(&first));
    drop(agent);
}

#[test]
fn a_base_under_the_registrys_own_name_is_each_runs_own() {
    let server = server();
    let agent = RemoteAgent::start(&server, "both", &server.url(), None, &[]);
    server.base_image();
    let task = "version: v1.1.0\nsteps:\n\
                - build: -t own:fixed --build-arg BASE=$Registry/base/busybox:1 --build-arg WHO={{.Values.who}} -f first .\n\
                {{if .Values.push}}- push: ['own:fixed']\n{{end}}\
                - cmd: $Registry/base/busybox:1 sh -c '{{.Values.pause}}'\n\
                - build: -t spelled -f spelled .\n\
                - build: -t filled --build-arg REGISTRY=$Registry -f filled .\n\
                - cmd: spelled cat /who\n\
                - cmd: filled cat /who\n";
    let host = server.authority().replace("127.0.0.1", "localhost");
    let context = Context::empty()
        .file("acr-task.yaml", task)
        .file("first", "ARG BASE\nFROM $BASE\nARG WHO\nRUN echo $WHO > /who\n")
        .file("spelled", format!("FROM {host}/own:fixed\n"))
        .file("filled", "ARG REGISTRY\nFROM ${REGISTRY}/own:fixed\n");
    for push in ["", "true"] {
        let begin = |who: &str, pause: &Pause| {
            let (who, pause) = (format!("who={who}"), format!("pause={}", pause.script()));
            let push = format!("push={push}");
            let sets = ["--set", &who, "--set", &pause, "--set", &push];
            server
                .cooper(&[&["run", "--no-wait"], &sets[..], &[&context.display()]].concat())
                .ok()
                .stdout
                .trim()
                .to_owned()
        };
        // Whoever was last to build, and to push: each run builds on what it has built itself.
        let mut pauses = [Pause::new(), Pause::new()];
        let runs = ["ann", "bob"].into_iter().zip(&pauses).map(|(who, pause)| {
            let run = begin(who, pause);
            pause.begins();
            (who, run)
        });
        let runs: Vec<(&str, String)> = runs.collect();
        pauses.iter_mut().for_each(Pause::end);
        for (who, run) in &runs {
            wait_until("the run ends", Duration::from_secs(120), || is_final(&server.run(run)));
            let record = server.run(run);
            let log = server.cooper(&["logs", run]).ok().stdout;
            assert_eq!(record["status"], "Succeeded", "{record:#}\n{log}");
            let said: Vec<&str> = log.lines().filter(|line| *line == "ann" || *line == "bob").collect();
            assert_eq!(said, [*who; 2], "{log}");
        }
    }
    drop(agent);
}
