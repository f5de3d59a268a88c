//! Which agent is asked for which placement, and why the others wait. A pure function of a snapshot.
//!
//! It remembers nothing: the shell calls it after every wake-up and periodically, and applies its decisions as events.
//! The database's rows are the queue; this only orders them.

use std::collections::BTreeMap;

use cooper_types::{AgentName, Platform, RunId, Timestamp};

use crate::run::{AgentRef, PendingReason, Phase, Placement, Policy, Run};

/// A connected agent, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// Who.
    pub agent: AgentRef,
    /// What it runs without emulation.
    pub native: Vec<Platform>,
    /// What it emulates.
    pub emulated: Vec<Platform>,
    /// How many placements it takes at a time.
    pub slots: u32,
}

/// A placement that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingView {
    /// The run.
    pub run: RunId,
    /// Index of the placement.
    pub placement: usize,
    /// What it is for.
    pub platform: Platform,
    /// When the run was accepted: the older goes first.
    pub created: Timestamp,
    /// The agent that declined or lost it last: asked last, where there is another.
    pub avoid: Option<AgentName>,
}

/// What to do with a waiting placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask this agent.
    Offer {
        /// The run.
        run: RunId,
        /// Index of the placement.
        placement: usize,
        /// Who.
        agent: AgentRef,
    },
    /// Let it wait.
    Wait {
        /// The run.
        run: RunId,
        /// Index of the placement.
        placement: usize,
        /// Why.
        reason: PendingReason,
    },
}

/// How many placements each agent holds, counted from the unfinished runs.
pub fn load<'a>(runs: impl IntoIterator<Item = &'a Run>) -> BTreeMap<AgentRef, u32> {
    let mut load = BTreeMap::new();
    for lease in runs.into_iter().flat_map(|run| run.placements.iter().filter_map(Placement::lease)) {
        *load.entry(lease.agent.clone()).or_default() += 1;
    }
    load
}

/// The placements of unfinished runs that wait and may be offered now.
///
/// A placement that was lost pauses before its next offer, longer each time: what took an engine or a network down is
/// often still there a moment later, and would take all the losses that a run has.
pub fn waiting<'a>(runs: impl IntoIterator<Item = &'a Run>, now: Timestamp, policy: &Policy) -> Vec<WaitingView> {
    let policy = *policy;
    let live = runs.into_iter().filter(|run| run.phase == Phase::Live);
    live.flat_map(move |run| {
        run.placements.iter().enumerate().filter_map(move |(index, placement)| {
            let Placement::Waiting { reason } = placement else { return None };
            if run.pause_ends(index, &policy).is_some_and(|end| now < end) {
                return None;
            }
            let avoid = match reason {
                PendingReason::Declined { agent, .. }
                | PendingReason::NoAnswer { agent }
                | PendingReason::Lost { agent, .. } => Some(agent.clone()),
                PendingReason::New
                | PendingReason::NoAgent
                | PendingReason::NoAgentForPlatform { .. }
                | PendingReason::AllBusy { .. } => None,
            };
            Some(WaitingView {
                run: run.id,
                placement: index,
                platform: run.plan.placements[index].platform.clone(),
                created: run.created,
                avoid,
            })
        })
    })
    .collect()
}

/// Decides for every waiting placement, oldest run first: native before emulated, then not the one that just failed to
/// take it, then the least loaded for its size.
pub fn schedule(mut waiting: Vec<WaitingView>, agents: &[AgentView], load: &BTreeMap<AgentRef, u32>) -> Vec<Decision> {
    waiting.sort_by_key(|view| (view.created, view.run, view.placement));
    let mut held: Vec<u32> = agents.iter().map(|view| load.get(&view.agent).copied().unwrap_or(0)).collect();
    let mut decisions = Vec::with_capacity(waiting.len());
    let mut ahead: BTreeMap<Platform, u32> = BTreeMap::new();
    for view in waiting {
        let (run, placement) = (view.run, view.placement);
        let able = |index: &usize| {
            agents[*index].native.contains(&view.platform) || agents[*index].emulated.contains(&view.platform)
        };
        let chosen =
            (0..agents.len()).filter(able).filter(|index| held[*index] < agents[*index].slots).min_by_key(|index| {
                let agent = &agents[*index];
                let emulated = !agent.native.contains(&view.platform);
                let avoided = view.avoid.as_ref() == Some(&agent.agent.name);
                // Load as a share of the slots, in thousandths, so that it can be compared as a whole number.
                let share = u64::from(held[*index]) * 1000 / u64::from(agent.slots.max(1));
                (emulated, avoided, share, *index)
            });
        decisions.push(match chosen {
            Some(index) => {
                held[index] += 1;
                Decision::Offer { run, placement, agent: agents[index].agent.clone() }
            }
            None => {
                let before = ahead.entry(view.platform.clone()).or_default();
                let reason = explain(&view.platform, agents, &held, coarse(*before));
                *before += 1;
                Decision::Wait { run, placement, reason }
            }
        });
    }
    decisions
}

