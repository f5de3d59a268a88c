//! Plans and waves: by tables, and by properties over graphs of any form.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{PrincipalName, RegistryName, RepositoryName, Tag};
use proptest::prelude::*;

use super::*;
use crate::task::{BaseImageTrigger, Follows};

fn image(name: &str) -> ImageTag {
    ImageTag {
        registry: None,
        repository: RepositoryName::parse(name).expect("valid"),
        tag: Tag::parse("1").expect("valid"),
    }
}

fn name(text: &str) -> TaskName {
    TaskName::parse(&format!("task-{text}")).expect("valid")
}

/// A task that stands on some images and makes some.
fn task(text: &str, bases: &[&str], makes: &[&str]) -> Dependent {
    let base = |of: &&str| Base { kind: BaseKind::Runtime, image: image(of), digest: Digest::sha256(b"old") };
    Dependent {
        name: name(text),
        enabled: true,
        trigger: BaseImageTrigger::default(),
        bases: bases.iter().map(base).collect(),
        makes: makes.iter().map(|of| image(of)).collect(),
    }
}

fn change(of: &str) -> Change {
    Change { image: image(of), to: Some(Digest::sha256(b"new")) }
}

/// A plan as text: `task@level<parents`.
fn shown(plan: &Plan) -> Vec<String> {
    let of = |member: &PlannedMember| {
        let parents: Vec<&str> =
            member.parents.iter().map(|parent| &plan.members[*parent as usize].task.as_str()[5..]).collect();
        format!("{}@{}<{}", &member.task.as_str()[5..], member.level, parents.join(","))
    };
    plan.members.iter().map(of).collect()
}

fn planned(tasks: Vec<Dependent>, changes: &[Change]) -> Plan {
    plan(&Graph { tasks }, changes, &Apart::default())
}

fn wave(plan: &Plan) -> Wave {
    let member = |member: &PlannedMember| Member {
        task: member.task.clone(),
        level: member.level,
        parents: member.parents.clone(),
        since: Timestamp::from_micros(0),
        state: MemberState::Waiting,
    };
    Wave {
        id: WaveId::from_number(1),
        opened: Timestamp::from_micros(0),
        phase: WavePhase::Running,
        finished: None,
        canceled_by: None,
        changes: Vec::new(),
        origins: BTreeSet::new(),
        cuts: plan.cuts.clone(),
        members: plan.members.iter().map(member).collect(),
    }
}

const NOW: Timestamp = Timestamp::from_micros(5);

#[test]
fn diamonds_are_built_once_after_both_sides() {
    let tasks = vec![
        task("d", &["b", "c", "base"], &["d"]),
        task("b", &["base"], &["b"]),
        task("c", &["base"], &["c"]),
        task("other", &["elsewhere"], &["x"]),
    ];
    let plan = planned(tasks, &[change("base")]);
    assert_eq!(shown(&plan), ["b@0<", "c@0<", "d@1<b,c"]);
    assert_eq!(plan.members[2].images, [image("b"), image("base"), image("c")]);
    assert!(plan.cuts.is_empty() && plan.refused.is_empty());
}

#[test]
fn several_changes_are_one_plan_and_equal_digests_none() {
    let tasks = vec![task("a", &["x", "y"], &["a"]), task("b", &["y"], &[])];
    assert_eq!(shown(&planned(tasks.clone(), &[change("x"), change("y")])), ["a@0<", "b@0<"]);
    let same = Change { image: image("x"), to: Some(Digest::sha256(b"old")) };
    assert_eq!(planned(tasks.clone(), std::slice::from_ref(&same)), Plan::default());
    // What is only asked for is new to everybody.
    assert_eq!(shown(&planned(tasks, &[Change { to: None, ..same }])), ["a@0<"]);
}

#[test]
fn circles_are_cut_and_said() {
    let tasks = vec![task("a", &["base", "b"], &["a"]), task("b", &["a"], &["b"]), task("self", &["me"], &["me"])];
    let plan = planned(tasks.clone(), &[change("base")]);
    assert_eq!(shown(&plan), ["a@0<", "b@1<a"]);
    assert_eq!(plan.cuts, [Cut { task: name("a"), image: image("b"), made_by: name("b") }]);
    // A run of `a` pushed it: `b` follows, and `a` does not begin anew.
    let origin = |text: &str| Apart { origins: BTreeSet::from([name(text).key()]), ..Apart::default() };
    let from_a = super::plan(&Graph { tasks: tasks.clone() }, &[change("a")], &origin("a"));
    assert_eq!((shown(&from_a), from_a.cuts.len()), (vec!["b@0<".to_owned()], 1));
    let own = super::plan(&Graph { tasks }, &[change("me")], &origin("self"));
    assert!(own.members.is_empty());
    assert_eq!(own.cuts, [Cut { task: name("self"), image: image("me"), made_by: name("self") }]);
}

