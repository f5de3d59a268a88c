//! Request bodies: streams on their way into the blob store, and small ones taken whole. Neither waits for a client that
//! has gone silent.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use cooper_ports::blobs::IncomingBytes;
use cooper_ports::registry::UPLOAD_LIFETIME;
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::time::Instant;

/// How long a client may send nothing before its upload is let go of; it can go on later with a new request.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// How long a small body may take.
const WHOLE: Duration = Duration::from_secs(2 * 60);

/// Why a body was not taken whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untaken {
    /// It has more bytes than it may have.
    TooLong,
    /// It broke off, or took too long.
    CutOff,
}

/// Why a body ended early by our decision.
#[derive(Debug, thiserror::Error)]
#[error("the client sent nothing for {} seconds", .0.as_secs())]
struct Silent(Duration);

/// Why a body without an end was ended.
#[derive(Debug, thiserror::Error)]
#[error("the client has sent for {} seconds without an end", .0.as_secs())]
struct Endless(Duration);

/// The bytes of a body, ended by an error where the client falls silent, or goes on for longer than uploads live: the
/// sweep can't remove what is being written.
pub(crate) fn bytes(body: Body) -> IncomingBytes {
    watched(body, IDLE, UPLOAD_LIFETIME)
}

fn watched(body: Body, idle: Duration, lifetime: Duration) -> IncomingBytes {
    let chunks = body.into_data_stream();
    let end = Instant::now() + lifetime;
    let watched = futures::stream::unfold(Some(chunks), move |chunks| async move {
        let mut chunks = chunks?;
        // Asked first, because a timeout of bytes that are there already never ends.
        if Instant::now() >= end {
            return Some((Err(Endless(lifetime).into()), None));
        }
        match tokio::time::timeout_at(end.min(Instant::now() + idle), chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Err(_) => Some((Err(Silent(idle).into()), None)),
        }
    });
    watched.boxed()
}

/// All bytes of a body that has `limit` bytes at most.
pub(crate) async fn whole(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Untaken> {
    whole_within(WHOLE, headers, body, limit).await
}

async fn whole_within(time: Duration, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Untaken> {
    if length(headers).is_some_and(|length| length > limit as u64) {
        return Err(Untaken::TooLong);
    }
    match tokio::time::timeout(time, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(Untaken::TooLong),
        Ok(Err(_)) | Err(_) => Err(Untaken::CutOff),
    }
}

fn is_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// The announced length of a body.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of one chunk whose end never comes.
    fn silent() -> Body {
        let chunk = futures::stream::iter([Ok::<_, std::io::Error>("chunk")]);
        Body::from_stream(chunk.chain(futures::stream::pending()))
    }

    #[tokio::test]
    async fn a_silent_client_is_not_waited_for() {
        let short = Duration::from_millis(20);
        let mut chunks = watched(silent(), short, UPLOAD_LIFETIME);
        assert_eq!(chunks.next().await.unwrap().unwrap(), "chunk");
        assert!(chunks.next().await.unwrap().unwrap_err().is::<Silent>());
        assert!(chunks.next().await.is_none());
        assert_eq!(whole_within(short, &HeaderMap::new(), silent(), 100).await, Err(Untaken::CutOff));
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_ended() {
        let drip = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x"));
        let drip = drip.then(async |chunk| {
            tokio::task::yield_now().await;
            chunk
        });
        let body = Body::from_stream(drip);
        let mut chunks = watched(body, Duration::from_secs(60), Duration::from_secs(2));
        assert_eq!(chunks.next().await.unwrap().unwrap(), "x");
        let end = loop {
            if let Err(end) = chunks.next().await.unwrap() {
                break end;
            }
        };
        assert!(end.is::<Endless>(), "{end}");
        assert!(chunks.next().await.is_none());
    }

    #[tokio::test]
    async fn a_small_body_is_taken_up_to_its_limit() {
        let none = HeaderMap::new();
        assert_eq!(whole(&none, Body::from("chunk"), 5).await.unwrap(), "chunk");
        assert_eq!(whole(&none, Body::from("chunk"), 4).await, Err(Untaken::TooLong));
        let announced = HeaderMap::from_iter([(CONTENT_LENGTH, 5.into())]);
        assert_eq!(whole(&announced, silent(), 4).await, Err(Untaken::TooLong));
    }
}
