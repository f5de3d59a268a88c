//! Every folder of `examples/` is built and run.

use cooper_e2e::{Context, Engine, TestServer, repository_path};

const REGISTRY: &str = "REGISTRY={{.Run.Registry}}";

#[test]
fn every_example_works() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();
    engine.login(registry, &server.token_file());

    let mut seen = Vec::new();
    for entry in std::fs::read_dir(repository_path("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        match name.as_str() {
            // The base image above is this one.
            "busybox" => {}
            "hello" => {
                let flags = ["-t", "hello:1", "--build-arg", REGISTRY, "--build-arg", "RUN={{.Run.ID}}"];
                let run = server.build(&flags, &Context::example("hello"));
                let image = format!("{registry}/hello:1");
                engine.pull(&image);
                let id = run["runId"].as_str().unwrap();
                let greeting = format!("Hello from Cooperage: built by run {id}, pushed, pulled and running.\n");
                assert_eq!(engine.run(&image), greeting);
            }
            "secret" => {
                let token = Context::empty().file("token", "abc");
                let secret = format!("id=token,src={}", token.join("token").display());
                let flags = ["-t", "secret:1", "--build-arg", REGISTRY, "--secret", &secret];
                server.build(&flags, &Context::example("secret"));
                let image = format!("{registry}/secret:1");
                engine.pull(&image);
                // The beginning of SHA-256("abc").
                assert_eq!(engine.run(&image), "ba7816bf8f01\n");
            }
            // Task files: `cooper-spec` reads each of them in its tests.
            "tasks" => {}
            other => panic!("examples/{other} has no test: add one here"),
        }
        seen.push(name);
    }
    assert!(seen.len() >= 3, "{seen:?}");
}