#[test]
fn rules_say_no() {
    let with = |text: &str, kind, set: &dyn Fn(&mut Dependent)| {
        let mut task = task(text, &["base"], &[]);
        task.bases[0].kind = kind;
        set(&mut task);
        task
    };
    let tasks = vec![
        with("off", BaseKind::Runtime, &|task| task.enabled = false),
        with("both", BaseKind::Buildtime, &|task| (task.enabled, task.trigger.enabled) = (false, false)),
        with("no-trigger", BaseKind::Runtime, &|task| task.trigger.enabled = false),
        with("stage", BaseKind::Buildtime, &|_| {}),
        with("all", BaseKind::Buildtime, &|task| task.trigger.follows = Follows::All),
        with("step", BaseKind::Step, &|task| task.trigger.follows = Follows::All),
        with("steps", BaseKind::Step, &|task| task.trigger.steps = true),
        task("child", &["all"], &[]),
    ];
    let plan = planned(tasks, &[change("base")]);
    assert_eq!(shown(&plan), ["all@0<", "steps@0<"]);
    let refused: Vec<(&str, Vec<Rule>)> =
        plan.refused.iter().map(|one| (&one.task.as_str()[5..], one.rules.iter().copied().collect())).collect();
    let expected = [
        ("both", vec![Rule::TaskDisabled, Rule::TriggerDisabled, Rule::RuntimeOnly]),
        ("no-trigger", vec![Rule::TriggerDisabled]),
        ("off", vec![Rule::TaskDisabled]),
        ("stage", vec![Rule::RuntimeOnly]),
        ("step", vec![Rule::NotSteps]),
    ];
    assert_eq!(refused, expected);
    let said = plan.refused[0].why();
    assert!(said.starts_with("the task is disabled; and its base image trigger is disabled; and "), "{said}");
    assert!(plan.refused.iter().all(|one| one.direct));
}

#[test]
fn references_are_told_apart_by_registry() {
    let mut elsewhere = image("base");
    elsewhere.registry = Some(RegistryName::parse("registry.example").expect("valid"));
    let of_elsewhere = Change { image: elsewhere, to: None };
    assert!(planned(vec![task("a", &["base"], &[])], &[of_elsewhere]).members.is_empty());
}

#[test]
fn thousands_of_dependents_are_planned_at_once() {
    // Three levels, and a chain that would end a recursion.
    let mut tasks = vec![task("root-1", &["base"], &["l0-0"])];
    tasks.extend((1..50).map(|n| task(&format!("root-{n}x"), &["base"], &[&format!("l0-{n}")])));
    for n in 0..500 {
        tasks.push(task(&format!("mid-{n}"), &[&format!("l0-{}", n % 50)], &[&format!("l1-{n}")]));
    }
    for n in 0..4450 {
        tasks.push(task(&format!("leaf-{n}"), &[&format!("l1-{}", n % 500)], &[&format!("leaf-{n}")]));
    }
    for n in 0..20_000 {
        tasks.push(task(&format!("chain-{n}"), &[&format!("c{n}")], &[&format!("c{}", n + 1)]));
    }
    let plan = planned(tasks.clone(), &[change("base")]);
    assert_eq!((plan.members.len(), plan.members.last().map(|last| last.level)), (5000, Some(2)));
    let plan = planned(tasks, &[change("c0")]);
    assert_eq!((plan.members.len(), plan.members.last().map(|last| last.level)), (20_000, Some(19_999)));
}

