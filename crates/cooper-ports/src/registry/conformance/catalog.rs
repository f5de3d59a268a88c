//! Listings: pages, times, and what refers to what.

use std::time::Duration;

use cooper_types::Digest;

use super::super::{ManifestReference, ReferenceKind};
use super::{Fixture, START, agent, attempt, blob, manifest, name, person, tag};

pub(super) async fn run_all<F: Fixture>(make: &impl AsyncFn() -> F) {
    repositories_come_in_pages(&make().await).await;
    tags_have_times(&make().await).await;
    manifests_say_what_they_are(&make().await).await;
}

async fn repositories_come_in_pages(fixture: &dyn Fixture) {
    let store = fixture.store();
    for repository in ["b", "a/z", "a"] {
        store.put_manifest(manifest(repository, "image", Some("v1")), &person()).await.expect("stores");
    }
    blob(store, 1, "blobs/alone", b"layer").await;
    let page = async |after: Option<&str>, limit| {
        let names = store.repositories(after, limit).await.expect("lists");
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 10).await, ["a", "a/z", "b"]);
    assert_eq!(page(None, 2).await, ["a", "a/z"]);
    assert_eq!(page(Some("a/z"), 2).await, ["b"]);
    let details = store.repository_details(&name("a")).await.expect("finds").expect("is there");
    assert_eq!((details.manifests, details.tags, details.created, details.updated), (1, 1, START, START));
    assert_eq!(store.repository_details(&name("none")).await.expect("finds"), None);
    store.delete_manifest(&name("a"), &Digest::sha256(b"image"), false, None, &person()).await.expect("deletes");
    assert_eq!(page(None, 10).await, ["a/z", "b"], "an empty repository is none");
}

async fn tags_have_times(fixture: &dyn Fixture) {
    let store = fixture.store();
    let later = START.after(Duration::from_secs(60));
    for (content, text) in [("1", "b"), ("1", "a"), ("2", "c")] {
        store.put_manifest(manifest("r", content, Some(text)), &person()).await.expect("stores");
    }
    fixture.clock().advance(Duration::from_secs(60));
    store.put_manifest(manifest("r", "3", Some("b")), &person()).await.expect("stores");
    let all = store.tag_details(&name("r"), None, 10).await.expect("lists");
    let seen: Vec<_> = all.iter().map(|tag| (tag.tag.as_str(), tag.digest.clone(), tag.created, tag.updated)).collect();
    let digest = |content: &str| Digest::sha256(content.as_bytes());
    let expect = [("a", digest("1"), START, START), ("b", digest("3"), START, later), ("c", digest("2"), START, START)];
    assert_eq!(seen, expect);
    let page = store.tag_details(&name("r"), Some("a"), 1).await.expect("lists");
    assert_eq!(page, [all[1].clone()]);
    assert_eq!(store.tag_details(&name("none"), None, 10).await.expect("lists"), []);
}

async fn manifests_say_what_they_are(fixture: &dyn Fixture) {
    let store = fixture.store();
    let at = |minutes: u64| START.after(Duration::from_secs(60 * minutes));
    let layer = blob(store, 1, "r", b"layer").await;
    let refer = |digest: &Digest, kind| vec![ManifestReference { digest: digest.clone(), kind }];
    let mut image = manifest("r", "image", Some("v1"));
    image.references = refer(&layer, ReferenceKind::Blob);
    let digest = image.manifest.digest.clone();
    store.put_manifest(image.clone(), &person()).await.expect("stores");
    let mut index = manifest("r", "an index", Some("all"));
    index.references = refer(&digest, ReferenceKind::Manifest);
    store.put_manifest(index.clone(), &person()).await.expect("stores");
    let mut about = manifest("r", "signature", None);
    about.references = refer(&digest, ReferenceKind::Subject);
    store.put_manifest(about.clone(), &person()).await.expect("stores");
    let find = async |wanted: &Digest| {
        let all = store.manifest_details(&name("r"), None, 10).await.expect("lists");
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| a.digest.as_str().cmp(b.digest.as_str()));
        assert_eq!(all, sorted);
        all.into_iter().find(|manifest| manifest.digest == *wanted).expect("is listed")
    };
    let found = find(&digest).await;
    assert_eq!((found.size, found.created, found.updated), (10, START, START));
    assert_eq!((found.tags, found.manifests, found.subject, found.is_staged), (vec![tag("v1")], vec![], None, false));
    let found = find(&index.manifest.digest).await;
    assert_eq!((found.size, found.tags, found.manifests), (8, vec![tag("all")], vec![digest.clone()]));
    let found = find(&about.manifest.digest).await;
    assert_eq!((found.tags, found.subject), (vec![], Some(digest.clone())));

    // Being pushed again and getting a tag change a manifest's time. Losing one doesn't: who deletes old tags means their
    // manifests, too.
    let updated = async || find(&digest).await.updated;
    for minute in 1..=4 {
        fixture.clock().advance(Duration::from_secs(60));
        match minute {
            1 => store.put_manifest(manifest("r", "other", Some("v1")), &person()).await.expect("moves its tag away"),
            2 => store.put_manifest(image.clone(), &person()).await.expect("moves it back"),
            3 => store.delete_tag(&name("r"), &tag("v1"), None, None, &person()).await.expect("deletes it"),
            _ => {
                let attempt = attempt(1, 1);
                fixture.start_attempt(&attempt).await;
                store.put_manifest(image.clone(), &agent(&attempt)).await.expect("stages");
                assert!(find(&digest).await.is_staged);
            }
        }
        let expect = if minute % 2 == 0 { at(minute) } else { at(minute - 1) };
        assert_eq!(updated().await, expect, "minute {minute}");
    }
    assert_eq!(find(&digest).await.tags, []);
    assert_eq!(find(&digest).await.created, START);
    let all = store.manifest_details(&name("r"), None, 10).await.expect("lists");
    let page = store.manifest_details(&name("r"), Some(all[0].digest.as_str()), 2).await.expect("lists");
    assert_eq!(page, all[1..3]);
}
