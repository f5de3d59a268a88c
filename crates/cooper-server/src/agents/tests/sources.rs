//! Prepare attempts: what they upload, and the credentials that they are given.

use std::collections::BTreeSet;

use cooper_engine::message::{PreparedSource, StepOutput};
use cooper_ports::credentials::{NewSourceCredential, UsableBy};
use cooper_types::{ContextId, Digest, SecretBytes, SourceHost};

use super::*;
use crate::orders::credential_purpose;
use crate::testing::accept_git;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Fixture {
    async fn put(
        &self,
        token: &SecretString,
        key: PlacementKey,
        attempt: AttemptNumber,
        parts: &[&[u8]],
    ) -> Result<wire::SnapshotStored, Status> {
        let named = attempt_message(key, attempt);
        let chunks: Vec<wire::SnapshotChunk> = parts
            .iter()
            .map(|data| wire::SnapshotChunk { key: named.key.clone(), attempt: named.attempt, data: data.to_vec() })
            .collect();
        let request = with_token(tokio_stream::iter(chunks), Some(token));
        Ok(self.client().await.put_snapshot(request).await?.into_inner())
    }

    async fn credential(
        &self,
        token: &SecretString,
        key: PlacementKey,
        attempt: AttemptNumber,
        host: &str,
    ) -> Result<wire::SourceCredential, Status> {
        let named = attempt_message(key, attempt);
        let request = wire::SourceCredentialRequest { key: named.key, attempt: named.attempt, host: host.to_owned() };
        Ok(self.client().await.get_source_credential(with_token(request, Some(token))).await?.into_inner())
    }

    async fn keep_credential(&self, host: &str, password: &str, usable_by: UsableBy) {
        let host = SourceHost::parse(host).expect("valid");
        let sealed = self.core.key.seal(&credential_purpose(&host), &SecretBytes::new(password.as_bytes().to_vec()));
        let new =
            NewSourceCredential { host, username: "bot".to_owned(), sealed, usable_by, set_by: principal("admin") };
        self.core.credentials.put_credential(new).await.expect("kept");
    }

    fn context_files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self._data.path().join("contexts")).expect("folder");
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

#[tokio::test]
async fn a_source_goes_from_the_agent_to_the_builds_context() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let run = accept_git(&fixture.core).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    let status = fixture.fetch(&agent.token, key, attempt).await.expect_err("there is none yet");
    assert_eq!(status.code(), Code::FailedPrecondition);

    let stored = fixture.put(&agent.token, key, attempt, &[b"arch", b"", b"ive"]).await.expect("taken");
    assert_eq!((stored.size, stored.digest), (7, Digest::sha256(b"archive").to_string()));
    let found = PreparedSource {
        commit: Some(COMMIT.to_owned()),
        branch: Some("main".to_owned()),
        tag: None,
        context: ContextId::parse(&stored.context).expect("an id"),
        digest: Digest::sha256(b"archive"),
        size: 7,
        dockerfile: None,
        pinned: None,
        definition: None,
        files: Vec::new(),
    };
    // Nobody but the attempt that uploaded it may name it.
    let forged = PreparedSource { context: ContextId::parse("guess").expect("valid"), ..found.clone() };
    let other = accept_git(&fixture.core).await;
    let others_key = fixture.offer(other, &agent.agent).await;
    let others = agent.take(others_key).await;
    let result = |found| StepResult::Succeeded { output: StepOutput::Prepared(found) };
    agent.say(ToServer::StepEnded(others_key, others, result(forged))).await;
    agent.expect(ToAgent::Stop { key: others_key }).await;
    agent.expect(ToAgent::ResultStored { key: others_key, attempt: others }).await;
    assert_eq!(fixture.run(other).await.losses[0].reason, "the source was reported and the server has nothing of it");

    agent.say(ToServer::StepEnded(key, attempt, result(found.clone()))).await;
    agent.expect(ToAgent::Stop { key }).await;
    agent.expect(ToAgent::ResultStored { key, attempt }).await;
    let planned = fixture.run(run).await;
    assert_eq!(planned.plan.steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>(), ["prepare", "build"]);
    let event = RunEvent::Offer { placement: 1, agent: agent.agent.clone() };
    let fence = fixture.core.apply(run, event).await.expect("offered").run.last_fence;
    let key = PlacementKey { run, fence };
    let attempt = agent.take(key).await;
    assert_eq!(fixture.fetch(&agent.token, key, attempt).await.expect("context"), b"archive");
    assert!(
        fixture
            .log(run)
            .await
            .contains(&format!("Source: https://git.example/app.git at commit {COMMIT} on branch main"))
    );
}