#[test]
fn a_failing_branch_stops_what_stands_on_it_alone() {
    let tasks = vec![
        task("a", &["base"], &["a"]),
        task("b", &["base"], &["b"]),
        task("on-a", &["a"], &["on-a"]),
        task("on-on-a", &["on-a"], &[]),
        task("on-both", &["a", "b"], &[]),
        task("on-b", &["b"], &[]),
    ];
    let plan = planned(tasks, &[change("base")]);
    let mut wave = wave(&plan);
    let run = RunId::from_number;
    assert_eq!(wave.ready(&Pauses::default()), [0, 1]);
    wave.apply(WaveEvent::Started { member: 0, run: run(1) }, NOW).expect("started");
    wave.apply(WaveEvent::Started { member: 1, run: run(2) }, NOW).expect("started");
    assert!(wave.ready(&Pauses::default()).is_empty());
    let failure = Some(RunFailure { reason: "run ca1 Failed".to_owned(), pushed: true });
    let changed = wave.apply(WaveEvent::Ended { member: 0, failure }, NOW).expect("ended");
    let of = |wave: &Wave, wanted: &str| {
        let found = wave.members.iter().position(|member| member.task == name(wanted));
        found.expect(wanted)
    };
    let expected = BTreeSet::from([0, of(&wave, "on-a"), of(&wave, "on-on-a"), of(&wave, "on-both")]);
    assert_eq!(changed.into_iter().collect::<BTreeSet<_>>(), expected);
    let MemberState::Skipped { reason } = &wave.members[of(&wave, "on-a")].state else { panic!("{wave:?}") };
    assert!(reason.contains("has pushed and failed after that") && reason.contains("wave retry w1"), "{reason}");
    wave.apply(WaveEvent::Ended { member: 1, failure: None }, NOW).expect("ended");
    assert_eq!(wave.ready(&Pauses::default()), [of(&wave, "on-b")]);
    wave.apply(WaveEvent::Unchanged { member: of(&wave, "on-b") }, NOW).expect("unchanged");
    assert_eq!(wave.finished, Some(NOW));
    assert_eq!(wave.apply(WaveEvent::Pause, NOW), Err(WaveRefusal::Over));
    // What came to nothing is tried again by itself, in the same order.
    let again = Plan { members: wave.again(), ..Plan::default() };
    assert_eq!(shown(&again), ["a@0<", "on-a@1<a", "on-both@1<a", "on-on-a@2<on-a"]);
}

#[test]
fn a_run_of_a_wave_sets_off_neither_what_led_to_it_nor_what_has_its_turn() {
    let tasks = vec![
        task("a", &["base"], &["a"]),
        task("b", &["a"], &["b"]),
        task("c", &["b"], &[]),
        task("d", &["base"], &[]),
    ];
    let mut wave = wave(&planned(tasks, &[change("base")]));
    wave.origins = BTreeSet::from([name("first").key()]);
    let of =
        |wave: &Wave, text: &str| wave.members.iter().position(|member| member.task == name(text)).expect("member");
    for text in ["a", "d", "b"] {
        let (member, run) = (of(&wave, text), RunId::from_number(1));
        wave.apply(WaveEvent::Started { member, run }, NOW).expect("started");
        if text != "b" {
            wave.apply(WaveEvent::Ended { member, failure: None }, NOW).expect("ended");
        }
    }
    let keys = |texts: &[&str]| texts.iter().map(|text| name(text).key()).collect::<BTreeSet<_>>();
    let built = BTreeMap::new();
    let apart = wave.apart(&name("b"), &built);
    assert_eq!((apart.origins, apart.dealt_with), (keys(&["first", "a", "b"]), keys(&["c"])));
    // Another branch of the wave did not lead to it: what is new of it is built again.
    let tasks = vec![task("d", &["b"], &[]), task("c", &["b"], &[]), task("a", &["b"], &[])];
    let plan = plan(&Graph { tasks }, &[change("b")], &wave.apart(&name("b"), &built));
    assert_eq!((shown(&plan), plan.cuts.len()), (vec!["d@0<".to_owned()], 1));
}

#[test]
fn who_was_left_out_and_built_since_follows_what_is_pushed_after_that() {
    let tasks = vec![
        task("a", &["base"], &["a"]),
        task("b", &["base"], &["b"]),
        task("on-a", &["a"], &["on-a"]),
        task("on-both", &["b", "on-a"], &[]),
    ];
    let mut wave = wave(&planned(tasks, &[change("base")]));
    let run = RunId::from_number;
    wave.apply(WaveEvent::Started { member: 0, run: run(10) }, NOW).expect("started");
    wave.apply(WaveEvent::Started { member: 1, run: run(11) }, NOW).expect("started");
    let failure = Some(RunFailure { reason: "run ca10 Failed".to_owned(), pushed: false });
    wave.apply(WaveEvent::Ended { member: 0, failure }, NOW).expect("ended");
    let left_out = |wave: &Wave, built: Option<u64>| {
        let built = built.map(|number| (name("on-both").key(), run(number)));
        wave.apart(&name("b"), &built.into_iter().collect()).dealt_with.contains(&name("on-both").key())
    };
    assert!(left_out(&wave, None));
    assert!(left_out(&wave, Some(9)), "a run of before does not say that what failed is done without");
    assert!(!left_out(&wave, Some(12)));
    let by = PrincipalName::parse("ann").expect("valid");
    let mut canceled = wave.clone();
    canceled.members[3].state = MemberState::Waiting;
    canceled.apply(WaveEvent::Cancel { by }, NOW).expect("cancelled");
    assert!(left_out(&canceled, None) && !left_out(&canceled, Some(9)));
}

