//! Everything of `examples/` is built, run or applied.

use cooper_e2e::{Context, Emulation, EmulationTurn, Engine, TestServer, repository_path};

/// Runs every task file of `examples/tasks` as its first lines say.
fn every_task_works(server: &TestServer) {
    let folder = repository_path("examples/tasks");
    let source = folder.display().to_string();
    let secret = Context::empty().file("token", "s3cret-value");
    let token = secret.join("token").display().to_string();
    server.cooper(&["secret", "set", "example-token", "--from-file", &token]).ok();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(task) = name.strip_suffix(".yaml") else { continue };
        let file = folder.join(&name).display().to_string();
        let run = |more: &[&str], source: &str| {
            let arguments = [&["run", "-f", file.as_str()], more, &[source]].concat();
            server.cooper(&arguments).ok().stdout
        };
        match task {
            "hello" => assert!(run(&[], "/dev/null").contains("hello from run c"), "{task}"),
            "parallel" => assert!(run(&[], "/dev/null").contains("one\ntwo\nthree\n"), "{task}"),
            "diamond" => assert!(run(&[], "/dev/null").contains("\n61\n"), "{task}"),
            "retries" => {
                let log = run(&[], "/dev/null");
                assert_eq!(log.matches("waiting 1 seconds before retrying").count(), 2, "{log}");
                assert!(log.contains("is set to ignore errors"), "{log}");
            }
            "working-directory" => {
                let log = run(&[], &source);
                for line in ["/workspace/app", "/workspace", "here it is /workspace/app", "as it says /www"] {
                    assert!(log.lines().any(|told| told == line), "{line}: {log}");
                }
            }
            "secrets-volumes" => {
                let log = run(&["--set-secret", "user=mememe"], "/dev/null");
                assert!(log.contains("token *** has 12 characters") && !log.contains("mememe"), "{log}");
            }
            "build-push" => {
                run(&[], &source);
                assert_eq!(server.registry("/v2/tasks/app/manifests/latest").status, 200);
            }
            "build-run-test" => {
                let log = run(&[], &source);
                assert!(log.contains("hello from a task"), "{log}");
            }
            "multi-platform" => {
                let log = run(&[], &source);
                let id = log.split("Run ID: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
                let index = server.registry(&format!("/v2/tasks/page/manifests/{id}"));
                for part in ["amd64", "arm64"] {
                    assert!(index.body.contains(part), "{log}\n{}", index.body);
                }
            }
            "purge" => assert!(run(&[], "/dev/null").contains("Number of deleted tags: 0\n"), "{task}"),
            other => panic!("examples/tasks/{other}.yaml has no test: add one here"),
        }
    }
}

/// Makes the stored tasks as the file says, and finds nothing to do the second time.
fn stored_tasks_are_applied(server: &TestServer) {
    let file = repository_path("examples/stored-tasks.yaml").display().to_string();
    let apply = || server.cooper(&["task", "apply", "-f", &file, "--yes"]).ok();
    assert!(apply().stdout.contains("Task nightly-purge is new"));
    assert!(apply().stderr.contains("All 3 tasks are as the file says"));
    let names = server.cooper(&["task", "list", "--output", "json"]).ok().json();
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app-build", "app-check", "nightly-purge"]);
}

const REGISTRY: &str = "REGISTRY={{.Run.Registry}}";

#[test]
fn every_example_works() {
    let engine = Engine::new();
    // The agent asks its engine at its start what it emulates.
    let turn = EmulationTurn::wait();
    let _emulation = Emulation::register(&turn);
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
                server.pull(&engine, &image);
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
                server.pull(&engine, &image);
                // The beginning of SHA-256("abc").
                assert_eq!(engine.run(&image), "ba7816bf8f01\n");
            }
            "tasks" => every_task_works(&server),
            "stored-tasks.yaml" => stored_tasks_are_applied(&server),
            other => panic!("examples/{other} has no test: add one here"),
        }
        seen.push(name);
    }
    assert!(seen.len() >= 3, "{seen:?}");
}
