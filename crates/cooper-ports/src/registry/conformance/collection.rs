//! The collection of blobs: leases, and what is condemned.

use std::time::Duration;

use cooper_types::Digest;

use super::super::{BLOB_LEASE, ManifestReference, ReferenceKind, Released};
use super::{Fixture, START, agent, attempt, blob, by_digest, manifest, name, person, upload};
use crate::clock::Clock as _;

pub(super) async fn run_all<F: Fixture>(make: &impl AsyncFn() -> F) {
    a_blob_is_kept_for_its_lease(&make().await).await;
    a_manifest_keeps_its_blobs(&make().await).await;
    whoever_uploads_a_condemned_blob_saves_it(&make().await).await;
    a_look_is_bounded(&make().await).await;
    strays_are_condemned(&make().await).await;
    what_no_step_finished_is_dropped(&make().await).await;
}

/// Lets go of what was not used for the time of a lease.
async fn release(fixture: &dyn Fixture) -> Released {
    let unused_since = fixture.clock().now().before(BLOB_LEASE);
    fixture.store().release_blobs(unused_since, 100).await.expect("releases")
}

async fn a_blob_is_kept_for_its_lease(fixture: &dyn Fixture) {
    let store = fixture.store();
    let digest = blob(store, 1, "a", b"layer").await;
    store.mount_blob(&name("a"), &name("b"), &digest, &person()).await.expect("mounts");
    assert_eq!(release(fixture).await, Released::default(), "a lease has just begun");
    fixture.clock().advance(BLOB_LEASE / 2);
    let half = START.after(BLOB_LEASE / 4);
    assert_eq!(store.renew_blob(&name("a"), &digest, half).await.expect("renews"), Some(5));
    assert_eq!(store.renew_blob(&name("c"), &digest, half).await.expect("answers"), None, "it is not held there");
    fixture.clock().advance(BLOB_LEASE / 2 + Duration::from_secs(1));
    assert_eq!(release(fixture).await, Released { looked_at: 1, released: 1, condemned: 0 });
    assert_eq!(store.blob_size(&name("b"), &digest).await.expect("sizes"), None);
    assert_eq!(store.blob_size(&name("a"), &digest).await.expect("sizes"), Some(5), "its lease was renewed");
    // A question that comes soon after another one costs no write.
    assert_eq!(store.renew_blob(&name("a"), &digest, half).await.expect("answers"), Some(5));
    fixture.clock().advance(BLOB_LEASE / 2);
    assert_eq!(release(fixture).await, Released { looked_at: 1, released: 1, condemned: 1 });
    assert_eq!(store.blob_size(&name("a"), &digest).await.expect("sizes"), None);
    assert_eq!(store.renew_blob(&name("a"), &digest, START).await.expect("answers"), None);
    assert!(!store.mount_blob(&name("a"), &name("b"), &digest, &person()).await.expect("answers"));
    assert_eq!(store.condemned_blobs(None, 10).await.expect("lists"), std::slice::from_ref(&digest));
    assert!(store.is_condemned(&digest).await.expect("answers"));
    store.forget_condemned(std::slice::from_ref(&digest)).await.expect("forgets");
    assert_eq!(store.condemned_blobs(None, 10).await.expect("lists"), []);
}

async fn a_manifest_keeps_its_blobs(fixture: &dyn Fixture) {
    let store = fixture.store();
    let (layer, foreign) = (blob(store, 1, "a", b"layer").await, blob(store, 2, "a", b"foreign").await);
    let mut image = manifest("a", "image", None);
    let refer = |digest: &Digest, kind| ManifestReference { digest: digest.clone(), kind };
    image.references = vec![refer(&layer, ReferenceKind::Blob), refer(&foreign, ReferenceKind::ForeignBlob)];
    let digest = image.manifest.digest.clone();
    store.put_manifest(image, &person()).await.expect("stores");
    fixture.clock().advance(BLOB_LEASE * 2);
    assert_eq!(release(fixture).await, Released { looked_at: 2, released: 0, condemned: 0 });
    assert_eq!(release(fixture).await, Released::default(), "what manifests need is looked at once");
    assert_eq!(store.renew_blob(&name("a"), &layer, fixture.clock().now()).await.expect("answers"), Some(5));
    store.delete_manifest(&name("a"), &digest, false, None, &person()).await.expect("deletes");
    assert_eq!(release(fixture).await, Released::default(), "a new lease begins with the deletion");
    fixture.clock().advance(BLOB_LEASE + Duration::from_secs(1));
    assert_eq!(release(fixture).await, Released { looked_at: 2, released: 2, condemned: 2 });
}

