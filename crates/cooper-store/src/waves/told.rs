//! What others are told of a wave that is over, in the words of the REST API.

use cooper_engine::wave::{Member, MemberState, WavePhase};
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, WaveId};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{READ, find, members, wave_number};
use crate::sql_error::{Stored, UnknownValue};

/// How many tasks that were not rebuilt are named: a wave has thousands.
const NAMED: usize = 100;

/// What is told of a wave.
pub(crate) async fn told(tx: &mut SqliteConnection, registry: RegistryId, id: WaveId) -> Result<Value, StoreError> {
    let number = wave_number(id);
    let stored = find(tx, registry, number).await?;
    let wave = stored.ok_or_else(|| UnknownValue::new("wave", &id.to_string())).stored(READ)?.wave;
    let counts = members::counts(tx, registry, number).await?;
    let counts: serde_json::Map<String, Value> = counts.into_iter().map(|(state, n)| (state, json!(n))).collect();
    let failed: Vec<Value> = wave.members.iter().filter_map(not_rebuilt).take(NAMED).collect();
    let status = match wave.phase {
        WavePhase::Canceled => "Canceled",
        WavePhase::Running | WavePhase::Paused if failed.is_empty() => "Succeeded",
        WavePhase::Running | WavePhase::Paused => "Failed",
    };
    let changes: Vec<Value> = wave
        .changes
        .iter()
        .map(|moved| json!({ "image": moved.image.to_string(), "digest": moved.to, "previousDigest": moved.from }))
        .collect();
    Ok(json!({
        "waveId": id,
        "status": status,
        "openTime": wave.opened.to_string(),
        "finishTime": wave.finished.map(|at| at.to_string()),
        "changes": changes,
        "counts": counts,
        "failed": failed,
    }))
}

/// A member that stands on an old image still, and why.
fn not_rebuilt(member: &Member) -> Option<Value> {
    let (MemberState::Failed { reason, .. } | MemberState::Skipped { reason }) = &member.state else { return None };
    Some(json!({ "task": member.task, "state": member.state.as_str(), "runId": member.state.run(), "reason": reason }))
}
