//! Conformance of the port for pools and agents.

use std::time::Duration;

use cooper_engine::run::RunEvent;
use cooper_ports::agents::{
    AgentDescription, AgentStore, ChangeAgentError, CreatePoolError, DeletePoolError, DiskSpace, RegisterAgent,
    RegisterAgentError,
};
use cooper_ports::clock::Clock;
use cooper_ports::runs::{AcceptError, RunStore};
use cooper_types::{AgentName, Platform, PoolName, TokenId};

use crate::fixture::{Fixture, principal, quick_build, upload};

fn pool(name: &str) -> PoolName {
    PoolName::parse(name).unwrap()
}

fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

fn agent(text: &str, owner: &str, served: &str) -> RegisterAgent {
    RegisterAgent {
        name: name(text),
        principal: principal(owner),
        token: TokenId::parse("t1").unwrap(),
        description: AgentDescription {
            pool: pool(served),
            incarnation: "1".to_owned(),
            native: vec![Platform::LINUX_AMD64],
            emulated: vec![Platform::parse("linux/arm64").unwrap()],
            slots: 2,
            engine: "Docker Engine 20.10.24".to_owned(),
            capabilities: vec!["buildkit".to_owned()],
            version: "1".to_owned(),
            protocol: 1,
            disk: Some(DiskSpace { free: 1, total: 2 }),
        },
    }
}

#[tokio::test]
async fn pools_are_made_listed_and_deleted() {
    let mut fixture = Fixture::new().await;
    let made = fixture.store.create_pool(pool("gpu"), "with cards".to_owned(), true).await.unwrap();
    fixture.reopen().await;
    let pools = fixture.store.list_pools().await.unwrap();
    let names: Vec<&str> = pools.iter().map(|record| record.pool.name.as_str()).collect();
    assert_eq!(names, ["default", "gpu"]);
    assert_eq!((&pools[1].pool, pools[1].agents, pools[1].unfinished_runs), (&made, 0, 0));
    let again = fixture.store.create_pool(pool("gpu"), String::new(), false).await.unwrap_err();
    assert!(matches!(again, CreatePoolError::Exists(_)));
    fixture.store.delete_pool(pool("gpu"), false).await.unwrap();
    let gone = fixture.store.delete_pool(pool("gpu"), true).await.unwrap_err();
    assert!(matches!(gone, DeletePoolError::Unknown(_)));
    let default = fixture.store.delete_pool(pool("default"), true).await.unwrap_err();
    assert!(matches!(default, DeletePoolError::Default(_)));
}

