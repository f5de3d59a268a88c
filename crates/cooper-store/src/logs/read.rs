//! Reading a log from an offset, as frames, as text or as it is kept. Reads whole segments and never more than it must.

use std::borrow::Cow;

use cooper_ports::logs::segment::{LONGEST_SEGMENT, unpack};
use cooper_ports::logs::{Frame, LogEnd, LogFrames, LogSegments, LogText, ReadLogError, Segment};
use cooper_ports::store_error::StoreError;
use cooper_types::RunId;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::append::end_of;
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
    let end = end(store, run).await?;
    let mut rows = rows(store, run, offset, limit, end)?;
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

/// Segments from the one on that holds what follows `offset`.
pub(super) async fn segments(
    store: &Store,
    run: RunId,
    offset: u64,
    limit: usize,
) -> Result<LogSegments, ReadLogError> {
    let end = end(store, run).await?;
    let mut rows = rows(store, run, offset, limit, end)?;
    let mut found = LogSegments { segments: Vec::new(), next_offset: offset };
    while let Some(row) = rows.try_next().await.during(READ)? {
        let (start, end) = bounds_of(&row)?;
        if end <= offset {
            continue;
        }
        if !found.segments.is_empty() && end - offset > limit as u64 {
            break;
        }
        found.segments.push(Segment { start, end, stored: row.try_get("frames").during(READ)? });
        found.next_offset = end;
    }
    Ok(found)
}

/// The rows of the segments from the one on that holds `offset`, up to the limit or the log's `end`.
///
/// The end was read first: segments only ever come after it, so what is read goes at least that far. Only segments that
/// begin within the limit are fetched, because rows are fetched ahead.
fn rows(
    store: &Store,
    run: RunId,
    offset: u64,
    limit: usize,
    end: LogEnd,
) -> Result<BoxStream<'_, sqlx::Result<SqliteRow>>, ReadLogError> {
    let start = within(run, offset, end.frame_offset)?;
    let rows = sqlx::query(
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
    Ok(rows.boxed())
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
    let (start, end) = bounds_of(row)?;
    Ok((start, unpack(row.try_get("frames").during(READ)?, start, end).stored(READ)?))
}

/// Where a row's frames begin, and where they end.
fn bounds_of(row: &SqliteRow) -> Result<(u64, u64), StoreError> {
    let offset = |name| u64::try_from(row.try_get::<i64, _>(name).during(READ)?).stored(READ);
    Ok((offset("frame_start")?, offset("frame_end")?))
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
