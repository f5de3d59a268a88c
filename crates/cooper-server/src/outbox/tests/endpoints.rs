//! Endpoints of tasks: where they are now, and where they may not lead.

use super::*;

#[tokio::test]
async fn no_endpoint_of_a_task_leads_inside() {
    let (trap, data) = (Trap::start(), tempfile::tempdir().expect("temp dir"));
    let (core, _store) = testing::core_beside(&trap, data.path(), None).await;
    let number = std::sync::atomic::AtomicUsize::new(0);
    let tell = async |host: &str| {
        let name = format!("nightly-{}", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        put_task(&core, &name, &format!("http://{host}/told")).await;
        post::post(&core, claimed_for(&name)).await;
        let tried = post::post(&core, claimed_for(&name)).await;
        assert_eq!(tried.answer, Answer::NotNow { pause: None });
        tried.said
    };
    // Whoever follows nothing asks for the address once more at the second try.
    trap.try_way("endpoint", Follows::Nothing, "--allow-webhook", tell).await;
}

fn claimed_for(task: &str) -> Claimed {
    Claimed {
        seq: 1,
        target: Target::UpdateTrigger(task.to_owned()),
        number: 1,
        event: cooper_types::EventId::parse("cb8c3971-9adc-488b-bdd8-43cbb4974ff5").expect("an id"),
        action: Action::ImageUpdate,
        body: "{}".to_owned(),
        sealed: None,
    }
}

/// A task with an endpoint, as an older release kept it.
async fn put_task(core: &Core, name: &str, uri: &str) {
    let step = EncodedChange { text: Some("steps: []".to_owned()), ..EncodedChange::default() };
    let endpoint = Some(Some(TaskEndpoint::Plain(uri.to_owned())));
    let base_image = BaseImageChange { endpoint, ..BaseImageChange::default() };
    let change = TaskChange { step: Some(StepChange::Encoded(step)), base_image, ..TaskChange::default() };
    let (name, scopes) = (cooper_types::TaskName::parse(name).expect("valid"), Scopes(vec![Scope::Run]));
    let task = Task::new(name, testing::principal("ann"), scopes, change, core.clock.now()).expect("a task");
    let put = PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: Default::default(),
        replaces: None,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    core.tasks.put_task(put).await.expect("kept");
}

#[tokio::test]
async fn the_endpoint_of_a_task_is_the_one_that_it_has_now_and_no_place_of_sources() {
    let (receiver, uri) = Receiver::start(Vec::new()).await;
    let claimed = || claimed_for("nightly");
    let put = async |core: &Core| put_task(core, "Nightly", &uri).await;
    let (fetching, sending) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
    let (core, _store) = testing::core_fetching_here(fetching.path()).await;
    let tried = post::post(&core, claimed()).await;
    assert_eq!(tried.answer, Answer::Gone, "{}", tried.said);
    put(&core).await;
    let tried = post::post(&core, claimed()).await;
    assert_eq!(tried.answer, Answer::NotNow { pause: None });
    assert!(tried.said.contains("not public"), "{}", tried.said);
    assert_eq!(receiver.ids(), [""; 0]);
    let (core, _store) = testing::core_sending_here(sending.path(), None).await;
    put(&core).await;
    assert_eq!(post::post(&core, claimed()).await.answer, Answer::Taken);
    // Sealed at the next start, it is the same, and is signed as before.
    assert_eq!(core.tasks.clear_endpoints(None, 10).await.expect("store").len(), 1);
    seal_endpoints(&core).await.expect("store");
    assert_eq!(core.tasks.clear_endpoints(None, 10).await.expect("store"), []);
    let task = core.tasks.find_task(&cooper_types::TaskName::parse("nightly").expect("valid")).await;
    let task = task.expect("store").expect("a task").task;
    assert!(matches!(task.base_image.endpoint, Some(TaskEndpoint::Sealed { .. })));
    let endpoint = Endpoint::of_task(&core.key, &task).expect("readable").expect("one");
    assert_eq!((endpoint.uri, endpoint.secret), (uri, core.key.update_trigger_secret("nightly", &task.principal)));
    assert_eq!(post::post(&core, claimed()).await.answer, Answer::Taken);
    assert_eq!(receiver.ids().len(), 2);
}
