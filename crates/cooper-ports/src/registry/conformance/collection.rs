//! The collection of blobs: leases, and what is condemned.

use std::time::Duration;

use cooper_types::Digest;

use super::super::{BLOB_LEASE, ManifestReference, ReferenceKind, Released};
use super::{Fixture, START, blob, manifest, name, person, upload};
use crate::clock::Clock as _;

pub(super) async fn run_all<F: Fixture>(make: &impl AsyncFn() -> F) {
    a_blob_is_kept_for_its_lease(&make().await).await;
    a_manifest_keeps_its_blobs(&make().await).await;
    whoever_uploads_a_condemned_blob_saves_it(&make().await).await;
    a_look_is_bounded(&make().await).await;
    strays_are_condemned(&make().await).await;
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
