//! Named secrets: versions that never come twice, and who is given them.

use std::time::Duration;

use cooper_ports::clock::Clock as _;
use cooper_ports::credentials::UsableBy;
use cooper_ports::secrets::{MAX_VERSIONS, NamedSecretError, PutSecret, PutSecretError, SecretStore};
use cooper_store::Snapshot;
use cooper_types::{PrincipalName, SecretName};

use crate::fixture::{Fixture, open_with, principal};

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn put(text: &str, sealed: Option<&str>, usable_by: Option<UsableBy>) -> PutSecret {
    let sealed = sealed.map(|text| text.as_bytes().to_vec());
    PutSecret { name: name(text), sealed, usable_by, set_by: principal("admin") }
}

fn principals(names: &[&str]) -> UsableBy {
    UsableBy::Principals(names.iter().map(|name| principal(name)).collect())
}

async fn given(store: &impl SecretStore, to: &PrincipalName, text: &str, version: Option<u64>) -> Option<String> {
    match store.secret_for(to, &name(text), version).await {
        Ok(found) => Some(format!("{}:{}", found.version, String::from_utf8(found.sealed).unwrap())),
        Err(NamedSecretError::Unknown { .. } | NamedSecretError::UnknownVersion { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn versions_are_kept_and_given_to_whom_they_are_for() {
    let mut fixture = Fixture::new().await;
    let (admin, alice) = (principal("admin"), principal("alice"));
    let first = fixture.store.put_secret(put("npm", Some("one"), None)).await.unwrap();
    assert_eq!(first.usable_by, principals(&["admin"]), "its setter's own");
    assert_eq!(first.versions[0].created, fixture.clock.now());
    assert_eq!(given(&fixture.store, &admin, "npm", None).await.as_deref(), Some("1:one"));
    assert_eq!(given(&fixture.store, &alice, "npm", None).await, None);

    // A new value changes nothing of who may use it, and the other way round.
    let both = principals(&["alice", "ci"]);
    let granted = fixture.store.put_secret(put("npm", None, Some(both.clone()))).await.unwrap();
    assert_eq!((granted.versions.len(), &granted.usable_by), (1, &both));
    fixture.clock.advance(Duration::from_secs(1));
    let second = fixture.store.put_secret(put("npm", Some("two"), None)).await.unwrap();
    assert_eq!(second.usable_by, both);
    assert_eq!(second.versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2, 1]);
    fixture.reopen().await;
    let store = &fixture.store;
    assert_eq!(given(store, &alice, "npm", None).await.as_deref(), Some("2:two"));
    assert_eq!(given(store, &alice, "npm", Some(1)).await.as_deref(), Some("1:one"));
    let missing = store.secret_for(&alice, &name("npm"), Some(3)).await.unwrap_err();
    assert!(matches!(missing, NamedSecretError::UnknownVersion { version: 3, .. }), "{missing}");
    let beyond = store.secret_for(&alice, &name("npm"), Some(u64::MAX)).await.unwrap_err();
    assert!(matches!(beyond, NamedSecretError::UnknownVersion { .. }), "{beyond}");
    assert_eq!(given(store, &admin, "npm", Some(1)).await, None, "no version is for others");

    store.put_secret(put("app", Some("three"), Some(UsableBy::Everybody))).await.unwrap();
    assert_eq!(given(store, &principal("anybody"), "app", None).await.as_deref(), Some("1:three"));
    let listed: Vec<String> = store.list_secrets().await.unwrap().into_iter().map(|it| it.name.to_string()).collect();
    assert_eq!(listed, ["app", "npm"]);
    let refused = store.put_secret(put("none", None, Some(both))).await.unwrap_err();
    assert!(matches!(refused, PutSecretError::Unknown(_)), "{refused}");
    assert_eq!(format!("{:?}", put("npm", Some("one"), None)), "PutSecret(npm)");
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_its_numbers_with_it() {
    let fixture = Fixture::new().await;
    let (store, alice) = (&fixture.store, principal("alice"));
    for value in ["one", "two"] {
        store.put_secret(put("npm", Some(value), Some(UsableBy::Everybody))).await.unwrap();
    }
    assert!(store.delete_secret(&name("npm"), Some(2)).await.unwrap());
    assert!(!store.delete_secret(&name("npm"), Some(2)).await.unwrap());
    assert_eq!(given(store, &alice, "npm", None).await.as_deref(), Some("1:one"));
    assert!(store.delete_secret(&name("npm"), None).await.unwrap());
    assert!(!store.delete_secret(&name("npm"), None).await.unwrap());
    assert_eq!(given(store, &alice, "npm", None).await, None);
    assert!(store.list_secrets().await.unwrap().is_empty());
    assert_eq!(fixture.count("SELECT count(*) FROM secret_versions").await, 0);
    let refused = store.put_secret(put("npm", None, Some(UsableBy::Everybody))).await.unwrap_err();
    assert!(matches!(refused, PutSecretError::Unknown(_)), "{refused}");

    // Made anew it is its setter's own, and a record that names version 1 means nothing else.
    let anew = store.put_secret(put("npm", Some("three"), None)).await.unwrap();
    assert_eq!((anew.versions[0].version, anew.usable_by), (3, principals(&["admin"])));
    assert_eq!(given(store, &alice, "npm", None).await, None);
}

#[tokio::test]
async fn the_oldest_versions_go_and_a_restore_skips_numbers() {
    let fixture = Fixture::new().await;
    for number in 0..MAX_VERSIONS + 2 {
        fixture.store.put_secret(put("npm", Some(&number.to_string()), None)).await.unwrap();
    }
    let kept = fixture.store.list_secrets().await.unwrap().remove(0).versions;
    assert_eq!((kept.len(), kept.last().unwrap().version), (MAX_VERSIONS, 3));

    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("cooper.db");
    let mut snapshot = Snapshot::take(fixture.directory.path(), &file).await.unwrap();
    snapshot.skip_numbers().await.unwrap();
    snapshot.close().await.unwrap();
    let restored = open_with(copy.path(), Some(fixture.clock.clone())).await.unwrap();
    let newest = restored.put_secret(put("npm", Some("later"), None)).await.unwrap().versions.remove(0).version;
    assert!(newest > kept[0].version + 1, "{newest} may have been given out after the backup");
    restored.close().await.unwrap();
}
