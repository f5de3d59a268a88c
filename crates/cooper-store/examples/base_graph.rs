//! Writes down what many tasks of a stopped server's data stand on, as if each had been built once: three levels above
//! `base:1`. `cargo xtask bench triggers` measures with it.
//!
//! The tasks are there already, by the names `waved-00000` and so on. Of each hundred the first stands on `base:1`, the next nine
//! on one of those, and all others on one of these.

use std::error::Error;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

/// The digest that all of them were built on.
const OLD: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

const WRITE: &str = "
    WITH numbered AS (
        SELECT registry_id, task, CAST(substr(task, 7) AS INTEGER) AS n FROM tasks WHERE task LIKE 'waved-%'),
    leveled AS (
        SELECT *, CASE WHEN n % 100 = 0 THEN 'base' WHEN n % 100 < 10 THEN printf('waved-%05d', n - n % 100)
                  ELSE printf('waved-%05d', n - n % 100 + 1 + n % 9) END AS stands_on FROM numbered)
    INSERT INTO {what} ";

fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args().nth(1).ok_or("name the data folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(write(Path::new(&data)))
}

async fn write(data: &Path) -> Result<(), Box<dyn Error>> {
    let mut database = SqliteConnectOptions::new().filename(data.join("cooper.db")).connect().await?;
    let graph = "task_graph (registry_id, task, run_number) SELECT registry_id, task, 1 FROM leveled".to_owned();
    let edges = format!(
        "base_edges (registry_id, task, kind, registry, repository, tag, digest)
         SELECT registry_id, task, 'runtime', '', stands_on, '1', '{OLD}' FROM leveled"
    );
    let outputs =
        "task_outputs (registry_id, task, repository, tag) SELECT registry_id, task, task, '1' FROM leveled".to_owned();
    for what in [graph, edges, outputs] {
        run(&mut database, &WRITE.replace("{what} ", &what)).await?;
    }
    Ok(())
}

async fn run(database: &mut SqliteConnection, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(database).await.map(drop)
}
