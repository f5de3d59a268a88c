//! What every registry store must do, as checks that run on the fake and on the real ones alike.
//!
//! A check panics where a store breaks the port's word, so this belongs in tests only.

mod catalog;
mod collection;
mod deletion;

use async_trait::async_trait;
use bytes::Bytes;
use cooper_types::{AttemptNumber, Digest, PrincipalName, RepositoryName, RunId, StepId, Tag, Timestamp};

use super::{
    AttemptRef, BeginUploadError, MAX_OPEN_UPLOADS, Manifest, ManifestKey, ManifestReference, NewManifest,
    PromoteError, PromotedTag, PutManifestError, ReferenceKind, RegistryStore, RegistryWriteError, STAGED_LIFETIME,
    StagedTarget, UPLOAD_LIFETIME, Upload, Writer,
};
use crate::blobs::UploadId;
use crate::clock::ManualClock;

/// The time at which a fixture's clock must start.
pub const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// An empty store, and what happens around it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store.
    fn store(&self) -> &dyn RegistryStore;
    /// The store's clock.
    fn clock(&self) -> &ManualClock;
    /// Makes an attempt live.
    async fn start_attempt(&self, attempt: &AttemptRef);
    /// Ends an attempt.
    async fn end_attempt(&self, attempt: &AttemptRef);
    /// Promotes an attempt's staged tags, as completing its step does.
    async fn promote(&self, attempt: &AttemptRef, targets: &[StagedTarget]) -> Result<Vec<PromotedTag>, PromoteError>;
    /// Drops an attempt's staged tags, as losing it does.
    async fn drop_staged(&self, run: RunId, attempt: AttemptNumber);
    /// The push events so far.
    async fn pushed_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)>;
    /// The deletions so far.
    async fn deleted_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)>;
}

/// Runs every check, each on a store of its own.
pub async fn run_all<F: Fixture>(make: impl AsyncFn() -> F) {
    uploads_live_until_they_end(&make().await).await;
    uploads_expire(&make().await).await;
    a_principal_has_so_many_uploads(&make().await).await;
    blobs_belong_to_repositories(&make().await).await;
    manifests_need_what_they_refer_to(&make().await).await;
    tags_move_and_are_listed_in_order(&make().await).await;
    staged_tags_are_seen_by_their_run_alone(&make().await).await;
    promotion_moves_all_tags_or_none(&make().await).await;
    promotion_moves_a_tag_once(&make().await).await;
    a_dropped_attempt_leaves_no_tag(&make().await).await;
    staged_tags_expire(&make().await).await;
    a_finished_attempt_writes_nothing(&make().await).await;
    deletion::run_all(&make).await;
    catalog::run_all(&make).await;
    collection::run_all(&make).await;
}

async fn uploads_live_until_they_end(fixture: &dyn Fixture) {
    let store = fixture.store();
    let upload = upload(1, "a", &person());
    store.begin_upload(&upload).await.expect("begins");
    assert_eq!(store.find_upload(&name("a"), upload.id).await.expect("finds"), Some(upload.clone()));
    assert_eq!(store.find_upload(&name("b"), upload.id).await.expect("finds"), None, "an upload has one repository");
    let digest = Digest::sha256(b"x");
    store.complete_upload(&upload, &digest, 1).await.expect("completes");
    assert_eq!(store.find_upload(&name("a"), upload.id).await.expect("finds"), None);
    assert_eq!(store.blob_size(&name("a"), &digest).await.expect("sizes"), Some(1));
    store.complete_upload(&upload, &digest, 1).await.expect("completing twice changes nothing");
}

async fn uploads_expire(fixture: &dyn Fixture) {
    let store = fixture.store();
    let upload = upload(2, "a", &person());
    store.begin_upload(&upload).await.expect("begins");
    let early = START.after(UPLOAD_LIFETIME / 2);
    assert_eq!(store.expired_uploads(early, 10).await.expect("lists"), []);
    let late = START.after(UPLOAD_LIFETIME * 2);
    assert_eq!(store.expired_uploads(late, 10).await.expect("lists"), [upload.id]);
    store.forget_uploads(&[upload.id]).await.expect("forgets");
    assert_eq!(store.expired_uploads(late, 10).await.expect("lists"), []);
}

