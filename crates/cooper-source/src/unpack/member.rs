//! The members of a tar stream: headers, GNU long names, PAX extended headers, and their contents in turn.
//!
//! The `tar` crate decodes the header blocks. The stream is walked here, because its own walk holds extended headers of
//! any size in memory and cannot tell a cut archive from a whole one.

use std::io::Read;

use tar::{EntryType, Header};

use super::error::shown;
use super::stream::{Stream, StreamFault};
use super::{NameFault, UnpackError, UnpackLimits};

const BLOCK: usize = 512;
/// 4199 AD; beyond it lie only negative numbers that were read as large ones.
const LAST_SECOND: i64 = 70_000_000_000;

/// One entry of the archive, its name and link as the archive writes them.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kind: MemberKind,
    /// Bytes of a file's content; zero for what has none.
    pub(super) size: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// Seconds since the epoch, zero if the archive says nothing usable.
    pub(super) mtime: i64,
}

#[derive(PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Directory,
    Symlink { target: String },
    HardLink { target: String },
}

pub(super) struct Members<'run, R: Read> {
    stream: Stream<'run, R>,
    limits: &'run UnpackLimits,
    /// Bytes of the current member's content that have not been read, then those of its padding.
    content_left: u64,
    padding_left: usize,
    /// Whether a header has been read: before that, what is wrong is that this is no archive.
    begun: bool,
    /// The last name that was read, for messages.
    last: Option<String>,
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<i64>,
}

impl<'run, R: Read> Members<'run, R> {
    pub(super) fn new(stream: Stream<'run, R>, limits: &'run UnpackLimits) -> Self {
        Self { stream, limits, content_left: 0, padding_left: 0, begun: false, last: None }
    }

