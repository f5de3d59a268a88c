//! An agent's half of the protocol: what it answers to messages that are doubled, late, lost or out of order.

use cooper_engine::agent::{AgentEffect, AgentEvent, AgentState};
use cooper_engine::message::{Held, PlacementKey, StepResult, ToAgent, ToServer};
use cooper_types::{AttemptNumber, Fence, Platform, RunId};

type Effects = Vec<AgentEffect<&'static str>>;

fn key(fence: u64) -> PlacementKey {
    PlacementKey { run: RunId::from_number(1), fence: Fence(fence) }
}

fn offer(agent: &mut AgentState, fence: u64) -> Effects {
    agent.apply(AgentEvent::Received(ToAgent::Offer { key: key(fence), platform: Platform::LINUX_AMD64 }))
}

fn start(agent: &mut AgentState, fence: u64, attempt: u64) -> Effects {
    let attempt = AttemptNumber(attempt);
    agent.apply(AgentEvent::Received(ToAgent::StartStep { key: key(fence), attempt, work: "work" }))
}

fn stop(agent: &mut AgentState, fence: u64) -> Effects {
    agent.apply(AgentEvent::Received(ToAgent::Stop { key: key(fence) }))
}

fn failed() -> StepResult {
    StepResult::Failed { exit_code: Some(1), reason: "exit code 1".to_owned() }
}

fn begins(fence: u64, attempt: u64) -> Effects {
    let attempt = AttemptNumber(attempt);
    vec![AgentEffect::Run(key(fence), attempt, "work"), AgentEffect::Send(ToServer::StepStarted(key(fence), attempt))]
}

#[test]
fn starts_may_come_in_any_order_and_begin_once() {
    let mut agent = AgentState::new(1);
    assert_eq!(offer(&mut agent, 1), [AgentEffect::Send(ToServer::Accepted(key(1)))]);
    // Two steps run in parallel; the first one's start was lost and is said again.
    assert_eq!(start(&mut agent, 1, 3), begins(1, 3));
    assert_eq!(start(&mut agent, 1, 2), begins(1, 2));
    assert_eq!(start(&mut agent, 1, 2), []);
    assert_eq!(start(&mut agent, 1, 3), []);
}

#[test]
fn a_result_is_said_again_until_it_is_stored() {
    let mut agent = AgentState::new(1);
    offer(&mut agent, 1);
    start(&mut agent, 1, 1);
    let said: AgentEffect<&str> = AgentEffect::Send(ToServer::StepEnded(key(1), AttemptNumber(1), failed()));
    let ended: AgentEvent<&str> = AgentEvent::StepEnded(key(1), AttemptNumber(1), failed());
    assert_eq!(agent.apply(ended.clone()), vec![said.clone()]);
    let holding = |attempts| AgentEffect::Send(ToServer::Holding(vec![Held { key: key(1), attempts }]));
    assert_eq!(agent.apply(AgentEvent::ReportDue), [holding(vec![AttemptNumber(1)]), said]);
    let stored = ToAgent::ResultStored { key: key(1), attempt: AttemptNumber(1) };
    assert_eq!(agent.apply::<&str>(AgentEvent::Received(stored)), []);
    assert_eq!(agent.apply::<&str>(AgentEvent::ReportDue), [holding(vec![])]);
    // Neither the end nor a late copy of the start brings it back.
    assert_eq!(agent.apply(ended), []);
    assert_eq!(start(&mut agent, 1, 1), []);
}

#[test]
fn an_attempt_whose_result_the_server_has_is_stopped_and_forgotten() {
    let mut agent = AgentState::new(1);
    offer(&mut agent, 1);
    start(&mut agent, 1, 1);
    start(&mut agent, 1, 2);
    let stored = || AgentEvent::Received(ToAgent::ResultStored { key: key(1), attempt: AttemptNumber(1) });
    assert_eq!(agent.apply::<&str>(stored()), [AgentEffect::Abandon(key(1), AttemptNumber(1))]);
    assert_eq!(agent.apply::<&str>(stored()), []);
    assert_eq!(agent.apply::<&str>(AgentEvent::StepEnded(key(1), AttemptNumber(1), failed())), []);
    assert_eq!(start(&mut agent, 1, 1), []);
    let held = vec![Held { key: key(1), attempts: vec![AttemptNumber(2)] }];
    assert_eq!(agent.apply::<&str>(AgentEvent::ReportDue), [AgentEffect::Send(ToServer::Holding(held))]);
}

#[test]
fn a_stop_cleans_up_once_and_is_always_answered() {
    let mut agent = AgentState::new(1);
    let stopped = |fence| AgentEffect::Send(ToServer::Stopped(key(fence)));
    assert_eq!(stop(&mut agent, 7), [stopped(7)]);
    offer(&mut agent, 1);
    start(&mut agent, 1, 1);
    assert_eq!(stop(&mut agent, 1), [AgentEffect::CleanUp(key(1))]);
    assert_eq!(stop(&mut agent, 1), []);
    assert_eq!(start(&mut agent, 1, 2), []);
    assert_eq!(agent.apply::<&str>(AgentEvent::StepEnded(key(1), AttemptNumber(1), failed())), []);
    assert_eq!(agent.held(), 1);
    assert_eq!(agent.apply::<&str>(AgentEvent::CleanedUp(key(1))), [stopped(1)]);
    assert_eq!(agent.apply::<&str>(AgentEvent::CleanedUp(key(1))), []);
    assert_eq!(start(&mut agent, 1, 2), [stopped(1)]);
    assert_eq!(agent.held(), 0);
}

#[test]
fn offers_are_declined_with_the_reason() {
    let mut agent = AgentState::new(1);
    offer(&mut agent, 1);
    assert_eq!(offer(&mut agent, 1), [AgentEffect::Send(ToServer::Accepted(key(1)))]);
    let declined = |fence, why: &str| AgentEffect::Send(ToServer::Declined(key(fence), why.to_owned()));
    assert_eq!(offer(&mut agent, 2), [declined(2, "all 1 slots are in use")]);
    stop(&mut agent, 1);
    assert_eq!(offer(&mut agent, 3), [AgentEffect::Send(ToServer::Accepted(key(3)))], "a clean-up takes no slot");
    assert_eq!(agent.apply::<&str>(AgentEvent::Unavailable(Some("the engine is down".to_owned()))), []);
    assert_eq!(offer(&mut agent, 4), [declined(4, "the engine is down")]);
    stop(&mut agent, 3);
    assert_eq!(agent.apply::<&str>(AgentEvent::Unavailable(None)), []);
    assert_eq!(offer(&mut agent, 5), [AgentEffect::Send(ToServer::Accepted(key(5)))]);
}