#[tokio::test]
async fn uploads_are_taken_from_live_prepare_attempts_alone() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let stranger = token(&fixture.core, "others", &["agent"]).await;
    let run = accept_git(&fixture.core).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    let code = |result: Result<wire::SnapshotStored, Status>| result.expect_err("refused").code();
    assert_eq!(code(fixture.put(&stranger, key, attempt, &[b"x"]).await), Code::PermissionDenied);
    assert_eq!(code(fixture.put(&agent.token, key, AttemptNumber(9), &[b"x"]).await), Code::FailedPrecondition);
    // The fixture's server takes 1024 bytes.
    assert_eq!(code(fixture.put(&agent.token, key, attempt, &[&[0; 700], &[0; 700]]).await), Code::OutOfRange);
    assert!(fixture.context_files().is_empty(), "nothing is left of what was refused");

    let first = fixture.put(&agent.token, key, attempt, &[b"one"]).await.expect("taken");
    let second = fixture.put(&agent.token, key, attempt, &[b"two"]).await.expect("taken");
    assert_ne!(first.context, second.context);
    let id = ContextId::parse(&second.context).expect("an id");
    assert_eq!(std::fs::read(fixture.core.context_files.path(&id)).expect("kept"), b"two");
    fixture.core.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.expect("cancelled");
    agent.expect(ToAgent::Stop { key }).await;
    agent.say(ToServer::Stopped(key)).await;
    agent.say(ToServer::Holding(vec![Held { key, attempts: vec![attempt] }])).await;
    agent.expect(ToAgent::Stop { key }).await;
    assert_eq!(code(fixture.put(&agent.token, key, attempt, &[b"late"]).await), Code::FailedPrecondition);
    crate::housekeeping::remove_expired_contexts(&fixture.core).await;
    assert!(fixture.context_files().is_empty(), "{:?}", fixture.context_files());

    let built = accept(&fixture.core, Vec::new()).await;
    let key = fixture.offer(built, &agent.agent).await;
    let attempt = agent.take(key).await;
    assert_eq!(code(fixture.put(&agent.token, key, attempt, &[b"x"]).await), Code::PermissionDenied);
}

#[tokio::test]
async fn a_build_may_log_in_where_its_bases_are() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    fixture.keep_credential("index.docker.io", "s3cret", UsableBy::Principals([principal("alice")].into())).await;
    let built = accept(&fixture.core, Vec::new()).await;
    let key = fixture.offer(built, &agent.agent).await;
    let attempt = agent.take(key).await;
    let given = fixture.credential(&agent.token, key, attempt, "registry-1.docker.io").await.expect("answered");
    assert_eq!((given.found, given.password.as_str()), (true, "s3cret"));
    let status = fixture.credential(&agent.token, key, attempt, "https://docker.io/").await.expect_err("no host");
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn turns_at_tags_are_the_live_attempts_alone() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let stranger = token(&fixture.core, "others", &["agent"]).await;
    let built = accept(&fixture.core, Vec::new()).await;
    let key = fixture.offer(built, &agent.agent).await;
    let attempt = agent.take(key).await;
    let claim = async |token: &SecretString, attempt| {
        let named = attempt_message(key, attempt);
        let request = wire::TagClaimRequest { key: named.key, attempt: named.attempt };
        fixture.client().await.claim_tags(with_token(request, Some(token))).await.map(tonic::Response::into_inner)
    };
    assert_eq!(claim(&stranger, attempt).await.expect_err("refused").code(), Code::PermissionDenied);
    assert_eq!(claim(&agent.token, AttemptNumber(9)).await.expect_err("over").code(), Code::FailedPrecondition);
    let turn = claim(&agent.token, attempt).await.expect("answered");
    assert_eq!(turn, wire::TagClaim::default(), "a build moves nothing, and the run is no task's");
}

