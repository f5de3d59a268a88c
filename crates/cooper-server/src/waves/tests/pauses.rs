//! What pauses hold, and what becomes of it when they end: nobody is built twice, and nobody is forgotten.

use std::collections::BTreeSet;

use cooper_engine::wave::MemberState;

use super::chains::{make, two_levels};
use super::*;

impl World {
    async fn steer(&self, wave: u64, event: WaveEvent) {
        let ann = testing::principal("ann");
        steer(&self.core, WaveId::from_number(wave), event, &ann).await.expect("steered");
    }

    async fn cancel(&self, wave: u64) {
        self.steer(wave, WaveEvent::Cancel { by: testing::principal("ann") }).await;
    }

    /// How a wave stands, in a word.
    async fn status(&self, wave: u64) -> &'static str {
        let stored = self.core.waves.find_wave(WaveId::from_number(wave)).await.expect("store").expect("wave");
        stored.wave.phase.status(stored.wave.finished.is_some(), false)
    }

    /// Ends the run of a member that stood on `base:1`.
    async fn member_ends(&self, wave: u64, task: &str, digest: &Digest) {
        let run = self.member_run(wave, task).await;
        self.start(run).await;
        self.end(run, "1", Some(digest)).await;
        self.pass().await;
    }
}

/// A paused wave with two tasks, and a newer one that has a third.
async fn behind_a_pause() -> (World, Digest) {
    let (world, one) = two_tasks().await;
    world.push("1", "two").await;
    world.open().await;
    world.steer(1, WaveEvent::Pause).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 paused first=waiting other=waiting"]);
    world.make("newer", follows(true)).await;
    world.run("newer", "1", &one).await;
    let three = world.push("1", "three").await;
    world.pass().await;
    let expected = ["w1 paused first=waiting other=waiting", "w2 running first=waiting newer=running other=waiting"];
    assert_eq!(world.waves().await, expected);
    assert_eq!(world.count().await, 4);
    (world, three)
}

#[tokio::test]
async fn a_pause_holds_whatever_is_pushed_and_each_is_built_once_after_it() {
    let (world, three) = behind_a_pause().await;
    world.member_ends(2, "newer", &three).await;
    assert_eq!(world.waves().await[1], "w2 running first=waiting newer=done other=waiting");
    assert_eq!(world.status(2).await, "Running", "two of its members are not built");
    let told = world.why(2, "first").await;
    assert!(told.contains("w1") && told.contains("wave resume w1") && told.contains("wave cancel w1"), "{told}");
    world.steer(1, WaveEvent::Resume).await;
    world.pass().await;
    assert!(world.waves().await[0].starts_with("w1 running first=running "), "{:?}", world.waves().await);
    let run = world.find(world.member_run(1, "first").await).await;
    let Cause::BaseImage { images, .. } = &run.origin.cause else { panic!("{:?}", run.origin.cause) };
    assert_eq!(images[0].to, three, "what is newest counts");
    // Each in one of the waves, which share the room.
    for task in ["first", "other"] {
        let wave = if world.waves().await[0].contains(&format!("{task}=running")) { 1 } else { 2 };
        world.member_ends(wave, task, &three).await;
    }
    let expected = ["w1 over first=done other=unchanged", "w2 over first=unchanged newer=done other=done"];
    assert_eq!(world.waves().await, expected);
    assert_eq!(world.count().await, 6, "each once");
}

#[tokio::test]
async fn what_a_cancelled_pause_held_is_built_by_the_newer_wave() {
    let (world, three) = behind_a_pause().await;
    world.member_ends(2, "newer", &three).await;
    world.cancel(1).await;
    // It says whose they are now, and no task is told that nobody builds it.
    assert_eq!(world.waves().await[0], "w1 over first=takenOver other=takenOver");
    assert_eq!(world.core.waves.list_refusals(&name("first"), 10).await.expect("store"), []);
    world.pass().await;
    assert_eq!(world.waves().await[1], "w2 running first=running newer=done other=running");
    for task in ["first", "other"] {
        world.member_ends(2, task, &three).await;
    }
    assert_eq!(world.waves().await[1], "w2 over first=done newer=done other=done");
    assert_eq!(world.count().await, 6, "each once");
}

