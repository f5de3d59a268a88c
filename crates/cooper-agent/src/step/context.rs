//! A build's context: from the server to a file, from the file to a tree. Both files have no name: they are gone with
//! their last user, whatever happens to the agent.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cooper_api::agent::{attempt_message, wire};
use cooper_ports::context_tree::ContextTree;
use cooper_source::{UnpackError, unpack};
use tokio::io::AsyncWriteExt as _;
use tonic::Status;

use super::own_tries::{OwnTries, may_pass};
use super::{Attempt, Ended};
use crate::link;

/// A server that sends nothing for so long is asked again.
const STALL: Duration = Duration::from_secs(60);

/// Why a context was not fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{}", .0.message())]
    Server(Status),
    #[error("server sent nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("agent's work folder can't take it")]
    Disk(#[source] io::Error),
    #[error("its archive is larger than the {limit} bytes that this agent takes")]
    TooLarge { limit: u64 },
}

impl FetchError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Server(status) => may_pass(status),
            Self::Stalled => true,
            Self::Disk(_) | Self::TooLarge { .. } => false,
        }
    }
}

/// Tells a blocking task that nobody waits for it any more.
pub(super) struct SetOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Attempt<'_> {
    /// The attempt's context.
    pub(super) async fn context(&self) -> Result<ContextTree, Ended> {
        let dir = self.runner.placement_dir(self.key);
        let disk = |error: &io::Error| Ended::lost("agent's work folder can't be used", error);
        tokio::fs::create_dir_all(&dir).await.map_err(|error| disk(&error))?;
        let archive = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            archive = self.fetch(&dir) => archive?,
        };
        self.unpacked(archive).await
    }

    /// What an archive holds.
    pub(super) async fn unpacked(&self, archive: File) -> Result<ContextTree, Ended> {
        let dir = self.runner.placement_dir(self.key);
        let cancelled = Arc::new(AtomicBool::new(false));
        let guard = SetOnDrop(Arc::clone(&cancelled));
        let limits = self.runner.settings.unpack.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let spool = tempfile::tempfile_in(&dir).map_err(|source| UnpackError::Spool { source })?;
            unpack(BufReader::with_capacity(256 << 10, archive), spool, &limits, &cancelled)
        });
        let unpacked = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            unpacked = unpacking => unpacked,
        };
        drop(guard);
        match unpacked {
            Ok(Ok(tree)) => Ok(tree),
            Ok(Err(error)) if error.is_in_archive() => Err(Ended::failed(&error)),
            Ok(Err(error)) => Err(Ended::lost("context can't be unpacked", &error)),
            Err(panic) => Err(Ended::lost("context can't be unpacked", &panic)),
        }
    }

    /// Fetches the archive, again if the stream to the server breaks.
    async fn fetch(&self, dir: &std::path::Path) -> Result<File, Ended> {
        let mut tries = OwnTries::at_the_server();
        loop {
            let error = match self.fetch_once(dir).await {
                Ok(file) => return Ok(file),
                Err(FetchError::TooLarge { limit }) => {
                    let reason = format!("context can't be fetched: {}", FetchError::TooLarge { limit });
                    return Err(Ended::Failed { exit_code: None, reason });
                }
                Err(error) => error,
            };
            if !error.is_retryable() || !tries.again().await {
                return Err(Ended::lost("context can't be fetched", &error));
            }
            tracing::warn!(error = crate::error::chain(&error), "context couldn't be fetched; trying again");
        }
    }

    async fn fetch_once(&self, dir: &std::path::Path) -> Result<File, FetchError> {
        let file = tempfile::tempfile_in(dir).map_err(FetchError::Disk)?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(1 << 20);
        // The attempt's timeout bounds the wait.
        let client = link::current_client(&self.runner.channels, &self.runner.bearer).await;
        let mut client = client.ok_or_else(|| FetchError::Server(Status::cancelled("agent shuts down")))?;
        let named = attempt_message(self.key, self.attempt);
        let request = wire::FetchContextRequest { key: named.key, attempt: named.attempt };
        let answer = tokio::time::timeout(STALL, client.fetch_context(request)).await;
        let mut chunks = answer.map_err(|_| FetchError::Stalled)?.map_err(FetchError::Server)?.into_inner();
        let limit = self.runner.settings.max_archive_bytes;
        let mut bytes = 0;
        loop {
            let chunk = tokio::time::timeout(STALL, chunks.message()).await.map_err(|_| FetchError::Stalled)?;
            let Some(chunk) = chunk.map_err(FetchError::Server)? else { break };
            bytes += chunk.data.len() as u64;
            if bytes > limit {
                return Err(FetchError::TooLarge { limit });
            }
            file.write_all(&chunk.data).await.map_err(FetchError::Disk)?;
        }
        file.flush().await.map_err(FetchError::Disk)?;
        let mut file = file.into_std().await;
        file.seek(SeekFrom::Start(0)).map_err(FetchError::Disk)?;
        Ok(file)
    }
}
