//! Logs: as text from an offset, and as server-sent events that follow a run to its end.
//!
//! A follower holds an offset and nothing else: each event carries the offset after it, so that a broken connection
//! resumes where it ended and misses no byte.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    LOG_COMPLETE_HEADER, LOG_FRAMES_FORM, LOG_FRAMES_HEADER, LOG_OFFSET_HEADER, LogBatch, LogEventName, LogEventsQuery,
    LogFrame, LogQuery, LogStream, PackedLog, StatusEvent,
};
use cooper_engine::run::{PendingReason, Placement};
use cooper_ports::logs::{Frame, Segment, Stream};
use cooper_types::RunId;
use futures::Stream as FuturesStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::view::{rest_status, run_view};
use super::{ApiState, PathId, Query};
use crate::problem::{ApiError, ApiResult, chain};

/// Bytes of text in one answer.
const TEXT_LIMIT: usize = 1 << 20;
/// Bytes of frames in one event.
const BATCH_LIMIT: usize = 256 << 10;
/// Bytes of frames that are read at once for packed events: each segment is an event of its own.
const PACKED_LIMIT: usize = 1 << 20;
/// Events that a follower may be behind: a slow one slows itself only.
const FOLLOWER_QUEUE: usize = 4;
/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often a follower looks by itself, should news have been lost.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// `GET /runs/{id}/log`
pub(super) async fn text(
    State(state): State<ApiState>,
    PathId(id): PathId<RunId>,
    Query(query): Query<LogQuery>,
) -> ApiResult<Response> {
    let text = state.core.logs.read_text(id, query.offset, TEXT_LIMIT).await?;
    let complete = text.end.complete && text.next_offset == text.end.text_offset;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8".to_owned()),
        (LOG_OFFSET_HEADER, text.next_offset.to_string()),
        (LOG_COMPLETE_HEADER, complete.to_string()),
    ];
    Ok((headers, text.data).into_response())
}

