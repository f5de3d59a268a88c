//! Contexts into the workspace and out of it, as tar archives.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use cooper_ports::context_tree::{ContextEntry, ContextTree, EntryKind};
use cooper_ports::engine::{ArchiveStream, NewArchive, Placement};
use cooper_source::{UnpackError, unpack};
use futures::StreamExt as _;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::context::SetOnDrop;
use super::environment::not_archived;
use super::{Attempt, Ended};
use crate::placement;

/// Chunks of an archive that wait for their receiver.
const QUEUE: usize = 8;
/// Bytes of a chunk.
const CHUNK: usize = 128 << 10;

/// The archive of a context.
pub(super) fn archive(context: ContextTree) -> NewArchive {
    Box::new(move |within| written(context, within.to_owned()))
}

fn written(context: ContextTree, within: String) -> ArchiveStream<io::Error> {
    let (chunks, receiver) = mpsc::channel(QUEUE);
    // A receiver that is gone ends it with the next chunk.
    drop(tokio::task::spawn_blocking(move || {
        let output = io::BufWriter::with_capacity(CHUNK, Sender(chunks.clone()));
        if let Err(error) = write(&context, &within, output) {
            let _ = chunks.blocking_send(Err(error));
        }
    }));
    ReceiverStream::new(receiver).boxed()
}

fn write(context: &ContextTree, within: &str, output: impl io::Write) -> io::Result<()> {
    let mut archive = Builder::new(output);
    for entry in context.entries() {
        let ContextEntry { path, kind, mode, mtime_ns } = entry;
        let path = format!("{within}{path}");
        let mut header = Header::new_gnu();
        header.set_mode(*mode);
        header.set_mtime(u64::try_from(mtime_ns / 1_000_000_000).unwrap_or(0));
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match kind {
            EntryKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                archive.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            EntryKind::File { offset, size } => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(*size);
                let content = Content { context, at: *offset, end: offset + size };
                archive.append_data(&mut header, &path, content)?;
            }
            EntryKind::Symlink { target } => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, &path, target)?;
            }
        }
    }
    io::Write::flush(&mut archive.into_inner()?)
}

/// One file's bytes in the spool file.
struct Content<'a> {
    context: &'a ContextTree,
    at: u64,
    end: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        super::dockerfile::read_at(self.context.contents(), self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

/// The writing end of an archive on its way.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Sender {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(buffer)));
        sent.map(|()| buffer.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Attempt<'_> {
    /// A folder of the workspace as it is now, within the limits of a context.
    pub(super) async fn workspace_folder(
        &self,
        placement: &Arc<dyn Placement>,
        folder: &str,
    ) -> Result<ContextTree, Ended> {
        let dir = self.runner.placement_dir(self.key);
        let disk = |error: &io::Error| Ended::lost("agent's work folder can't be used", error);
        tokio::fs::create_dir_all(&dir).await.map_err(|error| disk(&error))?;
        let volume = placement::workspace();
        let archive = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            archive = placement.get_archive(&volume, folder) => {
                archive.map_err(|error| not_archived("workspace can't be read", &error))?
            }
        };
        let (chunks, receiver) = mpsc::channel(QUEUE);
        let (failure, failed) = tokio::sync::oneshot::channel();
        let relay = async move {
            let mut archive = archive;
            while let Some(chunk) = archive.next().await {
                match chunk {
                    Ok(chunk) => {
                        if chunks.send(Ok(chunk)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = chunks.send(Err(io::Error::other("archive broke off"))).await;
                        // Nobody asks after an unpacking that succeeded.
                        let _ = failure.send(error);
                        return;
                    }
                }
            }
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let guard = SetOnDrop(Arc::clone(&cancelled));
        let limits = self.runner.settings.unpack.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let spool = tempfile::tempfile_in(&dir).map_err(|source| UnpackError::Spool { source })?;
            unpack(Receiver { chunks: receiver, rest: Bytes::new() }, spool, &limits, &cancelled)
        });
        let both = async { tokio::join!(unpacking, relay).0 };
        let unpacked = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            unpacked = both => unpacked,
        };
        drop(guard);
        let mut failed = failed;
        match (unpacked, failed.try_recv()) {
            (Ok(Ok(tree)), _) => Ok(tree),
            (_, Ok(error)) => Err(Ended::lost("workspace can't be read", &error)),
            (Ok(Err(error)), _) if error.is_in_archive() => {
                Err(Ended::Failed { exit_code: None, reason: format!("workspace is no build context: {error}") })
            }
            (Ok(Err(error)), _) => Err(Ended::lost("workspace can't be unpacked", &error)),
            (Err(panic), _) => Err(Ended::lost("workspace can't be unpacked", &panic)),
        }
    }
}

/// The reading end of an archive on its way.
struct Receiver {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use cooper_source::UnpackLimits;
    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_context_comes_back_as_it_went() {
        use std::io::Write as _;
        let mut spool = tempfile::tempfile().expect("a file");
        spool.write_all(b"hello worldscript").expect("written");
        let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
        let entry = |path: &str, kind, mode| ContextEntry {
            path: path.to_owned(),
            kind,
            mode,
            mtime_ns: 1_700_000_000 * 1_000_000_000,
        };
        let entries = vec![
            entry("a", EntryKind::Directory, 0o750),
            entry("a/hello", EntryKind::File { offset: 0, size: 11 }, 0o644),
            entry("a/link", EntryKind::Symlink { target: format!("../{long}") }, 0o777),
            entry("d".repeat(120).as_str(), EntryKind::Directory, 0o755),
            entry(&long, EntryKind::File { offset: 11, size: 6 }, 0o755),
            entry("empty", EntryKind::File { offset: 0, size: 0 }, 0o600),
        ];
        let tree = ContextTree::new(entries, spool);
        let parts: Vec<Bytes> = archive(tree.clone())("").try_collect().await.expect("an archive");
        let bytes: Vec<u8> = parts.concat();
        let spool = tempfile::tempfile().expect("a file");
        let back = unpack(bytes.as_slice(), spool, &UnpackLimits::default(), &AtomicBool::new(false)).expect("valid");
        let shape = |tree: &ContextTree| {
            let seconds = |entry: &ContextEntry| entry.mtime_ns / 1_000_000_000;
            let kind = |entry: &ContextEntry| match &entry.kind {
                EntryKind::File { size, .. } => format!("{size}"),
                other => format!("{other:?}"),
            };
            let of = |entry: &ContextEntry| (entry.path.clone(), kind(entry), entry.mode, seconds(entry));
            tree.entries().iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(shape(&back), shape(&tree));
    }
}