async fn whoever_uploads_a_condemned_blob_saves_it(fixture: &dyn Fixture) {
    let store = fixture.store();
    let digest = blob(store, 1, "a", b"layer").await;
    fixture.clock().advance(BLOB_LEASE * 2);
    assert_eq!(release(fixture).await.condemned, 1);
    let again = upload(2, "b", &person());
    store.begin_upload(&again).await.expect("begins");
    store.complete_upload(&again, &digest, 5).await.expect("completes");
    assert!(!store.is_condemned(&digest).await.expect("answers"));
    assert_eq!(store.condemned_blobs(None, 10).await.expect("lists"), []);
    assert_eq!(store.blob_size(&name("b"), &digest).await.expect("sizes"), Some(5));
    // What was listed before means nothing now.
    store.forget_condemned(std::slice::from_ref(&digest)).await.expect("forgets nothing");
    assert_eq!(store.blob_size(&name("b"), &digest).await.expect("sizes"), Some(5));
}

async fn a_look_is_bounded(fixture: &dyn Fixture) {
    let store = fixture.store();
    for n in 0..5_u8 {
        blob(store, u128::from(n), "a", &[n]).await;
    }
    fixture.clock().advance(BLOB_LEASE * 2);
    let now = fixture.clock().now();
    let release = async || store.release_blobs(START.after(BLOB_LEASE), 2).await.expect("releases");
    assert_eq!(release().await, Released { looked_at: 2, released: 2, condemned: 2 });
    assert_eq!(release().await, Released { looked_at: 2, released: 2, condemned: 2 });
    assert_eq!(release().await, Released { looked_at: 1, released: 1, condemned: 1 });
    assert_eq!(store.release_blobs(now, 2).await.expect("releases"), Released::default());
    let first = store.condemned_blobs(None, 2).await.expect("lists");
    let rest = store.condemned_blobs(first.last(), 10).await.expect("lists");
    assert_eq!((first.len(), rest.len()), (2, 3));
    assert!(first.iter().all(|digest| !rest.contains(digest)));
}

async fn strays_are_condemned(fixture: &dyn Fixture) {
    let store = fixture.store();
    let (held, stray) = (blob(store, 1, "a", b"held").await, Digest::sha256(b"stray"));
    let found = [held.clone(), stray.clone()];
    assert_eq!(store.condemn_strays(&found).await.expect("condemns"), 1);
    assert_eq!(store.condemn_strays(&found).await.expect("condemns"), 0, "once is enough");
    assert_eq!(store.condemned_blobs(None, 10).await.expect("lists"), [stray]);
    assert!(!store.is_condemned(&held).await.expect("answers"));
}

async fn what_no_step_finished_is_dropped(fixture: &dyn Fixture) {
    let store = fixture.store();
    let layer = blob(store, 1, "a", b"layer").await;
    let with_layer = |name: &str| {
        let mut image = manifest("a", name, None);
        image.references = vec![ManifestReference { digest: layer.clone(), kind: ReferenceKind::Blob }];
        image
    };
    let (lost, done) = (attempt(1, 1), attempt(2, 1));
    for attempt in [&lost, &done] {
        fixture.start_attempt(attempt).await;
    }
    let digest = |text: &str| Digest::sha256(text.as_bytes());
    // One attempt is lost after its push; the other one's step succeeds, and publishes an index with a part.
    store.put_manifest(with_layer("lost"), &agent(&lost)).await.expect("stores");
    store.put_manifest(with_layer("part"), &agent(&done)).await.expect("stores");
    let mut index = manifest("a", "index", Some("v1"));
    index.references = vec![ManifestReference { digest: digest("part"), kind: ReferenceKind::Manifest }];
    store.put_manifest(index, &agent(&done)).await.expect("stores");
    // A person pushes the same as an attempt that is lost.
    store.put_manifest(with_layer("both"), &agent(&lost)).await.expect("stores");
    store.put_manifest(with_layer("both"), &person()).await.expect("stores");

    fixture.clock().advance(Duration::from_secs(60));
    let drop = async || store.drop_unfinished(fixture.clock().now(), 10).await.expect("drops");
    assert_eq!(store.drop_unfinished(START, 10).await.expect("drops"), 0, "it was pushed since");
    fixture.promote(&done, &[]).await.expect("promotes");
    assert_eq!(drop().await, 1);
    assert_eq!(drop().await, 0);
    let is_there = async |text: &str| by_digest(store, "a", &digest(text)).await.is_some();
    assert!(!is_there("lost").await);
    for kept in ["part", "index", "both"] {
        assert!(is_there(kept).await, "{kept}");
    }
    assert_eq!(fixture.deleted_events().await, [], "nobody is told of what nobody was told of");
}
