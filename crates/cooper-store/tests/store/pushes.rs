//! Conformance of the port for runs: what a step's push makes real, and what is left of a lost one.

use std::time::Duration;

use cooper_engine::message::{PushedManifest, StepOutput, StepResult};
use cooper_engine::run::{RunEvent, RunStatus};
use cooper_ports::registry::{AttemptRef, Manifest, ManifestKey, NewManifest, PutManifestError, RegistryStore, Writer};
use cooper_ports::runs::{ApplyError, RunQuery, RunStore};
use cooper_types::{AttemptNumber, Digest, ImageRef, RepositoryName, RunId, StepId, Tag, TaskName};

use crate::fixture::{Fixture, Started, principal};
use crate::runs::{built, query};

/// Pushes a manifest to `app` as an attempt at the push step does.
async fn push(
    fixture: &Fixture,
    run: RunId,
    attempt: AttemptNumber,
    content: &'static str,
) -> Result<Digest, PutManifestError> {
    let digest = Digest::sha256(content.as_bytes());
    let manifest = Manifest {
        digest: digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        bytes: content.as_bytes().into(),
    };
    let tag = Some(Tag::parse(&format!("staged.{run}.{attempt}")).unwrap());
    let new = NewManifest { repository: app(), manifest, references: Vec::new(), tag };
    let attempt = AttemptRef { run, step: StepId::parse("push").unwrap(), attempt };
    fixture.store.put_manifest(new, &Writer { principal: principal("alice"), attempt: Some(attempt) }).await?;
    Ok(digest)
}

pub(crate) fn app() -> RepositoryName {
    RepositoryName::parse("app").unwrap()
}

fn pushed(digest: &Digest) -> StepResult {
    let staging_tag = Tag::parse("staged").unwrap();
    let manifests = vec![PushedManifest { registry: None, repository: app(), staging_tag, digest: digest.clone() }];
    StepResult::Succeeded { output: StepOutput::Pushed { manifests } }
}

async fn tags(fixture: &Fixture) -> Vec<String> {
    let tags = fixture.store.tags(&app(), None, 100, None).await.unwrap().unwrap_or_default();
    tags.iter().map(Tag::to_string).collect()
}

#[tokio::test]
async fn a_completed_push_moves_all_its_tags_at_once_and_ends_the_run() {
    let mut fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    let attempt =
        fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: built() }).await.unwrap().run.last_attempt;

    // A report without a push is refused whole, and the attempt stays live.
    let before = fixture.store.find_run(run).await.unwrap();
    let nothing = RunEvent::StepEnded { fence, attempt, result: pushed(&Digest::sha256(b"never pushed")) };
    let refused = fixture.apply(run, nothing).await.unwrap_err();
    assert!(matches!(refused, ApplyError::NotPushed { attempt: AttemptNumber(2), .. }), "{refused}");
    assert_eq!(fixture.store.find_run(run).await.unwrap(), before);

    let digest = push(&fixture, run, attempt, "{}").await.unwrap();
    assert_eq!(tags(&fixture).await, [""; 0]);
    let applied = fixture.apply(run, RunEvent::StepEnded { fence, attempt, result: pushed(&digest) }).await.unwrap();
    assert_eq!(applied.run.status(), RunStatus::Succeeded);
    fixture.reopen().await;
    assert_eq!(tags(&fixture).await, ["ca1", "v1"]);
    let v1 = ManifestKey::Tag(Tag::parse("v1").unwrap());
    assert_eq!(fixture.store.manifest(&app(), &v1, None).await.unwrap().unwrap().digest, digest);
    let record = fixture.store.find_run(run).await.unwrap().unwrap();
    let outputs: Vec<String> = record
        .output_images
        .iter()
        .map(|image| format!("{} {}/{}:{}", image.step, image.registry, image.repository, image.tag))
        .collect();
    assert_eq!(outputs, ["push localhost:5000/app:v1", "push localhost:5000/app:ca1"]);
    assert!(record.output_images.iter().all(|image| image.digest == digest));
    let written = &record.output_images[0];
    let (of, elsewhere) = (format!("{}/{}", written.registry, written.repository), written.repository.to_string());
    for (image, is_found) in [
        (elsewhere.clone(), true),
        (of.clone(), true),
        (format!("{of}:{}", written.tag), true),
        (format!("{elsewhere}@{digest}"), true),
        (format!("{elsewhere}:other"), false),
        (format!("other.example/{elsewhere}"), false),
        (format!("{elsewhere}@{}", Digest::sha256(b"other")), false),
        (format!("{elsewhere}/more"), false),
    ] {
        let query = RunQuery { image: Some(ImageRef::parse(&image).unwrap()), ..query() };
        let found = fixture.store.list_runs(&query).await.unwrap();
        assert_eq!(found.iter().any(|found| found.run.id == record.run.id), is_found, "{image}");
        let of_task = RunQuery { task: Some(TaskName::parse("nightly").unwrap()), ..query };
        assert!(fixture.store.list_runs(&of_task).await.unwrap().is_empty());
    }
    assert_eq!(fixture.count("SELECT count(*) FROM staged_tags").await, 0);
    let late = push(&fixture, run, attempt, "{ }").await.unwrap_err();
    assert!(matches!(late, PutManifestError::AttemptOver(_)), "{late}");
}

#[tokio::test]
async fn a_lost_push_leaves_no_tag() {
    let fixture = Fixture::new().await;
    let Started { run, fence, attempt } = fixture.start().await;
    let built = RunEvent::StepEnded { fence, attempt, result: built() };
    let attempt = fixture.apply(run, built).await.unwrap().run.last_attempt;
    push(&fixture, run, attempt, "{}").await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM staged_tags").await, 1);
    fixture.clock.advance(Duration::from_secs(60));
    fixture.apply(run, RunEvent::Tick).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM staged_tags").await, 0);
    let late = push(&fixture, run, attempt, "{}").await.unwrap_err();
    assert!(matches!(late, PutManifestError::AttemptOver(_)), "{late}");
    assert_eq!(tags(&fixture).await, [""; 0]);
}
