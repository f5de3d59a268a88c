//! What prepare attempts ask for beside their stream: a place for what they have made of a source, and credentials for the
//! hosts that it comes from. Both for live attempts of the agent that asks, and for nothing else.

use std::sync::Arc;

use bytes::Bytes;
use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_engine::run::Run;
use cooper_ports::contexts::SnapshotError;
use cooper_ports::runs::SecretsError;
use cooper_spec::plan::Work;
use cooper_types::{AttemptNumber, ContextId, SourceHost};
use futures::{Stream, StreamExt as _};
use tonic::{Code, Status};

use crate::contexts::ReceiveError;
use crate::core::Core;
use crate::orders::credential_purpose;
use crate::problem::chain;

/// An attempt that was found to be the asking agent's, live, and at a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrepareAttempt {
    key: PlacementKey,
    attempt: AttemptNumber,
}

impl PrepareAttempt {
    /// Refused for steps of another kind.
    pub(super) fn new(run: &Run, step: usize, key: PlacementKey, attempt: AttemptNumber) -> Result<Self, Status> {
        match &run.plan.steps[step].work {
            Work::Prepare(_) => Ok(Self { key, attempt }),
            Work::Build(_) | Work::Push(_) => {
                Err(Status::permission_denied(format!("attempt {attempt} of run {} prepares no source", key.run)))
            }
        }
    }

    /// Takes the archive, durably, and answers with the context that it is now.
    pub(super) async fn put_snapshot(
        self,
        core: Arc<Core>,
        bytes: impl Stream<Item = Result<Bytes, Status>> + Send + Unpin,
    ) -> Result<wire::SnapshotStored, Status> {
        let (run, attempt) = (self.key.run, self.attempt);
        let id =
            ContextId::parse(&uuid::Uuid::new_v4().to_string()).expect("a UUID is made of digits, letters and `-`");
        // The row is there before the file, so that no crash leaves a file that nobody knows of.
        core.contexts.create_snapshot(id.clone(), run, attempt).await.map_err(|error| snapshot_status(&error))?;
        let received = core.context_files.receive(&id, bytes).await.map_err(|error| receive_status(&error))?;
        core.metrics.context_received(received.size);
        let (size, digest) = (received.size, received.digest.clone());
        core.context_files.keep(&id, received).await.map_err(|error| receive_status(&error))?;
        if let Err(error) = core.contexts.mark_snapshot(&id, run, attempt, size, &digest).await {
            // Its row may be forgotten already: nobody else would ever remove the file.
            if !matches!(error, SnapshotError::Store(_))
                && let Err(left) = core.context_files.remove(&id).await
            {
                tracing::warn!(context = %id, error = %left, "refused snapshot can't be removed");
            }
            return Err(snapshot_status(&error));
        }
        tracing::info!(run = %run, attempt = %attempt, context = %id, size, "source uploaded");
        Ok(wire::SnapshotStored { context: id.to_string(), digest: digest.to_string(), size })
    }

    /// The credential for a host, if the run's principal may use one.
    pub(super) async fn credential(self, core: &Core, host: &str) -> Result<wire::SourceCredential, Status> {
        let (run, attempt) = (self.key.run, self.attempt);
        let host = SourceHost::parse(host).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let sealed = core.credentials.credential_for(run, attempt, &host).await.map_err(|error| match error {
            SecretsError::NotLive { .. } => Status::failed_precondition(error.to_string()),
            SecretsError::Store(error) => Status::unavailable(chain(&error)),
        })?;
        let Some(sealed) = sealed else {
            tracing::info!(run = %run, attempt = %attempt, host = %host, "no credential is stored for the run's source");
            return Ok(wire::SourceCredential::default());
        };
        let unreadable = |why: String| {
            tracing::error!(host = %host, why, "stored credential can't be read");
            Status::internal(format!("the credential for {host} can't be read; set it again"))
        };
        let value =
            core.key.unseal(&credential_purpose(&host), &sealed.sealed).map_err(|error| unreadable(chain(&error)))?;
        let password =
            String::from_utf8(value.expose().to_vec()).map_err(|_| unreadable("it is no text".to_owned()))?;
        tracing::info!(
            run = %run, attempt = %attempt, host = %host, principal = %sealed.principal, "credential handed to a prepare step"
        );
        Ok(wire::SourceCredential { found: true, username: sealed.username, password })
    }
}

/// The bytes of an upload's messages, of which the first one has been read already.
pub(super) fn chunks(
    first: wire::SnapshotChunk,
    rest: tonic::Streaming<wire::SnapshotChunk>,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + Unpin {
    futures::stream::iter([Ok(first)]).chain(rest).map(|chunk| chunk.map(|chunk| Bytes::from(chunk.data)))
}

fn snapshot_status(error: &SnapshotError) -> Status {
    match error {
        SnapshotError::NotLive { .. } => Status::failed_precondition(error.to_string()),
        SnapshotError::Replaced(_) => Status::aborted(error.to_string()),
        SnapshotError::Store(error) => Status::unavailable(chain(error)),
    }
}

fn receive_status(error: &ReceiveError) -> Status {
    let code = match error {
        ReceiveError::TooLarge(_) => Code::OutOfRange,
        ReceiveError::Interrupted(_) => Code::Cancelled,
        ReceiveError::StorageFull => Code::ResourceExhausted,
        ReceiveError::Io(_) => Code::Internal,
    };
    Status::new(code, chain(error))
}
