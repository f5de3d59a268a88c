//! The tar form of an archive: GNU headers, owner 0, long names and long link targets in `L` and `K` entries.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::{PackError, PackProgress};

const BLOCK: u64 = 512;
/// What a header can hold of a name without an entry of its own.
const SHORT_NAME: usize = 100;

/// What every entry has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryHead {
    pub(crate) mode: u32,
    /// Seconds since the epoch.
    pub(crate) mtime: u64,
}

pub(crate) struct Archive<'progress, W: Write> {
    output: W,
    done: PackProgress,
    progress: &'progress mut dyn FnMut(PackProgress),
    buffer: Vec<u8>,
}

impl<'progress, W: Write> Archive<'progress, W> {
    pub(crate) fn new(output: W, progress: &'progress mut dyn FnMut(PackProgress)) -> Self {
        Self { output, done: PackProgress::default(), progress, buffer: vec![0; 256 << 10] }
    }

    pub(crate) fn directory(&mut self, path: &str, head: EntryHead) -> Result<(), PackError> {
        self.head(EntryType::Directory, &format!("{path}/"), "", head, 0)
    }

    pub(crate) fn symlink(&mut self, path: &str, head: EntryHead, target: &str) -> Result<(), PackError> {
        self.head(EntryType::Symlink, path, target, head, 0)
    }

    /// Packs exactly `size` bytes of `content`; less or more is an error.
    pub(crate) fn file(
        &mut self,
        path: &str,
        head: EntryHead,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), PackError> {
        self.head(EntryType::Regular, path, "", head, size)?;
        let changed = || PackError::Changed { path: path.to_owned() };
        let mut left = size;
        loop {
            // At the end one more read is asked for, which must find nothing.
            let read = read_some(content, &mut self.buffer)
                .map_err(|source| PackError::Unreadable { path: PathBuf::from(path), source })?;
            left = left.checked_sub(read as u64).ok_or_else(changed)?;
            if read == 0 {
                break;
            }
            let bytes = self.buffer.get(..read).unwrap_or_default();
            self.output.write_all(bytes).map_err(|source| PackError::Output { source })?;
            self.done.bytes += read as u64;
            (self.progress)(self.done);
        }
        if left != 0 {
            return Err(changed());
        }
        self.pad(size)?;
        self.done.files += 1;
        (self.progress)(self.done);
        Ok(())
    }

    /// Ends the archive; gives the output back.
    pub(crate) fn finish(mut self) -> Result<(W, PackProgress), PackError> {
        self.write(&[0; 2 * BLOCK as usize])?;
        Ok((self.output, self.done))
    }

    fn head(&mut self, kind: EntryType, path: &str, target: &str, head: EntryHead, size: u64) -> Result<(), PackError> {
        if target.len() > SHORT_NAME {
            self.long(EntryType::GNULongLink, target)?;
        }
        if path.len() > SHORT_NAME {
            self.long(EntryType::GNULongName, path)?;
        }
        self.block(kind, path, target, head, size)
    }

    fn long(&mut self, kind: EntryType, text: &str) -> Result<(), PackError> {
        let size = text.len() as u64 + 1;
        self.block(kind, "././@LongLink", "", EntryHead { mode: 0o644, mtime: 0 }, size)?;
        self.write(text.as_bytes())?;
        self.write(&[0])?;
        self.pad(size)
    }

    fn block(
        &mut self,
        kind: EntryType,
        path: &str,
        target: &str,
        head: EntryHead,
        size: u64,
    ) -> Result<(), PackError> {
        let mut header = Header::new_gnu();
        let fields = header.as_old_mut();
        copy_name(&mut fields.name, path);
        copy_name(&mut fields.linkname, target);
        header.set_entry_type(kind);
        header.set_mode(head.mode);
        header.set_mtime(head.mtime);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), PackError> {
        let zeros = [0; BLOCK as usize];
        let missing = size.next_multiple_of(BLOCK) - size;
        let missing = usize::try_from(missing).unwrap_or_default();
        self.write(zeros.get(..missing).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.output.write_all(bytes).map_err(|source| PackError::Output { source })
    }
}

fn copy_name(field: &mut [u8; SHORT_NAME], text: &str) {
    for (slot, byte) in field.iter_mut().zip(text.bytes()) {
        *slot = byte;
    }
}

fn read_some(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