async fn a_principal_has_so_many_uploads(fixture: &dyn Fixture) {
    let store = fixture.store();
    for id in 0..MAX_OPEN_UPLOADS {
        store.begin_upload(&upload(id as u128, "a", &person())).await.expect("begins");
    }
    let refused = store.begin_upload(&upload(u128::MAX, "b", &person())).await;
    assert!(matches!(refused, Err(BeginUploadError::TooMany(whose)) if whose == principal()));
    assert_eq!(store.find_upload(&name("b"), UploadId::from_bits(u128::MAX)).await.expect("finds"), None);
    let other = Writer { principal: PrincipalName::parse("bob").expect("a valid name"), attempt: None };
    store.begin_upload(&upload(u128::MAX, "b", &other)).await.expect("others go on");
    store.forget_uploads(&[UploadId::from_bits(7)]).await.expect("forgets");
    store.begin_upload(&upload(7, "a", &person())).await.expect("there is room again");
}

async fn blobs_belong_to_repositories(fixture: &dyn Fixture) {
    let store = fixture.store();
    let digest = blob(store, 3, "a", b"layer").await;
    assert_eq!(store.blob_size(&name("a"), &digest).await.expect("sizes"), Some(5));
    assert_eq!(store.blob_size(&name("b"), &digest).await.expect("sizes"), None);
    let mounted = store.mount_blob(&name("b"), &name("c"), &digest, &person()).await.expect("answers");
    assert!(!mounted, "a blob is mounted only from a repository that holds it");
    assert!(store.mount_blob(&name("a"), &name("b"), &digest, &person()).await.expect("mounts"));
    assert!(store.mount_blob(&name("a"), &name("b"), &digest, &person()).await.expect("mounts again"));
    assert_eq!(store.blob_size(&name("b"), &digest).await.expect("sizes"), Some(5));
}

async fn manifests_need_what_they_refer_to(fixture: &dyn Fixture) {
    let store = fixture.store();
    let layer = blob(store, 4, "a", b"layer").await;
    let absent = Digest::sha256(b"absent");
    let needs = |digest: &Digest, kind| ManifestReference { digest: digest.clone(), kind };

    let mut new = manifest("a", "m1", Some("v1"));
    new.references = vec![needs(&layer, ReferenceKind::Blob), needs(&absent, ReferenceKind::Blob)];
    match store.put_manifest(new.clone(), &person()).await {
        Err(PutManifestError::Missing { missing, .. }) => assert_eq!(missing, std::slice::from_ref(&absent)),
        other => panic!("a manifest without its layer was answered with {other:?}"),
    }
    assert_eq!(get(store, "a", "v1", None).await, None, "a refused push leaves no tag");
    assert_eq!(by_digest(store, "a", &new.manifest.digest).await, None, "a refused push leaves no manifest");

    new.references[1].kind = ReferenceKind::ForeignBlob;
    new.references.push(needs(&Digest::sha256(b"subject"), ReferenceKind::Subject));
    store.put_manifest(new.clone(), &person()).await.expect("foreign layers and subjects may be missing");
    store.put_manifest(new.clone(), &person()).await.expect("pushing again changes nothing");
    assert_eq!(by_digest(store, "a", &new.manifest.digest).await, Some(new.manifest.clone()));

    let mut elsewhere = new.clone();
    elsewhere.repository = name("b");
    let refused = store.put_manifest(elsewhere, &person()).await;
    assert!(matches!(refused, Err(PutManifestError::Missing { .. })), "blobs of another repository do not count");

    let mut index = manifest("a", "index", Some("all"));
    index.references = vec![needs(&absent, ReferenceKind::Manifest)];
    let refused = store.put_manifest(index.clone(), &person()).await;
    assert!(matches!(refused, Err(PutManifestError::Missing { .. })), "an index needs its manifests");
    index.references = vec![needs(&new.manifest.digest, ReferenceKind::Manifest)];
    store.put_manifest(index, &person()).await.expect("an index of a stored manifest is stored");
}

