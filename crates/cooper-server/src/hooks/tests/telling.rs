//! Commit statuses: when they are due, who is told, and why a forge was not.

use super::*;

#[tokio::test]
async fn a_forge_that_does_not_answer_keeps_no_other_from_being_told() {
    let (world, forge) = (World::new().await, registering::Forge::start().await);
    // It takes connections and says nothing.
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = slow.local_addr().expect("an address").to_string();
    let runs_at = async |task: &str, authority: &str, pushes: usize| {
        let context = format!("http://{authority}/acme/shop.git");
        let hook = world.task(task, &context, json!({"provider": "github", "skipCi": false})).await;
        let path = format!("/api/v1/tasks/{task}/credentials/{authority}");
        let token = json!({"username": "git", "password": "t0ken"});
        let (status, text) = world.call("PUT", &path, Some(token)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let (headers, body) = fixture("github/push");
        let text = String::from_utf8(body).expect("text").replace("https://github.com", &format!("http://{authority}"));
        for push in 0..pushes {
            let headers = headers.iter().map(|(name, value)| match name.as_str() {
                "X-GitHub-Delivery" => (name.clone(), format!("{task}-{push}")),
                _ => (name.clone(), value.clone()),
            });
            let body = text.replace(&"2".repeat(40), &format!("{:040x}", 0xabc_0000 + push)).into_bytes();
            let headers = signed(&hook, headers.collect(), &body, world.clock.now());
            assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
        }
        world.pass().await;
        world.clock.advance(Duration::from_secs(1));
    };
    runs_at("silent", &silent, 6).await;
    let due = world.core.statuses.due_statuses(world.clock.now(), 4, &[]).await.expect("store");
    assert_eq!((due.len(), due[0].host.as_str()), (4, silent.as_str()), "its share");
    assert_eq!(
        world.core.statuses.due_statuses(world.clock.now(), 4, std::slice::from_ref(&silent)).await.expect("store"),
        []
    );
    let core = Arc::clone(&world.core);
    let told = tokio::spawn(async move { statuses::pass(&core).await });
    // All that may be asked of it is asked, and waits.
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(slow.accept().await.expect("a connection"));
    }
    // What comes then is told while they wait.
    runs_at("nightly", &forge.authority, 1).await;
    world.core.hooks.tell.notify_one();
    let told_of = async |task: &str| {
        let name = TaskName::parse(task).expect("valid");
        world.core.statuses.list_statuses(&name, Timestamp::from_micros(0), 10).await.expect("store")
    };
    let is_told = async {
        while told_of("nightly").await[0].due.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), is_told).await.expect("it is told");
    assert_eq!(forge.asked(), 1);
    let silent = told_of("silent").await;
    assert!(silent.iter().all(|one| one.tries == 0), "they wait: {silent:?}");
    drop(taken);
    told.abort();
}

