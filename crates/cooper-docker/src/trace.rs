//! What the engine says while it builds: JSON lines, with BuildKit's status in base64 and protobuf inside.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bollard_buildkit_proto::google::protobuf::Timestamp as ProtoTimestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex};
use bytes::Bytes;
use cooper_ports::engine::{BuildEvent, OutputStream, VertexEvent};
use cooper_types::{Digest, ImageRef, Timestamp};
use prost::Message;

/// One line of a build's answer.
#[derive(Debug)]
pub(crate) enum BuildLine {
    /// News of the build graph.
    Status(Box<StatusResponse>),
    /// The image is there.
    Image(Digest),
    /// The build failed.
    Error(String),
    /// Text outside the graph, or something that a newer engine says: of no use here.
    Other,
}

/// Why a line is not one that an engine sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("a line of the build's answer is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("a status of the build is not base64")]
    Base64(#[source] base64::DecodeError),
    #[error("a status of the build is not BuildKit's")]
    Proto(#[source] prost::DecodeError),
    #[error("the built image's id is not a digest")]
    Image(#[source] cooper_types::DigestError),
}

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Result<BuildLine, TraceError> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        id: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow)]
        aux: Option<&'a serde_json::value::RawValue>,
        error: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct ImageId {
        #[serde(rename = "ID")]
        id: String,
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(BuildLine::Other);
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(TraceError::Json)?;
    if let Some(error) = line.error {
        return Ok(BuildLine::Error(error));
    }
    match (line.id.as_deref(), line.aux) {
        (Some("moby.buildkit.trace"), Some(aux)) => {
            let text: std::borrow::Cow<'_, str> = serde_json::from_str(aux.get()).map_err(TraceError::Json)?;
            let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(TraceError::Base64)?;
            let status = StatusResponse::decode(bytes.as_slice()).map_err(TraceError::Proto)?;
            Ok(BuildLine::Status(Box::new(status)))
        }
        (Some("moby.image.id"), Some(aux)) => {
            let image: ImageId = serde_json::from_str(aux.get()).map_err(TraceError::Json)?;
            Ok(BuildLine::Image(Digest::parse(&image.id).map_err(TraceError::Image)?))
        }
        _ => Ok(BuildLine::Other),
    }
}

/// The port's events of a status, in an order in which a vertex comes before what it says.
pub(crate) fn events(status: StatusResponse) -> impl Iterator<Item = BuildEvent> {
    let vertices = status.vertexes.into_iter().map(|vertex| BuildEvent::Vertex(vertex_event(vertex)));
    let statuses = status.statuses.into_iter().map(|status| BuildEvent::Status {
        vertex: status.vertex,
        id: status.id,
        current: u64::try_from(status.current).unwrap_or(0),
        total: u64::try_from(status.total).ok().filter(|total| *total > 0),
    });
    let logs = status.logs.into_iter().map(|log| BuildEvent::Log {
        vertex: log.vertex,
        stream: if log.stream == 2 { OutputStream::Stderr } else { OutputStream::Stdout },
        bytes: Bytes::from(log.msg),
    });
    let warnings = status.warnings.into_iter().map(|warning| BuildEvent::Warning {
        vertex: warning.vertex,
        message: crate::wire::one_line(&String::from_utf8_lossy(&warning.short)),
    });
    vertices.chain(statuses).chain(logs).chain(warnings)
}

fn vertex_event(vertex: Vertex) -> VertexEvent {
    VertexEvent {
        id: vertex.digest,
        name: vertex.name,
        started: vertex.started.and_then(timestamp),
        completed: vertex.completed.and_then(timestamp),
        cached: vertex.cached,
        error: Some(vertex.error).filter(|error| !error.is_empty()),
    }
}

fn timestamp(time: ProtoTimestamp) -> Option<Timestamp> {
    let micros = time.seconds.checked_mul(1_000_000)?.checked_add(i64::from(time.nanos) / 1000)?;
    Some(Timestamp::from_micros(micros))
}

/// An image that a vertex reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseVertex {
    /// Its reference in full, without what it was resolved to.
    pub(crate) reference: String,
    /// What it was resolved to; engines before 23 leave it out where files are copied from an image.
    pub(crate) digest: Option<Digest>,
}

/// The image of a vertex that reads one: `[stage 1/3] FROM reference@sha256:…`, and the same without bracket or digest.
pub(crate) fn base_of(vertex_name: &str) -> Option<BaseVertex> {
    let rest = match vertex_name.strip_prefix('[') {
        Some(bracket) => bracket.split_once("] ")?.1,
        None => vertex_name,
    };
    let name = rest.strip_prefix("FROM ")?;
    let (reference, digest) = match name.rsplit_once('@') {
        Some((reference, digest)) => (reference, Some(Digest::parse(digest).ok()?)),
        None => (name, None),
    };
    ImageRef::parse(reference).ok()?;
    Some(BaseVertex { reference: reference.to_owned(), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_read_from_vertices_that_read_an_image() {
        let digest = Digest::sha256(b"base");
        let check = |name: String, expect: Option<&str>| {
            let base = base_of(&name);
            assert_eq!(base.as_ref().map(|base| base.reference.as_str()), expect, "{name}");
            assert!(base.and_then(|base| base.digest).is_none_or(|named| named == digest));
        };
        check(format!("[1/2] FROM docker.io/library/busybox:1@{digest}"), Some("docker.io/library/busybox:1"));
        check(format!("[build 1/2] FROM 127.0.0.1:5000/base@{digest}"), Some("127.0.0.1:5000/base"));
        check(format!("FROM r.io/tool:2@{digest}"), Some("r.io/tool:2"));
        check(format!("[2/2] RUN echo FROM r.io/tool:2@{digest}"), None);
        check("FROM r.io/tool:2".into(), Some("r.io/tool:2"));
        check("FROM r.io/tool:2 AS x".into(), None);
        check("[1/2] FROM r.io/tool:2@sha256:00".into(), None);
        check("[internal] load metadata for r.io/tool:2".into(), None);
        check("[".into(), None);
    }

    #[test]
    fn lines_are_read_or_refused() {
        let image = Digest::sha256(b"image");
        let line = format!(r#"{{"id":"moby.image.id","aux":{{"ID":"{image}"}}}}"#);
        assert!(matches!(parse(line.as_bytes()), Ok(BuildLine::Image(id)) if id == image));
        let line = br#"{"errorDetail":{"message":"boom"},"error":"boom"}"#;
        assert!(matches!(parse(line), Ok(BuildLine::Error(error)) if error == "boom"));
        assert!(matches!(parse(br#"{"stream":"text"}"#), Ok(BuildLine::Other)));
        assert!(matches!(parse(b"\r\n"), Ok(BuildLine::Other)));
        assert!(matches!(parse(b"<html>"), Err(TraceError::Json(_))));
        assert!(matches!(parse(br#"{"id":"moby.buildkit.trace","aux":"*"}"#), Err(TraceError::Base64(_))));
        assert!(matches!(parse(br#"{"id":"moby.buildkit.trace","aux":"////"}"#), Err(TraceError::Proto(_))));
        assert!(matches!(parse(br#"{"id":"moby.image.id","aux":{"ID":"x"}}"#), Err(TraceError::Image(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&line);
            let aux = BASE64_STANDARD.encode(&line);
            if let Ok(BuildLine::Status(status)) = parse(format!(r#"{{"id":"moby.buildkit.trace","aux":"{aux}"}}"#).as_bytes()) {
                let _ = events(*status).count();
            }
            let _ = base_of(&String::from_utf8_lossy(&line));
        }
    }
}
