//! Pull requests: what a new commit ends, and how a stranger's runs.

use super::*;

#[tokio::test]
async fn a_pull_requests_new_commit_ends_the_runs_of_its_earlier_ones() {
    let world = World::new().await;
    let context = "https://github.com/acme/shop.git";
    let hook = world.task("nightly", context, json!({"cancelSuperseded": true})).await;
    let (headers, opened) = fixture("github/pull-request-opened");
    let deliver = async |headers: &[(String, String)], body: &[u8], id: &str| {
        let mut headers = signed(&hook, headers.to_vec(), body, world.clock.now());
        headers.retain(|(name, _)| name != "X-GitHub-Delivery");
        headers.push(("X-GitHub-Delivery".to_owned(), id.to_owned()));
        assert_eq!(world.take(&hook, &headers, body).await.status, ReceiptStatus::Kept);
        world.pass().await;
    };
    deliver(&headers, &opened, "1").await;
    let first = world.runs().await.pop().expect("a run");
    let Cause::Source(cause) = &first.origin.cause else { panic!("{:?}", first.origin) };
    let newer = String::from_utf8(opened.clone()).expect("text").replace(cause.firing.commit.as_str(), &"9".repeat(40));
    deliver(&headers, newer.as_bytes(), "2").await;
    let runs = world.runs().await;
    assert_eq!(runs.iter().map(Run::status).collect::<Vec<_>>(), [RunStatus::Canceled, RunStatus::Queued]);
    // What a crash had left is found at the next start.
    supersede::everywhere(&world.core).await.expect("store");
    assert_eq!(world.runs().await[1].status(), RunStatus::Queued);
}

#[tokio::test]
async fn a_forks_pull_request_runs_as_nobody_in_a_marked_pool_or_not_at_all() {
    let world = World::new().await;
    let deliver = async |hook: &Known| {
        let (headers, body) = fixture("github/pull-request-fork");
        let headers = signed(hook, headers, &body, world.clock.now());
        assert_eq!(world.take(hook, &headers, &body).await.status, ReceiptStatus::Kept);
        world.pass().await;
    };
    let said = async |task: &str| {
        let delivery = world.hooks(task).await.deliveries.remove(0);
        let outcome = delivery.outcomes.expect("worked off").remove(0);
        (outcome.run_id, outcome.why_not.unwrap_or_default())
    };
    let pool = |name: &str| PoolName::parse(name).expect("valid");
    world.core.agent_store.create_pool(pool("strangers"), String::new(), true).await.expect("made");
    world.core.agent_store.create_pool(pool("ours"), String::new(), false).await.expect("made");
    let context = "https://github.com/acme/shop.git";
    for (task, more, why) in [
        ("refuses", json!({}), "the task runs no pull requests of forks"),
        ("wrong-pool", json!({"forkPool": "ours"}), "not marked for untrusted work"),
        ("no-pool", json!({"forkPool": "gone"}), "not marked for untrusted work"),
    ] {
        deliver(&world.task(task, context, more).await).await;
        let (run, said) = said(task).await;
        assert!(run.is_none() && said.contains(why), "{said}");
    }

    let trigger = json!({"t": {"events": ["pullrequest"], "forkPool": "strangers"}});
    let arguments = json!([{"name": "A", "value": "1"}, {"name": "TOKEN", "value": "hunter22", "isSecret": true}]);
    let docker = json!({"name": "builds", "sourceTriggers": trigger, "step": {"type": "Docker", "contextPath": context,
        "imageNames": ["app:1"], "arguments": arguments}});
    let file = json!({"name": "runs-file", "sourceTriggers": trigger,
        "step": {"type": "FileTask", "contextPath": context, "taskFilePath": "task.yaml"}});
    let mut builds = None;
    for task in [docker, file] {
        let (status, text) = world.call("POST", "/api/v1/tasks", Some(task)).await;
        assert_eq!(status, StatusCode::CREATED, "{text}");
        let hook = known(&serde_json::from_str(&text).expect("a task"));
        deliver(&hook).await;
        builds.get_or_insert(hook);
    }
    let (run, why) = said("runs-file").await;
    let run = world.core.runs.find_run(run.expect(&why)).await.expect("store").expect("a run").run;
    assert!(run.origin.untrusted && run.scopes.0.is_empty(), "{:?}", run.scopes);
    defined_by(&run, "refs/heads/main");
    let (run, why) = said("builds").await;
    let id = run.expect(&why);
    let run = world.core.runs.find_run(id).await.expect("store").expect("a run").run;
    assert!(run.origin.untrusted && run.scopes.0.is_empty(), "{:?}", run.scopes);
    assert_eq!(run.pool, pool("strangers"));
    defined_by(&run, "refs/heads/main");
    let request = world.core.runs.find_request(id).await.expect("store").expect("a request").request;
    assert!(request.secrets().is_empty(), "{request:?}");
    let cooper_engine::run::KeptAsked::Build { build, .. } = &request.asked else { panic!("{request:?}") };
    assert!(!build.push && build.arguments.len() == 1, "{build:?}");

    // A new commit of it ends that run, whatever the trigger says of others.
    let Cause::Source(cause) = &run.origin.cause else { panic!("{:?}", run.origin) };
    let (mut headers, body) = fixture("github/pull-request-fork");
    let newer = String::from_utf8(body).expect("text").replace(cause.firing.commit.as_str(), &"9".repeat(40));
    headers.retain(|(name, _)| name != "X-GitHub-Delivery");
    headers.push(("X-GitHub-Delivery".to_owned(), "newer".to_owned()));
    let hook = builds.expect("it was made");
    let headers = signed(&hook, headers, newer.as_bytes(), world.clock.now());
    assert_eq!(world.take(&hook, &headers, newer.as_bytes()).await.status, ReceiptStatus::Kept);
    world.pass().await;
    let status = async |id: RunId| world.core.runs.find_run(id).await.expect("store").expect("a run").run.status();
    assert_eq!(status(id).await, RunStatus::Canceled);

    // Nor does it become more by being run again by hand.
    let (status, text) = world.call("POST", &format!("/api/v1/runs/{id}/rerun"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let run = world.runs().await.pop().expect("a run");
    assert!(run.origin.untrusted && run.scopes.0.is_empty() && run.pool == pool("strangers"), "{:?}", run.origin);
    defined_by(&run, "refs/heads/main");
}

/// The run's source is fetched with another place's definition.
fn defined_by(run: &Run, place: &str) {
    let cooper_spec::plan::Work::Prepare(work) = &run.plan.steps[0].work else { panic!("{:?}", run.plan) };
    assert_eq!(work.definition.as_deref(), Some(place));
}
