//! Deletion: tags, manifests, and what keeps them.

use std::time::Duration;

use cooper_types::{Digest, Tag, Timestamp};

use super::super::{DeleteError, ManifestReference, NewManifest, ReferenceKind, StagedTarget};
use super::{Fixture, START, agent, attempt, blob, by_digest, get, manifest, name, person, tag, tags};

pub(super) async fn run_all<F: Fixture>(make: &impl AsyncFn() -> F) {
    a_deleted_tag_leaves_its_manifest(&make().await).await;
    a_deleted_manifest_takes_its_tags_and_what_is_about_it(&make().await).await;
    what_is_needed_stays(&make().await).await;
    a_deleted_blob_is_its_repository_s_alone(&make().await).await;
    what_was_pushed_again_stays(&make().await).await;
    a_finished_attempt_deletes_nothing(&make().await).await;
}

/// A manifest that refers to something.
fn referring(content: &str, tag: Option<&str>, kind: ReferenceKind, to: &Digest) -> NewManifest {
    let references = vec![ManifestReference { digest: to.clone(), kind }];
    NewManifest { references, ..manifest("a", content, tag) }
}

async fn a_deleted_tag_leaves_its_manifest(fixture: &dyn Fixture) {
    let store = fixture.store();
    let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
    for (content, tag) in [("1", "v1"), ("1", "v1.0"), ("2", "v2")] {
        store.put_manifest(manifest("a", content, Some(tag)), &person()).await.expect("stores");
    }
    let unknown = store.delete_tag(&name("b"), &tag("v1"), None, None, &person()).await;
    assert!(matches!(unknown, Err(DeleteError::Unknown(repository)) if repository == name("b")));
    let unknown = store.delete_tag(&name("a"), &tag("v3"), None, None, &person()).await;
    assert!(matches!(unknown, Err(DeleteError::Unknown(_))));
    let moved = store.delete_tag(&name("a"), &tag("v1"), Some(&two), None, &person()).await;
    assert!(matches!(moved, Err(DeleteError::Moved(found)) if found == one));
    assert_eq!(tags(store, "a", None, 10, None).await, ["v1", "v1.0", "v2"], "a refusal changes nothing");
    store.delete_tag(&name("a"), &tag("v1"), Some(&one), None, &person()).await.expect("deletes");
    store.delete_tag(&name("a"), &tag("v2"), None, None, &person()).await.expect("deletes");
    assert_eq!(tags(store, "a", None, 10, None).await, ["v1.0"]);
    assert!(by_digest(store, "a", &two).await.is_some());
    let gone = |text: &str, digest: &Digest| (name("a"), Some(tag(text)), digest.clone());
    assert_eq!(fixture.deleted_events().await, [gone("v1", &one), gone("v2", &two)]);
    store.put_manifest(manifest("a", "1", Some("v1")), &person()).await.expect("a deleted tag can be pushed again");
    assert_eq!(get(store, "a", "v1", None).await, Some(one));
}

