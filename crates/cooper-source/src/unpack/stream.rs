//! The archive's bytes: decompressed, counted, limited, and with errors that tell a bad archive from a bad connection.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use super::decoder::{Decoder, Known, MAGIC};
use super::{UnpackError, UnpackLimits};

pub(super) struct Stream<'run, R: Read> {
    bytes: Decoder<Source<R>>,
    limits: &'run UnpackLimits,
    cancelled: &'run AtomicBool,
    out: u64,
}

/// What came from the caller's reader, with the beginning that was read to know its kind put back.
struct Source<R> {
    inner: io::Chain<Cursor<Vec<u8>>, R>,
    read: u64,
    failed: bool,
    ended: bool,
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
        let known = Known::of(&head);
        match known {
            _ if head.is_empty() => return Err(UnpackError::Empty),
            Known::Other(method) => return Err(UnpackError::Compression { method }),
            Known::Plain | Known::Gzip | Known::Bzip2 | Known::Xz | Known::Zstd => {}
        }
        let source = Source { inner: Cursor::new(head).chain(reader), read: 0, failed: false, ended: false };
        let bytes = Decoder::new(&known, source).map_err(|source| UnpackError::Damaged { after: None, source })?;
        Ok(Self { bytes, limits, cancelled, out: 0 })
    }

    /// Reads some bytes; none at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StreamFault> {
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StreamFault::Other(UnpackError::Cancelled));
            }
            match self.bytes.read(buffer) {
                Ok(read) => {
                    self.count(read)?;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) if self.bytes.source().failed => {
                    return Err(StreamFault::Other(UnpackError::Read { source }));
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(StreamFault::Truncated),
                // It reads just what it needs, so an end that it has seen is one that it did not expect.
                Err(_) if matches!(self.bytes, Decoder::Zstd(_)) && self.bytes.source().ended => {
                    return Err(StreamFault::Truncated);
                }
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

    fn count(&mut self, read: usize) -> Result<(), StreamFault> {
        self.out += read as u64;
        let limits = self.limits;
        if self.out > limits.bytes {
            return Err(StreamFault::Other(UnpackError::TooLarge { limit: limits.bytes }));
        }
        if self.out > limits.ratio_floor && self.out > limits.ratio.saturating_mul(self.bytes.source().read) {
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
            Ok(0) => self.ended |= !buffer.is_empty(),
            Ok(read) => self.read += *read as u64,
            Err(error) => self.failed = error.kind() != io::ErrorKind::Interrupted,
        }
        result
    }
}
