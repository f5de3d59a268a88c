//! The choice of agents: within their slots and platforms, once for each placement, the same on each look.

use std::collections::{BTreeMap, BTreeSet};

use cooper_engine::run::{AgentRef, PendingReason};
use cooper_engine::schedule::{AgentView, Decision, WaitingView, schedule};
use cooper_types::{Leave, Platform, PoolName, RunId, Timestamp};
use proptest::prelude::*;

use super::fixture::agent;

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

fn platform(index: usize) -> Platform {
    Platform::parse(PLATFORMS[index % 3]).expect("valid")
}

fn pool(other: bool) -> PoolName {
    if other { PoolName::parse("other").expect("valid") } else { PoolName::default_pool() }
}

fn any_agents() -> impl Strategy<Value = Vec<AgentView>> {
    let weighted = prop::bool::weighted;
    let view = (0u8..8, 0u8..8, 0u32..4, weighted(0.2), weighted(0.2), weighted(0.8), 0u8..4);
    prop::collection::vec(view, 0..5).prop_map(|views| {
        let names = ["a", "b", "c", "d", "e"];
        let set = |bits: u8| (0..3).filter(|index| bits >> index & 1 == 1).map(platform).collect();
        let views =
            views.into_iter().enumerate().map(|(index, (native, emulated, slots, other, draining, new, allows))| {
                AgentView {
                    agent: agent(names[index], 1),
                    pool: pool(other),
                    native: set(native),
                    emulated: set(emulated),
                    slots,
                    draining,
                    unavailable: false,
                    takes_images: new,
                    allows: leave(allows),
                }
            });
        views.collect()
    })
}

fn any_waiting() -> impl Strategy<Value = Vec<WaitingView>> {
    let wish = (0usize..3, 0i64..4, 0usize..10, prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0u8..8);
    let views = prop::collection::btree_map((1u64..9, 0usize..3), wish, 0..12);
    views.prop_map(|views| {
        let views =
            views.into_iter().map(|((run, placement), (wanted, created, avoid, other, takes_images, asked))| {
                WaitingView {
                    run: RunId::from_number(run),
                    placement,
                    pool: pool(other),
                    platform: platform(wanted),
                    takes_images,
                    leave: leave(asked.saturating_sub(4)),
                    priority: 0,
                    created: Timestamp::from_micros(created),
                    avoid: ["a", "b", "c", "d", "e"].get(avoid).map(|name| agent(name, 1).name),
                }
            });
        views.collect()
    })
}

/// None, one or both of two things.
fn leave(bits: u8) -> BTreeSet<Leave> {
    let all = [Leave::Privileged, Leave::Network("host".to_owned())];
    all.into_iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, leave)| leave).collect()
}

fn able(agents: &[AgentView], view: &AgentView, waiting: &WaitingView) -> bool {
    let is_one = |view: &AgentView| {
        let can_do = view.native.contains(&waiting.platform) || view.emulated.contains(&waiting.platform);
        can_do && view.pool == waiting.pool && (view.takes_images || !waiting.takes_images)
    };
    let allows = |view: &AgentView| waiting.leave.is_subset(&view.allows);
    is_one(view) && !view.draining && (allows(view) || !agents.iter().any(|other| is_one(other) && allows(other)))
}

/// Every placement is compared with every agent: slow, and plain to see. `None` lets it wait.
fn plainly(
    mut waiting: Vec<WaitingView>,
    agents: &[AgentView],
    load: &BTreeMap<AgentRef, u32>,
) -> Vec<Option<AgentRef>> {
    waiting.sort_by_key(|view| (view.created, view.run, view.placement));
    let mut held: Vec<u32> = agents.iter().map(|view| load[&view.agent]).collect();
    let choose = |view: &WaitingView| {
        let free = (0..agents.len())
            .filter(|index| able(agents, &agents[*index], view) && held[*index] < agents[*index].slots);
        let chosen = free.min_by_key(|index| {
            let agent = &agents[*index];
            let emulated = !agent.native.contains(&view.platform);
            let share = u64::from(held[*index]) * 1000 / u64::from(agent.slots);
            let failed = agents.iter().position(|agent| view.avoid.as_ref() == Some(&agent.agent.name));
            // After one that failed, those behind it count before those up to it, native ones in their order and then those
            // that emulate, and load does not.
            let place = (emulated, *index);
            let behind =
                failed.is_some_and(|failed| place <= (!agents[failed].native.contains(&view.platform), failed));
            (behind, emulated, if failed.is_some() { 0 } else { share }, *index)
        })?;
        held[chosen] += 1;
        Some(agents[chosen].agent.clone())
    };
    waiting.iter().map(choose).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_fit_agents_and_repeat(
        waiting in any_waiting(), agents in any_agents(), loads in prop::collection::vec(0u32..5, 5), turn in 0usize..12,
    ) {
        let load: BTreeMap<AgentRef, u32> =
            agents.iter().zip(loads).map(|(view, load)| (view.agent.clone(), load)).collect();
        let decisions = schedule(waiting.clone(), &agents, &load, |_| None, &BTreeMap::new());

        let mut asked: BTreeMap<AgentRef, u32> = BTreeMap::new();
        let mut decided = BTreeSet::new();
        for decision in &decisions {
            let (Decision::Offer { run, placement, .. } | Decision::Wait { run, placement, .. }) = decision;
            prop_assert!(decided.insert((*run, *placement)), "two decisions on one placement");
            let view = waiting.iter().find(|view| (view.run, view.placement) == (*run, *placement));
            let view = view.expect("only what waits is decided");
            match decision {
                Decision::Offer { agent, .. } => {
                    let chosen = agents.iter().find(|view| view.agent == *agent).expect("only what is connected is asked");
                    prop_assert!(able(&agents, chosen, view));
                    *asked.entry(agent.clone()).or_default() += 1;
                }
                Decision::Wait { reason, .. } => {
                    let none = agents.iter().all(|agent| !able(&agents, agent, view));
                    prop_assert_eq!(none, !matches!(reason, PendingReason::AllBusy { .. }), "{}", reason);
                    // Who was asked for older placements counts as busy, so this is judged by the final state.
                    let full = |view: &&AgentView| {
                        load[&view.agent] + asked.get(&view.agent).copied().unwrap_or(0) >= view.slots
                    };
                    prop_assert!(agents.iter().filter(|agent| able(&agents, agent, view)).all(|agent| full(&agent)));
                }
            }
        }
        prop_assert_eq!(decided.len(), waiting.len());
        let plain = plainly(waiting.clone(), &agents, &load);
        let offers: Vec<Option<AgentRef>> = decisions
            .iter()
            .map(|decision| match decision {
                Decision::Offer { agent, .. } => Some(agent.clone()),
                Decision::Wait { .. } => None,
            })
            .collect();
        prop_assert_eq!(offers, plain);
        for view in &agents {
            let count = asked.get(&view.agent).copied().unwrap_or(0);
            prop_assert!(count == 0 || load[&view.agent] + count <= view.slots, "more than the slots of {}", view.agent);
        }

        // The order in which the rows are read does not matter.
        let mut turned = waiting.clone();
        turned.rotate_left(turn.min(waiting.len()));
        prop_assert_eq!(schedule(turned, &agents, &load, |_| None, &BTreeMap::new()), decisions);
    }
}
