//! What an engine is: read once, when it is connected.

mod narrow;

pub(crate) use narrow::{Machine, NarrowCode};

use std::collections::BTreeSet;

use bollard::models::{SystemInfo, SystemVersion};
use bollard_buildkit_proto::moby::buildkit::v1::ListWorkersRequest;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use cooper_ports::engine::{EngineDescription, EngineError, EngineFeature};
use cooper_types::Platform;
use http::HeaderValue;
use tonic::transport::Channel;

use crate::wire::EngineWire;

/// The first API with BuildKit sessions (Docker Engine 18.09).
const API_WITH_SESSIONS: (u32, u32) = (1, 39);
/// The first Docker Engine whose own Dockerfile frontend knows here-documents, `--link` and `RUN --network`.
const ENGINE_WITH_DOCKERFILE_1_4: u32 = 23;

/// Reads the engine's answer to `GET /version`.
pub(crate) fn describe(version: &SystemVersion, api_version: &str) -> Result<EngineDescription, EngineError> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let product = version.platform.as_ref().map(|platform| platform.name.clone()).unwrap_or_default();
    let components = version.components.iter().flatten();
    let is_podman = components.clone().any(|component| component.name.contains("Podman"));
    let name = if is_podman { "Podman" } else { "Docker Engine" }.to_owned();
    let engine_version = text(&version.version);
    let (os, arch) = (text(&version.os), text(&version.arch));
    let native = Platform::parse(&format!("{os}/{arch}")).map_err(|_| EngineError::Unsupported {
        engine: format!("{name} {engine_version} ({product})"),
        missing: format!("a platform that is known here: it runs on {os}/{arch}"),
    })?;
    let mut features = BTreeSet::new();
    if !is_podman && native.os() == "linux" && numbers(api_version) >= API_WITH_SESSIONS {
        features.insert(EngineFeature::BuildKit);
        if numbers(&engine_version).0 >= ENGINE_WITH_DOCKERFILE_1_4 {
            features.extend([EngineFeature::Heredoc, EngineFeature::CopyLink, EngineFeature::RunNetwork]);
        }
    }
    Ok(EngineDescription {
        name,
        version: engine_version,
        api_version: api_version.to_owned(),
        native,
        emulated: BTreeSet::new(),
        features,
    })
}

/// Whether the engine keeps its images in containerd's store, by its answer to `GET /info`. Only then does its builder have
/// an exporter of caches to registries.
pub(crate) fn has_containerd_store(info: &SystemInfo) -> bool {
    let is_containerds = |pair: &Vec<String>| match pair.as_slice() {
        [name, value] => name == "driver-type" && value.starts_with("io.containerd.snapshotter."),
        _ => false,
    };
    info.driver_status.iter().flatten().any(is_containerds)
}

/// `20.10.24+dfsg1` → (20, 10); what is no number is 0, so that it has no features.
pub(crate) fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The platforms that the engine's BuildKit says it can run, its own included.
pub(crate) async fn platforms(wire: &EngineWire) -> Result<BTreeSet<Platform>, EngineError> {
    const OPERATION: &str = "list the platforms of its builder";
    let request = ListWorkersRequest { filter: Vec::new() };
    let answer = control(wire, OPERATION).await?.list_workers(request).await;
    let answer = answer.map_err(|status| EngineError::Broken { operation: OPERATION, source: status.into() })?;
    let workers = answer.into_inner().record;
    let names = workers.iter().flat_map(|worker| &worker.platforms).map(|platform| {
        let variant = if platform.variant.is_empty() { String::new() } else { format!("/{}", platform.variant) };
        format!("{}/{}{variant}", platform.os, platform.architecture)
    });
    Ok(known(names))
}

/// Those of the names that are known here: riscv64, s390x and variants of amd64 are not offered.
fn known(names: impl Iterator<Item = String>) -> BTreeSet<Platform> {
    let mut platforms: BTreeSet<Platform> = names.filter_map(|name| Platform::parse(&name).ok()).collect();
    // One platform by two names, and an older one that runs wherever it does: engines list two of the three, each its own.
    let arm = ["linux/arm", "linux/arm/v7", "linux/arm/v6"].map(Platform::parse);
    if arm[..2].iter().flatten().any(|name| platforms.contains(name)) {
        platforms.extend(arm.into_iter().flatten());
    }
    platforms
}

