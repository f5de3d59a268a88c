//! The container engine on this machine.

use std::time::Duration;

use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::engine::{ContainerEngine as _, EngineFeature};

use super::check::Check;
use super::machine;
use crate::fault::chain;

/// How long the engine may take to say where its data is: it counts what it has.
const MEASURE: Duration = Duration::from_secs(20);

pub(super) async fn look(socket: Option<&str>, is_needed: bool, checks: &mut Vec<Check>) {
    let connected = async { DockerEngine::connect(EngineSocket::choose(socket, None)?).await }.await;
    let engine = match connected {
        Ok(engine) => engine,
        Err(error) if !is_needed => {
            let seen = format!("{}; the server is on another machine, and its agents have engines", chain(&error));
            return checks.push(Check::skipped("engine", seen));
        }
        Err(error) => {
            let remedy = "start the engine (`systemctl start docker`, or `dockerd` as root), let this user use its socket \
                          (group docker), or name another one with --engine; builds wait until then";
            return checks.push(Check::failed("engine", chain(&error), remedy));
        }
    };
    let description = engine.describe();
    let seen = format!("{} {}, API {}", description.name, description.version, description.api_version);
    checks.push(match description.features.contains(&EngineFeature::BuildKit) {
        true => Check::ok("engine", seen),
        false => Check::failed(
            "engine",
            format!("{seen}, without BuildKit"),
            "install Docker Engine 20.10 or newer on Linux",
        ),
    });
    let newer = [
        (EngineFeature::Heredoc, "here-documents"),
        (EngineFeature::CopyLink, "COPY --link"),
        (EngineFeature::RunNetwork, "RUN --network"),
    ];
    let missing: Vec<&str> =
        newer.iter().filter(|(feature, _)| !description.features.contains(feature)).map(|(_, name)| *name).collect();
    checks.push(match missing.is_empty() {
        true => Check::ok("dockerfiles", "everything that Dockerfiles may hold"),
        false => Check::warning(
            "dockerfiles",
            format!("this engine builds no {}", missing.join(", ")),
            "where Dockerfiles need them, install Docker Engine 23 or newer",
        ),
    });
    let emulated: Vec<String> = description.emulated.iter().map(ToString::to_string).collect();
    let emulated = if emulated.is_empty() { "nothing".to_owned() } else { emulated.join(", ") };
    checks.push(Check::ok("platforms", format!("{}; emulated: {emulated}", description.native)));
    checks.push(match tokio::time::timeout(MEASURE, engine.storage()).await {
        Ok(Ok(storage)) if storage.root.is_dir() => machine::space("engine-disk", &storage.root),
        Ok(Ok(storage)) => {
            Check::skipped("engine-disk", format!("{} is not to be seen from here", storage.root.display()))
        }
        Ok(Err(error)) => Check::skipped("engine-disk", chain(&error)),
        Err(_) => Check::skipped("engine-disk", "the engine did not say in time where its data is"),
    });
}
