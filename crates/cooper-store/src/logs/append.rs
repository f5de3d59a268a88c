//! Writing a log: checks who writes, leaves out what is there already, and appends segments.

use cooper_ports::logs::segment::{SEGMENT, pack};
use cooper_ports::logs::{AppendError, Frame, LogEnd, MAX_FRAME_DATA, NewFrame};
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, RegistryId, RunId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

/// Who writes frames.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Author {
    /// The server itself; its frames are numbered here.
    Server,
    /// An attempt, with the number that it gave its first frame.
    Attempt { attempt: AttemptNumber, first_seq: u64 },
}

/// What an append did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    /// The author's last frame that is in the log.
    pub(crate) last_seq: u64,
    pub(crate) end: LogEnd,
}

/// Appends frames inside a transaction.
pub(crate) async fn append(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    author: Author,
    frames: Vec<NewFrame>,
) -> Result<Appended, AppendError> {
    if let Some(frame) = frames.iter().find(|frame| frame.size() > MAX_FRAME_DATA) {
        return Err(AppendError::TooLarge { size: frame.size() });
    }
    let mut end = end_of(tx, registry, run).await?.ok_or(AppendError::UnknownRun(run))?;
    let attempt = match author {
        Author::Server => None,
        Author::Attempt { attempt, .. } if is_live(tx, registry, run, attempt).await? => Some(attempt),
        Author::Attempt { attempt, .. } => return Err(AppendError::NotLive { run, attempt }),
    };
    if end.complete {
        return Err(AppendError::Complete(run));
    }
    let last_seq = last_seq(tx, registry, run, attempt).await?;
    let known = match author {
        Author::Server => 0,
        Author::Attempt { attempt, first_seq } => {
            let expected = last_seq + 1;
            if first_seq == 0 || first_seq > expected {
                return Err(AppendError::Hole { attempt, first: first_seq, expected });
            }
            usize::try_from(expected - first_seq).unwrap_or(usize::MAX)
        }
    };
    let mut seq = last_seq;
    let mut segment = Segment::after(end);
    for new in frames.into_iter().skip(known) {
        seq += 1;
        let NewFrame { time, stream, vertex, data } = new;
        segment.push(&Frame { attempt, seq, time, stream, vertex, data });
        if segment.frames.len() >= SEGMENT {
            end = segment.write(tx, registry, run).await?;
            segment = Segment::after(end);
        }
    }
    if seq == last_seq {
        return Ok(Appended { last_seq, end });
    }
    end = segment.write(tx, registry, run).await?;
    write_end(tx, registry, run, end).await?;
    write_last_seq(tx, registry, run, attempt, seq).await?;
    Ok(Appended { last_seq: seq, end })
}

/// Ends a log inside a transaction.
pub(crate) async fn complete(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
) -> Result<LogEnd, AppendError> {
    let mut end = end_of(tx, registry, run).await?.ok_or(AppendError::UnknownRun(run))?;
    if !end.complete {
        end.complete = true;
        write_end(tx, registry, run, end).await?;
        // Nothing can follow, so nothing needs to be told apart from what came.
        sqlx::query("DELETE FROM log_cursors WHERE registry_id = ?1 AND run_number = ?2")
            .bind(registry.0)
            .bind(run_number(run))
            .execute(&mut *tx)
            .await
            .during("end log")?;
    }
    Ok(end)
}

/// Whether the attempt may write.
pub(crate) async fn is_live(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: AttemptNumber,
) -> Result<bool, StoreError> {
    let Ok(attempt) = i64::try_from(attempt.0) else { return Ok(false) };
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM live_attempts WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3)",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(attempt)
    .fetch_one(connection)
    .await
    .during("check attempt")
}

/// The end of a run's log, if there is such a run.
pub(crate) async fn end_of(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
) -> Result<Option<LogEnd>, StoreError> {
    let row =
        sqlx::query("SELECT frame_offset, text_offset, log_complete FROM runs WHERE registry_id = ?1 AND number = ?2")
            .bind(registry.0)
            .bind(run_number(run))
            .fetch_optional(connection)
            .await
            .during("read log's end")?;
    row.as_ref().map(log_end).transpose()
}

/// The columns of a log's end in a row of a run.
pub(crate) fn log_end(row: &SqliteRow) -> Result<LogEnd, StoreError> {
    const READ: &str = "read log's end";
    Ok(LogEnd {
        frame_offset: u64::try_from(row.try_get::<i64, _>("frame_offset").during(READ)?).stored(READ)?,
        text_offset: u64::try_from(row.try_get::<i64, _>("text_offset").during(READ)?).stored(READ)?,
        complete: row.try_get("log_complete").during(READ)?,
    })
}

async fn write_end(tx: &mut SqliteConnection, registry: RegistryId, run: RunId, end: LogEnd) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE runs SET frame_offset = ?3, text_offset = ?4, log_complete = ?5 WHERE registry_id = ?1 AND number = ?2",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(offset(end.frame_offset)?)
    .bind(offset(end.text_offset)?)
    .bind(end.complete)
    .execute(tx)
    .await
    .map(drop)
    .during("write log's end")
}

async fn last_seq(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: Option<AttemptNumber>,
) -> Result<u64, StoreError> {
    let seq: Option<i64> = sqlx::query_scalar(
        "SELECT last_seq FROM log_cursors WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(cursor(attempt)?)
    .fetch_optional(tx)
    .await
    .during("read log's cursor")?;
    u64::try_from(seq.unwrap_or(0)).stored("read log's cursor")
}

async fn write_last_seq(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: Option<AttemptNumber>,
    seq: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log_cursors (registry_id, run_number, attempt, last_seq) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET last_seq = excluded.last_seq",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(cursor(attempt)?)
    .bind(offset(seq)?)
    .execute(tx)
    .await
    .map(drop)
    .during("write log's cursor")
}

/// The server's own frames are counted under attempt 0, which no attempt has.
fn cursor(attempt: Option<AttemptNumber>) -> Result<i64, StoreError> {
    offset(attempt.map_or(0, |attempt| attempt.0))
}

fn offset(offset: u64) -> Result<i64, StoreError> {
    i64::try_from(offset).stored("write log")
}

/// Frames on their way into one row.
struct Segment {
    start: LogEnd,
    frames: Vec<u8>,
    text: u64,
}

impl Segment {
    fn after(start: LogEnd) -> Self {
        Self { start, frames: Vec::new(), text: 0 }
    }

    fn push(&mut self, frame: &Frame) {
        frame.encode(&mut self.frames);
        self.text += frame.text().len() as u64;
    }

    /// Writes the row, if there are frames, and returns the log's end after them.
    async fn write(self, tx: &mut SqliteConnection, registry: RegistryId, run: RunId) -> Result<LogEnd, StoreError> {
        let Self { start, frames, text } = self;
        if frames.is_empty() {
            return Ok(start);
        }
        let end = LogEnd {
            frame_offset: start.frame_offset + frames.len() as u64,
            text_offset: start.text_offset + text,
            complete: start.complete,
        };
        sqlx::query(
            "INSERT INTO log_segments (registry_id, run_number, frame_start, frame_end, text_start, text_end, frames)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(registry.0)
        .bind(run_number(run))
        .bind(offset(start.frame_offset)?)
        .bind(offset(end.frame_offset)?)
        .bind(offset(start.text_offset)?)
        .bind(offset(end.text_offset)?)
        .bind(pack(frames))
        .execute(tx)
        .await
        .during("write log")?;
        Ok(end)
    }
}
