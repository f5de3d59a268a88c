//! The way of a fetched source to the server: again if the stream breaks, and only whole.

use std::io;
use std::path::Path;
use std::time::Duration;

use cooper_api::agent::{attempt_message, wire};
use cooper_types::ContextId;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::super::own_tries::{OwnTries, may_pass};
use super::super::{Attempt, Ended};
use super::Packed;
use crate::error::chain;
use crate::link;

/// Bytes in one message.
const CHUNK: usize = 256 * 1024;
/// A server that takes nothing for so long is asked again.
const STALL: Duration = Duration::from_secs(60);

/// Why the server does not have it.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("{}", .0.message())]
    Server(Status),
    #[error("server took nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("the archive can't be read")]
    Disk(#[source] io::Error),
    #[error("the server received other bytes than were sent")]
    Changed,
}

impl Attempt<'_> {
    /// Uploads the archive; gives the context that it is now.
    pub(super) async fn upload(&self, snapshot: &Packed) -> Result<ContextId, Ended> {
        let mut tries = OwnTries::at_the_server();
        loop {
            let error = match self.upload_once(snapshot).await {
                Ok(context) => return Ok(context),
                Err(error) => error,
            };
            let retry = match &error {
                // More bytes than the server takes: its user can help it, another try can't.
                UploadError::Server(status) if status.code() == Code::OutOfRange => return Err(Ended::failed(&error)),
                UploadError::Server(status) => may_pass(status),
                UploadError::Stalled | UploadError::Changed => true,
                UploadError::Disk(_) => false,
            };
            if !retry || !tries.again().await {
                return Err(Ended::lost("source can't be uploaded", &error));
            }
            tracing::warn!(error = chain(&error), "source couldn't be uploaded; trying again");
        }
    }

    async fn upload_once(&self, snapshot: &Packed) -> Result<ContextId, UploadError> {
        // The attempt's timeout bounds the wait.
        let client = link::current_client(&self.runner.channels, &self.runner.bearer).await;
        let mut client = client.ok_or_else(|| UploadError::Server(Status::cancelled("agent shuts down")))?;
        let (sender, chunks) = mpsc::channel(4);
        let send = self.send_chunks(&snapshot.archive, sender);
        let answer = client.put_snapshot(ReceiverStream::new(chunks));
        tokio::pin!(send);
        tokio::pin!(answer);
        // The server may answer before it has everything: with a refusal.
        let answered = tokio::select! {
            answered = &mut answer => answered,
            sent = &mut send => {
                sent?;
                tokio::time::timeout(STALL, answer).await.map_err(|_| UploadError::Stalled)?
            }
        };
        let stored = answered.map_err(UploadError::Server)?.into_inner();
        if stored.digest != snapshot.digest.as_str() || stored.size != snapshot.size {
            return Err(UploadError::Changed);
        }
        ContextId::parse(&stored.context).map_err(|error| {
            UploadError::Server(Status::internal(format!("the server's answer is not valid: {error}")))
        })
    }

    async fn send_chunks(&self, path: &Path, sender: mpsc::Sender<wire::SnapshotChunk>) -> Result<(), UploadError> {
        let mut file = tokio::fs::File::open(path).await.map_err(UploadError::Disk)?;
        let named = attempt_message(self.key, self.attempt);
        loop {
            let mut data = vec![0; CHUNK];
            let count = file.read(&mut data).await.map_err(UploadError::Disk)?;
            if count == 0 {
                return Ok(());
            }
            data.truncate(count);
            let chunk = wire::SnapshotChunk { key: named.key.clone(), attempt: named.attempt, data };
            match tokio::time::timeout(STALL, sender.send(chunk)).await {
                Ok(Ok(())) => {}
                // The call is over: its answer says why.
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(UploadError::Stalled),
            }
        }
    }
}
