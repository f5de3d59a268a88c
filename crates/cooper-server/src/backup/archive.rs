//! The archive's outer form: a strict subset of ustar. Every entry is a regular file; links, folders, long-name records
//! and everything else that a tar may hold are refused.

use std::io::{self, Read, Write};

use cooper_types::{Digest, DigestAlgorithm, Hasher};
use tar::{EntryType, Header};

use super::RestoreError;

/// The unit of a tar.
const BLOCK: usize = 512;
/// How much is copied at once.
const CHUNK: usize = 256 * 1024;

/// What happened to a copied entry.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The source failed, or ended early.
    Read(io::Error),
    /// The target failed.
    Write(io::Error),
    /// The bytes are not those that were expected.
    Digest(Digest),
}

/// Copies exactly `size` bytes, which must have this digest.
pub(super) fn copy_exactly(
    from: &mut dyn Read,
    to: &mut dyn Write,
    size: u64,
    digest: &Digest,
) -> Result<(), CopyError> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        from.read_exact(&mut chunk[..part]).map_err(CopyError::Read)?;
        hasher.update(&chunk[..part]);
        to.write_all(&chunk[..part]).map_err(CopyError::Write)?;
        left -= part as u64;
    }
    let found = hasher.finish();
    if found == *digest { Ok(()) } else { Err(CopyError::Digest(found)) }
}

/// A digest of what a reader gives, and its size.
pub(super) fn digest_of(from: &mut dyn Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok((hasher.finish(), size)),
            n => {
                hasher.update(&chunk[..n]);
                size += n as u64;
            }
        }
    }
}

/// Writes entries.
pub(super) struct ArchiveWriter<W>(W);

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self(out)
    }

    /// Writes an entry of exactly `size` bytes with this digest.
    pub(super) fn entry(
        &mut self,
        name: &str,
        mtime_seconds: u64,
        size: u64,
        digest: &Digest,
        from: &mut dyn Read,
    ) -> Result<(), CopyError> {
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(CopyError::Write)?;
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(mtime_seconds);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        self.0.write_all(header.as_bytes()).map_err(CopyError::Write)?;
        copy_exactly(from, &mut self.0, size, digest)?;
        self.0.write_all(&[0; BLOCK][..padding(size)]).map_err(CopyError::Write)
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&[0; 2 * BLOCK])?;
        self.0.flush()?;
        Ok(self.0)
    }
}

/// Reads entries, each of which the caller names before it comes.
pub(super) struct ArchiveReader<R>(R);

impl<R: Read> ArchiveReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self(from)
    }

    /// The next entry's size, if it has this name.
    pub(super) fn expect(&mut self, name: &str) -> Result<u64, RestoreError> {
        let mut header = Header::new_old();
        self.0.read_exact(header.as_mut_bytes()).map_err(|error| read_error(error, name))?;
        let wrong = |what: &str| RestoreError::Archive(format!("{what} where `{name}` is expected"));
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Err(wrong("it ends"));
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(wrong("it holds something that is no tar entry"));
        }
        if header.entry_type() != EntryType::Regular || header.path_bytes() != name.as_bytes() {
            let found: String = String::from_utf8_lossy(&header.path_bytes()).chars().take(100).collect();
            return Err(wrong(&format!("it holds the entry `{found}` of kind {:?}", header.entry_type())));
        }
        header.entry_size().map_err(|_| wrong("it holds an entry without a size"))
    }

    /// Copies the entry that was just expected.
    pub(super) fn copy(&mut self, to: &mut dyn Write, size: u64, digest: &Digest) -> Result<(), CopyError> {
        copy_exactly(&mut self.0, to, size, digest)?;
        self.padding(size).map_err(CopyError::Read)
    }

    /// Reads the entry that was just expected into memory; the caller has looked at its size.
    pub(super) fn read(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.0).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.padding(size)?;
        Ok(bytes)
    }

    /// Checks that nothing follows but the end.
    pub(super) fn finish(mut self) -> Result<(), RestoreError> {
        let mut end = [0; 2 * BLOCK];
        self.0.read_exact(&mut end).map_err(|error| read_error(error, "its end"))?;
        let mut rest = Vec::new();
        // A tape or a tool may have filled up the last record.
        (&mut self.0).take(BLOCK as u64 * 20 + 1).read_to_end(&mut rest).map_err(RestoreError::Read)?;
        let is_end = rest.len() <= BLOCK * 20 && end.iter().chain(&rest).all(|byte| *byte == 0);
        if is_end { Ok(()) } else { Err(RestoreError::Archive("it goes on where its end is expected".to_owned())) }
    }

    fn padding(&mut self, size: u64) -> io::Result<()> {
        self.0.read_exact(&mut [0; BLOCK][..padding(size)])
    }
}

/// What a failed read means: an archive that is too short, or a disk that fails.
pub(super) fn read_error(error: io::Error, name: &str) -> RestoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RestoreError::Archive(format!("it is cut off at `{name}`")),
        _ => RestoreError::Read(error),
    }
}

/// How many bytes fill up the last block of an entry.
fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new());
        for (name, bytes) in [("a", &b"one"[..]), ("b/c", &[7; 512][..]), ("d", &[])] {
            writer.entry(name, 1, bytes.len() as u64, &Digest::sha256(bytes), &mut &*bytes).expect("written");
        }
        writer.finish().expect("written")
    }

    fn read_all(mut bytes: &[u8]) -> Result<(), RestoreError> {
        let mut reader = ArchiveReader::new(&mut bytes);
        for (name, content) in [("a", &b"one"[..]), ("b/c", &[7; 512][..]), ("d", &[])] {
            let size = reader.expect(name)?;
            let found = reader.read(size).map_err(|error| read_error(error, name))?;
            if found != content {
                return Err(RestoreError::Archive(format!("`{name}` differs")));
            }
        }
        reader.finish()
    }

    #[test]
    fn what_is_written_is_read_and_every_tar_reads_it() {
        let bytes = archive();
        read_all(&bytes).expect("read");
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().expect("entries") {
            names.push(entry.expect("entry").path().expect("path").display().to_string());
        }
        assert_eq!(names, ["a", "b/c", "d"]);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_told() {
        let bytes = archive();
        for length in 0..bytes.len() {
            assert!(read_all(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            // What fills up the last block of an entry means nothing.
            let is_padding = (BLOCK + 3..2 * BLOCK).contains(&at);
            // The sum is written in digits with blanks around, some of which mean nothing either.
            let in_sum = [0, 2 * BLOCK, 4 * BLOCK].iter().any(|start| (start + 148..start + 156).contains(&at));
            assert!(is_padding || in_sum || read_all(&changed).is_err(), "changed at {at}");
        }
        assert!(read_all(&[bytes, vec![1]].concat()).is_err());
    }
}
