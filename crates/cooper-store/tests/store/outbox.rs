//! Events become deliveries in their own transactions, for those who want them.

use cooper_engine::webhook::{Action, Scope};
use cooper_ports::outbox::{DeliveryRecord, Outbox as _, PutWebhook, WebhookStore as _};
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
    let mut log = fixture.store.list_deliveries(&name(webhook), 100).await.unwrap();
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

    let log = fixture.store.list_deliveries(&name("all"), 100).await.unwrap();
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
    let waiting = fixture.store.waiting().await.unwrap();
    assert_eq!(waiting.iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
}

#[tokio::test]
async fn old_deliveries_are_forgotten_and_too_many_given_up() {
    let fixture = Fixture::new().await;
    put(&fixture, "hook", &[Action::Push], "").await;
    push(&fixture, "app", "v1", Vec::new()).await.unwrap();
    let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10004)
         INSERT INTO outbox (registry_id, target, event, action, subject, body, queued, state, at)
         SELECT registry_id, target, event || n, action, subject, body, queued, iif(n < 3, 'delivered', state), at
         FROM outbox CROSS JOIN n WHERE seq = 1";
    let inserted = fixture.store.write(async move |mut tx| {
        sqlx::query(many).execute(&mut *tx).await.unwrap();
        Ok::<_, cooper_ports::store_error::StoreError>(())
    });
    inserted.await.unwrap();
    assert_eq!(fixture.store.prune().await.unwrap(), 3, "one is the oldest, two came after those that had ended");
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 10_003);
    assert_eq!(fixture.count("SELECT count(*) FROM outbox WHERE state = 'failed'").await, 3);
    // The next look forgets those that it gave up.
    assert_eq!(fixture.store.prune().await.unwrap(), 0);
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 10_000);
    fixture.clock.advance(std::time::Duration::from_secs(8 * 24 * 3600));
    let ended = fixture.store.write(async move |mut tx| {
        sqlx::query("UPDATE outbox SET state = 'delivered'").execute(&mut *tx).await.unwrap();
        Ok::<_, cooper_ports::store_error::StoreError>(())
    });
    ended.await.unwrap();
    fixture.store.prune().await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM outbox").await, 9_000, "a thousand at a time");
}
