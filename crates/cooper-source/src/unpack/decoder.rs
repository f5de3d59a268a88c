//! Decompression by what the bytes are, never by a name: gzip, bzip2, xz, zstd, or none. Every decoder is a stream that
//! holds a bounded part of its data: bzip2 and gzip by their formats, xz and zstd by a limit on their windows.

use std::io::{self, Cursor, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream as XzStream};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Enough to know every compression.
pub(super) const MAGIC: usize = 6;
/// What a decoder may keep in memory. `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB, of which its decoder here takes 100.
const MAX_WINDOW: u64 = 128 << 20;

/// A stream of bytes, decompressed.
pub(super) enum Decoder<R: Read> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Bzip2(Box<MultiBzDecoder<R>>),
    Xz(Box<XzDecoder<R>>),
    Zstd(Box<ZstdDecoder<R>>),
}

/// What the first bytes say.
pub(super) enum Known {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    /// Something that is not taken, by its name.
    Other(&'static str),
}

impl Known {
    pub(super) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] => Self::Other("zip"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Self::Other("7-Zip"),
            _ => Self::Plain,
        }
    }
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(known: &Known, source: R) -> io::Result<Self> {
        Ok(match known {
            Known::Plain | Known::Other(_) => Self::Plain(source),
            Known::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Known::Bzip2 => Self::Bzip2(Box::new(MultiBzDecoder::new(source))),
            Known::Xz => {
                let stream = XzStream::new_stream_decoder(MAX_WINDOW, CONCATENATED)?;
                Self::Xz(Box::new(XzDecoder::new_stream(source, stream)))
            }
            Known::Zstd => Self::Zstd(Box::new(ZstdDecoder::new(source))),
        })
    }

    pub(super) fn source(&self) -> &R {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Bzip2(decoder) => decoder.get_ref(),
            Self::Xz(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => &decoder.source,
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// zstd's frames one after another, as `zstd` and `pzstd` write them; the decoder below knows single frames.
pub(super) struct ZstdDecoder<R> {
    source: R,
    frame: FrameDecoder,
    inside: bool,
}

impl<R: Read> ZstdDecoder<R> {
    fn new(source: R) -> Self {
        Self { source, frame: FrameDecoder::new(), inside: false }
    }

    /// Begins the next frame; false at the end.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            let mut first = [0];
            if self.source.read(&mut first)? == 0 {
                return Ok(false);
            }
            match self.frame.init(Cursor::new(first).chain(&mut self.source)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: Read> Read for ZstdDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside {
                if !self.begin()? {
                    return Ok(0);
                }
                self.inside = true;
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let some = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.frame.decode_blocks(&mut self.source, some).map_err(io::Error::other)?;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let written = self.frame.get_checksum_from_data();
            if written.is_some() && written != self.frame.get_calculated_checksum() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame's checksum does not match"));
            }
            self.inside = false;
        }
    }
}
