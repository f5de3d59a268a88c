//! The port's suite on a real database, and what only a database can get wrong.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cooper_ports::clock::{Clock as _, ManualClock};
use cooper_ports::hooks::HookStore as _;
use cooper_ports::registry::conformance::{self, Fixture, START};
use cooper_ports::registry::{
    AttemptRef, Manifest, ManifestKey, ManifestReference, NewManifest, PromoteError, PromotedTag, ReferenceKind,
    RegistryCatalog as _, RegistryStore, StagedTarget, Upload, Writer,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, Digest, PrincipalName, RegistryName, RepositoryName, RunId, Tag};
use sqlx::Row;

use crate::contexts::run_number;
use crate::{Store, StoreOptions};

use super::{attempt_number, drop_staged, promote_own, promote_staged};

struct SqliteFixture {
    store: Store,
    clock: Arc<ManualClock>,
    directory: tempfile::TempDir,
}

async fn open(directory: &Path, clock: &Arc<ManualClock>) -> Store {
    let registry_name = RegistryName::parse("localhost:5000").unwrap();
    Store::open(directory, StoreOptions { registry_name, clock: Some(clock.clone()) }).await.unwrap()
}

impl SqliteFixture {
    async fn new() -> Self {
        let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(START)));
        Self { store: open(directory.path(), &clock).await, clock, directory }
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    fn store(&self) -> &dyn RegistryStore {
        &self.store
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn start_attempt(&self, attempt: &AttemptRef) {
        let attempt = attempt.clone();
        let started = self.store.write(async move |mut tx| {
            for sql in [
                "INSERT OR IGNORE INTO principals (registry_id, name, created) VALUES (1, 'ann', 0)",
                "INSERT OR IGNORE INTO runs (registry_id, number, status, run_type, principal, platform, state,
                                             generation, created, updated)
                 VALUES (1, ?1, 'Running', 'QuickBuild', 'ann', 'linux/amd64', '{}', 1, 0, 0)",
                "INSERT INTO live_attempts (registry_id, run_number, step_id, attempt, fence) VALUES (1, ?1, ?2, ?3, 1)",
            ] {
                sqlx::query(sql)
                    .bind(run_number(attempt.run))
                    .bind(attempt.step.as_str())
                    .bind(attempt_number(&attempt))
                    .execute(&mut *tx)
                    .await
                    .unwrap();
            }
            Ok::<_, StoreError>(())
        });
        started.await.unwrap();
    }

    async fn end_attempt(&self, attempt: &AttemptRef) {
        let attempt = attempt.clone();
        let ended = self.store.write(async move |mut tx| {
            sqlx::query("DELETE FROM live_attempts WHERE run_number = ?1 AND attempt = ?2")
                .bind(run_number(attempt.run))
                .bind(attempt_number(&attempt))
                .execute(&mut *tx)
                .await
                .unwrap();
            Ok::<_, StoreError>(())
        });
        ended.await.unwrap();
    }

    async fn promote(&self, attempt: &AttemptRef, targets: &[StagedTarget]) -> Result<Vec<PromotedTag>, PromoteError> {
        let (registry, attempt, targets) = (self.store.registry_id(), attempt.clone(), targets.to_vec());
        let now = self.clock().now();
        let promoted = self
            .store
            .write(async move |mut tx| promote_staged(&mut tx, registry, &attempt, &targets, None, now).await);
        promoted.await.map(|promotion| promotion.moved)
    }

    async fn drop_staged(&self, run: RunId, attempt: AttemptNumber) {
        let registry = self.store.registry_id();
        self.store.write(async move |mut tx| drop_staged(&mut tx, registry, run, attempt).await).await.unwrap();
    }

    async fn pushed_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
        self.events("pushed").await
    }

    async fn deleted_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
        self.events("deleted").await
    }
}

impl SqliteFixture {
    async fn events(&self, kind: &str) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
        let rows = sqlx::query("SELECT payload FROM events WHERE kind = ?1 ORDER BY seq").bind(kind.to_owned());
        let rows = rows.fetch_all(self.store.readers()).await.unwrap();
        let read = |payload: &str| {
            let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
            let tag = payload["tag"].as_str().map(|tag| Tag::parse(tag).unwrap());
            let text = |key: &str| payload[key].as_str().unwrap().to_owned();
            (RepositoryName::parse(&text("repository")).unwrap(), tag, Digest::parse(&text("digest")).unwrap())
        };
        rows.iter().map(|row| read(row.get("payload"))).collect()
    }
}