fn explain(platform: &Platform, agents: &[AgentView], held: &[u32], ahead: u32) -> PendingReason {
    if agents.is_empty() {
        return PendingReason::NoAgent;
    }
    let able: Vec<usize> = (0..agents.len())
        .filter(|index| agents[*index].native.contains(platform) || agents[*index].emulated.contains(platform))
        .collect();
    if able.is_empty() {
        let available = agents.iter().map(describe).collect();
        return PendingReason::NoAgentForPlatform { platform: platform.to_string(), available };
    }
    let slots = able.iter().map(|index| agents[*index].slots).sum();
    PendingReason::AllBusy { held: able.iter().map(|index| held[*index]).sum(), slots, ahead }
}

/// A number without all digits but its first. Each end of a run moves a whole queue up: an exact number for each of its
/// runs would be a write for each.
fn coarse(number: u32) -> u32 {
    let unit = 10_u32.pow(number.checked_ilog10().unwrap_or(0));
    number / unit * unit
}

fn describe(view: &AgentView) -> String {
    let platforms: Vec<String> = view.native.iter().chain(&view.emulated).map(Platform::to_string).collect();
    format!("{}: {}", view.agent, platforms.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, native: &str, emulated: &[&str], slots: u32) -> AgentView {
        let parse = |text: &str| Platform::parse(text).expect("valid");
        AgentView {
            agent: AgentRef { name: AgentName::parse(name).expect("valid"), incarnation: "1".to_owned() },
            native: vec![parse(native)],
            emulated: emulated.iter().map(|text| parse(text)).collect(),
            slots,
        }
    }

    fn waits(number: u64, platform: &str, avoid: Option<&str>) -> WaitingView {
        WaitingView {
            run: RunId::from_number(number),
            placement: 0,
            platform: Platform::parse(platform).expect("valid"),
            created: Timestamp::from_micros(number.cast_signed()),
            avoid: avoid.map(|name| AgentName::parse(name).expect("valid")),
        }
    }

    fn check(waiting: Vec<WaitingView>, agents: &[AgentView], expect: &[&str]) {
        let got: Vec<String> = schedule(waiting, agents, &BTreeMap::new())
            .into_iter()
            .map(|decision| match decision {
                Decision::Offer { run, agent, .. } => format!("{run} -> {agent}"),
                Decision::Wait { run, reason, .. } => format!("{run} waits: {reason}"),
            })
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn native_first_then_the_least_loaded_oldest_run_first() {
        let agents = [agent("a", "linux/amd64", &["linux/arm64"], 2), agent("b", "linux/arm64", &[], 1)];
        let waiting = vec![waits(3, "linux/arm64", None), waits(1, "linux/arm64", None), waits(2, "linux/amd64", None)];
        check(waiting, &agents, &["ca1 -> b", "ca2 -> a", "ca3 -> a"]);
        let agents = [agent("a", "linux/amd64", &[], 4), agent("b", "linux/amd64", &[], 4)];
        let waiting = (1..=4).map(|number| waits(number, "linux/amd64", None)).collect();
        check(waiting, &agents, &["ca1 -> a", "ca2 -> b", "ca3 -> a", "ca4 -> b"]);
    }

    #[test]
    fn the_agent_that_failed_last_is_asked_last() {
        let agents = [agent("a", "linux/amd64", &[], 2), agent("b", "linux/amd64", &[], 2)];
        check(vec![waits(1, "linux/amd64", Some("a"))], &agents, &["ca1 -> b"]);
        check(vec![waits(1, "linux/amd64", Some("a"))], &agents[..1], &["ca1 -> a"]);
    }

    #[test]
    fn a_long_queue_is_counted_coarsely() {
        for (number, expect) in
            [(0, 0), (9, 9), (10, 10), (19, 10), (99, 90), (10_234, 10_000), (u32::MAX, 4_000_000_000)]
        {
            assert_eq!(coarse(number), expect, "{number}");
        }
        let agents = [agent("a", "linux/amd64", &[], 1)];
        let waiting = (1..=2000).map(|number| waits(number, "linux/amd64", None)).collect();
        let decisions = schedule(waiting, &agents, &BTreeMap::new());
        let told = "all agents that could take it are busy (1 of 1 slots in use, 10 or more runs are ahead)";
        assert!(matches!(&decisions[15], Decision::Wait { reason, .. } if reason.to_string() == told));
        let mut reasons: Vec<String> = decisions.iter().map(|decision| format!("{decision:?}")).collect();
        reasons.iter_mut().for_each(|text| *text = text.split("reason").nth(1).unwrap_or_default().to_owned());
        reasons.sort();
        reasons.dedup();
        assert!(reasons.len() <= 10 + 9 + 9 + 1 + 1, "{} different reasons", reasons.len());
    }

    #[test]
    fn every_wait_is_explained() {
        let agents = [agent("a", "linux/amd64", &["linux/arm64"], 1)];
        check(
            vec![waits(1, "linux/amd64", None)],
            &[],
            &["ca1 waits: no agent is connected; start one, or start the server beside a container engine"],
        );
        check(
            vec![waits(1, "linux/arm/v7", None), waits(2, "linux/amd64", None), waits(3, "linux/amd64", None)],
            &agents,
            &[
                "ca1 waits: no connected agent builds linux/arm/v7 (connected: a: linux/amd64, linux/arm64)",
                "ca2 -> a",
                "ca3 waits: all agents that could take it are busy (1 of 1 slots in use, it is the next)",
            ],
        );
    }
}