#[tokio::test]
async fn a_status_is_due_at_acceptance_and_at_the_end_and_needs_a_token() {
    let world = World::new().await;
    let hook = world.task("nightly", "https://github.com/acme/shop.git", json!({"skipCi": false})).await;
    let (headers, body) = fixture("github/push");
    world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    world.pass().await;
    let run = world.runs().await[0].id;
    let due = async || world.core.statuses.due_statuses(world.clock.now(), 10, &[]).await.expect("store");
    let first = due().await;
    assert_eq!(first.iter().map(|due| (due.run, due.want)).collect::<Vec<_>>(), [(run, 1)]);
    assert_eq!(statuses::pass(&world.core).await.expect("store"), None, "there is nobody to tell it to");
    assert_eq!(due().await, []);
    let end = RunEvent::CancelRequested { by: testing::principal("ann") };
    world.core.apply(run, end).await.expect("cancelled");
    let second = due().await;
    assert_eq!(second.iter().map(|due| (due.run, due.want, due.tries)).collect::<Vec<_>>(), [(run, 2, 0)]);
    // Who tells the first late does not hide the second.
    world.core.statuses.status_tried(&first[0], None, None).await.expect("store");
    assert_eq!(due().await, second);
    let later = world.clock.now().after(Duration::from_secs(10));
    world.core.statuses.status_tried(&second[0], Some(later), Some("away")).await.expect("store");
    assert_eq!((due().await, world.core.statuses.next_status().await.expect("store")), (Vec::new(), Some(later)));
    // What was given up is told once more when somebody asks for it.
    world.core.statuses.status_tried(&second[0], None, Some("no")).await.expect("store");
    let shown = async || {
        let (_, text) = world.call("GET", "/api/v1/tasks/nightly/notifications", None).await;
        serde_json::from_str::<NotificationList>(&text).expect("a list").value.remove(0)
    };
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    let view = shown().await;
    assert_eq!((view.state.as_deref(), view.commit_id.as_deref()), (Some("error"), Some(cause.firing.commit.as_str())));
    assert_eq!((view.status, view.reason.as_deref()), (DeliveryStatus::Failed, Some("no")));
    let redeliver = async |id: &str| {
        world.call("POST", &format!("/api/v1/tasks/nightly/notifications/{id}/redeliver"), None).await.0
    };
    assert_eq!(redeliver(&RunId::from_number(77).to_string()).await, StatusCode::NOT_FOUND);
    assert_eq!(redeliver(&run.to_string()).await, StatusCode::OK);
    let view = shown().await;
    assert_eq!((view.status, view.reason, view.attempts), (DeliveryStatus::Waiting, None, 0));
    assert_eq!(due().await.iter().map(|due| (due.run, due.want)).collect::<Vec<_>>(), [(run, 3)]);
}

#[tokio::test]
async fn a_tag_whose_own_object_is_told_may_have_no_status_and_that_is_said() {
    let (world, forge) = (World::new().await, super::registering::Forge::start().await);
    let place = format!("http://{}", forge.authority);
    let trigger = json!({"provider": "bitbucket-server", "events": ["tag", "commit"]});
    let hook = world.task("nightly", &format!("{place}/scm/shop/app.git"), trigger).await;
    world.give_token("nightly", &forge).await;
    let (headers, body) = fixture("bitbucket-server/refs-changed");
    let body = String::from_utf8(body).expect("text").replace("https://bitbucket.example", &place).into_bytes();
    world.take(&hook, &signed(&hook, headers, &body, world.clock.now()), &body).await;
    world.pass().await;
    // It knows neither the commit nor the tag's object.
    statuses::pass(&world.core).await.expect("store");
    let name = TaskName::parse("nightly").expect("valid");
    let told = world.core.statuses.list_statuses(&name, Timestamp::from_micros(0), 10).await.expect("store");
    let mut of_tags = 0;
    for one in &told {
        let fault = one.fault.as_deref().expect("it was refused");
        assert!(fault.contains("404") && one.due.is_none(), "{fault}");
        assert_eq!(one.tried, Some(world.clock.now()));
        let Cause::Source(cause) =
            &world.core.runs.find_run(one.run).await.expect("store").expect("a run").run.origin.cause
        else {
            panic!("it is an event's")
        };
        let is_tag = cause.firing.event_type() == "tag";
        of_tags += u32::from(is_tag);
        assert_eq!(
            fault.contains("if the tag is an annotated one: bitbucket-server tells its own object's id"),
            is_tag
        );
    }
    assert!(of_tags > 0 && told.len() as u32 > of_tags, "{told:?}");
    // What is to be told once more has not been tried yet.
    let again = world.core.statuses.tell_again(&name, Timestamp::from_micros(0), told[0].run).await.expect("store");
    let told = world.core.statuses.list_statuses(&name, Timestamp::from_micros(0), 10).await.expect("store");
    assert!(again && (told[0].tries, told[0].tried) == (0, None), "{told:?}");
}
