//! Answers to requests whose body nobody wants any more.
//!
//! A server that answers "too large" and closes at once resets the connection while the client still sends, and the
//! client sees a broken pipe instead of the answer (RFC 9112, 9.6). So the rest of the body is read for a moment.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, SizeHint};

/// How much of a body that is not wanted is read, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// A body that reads its rest in the background when it is dropped early.
pub(super) struct LingeringBody<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    body: Option<B>,
    patience: Duration,
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> LingeringBody<B> {
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Self { body: Some(body), patience }
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Body for LingeringBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        // After an end or an error there is nothing to read.
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for LingeringBody<B> {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        // Outside a runtime, as while one ends, nobody is waiting for an answer either.
        if let (Some(mut body), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            let patience = self.patience;
            runtime.spawn(async move {
                let reading = async {
                    let mut left = MAX_BYTES;
                    while let Some(Ok(frame)) = body.frame().await {
                        left = left.saturating_sub(frame.into_data().map_or(0, |data| data.remaining()));
                        if left == 0 {
                            break;
                        }
                    }
                };
                // Who still sends after this gets the reset.
                let _ = tokio::time::timeout(patience, reading).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    #[tokio::test]
    async fn a_body_that_is_dropped_early_is_read_on() {
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
        let mut body = LingeringBody::new(StreamBody::new(ReceiverStream::new(receiver)), Duration::from_secs(60));
        let frame = || Ok(Frame::data(Bytes::from_static(b"some")));
        sender.send(frame()).await.expect("taken");
        assert!(body.frame().await.is_some());
        drop(body);
        for _ in 0..100 {
            sender.send(frame()).await.expect("still read");
        }
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_not_read_for_ever() {
        let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
        drop(LingeringBody::new(StreamBody::new(ReceiverStream::new(receiver)), Duration::from_millis(1)));
        sender.closed().await;
    }
}
