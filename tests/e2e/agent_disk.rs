//! The disk that an agent and its engine use: nothing of a run stays, the cache keeps its budget, and a disk that is
//! nearly full is a reason to wait.

use std::time::Duration;

use cooper_e2e::{Context, Namespace, PrivateEngine, ServerOptions, TestServer, unique, wait_until};

use crate::disk_full::SmallDisk;

/// How long the agent may take to see what changed on a disk: it looks every three seconds.
const SEEN: Duration = Duration::from_secs(30);
/// How long a small build may take.
const BUILT: Duration = Duration::from_secs(120);

#[test]
fn a_disk_that_is_nearly_full_is_told_and_work_goes_on_when_there_is_space() {
    let disk = SmallDisk::mount(96);
    let arguments = ["--min-free", "48MiB"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { data: Some(disk.data()), arguments, ..Default::default() });
    let base = server.base_image();
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 52 << 20]).unwrap();
    wait_until("the agent sees it", SEEN, || server.log().contains("no work is taken"));

    let context = Context::new(&format!("FROM {base}\nRUN echo {}\n", unique()));
    let queued = server.cooper(&["build", "--no-wait", "-t", "app:1", &context.display()]).expect(0);
    let id = queued.stdout.trim().to_owned();
    let reason = || server.run(&id)["pendingReason"].as_str().unwrap_or_default().to_owned();
    wait_until("the run says why it waits", SEEN, || {
        let reason = reason();
        reason.contains("low disk: ") && reason.contains("needs 48.0 MiB") && reason.contains("local")
    });
    assert_eq!(server.run(&id)["status"], "Queued");
    let listed = server.cooper(&["agent", "list"]).ok().stdout;
    assert!(listed.contains("connected, low disk "), "{listed}");
    let shown = server.cooper(&["agent", "show", "local"]).ok().stdout;
    assert!(shown.contains("Takes no work: low disk: "), "{shown}");

    std::fs::remove_file(&filler).unwrap();
    wait_until("the run ends", BUILT, || server.run(&id)["status"] == "Succeeded");
}

#[test]
fn nothing_of_a_run_stays_but_a_cache_within_its_budget() {
    const BUDGET: u64 = 24_000_000;
    let namespace = Namespace::new();
    let engine = PrivateEngine::start(&namespace);
    let client = engine.client();
    let socket = engine.socket().display().to_string();
    let arguments = vec!["--engine".to_owned(), socket, "--cache-budget".to_owned(), BUDGET.to_string()];
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(namespace), ..Default::default() });
    let base = server.base_image();
    // What the engine's owner has there by himself, named and not.
    let archive = server.data().join("own.tar");
    std::fs::write(&archive, cooper_e2e::Archive::new().file("own", "mine").tar()).unwrap();
    let archive = archive.display().to_string();
    client.docker(&["import", &archive, "owners/image:1"]).ok();
    client.docker(&["import", "--change", "LABEL owners=1", &archive]).ok();
    client.docker(&["volume", "create", "owners-volume"]).ok();
    client.docker(&["network", "create", "owners-network"]).ok();

    for number in 0..4 {
        let noise = format!("head -c 12000000 /dev/urandom > /noise && echo {}", unique());
        let context = Context::new(&format!("FROM {base}\nRUN {noise}\n"));
        server.build(&["-t", &format!("large:{number}")], &context);
    }
    let listed = |arguments: &[&str]| {
        let mut lines: Vec<String> = client.docker(arguments).ok().stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let images = || listed(&["image", "ls", "--all", "--format", "{{.Repository}}:{{.Tag}}"]);
    wait_until("only the owner's images are left", SEEN, || images() == ["<none>:<none>", "owners/image:1"]);
    wait_until("the cache is within its budget", BUILT, || cache_bytes(&listed) <= BUDGET);
    assert_eq!(listed(&["container", "ls", "--all", "--quiet"]), Vec::<String>::new());
    assert_eq!(listed(&["volume", "ls", "--quiet"]), ["owners-volume"]);
    let networks = listed(&["network", "ls", "--format", "{{.Name}}"]);
    assert_eq!(networks, ["bridge", "host", "none", "owners-network"]);
    let staging: Vec<_> = std::fs::read_dir(server.data().join("agent")).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(staging.iter().all(|entry| entry.file_name() == "agent.lock"), "{staging:?}");
    // And it still works on what is left.
    server.build(&["-t", "large:again"], &Context::new(&format!("FROM {base}\nRUN echo {}\n", unique())));
}

#[test]
fn a_full_disk_of_the_engine_is_a_loss_with_that_reason() {
    let disk = SmallDisk::mount(128);
    let namespace = Namespace::new();
    let engine = PrivateEngine::start_on(&namespace, Some(disk.path().join("engine")));
    // It has enough by its own measure, so that the build begins.
    let arguments =
        ["--engine", &engine.socket().display().to_string(), "--min-free", "1MiB"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(namespace), ..Default::default() });
    let base = server.base_image();
    let large = Context::new(&format!("FROM {base}\nRUN dd if=/dev/zero of=/large bs=1M count=256\n"));
    let queued = server.cooper(&["build", "--no-wait", "-t", "large:1", &large.display()]).expect(0);
    let id = queued.stdout.trim().to_owned();
    let log = || server.cooper(&["logs", &id]).stdout;
    wait_until("the loss is in the log", BUILT, || log().contains("loss 1 of 3"));
    let log = log();
    assert!(log.contains("no space left on its disk") && log.contains("--cache-budget"), "{log}");
    assert_eq!(server.run(&id)["status"], "Running", "a full disk of an engine is no failed build");
    server.cooper(&["runs", "cancel", &id]).expect(0);
    wait_until("the run ends", BUILT, || server.run(&id)["status"] == "Canceled");
    server.build(&["-t", "small:1"], &Context::new(&format!("FROM {base}\nRUN echo {}\n", unique())));
}

/// What the engine's build cache takes, in bytes, as its client rounds it.
fn cache_bytes(listed: &dyn Fn(&[&str]) -> Vec<String>) -> u64 {
    let lines = listed(&["system", "df", "--format", "{{.Type}}={{.Size}}"]);
    let size = lines.iter().find_map(|line| line.strip_prefix("Build Cache=")).expect("the engine has a build cache");
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((size.strip_suffix(name)?, unit))).unwrap();
    (number.parse::<f64>().unwrap() * unit) as u64
}
