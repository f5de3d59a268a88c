//! The embedded registry from within a `cmd` step: `$Registry`, in both kinds of network, on the server's machine and on
//! another one, with the rights of the run's principal alone.

use cooper_e2e::{Context, Namespace, PrivateEngine, RemoteAgent, ServerOptions, TestServer};

/// Asks for the registry's own page, a manifest that the run may pull, and one that it may not. With a detached step, each
/// container has a network namespace of its own; without, all of them share one.
fn task(own_namespaces: bool) -> Context {
    let ask = "show() { wget -q -O /dev/null --header \"Accept: */*\" http://$Registry/v2/$1 2> err && echo $1: had || echo \
               $1: refused $(cat err); }; show; show base/busybox/manifests/1; show hidden/thing/manifests/1; echo at $Registry";
    let detached = "- {id: beside, cmd: $Registry/base/busybox:1 sleep 600, detach: true}\n";
    let task = format!(
        "version: v1.1.0\nsteps:\n{}- id: ask\n  cmd: |-\n    $Registry/base/busybox:1 sh -c '{ask}'\n",
        if own_namespaces { detached } else { "" },
    );
    Context::empty().file("acr-task.yaml", task)
}

fn steps_reach_the_registry(server: &TestServer) {
    server.base_image();
    let base = format!("localhost:{}/base/busybox:1", server.port());
    server.build(&["-t", "hidden/thing:1"], &Context::new(&format!("FROM {base}\nLABEL a=b\n")));
    let scopes = ["--scope", "run", "--scope", "read", "--scope", "repository:base/busybox:pull"];
    let token = server.cooper(&[&["token", "create", "guest"], &scopes[..]].concat()).ok().stdout;
    let folder = Context::empty().file("token", token.trim());
    let token = folder.join("token").display().to_string();
    for own_namespaces in [false, true] {
        let context = task(own_namespaces);
        let log = server.cooper(&["run", "--token-file", &token, &context.display()]).ok().stdout;
        for line in [": had", "base/busybox/manifests/1: had", &format!("at localhost:{}", server.port())] {
            assert!(log.lines().any(|one| one == line), "{own_namespaces}: {line}\n{log}");
        }
        let refused = log.lines().find(|line| line.starts_with("hidden/thing/manifests/1: refused"));
        assert!(refused.is_some_and(|line| line.contains("HTTP/1.1 40")), "{own_namespaces}: {log}");
        // Who may see it sees it.
        let log = server.cooper(&["run", &context.display()]).ok().stdout;
        assert!(log.contains("hidden/thing/manifests/1: had\n"), "{own_namespaces}: {log}");
    }
}

#[test]
fn on_the_servers_machine() {
    steps_reach_the_registry(&TestServer::start());
}

#[test]
fn on_another_machine() {
    let (here, there) = (Namespace::new(), Namespace::new());
    let cable = here.connect(&there);
    let arguments = vec!["--no-agent".to_owned()];
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(here), ..Default::default() });
    let engine = PrivateEngine::start(&there);
    let socket = engine.socket().display().to_string();
    let url = format!("http://{}:{}", cable.first, server.port());
    let mut agent = RemoteAgent::start(&server, "far", &url, Some(&there), &["--engine", &socket, "--insecure"]);
    steps_reach_the_registry(&server);
    agent.stop();
}
