//! The unfinished runs, for a reader who knows most of them already.

use std::collections::BTreeMap;

use cooper_engine::run::Run;
use cooper_ports::runs::UnfinishedChanges;
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, RunId};
use sqlx::{Row, SqliteConnection};

use super::record;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

/// Number and generation of every unfinished run, from the index alone and as one text: a row for each run would take
/// many times as long on its way here.
pub(super) const GENERATIONS: &str = "SELECT group_concat(number || ' ' || generation, ' ')
     FROM runs INDEXED BY runs_unfinished WHERE registry_id = ?1 AND finished IS NULL";

/// Some runs, states and all.
pub(super) const STATES: &str = "SELECT number, generation, state FROM runs
     WHERE registry_id = ?1 AND number IN (SELECT value FROM json_each(?2)) ORDER BY number";

/// How many runs are read at once: bounds what is in memory as text.
const BATCH: usize = 256;

const LIST: &str = "list unfinished runs";

pub(super) async fn changes(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    known: &BTreeMap<RunId, u64>,
) -> Result<UnfinishedChanges, StoreError> {
    let text: Option<String> =
        sqlx::query_scalar(GENERATIONS).bind(registry.0).fetch_one(&mut *tx).await.during(LIST)?;
    let generations = read_generations(text.as_deref().unwrap_or_default())?;
    let mut found = UnfinishedChanges {
        gone: known.keys().filter(|run| !generations.contains_key(*run)).copied().collect(),
        ..UnfinishedChanges::default()
    };
    let changed = generations.iter().filter(|(run, generation)| known.get(*run) != Some(*generation));
    let changed: Vec<i64> = changed.map(|(run, _)| run_number(*run)).collect();
    for batch in changed.chunks(BATCH) {
        let numbers = serde_json::to_string(batch).stored(LIST)?;
        let rows = sqlx::query(STATES).bind(registry.0).bind(&numbers).fetch_all(&mut *tx).await.during(LIST)?;
        for row in &rows {
            let id = record::run_id(row.try_get("number").during(LIST)?)?;
            let generation = u64::try_from(row.try_get::<i64, _>("generation").during(LIST)?).stored(LIST)?;
            match serde_json::from_str::<Run>(row.try_get("state").during(LIST)?).stored(LIST) {
                Ok(run) => found.changed.push((generation, run)),
                Err(error) => found.unreadable.push((id, generation, error)),
            }
        }
        // A long queue is read once, at the start; others run in between.
        tokio::task::yield_now().await;
    }
    Ok(found)
}

fn read_generations(text: &str) -> Result<BTreeMap<RunId, u64>, StoreError> {
    let mut numbers = text.split_ascii_whitespace();
    let mut generations = BTreeMap::new();
    while let (Some(number), Some(generation)) = (numbers.next(), numbers.next()) {
        let unknown = || UnknownValue::new("generation of a run", generation);
        let number = number.parse().map_err(|_| unknown()).stored(LIST)?;
        generations.insert(record::run_id(number)?, generation.parse().map_err(|_| unknown()).stored(LIST)?);
    }
    Ok(generations)
}
