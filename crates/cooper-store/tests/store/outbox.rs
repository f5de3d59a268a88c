//! Events become deliveries in their own transactions, for those who want them.

use std::time::Duration;

use cooper_engine::delivery::Answer;
use cooper_engine::webhook::{Action, Scope};
use cooper_ports::clock::Clock as _;
use cooper_ports::outbox::{DeliveryRecord, Look, Outbox as _, PutWebhook, Target, Tried, Waiting, WebhookStore as _};
use cooper_ports::registry::{Manifest, ManifestReference, NewManifest, ReferenceKind, RegistryStore as _, Writer};
use cooper_types::{Digest, PrincipalName, RepositoryName, Tag, WebhookName};
use serde_json::{Value, json};

use crate::fixture::Fixture;

fn name(text: &str) -> WebhookName {
    WebhookName::parse(text).unwrap()
}

async fn put(fixture: &Fixture, webhook: &str, actions: &[Action], scope: &str) {
    let put = PutWebhook {
        name: name(webhook),
        host: "example.org".to_owned(),
        sealed: vec![1],
        actions: actions.iter().copied().collect(),
        scope: Scope::parse(scope).unwrap(),
        enabled: true,
        set_by: PrincipalName::parse("ann").unwrap(),
        replaces: None,
    };
    fixture.store.put_webhook(put).await.unwrap();
}

async fn push(fixture: &Fixture, repository: &str, tag: &str, references: Vec<ManifestReference>) -> Option<Digest> {
    let bytes = format!("{repository} {tag}").into_bytes();
    let digest = Digest::sha256(&bytes);
    let new = NewManifest {
        repository: RepositoryName::parse(repository).unwrap(),
        manifest: Manifest { digest: digest.clone(), media_type: "application/x".to_owned(), bytes: bytes.into() },
        references,
        tag: Some(Tag::parse(tag).unwrap()),
    };
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    fixture.store.put_manifest(new, &writer).await.is_ok().then_some(digest)
}

/// What a webhook is to be told, the oldest first: action and subject.
async fn told(fixture: &Fixture, webhook: &str) -> Vec<(String, String)> {
    let mut log = fixture.store.list_sent(&Target::Webhook(name(webhook)), 100).await.unwrap();
    log.reverse();
    log.into_iter().map(|DeliveryRecord { action, subject, .. }| (action.to_string(), subject)).collect()
}

fn pairs(all: &[(&str, String)]) -> Vec<(String, String)> {
    all.iter().map(|(action, subject)| ((*action).to_owned(), subject.clone())).collect()
}

#[tokio::test]
async fn pushes_and_deletions_are_told_of_in_acrs_words_to_those_who_want_them() {
    let fixture = Fixture::new().await;
    put(&fixture, "all", &[Action::Push, Action::Delete], "").await;
    put(&fixture, "one", &[Action::Push], "team/app:v1").await;
    put(&fixture, "runs", &[Action::RunFinished], "").await;
    let digest = push(&fixture, "team/app", "v1", Vec::new()).await.unwrap();
    push(&fixture, "other", "v1", Vec::new()).await.unwrap();
    let missing = ManifestReference { digest: Digest::sha256(b"missing"), kind: ReferenceKind::Blob };
    assert_eq!(push(&fixture, "team/app", "v2", vec![missing]).await, None, "a push that is refused is no event");
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let repository = RepositoryName::parse("team/app").unwrap();
    fixture.store.delete_manifest(&repository, &digest, false, None, &writer).await.unwrap();

    let pushed = ("push", "team/app:v1".to_owned());
    let deleted = ("delete", format!("team/app@{digest}"));
    assert_eq!(told(&fixture, "ALL").await, pairs(&[pushed.clone(), ("push", "other:v1".to_owned()), deleted]));
    assert_eq!(told(&fixture, "one").await, pairs(&[pushed]));
    assert_eq!(told(&fixture, "runs").await, []);

    let log = fixture.store.list_sent(&Target::Webhook(name("all")), 100).await.unwrap();
    let body = |record: &DeliveryRecord| -> Value {
        let mut body: Value = serde_json::from_str(&record.body).unwrap();
        assert_eq!(body["id"], record.event.as_str());
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(body["request"]["id"].as_str().unwrap().len(), 36);
        for (object, field) in [("/request", "id"), ("", "id"), ("", "timestamp")] {
            body.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(field);
        }
        body
    };
    let expected = json!({
        "action": "push",
        "target": {
            "mediaType": "application/x", "size": 11, "length": 11, "digest": digest, "repository": "team/app", "tag": "v1",
        },
        "request": { "host": "localhost:5000", "method": "PUT", "useragent": "" },
    });
    assert_eq!(body(&log[2]), expected);
    let expected = json!({
        "action": "delete",
        "target": { "mediaType": "application/x", "digest": digest, "repository": "team/app" },
        "request": { "host": "localhost:5000", "method": "DELETE", "useragent": "" },
    });
    assert_eq!(body(&log[0]), expected);
}

