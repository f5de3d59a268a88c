//! Who gets what, in tables.

use super::*;

fn agent(name: &str, native: &str, emulated: &[&str], slots: u32) -> AgentView {
    let parse = |text: &str| Platform::parse(text).expect("valid");
    AgentView {
        agent: AgentRef { name: AgentName::parse(name).expect("valid"), incarnation: "1".to_owned() },
        pool: PoolName::default_pool(),
        native: vec![parse(native)],
        emulated: emulated.iter().map(|text| parse(text)).collect(),
        slots,
        draining: false,
        unavailable: false,
        takes_images: true,
        allows: [].into(),
    }
}

fn waits(number: u64, platform: &str, avoid: Option<&str>) -> WaitingView {
    WaitingView {
        run: RunId::from_number(number),
        placement: 0,
        pool: PoolName::default_pool(),
        platform: Platform::parse(platform).expect("valid"),
        takes_images: false,
        leave: [].into(),
        priority: 0,
        created: Timestamp::from_micros(number.cast_signed()),
        avoid: avoid.map(|name| AgentName::parse(name).expect("valid")),
    }
}

fn no_limits(_: RunId) -> Option<Limit> {
    None
}

fn check(waiting: Vec<WaitingView>, agents: &[AgentView], expect: &[&str]) {
    let got: Vec<String> = schedule(waiting, agents, &BTreeMap::new(), no_limits, &BTreeMap::new())
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
fn who_takes_nothing_is_asked_only_where_there_is_nobody_else() {
    let mut agents = [agent("a", "linux/amd64", &[], 2), agent("b", "linux/amd64", &[], 1)];
    agents[0].unavailable = true;
    let two = || vec![waits(1, "linux/amd64", None), waits(2, "linux/amd64", None)];
    let busy = PendingReason::AllBusy { held: 1, slots: 1, ahead: 0 };
    check(two(), &agents, &["ca1 -> b", &format!("ca2 waits: {busy}")]);
    check(two(), &agents[..1], &["ca1 -> a", "ca2 -> a"]);
}

#[test]
fn a_native_agent_that_declines_does_not_keep_an_idle_one_from_emulating() {
    let agents = [
        agent("a", "linux/amd64", &["linux/arm64"], 1),
        agent("b", "linux/arm64", &[], 1),
        agent("c", "linux/arm64", &[], 1),
    ];
    let mut asked = Vec::new();
    let mut last: Option<String> = None;
    for _ in 0..4 {
        let decisions = schedule(
            vec![waits(1, "linux/arm64", last.as_deref())],
            &agents,
            &BTreeMap::new(),
            no_limits,
            &BTreeMap::new(),
        );
        let [Decision::Offer { agent, .. }] = &decisions[..] else { panic!("{decisions:?}") };
        asked.push(agent.name.to_string());
        last = Some(agent.name.to_string());
    }
    assert_eq!(asked, ["b", "c", "a", "b"]);
}

#[test]
fn every_agent_is_asked_before_one_is_asked_again() {
    let agents: Vec<AgentView> = ["a", "b", "c", "d"].map(|name| agent(name, "linux/amd64", &[], 2)).into();
    // The one that would do is the busiest.
    let load = BTreeMap::from([(agents[2].agent.clone(), 1)]);
    let mut asked = Vec::new();
    for _ in 0..5 {
        let avoid = asked.last().map(AgentName::as_str);
        let decisions = schedule(vec![waits(1, "linux/amd64", avoid)], &agents, &load, no_limits, &BTreeMap::new());
        let [Decision::Offer { agent, .. }] = &decisions[..] else { panic!("{decisions:?}") };
        asked.push(agent.name.clone());
    }
    assert_eq!(asked.iter().map(AgentName::as_str).collect::<Vec<_>>(), ["a", "b", "c", "d", "a"]);
    // One that is gone tells nothing of the others.
    check(vec![waits(1, "linux/amd64", Some("gone"))], &agents, &["ca1 -> a"]);
}

#[test]
fn a_long_queue_is_counted_coarsely() {
    for (number, expect) in [(0, 0), (9, 9), (10, 10), (19, 10), (99, 90), (10_234, 10_000), (u32::MAX, 4_000_000_000)]
    {
        assert_eq!(coarse(number), expect, "{number}");
    }
    let agents = [agent("a", "linux/amd64", &[], 1)];
    let waiting = (1..=2000).map(|number| waits(number, "linux/amd64", None)).collect();
    let decisions = schedule(waiting, &agents, &BTreeMap::new(), no_limits, &BTreeMap::new());
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

#[test]
fn pools_do_not_mix_and_drained_agents_get_nothing() {
    let gpu = PoolName::parse("gpu").expect("valid");
    let mut agents = [agent("a", "linux/amd64", &[], 9), agent("b", "linux/amd64", &[], 9)];
    agents[1].pool = gpu.clone();
    let wants = |pool: &PoolName, platform| WaitingView { pool: pool.clone(), ..waits(1, platform, None) };
    check(vec![wants(&gpu, "linux/amd64")], &agents, &["ca1 -> b"]);
    let none = ["ca1 waits: no agent of pool gpu is connected; start one with `cooper agent --pool gpu`"];
    check(vec![wants(&gpu, "linux/amd64")], &agents[..1], &none);
    let none = ["ca1 waits: no agent of pool default is connected; start one with `cooper agent --pool default`"];
    check(vec![waits(1, "linux/amd64", None)], &agents[1..], &none);
    let other = ["ca1 waits: no connected agent builds linux/arm64 (connected: b: linux/amd64)"];
    check(vec![wants(&gpu, "linux/arm64")], &agents, &other);
    agents[1].draining = true;
    let draining = "ca1 waits: all agents that could take it are being drained (b); `cooper agent drain NAME --undo` \
                    ends that";
    check(vec![wants(&gpu, "linux/amd64")], &agents, &[draining]);
    agents[1].pool = PoolName::default_pool();
    check(vec![waits(1, "linux/amd64", None), waits(2, "linux/amd64", None)], &agents, &["ca1 -> a", "ca2 -> a"]);
}

#[test]
fn what_an_operator_has_to_allow_is_asked_of_those_who_do() {
    let mut agents = [agent("free", "linux/amd64", &[], 9), agent("granting", "linux/amd64", &[], 1)];
    agents[1].allows = [Leave::Privileged, Leave::Network("lan".to_owned())].into();
    let wants = |number, leave: &[Leave]| WaitingView {
        leave: leave.iter().cloned().collect(),
        ..waits(number, "linux/amd64", None)
    };
    let privileged = [Leave::Privileged];
    let busy = "ca2 waits: all agents that could take it are busy (1 of 1 slots in use, it is the next)";
    check(
        vec![wants(1, &privileged), wants(2, &privileged), wants(3, &[])],
        &agents,
        &["ca1 -> granting", busy, "ca3 -> free"],
    );
    agents[1].draining = true;
    let draining = "ca1 waits: all agents that could take it are being drained (granting); `cooper agent drain NAME \
                    --undo` ends that";
    check(vec![wants(1, &privileged)], &agents, &[draining]);
    // Nobody allows all that is asked: whoever takes it says so.
    check(vec![wants(1, &[Leave::Privileged, Leave::Network("host".to_owned())])], &agents, &["ca1 -> free"]);
    check(vec![wants(1, &privileged)], &agents[..1], &["ca1 -> free"]);
}

#[test]
fn what_nobody_allows_makes_no_class_of_its_own() {
    let mut agents = [agent("free", "linux/amd64", &[], 9), agent("granting", "linux/amd64", &[], 9)];
    agents[1].allows = [Leave::Privileged].into();
    let wants = |number: u64, leave: Leave| WaitingView { leave: [leave].into(), ..waits(number, "linux/amd64", None) };
    let load = BTreeMap::new();
    let named: Vec<WaitingView> = (1..100).map(|number| wants(number, Leave::Network(format!("n{number}")))).collect();
    let (plain, privileged) = (waits(100, "linux/amd64", None), wants(101, Leave::Privileged));
    let mut choice = Choice::new(&agents, &load);
    let of_plain = choice.class(&plain);
    assert!(named.iter().all(|view| choice.class(view) == of_plain));
    assert_ne!(choice.class(&privileged), of_plain);
    assert_eq!(choice.classes.len(), 2);
}

#[test]
fn agents_that_know_nothing_of_others_images_are_not_offered_work_with_them() {
    let mut agents = [agent("new", "linux/amd64", &["linux/arm64"], 1), agent("old", "linux/amd64", &[], 9)];
    agents[1].takes_images = false;
    let takes = |number, platform| WaitingView { takes_images: true, ..waits(number, platform, None) };
    check(
        vec![takes(1, "linux/amd64"), takes(2, "linux/amd64"), waits(3, "linux/amd64", None)],
        &agents,
        &[
            "ca1 -> new",
            "ca2 waits: all agents that could take it are busy (1 of 1 slots in use, it is the next)",
            "ca3 -> old",
        ],
    );
    let old = "ca1 waits: it takes images of other agents, and those that could run it are too old for that (old): upgrade \
               them";
    check(vec![takes(1, "linux/amd64")], &agents[1..], &[old]);
    let none = ["ca1 waits: no connected agent builds linux/arm64 (connected: old: linux/amd64)"];
    check(vec![takes(1, "linux/arm64")], &agents[1..], &none);
}

#[test]
fn a_reason_names_a_few_agents() {
    let agents: Vec<AgentView> = (0..20).map(|n| agent(&format!("a{n:02}"), "linux/amd64", &[], 1)).collect();
    let decisions =
        schedule(vec![waits(1, "linux/arm64", None)], &agents, &BTreeMap::new(), no_limits, &BTreeMap::new());
    let [Decision::Wait { reason: PendingReason::NoAgentForPlatform { available, .. }, .. }] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    assert_eq!((available.len(), available[8].as_str()), (9, "and 12 more"));
}

#[test]
fn the_higher_priority_goes_first() {
    let urgent = WaitingView { priority: 1, ..waits(3, "linux/amd64", None) };
    let waiting = vec![waits(1, "linux/amd64", None), waits(2, "linux/amd64", None), urgent];
    let decisions = schedule(waiting, &[], &BTreeMap::new(), no_limits, &BTreeMap::new());
    let order: Vec<u64> = decisions
        .iter()
        .map(|decision| match decision {
            Decision::Offer { run, .. } | Decision::Wait { run, .. } => run.number(),
        })
        .collect();
    assert_eq!(order, [3, 1, 2]);
}

#[test]
fn a_task_with_a_limit_has_no_more_runs_with_agents() {
    let task = |name: &str| name.to_ascii_lowercase();
    let elsewhere =
        |number| WaitingView { pool: PoolName::parse("gpu").expect("valid"), ..waits(number, "linux/amd64", None) };
    let mut waiting: Vec<WaitingView> = (1..=6).map(|number| waits(number, "linux/amd64", None)).collect();
    // The oldest of all can't be placed: it keeps nobody from an agent.
    waiting.insert(0, elsewhere(0));
    // Another placement of a run that goes to an agent goes to one, too.
    waiting.push(WaitingView { placement: 1, ..waits(1, "linux/amd64", None) });
    // Runs 0 to 4 are of a task of which two may run, under two spellings; one is at work. 5 has no limit, 6 another task.
    let limit = |run: RunId| match run.number() {
        0 | 1 | 3 => Some((task("Nightly"), 2)),
        2 | 4 => Some((task("nightly"), 2)),
        6 => Some((task("other"), 1)),
        _ => None,
    };
    let begun = BTreeMap::from([("nightly".to_owned(), 1)]);
    let decisions = schedule(waiting, &[agent("a", "linux/amd64", &[], 9)], &BTreeMap::new(), limit, &begun);
    let mut got: Vec<String> = decisions
        .iter()
        .map(|decision| match decision {
            Decision::Wait { run, reason: PendingReason::TaskBusy { limit }, .. } => {
                format!("{} busy {limit}", run.number())
            }
            Decision::Wait { run, .. } => format!("{} waits", run.number()),
            Decision::Offer { run, placement, .. } => format!("{} offered {placement}", run.number()),
        })
        .collect();
    got.sort();
    let expect =
        ["0 waits", "1 offered 0", "1 offered 1", "2 busy 2", "3 busy 2", "4 busy 2", "5 offered 0", "6 offered 0"];
    assert_eq!(got, expect);
}
