//! A source that is to be fetched: from its host to an archive, from the archive to the server.
//!
//! The server keeps what was fetched, so that everything after this builds the same bytes, on whatever agent. A host's
//! credential is asked of the server when the host wants one, shown to that host alone, and masked from then on. What the
//! user or the repository has wrong fails the step; a host or network that is away is a loss, and the step is repeated.

mod credentials;
mod upload;

use std::sync::Arc;

use cooper_api::agent::PrepareOrder;
use cooper_engine::message::{PreparedFile, PreparedSource, StepOutput};
use cooper_source::git::{self, FetchEvent, FetchRequest, GitError, Snapshot};
use cooper_source::{Cidr, Egress, EgressOptions, EgressPolicy, FetchLimits};
use cooper_spec::source::RemoteSource;
use tokio::sync::mpsc;

use super::{Attempt, Ended};
use credentials::ServerCredentials;

/// Lines of progress that may wait for the log; a host that says more is not shown in full.
const LINE_QUEUE: usize = 256;

impl Attempt<'_> {
    /// Fetches, packs and uploads a source.
    pub(super) async fn prepare(&self, order: PrepareOrder) -> Result<StepOutput, Ended> {
        let credentials = ServerCredentials::new(self);
        let found = self.prepare_with(&order, &credentials).await;
        // The host's own words may repeat what it was shown.
        let found = found.map(|found| StepOutput::Prepared(masked(found, |text| credentials.mask(text))));
        found.map_err(|ended| match ended {
            Ended::Failed { exit_code, reason } => Ended::Failed { exit_code, reason: credentials.mask(&reason) },
            Ended::Lost(reason) => Ended::Lost(credentials.mask(&reason)),
            Ended::Stopped => Ended::Stopped,
        })
    }

    async fn prepare_with(
        &self,
        order: &PrepareOrder,
        credentials: &ServerCredentials,
    ) -> Result<PreparedSource, Ended> {
        let dir = self.runner.placement_dir(self.key);
        let disk = |error: &std::io::Error| Ended::lost("agent's work folder can't be used", error);
        tokio::fs::create_dir_all(&dir).await.map_err(|error| disk(&error))?;
        // Removed with everything in it, however this ends.
        let scratch = tempfile::tempdir_in(&dir).map_err(|error| disk(&error))?;
        let allow = order.allowed_networks.iter().map(|text| Cidr::parse(text)).collect::<Result<_, _>>();
        let allow = allow.map_err(|error| Ended::lost("the server's list of networks can't be read", &error))?;
        let egress = Egress::new(EgressOptions { policy: EgressPolicy { allow }, ..EgressOptions::default() });
        let unpack = &self.runner.settings.unpack;
        let RemoteSource::Git(source) = &order.source else {
            let reason = format!("this agent can't fetch {} yet", order.source.shown());
            return Err(Ended::Failed { exit_code: None, reason });
        };
        let request = FetchRequest {
            source: source.clone(),
            dockerfile: order.dockerfile.clone(),
            files: order.files.clone(),
            scratch: scratch.path().to_owned(),
            limits: FetchLimits { entries: unpack.entries, bytes: unpack.bytes, ..FetchLimits::default() },
        };
        let (lines, shown) = mpsc::channel(LINE_QUEUE);
        let listener = Arc::new(move |event: FetchEvent| {
            // A full queue loses progress and nothing else.
            let _ = lines.try_send(event.to_string());
        });
        let fetch = git::fetch(&egress, credentials, request, listener, &self.stop);
        let (fetched, ()) = tokio::join!(fetch, self.show_lines(shown, credentials));
        let snapshot = fetched.map_err(|error| ended(&error))?;
        if snapshot.size > order.max_bytes {
            let reason = format!(
                "the source packs to {} bytes, and this server takes {}; leave files out with a .dockerignore",
                snapshot.size, order.max_bytes
            );
            return Err(Ended::Failed { exit_code: None, reason });
        }
        let context = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            context = self.upload(&snapshot) => context?,
        };
        let Snapshot { commit, branch, reference, digest, size, dockerfile, mut files, .. } = snapshot;
        let tag = reference.and_then(|name| name.strip_prefix("refs/tags/").map(str::to_owned));
        let dockerfile = dockerfile.filter(|name| order.dockerfile.as_ref() != Some(name));
        let files = order.files.iter().map(|name| PreparedFile { name: name.clone(), content: files.remove(name) });
        let files = files.collect();
        Ok(PreparedSource { commit: Some(commit), branch, tag, context, digest, size, dockerfile, pinned: None, files })
    }

    /// Puts progress into the log, until there is no more.
    async fn show_lines(&self, mut lines: mpsc::Receiver<String>, credentials: &ServerCredentials) {
        while let Some(line) = lines.recv().await {
            self.log.service(&credentials.mask(&line)).await;
        }
    }
}

/// A source with the names that its host gave it, without what must not be seen.
fn masked(found: PreparedSource, mask: impl Fn(&str) -> String) -> PreparedSource {
    let name = |text: Option<String>| text.map(|text| mask(&text));
    PreparedSource { branch: name(found.branch), tag: name(found.tag), dockerfile: name(found.dockerfile), ..found }
}

/// Whose trouble it is that a source can't be fetched.
fn ended(error: &GitError) -> Ended {
    match error {
        GitError::Cancelled => Ended::Stopped,
        error if error.is_transient() => Ended::Lost(format!("source can't be fetched: {}", error.line())),
        error => Ended::Failed { exit_code: None, reason: error.line() },
    }
}

#[cfg(test)]
mod tests {
    use cooper_types::{ContextId, Digest};

    use super::*;

    #[test]
    fn a_host_does_not_get_a_secret_into_the_record_by_a_name() {
        let name = || Some("heads/s3cret".to_owned());
        let found = PreparedSource {
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            branch: name(),
            tag: name(),
            context: ContextId::parse("c").expect("valid"),
            digest: Digest::sha256(b"archive"),
            size: 7,
            dockerfile: name(),
            pinned: None,
            files: Vec::new(),
        };
        let found = masked(found, |text| text.replace("s3cret", "***"));
        assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
    }
}