#[tokio::test]
async fn a_pool_in_use_is_deleted_by_force_only() {
    let fixture = Fixture::new().await;
    upload(&fixture.store, "alice", "source").await;
    let mut request = quick_build("alice", "source");
    request.run.pool = pool("gpu");
    let unknown = fixture.store.accept_run(request.clone()).await.unwrap_err();
    assert!(matches!(unknown, AcceptError::UnknownPool(_)));
    fixture.store.create_pool(pool("gpu"), String::new(), false).await.unwrap();
    fixture.store.register_agent(agent("a", "builders", "gpu")).await.unwrap();
    let run = fixture.store.accept_run(request.clone()).await.unwrap().record.run;
    assert_eq!(run.pool, pool("gpu"));
    let refused = fixture.store.delete_pool(pool("gpu"), false).await.unwrap_err();
    assert!(matches!(refused, DeletePoolError::InUse { agents: 1, unfinished_runs: 1, .. }), "{refused}");
    fixture.apply(run.id, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let refused = fixture.store.delete_pool(pool("gpu"), false).await.unwrap_err();
    assert!(matches!(refused, DeletePoolError::InUse { agents: 1, unfinished_runs: 0, .. }), "{refused}");
    let deleted = fixture.store.delete_pool(pool("gpu"), true).await.unwrap();
    assert_eq!(deleted.agents, 1);
    assert!(fixture.store.list_agents().await.unwrap().is_empty());
    assert!(fixture.store.accept_run(request).await.is_err());
}

#[tokio::test]
async fn a_name_belongs_to_who_registered_it_first() {
    let mut fixture = Fixture::new().await;
    let first = fixture.store.register_agent(agent("a", "builders", "default")).await.unwrap();
    assert_eq!((first.draining, first.first_seen, first.last_seen), (false, fixture.clock.now(), fixture.clock.now()));
    fixture.reopen().await;
    let taken = fixture.store.register_agent(agent("a", "mallory", "default")).await.unwrap_err();
    assert!(matches!(taken, RegisterAgentError::NameTaken(_)));
    assert_eq!(fixture.store.find_agent(&name("a")).await.unwrap(), Some(first.clone()));

    fixture.clock.advance(Duration::from_secs(60));
    let mut newer = agent("a", "builders", "default");
    newer.token = TokenId::parse("t2").unwrap();
    newer.description.slots = 7;
    let again = fixture.store.register_agent(newer).await.unwrap();
    assert_eq!((again.first_seen, again.description.slots), (first.first_seen, 7));
    assert_eq!(fixture.store.list_agents().await.unwrap(), std::slice::from_ref(&again));
    assert_eq!(again.last_seen, fixture.clock.now());

    assert_eq!(fixture.store.remove_agent(name("a")).await.unwrap(), again);
    let gone = fixture.store.remove_agent(name("a")).await.unwrap_err();
    assert!(matches!(gone, ChangeAgentError::Unknown(_)));
    fixture.store.register_agent(agent("a", "mallory", "default")).await.unwrap();

    let unknown = fixture.store.register_agent(agent("b", "builders", "gpu")).await.unwrap_err();
    assert!(matches!(unknown, RegisterAgentError::UnknownPool(_)));
}

#[tokio::test]
async fn draining_outlives_a_connection() {
    let mut fixture = Fixture::new().await;
    fixture.store.register_agent(agent("a", "builders", "default")).await.unwrap();
    assert!(fixture.store.drain_agent(name("a"), true).await.unwrap().draining);
    fixture.reopen().await;
    assert!(fixture.store.register_agent(agent("a", "builders", "default")).await.unwrap().draining);
    assert!(!fixture.store.drain_agent(name("a"), false).await.unwrap().draining);
    let unknown = fixture.store.drain_agent(name("b"), true).await.unwrap_err();
    assert!(matches!(unknown, ChangeAgentError::Unknown(_)));
    fixture.clock.advance(Duration::from_secs(60));
    fixture.store.agents_seen(vec![name("a"), name("b")]).await.unwrap();
    let seen = fixture.store.find_agent(&name("a")).await.unwrap().unwrap();
    assert_eq!(seen.last_seen, fixture.clock.now());
}

#[tokio::test]
async fn what_an_agent_holds_is_counted() {
    let fixture = Fixture::new().await;
    let started = fixture.start().await;
    let holder = fixture.store.find_run(started.run).await.unwrap().unwrap();
    let holder = holder.run.placements[0].lease().unwrap().agent.name.to_string();
    assert_eq!(fixture.store.register_agent(agent(&holder, "builders", "default")).await.unwrap().runs, 0);
    assert_eq!(fixture.store.find_agent(&name(&holder)).await.unwrap().unwrap().runs, 1);
}

#[tokio::test]
async fn the_code_of_strangers_and_that_of_others_share_no_pool() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    upload(store, "alice", "source").await;
    let ask = async |name: &str, untrusted: bool| {
        let mut request = quick_build("alice", "source");
        request.run.pool = pool(name);
        request.run.origin.untrusted = untrusted;
        store.accept_run(request).await.map(drop)
    };
    store.create_pool(pool("strangers"), String::new(), true).await.unwrap();
    assert!(ask("default", false).await.is_ok() && ask("strangers", true).await.is_ok());
    assert!(matches!(ask("default", true).await, Err(AcceptError::PoolNotForStrangers(_))));
    assert!(matches!(ask("strangers", false).await, Err(AcceptError::PoolForStrangers(_))));
    // What waits for a pool that is gone comes to none with another mark.
    store.delete_pool(pool("strangers"), true).await.unwrap();
    let refused = store.create_pool(pool("strangers"), String::new(), false).await.unwrap_err();
    assert!(matches!(refused, CreatePoolError::RunsOfOtherKind { runs: 1, .. }), "{refused}");
    store.create_pool(pool("strangers"), String::new(), true).await.unwrap();
    let exists = store.create_pool(pool("strangers"), String::new(), false).await.unwrap_err();
    assert!(matches!(exists, CreatePoolError::Exists(_)), "{exists}");
    // The mark is that of the pool that is there when the run is accepted.
    store.create_pool(pool("others"), String::new(), true).await.unwrap();
    store.delete_pool(pool("others"), false).await.unwrap();
    store.create_pool(pool("others"), String::new(), false).await.unwrap();
    assert!(matches!(ask("others", true).await, Err(AcceptError::PoolNotForStrangers(_))));
    assert_eq!(fixture.count("SELECT count(*) FROM runs").await, 2, "nothing is left of what was refused");
}