#[test]
fn whoever_has_waited_longest_begins_first() {
    let tasks = vec![task("a", &["base"], &[]), task("b", &["base"], &[]), task("c", &["base"], &[])];
    let mut wave = wave(&planned(tasks, &[change("base")]));
    wave.members[0].since = NOW;
    wave.members[1].since = NOW;
    assert_eq!(wave.ready(&Pauses::default()), [2, 0, 1]);
}

#[test]
fn pause_holds_resume_goes_on_and_cancel_ends() {
    let tasks = vec![task("a", &["base"], &["a"]), task("b", &["a"], &[]), task("c", &["base"], &[])];
    let mut wave = wave(&planned(tasks, &[change("base")]));
    assert_eq!(wave.ready(&Pauses::default()), [0, 1]);
    wave.apply(WaveEvent::Pause, NOW).expect("paused");
    assert!(wave.ready(&Pauses::default()).is_empty());
    wave.apply(WaveEvent::Resume, NOW).expect("resumed");
    wave.apply(WaveEvent::Started { member: 0, run: RunId::from_number(1) }, NOW).expect("started");
    let by = |text: &str| WaveEvent::Cancel { by: PrincipalName::parse(text).expect("valid") };
    let changed = wave.apply(by("ann"), NOW).expect("cancelled");
    assert_eq!(changed, [1, 2]);
    assert_eq!(wave.apply(by("bob"), NOW), Ok(Vec::new()), "once more does no harm");
    assert_eq!(wave.canceled_by.as_ref().map(PrincipalName::as_str), Some("ann"));
    assert_eq!(wave.apply(WaveEvent::Resume, NOW), Err(WaveRefusal::Canceled));
    assert_eq!(wave.finished, None, "a run goes on");
    wave.apply(WaveEvent::Ended { member: 0, failure: None }, NOW).expect("ended");
    assert_eq!(wave.finished, Some(NOW));
}

#[test]
fn what_a_newer_wave_takes_over_holds_nobody_up() {
    let tasks = vec![task("a", &["base"], &["a"]), task("b", &["a"], &[])];
    let mut wave = wave(&planned(tasks, &[change("base")]));
    let by = WaveId::from_number(2);
    let changed = wave.apply(WaveEvent::TakenOver { members: vec![0, 7], by }, NOW).expect("taken over");
    assert_eq!(changed, [0]);
    assert_eq!(wave.ready(&Pauses::default()), [1]);
}

/// Graphs of up to 12 tasks with edges in any direction, circles included.
fn graphs() -> impl Strategy<Value = Graph> {
    let edges = proptest::collection::vec((0_usize..12, 0_usize..14), 0..40);
    edges.prop_map(|edges| {
        let mut bases: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (task, on) in edges {
            bases.entry(task).or_default().push(if on < 12 { format!("i{on}") } else { "base".to_owned() });
        }
        let of = |n: usize| {
            let bases = bases.get(&n).cloned().unwrap_or_default();
            task(&n.to_string(), &bases.iter().map(String::as_str).collect::<Vec<_>>(), &[&format!("i{n}")])
        };
        Graph { tasks: (0..12).map(of).collect() }
    })
}

/// What stands on what, however far: by asking again and again.
fn reachable(graph: &Graph, changed: &ImageTag) -> BTreeSet<TaskName> {
    let mut images = BTreeSet::from([changed.clone()]);
    let mut tasks = BTreeSet::new();
    loop {
        let before = tasks.len();
        for task in &graph.tasks {
            if task.bases.iter().any(|base| images.contains(&base.image)) {
                tasks.insert(task.name.clone());
                images.extend(task.makes.iter().cloned());
            }
        }
        if tasks.len() == before {
            return tasks;
        }
    }
}

