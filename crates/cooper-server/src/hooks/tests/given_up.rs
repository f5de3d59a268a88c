//! Statuses of a forge that stays away: when it is asked, and when no more.

use super::*;

#[tokio::test]
async fn a_forge_that_stays_away_is_asked_for_about_a_day_and_then_when_somebody_asks_for_it() {
    let (world, forge) = (World::new().await, registering::Forge::start().await);
    let place = format!("http://{}", forge.authority);
    let trigger = json!({"provider": "github", "skipCi": false});
    let hook = world.task("nightly", &format!("{place}/acme/shop.git"), trigger).await;
    world.give_token("nightly", &forge).await;
    let (headers, body) = fixture("github/push");
    let body = String::from_utf8(body).expect("text").replace("https://github.com", &place).into_bytes();
    world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    world.pass().await;
    let run = world.runs().await[0].id;
    let shown = async || {
        let (_, text) = world.call("GET", "/api/v1/tasks/nightly/notifications", None).await;
        serde_json::from_str::<NotificationList>(&text).expect("a list").value.remove(0)
    };
    forge.refuse(503);
    let mut pauses: Vec<Duration> = Vec::new();
    while let Some(next) = statuses::pass(&world.core).await.expect("store") {
        assert_eq!(forge.asked(), pauses.len() + 1, "once each time");
        let view = shown().await;
        assert_eq!((view.status, view.attempts as usize), (DeliveryStatus::Waiting, pauses.len() + 1));
        let pause = next.since(world.clock.now());
        pauses.push(pause);
        assert!(pauses.len() < 1000, "it is given up");
        world.clock.advance(pause);
    }
    assert!(pauses.is_sorted() && pauses[0] == Duration::from_secs(10), "{pauses:?}");
    assert_eq!(pauses.last(), Some(&Duration::from_secs(2 * 3600)));
    let hours = pauses.iter().sum::<Duration>().as_secs() / 3600;
    assert!((20..28).contains(&hours), "{hours}");
    let asked = forge.asked();
    let view = shown().await;
    assert_eq!((view.status, view.attempts as usize, asked), (DeliveryStatus::Failed, asked, pauses.len() + 1));
    assert!(view.reason.as_deref().is_some_and(|why| why.contains("503")), "{view:?}");
    world.clock.advance(Duration::from_secs(7 * 24 * 3600));
    assert_eq!((statuses::pass(&world.core).await.expect("store"), forge.asked()), (None, asked));
    // It begins anew then, with as much patience.
    let path = format!("/api/v1/tasks/nightly/notifications/{run}/redeliver");
    assert_eq!(world.call("POST", &path, None).await.0, StatusCode::OK);
    let next = statuses::pass(&world.core).await.expect("store");
    assert_eq!((next, forge.asked()), (Some(world.clock.now().after(pauses[0])), asked + 1));
}
