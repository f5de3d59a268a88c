//! The agent with the real engine: a context from the wire becomes an image, and nothing is left.

use std::sync::Arc;

use cooper_api::agent::StepWork;
use cooper_docker::DockerEngine;
use cooper_engine::message::{StepOutput, StepResult, ToAgent, ToServer};
use cooper_ports::engine::EngineOwner;
use cooper_types::{SecretBytes, SecretString};

use crate::bench::{Bench, archive, build_of, key, real_engine, soon};

/// A bench whose names in the engine no other test has.
fn start(engine: Arc<DockerEngine>, name: &str) -> Bench {
    let owner = EngineOwner::new(&format!("agent test {name} {}", std::process::id()));
    Bench::start_with(engine, |settings| settings.engine_owner = owner)
}

fn context(dockerfile: &str) -> Vec<u8> {
    let paths = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = paths.iter().find_map(|path| std::fs::read(path).ok());
    let busybox = busybox.expect("Debian's busybox-static, which `cargo xtask test` installs, is needed");
    archive(&[("Dockerfile", dockerfile.as_bytes()), ("bin/sh", &busybox)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_context_becomes_an_image() {
    let mut bench = start(real_engine().await, "build");
    let secret = format!("token-{}", std::process::id());
    let dockerfile = "FROM scratch\nCOPY bin /bin\nARG WORD\n\
                      RUN --mount=type=secret,id=tok echo \"word $WORD\"; read -r tok < /run/secrets/tok; echo \"got $tok\"\n";
    bench.server.serve_context(context(dockerfile));
    let mut stream = bench.stream().await;
    let mut order = build_of("Dockerfile", &[]);
    if let StepWork::Build(build) = &mut order.work {
        build.no_cache = true;
        build.secrets = vec![("tok".into(), SecretBytes::new(secret.clone().into_bytes()))];
        build.arguments = vec![("WORD".into(), SecretString::new("up".into()))];
        build.shared_key = format!("agent-test-{}", std::process::id());
    }
    stream.place(key(1)).await;
    stream.start(key(1), 1, order).await;
    let result = stream.result(key(1), 1).await;
    let text = bench.server.log("ca1", 1).text();
    assert!(
        matches!(&result, StepResult::Succeeded { output: StepOutput::Built { bases, .. } } if bases.is_empty()),
        "{result:?}\n{text}"
    );
    assert!(text.contains(" word up\n") && text.contains(" got ***\n") && text.contains(" DONE "), "{text}");
    assert!(!bench.server.has_heard(secret.as_bytes()), "{text}");
    assert!(!text.contains("cooper.invalid"), "{text}");
    stream.stop(key(1)).await;
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_run_gives_its_code_and_a_long_one_is_cancelled() {
    let mut bench = start(real_engine().await, "fail");
    bench.server.serve_context(context("FROM scratch\nCOPY bin /bin\nRUN echo broken >&2; exit 7\n"));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, build_of("Dockerfile", &[])).await;
    let result = stream.result(key(1), 1).await;
    let text = bench.server.log("ca1", 1).text();
    assert!(matches!(&result, StepResult::Failed { exit_code: Some(7), .. }), "{result:?}\n{text}");
    assert!(text.contains(" broken\n") && text.contains("ERROR"), "{text}");

    bench.server.serve_context(context("FROM scratch\nCOPY bin /bin\nRUN echo begun; while true; do :; done\n"));
    stream.place(key(2)).await;
    stream.start(key(2), 1, build_of("Dockerfile", &[])).await;
    soon("output", bench.server.text_until("ca2", 1, |text| text.contains(" begun\n"))).await;
    // It would never end by itself.
    stream.say(ToAgent::Stop { key: key(2) }).await;
    assert_eq!(soon("end", stream.message()).await, ToServer::Stopped(key(2)));
    stream.stop(key(1)).await;
    bench.shut_down().await;
}
