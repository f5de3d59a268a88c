//! Reading a log from an offset, as frames or as text. Reads whole segments and never more than it must.

use std::borrow::Cow;

use cooper_ports::logs::{Frame, LogEnd, LogFrames, LogText, ReadLogError};
use cooper_ports::store_error::StoreError;
use cooper_types::RunId;
use futures::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::append::{LONGEST_SEGMENT, end_of};
use super::segment;
use crate::Store;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

const READ: &str = "read log";

/// The log's end.
pub(super) async fn end(store: &Store, run: RunId) -> Result<LogEnd, ReadLogError> {
    let mut connection = store.readers().acquire().await.during(READ)?;
    end_of(&mut connection, store.registry_id(), run).await?.ok_or(ReadLogError::UnknownRun(run))
}

/// Frames from `offset` on.
pub(super) async fn frames(store: &Store, run: RunId, offset: u64, limit: usize) -> Result<LogFrames, ReadLogError> {
    // The end is read first: segments only ever come after it, so what is read below goes at least that far. Only
    // segments that begin within the limit are fetched, because rows are fetched ahead.
    let end = end(store, run).await?;
    let start = within(run, offset, end.frame_offset)?;
    let mut rows = sqlx::query(
        "SELECT frame_start, frame_end, frames FROM log_segments
         WHERE registry_id = ?1 AND run_number = ?2 AND frame_start >= coalesce((
             SELECT max(frame_start) FROM log_segments
             WHERE registry_id = ?1 AND run_number = ?2 AND frame_start <= ?3
         ), 0) AND frame_start < ?4
         ORDER BY frame_start",
    )
    .bind(store.registry_id().0)
    .bind(run_number(run))
    .bind(start)
    .bind(database_offset(end.frame_offset.min(offset.saturating_add(limit.max(1) as u64)))?)
    .fetch(store.readers());
    let mut found = LogFrames { frames: Vec::new(), next_offset: offset, end };
    while let Some(row) = rows.try_next().await.during(READ)? {
        let (segment, bytes) = segment_of(&row)?;
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let at = segment + (bytes.len() - rest.len()) as u64;
            let frame = Frame::decode(&mut rest).stored(READ)?;
            if at < found.next_offset {
                continue;
            }
            if at > found.next_offset {
                return Err(ReadLogError::Offset { run, offset });
            }
            let after = segment + (bytes.len() - rest.len()) as u64;
            if !found.frames.is_empty() && after - offset > limit as u64 {
                return Ok(found);
            }
            found.frames.push((after, frame));
            found.next_offset = after;
        }
        if found.frames.is_empty() && offset < segment + bytes.len() as u64 {
            // The offset lies inside the segment's last frame.
            return Err(ReadLogError::Offset { run, offset });
        }
    }
    Ok(found)
}

/// Text from `offset` on.
pub(super) async fn text(store: &Store, run: RunId, offset: u64, limit: usize) -> Result<LogText, ReadLogError> {
    let end = end(store, run).await?;
    let start = within(run, offset, end.text_offset)?;
    let stop = end.text_offset.min(offset.saturating_add(limit as u64));
    let mut rows = sqlx::query(
        "SELECT frame_start, frame_end, text_start, frames FROM log_segments
         WHERE registry_id = ?1 AND run_number = ?2 AND text_end > ?3 AND text_end <= ?5 AND text_start < ?4
           AND text_end > text_start
         ORDER BY text_end",
    )
    .bind(store.registry_id().0)
    .bind(run_number(run))
    .bind(start)
    .bind(database_offset(stop)?)
    // The longest segment that begins before the stop ends before this. Without it each read would look at the index up
    // to the log's end.
    .bind(database_offset(stop.saturating_add(LONGEST_SEGMENT as u64))?)
    .fetch(store.readers());
    let mut found = LogText { data: Vec::new(), next_offset: offset, end };
    while found.data.len() < limit
        && let Some(row) = rows.try_next().await.during(READ)?
    {
        let mut at = u64::try_from(row.try_get::<i64, _>("text_start").during(READ)?).stored(READ)?;
        let (_, bytes) = segment_of(&row)?;
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let frame = Frame::decode(&mut rest).stored(READ)?;
            let text = frame.text();
            let skip = usize::try_from(found.next_offset - at).unwrap_or(usize::MAX).min(text.len());
            let take = (text.len() - skip).min(limit - found.data.len());
            found.data.extend_from_slice(&text[skip..skip + take]);
            found.next_offset += take as u64;
            at += text.len() as u64;
            if found.data.len() == limit {
                break;
            }
        }
    }
    Ok(found)
}

/// Where a row's frames begin, and they.
fn segment_of(row: &SqliteRow) -> Result<(u64, Cow<'_, [u8]>), StoreError> {
    let offset = |name| u64::try_from(row.try_get::<i64, _>(name).during(READ)?).stored(READ);
    let (start, end) = (offset("frame_start")?, offset("frame_end")?);
    // No segment is longer, its frames' heads included: damage must not ask for more memory than that.
    let length = usize::try_from(end.saturating_sub(start)).stored(READ)?.min(2 * LONGEST_SEGMENT);
    let stored: &[u8] = row.try_get("frames").during(READ)?;
    Ok((start, segment::unpack(stored, length).stored(READ)?))
}

/// The offset as the database counts it, if the log goes that far.
fn within(run: RunId, offset: u64, end: u64) -> Result<i64, ReadLogError> {
    if offset > end {
        return Err(ReadLogError::Offset { run, offset });
    }
    Ok(database_offset(offset)?)
}

fn database_offset(offset: u64) -> Result<i64, StoreError> {
    i64::try_from(offset).stored(READ)
}