#[tokio::test]
async fn who_is_behind_two_pauses_waits_for_both() {
    let (world, three) = behind_a_pause().await;
    world.member_ends(2, "newer", &three).await;
    world.steer(2, WaveEvent::Pause).await;
    let four = world.push("1", "four").await;
    world.pass().await;
    assert_eq!(world.waves().await[2], "w3 running first=waiting newer=running other=waiting");
    world.member_ends(3, "newer", &four).await;
    // The older one goes on, and the newer one holds the same tasks still.
    world.steer(1, WaveEvent::Resume).await;
    world.pass().await;
    let expected = [
        "w1 running first=waiting other=waiting",
        "w2 paused first=waiting newer=done other=waiting",
        "w3 running first=waiting newer=done other=waiting",
    ];
    assert_eq!(world.waves().await, expected);
    world.cancel(2).await;
    world.pass().await;
    for task in ["first", "other"] {
        let waves = world.waves().await;
        let wave = if waves[0].contains(&format!("{task}=running")) { 1 } else { 3 };
        world.member_ends(wave, task, &four).await;
    }
    let waves = world.waves().await;
    assert!(waves.iter().all(|wave| wave.contains(" over ")), "{waves:?}");
    assert_eq!(waves[1], "w2 over first=takenOver newer=done other=takenOver");
    assert_eq!(world.count().await, 7, "each once");
}

#[tokio::test]
async fn a_pause_that_comes_between_asking_and_accepting_holds() {
    let (world, _) = behind_a_pause().await;
    world.steer(1, WaveEvent::Resume).await;
    let mut waves = world.waves_loop();
    waves.look().await.expect("a look");
    while let Some(landed) = waves.flights.join_next_with_id().await {
        waves.all_landed(landed).await;
    }
    let ready = waves.ready.pop_front().expect("one whose run is asked for");
    // Whichever of the waves it was asked for in, the other one holds it now.
    let other = 3 - ready.turn.wave.number();
    world.steer(other, WaveEvent::Pause).await;
    let before = world.count().await;
    let outcome = turn::accept(Arc::clone(&world.core), ready).await.expect("store");
    assert!(matches!(outcome, Outcome::Stale));
    for _ in 0..2 {
        waves.look().await.expect("a look");
        while let Some(landed) = waves.flights.join_next_with_id().await {
            waves.all_landed(landed).await;
        }
    }
    assert_eq!(world.count().await, before);
}

#[tokio::test]
async fn a_task_that_waits_in_two_waves_is_asked_for_in_one_and_begins_in_one() {
    let (world, three) = behind_a_pause().await;
    world.member_ends(2, "newer", &three).await;
    world.steer(1, WaveEvent::Resume).await;
    let mut waves = world.waves_loop();
    for _ in 0..2 {
        waves.look().await.expect("a look");
        while let Some(landed) = waves.flights.join_next_with_id().await {
            // As where there is no room: those whose runs are asked for wait.
            waves.landed(landed).await;
        }
        if !waves.ready.is_empty() {
            break;
        }
    }
    let ready: Vec<Ready> = waves.ready.drain(..).collect();
    let tasks: BTreeSet<String> = ready.iter().map(|ready| ready.turn.task.to_string()).collect();
    assert_eq!((ready.len(), tasks.len()), (2, 2), "{tasks:?}");
    // Another server is faster, in whichever wave, and that has ended by now.
    for task in ["first", "other"] {
        world.pass().await;
        let wave = if world.waves().await[0].contains(&format!("{task}=running")) { 1 } else { 2 };
        world.member_ends(wave, task, &three).await;
    }
    let before = world.count().await;
    for late in ready {
        let outcome = turn::accept(Arc::clone(&world.core), late).await.expect("store");
        assert!(matches!(outcome, Outcome::Stale));
    }
    assert_eq!(world.count().await, before);
}

