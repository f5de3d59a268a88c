//! `cmd` steps on the scripted engine: tries, output, limits, and an environment that goes as surely as it came.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cooper_api::agent::{CommandImageOrder, StepOrder, VolumeOrder};
use cooper_engine::message::{BaseImage, PlacementKey, StepOutput, StepResult, ToAgent, ToServer};
use cooper_ports::engine::scripted::{EngineCall, Gate, ScriptedContainer, ScriptedEngine, ScriptedPull};
use cooper_ports::engine::{
    ContainerEvent, ContainerFailure, ContainerNetwork, EngineError, OutputStream, PullError, PullRequest,
    VolumeContent,
};
use cooper_spec::plan::{Network, Tries};
use cooper_types::{AttemptNumber, Digest, ImageRef, Platform, SecretBytes, StepId};

use crate::bench::{Bench, REGISTRY, archive, command, command_with, key, soon};
use crate::server::TestStream;

fn says(text: &'static str) -> ContainerEvent {
    ContainerEvent::Output { stream: OutputStream::Stdout, bytes: Bytes::from_static(text.as_bytes()) }
}

fn named(mut order: StepOrder, step: &str) -> StepOrder {
    order.step = StepId::parse(step).expect("valid");
    order
}

fn failed(code: Option<i32>, reason: &str) -> StepResult {
    StepResult::Failed { exit_code: code, reason: reason.to_owned() }
}

/// Starts two attempts whose beginnings may come in any order.
async fn start_both(stream: &mut TestStream, key: PlacementKey, orders: [(u64, StepOrder); 2]) {
    for (attempt, work) in orders {
        stream.say(ToAgent::StartStep { key, attempt: AttemptNumber(attempt), work }).await;
    }
    for _ in 0..2 {
        assert!(matches!(soon("start", stream.message()).await, ToServer::StepStarted(..)));
    }
}

fn runs(engine: &ScriptedEngine) -> usize {
    engine.calls().iter().filter(|call| matches!(call, EngineCall::RunContainer(..))).count()
}

#[tokio::test]
async fn containers_share_what_the_first_of_them_made() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    bench.server.serve_context(archive(&[("a/file", b"content")]));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let gate = Gate::new();
    for _ in 0..2 {
        engine.script_container(ScriptedContainer::exiting(0).saying(vec![says("hello\n")]).waiting_at(&gate));
    }
    let order = || {
        command_with("busybox", &["echo", "hello"], |_, environment| {
            environment.has_context = true;
            let files = vec![("token".to_owned(), SecretBytes::new(b"volume-secret".to_vec()))];
            environment.volumes = vec![VolumeOrder { name: "keys".into(), files }];
        })
    };
    start_both(&mut stream, key(1), [(1, named(order(), "one")), (2, named(order(), "two"))]).await;
    soon("both", async {
        while runs(&engine) < 2 {
            tokio::task::yield_now().await
        }
    })
    .await;
    gate.open();
    for _ in 0..2 {
        let ToServer::StepEnded(of, attempt, result) = soon("result", stream.message()).await else { panic!() };
        stream.say(ToAgent::ResultStored { key: of, attempt }).await;
        let image = Some(BaseImage {
            reference: "busybox".into(),
            digest: Some(Digest::sha256(b"manifest docker.io/library/busybox:latest")),
            runtime: true,
        });
        // The second one may have found the image that the first one pulled, of which the engine knows no manifest.
        let StepResult::Succeeded { output: StepOutput::Ran { image: ran } } = result else { panic!("{result:?}") };
        assert!(ran == image || ran.as_ref().is_some_and(|ran| ran.digest.is_none()), "{ran:?}");
    }
    let text = bench.server.log("ca1", 1).text();
    assert!(!text.contains("Executing step ID"), "the server says that: {text}");
    let expect = "Launching container with name: one\nhello\nSuccessfully executed container: one\n";
    assert!(text.ends_with(expect), "{text}");

    let calls = engine.calls();
    let opened: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            EngineCall::OpenPlacement(request) => Some(request),
            _ => None,
        })
        .collect();
    assert_eq!(opened.len(), 1);
    assert!(opened[0].shared_network && opened[0].registry.is_some() && opened[0].networks.is_empty());
    let volumes: Vec<_> = opened[0].volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(volumes, ["workspace", "home", "secret-keys"]);
    assert!(matches!(&opened[0].volumes[2].content, VolumeContent::Secret(files) if files.len() == 1));
    let puts =
        calls.iter().filter(|call| matches!(call, EngineCall::PutArchive(volume) if volume.as_str() == "workspace"));
    assert_eq!(puts.count(), 1);
    stream.stop(key(1)).await;
    assert_eq!(engine.placements(), Vec::<String>::new());
    assert_eq!(bench.leftovers(), Vec::<String>::new());
    assert!(!bench.server.has_heard(b"volume-secret"));
    bench.shut_down().await;
}