#[tokio::test]
async fn passes_the_port_s_suite() {
    conformance::run_all(SqliteFixture::new).await;
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart() {
    let SqliteFixture { store, clock, directory } = SqliteFixture::new().await;
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let repository = RepositoryName::parse("team/app").unwrap();
    let id = cooper_ports::blobs::UploadId::from_bits(1);
    let upload = Upload { id, repository: repository.clone(), writer: writer.clone() };
    store.begin_upload(&upload).await.unwrap();
    let manifest = Manifest { digest: Digest::sha256(b"{}"), media_type: "x".into(), bytes: "{}".into() };
    let tag = Some(Tag::latest());
    let new = NewManifest { repository: repository.clone(), manifest: manifest.clone(), references: vec![], tag };
    store.put_manifest(new, &writer).await.unwrap();
    store.close().await.unwrap();

    let store = open(directory.path(), &clock).await;
    let found = store.manifest(&repository, &ManifestKey::Tag(Tag::latest()), None).await.unwrap();
    assert_eq!(found, Some(manifest));
    assert_eq!(store.find_upload(&repository, id).await.unwrap(), Some(upload));
}

#[tokio::test]
async fn what_a_stage_left_has_no_tag_that_its_run_could_list() {
    let fixture = SqliteFixture::new().await;
    let step = cooper_types::StepId::parse("stage").unwrap();
    let attempt = AttemptRef { run: RunId::from_number(1), step, attempt: AttemptNumber(2) };
    fixture.start_attempt(&attempt).await;
    let repository = RepositoryName::parse("team/app").unwrap();
    let manifest = Manifest { digest: Digest::sha256(b"{}"), media_type: "x".into(), bytes: "{}".into() };
    let tag = Tag::parse("staged.ca1.2").unwrap();
    let (of, digest) = (repository.clone(), manifest.digest.clone());
    let new = NewManifest { repository: of, manifest, references: vec![], tag: Some(tag.clone()) };
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: Some(attempt.clone()) };
    fixture.store.put_manifest(new, &writer).await.unwrap();
    let listed = async || fixture.store.tags(&repository, None, 10, Some(attempt.run)).await.unwrap();
    assert_eq!(listed().await, Some(vec![tag]), "who pushes sees what was pushed");
    fixture.end_attempt(&attempt).await;
    assert_eq!(listed().await, Some(Vec::new()));
    let found = fixture.store.manifest(&repository, &ManifestKey::Digest(digest), Some(attempt.run)).await.unwrap();
    assert!(found.is_some(), "others name it by its digest");
}

#[tokio::test]
async fn of_what_a_build_staged_its_cache_alone_becomes_real() {
    let fixture = SqliteFixture::new().await;
    let step = cooper_types::StepId::parse("build").unwrap();
    let attempt = AttemptRef { run: RunId::from_number(1), step, attempt: AttemptNumber(2) };
    fixture.start_attempt(&attempt).await;
    let repository = RepositoryName::parse("team/app").unwrap();
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: Some(attempt.clone()) };
    let (cache, other) = (Tag::parse("cache_quickrun_build").unwrap(), Tag::latest());
    let keep = async || {
        let (registry, attempt) = (fixture.store.registry_id(), attempt.clone());
        let named = (repository.clone(), cache.clone());
        let kept = async move |tx: &mut sqlx::SqliteConnection| {
            promote_own(tx, registry, &attempt, (&named.0, &named.1), START).await
        };
        fixture.store.write(async move |mut tx| kept(&mut tx).await).await.unwrap();
    };
    keep().await;
    assert_eq!(fixture.pushed_events().await, [], "it wrote none");
    for tag in [&cache, &other] {
        let manifest = Manifest { digest: Digest::sha256(b"{}"), media_type: "x".into(), bytes: "{}".into() };
        let new = NewManifest { repository: repository.clone(), manifest, references: vec![], tag: Some(tag.clone()) };
        fixture.store.put_manifest(new, &writer).await.unwrap();
    }
    keep().await;
    let tags = fixture.store.tags(&repository, None, 10, None).await.unwrap();
    assert_eq!(tags, Some(vec![cache]));
}

