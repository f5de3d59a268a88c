//! The room that all waves share, and who takes it.

use super::*;

#[tokio::test]
async fn all_waves_share_the_room_and_none_waits_for_a_large_one() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    for number in 0..6 {
        world.make(&format!("large-{number}"), follows(true)).await;
        world.run(&format!("large-{number}"), "1", &one).await;
    }
    world.make("small", follows(true)).await;
    world.run("small", "2", &two).await;
    world.push("1", "new one").await;
    world.open().await;
    world.push("2", "new two").await;
    world.pass().await;
    let running = |wave: &str| wave.matches("=running").count();
    let waves = world.waves().await;
    assert_eq!(waves.iter().map(|wave| running(wave)).collect::<Vec<_>>(), [3, 1], "{waves:?}");
    // A place is free only when a run has ended.
    world.pass().await;
    let id = world.member_run(2, "small").await;
    world.start(id).await;
    world.end(id, "2", None).await;
    world.pass().await;
    let waves = world.waves().await;
    assert_eq!(waves.iter().map(|wave| running(wave)).collect::<Vec<_>>(), [4, 0], "{waves:?}");
}

#[tokio::test]
async fn the_principals_whose_tasks_are_in_a_wave_share_the_room() {
    let world = World::new().await;
    testing::token(&world.core, "bob", &["run", "repository:*:pull"]).await;
    let one = world.push("1", "one").await;
    let text = "steps:\n  - cmd: localhost:5000/base:1 true\n";
    for (owner, count) in [("ann", 8), ("bob", 3)] {
        for number in 0..count {
            let task = format!("{owner}-{number}");
            world.make_for(owner, &task, text, follows(true)).await;
            world.run(&task, "1", &one).await;
        }
    }
    world.push("1", "two").await;
    world.pass().await;
    let waves = world.waves().await;
    let running = |owner: &str| (0..8).filter(|n| waves[0].contains(&format!(" {owner}-{n}=running"))).count();
    assert_eq!((running("ann"), running("bob")), (2, 2), "{waves:?}");
}

#[tokio::test]
async fn a_paused_wave_takes_room_for_what_runs_and_for_nothing_that_waits() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    for number in 0..6 {
        world.make(&format!("paused-{number}"), follows(true)).await;
        world.run(&format!("paused-{number}"), "1", &one).await;
        world.make_of(&format!("other-{number}"), "steps:\n  - cmd: localhost:5000/base:2 true\n", follows(true)).await;
        world.run(&format!("other-{number}"), "2", &two).await;
    }
    world.push("1", "new one").await;
    world.pass().await;
    let (first, ann) = (WaveId::from_number(1), testing::principal("ann"));
    steer(&world.core, first, WaveEvent::Pause, &ann).await.expect("paused");
    world.push("2", "new two").await;
    world.pass().await;
    let running = async || world.waves().await.iter().map(|wave| wave.matches("=running").count()).collect::<Vec<_>>();
    assert_eq!(running().await, [4, 0], "they go on, and use the agents");
    for number in 0..2 {
        let run = world.member_run(1, &format!("paused-{number}")).await;
        world.start(run).await;
        world.end(run, "1", None).await;
    }
    world.pass().await;
    assert_eq!(running().await, [2, 2], "the two that wait take no room");
    steer(&world.core, first, WaveEvent::Cancel { by: ann.clone() }, &ann).await.expect("cancelled");
    world.pass().await;
    assert_eq!(running().await, [0, 4], "and those that are cancelled only until they end");
}

#[tokio::test]
async fn a_look_does_not_wait_for_those_that_are_on_their_way() {
    let mut world = World::new().await;
    Arc::get_mut(&mut world.core).expect("nobody else has it").wave_concurrency = 32;
    let one = world.push("1", "one").await;
    for number in 0..24 {
        world.make(&format!("many-{number}"), follows(true)).await;
        world.run(&format!("many-{number}"), "1", &one).await;
    }
    world.push("1", "two").await;
    let mut waves = world.waves_loop();
    let all = async {
        // More flights than the store has connections, for which the loop that lets them land waits, too.
        for _ in 0..50 {
            waves.look().await.expect("a look");
            if let Some(landed) = waves.flights.join_next_with_id().await {
                waves.landed(landed).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("nothing waits for ever");
    let waves = world.waves().await;
    assert_eq!(waves[0].matches("=running").count(), 24, "{waves:?}");
}

#[tokio::test]
async fn runs_that_no_agent_takes_keep_the_room_for_a_while_alone() {
    let world = World::new().await;
    let one = world.push("1", "one").await;
    for number in 0..5 {
        world.make(&format!("many-{number}"), follows(true)).await;
        world.run(&format!("many-{number}"), "1", &one).await;
    }
    world.push("1", "two").await;
    world.pass().await;
    let running = async || world.waves().await[0].matches("=running").count();
    assert_eq!(running().await, 4);
    let told = world.why(1, "many-4").await;
    assert_eq!(told, "no room: 4 runs go on in waves, and 4 may (`--wave-concurrency`)");
    world.clock.advance(Duration::from_secs(540));
    world.pass().await;
    assert_eq!(running().await, 4);
    world.clock.advance(Duration::from_secs(61));
    world.pass().await;
    assert_eq!(running().await, 5);
}

#[tokio::test]
async fn whose_runs_no_agent_takes_has_a_turn_all_the_same() {
    let world = World::new().await;
    testing::token(&world.core, "bob", &["run", "repository:*:pull"]).await;
    let one = world.push("1", "one").await;
    let two = world.push("2", "two").await;
    let text = |tag: &str| format!("steps:\n  - cmd: localhost:5000/base:{tag} true\n");
    for number in 0..4 {
        world.make(&format!("away-{number}"), follows(true)).await;
        world.run(&format!("away-{number}"), "1", &one).await;
    }
    for number in 0..6 {
        world.make_for("bob", &format!("many-{number}"), &text("2"), follows(true)).await;
        world.run(&format!("many-{number}"), "2", &two).await;
    }
    world.make_of("last-one", &text("2"), follows(true)).await;
    world.run("last-one", "2", &two).await;
    world.push("1", "new one").await;
    world.pass().await;
    assert_eq!(world.waves().await[0].matches("=running").count(), 4);
    // Nobody takes them: others have the room, and what else there is of ann has its share of it.
    world.clock.advance(Duration::from_secs(601));
    world.push("2", "new two").await;
    world.pass().await;
    let waves = world.waves().await;
    assert_eq!(waves[1].matches("=running").count(), 4, "{waves:?}");
    assert!(waves[1].contains("last-one=running"), "{waves:?}");
}
