//! Emulated platforms: what is registered with the kernel is offered, and builds.

use std::time::Duration;

use cooper_e2e::{
    Context, Emulation, EmulationTurn, Namespace, PrivateEngine, ServerOptions, TestServer, arm64_program, unique,
    wait_until,
};

/// How long a run may take from the moment that an agent can take it.
const BUILT: Duration = Duration::from_secs(120);
#[test]
fn a_platform_that_becomes_emulated_is_offered_and_builds() {
    // A machine that emulates already shows the second half only.
    let turn = EmulationTurn::wait();
    let namespace = Namespace::new();
    let mut engine = PrivateEngine::start(&namespace);
    let arguments = vec!["--engine".to_owned(), engine.socket().display().to_string()];
    let server = TestServer::with(ServerOptions { arguments, namespace: Some(namespace), ..Default::default() });
    let word = unique();
    let context = Context::new(&format!("FROM scratch\nCOPY hello /hello\nLABEL word={word}\nRUN [\"/hello\"]\n"))
        .file("hello", arm64_program("arm64-speaks\n"));
    std::fs::set_permissions(context.join("hello"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let folder = context.display();
    let queued = server.cooper(&["build", "--no-wait", "--platform", "linux/arm64", "-t", "arm:1", &folder]).expect(0);
    let id = queued.stdout.trim().to_owned();
    let run = || server.run(&id);
    if !Emulation::is_of_machine() {
        wait_until("the run says what it waits for", BUILT, || {
            run()["pendingReason"].as_str().is_some_and(|reason| reason.contains("linux/arm64"))
        });
    }
    let _emulation = Emulation::register(&turn);
    // The agent asks once a minute, and when an engine is back: that is sooner.
    engine.stop();
    engine.launch();
    wait_until("the run ends", BUILT, || run()["finishTime"].is_string());
    let log = server.cooper(&["logs", &id]).ok().stdout;
    assert_eq!(run()["status"], "Succeeded", "{log}");
    assert!(log.contains("arm64-speaks"), "{log}");
    let image = server.registry("/v2/arm/manifests/1");
    let config = serde_json::from_str::<serde_json::Value>(&image.body).unwrap()["config"]["digest"].clone();
    let config = server.registry(&format!("/v2/arm/blobs/{}", config.as_str().unwrap()));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&config.body).unwrap()["architecture"], "arm64");
}