#[tokio::test]
async fn an_older_run_of_a_branch_takes_no_tag_back() {
    let fixture = SqliteFixture::new().await;
    let insert = "INSERT INTO principals (registry_id, name, created) VALUES (1, 'ann', 0);
         INSERT INTO tasks (registry_id, task, principal, state, generation) VALUES (1, 'nightly', 'ann', '{}', 1);
         INSERT INTO runs (registry_id, number, status, run_type, principal, platform, state, generation, created, updated, pool, task)
         VALUES (1, 1, 'Running', 'AutoRun', 'ann', '', '{}', 1, 0, 0, 'default', 'nightly')";
    let inserted = fixture.store.write(async move |mut tx| {
        sqlx::query(insert).execute(&mut *tx).await.unwrap();
        Ok::<_, StoreError>(())
    });
    inserted.await.unwrap();
    let repository = RepositoryName::parse("team/app").unwrap();
    // Run, branch (none: by hand, on an unknown one), whether it yields to newer ones, and to which it does.
    for (run, line, yields, expect) in [
        (3, "refs/heads/main", true, None),
        (2, "refs/heads/main", true, Some(3)),
        (2, "refs/heads/other", true, None),
        (1, "refs/heads/main", false, None),
        (2, "refs/heads/main", true, Some(3)),
        (4, "refs/heads/main", true, None),
        (9, "", false, None),
        (8, "refs/heads/main", true, Some(9)),
        (10, "refs/heads/main", true, None),
    ] {
        let (step, attempt) = (cooper_types::StepId::parse("push").unwrap(), AttemptNumber(1));
        let attempt = AttemptRef { run: RunId::from_number(run), step, attempt };
        let bytes = format!("{{\"run\":{run},\"line\":\"{line}\",\"yields\":{yields}}}");
        let manifest =
            Manifest { digest: Digest::sha256(bytes.as_bytes()), media_type: "x".into(), bytes: bytes.into() };
        let digest = manifest.digest.clone();
        let new =
            NewManifest { repository: repository.clone(), manifest, references: vec![], tag: Some(Tag::latest()) };
        let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: Some(attempt.clone()) };
        fixture.start_attempt(&attempt).await;
        fixture.store.put_manifest(new, &writer).await.unwrap();
        let task = cooper_types::TaskName::parse("Nightly").unwrap();
        let order = cooper_engine::task::TagOrder { task, line: line.to_owned(), yields };
        let (registry, ended) = (fixture.store.registry_id(), attempt.clone());
        let promoted = fixture
            .store
            .write(async move |mut tx| promote_staged(&mut tx, registry, &attempt, &[], Some(&order), START).await);
        let promotion = promoted.await.unwrap();
        let newer: Vec<RunId> = promotion.kept.into_iter().map(|(_, _, newer)| newer).collect();
        assert_eq!(newer, expect.map(RunId::from_number).into_iter().collect::<Vec<_>>(), "run {run} of {line}");
        assert_eq!(promotion.moved.len(), usize::from(expect.is_none()));
        let found = fixture.store.manifest(&repository, &ManifestKey::Tag(Tag::latest()), None).await.unwrap();
        assert_eq!(found.unwrap().digest == digest, expect.is_none(), "run {run} of {line}");
        fixture.end_attempt(&ended).await;
    }
    // The order is forgotten with the last run that could come late.
    let orders = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM tag_order");
        count.fetch_one(fixture.store.readers()).await.unwrap()
    };
    assert_eq!((fixture.store.prune_hooks(10).await.unwrap(), orders().await), (0, 3));
    let ended = fixture.store.write(async move |mut tx| {
        sqlx::query("UPDATE runs SET status = 'Failed', finished = 1").execute(&mut *tx).await.unwrap();
        Ok::<_, StoreError>(())
    });
    ended.await.unwrap();
    assert_eq!((fixture.store.prune_hooks(10).await.unwrap(), orders().await), (3, 0));
}

