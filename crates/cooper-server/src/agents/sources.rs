//! What prepare attempts ask for beside their stream: a place for what they have made of a source. For live attempts of the
//! agent that asks, and for nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_engine::run::Run;
use cooper_ports::contexts::SnapshotError;
use cooper_spec::plan::Work;
use cooper_types::{AttemptNumber, ContextId, RunId};
use futures::{Stream, StreamExt as _};
use tokio::sync::broadcast;
use tonic::{Code, Status};

use crate::contexts::{ReceiveError, Received};
use crate::core::Core;
use crate::problem::chain;

/// How often an upload looks whether it is still wanted, where no news make it look at once.
const LOOK: Duration = Duration::from_secs(5);

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
            Work::Build(_) | Work::Push(_) | Work::Command(_) => {
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
        let news = core.news();
        // The row is there before the file, so that no crash leaves a file that nobody knows of.
        core.contexts.create_snapshot(id.clone(), run, attempt).await.map_err(|error| snapshot_status(&error))?;
        // An earlier upload of the attempt is given up by this, and looks when there is news.
        core.announce(run);
        let received = tokio::select! {
            received = core.context_files.receive(&id, bytes) => received.map_err(|error| receive_status(&error))?,
            status = self.given_up(&core, &id, news) => return Err(status),
        };
        core.metrics.context_received(received.size);
        // All bytes are here: from now on an agent that goes away changes nothing.
        let kept = core.clone().detached(async move { Ok(self.keep(&core, id, received).await) }).await;
        kept.unwrap_or_else(|_| Err(Status::internal("the server failed; its log says why")))
    }

    /// Ends when nobody needs the upload any more: what still comes would only fill the disk.
    async fn given_up(self, core: &Core, id: &ContextId, mut news: broadcast::Receiver<RunId>) -> Status {
        let (run, attempt) = (self.key.run, self.attempt);
        loop {
            match tokio::time::timeout(LOOK, news.recv()).await {
                Ok(Ok(changed)) if changed != run => continue,
                // News of the run, news that were missed, or none for a while.
                Ok(_) | Err(_) => {}
            }
            // A store that does not answer now is asked again.
            if let Ok(false) = core.contexts.snapshot_waits(id, run, attempt).await {
                let why = format!("attempt {attempt} of run {run} is over, or has begun another upload");
                return Status::failed_precondition(why);
            }
        }
    }

    /// Makes what was received the attempt's context.
    async fn keep(self, core: &Core, id: ContextId, received: Received) -> Result<wire::SnapshotStored, Status> {
        let (run, attempt) = (self.key.run, self.attempt);
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