async fn a_deleted_manifest_takes_its_tags_and_what_is_about_it(fixture: &dyn Fixture) {
    let store = fixture.store();
    let image = Digest::sha256(b"image");
    for tag in [Some("v1"), Some("v2"), None] {
        store.put_manifest(manifest("a", "image", tag), &person()).await.expect("stores");
    }
    let signature = referring("signature", None, ReferenceKind::Subject, &image);
    let about_signature = referring("about", None, ReferenceKind::Subject, &signature.manifest.digest);
    let tagged = referring("tagged", Some("sbom"), ReferenceKind::Subject, &image);
    let all = [signature, about_signature, tagged];
    for new in &all {
        store.put_manifest(new.clone(), &person()).await.expect("stores");
    }
    let refused = store.delete_manifest(&name("a"), &image, true, None, &person()).await;
    assert!(matches!(refused, Err(DeleteError::Tagged(found)) if found == tag("v1")));
    store.delete_manifest(&name("a"), &image, false, None, &person()).await.expect("deletes");
    for (digest, stays) in [
        (&image, false),
        (&all[0].manifest.digest, false),
        (&all[1].manifest.digest, false),
        (&all[2].manifest.digest, true),
    ] {
        assert_eq!(by_digest(store, "a", digest).await.is_some(), stays, "{digest}");
    }
    assert_eq!(tags(store, "a", None, 10, None).await, ["sbom"]);
    let events = fixture.deleted_events().await;
    let seen: Vec<_> = events
        .iter()
        .filter(|(_, _, digest)| *digest == image)
        .map(|(_, tag, _)| tag.as_ref().map(Tag::as_str))
        .collect();
    assert_eq!(seen, [Some("v1"), Some("v2"), None], "each tag, and then the manifest");
    assert_eq!(events.len(), 5, "{events:?}");
    let again = store.delete_manifest(&name("a"), &image, false, None, &person()).await;
    assert!(matches!(again, Err(DeleteError::Unknown(_))));
    store.put_manifest(manifest("a", "image", Some("v1")), &person()).await.expect("it can be pushed again");
    assert_eq!(get(store, "a", "v1", None).await, Some(image));
}

async fn what_is_needed_stays(fixture: &dyn Fixture) {
    let store = fixture.store();
    let child = manifest("a", "child", Some("own"));
    let child_digest = child.manifest.digest.clone();
    store.put_manifest(child, &person()).await.expect("stores");
    let index = referring("index", Some("all"), ReferenceKind::Manifest, &child_digest);
    let index_digest = index.manifest.digest.clone();
    store.put_manifest(index, &person()).await.expect("stores");
    let refused = store.delete_manifest(&name("a"), &child_digest, false, None, &person()).await;
    assert!(matches!(refused, Err(DeleteError::Needed(by)) if by == index_digest));
    assert_eq!(get(store, "a", "own", None).await, Some(child_digest.clone()), "a refusal changes nothing");
    store.delete_manifest(&name("a"), &index_digest, false, None, &person()).await.expect("an index goes first");

    // What is about something gone and a part of an index stays with that.
    let subject = Digest::sha256(b"subject");
    store.put_manifest(manifest("a", "subject", None), &person()).await.expect("stores");
    let about = referring("about", None, ReferenceKind::Subject, &subject);
    let about_digest = about.manifest.digest.clone();
    store.put_manifest(about, &person()).await.expect("stores");
    let list = referring("list", Some("list"), ReferenceKind::Manifest, &about_digest);
    store.put_manifest(list, &person()).await.expect("stores");
    store.delete_manifest(&name("a"), &subject, true, None, &person()).await.expect("deletes");
    assert!(by_digest(store, "a", &about_digest).await.is_some());

    let attempt = attempt(7, 1);
    fixture.start_attempt(&attempt).await;
    store.put_manifest(manifest("a", "child", Some("staged")), &agent(&attempt)).await.expect("stages");
    let refused = store.delete_manifest(&name("a"), &child_digest, false, None, &person()).await;
    assert!(matches!(refused, Err(DeleteError::Staged(run)) if run == attempt.run));
    fixture.drop_staged(attempt.run, attempt.attempt).await;
    store.delete_manifest(&name("a"), &child_digest, false, None, &person()).await.expect("nobody needs it");
    assert_eq!(get(store, "a", "own", None).await, None);
}