/// A manifest of its own bytes, about another one if one is named.
fn about(text: String, subject: Option<&Digest>, tag: Option<&str>) -> NewManifest {
    let manifest = Manifest { digest: Digest::sha256(text.as_bytes()), media_type: "x".into(), bytes: text.into() };
    let reference = |digest: &Digest| ManifestReference { digest: digest.clone(), kind: ReferenceKind::Subject };
    NewManifest {
        repository: RepositoryName::parse("team/app").unwrap(),
        manifest,
        references: subject.map(reference).into_iter().collect(),
        tag: tag.map(|tag| Tag::parse(tag).unwrap()),
    }
}

#[tokio::test]
async fn what_goes_with_a_manifest_goes_bit_by_bit() {
    let fixture = SqliteFixture::new().await;
    let store = &fixture.store;
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let put = async |new: NewManifest| {
        let digest = new.manifest.digest.clone();
        store.put_manifest(new, &writer).await.unwrap();
        digest
    };
    let subject = put(about("subject".to_owned(), None, Some("v1"))).await;
    // More than one transaction deletes, some of them with a chain behind, one of them a long one.
    for n in 0..450 {
        let mut last = put(about(format!("about {n}"), Some(&subject), None)).await;
        for deeper in 0..(if n == 7 {
            250
        } else if n % 150 == 0 {
            3
        } else {
            0
        }) {
            last = put(about(format!("about {n}, {deeper}"), Some(&last), None)).await;
        }
    }
    let kept = put(about("signed".to_owned(), Some(&subject), Some("kept"))).await;
    let repository = RepositoryName::parse("team/app").unwrap();
    let before = store.writer_counts().changes;
    store.delete_manifest(&repository, &subject, false, None, &writer).await.unwrap();
    assert!(store.writer_counts().changes - before >= 3, "others write in between");
    let left = store.manifest_details(&repository, None, 1000).await.unwrap();
    assert_eq!(left.iter().map(|found| &found.digest).collect::<Vec<_>>(), [&kept]);
    assert_eq!(fixture.deleted_events().await.len(), 1 + 1 + 450 + 9 + 250, "each once, and the tag");
}

#[tokio::test]
async fn an_image_and_what_is_about_it_go_together_or_not_at_all() {
    let fixture = SqliteFixture::new().await;
    let store = &fixture.store;
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let repository = RepositoryName::parse("team/app").unwrap();
    let mut last = None;
    for text in ["image", "contents", "signature"] {
        let new = about(text.to_owned(), last.as_ref(), None);
        last = Some(new.manifest.digest.clone());
        store.put_manifest(new, &writer).await.unwrap();
    }
    let image = Digest::sha256(b"image");
    let before = store.writer_counts().changes;
    store.delete_manifest(&repository, &image, true, Some(START), &writer).await.unwrap();
    assert_eq!(store.writer_counts().changes - before, 1, "nobody comes in between");
    assert_eq!(store.manifest_details(&repository, None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn many_tags_go_with_their_manifest_and_each_is_told_of() {
    let fixture = SqliteFixture::new().await;
    let store = &fixture.store;
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let repository = RepositoryName::parse("team/app").unwrap();
    for n in 0..450 {
        store.put_manifest(about("image".to_owned(), None, Some(&format!("t{n:03}"))), &writer).await.unwrap();
    }
    store.delete_manifest(&repository, &Digest::sha256(b"image"), false, None, &writer).await.unwrap();
    assert_eq!(store.manifest_details(&repository, None, 10).await.unwrap(), []);
    assert_eq!(fixture.deleted_events().await.len(), 451);
}

#[tokio::test]
async fn a_page_of_large_manifests_is_shorter() {
    let fixture = SqliteFixture::new().await;
    let writer = Writer { principal: PrincipalName::parse("ann").unwrap(), attempt: None };
    let repository = RepositoryName::parse("team/app").unwrap();
    for n in 0..5 {
        let large = about(format!("{n}{}", "x".repeat(3 << 20)), None, None);
        fixture.store.put_manifest(large, &writer).await.unwrap();
    }
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.store.manifest_details(&repository, after.as_deref(), 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.digest.to_string());
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
    assert_eq!(fixture.store.manifest_details(&repository, None, 1).await.unwrap()[0].size, (3 << 20) + 1);
}