proptest! {
    #[test]
    fn everybody_is_in_it_once_and_after_their_bases(graph in graphs()) {
        let plan = plan(&graph, &[change("base")], &Apart::default());
        let members: BTreeSet<TaskName> = plan.members.iter().map(|member| member.task.clone()).collect();
        prop_assert_eq!(members.len(), plan.members.len());
        prop_assert_eq!(&members, &reachable(&graph, &image("base")));
        let place: BTreeMap<&TaskName, usize> =
            plan.members.iter().enumerate().map(|(place, member)| (&member.task, place)).collect();
        for task in &graph.tasks {
            let Some(own) = place.get(&task.name) else { continue };
            for base in &task.bases {
                let Some(maker) = graph.tasks.iter().find(|other| other.makes.contains(&base.image)) else { continue };
                let Some(before) = place.get(&maker.name) else { continue };
                let waits = plan.members[*own].parents.contains(&(*before as u32));
                let cut = Cut { task: task.name.clone(), image: base.image.clone(), made_by: maker.name.clone() };
                prop_assert!(waits != plan.cuts.contains(&cut), "each edge is kept or cut");
                prop_assert!(!waits || before < own);
            }
        }
        prop_assert_eq!(&plan, &super::plan(&graph, &[change("base")], &Apart::default()));
    }

    #[test]
    fn every_wave_ends_whatever_happens(
        graph in graphs(),
        choices in proptest::collection::vec((0_u8..8, any::<usize>()), 1..200),
    ) {
        let plan = plan(&graph, &[change("base")], &Apart::default());
        let mut wave = wave(&plan);
        let mut runs = 0;
        let mut started: BTreeMap<usize, u32> = BTreeMap::new();
        let mut gone = BTreeSet::new();
        // What is chosen, and then everything to its end.
        let rest = std::iter::repeat_n((0_u8, 0_usize), 200);
        for (kind, index) in choices.into_iter().chain(rest) {
            if wave.finished.is_some() || wave.members.is_empty() {
                break;
            }
            let running: Vec<usize> = (0..wave.members.len())
                .filter(|place| matches!(wave.members[*place].state, MemberState::Running { .. }))
                .collect();
            prop_assert_eq!(running.len(), wave.running());
            let ready = wave.ready(&Pauses::default());
            let before = wave.clone();
            let event = match kind {
                1 if !running.is_empty() => {
                    WaveEvent::Ended { member: running[index % running.len()], failure: Some(RunFailure { reason: "it failed".to_owned(), pushed: index % 2 == 0 }) }
                }
                2 => WaveEvent::Pause,
                3 => WaveEvent::TakenOver { members: vec![index % wave.members.len()], by: WaveId::from_number(9) },
                4 if !ready.is_empty() => WaveEvent::Unchanged { member: ready[index % ready.len()] },
                5 if !ready.is_empty() => {
                    gone.insert(ready[index % ready.len()]);
                    WaveEvent::Gone { member: ready[index % ready.len()], reason: "gone".to_owned() }
                }
                6 => WaveEvent::Ended { member: index % wave.members.len(), failure: None },
                7 if runs > 8 => WaveEvent::Cancel { by: PrincipalName::parse("ann").expect("valid") },
                _ if !ready.is_empty() => {
                    runs += 1;
                    let member = ready[index % ready.len()];
                    *started.entry(member).or_default() += 1;
                    WaveEvent::Started { member, run: RunId::from_number(runs) }
                }
                _ if !running.is_empty() => WaveEvent::Ended { member: running[index % running.len()], failure: None },
                _ => WaveEvent::Resume,
            };
            match wave.apply(event, NOW) {
                Err(_) => prop_assert_eq!(&wave, &before, "a refused event changes nothing"),
                Ok(changed) => {
                    let differs = (0..wave.members.len()).filter(|place| wave.members[*place] != before.members[*place]);
                    prop_assert_eq!(differs.collect::<BTreeSet<_>>(), changed.into_iter().collect::<BTreeSet<_>>());
                }
            }
            for (place, member) in before.members.iter().enumerate() {
                prop_assert!(!member.state.is_over() || member == &wave.members[place], "what is over stays");
            }
        }
        prop_assert!(wave.finished.is_some() || wave.members.is_empty());
        prop_assert!(started.values().all(|count| *count == 1), "each once");
        for member in &wave.members {
            let failed = |parent: &&u32| !wave.members[**parent as usize].state.lets_go_on();
            if let MemberState::Done { .. } | MemberState::Unchanged = member.state {
                prop_assert!(!member.parents.iter().any(|parent| failed(&parent)));
            }
        }
        for (place, member) in wave.members.iter().enumerate() {
            if let MemberState::Skipped { .. } = member.state {
                let stops = |parent: &u32| !wave.members[*parent as usize].state.lets_go_on();
                prop_assert!(gone.contains(&place) || member.parents.iter().any(stops), "for a reason of its own branch");
            }
        }
        let again = wave.again();
        prop_assert_eq!(again.len(), wave.members.iter().filter(|member| !member.state.lets_go_on()).count());
        for (place, member) in again.iter().enumerate() {
            prop_assert!(member.parents.iter().all(|parent| (*parent as usize) < place), "after their bases");
        }
    }
}
