//! Lines of a streaming answer, with a limit on their length: the engine relays what others wrote.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;

/// BuildKit's own messages are at most 16 MiB; in base64 and JSON that is under 24.
const MAX_LINE: usize = 24 << 20;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError<E: std::error::Error + 'static> {
    #[error("the answer broke off")]
    Body(#[source] E),
    #[error("a line of the answer is longer than {MAX_LINE} bytes")]
    TooLong,
}

/// Cuts a body into lines. Each byte is looked at once, however the body is chunked.
pub(crate) struct Lines<B> {
    body: B,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl<B> Lines<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    pub(crate) fn new(body: B) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its end; `None` after the last. Cancel-safe: what was read is kept.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LineError<B::Error>> {
        loop {
            if let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + length).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(LineError::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(LineError::Body(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    async fn lines(chunks: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Frame::data(Bytes::from(chunk))));
        let mut lines = Lines::new(StreamBody::new(tokio_stream::iter(frames)));
        let mut out = Vec::new();
        while let Some(line) = lines.next().await.map_err(|error| error.to_string())? {
            out.push(line.to_vec());
        }
        Ok(out)
    }

    proptest::proptest! {
        #[test]
        fn chunking_does_not_matter(text in "[ab\n]{0,40}", cuts in proptest::collection::vec(0usize..8, 0..20)) {
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head.to_vec());
                rest = tail;
            }
            chunks.push(rest.to_vec());
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let got = runtime.block_on(lines(chunks)).expect("lines");
            let expect: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            proptest::prop_assert_eq!(got, expect);
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let chunks = vec![vec![b'x'; 1 << 20]; 26];
        assert!(lines(chunks).await.expect_err("too long").contains("longer than"));
    }
}