/// `GET /runs/{id}/log/events`
pub(super) async fn follow(
    State(state): State<ApiState>,
    PathId(id): PathId<RunId>,
    Query(query): Query<LogEventsQuery>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl FuturesStream<Item = Result<Event, Infallible>>>> {
    let offset =
        match headers.get("last-event-id") {
            None => query.offset,
            Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                ApiError::new(ProblemCode::InvalidRequest, "header Last-Event-ID is not a frame offset")
            })?,
        };
    // Faults that the client can do something about come as an answer; later ones end the stream.
    state.core.logs.read_frames(id, offset, 1).await?;
    let (events, receiver) = mpsc::channel(FOLLOWER_QUEUE);
    let news = state.core.news();
    let frames = (!query.status_only).then_some(offset);
    let packed = headers.get(LOG_FRAMES_HEADER).is_some_and(|form| form == LOG_FRAMES_FORM);
    let mut follower = Follower { news, state, id, frames, packed, status: None, generation: None, events };
    tokio::spawn(async move {
        tokio::select! {
            () = follower.state.shutdown.clone().cancelled_owned() => {}
            result = follower.run() => {
                if let Err(FollowError::Failed(error)) = result {
                    tracing::warn!(run = %id, error, "log stream ended early");
                }
            }
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Follower {
    state: ApiState,
    id: RunId,
    /// Where the next frame is, if frames are told.
    frames: Option<u64>,
    /// Whether frames are sent as they are kept.
    packed: bool,
    status: Option<StatusEvent>,
    /// The generation of the run's state that was told, if it had not ended then.
    generation: Option<u64>,
    news: broadcast::Receiver<RunId>,
    events: mpsc::Sender<Result<Event, Infallible>>,
}

enum FollowError {
    /// The client is gone.
    Gone,
    Failed(String),
}

impl Follower {
    async fn run(&mut self) -> Result<(), FollowError> {
        loop {
            let failed = |error: &dyn std::error::Error| FollowError::Failed(chain(error));
            let core = &self.state.core;
            // News of a log are many, and those of a run's state few: the whole of that is read for these alone.
            let generation = core.runs.unfinished_generation(self.id).await.map_err(|error| failed(&error))?;
            let is_known = generation.is_some() && generation == self.generation;
            self.generation = generation;
            // The record is read before the log: a run that is finished in it has its whole log written.
            let record = match is_known {
                true => None,
                false => core.runs.find_run(self.id).await.map_err(|error| failed(&error))?,
            };
            self.tell_frames().await?;
            let record = match record {
                Some(record) => record,
                None if is_known => {
                    self.wait_for_news().await?;
                    continue;
                }
                None => return Err(FollowError::Failed("the run is gone".to_owned())),
            };
            let status = StatusEvent {
                status: rest_status(record.run.status()),
                // A run that the scheduler will look at in a moment would only make the display flash.
                pending_reason: record
                    .run
                    .pending_reason()
                    .filter(|reason| **reason != PendingReason::New)
                    .map(ToString::to_string),
            };
            // An offer may be declined in a moment, for the reason that the run waited for before: that is no news.
            let only_offered = record.run.placements.iter().any(|placement| matches!(placement, Placement::Offered(_)))
                && self.status.as_ref().is_some_and(|before| before.status == status.status);
            if self.status.as_ref() != Some(&status) && !only_offered {
                self.send(LogEventName::Status, &status, None).await?;
                self.status = Some(status);
            }
            if record.run.finished().is_some() && record.log.complete {
                return self.send(LogEventName::End, &run_view(&record), None).await;
            }
            self.wait_for_news().await?;
        }
    }

    /// Sends what the log has behind the last frame that was sent.
    async fn tell_frames(&mut self) -> Result<(), FollowError> {
        while let Some(offset) = self.frames {
            if self.packed {
                if self.tell_segments(offset).await? {
                    continue;
                }
                return Ok(());
            }
            let part = self.state.core.logs.read_frames(self.id, offset, BATCH_LIMIT).await;
            let part = part.map_err(|error| FollowError::Failed(chain(&error)))?;
            if part.frames.is_empty() {
                return Ok(());
            }
            let frames = part.frames.into_iter().map(|(_, frame)| frame_view(frame)).collect();
            self.frames = Some(part.next_offset);
            self.send(LogEventName::Log, &LogBatch { offset, frames }, self.frames).await?;
        }
        Ok(())
    }

    /// Sends some segments as they are kept, without a look into them; whether there were any.
    async fn tell_segments(&mut self, offset: u64) -> Result<bool, FollowError> {
        let part = self.state.core.logs.read_segments(self.id, offset, PACKED_LIMIT).await;
        let part = part.map_err(|error| FollowError::Failed(chain(&error)))?;
        let any = !part.segments.is_empty();
        for Segment { start, end, stored } in part.segments {
            let packed = PackedLog { offset: start, length: end - start, data: stored };
            self.frames = Some(end);
            self.send(LogEventName::Packed, &packed, self.frames).await?;
        }
        Ok(any)
    }

    /// Waits until the run may have changed.
    async fn wait_for_news(&mut self) -> Result<(), FollowError> {
        let deadline = tokio::time::Instant::now() + LOOK_PERIOD;
        loop {
            tokio::select! {
                () = self.events.closed() => return Err(FollowError::Gone),
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                news = self.news.recv() => match news {
                    Ok(run) if run == self.id => return Ok(()),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => return Ok(()),
                    Err(broadcast::error::RecvError::Closed) => return Err(FollowError::Gone),
                },
            }
        }
    }

    async fn send(&self, name: LogEventName, data: &impl serde::Serialize, id: Option<u64>) -> Result<(), FollowError> {
        let event = Event::default().event(name.as_str()).json_data(data);
        let event = event.map_err(|error| FollowError::Failed(error.to_string()))?;
        let event = match id {
            Some(id) => event.id(id.to_string()),
            None => event,
        };
        self.events.send(Ok(event)).await.map_err(|_| FollowError::Gone)
    }
}

fn frame_view(frame: Frame) -> LogFrame {
    LogFrame {
        attempt: frame.attempt,
        seq: frame.seq,
        time: frame.time,
        stream: match frame.stream {
            Stream::Service => LogStream::Service,
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
            Stream::Vertex => LogStream::Vertex,
            Stream::Gap => LogStream::Gap,
        },
        vertex: frame.vertex,
        data: frame.data,
    }
}