#[tokio::test]
async fn an_upload_that_nobody_needs_any_more_ends() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let run = accept_git(&fixture.core).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    let named = attempt_message(key, attempt);
    // Uploads that never end of their own accord.
    let open = async || {
        let (sender, chunks) = mpsc::channel(1);
        let chunk = wire::SnapshotChunk { key: named.key.clone(), attempt: named.attempt, data: b"x".to_vec() };
        sender.send(chunk).await.expect("queue");
        let request = with_token(ReceiverStream::new(chunks), Some(&agent.token));
        let mut client = fixture.client().await;
        let before = fixture.context_files();
        let call = tokio::spawn(async move { client.put_snapshot(request).await.map(drop) });
        while fixture.context_files().is_subset(&before) {
            assert!(!call.is_finished(), "{:?}", call.await);
            tokio::task::yield_now().await;
        }
        (sender, call)
    };
    let ended = async |call: tokio::task::JoinHandle<Result<(), Status>>| {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), call).await;
        ended.expect("the server ends it").expect("no panic").expect_err("refused").code()
    };
    let (_first, call) = open().await;
    let (_second, newer) = open().await;
    assert_eq!(ended(call).await, Code::FailedPrecondition, "a newer upload has its place");
    fixture.core.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.expect("cancelled");
    agent.expect(ToAgent::Stop { key }).await;
    agent.say(ToServer::Stopped(key)).await;
    assert_eq!(ended(newer).await, Code::FailedPrecondition, "the run is over");
    assert!(fixture.context_files().is_empty(), "{:?}", fixture.context_files());
}

#[tokio::test]
async fn credentials_are_handed_to_live_attempts_alone() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    fixture.keep_credential("git.example", "s3cret", UsableBy::Principals([principal("alice")].into())).await;
    fixture.keep_credential("bobs.example", "b0bs", UsableBy::Principals([principal("bob")].into())).await;
    let run = accept_git(&fixture.core).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    let given = fixture.credential(&agent.token, key, attempt, "git.example").await.expect("answered");
    assert_eq!((given.found, given.username.as_str(), given.password.as_str()), (true, "bot", "s3cret"));
    for (host, kept) in [("bobs.example", true), ("git.example:8443", false), ("nowhere.example", false)] {
        let given = fixture.credential(&agent.token, key, attempt, host).await.expect("answered");
        assert_eq!(given, wire::SourceCredential { kept, ..wire::SourceCredential::default() }, "{host}");
    }
    let stranger = token(&fixture.core, "others", &["agent"]).await;
    let status = fixture.credential(&stranger, key, attempt, "git.example").await.expect_err("another's");
    assert_eq!(status.code(), Code::PermissionDenied);

    // The record of one host opens nothing of another.
    let (from, to) =
        (SourceHost::parse("git.example").expect("valid"), SourceHost::parse("evil.example").expect("valid"));
    let sealed = fixture.core.key.seal(&credential_purpose(&from), &SecretBytes::new(b"s3cret".to_vec()));
    let (username, usable_by, set_by) = ("bot".to_owned(), UsableBy::Everybody, principal("admin"));
    let moved = NewSourceCredential { host: to, username, sealed, usable_by, set_by };
    fixture.core.credentials.put_credential(moved).await.expect("kept");
    let status = fixture.credential(&agent.token, key, attempt, "evil.example").await.expect_err("moved");
    assert_eq!(status.code(), Code::DataLoss);
    assert!(!status.message().contains("s3cret"));

    agent.say(ToServer::StepEnded(key, attempt, StepResult::TimedOut)).await;
    agent.expect(ToAgent::Stop { key }).await;
    let status = fixture.credential(&agent.token, key, attempt, "git.example").await.expect_err("over");
    assert_eq!(status.code(), Code::FailedPrecondition);
}
