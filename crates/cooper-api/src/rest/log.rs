//! A run's log on the wire: as text from an offset, or as server-sent events of frames.
//!
//! A run's text is the data of its frames one after another, those of the stream `vertex` left out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_types::{AttemptNumber, Timestamp};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::run::{Run, RunStatus};

/// Response header of `GET /runs/{id}/log`: the text offset after the last byte of the answer.
pub const LOG_OFFSET_HEADER: &str = "cooper-log-offset";
/// Response header of `GET /runs/{id}/log`: `true` when the log ends with this answer, else `false`.
pub const LOG_COMPLETE_HEADER: &str = "cooper-log-complete";

/// Request header of `GET /runs/{id}/log/events`: a form of packed frames that the client reads. A server that has this
/// form sends `packed` events, which take a fraction of the bytes and of the time; any other sends `log` events.
pub const LOG_FRAMES_HEADER: &str = "cooper-log-frames";
/// The form that a [`PackedLog`] has: another number with each stream, flag or packing that is new in it.
pub const LOG_FRAMES_FORM: &str = "1";

/// What `GET /runs/{id}/log` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogQuery {
    /// Where to begin in the text; 0 is the start.
    #[serde(default)]
    pub offset: u64,
}

/// What `GET /runs/{id}/log/events` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogEventsQuery {
    /// The frame to begin at; 0 is the first. A `Last-Event-ID` header counts before it.
    pub offset: u64,
    /// Whether only the run's state is told and its end, and nothing of its log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub status_only: bool,
}

/// The names of the server-sent events of `GET /runs/{id}/log/events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogEventName {
    /// Data is a [`LogBatch`]; the event's id is the frame offset after it.
    Log,
    /// Data is a [`PackedLog`], for who reads its form; the event's id is the frame offset after it.
    Packed,
    /// Data is a [`StatusEvent`].
    Status,
    /// Data is an [`EndEvent`], the final run; the stream closes after it.
    End,
}

impl LogEventName {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Packed => "packed",
            Self::Status => "status",
            Self::End => "end",
        }
    }
}

/// Some frames of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogBatch {
    /// The frame offset of the first frame.
    pub offset: u64,
    /// The frames, in order.
    pub frames: Vec<LogFrame>,
}

/// Some frames of a log as the server keeps them, for who sends `Cooper-Log-Frames: 1`: one after another, each as
/// `length u32, stream u8, flags u8, attempt u64?, seq u64, time i64, (vertex length u32, vertex)?, data`, little-endian.
///
/// `length` counts what follows it; bit 0 of `flags` says that there is an attempt, bit 1 that there is a vertex; streams
/// are numbered in the order of `LogStream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackedLog {
    /// The frame offset of the first frame. It may be below the one that was asked for: frame offsets count the bytes of
    /// frames, so that the frames to pass over are known.
    pub offset: u64,
    /// How many bytes the frames are.
    pub length: u64,
    /// The frames, in base64: as they are where these are `length` bytes, else as one LZ4 block.
    #[serde(with = "base64_bytes")]
    #[schema(value_type = String, format = Byte)]
    pub data: Vec<u8>,
}

/// One frame of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogFrame {
    /// The attempt that wrote it; `null` for the service's own lines.
    #[schema(value_type = Option<u64>)]
    pub attempt: Option<AttemptNumber>,
    /// The frame's number within its attempt.
    pub seq: u64,
    /// When it was written, in microseconds since 1970.
    #[schema(value_type = i64)]
    pub time: Timestamp,
    /// What it is.
    pub stream: LogStream,
    /// The build vertex that it belongs to.
    pub vertex: Option<String>,
    /// The bytes, in base64; for `vertex` the JSON of a [`VertexUpdate`].
    #[serde(with = "base64_bytes")]
    #[schema(value_type = String, format = Byte)]
    pub data: Vec<u8>,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// A line of the service's own.
    Service,
    /// Standard output of the user's process.
    Stdout,
    /// Standard error of the user's process.
    Stderr,
    /// News of a build vertex: no text.
    Vertex,
    /// The text of a marker that stands for lost bytes.
    Gap,
}

/// News of one build vertex, that is of one step of a Dockerfile. Later news of the same `id` replaces earlier news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VertexUpdate {
    /// The vertex's id: opaque, unique in its attempt.
    pub id: String,
    /// What it does, such as `[build 2/4] RUN make`.
    pub name: String,
    /// When it began, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub started: Option<Timestamp>,
    /// When it ended, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub completed: Option<Timestamp>,
    /// Whether its result came from the cache.
    #[serde(default)]
    pub cached: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How much of `total` is done, such as bytes of a download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// How much there is to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// The run's status changed, or what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusEvent {
    /// The run's status.
    pub status: RunStatus,
    /// While the run waits: what it waits for.
    #[serde(default)]
    pub pending_reason: Option<String>,
}

/// The last event's data: the run as it ended.
pub type EndEvent = Run;

/// For `#[serde(with)]` on bytes.
mod base64_bytes {
    use super::*;

    /// As it stands: base64 needs no escapes, for which a string would be searched.
    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4 + 2);
        text.push('"');
        STANDARD.encode_string(bytes, &mut text);
        text.push('"');
        RawValue::from_string(text).map_err(ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_str(Text)
    }

    /// Decodes a text where it is.
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes in base64")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            STANDARD.decode(text).map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_has_its_form_and_keeps_every_byte() {
        let json = json!({"offset": 7, "frames": [
            {"attempt": 1, "seq": 2, "time": 1_700_000_000_000_000_i64, "stream": "stdout", "vertex": "v", "data": "AJ/+"},
            {"attempt": null, "seq": 1, "time": 0, "stream": "gap", "vertex": null, "data": ""},
        ]});
        let batch: LogBatch = serde_json::from_value(json.clone()).expect("a batch");
        assert_eq!(batch.frames[0].data, [0, 159, 254]);
        assert_eq!(serde_json::to_value(&batch).expect("json"), json);
    }

    #[test]
    fn news_of_a_vertex_leave_out_what_is_not_known() {
        let update: VertexUpdate = serde_json::from_value(json!({"id": "v", "name": "n", "later": 1})).expect("news");
        assert_eq!(serde_json::to_value(&update).expect("json"), json!({"id": "v", "name": "n", "cached": false}));
    }
}
