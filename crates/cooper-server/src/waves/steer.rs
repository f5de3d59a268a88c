//! What people do with waves: pause, resume, cancel, and try again what came to nothing.

use std::sync::Arc;

use cooper_api::problem::ProblemCode;
use cooper_engine::run::RunEvent;
use cooper_engine::wave::{WaveEvent, WaveRefusal};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::ApplyError;
use cooper_ports::waves::{SaveWave, StoredWave};
use cooper_types::{PrincipalName, WaveId};

use crate::core::Core;
use crate::problem::{ApiError, ApiResult};

/// How often a change that somebody else was faster with is tried again.
const TRIES: u32 = 20;

pub(crate) fn unknown(id: WaveId) -> ApiError {
    ApiError::not_found(format!("wave {id}"))
        .with_hint("`cooper wave list` shows the waves; they are kept for 30 days after their ends")
}

/// Pauses, resumes or cancels a wave. The runs of one that is cancelled are cancelled as well.
pub(crate) async fn steer(core: &Arc<Core>, id: WaveId, event: WaveEvent, by: &PrincipalName) -> ApiResult<StoredWave> {
    for _ in 0..TRIES {
        let mut stored = core.waves.find_wave(id).await?.ok_or_else(|| unknown(id))?;
        let changed = match stored.wave.apply(event.clone(), core.clock.now()) {
            Ok(changed) => changed,
            Err(refusal @ (WaveRefusal::Over | WaveRefusal::Canceled)) => {
                return Err(ApiError::new(ProblemCode::Conflict, format!("wave {id} can't be changed: {refusal}")));
            }
            Err(WaveRefusal::Member) => return Err(unknown(id)),
        };
        if !core.waves.save_wave(SaveWave::of(&stored, &changed)).await? {
            continue;
        }
        if let WaveEvent::Cancel { .. } = event {
            failpoint::pass(Failpoint::WaveCanceled);
            cancel_runs(core, id).await?;
        }
        tracing::info!(wave = %id, ?event, by = %by, "wave steered");
        core.waves_wake.notify_one();
        return core.waves.find_wave(id).await?.ok_or_else(|| unknown(id));
    }
    Err(ApiError::new(ProblemCode::Unavailable, format!("wave {id} changes too often just now; try again")))
}

/// Cancels the runs of a cancelled wave. It does no harm to say so again.
pub(super) async fn cancel_runs(core: &Core, id: WaveId) -> Result<(), ApplyError> {
    let Some(stored) = core.waves.find_wave(id).await? else { return Ok(()) };
    let Some(by) = stored.wave.canceled_by else { return Ok(()) };
    let running = stored.wave.members.iter().filter(|member| !member.state.is_over());
    for run in running.filter_map(|member| member.state.run()) {
        match core.apply(run, RunEvent::CancelRequested { by: by.clone() }).await {
            Ok(_) | Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens a wave of what failed, was left out or was cancelled in another one.
pub(crate) async fn retry(core: &Arc<Core>, id: WaveId, by: &PrincipalName) -> ApiResult<StoredWave> {
    if core.waves.find_wave(id).await?.is_none() {
        return Err(unknown(id));
    }
    let Some(new) = core.waves.retry_wave(id).await? else {
        let detail =
            format!("wave {id} has nothing to be tried again: no member of it failed, was skipped or was cancelled");
        return Err(ApiError::new(ProblemCode::Conflict, detail));
    };
    tracing::info!(wave = %new, of = %id, by = %by, "wave tried again");
    core.waves_wake.notify_one();
    core.waves.find_wave(new).await?.ok_or_else(|| unknown(new))
}
