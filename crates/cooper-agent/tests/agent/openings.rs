//! Environments that the engine does not make: whose fault that is, and what the user is told.

use std::sync::Arc;

use cooper_engine::message::StepResult;
use cooper_ports::engine::scripted::ScriptedEngine;
use cooper_ports::engine::{EngineError, PlacementError};
use cooper_types::{NetworkName, VolumeName};

use crate::bench::{Bench, command, key};

fn network() -> NetworkName {
    NetworkName::parse("corp").expect("valid")
}

#[tokio::test]
async fn what_the_user_can_mend_is_a_failure_that_says_how() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    let volume = VolumeName::parse("secret-keys").expect("valid");
    let cases = [
        (
            PlacementError::NetworkMissing { name: network() },
            ["network `corp` is not in the agent's container engine", "leave `skipCreation` out"],
        ),
        (
            PlacementError::Network { name: network(), message: "plugin \"x\" not found".into() },
            ["network `corp` can't be made", "plugin \"x\" not found"],
        ),
        (
            PlacementError::SecretVolumes { engine: "Docker Engine on windows".into() },
            ["Docker Engine on windows has no volumes in memory for the task's `volumes`", "secrets over by `env`"],
        ),
        (
            PlacementError::SecretName { volume, file: "a/b".into() },
            ["file `a/b` of volume `secret-keys`", "a single name"],
        ),
    ];
    for (attempt, (error, told)) in (1..).zip(cases) {
        engine.script_opening(error);
        stream.start(key(1), attempt, command("busybox", &[])).await;
        let StepResult::Failed { reason, .. } = stream.result(key(1), attempt).await else { panic!("{told:?}") };
        assert!(told.iter().all(|part| reason.contains(part)), "{reason}");
        let log = bench.server.log("ca1", attempt).text();
        assert!(log.contains(&format!("error: {reason}")), "{log}");
    }
    stream.stop(key(1)).await;
    bench.shut_down().await;
}

#[tokio::test]
async fn what_the_machine_lacks_is_a_loss_and_may_be_there_the_next_time() {
    let engine = Arc::new(ScriptedEngine::new());
    let mut bench = Bench::start(engine.clone());
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    engine.script_opening(EngineError::Unsupported {
        engine: "Docker Engine 20.10.24".into(),
        missing: "room for another network (all pools are full)".into(),
    });
    stream.start(key(1), 1, command("busybox", &[])).await;
    let StepResult::Lost { reason } = stream.result(key(1), 1).await else { panic!("it is nobody's fault") };
    for told in ["environment of the steps can't be made", "Docker Engine 20.10.24", "room for another network"] {
        assert!(reason.contains(told), "{reason}");
    }
    stream.start(key(1), 2, command("busybox", &[])).await;
    assert!(matches!(stream.result(key(1), 2).await, StepResult::Succeeded { .. }));
    stream.stop(key(1)).await;
    bench.shut_down().await;
}
