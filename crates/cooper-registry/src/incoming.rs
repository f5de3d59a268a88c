//! Request bodies on their way into the blob store.

use std::time::Duration;

use axum::body::Body;
use cooper_ports::blobs::IncomingBytes;
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

/// How long a client may send nothing before its upload is let go of; it can go on later with a new request.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// Why a body ended early by our decision.
#[derive(Debug, thiserror::Error)]
#[error("the client sent nothing for {} seconds", IDLE.as_secs())]
struct Silent;

/// The bytes of a body, ended by an error where the client falls silent.
pub(crate) fn bytes(body: Body) -> IncomingBytes {
    let chunks = body.into_data_stream();
    let watched = futures::stream::unfold(Some(chunks), |chunks| async {
        let mut chunks = chunks?;
        match tokio::time::timeout(IDLE, chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Err(_) => Some((Err(Silent.into()), None)),
        }
    });
    watched.boxed()
}

/// The announced length of a body.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