async fn tags_move_and_are_listed_in_order(fixture: &dyn Fixture) {
    let store = fixture.store();
    assert_eq!(store.tags(&name("a"), None, 10, None).await.expect("lists"), None, "no such repository");
    for (content, tag) in [("1", "b"), ("2", "a"), ("3", "ab"), ("4", "B"), ("5", "b")] {
        store.put_manifest(manifest("a", content, Some(tag)), &person()).await.expect("stores");
    }
    assert_eq!(get(store, "a", "b", None).await, Some(Digest::sha256(b"5")), "the later push of a tag counts");
    assert!(by_digest(store, "a", &Digest::sha256(b"1")).await.is_some(), "its earlier manifest stays");
    assert_eq!(tags(store, "a", None, 10, None).await, ["B", "a", "ab", "b"]);
    assert_eq!(tags(store, "a", Some("a"), 1, None).await, ["ab"]);
    assert_eq!(tags(store, "a", Some("aa"), 10, None).await, ["ab", "b"], "`last` need not exist");
    assert_eq!(tags(store, "a", Some("b"), 10, None).await, [] as [&str; 0]);
    let events = fixture.pushed_events().await;
    let seen: Vec<_> = events.iter().map(|(_, tag, _)| tag.as_ref().map(Tag::as_str)).collect();
    assert_eq!(seen, [Some("b"), Some("a"), Some("ab"), Some("B"), Some("b")], "each push is an event, in order");
}

async fn staged_tags_are_seen_by_their_run_alone(fixture: &dyn Fixture) {
    let store = fixture.store();
    store.put_manifest(manifest("a", "old", Some("v1")), &person()).await.expect("stores");
    let attempt = attempt(1, 1);
    fixture.start_attempt(&attempt).await;
    assert!(store.attempt_is_live(&attempt).await.expect("answers"));
    store.put_manifest(manifest("a", "new", Some("v1")), &agent(&attempt)).await.expect("stages");
    store.put_manifest(manifest("a", "new", Some("v2")), &agent(&attempt)).await.expect("stages");
    for other in [None, Some(RunId::from_number(2))] {
        assert_eq!(get(store, "a", "v1", other).await, Some(Digest::sha256(b"old")));
        assert_eq!(get(store, "a", "v2", other).await, None);
        assert_eq!(tags(store, "a", None, 10, other).await, ["v1"]);
    }
    let run = Some(RunId::from_number(1));
    assert_eq!(get(store, "a", "v1", run).await, Some(Digest::sha256(b"new")));
    assert_eq!(tags(store, "a", None, 10, run).await, ["v1", "v2"]);
    assert!(by_digest(store, "a", &Digest::sha256(b"new")).await.is_some(), "content has no owner");
    assert_eq!(fixture.pushed_events().await.len(), 1, "nothing is announced before the step completes");

    let mut other = manifest("a", "old", Some("v3"));
    let first = std::mem::replace(&mut other.manifest.media_type, "another".into());
    let seen = async || by_digest(store, "a", &Digest::sha256(b"old")).await.expect("is there").media_type;
    store.put_manifest(other.clone(), &agent(&attempt)).await.expect("stages");
    assert_eq!(seen().await, first, "an attempt changes nothing that others see");
    store.put_manifest(other, &person()).await.expect("stores");
    assert_eq!(seen().await, "another");
}

