//! From a folder to an image that runs.

use cooper_e2e::{Context, Engine, TestServer};

#[test]
fn a_folder_becomes_an_image_that_runs() {
    let engine = Engine::new();
    let server = TestServer::start();
    let base = server.base_image();
    let registry = base.split('/').next().unwrap();

    let run = server.build(
        &[
            "-t",
            "hello:{{.Run.ID}}",
            "-t",
            "hello:latest",
            "--build-arg",
            "REGISTRY={{.Run.Registry}}",
            "--build-arg",
            "RUN={{.Run.ID}}",
        ],
        &Context::example("hello"),
    );
    let id = run["runId"].as_str().unwrap();
    assert_eq!(run["status"], "Succeeded", "{run:#}");
    assert_eq!(run["runType"], "QuickBuild");
    let images = run["outputImages"].as_array().unwrap();
    let tags: Vec<&str> = images.iter().map(|image| image["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, [id, "latest"], "{run:#}");
    assert_eq!(images[0]["digest"], images[1]["digest"]);
    assert!(images[0]["digest"].as_str().unwrap().starts_with("sha256:"));

    engine.login(registry, &server.token_file());
    let image = format!("{registry}/hello:{id}");
    engine.pull(&image);
    let greeting = engine.run(&image);
    assert_eq!(greeting, format!("Hello from Cooperage: built by run {id}, pushed, pulled and running.\n"));
}
