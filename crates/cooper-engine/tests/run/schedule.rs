//! The choice of agents: within their slots and platforms, once for each placement, the same on each look.

use std::collections::{BTreeMap, BTreeSet};

use cooper_engine::run::AgentRef;
use cooper_engine::schedule::{AgentView, Decision, WaitingView, schedule};
use cooper_types::{Platform, RunId, Timestamp};
use proptest::prelude::*;

use super::fixture::agent;

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/arm/v7"];

fn platform(index: usize) -> Platform {
    Platform::parse(PLATFORMS[index % 3]).expect("valid")
}

fn any_agents() -> impl Strategy<Value = Vec<AgentView>> {
    let view = (0u8..8, 0u8..8, 0u32..4);
    prop::collection::vec(view, 0..5).prop_map(|views| {
        let names = ["a", "b", "c", "d", "e"];
        let set = |bits: u8| (0..3).filter(|index| bits >> index & 1 == 1).map(platform).collect();
        let views = views.into_iter().enumerate().map(|(index, (native, emulated, slots))| AgentView {
            agent: agent(names[index], 1),
            native: set(native),
            emulated: set(emulated),
            slots,
        });
        views.collect()
    })
}

fn any_waiting() -> impl Strategy<Value = Vec<WaitingView>> {
    let views = prop::collection::btree_map((1u64..9, 0usize..3), (0usize..3, 0i64..4, 0usize..10), 0..12);
    views.prop_map(|views| {
        let views = views.into_iter().map(|((run, placement), (wanted, created, avoid))| WaitingView {
            run: RunId::from_number(run),
            placement,
            platform: platform(wanted),
            created: Timestamp::from_micros(created),
            avoid: ["a", "b", "c", "d", "e"].get(avoid).map(|name| agent(name, 1).name),
        });
        views.collect()
    })
}

fn able(view: &AgentView, platform: &Platform) -> bool {
    view.native.contains(platform) || view.emulated.contains(platform)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decisions_fit_agents_and_repeat(
        waiting in any_waiting(), agents in any_agents(), loads in prop::collection::vec(0u32..5, 5), turn in 0usize..12,
    ) {
        let load: BTreeMap<AgentRef, u32> =
            agents.iter().zip(loads).map(|(view, load)| (view.agent.clone(), load)).collect();
        let decisions = schedule(waiting.clone(), &agents, &load);

        let mut asked: BTreeMap<AgentRef, u32> = BTreeMap::new();
        let mut decided = BTreeSet::new();
        for decision in &decisions {
            let (Decision::Offer { run, placement, .. } | Decision::Wait { run, placement, .. }) = decision;
            prop_assert!(decided.insert((*run, *placement)), "two decisions on one placement");
            let view = waiting.iter().find(|view| (view.run, view.placement) == (*run, *placement));
            let wanted = &view.expect("only what waits is decided").platform;
            match decision {
                Decision::Offer { agent, .. } => {
                    let chosen = agents.iter().find(|view| view.agent == *agent).expect("only what is connected is asked");
                    prop_assert!(able(chosen, wanted));
                    *asked.entry(agent.clone()).or_default() += 1;
                }
                Decision::Wait { .. } => {
                    // Who was asked for older placements counts as busy, so this is judged by the final state.
                    let full = |view: &&AgentView| {
                        load[&view.agent] + asked.get(&view.agent).copied().unwrap_or(0) >= view.slots
                    };
                    prop_assert!(agents.iter().filter(|view| able(view, wanted)).all(|view| full(&view)));
                }
            }
        }
        prop_assert_eq!(decided.len(), waiting.len());
        for view in &agents {
            let count = asked.get(&view.agent).copied().unwrap_or(0);
            prop_assert!(count == 0 || load[&view.agent] + count <= view.slots, "more than the slots of {}", view.agent);
        }

        // The order in which the rows are read does not matter.
        let mut turned = waiting.clone();
        turned.rotate_left(turn.min(waiting.len()));
        prop_assert_eq!(schedule(turned, &agents, &load), decisions);
    }
}
