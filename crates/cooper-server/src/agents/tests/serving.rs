//! Who may serve under which name, in which pool and protocol, and what administrators do to agents.

use axum::body::Body;
use axum::http::StatusCode;
use cooper_api::agent::SpokenByServer;
use cooper_api::rest::AgentView as AgentShown;
use http_body_util::BodyExt as _;
use std::time::Duration;
use tower::ServiceExt as _;

use super::*;
use crate::api::{ApiState, router};

fn greeting(change: impl FnOnce(&mut wire::Hello)) -> agent_message::Message {
    let agent_message::Message::Hello(mut greeting) = hello("one", PROTOCOL_VERSION) else { panic!("no greeting") };
    change(&mut greeting);
    agent_message::Message::Hello(greeting)
}

pub(super) async fn api(core: &Arc<Core>, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let admin = token(core, "root", &["admin"]).await;
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", admin.expose()))
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .expect("request");
    let router = router(ApiState { core: core.clone(), shutdown: CancellationToken::new() });
    let answer = router.oneshot(request).await.expect("infallible");
    let status = answer.status();
    let bytes = answer.into_body().collect().await.expect("body").to_bytes();
    (status, String::from_utf8(bytes.to_vec()).expect("text"))
}

async fn shown(core: &Arc<Core>, name: &str) -> AgentShown {
    let (status, body) = api(core, "GET", &format!("/api/v1/agents/{name}"), "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("an agent")
}

/// Reads until the stream ends, and says how.
async fn end(agent: &mut Scripted) -> Status {
    loop {
        match agent.incoming.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn an_agent_serves_in_the_pools_of_its_token() {
    let fixture = Fixture::new().await;
    let core = &fixture.core;
    let (status, body) = api(core, "POST", "/api/v1/pools", r#"{"name":"gpu"}"#).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (any, own) = (token(core, "builders", &["agent"]).await, token(core, "builders", &["agent:gpu"]).await);
    let within = |pool: &str| greeting(|hello| pool.clone_into(&mut hello.pool));
    for (token, first, code, part) in [
        (&own, within(""), Code::PermissionDenied, "agent:default"),
        (&own, within("other"), Code::PermissionDenied, "agent:other"),
        (&any, within("other"), Code::FailedPrecondition, "`cooper pool create other`"),
        (&any, within("../x"), Code::InvalidArgument, "pool name"),
        (&any, greeting(|hello| "local".clone_into(&mut hello.name)), Code::AlreadyExists, "server's own agent"),
    ] {
        let status = fixture.open(Some(token), first).await.expect_err(part);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    }
    let _stream = fixture.open(Some(&own), within("gpu")).await.expect("its own pool");
    let agent = shown(core, "one").await;
    assert_eq!((agent.pool.as_str(), agent.slots, agent.draining), ("gpu", 2, false));
    assert_eq!(agent.token_id, token_id(&own));
    let (status, body) = api(core, "DELETE", "/api/v1/pools/gpu", "").await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(body.contains("1 agents") && body.contains("--force"), "{body}");
    assert_eq!(core.agents.views()[0].pool.as_str(), "gpu");
}

#[tokio::test]
async fn two_living_processes_do_not_take_a_name_from_each_other() {
    let fixture = Fixture::new().await;
    let token = token(&fixture.core, "builders", &["agent"]).await;
    let mut first = fixture.agent("one", &token).await;
    let second = || greeting(|hello| "second".clone_into(&mut hello.incarnation));
    let status = fixture.open(Some(&token), second()).await.expect_err("the first is alive");
    assert_eq!(status.code(), Code::Aborted, "it may try again soon: {status:?}");
    assert!(status.message().contains("`one`"), "{status:?}");

    // The same life takes its own old stream's place, at once.
    let again = fixture.agent("one", &token).await;
    assert_eq!(end(&mut first).await.code(), Code::Unavailable);

    // A process that has ended makes room as soon as the server sees its stream end.
    drop(again);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Err(status) = fixture.open(Some(&token), second()).await {
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert!(tokio::time::Instant::now() < deadline, "the name is not free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_silent_process_makes_room() {
    let table = AgentTable::default();
    let view = AgentView {
        agent: agent_ref("one"),
        pool: PoolName::default_pool(),
        native: Vec::new(),
        emulated: Vec::new(),
        slots: 1,
        draining: false,
        unavailable: false,
        takes_images: true,
        allows: [].into(),
    };
    let (owner, token) = (principal("builders"), TokenId::parse("aaaa").expect("valid"));
    let newcomer = Newcomer { serial: 1, view, principal: owner.clone(), token, outdated: false };
    let _stream = table.connect(newcomer).expect("taken");
    let second = AgentRef { incarnation: "second".to_owned(), ..agent_ref("one") };
    let check = |agent: &AgentRef, owner: &PrincipalName, later: Duration| {
        table.lock().check(agent, owner, Instant::now() + later).is_ok()
    };
    assert!(!check(&second, &owner, Duration::ZERO) && !check(&second, &owner, ALIVE / 2));
    assert!(check(&second, &owner, ALIVE), "two reports are missing");
    assert!(check(&agent_ref("one"), &owner, Duration::ZERO));
    assert!(!check(&second, &principal("others"), ALIVE), "silence does not give a name away");
}

#[tokio::test]
async fn a_drained_agent_stays_so_and_a_removed_one_loses_what_it_holds() {
    let fixture = Fixture::new().await;
    let core = &fixture.core;
    let mine = token(core, "builders", &["agent"]).await;
    let mut agent = fixture.agent("one", &mine).await;
    let run = accept(core, Vec::new()).await;
    let key = fixture.offer(run, &agent.agent).await;
    agent.take(key).await;

    let (status, _) = api(core, "POST", "/api/v1/agents/one/drain", r#"{"draining":true}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert!(core.agents.views()[0].draining);
    let before = agent;
    agent = fixture.agent("one", &mine).await;
    drop(before);
    assert!(core.agents.views()[0].draining, "a new stream does not end it");
    let now = shown(core, "one").await;
    assert_eq!((now.draining, now.runs), (true, 1));
    // The scheduler had chosen it before it was drained.
    let late = accept(core, Vec::new()).await;
    core.apply(late, RunEvent::Offer { placement: 0, agent: agent.agent.clone() }).await.expect("offered");
    let reason = fixture.run(late).await.pending_reason().map(ToString::to_string).unwrap_or_default();
    assert!(reason.contains("it is being drained"), "{reason}");
    let (_, body) = api(core, "POST", "/api/v1/agents/one/drain", r#"{"draining":false}"#).await;
    assert!(body.contains(r#""draining":false"#) && !core.agents.views()[0].draining, "{body}");

    let other = token(core, "others", &["agent"]).await;
    let (status, body) = api(core, "DELETE", "/api/v1/agents/one", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains(token_id(&mine).as_str()), "{body}");
    assert_eq!(end(&mut agent).await.code(), Code::Unavailable);
    let lost = fixture.run(run).await;
    assert_eq!((lost.losses.len(), lost.losses[0].reason.as_str()), (1, "the agent was removed"));
    assert!(lost.pending_reason().is_some());
    let _theirs = fixture.agent("one", &other).await;
    for (method, path) in [("GET", "/api/v1/agents/none"), ("DELETE", "/api/v1/agents/none")] {
        let (status, body) = api(core, method, path, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    }
}

#[tokio::test]
async fn older_protocols_are_served_drained_and_refused() {
    let fixture = Fixture::speaking(SpokenByServer::up_to(5)).await;
    let core = &fixture.core;
    let token = token(core, "builders", &["agent"]).await;
    let speaking = |newest: u32, oldest: u32| {
        greeting(|hello| {
            hello.protocol = newest;
            hello.oldest_protocol = oldest;
        })
    };
    let connect = async |newest: u32, oldest: u32| {
        let (outgoing, incoming) = fixture.open(Some(&token), speaking(newest, oldest)).await?;
        let mut agent = Scripted { agent: agent_ref("one"), outgoing, incoming, token: token.clone() };
        let server_message::Message::Welcome(welcome) = agent.hear().await else { panic!("no welcome") };
        Ok::<_, Status>((agent, welcome.protocol))
    };
    for (newest, oldest, agreed) in [(5, 5, 5), (6, 5, 5), (4, 3, 4)] {
        let (_agent, version) = connect(newest, oldest).await.expect("served");
        assert_eq!((version, core.agents.views()[0].draining), (agreed, false));
    }
    for (newest, oldest, part) in [
        (2, 1, "protocol 2 and the server 4 to 5: upgrade the agent (agent 1, server "),
        (7, 6, "upgrade the server"),
        (3, 2, "protocol 3 and the server 4 to 5: upgrade the agent"),
    ] {
        let status = connect(newest, oldest).await.err().expect(part);
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    }

    // What was taken from an older server may be ended.
    let (mut agent, _) = connect(4, 3).await.expect("served");
    let run = accept(core, Vec::new()).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    let (mut agent, version) = connect(3, 2).await.expect("it holds something");
    assert_eq!((version, core.agents.views()[0].draining), (3, true));
    core.agents.set_draining(&agent.agent.name, false);
    assert!(core.agents.views()[0].draining, "nobody's wish makes it newer");
    agent.say(ToServer::Holding(vec![Held { key, attempts: vec![attempt] }])).await;
    let result = StepResult::Failed { exit_code: Some(1), reason: "a result".to_owned() };
    agent.say(ToServer::StepEnded(key, attempt, result)).await;
    agent.expect(ToAgent::Stop { key }).await;
    agent.expect(ToAgent::ResultStored { key, attempt }).await;
    agent.say(ToServer::Holding(Vec::new())).await;
    let status = end(&mut agent).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("upgrade the agent"), "{status:?}");
    assert_eq!(fixture.run(run).await.status(), RunStatus::Failed);
}