#[tokio::test]
async fn how_long_others_go_first_counts_from_the_end_of_a_pause() {
    let world = two_levels().await;
    world.push_to("side", "side one").await;
    world.built("upper", &["lower", "side"], "upper with side").await;
    world.push_to("base", "base two").await;
    world.open().await;
    world.steer(1, WaveEvent::Pause).await;
    world.push_to("side", "side two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 paused lower=waiting upper=waiting", "w2 running upper=waiting"]);
    world.clock.advance(Duration::from_secs(3600));
    world.steer(1, WaveEvent::Resume).await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running lower=running upper=waiting", "w2 running upper=waiting"]);
    let before = world.count().await;
    world.member_built(1, "lower", &["base"], "lower two").await;
    world.pass().await;
    let wave = if world.waves().await[0].contains("upper=running") { 1 } else { 2 };
    world.member_built(wave, "upper", &["lower", "side"], "upper two").await;
    for _ in 0..2 {
        world.pass().await;
    }
    assert_eq!(world.count().await, before + 1, "{:?}", world.waves().await);
    assert!(world.waves().await.iter().all(|wave| wave.contains(" over ")), "{:?}", world.waves().await);
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % limit as u64).expect("small")
    }
}

const TASKS: [(&str, &[&str]); 4] =
    [("lower", &["base"]), ("other", &["base", "side"]), ("upper", &["lower"]), ("above", &["upper", "other"])];

/// A game of pushes, pauses, resumptions, cancellations and builds.
struct Game {
    world: World,
    dice: Dice,
    pushes: u32,
}

impl Game {
    async fn new(seed: u64) -> Self {
        let world = World::new().await;
        world.push_to("base", "base zero").await;
        world.push_to("side", "side zero").await;
        let mut game = Self { world, dice: Dice(seed), pushes: 0 };
        for (task, bases) in TASKS {
            make(&game.world, task).await;
            let content = game.content(task, bases).await;
            game.world.built(task, bases, &content).await;
        }
        game.world.pass().await;
        assert_eq!(game.world.waves().await, [""; 0]);
        game
    }

    /// What a task makes of its bases: the same of the same.
    async fn content(&mut self, task: &str, bases: &[&str]) -> String {
        let mut content = task.to_owned();
        for base in bases {
            let digest = self.world.core.waves.known_digest(&super::chains::image(base)).await.expect("store");
            content.push_str(&digest.expect("pushed").to_string());
        }
        content
    }

    async fn open_waves(&self) -> Vec<StoredWave> {
        let mut open = Vec::new();
        for head in self.world.core.waves.open_waves(AGENTLESS).await.expect("store") {
            open.extend(self.world.core.waves.find_wave(head.id).await.expect("store"));
        }
        open
    }

    fn members(waves: &[StoredWave], is: impl Fn(&MemberState) -> bool) -> Vec<(WaveId, String, Option<RunId>)> {
        let of = |stored: &StoredWave| {
            let members = stored.wave.members.iter().filter(|member| is(&member.state));
            let told = members.map(|member| (stored.wave.id, member.task.to_string(), member.state.run()));
            told.collect::<Vec<_>>()
        };
        waves.iter().flat_map(of).collect()
    }

    /// Lets waves go on, and looks whom they have begun.
    async fn pass(&self) {
        let before = self.open_waves().await;
        let is_running = |state: &MemberState| matches!(state, MemberState::Running { .. });
        let old: BTreeSet<Option<RunId>> =
            Self::members(&before, is_running).into_iter().map(|(_, _, run)| run).collect();
        let paused: Vec<StoredWave> =
            before.into_iter().filter(|stored| stored.wave.phase == WavePhase::Paused).collect();
        let held: BTreeSet<String> = Self::members(&paused, |state| *state == MemberState::Waiting)
            .into_iter()
            .map(|(_, task, _)| task)
            .collect();
        self.world.pass().await;
        let running = Self::members(&self.open_waves().await, is_running);
        let tasks: BTreeSet<&String> = running.iter().map(|(_, task, _)| task).collect();
        assert_eq!(tasks.len(), running.len(), "one run of each at a time: {running:?}");
        for (wave, task, run) in &running {
            assert!(old.contains(run) || !held.contains(task), "{task} begins in {wave} and is held by a pause");
        }
    }

