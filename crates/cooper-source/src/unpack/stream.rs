//! The archive's bytes: decompressed, counted, limited, and with errors that tell a bad archive from a bad connection.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;

use super::{UnpackError, UnpackLimits};

/// Enough to know every compression, and more than the two bytes of gzip.
const MAGIC: usize = 6;

pub(super) struct Stream<'run, R: Read> {
    bytes: Bytes<R>,
    limits: &'run UnpackLimits,
    cancelled: &'run AtomicBool,
    out: u64,
}

enum Bytes<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
}

/// What came from the caller's reader, with the beginning that was read to know its kind put back.
struct Source<R> {
    inner: io::Chain<Cursor<Vec<u8>>, R>,
    read: u64,
    failed: bool,
}

/// What can go wrong while reading: the caller knows where.
pub(super) enum StreamFault {
    /// The decompressor missed its end.
    Truncated,
    Damaged(io::Error),
    Other(UnpackError),
}

impl<'run, R: Read> Stream<'run, R> {
    pub(super) fn open(
        mut reader: R,
        limits: &'run UnpackLimits,
        cancelled: &'run AtomicBool,
    ) -> Result<Self, UnpackError> {
        let mut head = Vec::new();
        reader.by_ref().take(MAGIC as u64).read_to_end(&mut head).map_err(|source| UnpackError::Read { source })?;
        let method = match head.as_slice() {
            [] => return Err(UnpackError::Empty),
            [b'B', b'Z', b'h', ..] => Some("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
            [b'P', b'K', 3, 4, ..] => Some("zip"),
            _ => None,
        };
        if let Some(method) = method {
            return Err(UnpackError::Compression { method });
        }
        let gzipped = head.starts_with(&[0x1f, 0x8b]);
        let source = Source { inner: Cursor::new(head).chain(reader), read: 0, failed: false };
        let bytes = match gzipped {
            true => Bytes::Gzip(Box::new(MultiGzDecoder::new(source))),
            false => Bytes::Plain(source),
        };
        Ok(Self { bytes, limits, cancelled, out: 0 })
    }

    /// Reads some bytes; none at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamFault> {
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StreamFault::Other(UnpackError::Cancelled));
            }
            let result = match &mut self.bytes {
                Bytes::Plain(source) => source.read(buffer),
                Bytes::Gzip(decoder) => decoder.read(buffer),
            };
            match result {
                Ok(read) => {
                    self.count(read)?;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if self.source().failed => return Err(StreamFault::Other(UnpackError::Read { source })),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(StreamFault::Truncated),
                Err(error) => return Err(StreamFault::Damaged(error)),
            }
        }
    }

    /// Fills the buffer; gives less only at the end.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, StreamFault> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn source(&self) -> &Source<R> {
        match &self.bytes {
            Bytes::Plain(source) => source,
            Bytes::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn count(&mut self, read: usize) -> Result<(), StreamFault> {
        self.out += read as u64;
        let limits = self.limits;
        if self.out > limits.bytes {
            return Err(StreamFault::Other(UnpackError::TooLarge { limit: limits.bytes }));
        }
        if self.out > limits.ratio_floor && self.out > limits.ratio.saturating_mul(self.source().read) {
            let (ratio, floor) = (limits.ratio, limits.ratio_floor);
            return Err(StreamFault::Other(UnpackError::Bomb { ratio, floor }));
        }
        Ok(())
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        match &result {
            Ok(read) => self.read += *read as u64,
            Err(error) => self.failed = error.kind() != io::ErrorKind::Interrupted,
        }
        result
    }
}
