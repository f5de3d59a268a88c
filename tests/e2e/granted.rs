//! What an agent's operator may grant: a privileged step and the machine's own network. A step has what it asks for, and
//! the step beside it, which does not ask, has nothing of it.

use cooper_e2e::{Context, Finished, ServerOptions, TestServer};

/// A bit of `CapEff` (linux/capability.h): with it a step mounts.
const SYS_ADMIN: u64 = 1 << 21;

/// Runs steps where both are granted; the run's record, how the client ended, and the log.
fn run(server: &TestServer, steps: &str) -> (Finished, String) {
    let context = Context::empty().file("acr-task.yaml", format!("version: v1.1.0\nsteps:\n{steps}"));
    let finished = server.cooper(&["run", "--no-logs", "--output", "json", &context.display()]);
    let id = finished.json()["runId"].as_str().unwrap().to_owned();
    (finished, server.cooper(&["logs", &id]).ok().stdout)
}

/// A step that says its capabilities and its network namespace, and does something more.
fn step(id: &str, asks: &str, more: &str) -> String {
    let script = format!("echo {id} $(grep CapEff /proc/self/status); echo {id} $(readlink /proc/self/ns/net){more}");
    format!("- id: {id}\n  cmd: $Registry/base/busybox:1 sh -c '{script}'\n{asks}")
}

/// The last word of what a step said of itself.
#[track_caller]
fn said<'l>(log: &'l str, step: &str, what: &str) -> &'l str {
    let line = log.lines().find(|line| line.starts_with(&format!("{step} ")) && line.contains(what));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("`{step}` says no {what}:\n{log}"))
}

#[track_caller]
fn capabilities(log: &str, step: &str) -> u64 {
    u64::from_str_radix(said(log, step, "CapEff"), 16).unwrap()
}

/// Whether this machine lets its engine give all capabilities that the kernel has.
fn can_give_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bounds = u64::from_str_radix(bounds.trim(), 16).unwrap();
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    bounds.trailing_ones() > last
}

#[test]
fn a_step_has_what_it_asks_for_where_the_operator_grants_it() {
    let arguments = ["--allow-privileged", "--allow-network", "host"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..Default::default() });
    server.base_image();

    let usual = step("usual", "  ignoreErrors: true\n", "; mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted");
    let outside = step("outside", "  network: host\n", "");
    let (finished, log) = run(&server, &(usual + &outside));
    finished.expect(0);
    let machine = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(said(&log, "outside", "net:"), machine);
    assert_ne!(said(&log, "usual", "net:"), machine);
    assert_eq!(capabilities(&log, "usual") & SYS_ADMIN, 0, "{log}");
    assert_eq!(capabilities(&log, "outside"), capabilities(&log, "usual"), "{log}");
    assert!(!log.lines().any(|line| line == "mounted"), "{log}");

    let strong = step("strong", "  privileged: true\n", "; mkdir -p /mnt && mount -t tmpfs none /mnt && echo mounted");
    let (finished, log) = run(&server, &strong);
    if finished.code == Some(0) {
        assert_ne!(capabilities(&log, "strong") & SYS_ADMIN, 0, "{log}");
        assert_ne!(said(&log, "strong", "net:"), machine);
        assert!(log.lines().any(|line| line == "mounted"), "{log}");
    } else {
        // It was asked for, and an engine that gives all or nothing could not: the user is told that it is the machine.
        assert!(!can_give_all(), "{log}");
        let why = "step ID: strong: container can't be started: the agent's machine does not let its engine give all";
        assert!(finished.expect(1).stderr.contains(why), "{log}");
    }
}
