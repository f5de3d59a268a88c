//! The files service: sends the context's metadata, then the contents that the engine finds changed (fsutil's protocol).
//!
//! Stats go out in walk order and end with an empty one; the engine asks for contents by a stat's number; each file is
//! data packets and an empty one; when the engine is done it sends FIN and gets one back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use cooper_ports::context_tree::{ContextEntry, ContextTree, EntryKind};
use cooper_spec::ignore::IgnoreRules;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::{follow, ignore};

/// Bytes of a data packet: far below gRPC's limit of 4 MiB a message.
const CHUNK: usize = 128 * 1024;
/// Packets that wait for the connection: with the chunk's size, 2 MiB a transfer.
const QUEUE: usize = 16;

/// Go's `fs.FileMode` bits, which are not Unix's.
mod go_mode {
    pub(super) const DIRECTORY: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const STICKY: u32 = 1 << 20;
}

/// What went wrong on our side of a transfer; the engine's error would blame the user's build.
#[derive(Debug, Default)]
pub(super) struct ContextFault(Mutex<Option<std::io::Error>>);

impl ContextFault {
    pub(super) fn take(&self) -> Option<std::io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: std::io::Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Serves one context under the two names that a build asks for.
pub(super) struct ContextFiles {
    tree: ContextTree,
    /// What is served as the Dockerfile's directory, if not the context.
    dockerfile: Option<ContextTree>,
    fault: Arc<ContextFault>,
    /// The session's tasks, which end with it.
    tasks: TaskTracker,
}

/// What the engine asks of a transfer.
enum Ask {
    /// The contents of the entry with this stat number.
    Contents(u32),
    /// Nothing more.
    Finish,
}

impl ContextFiles {
    pub(super) fn new(
        tree: ContextTree,
        dockerfile: Option<ContextTree>,
        fault: Arc<ContextFault>,
        tasks: TaskTracker,
    ) -> Self {
        Self { tree, dockerfile, fault, tasks }
    }
}

#[tonic::async_trait]
impl FileSync for ContextFiles {
    type DiffCopyStream = ReceiverStream<Result<Packet, Status>>;
    type TarStreamStream = ReceiverStream<Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let directory = request.metadata().get("dir-name").and_then(|name| name.to_str().ok()).unwrap_or_default();
        let tree = match (directory, &self.dockerfile) {
            ("dockerfile", Some(tree)) => tree,
            ("context" | "dockerfile", _) => &self.tree,
            _ => return Err(Status::not_found("a build has the directories `context` and `dockerfile` only")),
        };
        let follow_paths = follow_paths(request.metadata());
        let excluded = patterns(request.metadata(), "exclude-patterns").unwrap_or_default();
        let rules = IgnoreRules::from_patterns(excluded.iter().map(String::as_str))
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        tracing::trace!(metadata = ?request.metadata(), "context asked for");
        let asked = request.into_inner();

        // Every entry can be asked for once, so the queue never blocks the reading of asks: were that to block, both
        // sides could wait for each other.
        let entries = tree.entries().len();
        let (ask, asks) = mpsc::channel(entries + 1);
        let (packets, answer) = mpsc::channel(QUEUE);
        let (tree, fault, sink) = (tree.clone(), Arc::clone(&self.fault), packets.clone());
        // One blocking thread a transfer: files are read one after the other, as the spool file lies on the disk, and many
        // rules over many entries take their time. It ends when the asks end or when nobody takes its packets any more.
        drop(self.tasks.spawn_blocking(move || {
            let Some(selected) = select(&tree, &follow_paths, &rules, &|| sink.is_closed()) else { return };
            Transfer { tree, selected, packets: sink, fault }.run(asks);
        }));
        // Ends with the stream of asks, which ends with the session's connection.
        drop(self.tasks.spawn(async move {
            if let Err(status) = relay(asked, ask, entries).await {
                tracing::debug!(%status, "transfer of a context ended early");
                let _ = packets.send(Err(status)).await;
            }
        }));
        Ok(Response::new(ReceiverStream::new(answer)))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("a context is sent by DiffCopy"))
    }
}

/// The entries that the engine wants and the rules leave, or nothing once `is_over`.
fn select(
    tree: &ContextTree,
    follow_paths: &[String],
    rules: &IgnoreRules,
    is_over: &dyn Fn() -> bool,
) -> Option<Vec<usize>> {
    let mut selected = follow::select(tree, follow_paths, is_over)?;
    if !rules.is_empty() {
        let kept = ignore::kept(tree, rules, is_over)?;
        selected.retain(|index| kept.get(*index).copied().unwrap_or(false));
    }
    Some(selected)
}

