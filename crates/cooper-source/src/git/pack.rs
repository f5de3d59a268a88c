//! Asking for objects, and taking in the pack that comes: indexed on a blocking thread while it is received.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use git2::{Indexer, Oid};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::advertisement::{Capabilities, Version};
use super::guard::{PackFault, PackGuard};
use super::packet::{Packet, Packets, line, push, push_delimiter, push_flush};
use super::remote::{AGENT, Remote};
use super::worker::Workers;
use super::{FetchEvent, FetchLimits, FetchListener, GitError};
use crate::git::error::shown;

/// Pieces of a pack that wait for the disk: of 64 KiB at most, so half a megabyte.
const WAITING_PIECES: usize = 8;
/// How often a long transfer is heard of.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Objects of at least this size are taken in whatever the limit of files is: directories have no such limit.
const OBJECT_LEN: u64 = 64 << 20;
/// Objects of one commit, and of a history: more than the largest have. The indexer keeps some 140 bytes of each in memory,
/// ten times what an empty one has on the wire.
const COMMIT_OBJECTS: u32 = 5_000_000;
const HISTORY_OBJECTS: u32 = 20_000_000;
/// Lines of a server that are shown; the rest says nothing new.
const SHOWN_LINES: usize = 50;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Wants {
    pub(super) ids: Vec<Oid>,
    /// Each commit alone, without its history.
    pub(super) shallow: bool,
    /// Commits without their files.
    pub(super) commits_only: bool,
}

enum Piece {
    Data(Bytes),
    /// The pack is whole: without this, the connection has ended before.
    End,
}

/// Whether the server can send commits without their history.
pub(super) fn can_be_shallow(remote: &Remote<'_>) -> bool {
    let capabilities = &remote.advertisement.capabilities;
    match remote.advertisement.version {
        Version::Two => capabilities.has_word("fetch", "shallow"),
        Version::Old => capabilities.has("shallow"),
    }
}

/// Whether the server can send commits without their files.
pub(super) fn can_leave_files(remote: &Remote<'_>) -> bool {
    let advertisement = &remote.advertisement;
    advertisement.version == Version::Two && advertisement.capabilities.has_word("fetch", "filter")
}

/// Asks for objects and stores them below `objects`, a directory that is made here.
pub(super) async fn receive(
    remote: &mut Remote<'_>,
    wants: &Wants,
    objects: &Path,
    limits: &FetchLimits,
    workers: &Workers,
    listener: &FetchListener,
) -> Result<(), GitError> {
    let packs = objects.join("pack");
    let body = match remote.advertisement.version {
        Version::Two => request(wants),
        Version::Old if !remote.advertisement.capabilities.has("side-band-64k") => {
            let what = "it has no side-band-64k, which every server has had since 2006";
            return Err(GitError::Protocol { host: remote.host(), what });
        }
        Version::Old => old_request(wants, &remote.advertisement.capabilities),
    };
    let (url, host) = (remote.url(), remote.host());
    let objects_limit = if wants.shallow { COMMIT_OBJECTS } else { HISTORY_OBJECTS };
    let guard = PackGuard::new(limits.file_len.max(OBJECT_LEN), objects_limit);
    let mut packets = remote.command(body).await?;
    match remote.advertisement.version {
        Version::Two => skip_to_pack(&mut packets).await?,
        Version::Old => skip_to_old_pack(&mut packets, wants.shallow).await?,
    }
    let (sender, receiver) = mpsc::channel(WAITING_PIECES);
    let indexing = workers.run(move |stop| index(&url, &host, &packs, guard, receiver, stop));
    // The sender goes with the future: its end is what the thread sees.
    let (fed, indexed) = tokio::join!(feed(packets, sender, listener), indexing);
    let bytes = fed?;
    let objects = indexed?;
    listener(FetchEvent::Received { objects, bytes });
    Ok(())
}

fn request(wants: &Wants) -> Vec<u8> {
    let mut body = Vec::new();
    push(&mut body, "command=fetch");
    push(&mut body, AGENT);
    push_delimiter(&mut body);
    push(&mut body, "ofs-delta");
    for id in &wants.ids {
        push(&mut body, &format!("want {id}"));
    }
    if wants.shallow {
        push(&mut body, "deepen 1");
    }
    if wants.commits_only {
        push(&mut body, "filter tree:0");
    }
    push(&mut body, "done");
    push_flush(&mut body);
    body
}

fn old_request(wants: &Wants, capabilities: &Capabilities) -> Vec<u8> {
    let mut body = Vec::new();
    // Some servers (Azure DevOps) insist on this one. We have nothing, so that the answer is the same with and without.
    let acknowledged = if capabilities.has("multi_ack_detailed") { " multi_ack_detailed" } else { "" };
    let mut abilities = format!("{acknowledged} side-band-64k ofs-delta {AGENT}");
    for id in &wants.ids {
        push(&mut body, &format!("want {id}{abilities}"));
        abilities.clear();
    }
    if wants.shallow {
        push(&mut body, "deepen 1");
    }
    push_flush(&mut body);
    push(&mut body, "done");
    body
}

async fn skip_to_pack(packets: &mut Packets<'_>) -> Result<(), GitError> {
    loop {
        match packets.next().await? {
            Some(Packet::Data(data)) if line(&data) == b"packfile" => return Ok(()),
            Some(Packet::Data(_) | Packet::Delimiter) => {}
            Some(Packet::Flush | Packet::End) => return Err(packets.fault("an answer without a pack")),
            None => return Err(packets.cut()),
        }
    }
}

