//! Why placements wait, written for many runs at once.
//!
//! A burst of runs is told of by the hundred. One change for each would take the writer as long as accepting them.

use std::collections::BTreeMap;

use cooper_engine::run::{Policy, Run, RunEvent};
use cooper_ports::runs::Explanation;
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, RunId, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::{record, unfinished};
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

const EXPLAIN: &str = "write why runs wait";

/// The new states, by the runs' numbers. One writer: no generation has changed since they were read. The list of numbers
/// leads to the rows: joined with the states, SQLite would go through all runs that there are.
pub(super) const SAVE: &str = r#"UPDATE runs SET state = ?2 ->> ('$."' || number || '"'), generation = generation + 1, updated = ?3
     WHERE registry_id = ?1 AND number IN (SELECT CAST(key AS INTEGER) FROM json_each(?2))"#;

pub(super) async fn explain(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    reasons: Vec<Explanation>,
    policy: &Policy,
) -> Result<Vec<(u64, Run)>, StoreError> {
    let mut of_run: BTreeMap<RunId, Vec<RunEvent>> = BTreeMap::new();
    for Explanation { run, placement, reason } in reasons {
        of_run.entry(run).or_default().push(RunEvent::Explained { placement, reason });
    }
    let numbers: Vec<i64> = of_run.keys().map(|run| run_number(*run)).collect();
    let rows = sqlx::query(unfinished::STATES)
        .bind(registry.0)
        .bind(serde_json::to_string(&numbers).stored(EXPLAIN)?)
        .fetch_all(&mut *tx)
        .await
        .during(EXPLAIN)?;
    let (mut explained, mut states) = (Vec::new(), BTreeMap::new());
    for row in &rows {
        let number: i64 = row.try_get("number").during(EXPLAIN)?;
        let generation: i64 = row.try_get("generation").during(EXPLAIN)?;
        // The scheduler has said what it thinks of one that can't be read.
        let Ok(mut run) = serde_json::from_str::<Run>(row.try_get("state").during(EXPLAIN)?) else { continue };
        let events = of_run.remove(&record::run_id(number)?).unwrap_or_default();
        let told = events.into_iter().filter(|event| run.apply(event.clone(), now, policy).is_ok()).count();
        if told > 0 {
            states.insert(number.to_string(), serde_json::to_string(&run).stored(EXPLAIN)?);
            explained.push((u64::try_from(generation + 1).stored(EXPLAIN)?, run));
        }
    }
    if !states.is_empty() {
        sqlx::query(SAVE)
            .bind(registry.0)
            .bind(serde_json::to_string(&states).stored(EXPLAIN)?)
            .bind(now.as_micros())
            .execute(tx)
            .await
            .during(EXPLAIN)?;
    }
    Ok(explained)
}
