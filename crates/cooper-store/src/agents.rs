//! Pools and agents in SQLite.

use async_trait::async_trait;
use cooper_ports::agents::{
    AgentDescription, AgentRecord, AgentStore, ChangeAgentError, CreatePoolError, DeletePoolError, DiskSpace, Pool,
    PoolRecord, RegisterAgent, RegisterAgentError,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{AgentName, Platform, PoolName, PrincipalName, RegistryId, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::{During, Stored};

const LIST_POOLS: &str = "SELECT p.name, p.description, p.untrusted, p.created,
       (SELECT count(*) FROM agents a WHERE a.registry_id = p.registry_id AND a.pool = p.name) AS agents,
       (SELECT count(*) FROM runs r WHERE r.registry_id = p.registry_id AND r.pool = p.name AND r.finished IS NULL) AS runs
     FROM pools p WHERE p.registry_id = ?1 AND (?2 IS NULL OR p.name = ?2) ORDER BY p.name";

/// The unfinished runs of a pool that are strangers' where the others aren't, or the other way round.
const OTHER_KIND: &str = "SELECT count(*) FROM runs WHERE registry_id = ?1 AND pool = ?2 AND finished IS NULL
       AND coalesce(json_extract(state, '$.origin.untrusted'), 0) <> ?3";

const COLUMNS: &str = "name, principal, token, pool, description, draining, first_seen, last_seen,
       (SELECT count(*) FROM run_agents r WHERE r.registry_id = agents.registry_id AND r.agent = agents.name) AS runs";

#[async_trait]
impl AgentStore for Store {
    async fn create_pool(&self, name: PoolName, description: String, untrusted: bool) -> Result<Pool, CreatePoolError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| {
            let runs: u32 = sqlx::query_scalar(OTHER_KIND)
                .bind(registry.0)
                .bind(name.as_str())
                .bind(untrusted)
                .fetch_one(&mut *tx)
                .await
                .during("read runs of pool")?;
            if runs > 0 && pool_mark(&mut tx, registry, &name).await?.is_none() {
                return Err(CreatePoolError::RunsOfOtherKind { pool: name, runs });
            }
            let inserted = sqlx::query(
                "INSERT INTO pools (registry_id, name, description, created, untrusted) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )
            .bind(registry.0)
            .bind(name.as_str())
            .bind(&description)
            .bind(now.as_micros())
            .bind(untrusted)
            .execute(&mut *tx)
            .await
            .during("write pool")?;
            match inserted.rows_affected() {
                0 => Err(CreatePoolError::Exists(name)),
                _ => Ok(Pool { name, description, untrusted, created: now }),
            }
        })
        .await
    }

    async fn list_pools(&self) -> Result<Vec<PoolRecord>, StoreError> {
        let rows = sqlx::query(LIST_POOLS).bind(self.registry_id().0).bind(None::<&str>);
        let rows = rows.fetch_all(self.readers()).await.during("list pools")?;
        rows.iter().map(pool_record).collect()
    }

    async fn delete_pool(&self, name: PoolName, force: bool) -> Result<PoolRecord, DeletePoolError> {
        const DELETE: &str = "delete pool";
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            if name == PoolName::default_pool() {
                return Err(DeletePoolError::Default(name));
            }
            let row = sqlx::query(LIST_POOLS).bind(registry.0).bind(name.as_str());
            let Some(row) = row.fetch_optional(&mut *tx).await.during(DELETE)? else {
                return Err(DeletePoolError::Unknown(name));
            };
            let record = pool_record(&row)?;
            let PoolRecord { agents, unfinished_runs, .. } = record;
            if !force && (agents > 0 || unfinished_runs > 0) {
                return Err(DeletePoolError::InUse { pool: name, agents, unfinished_runs });
            }
            for statement in [
                "DELETE FROM agents WHERE registry_id = ?1 AND pool = ?2",
                "DELETE FROM pools WHERE registry_id = ?1 AND name = ?2",
            ] {
                sqlx::query(statement).bind(registry.0).bind(name.as_str()).execute(&mut *tx).await.during(DELETE)?;
            }
            Ok(record)
        })
        .await
    }

    async fn register_agent(&self, agent: RegisterAgent) -> Result<AgentRecord, RegisterAgentError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| register(&mut tx, registry, agent, clock.now()).await).await
    }

    async fn agents_seen(&self, agents: Vec<AgentName>) -> Result<(), StoreError> {
        const SEEN: &str = "write when agents were seen";
        if agents.is_empty() {
            return Ok(());
        }
        let (registry, now) = (self.registry_id(), self.clock().now());
        let names = serde_json::to_string(&agents).stored(SEEN)?;
        self.write(async move |mut tx| {
            sqlx::query(
                "UPDATE agents SET last_seen = max(last_seen, ?3)
                 WHERE registry_id = ?1 AND name IN (SELECT value FROM json_each(?2))",
            )
            .bind(registry.0)
            .bind(&names)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(SEEN)
        })
        .await
    }

    async fn list_agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM agents WHERE registry_id = ?1 ORDER BY name"));
        let rows = sqlx::query(sql).bind(self.registry_id().0).fetch_all(self.readers()).await.during("list agents")?;
        rows.iter().map(agent_record).collect()
    }

    async fn find_agent(&self, name: &AgentName) -> Result<Option<AgentRecord>, StoreError> {
        let mut connection = self.readers().acquire().await.during("find agent")?;
        find(&mut connection, self.registry_id(), name).await
    }

    async fn drain_agent(&self, name: AgentName, draining: bool) -> Result<AgentRecord, ChangeAgentError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            sqlx::query("UPDATE agents SET draining = ?3 WHERE registry_id = ?1 AND name = ?2")
                .bind(registry.0)
                .bind(name.as_str())
                .bind(draining)
                .execute(&mut *tx)
                .await
                .during("drain agent")?;
            find(&mut tx, registry, &name).await?.ok_or(ChangeAgentError::Unknown(name))
        })
        .await
    }

    async fn remove_agent(&self, name: AgentName) -> Result<AgentRecord, ChangeAgentError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            let record =
                find(&mut tx, registry, &name).await?.ok_or_else(|| ChangeAgentError::Unknown(name.clone()))?;
            sqlx::query("DELETE FROM agents WHERE registry_id = ?1 AND name = ?2")
                .bind(registry.0)
                .bind(name.as_str())
                .execute(&mut *tx)
                .await
                .during("remove agent")?;
            Ok(record)
        })
        .await
    }
}

