//! Follows a run's log over disconnects: every frame once, in order, and then the run's end.

use std::collections::VecDeque;
use std::time::Duration;

use cooper_api::rest::{
    EndEvent, LOG_FRAMES_FORM, LOG_FRAMES_HEADER, LogBatch, LogEventName, LogEventsQuery, LogFrame, LogStream,
    PackedLog, Run, StatusEvent,
};
use cooper_ports::logs::{Frame, Segment, Stream as Written};
use cooper_types::RunId;
use futures::Stream;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use tokio::time::{Instant, timeout};

use crate::ClientError;
use crate::call::Http;
use crate::sse::{SseEvent, SseParser};

/// The largest event that is read; a server cuts batches far below.
const MAX_EVENT: usize = 32 * 1024 * 1024;

/// What a follower sees.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// The next frames.
    Frames(Vec<LogFrame>),
    /// The run's status changed, or what it waits for.
    Status(StatusEvent),
    /// The connection was lost; the next attempt is in `delay`. Nothing is lost by it.
    Reconnecting {
        /// Why, in one line.
        reason: String,
        /// How long until the next attempt.
        delay: Duration,
    },
    /// The run as it ended: the last event.
    End(Box<Run>),
}

/// How patient a follower is.
#[derive(Clone, Copy, Debug)]
pub struct FollowOptions {
    /// The wait before the first reconnect; each further one is twice as long, up to `max_delay`.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
    /// How many attempts in a row may bring nothing before the follower gives up.
    pub max_failures: u32,
    /// How long the server may be silent: it sends a sign of life every 15 s.
    pub max_silence: Duration,
    /// Whether a server that is not there at the very beginning is an error at once.
    pub must_begin: bool,
    /// Whether only the run's state is followed, and nothing of its log.
    pub status_only: bool,
}

impl Default for FollowOptions {
    /// Two minutes without the server are borne: time for a restart.
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(250),
            max_delay: Duration::from_secs(5),
            max_failures: 28,
            max_silence: Duration::from_secs(45),
            must_begin: false,
            status_only: false,
        }
    }
}

struct Follower {
    http: Http,
    run: RunId,
    options: FollowOptions,
    /// The frame offset of the next frame that is wanted.
    offset: u64,
    failures: u32,
    /// There was a connection.
    has_begun: bool,
    connection: Option<Connection>,
    /// A wait that was announced and has not been served yet.
    pause: Option<Duration>,
    ready: VecDeque<LogEvent>,
    /// What ends the following, once `ready` is empty.
    fault: Option<ClientError>,
    ended: bool,
}

struct Connection {
    response: Response,
    parser: SseParser,
    since: Instant,
}