    /// The next member; what is left of the one before is passed over. Nothing after the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Member>, UnpackError> {
        let mut extended = Extended::default();
        loop {
            self.pass_over()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| self.bad("a header with a bad size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extended.name = Some(self.text(size)?),
                EntryType::GNULongLink => extended.link = Some(self.text(size)?),
                EntryType::XHeader => self.pax(size, &mut extended)?,
                // Settings for the whole archive, such as the commit that `git archive` notes: none of them matters.
                EntryType::XGlobalHeader => {
                    self.text(size)?;
                }
                _ => return self.member(&header, size, extended).map(Some),
            }
        }
    }

    /// Some of the current member's content; nothing once it is all read.
    pub(super) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let wanted = usize::try_from(self.content_left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..wanted).filter(|part| !part.is_empty()) else { return Ok(0) };
        let result = self.stream.read(part);
        match self.located(result)? {
            0 => Err(UnpackError::Truncated { after: self.last.clone() }),
            read => {
                self.content_left -= read as u64;
                Ok(read)
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Member, UnpackError> {
        let name = extended.name.unwrap_or_else(|| header.path_bytes().into_owned());
        self.last = Some(shown(&name));
        let link = extended.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        let size = extended.size.unwrap_or(size);
        let special = |kind| Err(UnpackError::Special { name: shown(&name), kind });
        let target = || {
            let fault = NameFault::NotUtf8;
            String::from_utf8(link.clone()).map_err(|_| UnpackError::LinkTarget { name: shown(&name), fault })
        };
        let kind = match header.entry_type() {
            // Before there was a type for directories, a slash at the end made one.
            EntryType::Regular if name.ends_with(b"/") && size == 0 => MemberKind::Directory,
            EntryType::Regular | EntryType::Continuous => MemberKind::File,
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink => MemberKind::Symlink { target: target()? },
            EntryType::Link => MemberKind::HardLink { target: target()? },
            EntryType::Char | EntryType::Block => return special("a device"),
            EntryType::Fifo => return special("a named pipe"),
            EntryType::GNUSparse => return special("a sparse file"),
            _ => return special("an entry of an unknown type"),
        };
        // Only files have content, whatever the size field of the others says.
        let size = if kind == MemberKind::File { size } else { 0 };
        self.expect_content(size);
        let mtime = extended.mtime.or_else(|| header.mtime().ok().and_then(|time| i64::try_from(time).ok()));
        Ok(Member {
            mode: header.mode().map_or_else(|_| default_mode(&kind), |mode| mode & 0o7777),
            mtime: mtime.filter(|time| (0..=LAST_SECOND).contains(time)).unwrap_or(0),
            name: String::from_utf8(name)
                .map_err(|error| UnpackError::Name { name: shown(error.as_bytes()), fault: NameFault::NotUtf8 })?,
            kind,
            size,
        })
    }

    /// The next header block. `None` after the end mark, once the rest has been read: only that checks gzip's own end.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let result = self.stream.fill(header.as_mut_bytes());
        if self.located(result)? < BLOCK {
            let after = self.last.clone();
            return Err(if self.begun { UnpackError::Truncated { after } } else { UnpackError::NotTar });
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            self.drain()?;
            return Ok(None);
        }
        // The checksum is the sum of the header with blanks in the checksum's own place.
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        match header.cksum() {
            Ok(expected) if expected == sum => {
                self.begun = true;
                Ok(Some(header))
            }
            _ if !self.begun => Err(UnpackError::NotTar),
            _ => Err(self.bad("a damaged header")),
        }
    }

    fn drain(&mut self) -> Result<(), UnpackError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let result = self.stream.read(&mut buffer);
            if self.located(result)? == 0 {
                return Ok(());
            }
        }
    }

    fn expect_content(&mut self, size: u64) {
        self.content_left = size;
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        self.padding_left = if over == 0 { 0 } else { BLOCK - over };
    }

    fn pass_over(&mut self) -> Result<(), UnpackError> {
        let mut buffer = [0; BLOCK];
        while self.read_content(&mut buffer)? != 0 {}
        let padding = buffer.get_mut(..self.padding_left).unwrap_or_default();
        let result = self.stream.fill(padding);
        if self.located(result)? < self.padding_left {
            return Err(UnpackError::Truncated { after: self.last.clone() });
        }
        self.padding_left = 0;
        Ok(())
    }

    /// The whole content of an extended header, without NULs at its end.
    fn text(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > self.limits.metadata_len {
            return Err(self.bad("an extended header that is too long"));
        }
        self.expect_content(size);
        let mut text = Vec::new();
        let mut buffer = [0; BLOCK];
        loop {
            let read = self.read_content(&mut buffer)?;
            match buffer.get(..read).filter(|part| !part.is_empty()) {
                Some(part) => text.extend_from_slice(part),
                None => break,
            }
        }
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    /// PAX records, `length key=value\n` each (POSIX.1-2001, pax extended header).
    fn pax(&mut self, size: u64, extended: &mut Extended) -> Result<(), UnpackError> {
        let text = self.text(size)?;
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (key, value, behind) =
                pax_record(rest).ok_or_else(|| self.bad("an extended header that can't be read"))?;
            match key {
                b"path" => extended.name = Some(value.to_vec()),
                b"linkpath" => extended.link = Some(value.to_vec()),
                b"size" => {
                    let size = ascii(value).and_then(|text| text.parse().ok());
                    extended.size = Some(size.ok_or_else(|| self.bad("a header with a bad size"))?);
                }
                b"mtime" => {
                    let seconds = ascii(value).and_then(|text| text.split('.').next()?.parse().ok());
                    extended.mtime = Some(seconds.unwrap_or(0));
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(self.bad("a sparse file")),
                _ => {}
            }
            rest = behind;
        }
        Ok(())
    }

    fn bad(&self, what: &'static str) -> UnpackError {
        UnpackError::Header { after: self.last.clone(), what }
    }

    fn located<T>(&self, result: Result<T, StreamFault>) -> Result<T, UnpackError> {
        result.map_err(|fault| match fault {
            StreamFault::Truncated => UnpackError::Truncated { after: self.last.clone() },
            StreamFault::Damaged(source) => UnpackError::Damaged { after: self.last.clone(), source },
            StreamFault::Other(error) => error,
        })
    }
}

fn pax_record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = ascii(text.get(..blank)?)?.parse().ok()?;
    let record = text.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((record.get(..equals)?, record.get(equals + 1..)?, text.get(length..)?))
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn default_mode(kind: &MemberKind) -> u32 {
    match kind {
        MemberKind::Directory => 0o755,
        MemberKind::Symlink { .. } => 0o777,
        MemberKind::File | MemberKind::HardLink { .. } => 0o644,
    }
}
