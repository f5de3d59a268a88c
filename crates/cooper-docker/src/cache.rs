//! The engine's build cache: how large it is, and making it smaller.
//!
//! Sizes come from BuildKit itself. `GET /system/df` would walk all volumes and containers of the engine on the way
//! (before API 1.42 it cannot be told not to), which takes minutes on a large engine.

use std::time::Duration;

use bollard::Docker;
use bollard_buildkit_proto::moby::buildkit::v1::DiskUsageRequest;
use cooper_ports::engine::{EngineError, EngineStorage};
use http_body_util::{BodyExt, Limited};

use crate::describe::{control, numbers};
use crate::engine::{engine_error, limited};
use crate::socket::EngineSocket;
use crate::wire::EngineWire;

const MEASURE: &str = "measure its build cache";
const SHRINK: &str = "shrink its build cache";
/// How long measuring may take: layers that were never measured are walked.
const MEASURE_LIMIT: Duration = Duration::from_secs(60);
/// How long shrinking may take: it deletes files, one by one. What is done by then stays done.
const SHRINK_LIMIT: Duration = Duration::from_secs(600);
/// The answer names every record that was removed, in 30 bytes each.
const MAX_ANSWER: usize = 16 << 20;
/// From this version of the API on, what a cache may keep has another name.
const API_WITH_RESERVED_SPACE: (u32, u32) = (1, 48);

/// Where the engine keeps its data, and how much of it is build cache.
pub(crate) async fn storage(
    docker: &Docker,
    socket: &EngineSocket,
    wire: &EngineWire,
) -> Result<EngineStorage, EngineError> {
    let measure = async {
        let info = docker.info().await.map_err(|error| engine_error(socket, MEASURE, error))?;
        let answer = control(wire, MEASURE).await?.disk_usage(DiskUsageRequest::default()).await;
        let answer = answer.map_err(|status| EngineError::Broken { operation: MEASURE, source: status.into() })?;
        // What an image holds as well is not freed with the cache; BuildKit's own accounts leave it out, too.
        let records = answer.into_inner().record.into_iter().filter(|record| !record.shared);
        let cache_bytes = records.map(|record| u64::try_from(record.size).unwrap_or(0)).fold(0, u64::saturating_add);
        Ok(EngineStorage { root: info.docker_root_dir.unwrap_or_default().into(), cache_bytes })
    };
    limited(MEASURE, MEASURE_LIMIT, measure).await
}

/// Removes the least recently used parts of the cache until no more than this is left. Returns the bytes freed.
pub(crate) async fn shrink(wire: &EngineWire, api_version: &str, keep_bytes: u64) -> Result<u64, EngineError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "SpaceReclaimed")]
        freed: u64,
    }
    let path = query(api_version, keep_bytes);
    let prune = async {
        let answer = wire.post(SHRINK, &path, Vec::new()).await.map_err(|error| error.into_engine_error(SHRINK))?;
        let (body, _connection) = answer.into_parts();
        let broken = |source| EngineError::Broken { operation: SHRINK, source };
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(broken)?.to_bytes();
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| broken(error.into()))?;
        Ok(answer.freed)
    };
    limited(SHRINK, SHRINK_LIMIT, prune).await
}

/// `all`, because otherwise only what has no name in the cache goes, and nearly everything has one. A limit of 0 bytes
/// means no limit to the engine.
fn query(api_version: &str, keep_bytes: u64) -> String {
    let name = if numbers(api_version) >= API_WITH_RESERVED_SPACE { "reserved-space" } else { "keep-storage" };
    match keep_bytes {
        0 => "/build/prune?all=1".to_owned(),
        bytes => format!("/build/prune?all=1&{name}={}", bytes.min(i64::MAX.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stay_is_named_as_the_engine_knows_it() {
        assert_eq!(query("1.41", 1 << 30), "/build/prune?all=1&keep-storage=1073741824");
        assert_eq!(query("1.47", 5), "/build/prune?all=1&keep-storage=5");
        assert_eq!(query("1.48", 5), "/build/prune?all=1&reserved-space=5");
        assert_eq!(query("1.48", 0), "/build/prune?all=1");
        assert_eq!(query("1.41", u64::MAX), format!("/build/prune?all=1&keep-storage={}", i64::MAX));
    }
}
