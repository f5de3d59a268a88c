//! How long the server waits for bytes that a client owes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How an HTTP/2 connection begins (RFC 9113, 3.4). Until these bytes are told from others, nothing else keeps time.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes must come in time.
pub(super) struct FirstBytes<S> {
    stream: S,
    /// How many bytes of the preface have come, and until when the rest may take; `None` once something else keeps time.
    waiting: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> FirstBytes<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, waiting: Some((0, Box::pin(tokio::time::sleep(patience)))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((seen, deadline)) = &mut this.waiting else { return polled };
        match polled {
            Poll::Ready(result) => {
                result?;
                let came = &buf.filled()[before..];
                *seen += came.len();
                let begins_http2 = PREFACE.get(*seen - came.len()..*seen) == Some(came);
                if came.is_empty() || !begins_http2 || *seen == PREFACE.len() {
                    this.waiting = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A request's body that must not pause for long while somebody waits for it.
pub(super) struct SteadyBody<B> {
    body: B,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Whether the deadline belongs to the wait that is going on.
    waits: bool,
}

impl<B> SteadyBody<B> {
    pub(super) fn new(body: B, patience: Duration) -> Self {
        Self { body, patience, deadline: Box::pin(tokio::time::sleep(patience)), waits: false }
    }
}

impl<B> Body for SteadyBody<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waits = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if !this.waits {
            this.waits = true;
            this.deadline.as_mut().reset(Instant::now() + this.patience);
        }
        ready!(this.deadline.as_mut().poll(cx));
        let seconds = this.patience.as_secs();
        Poll::Ready(Some(Err(format!("nothing of the body came for {seconds} s").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn who_says_nothing_or_half_a_preface_is_not_waited_for() {
        for first in [&b""[..], b"P", &PREFACE[..23]] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(first).await.expect("written");
            let mut server = FirstBytes::new(server, PATIENCE);
            let mut read = vec![0; first.len()];
            server.read_exact(&mut read).await.expect("what came is handed on");
            let error = server.read_u8().await.expect_err("the rest is not waited for");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn after_the_first_bytes_others_keep_time() {
        for first in [&b"G"[..], b"PUT", PREFACE] {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(first).await.expect("written");
            let mut server = FirstBytes::new(server, PATIENCE);
            let mut read = vec![0; first.len()];
            server.read_exact(&mut read).await.expect("read");
            let mut later = [0];
            let pause = tokio::time::timeout(PATIENCE * 4, server.read(&mut later)).await;
            assert!(pause.is_err(), "{first:?}: still waits");
        }
    }

    #[tokio::test]
    async fn a_body_may_be_long_but_not_pause() {
        let second = Duration::from_secs(1);
        let slow = futures::stream::unfold(1, |n: u64| async move {
            tokio::time::sleep(second * 2 / 5).await;
            (n <= 3).then(|| (Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        let body = SteadyBody::new(StreamBody::new(Box::pin(slow)), second);
        assert_eq!(body.collect().await.expect("comes whole").to_bytes(), "xxx");

        let silent = futures::stream::pending::<Result<Frame<Bytes>, io::Error>>();
        let error = SteadyBody::new(StreamBody::new(silent), second).collect().await.expect_err("not waited for");
        assert_eq!(error.to_string(), "nothing of the body came for 1 s");
    }
}
