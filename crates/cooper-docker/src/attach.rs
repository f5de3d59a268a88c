//! What a container says, and what it is told, over a connection of its own.
//!
//! bollard's stream guesses from the bytes whether they are of a terminal; here the caller knows.

use bytes::{Buf, Bytes, BytesMut};
use cooper_ports::engine::{EngineError, OutputStream};
use http::HeaderValue;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf, WriteHalf};

use crate::wire::{EngineWire, RequestError};

const OPERATION: &str = "attach to a container";
/// How much is read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of the head before each part of the output.
const HEAD: usize = 8;

/// A container's output.
pub(crate) struct Output<R> {
    connection: R,
    buffer: BytesMut,
    /// Whether the bytes come without heads.
    terminal: bool,
    /// Of which stream the bytes are that come next, and how many.
    part: (OutputStream, usize),
}

/// A container's standard input; it ends when this is dropped and the output is too.
pub(crate) type Input = WriteHalf<TokioIo<Upgraded>>;

/// Attaches to a container that has not started, so that nothing is missed.
pub(crate) async fn attach(
    wire: &EngineWire,
    container: &str,
    terminal: bool,
    with_input: bool,
) -> Result<(Output<ReadHalf<TokioIo<Upgraded>>>, Input), EngineError> {
    let path = format!("/containers/{container}/attach?stream=1&stdout=1&stderr=1&stdin={}", u8::from(with_input));
    let upgraded = wire.upgrade(OPERATION, &path, HeaderValue::from_static("tcp"), Vec::new()).await;
    let upgraded = upgraded.map_err(|error: RequestError| error.into_engine_error(OPERATION))?;
    let (output, input) = tokio::io::split(TokioIo::new(upgraded));
    Ok((Output::new(output, terminal), input))
}

impl<R: AsyncRead + Unpin> Output<R> {
    fn new(connection: R, terminal: bool) -> Self {
        Self { connection, buffer: BytesMut::new(), terminal, part: (OutputStream::Stdout, 0) }
    }

    /// The next bytes and their stream; `None` at the end. Cancel-safe: what was read is kept.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<(OutputStream, Bytes)>> {
        loop {
            if let Some(part) = self.take()? {
                return Ok(Some(part));
            }
            self.buffer.reserve(CHUNK);
            if self.connection.read_buf(&mut self.buffer).await? == 0 {
                let whole = self.buffer.is_empty() && self.part.1 == 0;
                return if whole { Ok(None) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn take(&mut self) -> std::io::Result<Option<(OutputStream, Bytes)>> {
        if self.terminal {
            let all = self.buffer.split().freeze();
            return Ok((!all.is_empty()).then_some((OutputStream::Stdout, all)));
        }
        // An empty part is no output.
        while self.part.1 == 0 {
            let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else { return Ok(None) };
            let [stream, _, _, _, a, b, c, d] = *head;
            let stream = match stream {
                0 | 1 => OutputStream::Stdout,
                2 => OutputStream::Stderr,
                _ => return Err(std::io::Error::other("the engine sent output of a stream that there is not")),
            };
            // A length of the engine's is never allocated: bytes are passed on as they come.
            self.part = (stream, u32::from_be_bytes([a, b, c, d]) as usize);
            self.buffer.advance(HEAD);
        }
        let (stream, left) = self.part;
        let length = left.min(self.buffer.len());
        self.part.1 -= length;
        Ok((length > 0).then(|| (stream, self.buffer.split_to(length).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (stream, part) in parts {
            bytes.extend_from_slice(&[*stream, 0, 0, 0]);
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    async fn read(chunks: &[&[u8]], terminal: bool) -> std::io::Result<[Vec<u8>; 2]> {
        let mut builder = tokio_test_io(chunks);
        let mut output = Output::new(&mut builder, terminal);
        let mut all = [Vec::new(), Vec::new()];
        while let Some((stream, bytes)) = output.next().await? {
            all[usize::from(stream == OutputStream::Stderr)].extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// A reader that gives the chunks one by one.
    fn tokio_test_io(chunks: &[&[u8]]) -> impl AsyncRead + Unpin {
        let chunks: Vec<_> = chunks
            .iter()
            .filter(|c| !c.is_empty())
            .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)))
            .collect();
        tokio_util::io::StreamReader::new(tokio_stream::iter(chunks))
    }

    proptest::proptest! {
        #[test]
        fn cuts_do_not_matter(
            parts in proptest::collection::vec((1_u8..3, proptest::collection::vec(0_u8..255, 0..20)), 0..8),
            cuts in proptest::collection::vec(0_usize..12, 0..30),
        ) {
            let bytes = wire(&parts);
            let mut rest = bytes.as_slice();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            let of = |wanted: u8| -> Vec<u8> {
                parts.iter().filter(|(stream, _)| *stream == wanted).flat_map(|(_, part)| part.clone()).collect()
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let got = runtime.block_on(read(&chunks, false)).expect("it is whole");
            proptest::prop_assert_eq!(got, [of(1), of(2)]);
            let got = runtime.block_on(read(&chunks, true)).expect("a terminal has no heads");
            proptest::prop_assert_eq!(got, [bytes.clone(), Vec::new()]);
        }
    }

    #[tokio::test]
    async fn an_output_that_breaks_off_is_an_error() {
        let bytes = wire(&[(1, b"word".to_vec())]);
        assert!(read(&[&bytes[..bytes.len() - 1]], false).await.is_err());
        assert!(read(&[&bytes[..3]], false).await.is_err());
        assert!(read(&[&[9, 0, 0, 0, 0, 0, 0, 0]], false).await.is_err());
    }
}