/// A client of BuildKit's own interface, on a connection that ends with it.
pub(crate) async fn control(wire: &EngineWire, operation: &'static str) -> Result<ControlClient<Channel>, EngineError> {
    let connection = wire
        .upgrade(operation, "/grpc", HeaderValue::from_static("h2c"), Vec::new())
        .await
        .map_err(|error| error.into_engine_error(operation))?;
    let mut connection = Some(connection);
    // The address is never looked up: the connector hands out the connection that is there, once.
    let channel = tonic::transport::Endpoint::from_static("http://engine")
        .connect_with_connector(tower::service_fn(move |_: http::Uri| {
            let connection = connection.take().ok_or_else(|| std::io::Error::other("the connection is used up"));
            std::future::ready(connection)
        }))
        .await
        .map_err(|error| EngineError::Broken { operation, source: error.into() })?;
    Ok(ControlClient::new(channel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::SystemVersionComponents;

    fn version(version: &str, os: &str, component: &str) -> SystemVersion {
        let component = SystemVersionComponents { name: component.into(), ..Default::default() };
        SystemVersion {
            version: Some(version.into()),
            os: Some(os.into()),
            arch: Some("amd64".into()),
            components: Some(vec![component]),
            ..Default::default()
        }
    }

    #[test]
    fn features_follow_the_versions() {
        let check = |engine: SystemVersion, api: &str, expect: usize| {
            let description = describe(&engine, api).expect("a known platform");
            assert_eq!(description.features.len(), expect, "{description:?}");
        };
        check(version("20.10.24+dfsg1", "linux", "Engine"), "1.41", 1);
        check(version("23.0.0", "linux", "Engine"), "1.42", 4);
        check(version("26.1.5", "linux", "Engine"), "1.45", 4);
        check(version("18.06.0", "linux", "Engine"), "1.38", 0);
        check(version("4.3.1", "linux", "Podman Engine"), "1.41", 0);
        check(version("27.0.0", "windows", "Engine"), "1.46", 0);
        check(version("dev", "linux", "Engine"), "1.41", 1);
        assert!(describe(&version("27.0.0", "plan9", "Engine"), "1.46").is_err());
    }

    #[test]
    fn platforms_are_offered_by_all_their_names() {
        let check = |names: &[&str], expect: &[&str]| {
            let platforms = known(names.iter().map(|name| (*name).to_owned()));
            assert_eq!(platforms.iter().map(Platform::to_string).collect::<Vec<_>>(), expect, "{names:?}");
        };
        check(&["linux/amd64", "linux/amd64/v2", "linux/riscv64", "linux/386"], &["linux/386", "linux/amd64"]);
        // The emulation of arm: as 20.10 lists it, as later ones do, and as they do with containerd's store.
        for names in [["linux/arm/v7", "linux/arm/v6"], ["linux/arm", "linux/arm/v6"], ["linux/arm", "linux/amd64"]] {
            let amd64 = names.iter().filter(|name| name.ends_with("amd64"));
            check(&names, &amd64.copied().chain(["linux/arm", "linux/arm/v6", "linux/arm/v7"]).collect::<Vec<_>>());
        }
        check(&["linux/arm/v6"], &["linux/arm/v6"]);
    }

    #[test]
    fn containerds_store_is_known_by_its_driver() {
        let check = |status: &[[&str; 2]], expect: bool| {
            let status = status.iter().map(|pair| pair.map(str::to_owned).to_vec()).collect();
            let info = SystemInfo { driver_status: Some(status), ..SystemInfo::default() };
            assert_eq!(has_containerd_store(&info), expect, "{info:?}");
        };
        check(&[["driver-type", "io.containerd.snapshotter.v1"]], true);
        check(&[["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], false);
        check(&[], false);
        assert!(!has_containerd_store(&SystemInfo::default()));
    }
}