/// Whether a pool is marked for untrusted work; nothing if there is none of this name.
pub(crate) async fn pool_mark(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    name: &PoolName,
) -> Result<Option<bool>, StoreError> {
    sqlx::query_scalar("SELECT untrusted FROM pools WHERE registry_id = ?1 AND name = ?2")
        .bind(registry.0)
        .bind(name.as_str())
        .fetch_optional(tx)
        .await
        .during("find pool")
}

async fn register(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    agent: RegisterAgent,
    now: Timestamp,
) -> Result<AgentRecord, RegisterAgentError> {
    const REGISTER: &str = "register agent";
    let RegisterAgent { name, principal, token, description } = agent;
    if pool_mark(tx, registry, &description.pool).await?.is_none() {
        return Err(RegisterAgentError::UnknownPool(description.pool));
    }
    let earlier = find(tx, registry, &name).await?;
    if earlier.as_ref().is_some_and(|earlier| earlier.principal != principal) {
        return Err(RegisterAgentError::NameTaken(name));
    }
    let earlier = earlier.map(|earlier| (earlier.draining, earlier.runs, earlier.first_seen));
    let (draining, runs, first_seen) = earlier.unwrap_or((false, 0, now));
    let text = serde_json::to_string(&StoredDescription::of(&description)).stored(REGISTER)?;
    sqlx::query(
        "INSERT INTO agents (registry_id, name, principal, token, pool, description, first_seen, last_seen)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
         ON CONFLICT DO UPDATE SET token = excluded.token, pool = excluded.pool, description = excluded.description,
                                   last_seen = excluded.last_seen",
    )
    .bind(registry.0)
    .bind(name.as_str())
    .bind(principal.as_str())
    .bind(token.as_str())
    .bind(description.pool.as_str())
    .bind(text)
    .bind(now.as_micros())
    .execute(tx)
    .await
    .during(REGISTER)?;
    Ok(AgentRecord { name, principal, token, description, draining, runs, first_seen, last_seen: now })
}

