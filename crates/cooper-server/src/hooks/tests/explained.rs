//! What is said of what started nothing and is kept nowhere, and of looks to come.

use super::registering::Forge;
use super::*;

impl World {
    async fn why_not(&self, task: &str) -> String {
        let (status, text) = self.call("GET", &format!("/api/v1/tasks/{task}/refusals"), None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }
}

#[tokio::test]
async fn what_leaves_nothing_but_a_counter_is_counted_with_the_last_reason() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"branches": ["main"], "events": ["commit"]})).await;
    assert_eq!(world.why_not("nightly").await, json!({"value": []}).to_string());
    for (delivery, branch) in [("d1", "topic"), ("d2", "other")] {
        let (headers, body) = world.generic(&hook, &push(REPOSITORY, delivery, branch, 'a'));
        assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::PassedOver);
    }
    let why_not = world.why_not("nightly").await;
    assert!(why_not.contains("2 were passed over and 0 refused"), "{why_not}");
    assert!(why_not.contains("other") && !why_not.contains("topic"), "the last one's reason: {why_not}");
}

#[tokio::test]
async fn a_refusal_is_told_whatever_came_to_something_after_it() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"branches": ["main"], "paths": ["src/**"]})).await;
    let deliver = async |delivery: String, file: &str, commit: char| {
        let mut event = push(REPOSITORY, &delivery, "main", commit);
        event["files"] = json!([file]);
        let (headers, body) = world.generic(&hook, &event);
        assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
        world.pass().await;
    };
    deliver("docs".to_owned(), "README.md", 'a').await;
    for number in 0..20 {
        deliver(format!("code-{number}"), "src/main.rs", char::from(b'b' + number % 5)).await;
    }
    assert!(world.why_not("nightly").await.contains("README.md"), "{}", world.why_not("nightly").await);
}

#[tokio::test]
async fn timers_that_stand_still_are_named_with_the_way_out() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({})).await;
    let patch = async |change: serde_json::Value| {
        let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
    };
    let timers =
        |status: &str| json!({"t1": {"schedule": "0 2 * * *"}, "t2": {"schedule": "0 3 * * *", "status": status}});
    patch(json!({"timers": timers("Enabled")})).await;
    assert!(!world.why_not("nightly").await.contains("timer"));
    patch(json!({"timers": timers("Disabled")})).await;
    let why_not = world.why_not("nightly").await;
    assert!(
        why_not.contains("instants of timer t2\"") && why_not.contains("--timer-name NAME --enabled true"),
        "{why_not}"
    );
    patch(json!({"status": "Disabled"})).await;
    let why_not = world.why_not("nightly").await;
    assert!(
        why_not.contains("instants of timer t1, t2\"") && why_not.contains("`cooper task enable nightly`"),
        "{why_not}"
    );
}

#[tokio::test]
async fn a_delivery_that_came_again_is_marked() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({})).await;
    for delivery in ["d1", "d2", "d1"] {
        let (headers, body) = world.generic(&hook, &push(REPOSITORY, delivery, "main", 'a'));
        world.take(&hook, &headers, &body).await;
        world.clock.advance(Duration::from_secs(1));
    }
    let again: Vec<_> = world.hooks("nightly").await.deliveries.into_iter().map(|one| (one.id, one.again)).collect();
    let third = Timestamp::from_micros(START).after(Duration::from_secs(2));
    assert_eq!(again, [("d2".to_owned(), None), ("d1".to_owned(), Some(third))]);
}

#[tokio::test]
async fn the_next_look_is_when_this_server_makes_it() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github", "events": ["commit"]})).await;
    forge.point(&[("refs/heads/main", 'a')]);
    missed::look(&world.core, Settings::DEFAULT_SOURCE_POLL, true, None).await.expect("store");
    let next = async || world.hooks("nightly").await.looks[0].next_time;
    assert_eq!(next().await, Timestamp::from_micros(START).after(Settings::DEFAULT_SOURCE_POLL));
    // As after a restart with another period.
    let (period, stop) = (Duration::from_secs(20), CancellationToken::new());
    let looks = tokio::spawn(missed::run(world.core.clone(), period, stop.clone()));
    let sooner = async {
        while next().await > Timestamp::from_micros(START).after(period) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), sooner).await.expect("the server's own plan is told");
    stop.cancel();
    looks.await.expect("it stops");
}