#[tokio::test]
async fn the_first_of_each_target_is_what_waits() {
    let fixture = Fixture::new().await;
    for webhook in ["b", "a", "c"] {
        put(&fixture, webhook, &[Action::Push], "").await;
    }
    for tag in ["v1", "v2", "v3"] {
        push(&fixture, "app", tag, Vec::new()).await.unwrap();
    }
    let seqs = |waiting: Vec<Waiting>| waiting.iter().map(|one| one.seq).collect::<Vec<_>>();
    assert_eq!(seqs(fixture.store.waiting(&look()).await.unwrap()), [1, 2, 3]);
    assert_eq!(seqs(fixture.store.waiting(&Look { limit: 2, ..look() }).await.unwrap()), [1, 2]);
    let elsewhere = Look { without_hosts: vec!["example.org".to_owned()], ..look() };
    assert_eq!(fixture.store.waiting(&elsewhere).await.unwrap(), []);
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
    // One that has failed comes behind the others, when its pause is over, and is left out where that is asked for.
    let claimed = fixture.store.claim(vec![1, 2]).await.unwrap();
    assert_eq!(seqs(fixture.store.waiting(&look()).await.unwrap()), [3]);
    for (claimed, answer) in claimed.iter().zip([Answer::NotNow { pause: None }, Answer::Taken]) {
        let tried = Tried { seq: claimed.seq, number: 1, answer, spread: 1.0, status: None, said: String::new() };
        fixture.store.tried(tried).await.unwrap();
    }
    let begun = fixture.clock.now();
    assert_eq!(fixture.store.next().await.unwrap(), Some(begun.after(Duration::from_secs(2))));
    fixture.clock.advance(Duration::from_secs(2));
    assert_eq!(fixture.store.next().await.unwrap(), None);
    assert_eq!(seqs(fixture.store.waiting(&look()).await.unwrap()), [5, 3, 1]);
    assert_eq!(seqs(fixture.store.waiting(&Look { failing: false, ..look() }).await.unwrap()), [5, 3]);
}

/// All that is due.
fn look() -> Look {
    Look { failing: true, notices: true, without_hosts: Vec::new(), without_notices_at: Vec::new(), limit: 100 }
}

async fn change_by(fixture: &Fixture, sql: &'static str) {
    let changed = fixture.store.write(async move |mut tx| {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        Ok::<_, cooper_ports::store_error::StoreError>(())
    });
    changed.await.unwrap();
}

#[tokio::test]
async fn what_this_release_can_t_read_is_given_up_and_stops_nobody() {
    let fixture = Fixture::new().await;
    put(&fixture, "one", &[Action::Push], "").await;
    put(&fixture, "two", &[Action::Push], "").await;
    push(&fixture, "app", "v1", Vec::new()).await.unwrap();
    push(&fixture, "app", "v2", Vec::new()).await.unwrap();
    change_by(&fixture, "UPDATE outbox SET action = 'from_the_future' WHERE seq = 1").await;
    let claimed = fixture.store.claim(vec![1, 2]).await.unwrap();
    assert_eq!(claimed.iter().map(|one| one.seq).collect::<Vec<_>>(), [2], "the other one's goes out");
    assert_eq!(fixture.count("SELECT seq FROM outbox WHERE state = 'failed'").await, 1);
    let waiting = fixture.store.waiting(&look()).await.unwrap();
    assert_eq!(waiting.iter().map(|one| one.seq).collect::<Vec<_>>(), [3], "and the next one is next");
}

