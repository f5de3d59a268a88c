//! A queue of frames in an unnamed file: written at its end, read from its start, gone with its owner.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use cooper_ports::logs::Frame;

/// Frames on disk. The file is made when it is needed first, and emptied whenever the queue runs empty.
///
/// Its reads and writes go through the system's cache while a stream is down or just back, 64 KiB at a time: they are
/// done where they are needed, not on a thread of their own.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    file: Option<File>,
    read_at: u64,
    write_at: u64,
    frames: u64,
}

impl Spool {
    /// An empty queue whose file will be in `dir`.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, file: None, read_at: 0, write_at: 0, frames: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Bytes of the file, read ones included.
    pub(super) fn bytes(&self) -> u64 {
        self.write_at
    }

    pub(super) fn push(&mut self, frame: &Frame) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                std::fs::create_dir_all(&self.dir)?;
                tempfile::tempfile_in(&self.dir)?
            }
        };
        let mut bytes = Vec::with_capacity(frame.data.len() + 64);
        frame.encode(&mut bytes);
        // A write that fails halfway leaves bytes beyond `write_at`, which the next one overwrites.
        let written = file.seek(SeekFrom::Start(self.write_at)).and_then(|_| file.write_all(&bytes));
        self.file = Some(file);
        written?;
        self.write_at += bytes.len() as u64;
        self.frames += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) -> io::Result<Option<Frame>> {
        let Some(file) = self.file.as_mut().filter(|_| self.frames > 0) else { return Ok(None) };
        file.seek(SeekFrom::Start(self.read_at))?;
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let body = u64::from(u32::from_le_bytes(length));
        let mut bytes = length.to_vec();
        file.take(body).read_to_end(&mut bytes)?;
        let frame = Frame::decode(&mut bytes.as_slice()).map_err(io::Error::other)?;
        self.read_at += bytes.len() as u64;
        self.frames -= 1;
        if self.frames == 0 {
            self.lose();
        }
        Ok(Some(frame))
    }

    /// Empties the queue and says how many frames were in it.
    pub(super) fn lose(&mut self) -> u64 {
        (self.file, self.read_at, self.write_at) = (None, 0, 0);
        std::mem::take(&mut self.frames)
    }
}