async fn skip_to_old_pack(packets: &mut Packets<'_>, shallow: bool) -> Result<(), GitError> {
    let mut flushes = usize::from(shallow);
    loop {
        match packets.next().await? {
            Some(Packet::Data(data)) if line(&data) == b"NAK" => return Ok(()),
            Some(Packet::Data(data)) if data.starts_with(b"shallow ") || data.starts_with(b"unshallow ") => {}
            Some(Packet::Flush) if flushes > 0 => flushes -= 1,
            Some(_) => return Err(packets.fault("an answer without a pack")),
            None => return Err(packets.cut()),
        }
    }
}

/// Takes the pack out of the answer's side bands and hands it to the indexer; gives the pack's bytes.
async fn feed(
    mut packets: Packets<'_>,
    sender: mpsc::Sender<Piece>,
    listener: &FetchListener,
) -> Result<u64, GitError> {
    let mut bytes = 0;
    let mut heard = Instant::now();
    let mut said = Said::default();
    loop {
        match packets.next().await? {
            Some(Packet::Data(mut data)) => {
                if data.is_empty() {
                    continue;
                }
                match data.get_u8() {
                    1 => {
                        bytes += data.len() as u64;
                        if heard.elapsed() >= PROGRESS_INTERVAL {
                            heard = Instant::now();
                            listener(FetchEvent::Receiving { bytes });
                        }
                        // The indexer has given up: its own error says why.
                        if sender.send(Piece::Data(data)).await.is_err() {
                            return Ok(bytes);
                        }
                    }
                    2 => said.add(&data, listener),
                    3 => return Err(GitError::Remote { host: packets.host(), message: shown(&data) }),
                    _ => return Err(packets.fault("an unknown side band")),
                }
            }
            Some(Packet::Flush) => break,
            Some(Packet::Delimiter | Packet::End) => return Err(packets.fault("a border inside a pack")),
            None => return Err(packets.cut()),
        }
    }
    // As above.
    drop(sender.send(Piece::End).await);
    Ok(bytes)
}

/// What the server says for people. Lines that are overwritten (`\r`) are progress, and are left out.
#[derive(Default)]
struct Said {
    line: Vec<u8>,
    shown: usize,
}

impl Said {
    fn add(&mut self, text: &[u8], listener: &FetchListener) {
        for byte in text {
            match byte {
                b'\r' => self.line.clear(),
                b'\n' => {
                    let text = shown(&self.line);
                    self.line.clear();
                    if !text.is_empty() && self.shown < SHOWN_LINES {
                        self.shown += 1;
                        listener(FetchEvent::Remote(text));
                    }
                }
                byte if self.line.len() < 400 => self.line.push(*byte),
                _ => {}
            }
        }
    }
}

/// Writes and indexes a pack; gives the number of its objects.
fn index(
    url: &str,
    host: &str,
    packs: &Path,
    mut guard: PackGuard,
    mut pieces: mpsc::Receiver<Piece>,
    stop: &AtomicBool,
) -> Result<u64, GitError> {
    let disk = |source| GitError::Disk { source };
    let damaged = |source| GitError::Objects { url: url.to_owned(), source };
    std::fs::create_dir_all(packs).map_err(disk)?;
    let mut objects = 0;
    // Connectivity is not checked: a shallow commit's parents are missing on purpose. What is missing of the tree shows
    // when it is read. Every object's name is computed from its content here, with detection of SHA-1 collisions.
    let mut indexer = Indexer::new(None, packs, 0o600, false).map_err(damaged)?;
    indexer.progress(|progress| {
        objects = progress.total_objects() as u64;
        !stop.load(Ordering::Relaxed)
    });
    let stopped = |error: GitError| if stop.load(Ordering::Relaxed) { GitError::Cancelled } else { error };
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Data(data)) => {
                guard.look(&data).map_err(|fault| of_guard(host, fault))?;
                indexer.write_all(&data).map_err(|error| stopped(of_write(url, error)))?;
            }
            Some(Piece::End) => break,
            // The receiving side has failed, and says why itself.
            None => return Err(GitError::Cancelled),
        }
    }
    indexer.commit().map_err(|error| stopped(of_index(url, error)))?;
    Ok(objects)
}

fn of_guard(host: &str, fault: PackFault) -> GitError {
    match fault {
        PackFault::ObjectTooLarge(limit) => GitError::Limit { what: "bytes in one object", limit },
        PackFault::TooManyObjects(limit) => GitError::Limit { what: "objects", limit },
        PackFault::Damaged(what) => GitError::Protocol { host: host.to_owned(), what },
    }
}

fn of_write(url: &str, error: std::io::Error) -> GitError {
    match error.downcast::<git2::Error>() {
        Ok(error) => of_index(url, error),
        Err(source) => GitError::Disk { source },
    }
}

/// The indexer writes files, too: a full disk is not the server's fault.
fn of_index(url: &str, source: git2::Error) -> GitError {
    match source.class() {
        git2::ErrorClass::Os | git2::ErrorClass::Filesystem => {
            GitError::Disk { source: std::io::Error::other(source.message().to_owned()) }
        }
        _ => GitError::Objects { url: url.to_owned(), source },
    }
}