#[tokio::test]
async fn tries_follow_the_contract_and_say_so() {
    let tries = |retries, repeat, texts: &[&str]| Tries {
        start_delay: Duration::ZERO,
        retries,
        retry_delay: Duration::from_millis(1),
        retry_on_errors: texts.iter().map(|text| (*text).to_owned()).collect(),
        repeat,
    };
    // What containers exit with and say, and the result and the last line of it all.
    type Script<'a> = &'a [(i64, &'static str)];
    let cases: Vec<(Tries, Script<'_>, Option<StepResult>, &str)> = vec![
        (tries(0, 0, &[]), &[(3, "")], Some(failed(Some(3), "container exited with code 3")), "No retries remaining."),
        (tries(2, 0, &[]), &[(3, ""), (0, "")], None, "Successfully executed container: step"),
        (
            tries(1, 0, &["flaky"]),
            &[(3, "it is fla"), (0, "")],
            Some(failed(Some(3), "container exited with code 3")),
            "holds none of retryOnErrors",
        ),
        (tries(1, 0, &["flaky"]), &[(3, "it is flaky"), (0, "")], None, "Successfully executed container: step"),
        (
            tries(0, 2, &[]),
            &[(1, ""), (0, ""), (2, "")],
            Some(failed(Some(1), "container exited with code 1, container exited with code 2")),
            "No retries remaining.",
        ),
    ];
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    for (attempt, (tries, script, expect, line)) in (1..).zip(cases) {
        for (code, text) in script {
            engine.script_container(ScriptedContainer::exiting(*code).saying(vec![says(text)]));
        }
        let before = runs(&engine);
        let order = StepOrder { tries, ..command("busybox", &[]) };
        stream.start(key(1), attempt, order).await;
        let result = stream.result(key(1), attempt).await;
        let text = bench.server.log("ca1", attempt).text();
        match expect {
            Some(expect) => assert_eq!(result, expect, "{text}"),
            None => assert!(matches!(result, StepResult::Succeeded { .. }), "{result:?}\n{text}"),
        }
        assert!(text.contains(line), "{line} in\n{text}");
        // Scripts that were not played are played here, so that the next case begins with its own.
        while runs(&engine) - before < script.len() {
            let left = script.len() - (runs(&engine) - before);
            assert_eq!(left, 1, "one try is saved at most");
            stream.start(key(1), attempt + 100, command("busybox", &[])).await;
            stream.result(key(1), attempt + 100).await;
        }
    }
    stream.stop(key(1)).await;
    assert_eq!(engine.placements(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn a_time_limit_and_a_stop_end_the_container_and_everything_after_it() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let gate = Gate::new();
    engine.script_container(ScriptedContainer::exiting(1).waiting_at(&gate));
    let tries = Tries { retries: 5, repeat: 5, ..Tries::default() };
    let order = StepOrder { timeout: Duration::from_millis(200), tries: tries.clone(), ..command("busybox", &[]) };
    stream.start(key(1), 1, order).await;
    assert_eq!(stream.result(key(1), 1).await, StepResult::TimedOut);
    assert_eq!(runs(&engine), 1);
    assert!(bench.server.log("ca1", 1).text().contains("timed out after 0.2 s"));

    engine.script_container(ScriptedContainer::exiting(1).waiting_at(&gate));
    stream.start(key(1), 2, StepOrder { tries: tries.clone(), ..command("busybox", &[]) }).await;
    soon("container", async {
        while runs(&engine) < 2 {
            tokio::task::yield_now().await
        }
    })
    .await;
    stream.stop(key(1)).await;
    assert_eq!((runs(&engine), engine.placements()), (2, Vec::new()));

    // A delay is no part of the time, and is over at once when the run is.
    stream.place(key(2)).await;
    let delayed = Tries { start_delay: Duration::from_secs(3600), ..tries };
    let order = StepOrder { timeout: Duration::from_millis(50), tries: delayed, ..command("busybox", &[]) };
    stream.start(key(2), 1, order).await;
    let line = "Waiting 3600 seconds before executing step ID: step\n";
    soon("line", bench.server.text_until("ca2", 1, |text| text.contains(line))).await;
    stream.stop(key(2)).await;
    assert_eq!(runs(&engine), 2);
    bench.shut_down().await;
}

#[tokio::test]
async fn an_attempt_that_the_server_has_given_up_is_stopped_alone() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let gates = [Gate::new(), Gate::new()];
    for (attempt, gate) in (1..).zip(&gates) {
        engine.script_container(ScriptedContainer::exiting(0).waiting_at(gate));
        stream.start(key(1), attempt, command("busybox", &[])).await;
        soon("container", gate.arrival()).await;
    }
    assert_eq!(engine.containers(), 2);
    stream.say(ToAgent::ResultStored { key: key(1), attempt: AttemptNumber(1) }).await;
    soon("end of its container", async {
        while engine.containers() > 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    // Nothing more is said of it, and the other one goes on.
    gates[1].open();
    assert!(matches!(stream.result(key(1), 2).await, StepResult::Succeeded { .. }));
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn a_pull_is_no_part_of_the_time_and_its_failures_have_owners() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let reference = |text: &str| ImageRef::parse(text).expect("valid");
    let missing = || PullError::Missing { reference: reference("docker.io/library/gone:latest") };
    engine.script_pull(ScriptedPull::ending(Err(missing())));
    stream.start(key(1), 1, command("gone", &[])).await;
    let result = stream.result(key(1), 1).await;
    assert_eq!(result, failed(None, &missing().to_string()));

    // The embedded registry: asked once in a placement or when a step says so, with the attempt's credential, and its
    // absence is not the user's.
    let ours = format!("{REGISTRY}/team/tool:1");
    let pulling = || {
        command_with(&ours, &[], |command, _| {
            (command.pull, command.pull_retries, command.pull_retry_delay) = (true, 4, Duration::from_secs(7));
        })
    };
    for (attempt, order) in [(2, command(&ours, &[])), (3, command(&ours, &[])), (6, pulling())] {
        stream.start(key(1), attempt, order).await;
        assert!(matches!(stream.result(key(1), attempt).await, StepResult::Succeeded { .. }));
    }
    let away = PullError::Unreachable { reference: reference(&ours), message: "refused".into() };
    engine.script_pull(ScriptedPull::ending(Err(away)));
    stream.start(key(1), 7, pulling()).await;
    assert!(matches!(stream.result(key(1), 7).await, StepResult::Lost { .. }));
    let calls = engine.calls();
    let pulls: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            EngineCall::Pull(request) => {
                let PullRequest { reference, credential, platform, retries, retry_delay } = &**request;
                assert_eq!(*platform, Some(Platform::LINUX_AMD64));
                Some((reference.to_string(), credential.is_some(), *retries, retry_delay.as_secs()))
            }
            _ => None,
        })
        .collect();
    // Its tries are the engine's business.
    let again = (ours.clone(), true, 4, 7);
    let gone = ("docker.io/library/gone:latest".to_owned(), false, 0, 0);
    assert_eq!(pulls, [gone, (ours, true, 0, 0), again.clone(), again]);

    let (gate, before) = (Gate::new(), engine.calls().len());
    engine.script_pull(ScriptedPull::ending(Err(PullError::Cancelled)).waiting_at(&gate));
    let slow = StepOrder { timeout: Duration::from_millis(1), ..command("slow", &[]) };
    stream.start(key(1), 8, slow).await;
    soon("pull", gate.arrival()).await;
    assert!(engine.calls().len() > before);
    tokio::task::yield_now().await;
    assert!(stream.waiting().is_none(), "the pull is set-up");
    stream.stop(key(1)).await;
    assert_eq!(engine.placements(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn images_of_the_run_are_known_by_id_and_names_of_nobody_are_refused() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let by_id = |image: &Digest| {
        let image = image.clone();
        command_with("", &[], move |command, _| command.image = CommandImageOrder::Built(image))
    };
    // It is gone: nothing that the user could mend.
    stream.start(key(1), 1, by_id(&Digest::sha256(b"nothing"))).await;
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Lost { .. }));
    stream.start(key(1), 2, command("cooper.invalid/0123456789abcdef/ca1:1", &[])).await;
    let result = stream.result(key(1), 2).await;
    assert!(matches!(&result, StepResult::Failed { reason, .. } if reason.contains("no registry")), "{result:?}");
    let failure = ContainerFailure::CommandMissing { command: "mke".into() };
    engine.script_container(ScriptedContainer::failure(failure.clone()));
    stream.start(key(1), 3, command("busybox", &["mke"])).await;
    assert_eq!(stream.result(key(1), 3).await, failed(Some(127), &failure.to_string()));
    engine.script_container(ScriptedContainer::failure(EngineError::TimedOut {
        operation: "start a container",
        after: Duration::from_secs(1),
    }));
    stream
        .start(key(1), 4, StepOrder { tries: Tries { retries: 3, ..Tries::default() }, ..command("busybox", &[]) })
        .await;
    assert!(matches!(stream.result(key(1), 4).await, StepResult::Lost { .. }), "it spends no retries");
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn what_a_detached_container_says_goes_with_the_steps_that_run() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let network = || Network { name: "run".into(), driver: None, ipv6: false, external: false };
    engine.script_container(ScriptedContainer::exiting(0).saying(vec![says("listening\nready\n")]));
    let service = command_with("web", &[], |command, environment| {
        command.detach = true;
        command.network = Some("run".into());
        environment.networks = vec![network()];
    });
    stream.start(key(1), 1, named(service, "web")).await;
    let result = stream.result(key(1), 1).await;
    assert!(matches!(result, StepResult::Succeeded { output: StepOutput::Ran { .. } }), "{result:?}");
    let gate = Gate::new();
    engine.script_container(ScriptedContainer::exiting(0).waiting_at(&gate));
    let test = command_with("test", &[], |command, environment| {
        command.network = Some("run".into());
        environment.networks = vec![network()];
    });
    stream.start(key(1), 2, named(test, "test")).await;
    let whole = |text: String| text.contains("web | listening\nweb | ready\n");
    let (server, both) =
        (bench.server.clone(), || bench.server.log("ca1", 1).text() + &bench.server.log("ca1", 2).text());
    soon("output", server.text_until("ca1", 2, |_| whole(both()))).await;
    gate.open();
    stream.result(key(1), 2).await;
    let calls = engine.calls();
    let aliases: Vec<_> = calls
        .iter()
        .filter_map(|call| match call {
            EngineCall::RunContainer(_, request) => match &request.network {
                ContainerNetwork::Own(own) => Some(own.aliases.clone()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(aliases, [["web"], ["test"]]);
    stream.stop(key(1)).await;
    assert_eq!(engine.placements(), Vec::<String>::new());
    bench.shut_down().await;
}

#[tokio::test]
async fn an_environment_that_can_not_be_removed_is_removed_later() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    for run in [1, 2] {
        stream.place(key(run)).await;
        stream.start(key(run), 1, command("busybox", &[])).await;
        stream.result(key(run), 1).await;
    }
    engine.set_down(true);
    stream.stop(key(1)).await;
    engine.set_down(false);
    stream.stop(key(2)).await;
    soon("clean engine", async {
        while !engine.placements().is_empty() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let removed = engine
        .calls()
        .iter()
        .filter(|call| matches!(call, EngineCall::RemovePlacement(scope) if scope.key == key(1)))
        .count();
    assert!(removed >= 2, "{removed}");
    bench.shut_down().await;
}

#[tokio::test]
async fn what_the_operator_does_not_allow_does_not_begin() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, command_with("busybox", &[], |command, _| command.privileged = true)).await;
    let result = stream.result(key(1), 1).await;
    assert!(
        matches!(&result, StepResult::Failed { reason, .. } if reason.contains("--allow-privileged")),
        "{result:?}"
    );
    let external = |name: &str, external, driver: Option<&str>| {
        let network = Network { name: name.into(), driver: driver.map(str::to_owned), ipv6: false, external };
        command_with("busybox", &[], |command, environment| {
            command.network = Some(network.name.clone());
            environment.networks = vec![network];
        })
    };
    for (attempt, order, needs) in [
        (2, external("lan", true, None), "--allow-network lan"),
        (3, external("lan", false, Some("macvlan")), "driver `macvlan`"),
    ] {
        stream.start(key(1), attempt, order).await;
        let result = stream.result(key(1), attempt).await;
        assert!(matches!(&result, StepResult::Failed { reason, .. } if reason.contains(needs)), "{result:?}");
    }
    assert_eq!((runs(&engine), engine.placements()), (0, Vec::new()));
    stream.stop(key(1)).await;
    bench.shut_down().await;

    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start_with(engine.clone(), |settings| {
        settings.steps.privileged = true;
        settings.steps.networks = ["lan".to_owned()].into();
    });
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    stream.start(key(1), 1, external("lan", true, None)).await;
    assert!(matches!(stream.result(key(1), 1).await, StepResult::Succeeded { .. }));
    stream.stop(key(1)).await;
    bench.shut_down().await;
}
