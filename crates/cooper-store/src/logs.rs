//! Logs in SQLite: immutable segments, and their committed end in the run's row.

pub(crate) mod append;
mod read;

use async_trait::async_trait;
use cooper_ports::logs::{AppendError, LogEnd, LogFrames, LogSegments, LogStore, LogText, NewFrame, ReadLogError};
use cooper_types::{AttemptNumber, RunId};

use crate::Store;
use append::Author;

#[async_trait]
impl LogStore for Store {
    async fn append_frames(
        &self,
        run: RunId,
        attempt: AttemptNumber,
        first_seq: u64,
        frames: Vec<NewFrame>,
    ) -> Result<u64, AppendError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            let author = Author::Attempt { attempt, first_seq };
            append::append(&mut tx, registry, run, author, frames).await.map(|appended| appended.last_seq)
        })
        .await
    }

    async fn append_service_frames(&self, run: RunId, frames: Vec<NewFrame>) -> Result<LogEnd, AppendError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            append::append(&mut tx, registry, run, Author::Server, frames).await.map(|appended| appended.end)
        })
        .await
    }

    async fn append_gap(&self, run: RunId, bytes: Option<u64>, reason: &str) -> Result<LogEnd, AppendError> {
        let frame = NewFrame::gap(self.clock().now(), bytes, reason);
        self.append_service_frames(run, vec![frame]).await
    }

    async fn complete_log(&self, run: RunId) -> Result<LogEnd, AppendError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| append::complete(&mut tx, registry, run).await).await
    }

    async fn log_end(&self, run: RunId) -> Result<LogEnd, ReadLogError> {
        read::end(self, run).await
    }

    async fn read_frames(&self, run: RunId, offset: u64, limit: usize) -> Result<LogFrames, ReadLogError> {
        read::frames(self, run, offset, limit).await
    }

    async fn read_segments(&self, run: RunId, offset: u64, limit: usize) -> Result<LogSegments, ReadLogError> {
        read::segments(self, run, offset, limit).await
    }

    async fn read_text(&self, run: RunId, offset: u64, limit: usize) -> Result<LogText, ReadLogError> {
        read::text(self, run, offset, limit).await
    }
}
