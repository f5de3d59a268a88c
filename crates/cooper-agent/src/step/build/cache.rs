//! Where a build's cache is kept beside the engine's own: in a registry where the engine can write one there, else in the
//! image itself.

use cooper_api::agent::CacheOrder;
use cooper_ports::engine::{BuildRequest, EngineDescription, EngineFeature};

/// The build argument by which BuildKit writes what it knows of its cache into the image.
const INLINE: &str = "BUILDKIT_INLINE_CACHE";

/// Puts a cache into the build's request. Gives the line that says which one it is, and why.
pub(super) fn apply(cache: CacheOrder, engine: &EngineDescription, request: &mut BuildRequest) -> String {
    let CacheOrder { reference, writable, images } = cache;
    let to = reference.to_string();
    // Both are read: another agent's engine may have kept the other one.
    request.cache_from = std::iter::once(to.clone()).chain(images.iter().map(ToString::to_string)).collect();
    let EngineDescription { name, version, features, .. } = engine;
    let why = match (features.contains(&EngineFeature::RegistryCache), writable) {
        (true, true) => {
            request.cache_to = Some(to.clone());
            return format!(
                "cache: kept in the registry as {to}, all stages of it; {name} {version} can write it there"
            );
        }
        (true, false) => format!("the run's token may not push to {}", reference.repository),
        (false, _) => {
            format!("{name} {version} writes none to a registry, which takes containerd's image store")
        }
    };
    request.arguments.push((INLINE.to_owned(), "1".to_owned()));
    let read = request.cache_from.join(", ");
    format!("cache: inline in the image, and read from {read}; {why}")
}