async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    name: &AgentName,
) -> Result<Option<AgentRecord>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM agents WHERE registry_id = ?1 AND name = ?2"));
    let row = sqlx::query(sql).bind(registry.0).bind(name.as_str()).fetch_optional(connection).await;
    row.during("find agent")?.as_ref().map(agent_record).transpose()
}

/// The column `description`. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredDescription {
    incarnation: String,
    native: Vec<Platform>,
    emulated: Vec<Platform>,
    slots: u32,
    engine: String,
    capabilities: Vec<String>,
    version: String,
    protocol: u32,
    disk_free: Option<u64>,
    disk_total: Option<u64>,
}

impl StoredDescription {
    fn of(description: &AgentDescription) -> Self {
        let AgentDescription { pool: _, incarnation, native, emulated, slots, engine, .. } = description.clone();
        let AgentDescription { capabilities, version, protocol, disk, .. } = description.clone();
        let (disk_free, disk_total) = (disk.map(|disk| disk.free), disk.map(|disk| disk.total));
        Self { incarnation, native, emulated, slots, engine, capabilities, version, protocol, disk_free, disk_total }
    }

    fn read(self, pool: PoolName) -> AgentDescription {
        let Self { incarnation, native, emulated, slots, engine, capabilities, version, protocol, .. } = self;
        let disk = self.disk_free.zip(self.disk_total).map(|(free, total)| DiskSpace { free, total });
        AgentDescription { pool, incarnation, native, emulated, slots, engine, capabilities, version, protocol, disk }
    }
}

fn agent_record(row: &SqliteRow) -> Result<AgentRecord, StoreError> {
    const READ: &str = "read agent";
    let text = |column: &str| row.try_get::<&str, _>(column).during(READ);
    let time = |column: &str| row.try_get(column).during(READ).map(Timestamp::from_micros);
    let pool = PoolName::parse(text("pool")?).stored(READ)?;
    let description: StoredDescription = serde_json::from_str(text("description")?).stored(READ)?;
    Ok(AgentRecord {
        name: AgentName::parse(text("name")?).stored(READ)?,
        principal: PrincipalName::parse(text("principal")?).stored(READ)?,
        token: TokenId::parse(text("token")?).stored(READ)?,
        description: description.read(pool),
        draining: row.try_get("draining").during(READ)?,
        runs: u64::try_from(row.try_get::<i64, _>("runs").during(READ)?).stored(READ)?,
        first_seen: time("first_seen")?,
        last_seen: time("last_seen")?,
    })
}

fn pool_record(row: &SqliteRow) -> Result<PoolRecord, StoreError> {
    const READ: &str = "read pool";
    let count = |column: &str| {
        let count: i64 = row.try_get(column).during(READ)?;
        u64::try_from(count).stored(READ)
    };
    Ok(PoolRecord {
        pool: Pool {
            name: PoolName::parse(row.try_get("name").during(READ)?).stored(READ)?,
            description: row.try_get("description").during(READ)?,
            untrusted: row.try_get("untrusted").during(READ)?,
            created: Timestamp::from_micros(row.try_get("created").during(READ)?),
        },
        agents: count("agents")?,
        unfinished_runs: count("runs")?,
    })
}