    /// Ends the run of a member as an agent does.
    async fn end_one(&mut self) {
        let running = Self::members(&self.open_waves().await, |state| matches!(state, MemberState::Running { .. }));
        if running.is_empty() {
            return;
        }
        let (_, task, run) = running[self.dice.below(running.len())].clone();
        let run = run.expect("it runs");
        if matches!(self.world.find(run).await.phase, Phase::Ending { .. }) {
            let fence = self.world.find(run).await.last_fence;
            self.world.core.apply(run, RunEvent::Stopped { fence }).await.expect("stopped");
            return;
        }
        let bases = TASKS.iter().find(|(name, _)| *name == task).expect("a task").1;
        if self.world.find(run).await.started.is_none() {
            self.world.start(run).await;
        }
        let content = self.content(&task, bases).await;
        self.world.builds(run, bases, &content).await;
        self.world.passes(run, true).await;
    }

    async fn act(&mut self) {
        let open = self.open_waves().await;
        let pick = |dice: &mut Dice, phase: WavePhase| {
            let ids: Vec<u64> =
                open.iter().filter(|one| one.wave.phase == phase).map(|one| one.wave.id.number()).collect();
            (!ids.is_empty()).then(|| ids[dice.below(ids.len())])
        };
        match self.dice.below(10) {
            0 | 1 => {
                self.pushes += 1;
                let base = ["base", "side"][self.dice.below(2)];
                self.world.push_to(base, &format!("{base} {}", self.pushes)).await;
            }
            2 | 3 => {
                if let Some(wave) = pick(&mut self.dice, WavePhase::Running) {
                    self.world.steer(wave, WaveEvent::Pause).await;
                }
            }
            4 => {
                if let Some(wave) = pick(&mut self.dice, WavePhase::Paused) {
                    self.world.steer(wave, WaveEvent::Resume).await;
                }
            }
            5 => {
                if let Some(wave) = pick(&mut self.dice, WavePhase::Paused) {
                    self.world.cancel(wave).await;
                }
            }
            6 => self.world.clock.advance(Duration::from_secs(600)),
            _ => self.end_one().await,
        }
        self.pass().await;
    }

    /// Resumes and builds until every wave is over.
    async fn end(&mut self) {
        for _ in 0..200 {
            let open = self.open_waves().await;
            if open.is_empty() {
                return;
            }
            for stored in open.iter().filter(|stored| stored.wave.phase == WavePhase::Paused) {
                self.world.steer(stored.wave.id.number(), WaveEvent::Resume).await;
            }
            self.end_one().await;
            self.world.clock.advance(Duration::from_secs(60));
            self.pass().await;
        }
        panic!("waves that never end: {:?}", self.world.waves().await);
    }

    /// Everybody stands on what there is, except for those whose newest wave people have cancelled.
    async fn check(&self) {
        let mut newest = BTreeMap::new();
        for summary in self.world.core.waves.list_waves(1000).await.expect("store").into_iter().rev() {
            let stored = self.world.core.waves.find_wave(summary.wave.id).await.expect("store").expect("wave");
            for member in &stored.wave.members {
                newest.insert(member.task.to_string(), (stored.wave.id, stored.wave.phase, member.state.clone()));
                if let MemberState::TakenOver { by } = member.state {
                    let is_left = by > stored.wave.id || stored.wave.phase == WavePhase::Canceled;
                    assert!(is_left, "{by} is older: {:?}", self.world.waves().await);
                }
            }
        }
        for (task, _) in TASKS {
            let bases = self.world.core.waves.task_bases(&name(task), WaveId::from_number(1)).await.expect("store");
            let is_canceled = newest.get(task).is_some_and(|(_, phase, _)| *phase == WavePhase::Canceled);
            assert!(bases.moved.is_empty() || is_canceled, "{task}: {newest:?} {:?}", self.world.waves().await);
        }
        assert_eq!(self.world.core.waves.base_changes(10).await.expect("store"), []);
    }
}

#[tokio::test]
async fn whatever_is_pushed_paused_and_cancelled_everybody_is_built_on_what_is_newest() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut game = Game::new(seed).await;
        for _ in 0..40 {
            game.act().await;
        }
        game.end().await;
        game.check().await;
    }
}
