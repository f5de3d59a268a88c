//! Writing a build's cache to a registry, once the build is done.
//!
//! `POST /build` can't be asked for that, BuildKit's own interface can. The same build is solved once more, for no image:
//! all that it takes is in the engine's cache, so that only the export is left to do. It goes over the build's own session,
//! which has its context and its logins.

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};
use cooper_ports::engine::{BaseImages, BuildNetwork, BuildRequest, EngineError};

use crate::describe::control;
use crate::engine::limited;
use crate::session::random_id;
use crate::wire::{EngineWire, one_line};

const OPERATION: &str = "write a build's cache to a registry";
/// How long it may take; the step's own time counts too.
const LIMIT: Duration = Duration::from_secs(900);
/// An address that the engine alone knows: a second build with it would not be the same.
const GATEWAY: &str = "host-gateway";

/// Solves, for the cache.
pub(super) async fn export(wire: &EngineWire, request: SolveRequest) -> Result<(), EngineError> {
    let solve = async {
        let solved = control(wire, OPERATION).await?.solve(request).await;
        let refused =
            |status: tonic::Status| EngineError::Refused { operation: OPERATION, message: one_line(status.message()) };
        solved.map(drop).map_err(refused)
    };
    limited(OPERATION, LIMIT, solve).await
}

/// What is solved: the build as the engine makes it of the query of `POST /build`, without `nocache`, for it has just run.
/// Nothing if the cache is to be written nowhere, or no second build would be the same.
pub(super) fn request(build: &BuildRequest) -> Option<SolveRequest> {
    let to = build.cache_to.as_ref()?;
    let mut hosts = Vec::with_capacity(build.hosts.len());
    for host in &build.hosts {
        let (name, address) = host.split_once(':').filter(|(_, address)| *address != GATEWAY)?;
        hosts.push(format!("{name}={address}"));
    }
    let resolve = match build.bases {
        BaseImages::FromRegistries => "pull",
        BaseImages::OfTheEngineFirst => "default",
    };
    let mut attributes = vec![
        ("filename".to_owned(), build.dockerfile.clone()),
        ("cache-from".to_owned(), build.cache_from.join(",")),
        ("image-resolve-mode".to_owned(), resolve.to_owned()),
        ("add-hosts".to_owned(), hosts.join(",")),
    ];
    let mut add = |name: &str, value: &str| attributes.push((name.to_owned(), value.to_owned()));
    match build.network {
        BuildNetwork::Default => {}
        BuildNetwork::None => add("force-network-mode", "none"),
        BuildNetwork::Host => add("force-network-mode", "host"),
    }
    if let Some(target) = &build.target {
        add("target", target);
    }
    if let Some(platform) = &build.platform {
        add("platform", &platform.to_string());
    }
    for (name, value) in &build.arguments {
        add(&format!("build-arg:{name}"), value);
    }
    for (name, value) in &build.labels {
        add(&format!("label:{name}"), value);
    }
    // A manifest of an image's form: registries need not take any other.
    let to = [("ref", to.as_str()), ("mode", "max"), ("image-manifest", "true"), ("oci-mediatypes", "true")];
    let to = to.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let export = CacheOptionsEntry { r#type: "registry".to_owned(), attrs: to.into_iter().collect() };
    let entitlements = match build.network {
        BuildNetwork::Host => vec!["network.host".to_owned()],
        BuildNetwork::Default | BuildNetwork::None => Vec::new(),
    };
    Some(SolveRequest {
        r#ref: random_id(),
        frontend: "dockerfile.v0".to_owned(),
        // Of a name, the last one counts.
        frontend_attrs: attributes.into_iter().collect(),
        cache: Some(CacheOptions { exports: vec![export], ..CacheOptions::default() }),
        entitlements,
        ..SolveRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::request as build;
    use super::*;

    #[test]
    fn the_same_build_is_asked_for_with_a_cache_to_write() {
        let mut build = build();
        assert_eq!(request(&build), None, "nobody wants one");
        build.cache_to = Some("r.io/app:cache_quickrun_b".to_owned());
        build.cache_from = vec!["r.io/app:cache_quickrun_b".to_owned(), "r.io/app:v1".to_owned()];
        build.hosts = vec!["db:10.0.0.1".to_owned(), "six:fd00::1".to_owned()];
        build.network = BuildNetwork::Host;
        let solve = request(&build).expect("it can be asked for");
        let attributes: BTreeMap<&str, &str> =
            solve.frontend_attrs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = BTreeMap::from([
            ("add-hosts", "db=10.0.0.1,six=fd00::1"),
            ("build-arg:A", "x&y=\"1\"+%\n"),
            ("cache-from", "r.io/app:cache_quickrun_b,r.io/app:v1"),
            ("filename", "a b/Dockerfile&x=1"),
            ("force-network-mode", "host"),
            ("image-resolve-mode", "pull"),
            ("label:l", "v"),
            ("platform", "linux/amd64"),
            ("target", "été"),
        ]);
        assert_eq!(attributes, expected, "`no-cache` would run all of it again");
        assert_eq!((solve.frontend.as_str(), solve.exporter_deprecated.as_str()), ("dockerfile.v0", ""));
        assert_eq!((solve.exporters.len(), solve.entitlements), (0, vec!["network.host".to_owned()]));
        let cache = solve.cache.expect("a cache");
        let [export] = cache.exports.as_slice() else { panic!("{cache:?}") };
        let attributes: BTreeMap<&str, &str> =
            export.attrs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = BTreeMap::from([
            ("image-manifest", "true"),
            ("mode", "max"),
            ("oci-mediatypes", "true"),
            ("ref", "r.io/app:cache_quickrun_b"),
        ]);
        assert_eq!((export.r#type.as_str(), attributes), ("registry", expected));
    }

    #[test]
    fn a_build_that_depends_on_the_engines_address_is_not_repeated() {
        let mut build = build();
        build.cache_to = Some("r.io/app:c".to_owned());
        build.hosts = vec!["gate:host-gateway".to_owned()];
        assert_eq!(request(&build), None);
    }
}
