//! Tasks with the real engine: steps share a workspace and are built from, services are reached by their ids, what takes
//! too long is killed, and nothing is left.

use std::process::Command;
use std::time::Duration;

use cooper_api::agent::{
    BuildContextOrder, CommandImageOrder, CommandOrder, EnvironmentOrder, StepOrder, StepWork, VolumeOrder,
};
use cooper_engine::message::{StepOutput, StepResult, ToAgent};
use cooper_ports::engine::EngineOwner;
use cooper_spec::plan::{Mount, Network, Tries};
use cooper_types::{AttemptNumber, Digest, SecretBytes, StepId};

use crate::bench::{Bench, archive, build_of, command_with, key, real_engine, soon};
use crate::server::TestStream;

struct Task {
    bench: Bench,
    stream: TestStream,
    owner: EngineOwner,
    image: Digest,
    attempt: u64,
}

/// What the engine has of an owner: containers, and then volumes and networks but the one that an agent has as a whole.
fn left(owner: &EngineOwner) -> Vec<String> {
    let filter = format!("label=dev.cooperage.owner={}", owner.label());
    let list = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).args(["--filter", &filter]).output();
        let output = output.expect("the docker command, which `cargo xtask test` installs, is needed");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().filter(|line| !line.ends_with("-shared")).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut left = list(&["ps", "-a", "--format", "container {{.Names}}"]);
    left.extend(list(&["volume", "ls", "--format", "volume {{.Name}}"]));
    left.extend(list(&["network", "ls", "--format", "network {{.Name}}"]));
    left
}