async fn promotion_moves_all_tags_or_none(fixture: &dyn Fixture) {
    let store = fixture.store();
    let attempt = attempt(1, 3);
    fixture.start_attempt(&attempt).await;
    store.put_manifest(manifest("a", "one", Some("staged.ca1.3")), &agent(&attempt)).await.expect("stages");
    store.put_manifest(manifest("b", "two", Some("own")), &agent(&attempt)).await.expect("stages");
    let target = |repository: &str, tags: &[&str]| StagedTarget {
        repository: name(repository),
        staging: tag("staged.ca1.3"),
        tags: tags.iter().map(|text| tag(text)).collect(),
        digest: None,
    };
    let other = StagedTarget { digest: Some(Digest::sha256(b"another")), ..target("a", &["v1"]) };
    let refused = fixture.promote(&attempt, &[other]).await;
    assert!(matches!(refused, Err(PromoteError::NotPushed { .. })), "what is there is not what was said: {refused:?}");
    let refused = fixture.promote(&attempt, &[target("a", &["v1"]), target("c", &["v1"])]).await;
    assert!(matches!(refused, Err(PromoteError::NotPushed { repository, .. }) if repository == name("c")));
    assert_eq!(get(store, "a", "v1", None).await, None, "a failed promotion moves nothing");

    let promoted = fixture.promote(&attempt, &[target("a", &["v1", "latest"])]).await.expect("promotes");
    let moved = |repository: &str, text: &str, content: &[u8]| PromotedTag {
        repository: name(repository),
        tag: tag(text),
        digest: Digest::sha256(content),
    };
    let expect = [moved("a", "v1", b"one"), moved("a", "latest", b"one")];
    assert_eq!(promoted, expect);
    for PromotedTag { repository, tag, digest } in promoted {
        assert_eq!(get(store, repository.as_str(), tag.as_str(), None).await, Some(digest));
    }
    assert_eq!(tags(store, "a", None, 10, Some(attempt.run)).await, ["latest", "v1"], "no staging tag is left");
    let events = fixture.pushed_events().await;
    assert_eq!(events, expect.map(|tag| (tag.repository, Some(tag.tag), tag.digest)));
    assert_eq!(get(store, "b", "own", None).await, None, "the plan does not name it");
    assert_eq!(fixture.promote(&attempt, &[]).await.expect("nothing is left"), []);
}

async fn promotion_moves_a_tag_once(fixture: &dyn Fixture) {
    let store = fixture.store();
    let attempt = attempt(1, 1);
    fixture.start_attempt(&attempt).await;
    store.put_manifest(manifest("a", "planned", Some("staged")), &agent(&attempt)).await.expect("stages");
    store.put_manifest(manifest("a", "own", Some("v1")), &agent(&attempt)).await.expect("stages");
    let target =
        StagedTarget { repository: name("a"), staging: tag("staged"), tags: vec![tag("v1"), tag("v1")], digest: None };
    let promoted = fixture.promote(&attempt, &[target]).await.expect("promotes");
    let planned = Digest::sha256(b"planned");
    assert_eq!(promoted, [PromotedTag { repository: name("a"), tag: tag("v1"), digest: planned.clone() }]);
    assert_eq!(get(store, "a", "v1", None).await, Some(planned), "the plan's word on a tag counts");
    assert_eq!(fixture.pushed_events().await.len(), 1);
}

async fn a_dropped_attempt_leaves_no_tag(fixture: &dyn Fixture) {
    let store = fixture.store();
    let (lost, kept) = (attempt(1, 1), attempt(1, 2));
    for attempt in [&lost, &kept] {
        fixture.start_attempt(attempt).await;
        let content = attempt.attempt.to_string();
        store.put_manifest(manifest("a", &content, Some("v1")), &agent(attempt)).await.expect("stages");
        fixture.end_attempt(attempt).await;
    }
    assert_eq!(get(store, "a", "v1", Some(lost.run)).await, Some(Digest::sha256(b"2")), "the newest attempt's counts");
    fixture.drop_staged(lost.run, lost.attempt).await;
    assert_eq!(fixture.promote(&lost, &[]).await.expect("nothing is left"), []);
    assert_eq!(fixture.promote(&kept, &[]).await.expect("promotes").len(), 1);
    assert_eq!(get(store, "a", "v1", None).await, Some(Digest::sha256(b"2")));
}

async fn staged_tags_expire(fixture: &dyn Fixture) {
    let store = fixture.store();
    let attempt = attempt(1, 1);
    fixture.start_attempt(&attempt).await;
    store.put_manifest(manifest("a", "one", Some("v1")), &agent(&attempt)).await.expect("stages");
    assert_eq!(store.expire_staged(START.after(STAGED_LIFETIME / 2)).await.expect("expires"), 0);
    assert_eq!(store.expire_staged(START.after(STAGED_LIFETIME * 2)).await.expect("expires"), 1);
    assert_eq!(get(store, "a", "v1", Some(attempt.run)).await, None);
}