/// The events of `run` from its log's beginning. After an error, or the end, there is nothing more.
pub(crate) fn follow(
    http: Http,
    run: RunId,
    options: FollowOptions,
) -> impl Stream<Item = Result<LogEvent, ClientError>> {
    let follower = Follower {
        http,
        run,
        options,
        offset: 0,
        failures: 0,
        has_begun: false,
        connection: None,
        pause: None,
        ready: VecDeque::new(),
        fault: None,
        ended: false,
    };
    futures::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((event, follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Result<LogEvent, ClientError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.ended |= matches!(event, LogEvent::End(_));
                return Some(Ok(event));
            }
            if let Some(fault) = self.fault.take() {
                self.ended = true;
                return Some(Err(fault));
            }
            if self.ended {
                return None;
            }
            if let Some(pause) = self.pause.take() {
                tokio::time::sleep(pause).await;
            }
            if let Err(error) = self.read().await {
                self.lost(error);
            }
        }
    }

    /// Decides what follows a fault. Events that came before it are whole: they stay ahead of it.
    fn lost(&mut self, error: ClientError) {
        let lived = self.connection.take().map_or(Duration::ZERO, |connection| connection.since.elapsed());
        if lived > self.options.max_delay {
            // A quiet run behind a proxy that cuts idle connections: no reason to give up, however often it happens.
            self.failures = 0;
        }
        self.failures += 1;
        let is_absent = self.options.must_begin && !self.has_begun;
        if is_absent || !error.is_transient() || self.failures > self.options.max_failures {
            self.fault = Some(error);
            return;
        }
        let delay = self.delay();
        self.pause = Some(delay);
        self.ready.push_back(LogEvent::Reconnecting { reason: reason(&error), delay });
    }

    fn delay(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.options.first_delay.saturating_mul(1 << doublings).min(self.options.max_delay)
    }

    /// Connects if need be, and reads one chunk.
    async fn read(&mut self) -> Result<(), ClientError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let response = self.connect().await?;
                let parser = SseParser::new(MAX_EVENT);
                self.has_begun = true;
                self.connection.insert(Connection { response, parser, since: Instant::now() })
            }
        };
        let chunk = match timeout(self.options.max_silence, connection.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.http.unreachable(error))?,
            Err(_) => {
                let reason = format!("silence for {} s", self.options.max_silence.as_secs());
                return Err(self.http.protocol(reason, true));
            }
        };
        let Some(chunk) = chunk else {
            return Err(self.http.protocol("the log's stream ended before the run".to_owned(), true));
        };
        let events = connection
            .parser
            .feed(&chunk)
            .map_err(|_| self.http.protocol("an event is too large".to_owned(), false))?;
        for event in events {
            self.take(event)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Response, ClientError> {
        let request = self
            .http
            .request(Method::GET, &format!("/api/v1/runs/{}/log/events", self.run))
            .query(&LogEventsQuery { offset: self.offset, status_only: self.options.status_only })
            .header(LOG_FRAMES_HEADER, LOG_FRAMES_FORM)
            .header(ACCEPT, "text/event-stream");
        match timeout(self.options.max_silence, self.http.send_without_deadline(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.http.protocol("no answer in time".to_owned(), true)),
        }
    }

    fn take(&mut self, event: SseEvent) -> Result<(), ClientError> {
        let broken = |what: &str| self.http.protocol(format!("a broken `{what}` event in the log's stream"), true);
        if event.name == LogEventName::Log.as_str() {
            let batch: LogBatch = serde_json::from_str(&event.data).map_err(|_| broken("log"))?;
            let next: u64 = event.id.and_then(|id| id.parse().ok()).ok_or_else(|| broken("log"))?;
            if next <= self.offset {
                // A batch that we have already, whole.
                return Ok(());
            }
            if batch.offset != self.offset {
                // A hole, or half of a batch that we have: asking again from where we are gets it right.
                let reason = format!("log frames from {} where {} was next", batch.offset, self.offset);
                return Err(self.http.protocol(reason, true));
            }
            self.offset = next;
            self.failures = 0;
            self.ready.push_back(LogEvent::Frames(batch.frames));
        } else if event.name == LogEventName::Packed.as_str() {
            let packed: PackedLog = serde_json::from_str(&event.data).map_err(|_| broken("packed"))?;
            let end = packed.offset.checked_add(packed.length).ok_or_else(|| broken("packed"))?;
            if end <= self.offset {
                return Ok(());
            }
            let segment = Segment { start: packed.offset, end, stored: packed.data };
            let mut frames = segment.frames().map_err(|_| broken("packed"))?;
            // The first segment begins where the server began it, with frames that we may have.
            frames.retain(|(at, _)| *at >= self.offset);
            if frames.first().is_none_or(|(at, _)| *at != self.offset) {
                let reason = format!("log frames from {} where {} was next", segment.start, self.offset);
                return Err(self.http.protocol(reason, true));
            }
            self.offset = end;
            self.failures = 0;
            self.ready.push_back(LogEvent::Frames(frames.into_iter().map(|(_, frame)| view(frame)).collect()));
        } else if event.name == LogEventName::Status.as_str() {
            let status: StatusEvent = serde_json::from_str(&event.data).map_err(|_| broken("status"))?;
            self.ready.push_back(LogEvent::Status(status));
        } else if event.name == LogEventName::End.as_str() {
            let run: EndEvent = serde_json::from_str(&event.data).map_err(|_| broken("end"))?;
            self.ready.push_back(LogEvent::End(Box::new(run)));
        }
        // Events of a newer server are passed over.
        Ok(())
    }
}

/// A frame as the API shows it.
fn view(frame: Frame) -> LogFrame {
    let Frame { attempt, seq, time, stream, vertex, data } = frame;
    let stream = match stream {
        Written::Service => LogStream::Service,
        Written::Stdout => LogStream::Stdout,
        Written::Stderr => LogStream::Stderr,
        Written::Vertex => LogStream::Vertex,
        Written::Gap => LogStream::Gap,
    };
    LogFrame { attempt, seq, time, stream, vertex, data }
}

fn reason(error: &ClientError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