#[tokio::test]
async fn old_deliveries_are_forgotten_and_too_many_given_up() {
    let fixture = Fixture::new().await;
    put(&fixture, "hook", &[Action::Push], "").await;
    push(&fixture, "app", "v1", Vec::new()).await.unwrap();
    let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10604)
         INSERT INTO outbox (registry_id, target, event, action, subject, body, queued, state, at)
         SELECT registry_id, target, event || n, action, subject, body, queued, iif(n < 3, 'delivered', state), at
         FROM outbox CROSS JOIN n WHERE seq = 1";
    change_by(&fixture, many).await;
    assert_eq!(
        fixture.store.prune().await.unwrap(),
        603,
        "one is the oldest, the others came after those that had ended"
    );
    assert_eq!(fixture.count("SELECT count(*) FROM outbox WHERE state = 'failed'").await, 603);
    let first = fixture.store.waiting(&look()).await.unwrap();
    assert_eq!(first.iter().map(|one| one.seq).collect::<Vec<_>>(), [606]);
    // What was given up stays in the log, and can be sent again.
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 10_605);
    fixture.clock.advance(std::time::Duration::from_secs(8 * 24 * 3600));
    change_by(&fixture, "UPDATE outbox SET state = 'delivered'").await;
    fixture.store.prune().await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 0);
}

#[tokio::test]
async fn a_task_s_new_endpoint_gets_what_waits_at_once_and_a_deleted_one_nothing() {
    use cooper_engine::task::{BaseImageChange, EncodedChange, StepChange, Task, TaskChange, TaskEndpoint};
    use cooper_ports::tasks::{PutTask, TaskStore as _};
    let fixture = Fixture::new().await;
    let task_name = cooper_types::TaskName::parse("Nightly").unwrap();
    let sealed = |host: &str| TaskEndpoint::Sealed { host: host.to_owned(), sealed: host.to_owned() };
    let endpoint = |endpoint| BaseImageChange { endpoint: Some(Some(endpoint)), ..BaseImageChange::default() };
    let step = EncodedChange { text: Some("steps: []".to_owned()), ..EncodedChange::default() };
    let change = TaskChange {
        step: Some(StepChange::Encoded(step)),
        base_image: endpoint(TaskEndpoint::Plain("https://old.example/".to_owned())),
        ..TaskChange::default()
    };
    let scopes = cooper_types::Scopes(vec![cooper_types::Scope::Run]);
    let now = fixture.clock.now();
    let task = Task::new(task_name, PrincipalName::parse("ann").unwrap(), scopes, change, now).unwrap();
    let put = |task, replaces| PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: Default::default(),
        replaces,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    let kept = fixture.store.put_task(put(task, None)).await.unwrap().task;
    let waits = "INSERT INTO outbox (registry_id, target, event, action, subject, body, queued, state, at)
         SELECT id, 'update-trigger/nightly', 'e', 'image_update', 'ca1', '{}', 0, 'due', 9000000000000000 FROM registries";
    change_by(&fixture, waits).await;
    let failing = "INSERT INTO outbox_targets (registry_id, target, host, seq, at, failures, failing_since)
         SELECT registry_id, target, 'old.example', seq, at, 9, 1 FROM outbox";
    change_by(&fixture, failing).await;
    assert_eq!(fixture.store.waiting(&look()).await.unwrap(), []);
    // What an older release kept is sealed once, and is no change.
    assert!(fixture.store.seal_endpoint(&kept, &sealed("old.example")).await.unwrap());
    assert!(!fixture.store.seal_endpoint(&kept, &sealed("other.example")).await.unwrap());
    let kept = fixture.store.find_task(&kept.name).await.unwrap().unwrap().task;
    assert_eq!((kept.base_image.endpoint.clone(), kept.generation), (Some(sealed("old.example")), 1));
    assert_eq!(fixture.store.waiting(&look()).await.unwrap(), []);
    let changed = TaskChange { base_image: endpoint(sealed("new.example")), ..TaskChange::default() };
    let changed = kept.changed(changed, fixture.clock.now()).unwrap();
    let changed = fixture.store.put_task(put(changed, Some(kept.generation))).await.unwrap().task;
    let waiting = fixture.store.waiting(&look()).await.unwrap();
    let seen = waiting.iter().map(|one| (one.host.as_str(), one.is_notice, one.is_failing)).collect::<Vec<_>>();
    assert_eq!(seen, [("new.example", true, false)]);
    let busy = Look { without_notices_at: vec!["new.example".to_owned()], ..look() };
    assert_eq!(fixture.store.waiting(&busy).await.unwrap(), []);
    assert_eq!(fixture.store.waiting(&Look { notices: false, ..look() }).await.unwrap(), []);
    assert!(fixture.store.delete_task(&changed).await.unwrap());
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 0);
}