/// Waits until the engine has nothing of an owner that a test looks for.
async fn gone(owner: &EngineOwner, what: impl Fn(&String) -> bool) {
    let gone = async {
        while left(owner).iter().any(&what) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("end of what the engine has", gone).await;
}

impl Task {
    /// A placement with the context's image, `bin/sh` and busybox in it.
    async fn start(name: &str) -> Self {
        let owner = EngineOwner::new(&format!("agent task {name} {}", std::process::id()));
        let of_bench = owner.clone();
        let mut bench = Bench::start_with(real_engine().await, |settings| settings.engine_owner = of_bench);
        let paths = ["/bin/busybox", "/usr/bin/busybox"];
        let busybox = paths.iter().find_map(|path| std::fs::read(path).ok());
        let busybox = busybox.expect("Debian's busybox-static, which `cargo xtask test` installs, is needed");
        bench.server.serve_context(archive(&[
            ("Dockerfile", b"FROM scratch\nCOPY bin /bin\n"),
            ("second/Dockerfile", b"FROM localhost:5000/first:1\nCOPY made /made\nRUN busybox cat /made\n"),
            ("bin/sh", &busybox),
            ("bin/busybox", &busybox),
        ]));
        let mut stream = bench.stream().await;
        stream.place(key(1)).await;
        let mut task = Self { bench, stream, owner, image: Digest::sha256(b""), attempt: 0 };
        let mut order = build_of("Dockerfile", &[]);
        if let StepWork::Build(build) = &mut order.work {
            build.labels = vec![("test".into(), task.owner.label().into())];
        }
        let (result, text) = task.run(order).await;
        let StepResult::Succeeded { output: StepOutput::Built { image, .. } } = result else {
            panic!("{result:?}\n{text}")
        };
        task.image = image;
        task
    }

    fn command(&self, script: &str, change: impl FnOnce(&mut CommandOrder, &mut EnvironmentOrder)) -> StepOrder {
        let image = self.image.clone();
        command_with("", &["/bin/sh", "-c", script], |command, environment| {
            command.image = CommandImageOrder::Built(image);
            environment.has_context = true;
            change(command, environment);
        })
    }

    async fn run(&mut self, order: StepOrder) -> (StepResult, String) {
        self.attempt += 1;
        self.stream.start(key(1), self.attempt, order).await;
        let result = self.stream.result(key(1), self.attempt).await;
        (result, self.bench.server.log("ca1", self.attempt).text())
    }

    async fn succeed(&mut self, order: StepOrder) -> String {
        let (result, text) = self.run(order).await;
        assert!(matches!(result, StepResult::Succeeded { .. }), "{result:?}\n{text}");
        text
    }

    async fn end(mut self) {
        self.stream.stop(key(1)).await;
        gone(&self.owner, |_| true).await;
        assert_eq!(self.bench.leftovers(), Vec::<String>::new());
        self.bench.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_has_a_terminal_where_it_asks_for_one() {
    let mut task = Task::start("terminal").await;
    let script = "if test -t 1; then echo a terminal; else echo a pipe; fi";
    let text = task.succeed(task.command(script, |command, _| command.terminal = true)).await;
    assert!(text.contains("a terminal"), "{text}");
    let text = task.succeed(task.command(script, |_, _| {})).await;
    assert!(text.contains("a pipe"), "{text}");
    task.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_share_a_workspace_and_are_built_from() {
    let mut task = Task::start("workspace").await;
    let with_keys = |command: &mut CommandOrder, environment: &mut EnvironmentOrder| {
        let files = vec![("token".to_owned(), SecretBytes::new(b"volume-secret".to_vec()))];
        environment.volumes = vec![VolumeOrder { name: "keys".into(), files }];
        command.mounts = vec![Mount { volume: "keys".into(), path: "/run/keys".into() }];
    };
    let script = "busybox cat Dockerfile; echo made by $HOME > second/made; echo kept > $HOME/note; \
                  busybox cat /run/keys/token; echo; echo done >&2";
    let order = task.command(script, with_keys);
    let text = task.succeed(order).await;
    assert!(
        text.contains("FROM scratch\nCOPY bin /bin\n") && text.contains("***\n") && text.contains("done\n"),
        "{text}"
    );
    assert!(!task.bench.server.has_heard(b"volume-secret"), "{text}");
    let order = task.command("busybox cat second/made $HOME/note; busybox ls /run/keys; :", with_keys);
    let text = task.succeed(StepOrder { step: StepId::parse("other").expect("valid"), ..order }).await;
    assert!(text.contains("made by /acb/home\nkept\n") && text.contains("token"), "{text}");

    let image = task.image.clone();
    let mut order = build_of("Dockerfile", &[]);
    order.environment = Some(EnvironmentOrder { has_context: true, ..EnvironmentOrder::default() });
    if let StepWork::Build(build) = &mut order.work {
        build.context = BuildContextOrder::Workspace("second".into());
        build.own_bases = vec![("localhost:5000/first:1".into(), image)];
        build.no_cache = true;
    }
    let text = task.succeed(order).await;
    assert!(text.contains("made by /acb/home"), "{text}");
    assert!(text.contains("FROM localhost:5000/first:1") && !text.contains("cooper.invalid"), "{text}");
    task.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_service_is_reached_by_its_steps_id() {
    let mut task = Task::start("service").await;
    let network = |command: &mut CommandOrder, environment: &mut EnvironmentOrder| {
        command.network = Some("run".into());
        environment.networks = vec![Network { name: "run".into(), driver: None, ipv6: false, external: false }];
    };
    let service = "echo serving; while :; do echo hello | busybox nc -l -p 8080; done";
    let order = task.command(service, |command, environment| {
        network(command, environment);
        command.detach = true;
        command.ports = vec!["8080:8080".into()];
    });
    task.succeed(StepOrder { step: StepId::parse("web").expect("valid"), ..order }).await;
    let client = "said=$(busybox nc -w 5 web 8080) && echo said $said && [ \"$said\" = hello ]";
    let order = task.command(client, network);
    let retries = Tries { retries: 1000, retry_delay: Duration::from_millis(100), ..Tries::default() };
    let text = task.succeed(StepOrder { step: StepId::parse("client").expect("valid"), tries: retries, ..order }).await;
    assert!(text.contains("said hello\n"), "{text}");
    let both = task.bench.server.log("ca1", 2).text() + &text;
    assert!(both.contains("web | serving\n") && both.contains("--allow-ports"), "{both}");
    task.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_too_long_is_killed_and_so_is_what_is_stopped() {
    let mut task = Task::start("kill").await;
    // Neither minds a signal.
    let endless = "trap '' TERM INT; echo begun; while :; do busybox sleep 1; done";
    let order = StepOrder { timeout: Duration::from_secs(10), ..task.command(endless, |_, _| {}) };
    let order = StepOrder { tries: Tries { retries: 3, repeat: 3, ..Tries::default() }, ..order };
    let (result, text) = task.run(order).await;
    assert_eq!(result, StepResult::TimedOut, "{text}");
    assert!(text.matches("begun\n").count() <= 1, "no try comes after the time: {text}");
    gone(&task.owner, |line| line.contains("step")).await;

    // One that is kept does not outlive its placement either.
    let order = task.command("exit 3", |command, _| command.keep = true);
    let (result, text) = task.run(order).await;
    assert!(matches!(result, StepResult::Failed { exit_code: Some(3), .. }), "{result:?}\n{text}");

    task.attempt += 1;
    let (key, attempt, order) = (key(1), task.attempt, task.command(endless, |_, _| {}));
    task.stream.say(ToAgent::StartStep { key, attempt: AttemptNumber(attempt), work: order }).await;
    soon("start", task.stream.message()).await;
    soon("output", task.bench.server.text_until("ca1", attempt, |text| text.contains("begun\n"))).await;
    task.stream.stop(key).await;
    gone(&task.owner, |_| true).await;
    task.bench.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_output_is_whole() {
    const BYTES: usize = 8_000_000;
    let mut task = Task::start("output").await;
    let script = format!("busybox seq -w 0 999999 | busybox head -c {BYTES}; echo; echo end");
    let order = task.command(&script, |_, _| {});
    let text = task.succeed(order).await;
    let numbers = text.lines().filter(|line| line.parse::<u32>().is_ok());
    assert!(numbers.clone().map(|line| line.parse::<u32>().expect("a number")).eq(0..1_000_000), "a line is missing");
    assert!(text.contains("\nend\n"));
    task.end().await;
}