/// Checks what the engine asks and queues it.
async fn relay(mut asked: Streaming<Packet>, ask: mpsc::Sender<Ask>, entries: usize) -> Result<(), Status> {
    let mut seen = vec![false; entries];
    while let Some(packet) = asked.message().await? {
        let next = match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketReq) => match seen.get_mut(packet.id as usize) {
                Some(seen @ false) => {
                    *seen = true;
                    Ask::Contents(packet.id)
                }
                Some(true) | None => return Err(Status::invalid_argument("that file was not offered, or was sent")),
            },
            Ok(PacketType::PacketFin) => Ask::Finish,
            Ok(PacketType::PacketErr) => {
                return Err(Status::aborted(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            Ok(PacketType::PacketStat | PacketType::PacketData) | Err(_) => continue,
        };
        let finished = matches!(next, Ask::Finish);
        if ask.try_send(next).is_err() || finished {
            break;
        }
    }
    Ok(())
}

/// One transfer, on a blocking thread.
struct Transfer {
    tree: ContextTree,
    selected: Vec<usize>,
    packets: mpsc::Sender<Result<Packet, Status>>,
    fault: Arc<ContextFault>,
}

/// The engine does not take packets any more.
struct Gone;

impl Transfer {
    fn run(self, mut asks: mpsc::Receiver<Ask>) {
        let result = self.send_stats().and_then(|()| {
            while let Some(ask) = asks.blocking_recv() {
                match ask {
                    Ask::Contents(number) => self.send_contents(number)?,
                    Ask::Finish => return self.send(packet(PacketType::PacketFin)),
                }
            }
            Ok(())
        });
        if let Err(Gone) = result {
            tracing::trace!("nobody takes the context any more");
        }
    }

    fn send(&self, packet: Packet) -> Result<(), Gone> {
        self.packets.blocking_send(Ok(packet)).map_err(|_| Gone)
    }

    fn send_stats(&self) -> Result<(), Gone> {
        for entry in self.selected.iter().filter_map(|index| self.tree.entries().get(*index)) {
            self.send(Packet { stat: Some(stat(entry)), ..packet(PacketType::PacketStat) })?;
        }
        self.send(packet(PacketType::PacketStat))
    }

    fn send_contents(&self, number: u32) -> Result<(), Gone> {
        let entry = self.selected.get(number as usize).and_then(|index| self.tree.entries().get(*index));
        if let Some(ContextEntry { kind: EntryKind::File { offset, size }, path, .. }) = entry {
            let mut at = *offset;
            let end = offset.saturating_add(*size);
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                let data = match read(self.tree.contents(), at, length) {
                    Ok(data) => data,
                    Err(error) => {
                        tracing::warn!(%error, path, "build context cannot be read");
                        let _ = self.packets.blocking_send(Err(Status::internal("build context cannot be read")));
                        self.fault.set(error);
                        return Err(Gone);
                    }
                };
                at += length as u64;
                self.send(Packet { id: number, data, ..packet(PacketType::PacketData) })?;
            }
        }
        // What is no file has no contents: an empty one, should an engine ask.
        self.send(Packet { id: number, ..packet(PacketType::PacketData) })
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet { r#type: kind.into(), ..Packet::default() }
}

fn read(file: &File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

/// An entry as Go's fsutil describes it, owned by root whoever made it.
fn stat(entry: &ContextEntry) -> Stat {
    let mut mode = entry.mode & 0o777;
    for (unix, go) in [(0o4000, go_mode::SETUID), (0o2000, go_mode::SETGID), (0o1000, go_mode::STICKY)] {
        if entry.mode & unix != 0 {
            mode |= go;
        }
    }
    let mut stat = Stat { path: entry.path.clone(), mod_time: entry.mtime_ns, ..Stat::default() };
    match &entry.kind {
        EntryKind::Directory => mode |= go_mode::DIRECTORY,
        EntryKind::File { size, .. } => stat.size = i64::try_from(*size).unwrap_or(i64::MAX),
        EntryKind::Symlink { target } => {
            mode = go_mode::SYMLINK | 0o777;
            stat.linkname.clone_from(target);
        }
    }
    stat.mode = mode;
    stat
}

/// The paths that a build needs; what cannot be read stands for the whole context.
fn follow_paths(metadata: &MetadataMap) -> Vec<String> {
    patterns(metadata, "followpaths").unwrap_or_default()
}

/// A list of the engine's, if it can be read. Engines since 23 encode it where it is not plain ASCII.
fn patterns(metadata: &MetadataMap, key: &str) -> Option<Vec<String>> {
    let encoded = metadata.get(format!("{key}-encoded")).is_some_and(|value| value.as_bytes() == b"1");
    let decode = |value: &MetadataValue<Ascii>| {
        let text = String::from_utf8(value.as_bytes().to_vec()).ok()?;
        if !encoded {
            return Some(text);
        }
        let decoded = percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().ok()?.into_owned();
        Some(decoded)
    };
    metadata.get_all(key).iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        let stat_of = |kind, mode| stat(&ContextEntry { path: "x".into(), kind, mode, mtime_ns: 5 });
        let file = stat_of(EntryKind::File { offset: 9, size: 7 }, 0o4755);
        assert_eq!((file.mode, file.size, file.mod_time), (go_mode::SETUID | 0o755, 7, 5));
        assert_eq!(stat_of(EntryKind::Directory, 0o1777).mode, go_mode::DIRECTORY | go_mode::STICKY | 0o777);
        let link = stat_of(EntryKind::Symlink { target: "../y".into() }, 0);
        assert_eq!((link.mode, link.linkname.as_str()), (go_mode::SYMLINK | 0o777, "../y"));
    }

    #[test]
    fn follow_paths_are_decoded_or_stand_for_everything() {
        let mut metadata = MetadataMap::new();
        metadata.append("followpaths", "a%20b+c".parse().expect("ASCII"));
        assert_eq!(follow_paths(&metadata), ["a%20b+c"]);
        metadata.insert("followpaths-encoded", "1".parse().expect("ASCII"));
        assert_eq!(follow_paths(&metadata), ["a b c"]);
        metadata.append("followpaths", "%ff".parse().expect("ASCII"));
        assert!(follow_paths(&metadata).is_empty());
    }
}