async fn a_finished_attempt_writes_nothing(fixture: &dyn Fixture) {
    let store = fixture.store();
    let attempt = attempt(1, 1);
    let writer = agent(&attempt);
    fixture.start_attempt(&attempt).await;
    let begun = upload(9, "a", &writer);
    store.begin_upload(&begun).await.expect("a live attempt may begin");
    let digest = blob(store, 10, "b", b"layer").await;
    fixture.end_attempt(&attempt).await;
    assert!(!store.attempt_is_live(&attempt).await.expect("answers"));
    let is_over = |result: Result<(), RegistryWriteError>| matches!(result, Err(RegistryWriteError::AttemptOver(over)) if over == attempt);
    let refused = store.begin_upload(&upload(11, "a", &writer)).await;
    assert!(matches!(refused, Err(BeginUploadError::AttemptOver(over)) if over == attempt));
    assert!(is_over(store.complete_upload(&begun, &digest, 5).await));
    assert!(is_over(store.mount_blob(&name("b"), &name("a"), &digest, &writer).await.map(drop)));
    let refused = store.put_manifest(manifest("a", "late", Some("v1")), &writer).await;
    assert!(matches!(refused, Err(PutManifestError::AttemptOver(over)) if over == attempt));
    assert_eq!(store.blob_size(&name("a"), &digest).await.expect("sizes"), None);
    assert_eq!(by_digest(store, "a", &Digest::sha256(b"late")).await, None);
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).expect("a valid name")
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).expect("a valid tag")
}

fn principal() -> PrincipalName {
    PrincipalName::parse("ann").expect("a valid name")
}

fn person() -> Writer {
    Writer { principal: principal(), attempt: None }
}

fn agent(attempt: &AttemptRef) -> Writer {
    Writer { principal: principal(), attempt: Some(attempt.clone()) }
}

fn attempt(run: u64, attempt: u64) -> AttemptRef {
    let step = StepId::parse("build").expect("a valid id");
    AttemptRef { run: RunId::from_number(run), step, attempt: AttemptNumber(attempt) }
}

fn upload(id: u128, repository: &str, writer: &Writer) -> Upload {
    Upload { id: UploadId::from_bits(id), repository: name(repository), writer: writer.clone() }
}

fn manifest(repository: &str, content: &str, tag_text: Option<&str>) -> NewManifest {
    let manifest = Manifest {
        digest: Digest::sha256(content.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: Bytes::copy_from_slice(content.as_bytes()),
    };
    NewManifest { repository: name(repository), manifest, references: Vec::new(), tag: tag_text.map(tag) }
}

/// Makes `repository` hold a blob.
async fn blob(store: &dyn RegistryStore, id: u128, repository: &str, content: &[u8]) -> Digest {
    let upload = upload(id, repository, &person());
    let digest = Digest::sha256(content);
    store.begin_upload(&upload).await.expect("begins");
    store.complete_upload(&upload, &digest, content.len() as u64).await.expect("completes");
    digest
}

async fn get(store: &dyn RegistryStore, repository: &str, text: &str, run: Option<RunId>) -> Option<Digest> {
    let found = store.manifest(&name(repository), &ManifestKey::Tag(tag(text)), run).await.expect("finds");
    found.map(|manifest| manifest.digest)
}

async fn by_digest(store: &dyn RegistryStore, repository: &str, digest: &Digest) -> Option<Manifest> {
    store.manifest(&name(repository), &ManifestKey::Digest(digest.clone()), None).await.expect("finds")
}

async fn tags(
    store: &dyn RegistryStore,
    repository: &str,
    after: Option<&str>,
    limit: u32,
    run: Option<RunId>,
) -> Vec<String> {
    let found = store.tags(&name(repository), after, limit, run).await.expect("lists");
    found.expect("the repository is there").iter().map(Tag::to_string).collect()
}
