//! Networks of the agent's engine that its operator lets steps use: they are attached to, and left as they were.

use std::time::Duration;

use cooper_e2e::{Context, Engine, Finished, ServerOptions, TestServer, unique, wait_until};

/// A network that the operator has made. It is gone with the test.
struct Given {
    engine: Engine,
    name: String,
}

impl Given {
    fn new() -> Self {
        let given = Self { engine: Engine::new(), name: unique() };
        given.engine.docker(&["network", "create", &given.name]).ok();
        given
    }

    /// Something of it, as the engine's client formats it.
    #[track_caller]
    fn shown(&self, format: &str) -> String {
        self.engine.docker(&["network", "inspect", "--format", format, &self.name]).ok().stdout.trim().to_owned()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.engine.docker(&["network", "rm", &self.name]);
    }
}

/// A server whose agent lets steps use these networks.
fn server(networks: &[&str]) -> TestServer {
    let arguments = networks.iter().flat_map(|network| ["--allow-network", network]).map(str::to_owned).collect();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    server.base_image();
    server
}

/// Runs steps in a network that is there already.
fn run(server: &TestServer, network: &str, steps: &str) -> Finished {
    let head = format!(
        "version: v1.1.0\nnetworks:\n  - name: {network}\n    skipCreation: true\n    isDefault: true\nsteps:\n"
    );
    let context = Context::empty().file("acr-task.yaml", head + steps).file("data", "of the service\n");
    server.cooper(&["run", &context.display()])
}

#[test]
fn steps_are_attached_by_their_names_and_the_network_stays() {
    let given = Given::new();
    let server = server(&[&given.name]);
    let before = given.shown("{{.Id}}");
    let subnet = given.shown("{{(index .IPAM.Config 0).Subnet}}");
    let steps = "  - id: web\n    cmd: $Registry/base/busybox:1 httpd -f -p 8080 -h /workspace\n    detach: true\n  - id: get\n    \
                 cmd: $Registry/base/busybox:1 sh -c 'ip route; until wget -q -O - http://web:8080/data; do sleep 1; done'\n";
    let log = run(&server, &given.name, steps).ok().stdout;
    assert!(log.contains("\nof the service\n"), "{log}");
    assert!(log.lines().any(|line| line.starts_with(&subnet)), "no route to {subnet}:\n{log}");
    // The service is stopped when the run has ended.
    wait_until("nothing of the run is in the network", Duration::from_secs(60), || {
        given.shown("{{len .Containers}}") == "0"
    });
    assert_eq!(given.shown("{{.Id}}"), before);
    server.expect_quiet_log();
}

#[test]
fn a_network_that_is_not_there_is_the_users_to_mend() {
    let missing = unique();
    let server = server(&[&missing]);
    let failed = run(&server, &missing, "  - cmd: $Registry/base/busybox:1 true\n").expect(1);
    let told = format!("network `{missing}` is not in the agent's container engine: leave `skipCreation` out");
    failed.error_names(&[&told, "ask its operator"]);
    assert!(!failed.stdout.contains("loss 1 of"), "{failed}");
}