async fn what_was_pushed_again_stays(fixture: &dyn Fixture) {
    let store = fixture.store();
    let image = Digest::sha256(b"image");
    let put = async |content: &str, tag: Option<&str>| {
        store.put_manifest(manifest("a", content, tag), &person()).await.expect("stores");
    };
    let untag = async |updated| store.delete_tag(&name("a"), &tag("v1"), Some(&image), Some(updated), &person()).await;
    let delete = async |updated| store.delete_manifest(&name("a"), &image, true, Some(updated), &person()).await;
    let is_updated = |result, at: Timestamp| matches!(result, Err(DeleteError::Updated(found)) if found == at);
    let later = |minutes: u64| START.after(Duration::from_secs(60 * minutes));
    let minute = || fixture.clock().advance(Duration::from_secs(60));
    put("image", Some("v1")).await;
    minute();
    put("image", Some("v1")).await;
    assert!(is_updated(untag(START).await, later(1)), "the same digest was pushed under the tag");
    let attempt = attempt(1, 1);
    fixture.start_attempt(&attempt).await;
    store.put_manifest(manifest("a", "image", Some("staged")), &agent(&attempt)).await.expect("stages");
    minute();
    let (repository, staging, tags) = (name("a"), tag("staged"), vec![tag("v1")]);
    let target = StagedTarget { repository, staging, tags, digest: None };
    fixture.promote(&attempt, &[target]).await.expect("promotes");
    assert!(is_updated(untag(later(1)).await, later(2)), "a run has moved it to where it was");
    assert_eq!(get(store, "a", "v1", None).await, Some(image.clone()), "a refusal changes nothing");
    untag(later(2)).await.expect("deletes");

    minute();
    put("image", None).await;
    assert!(is_updated(delete(later(2)).await, later(3)), "the same manifest was pushed");
    minute();
    put("image", Some("v1")).await;
    store.delete_tag(&name("a"), &tag("v1"), None, None, &person()).await.expect("deletes");
    assert!(is_updated(delete(later(3)).await, later(4)), "it had a tag in between");
    assert!(by_digest(store, "a", &image).await.is_some(), "a refusal changes nothing");
    delete(later(4)).await.expect("deletes");
    assert!(by_digest(store, "a", &image).await.is_none());
}

async fn a_deleted_blob_is_its_repository_s_alone(fixture: &dyn Fixture) {
    let store = fixture.store();
    let layer = blob(store, 1, "a", b"layer").await;
    store.mount_blob(&name("a"), &name("b"), &layer, &person()).await.expect("mounts");
    let image = referring("image", Some("v1"), ReferenceKind::Blob, &layer);
    store.put_manifest(image.clone(), &person()).await.expect("stores");
    let refused = store.delete_blob(&name("a"), &layer, &person()).await;
    assert!(matches!(refused, Err(DeleteError::Needed(by)) if by == image.manifest.digest));
    store.delete_blob(&name("b"), &layer, &person()).await.expect("deletes");
    assert_eq!(store.blob_size(&name("b"), &layer).await.expect("sizes"), None);
    assert_eq!(store.blob_size(&name("a"), &layer).await.expect("sizes"), Some(5));
    assert!(!store.is_condemned(&layer).await.expect("answers"), "another repository holds it");
    let again = store.delete_blob(&name("b"), &layer, &person()).await;
    assert!(matches!(again, Err(DeleteError::Unknown(_))));
    store.delete_manifest(&name("a"), &image.manifest.digest, false, None, &person()).await.expect("deletes");
    store.delete_blob(&name("a"), &layer, &person()).await.expect("deletes");
    assert!(store.is_condemned(&layer).await.expect("answers"));
}

async fn a_finished_attempt_deletes_nothing(fixture: &dyn Fixture) {
    let store = fixture.store();
    let layer = blob(store, 1, "a", b"layer").await;
    store.put_manifest(manifest("a", "image", Some("v1")), &person()).await.expect("stores");
    let attempt = attempt(1, 1);
    fixture.start_attempt(&attempt).await;
    fixture.end_attempt(&attempt).await;
    let writer = agent(&attempt);
    let is_over =
        |result: Result<(), DeleteError>| matches!(result, Err(DeleteError::AttemptOver(over)) if over == attempt);
    let image = Digest::sha256(b"image");
    assert!(is_over(store.delete_tag(&name("a"), &tag("v1"), None, None, &writer).await));
    assert!(is_over(store.delete_manifest(&name("a"), &image, false, None, &writer).await));
    assert!(is_over(store.delete_blob(&name("a"), &layer, &writer).await));
    assert_eq!(get(store, "a", "v1", None).await, Some(image));
    assert_eq!(store.blob_size(&name("a"), &layer).await.expect("sizes"), Some(5));
}
