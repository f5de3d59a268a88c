//! The file store's promises: order of syncs, resumption, exact bytes, and space given back.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Mutex;

use cooper_types::{DigestAlgorithm, Hasher};
use futures::stream;

use super::*;

/// Writes down what is done to the disk, and fails what a test asks it to fail.
#[derive(Clone, Default)]
struct RecordingDisk(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    operations: Vec<String>,
    failures: VecDeque<(&'static str, io::ErrorKind)>,
}

impl RecordingDisk {
    fn note(&self, operation: &'static str, path: Option<&Path>) -> io::Result<()> {
        let mut recorded = self.0.lock().unwrap();
        let name = path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        recorded.operations.push(format!("{operation} {}", name.unwrap_or_default()).trim().to_owned());
        match recorded.failures.front() {
            Some((failing, kind)) if *failing == operation => {
                let kind = *kind;
                recorded.failures.pop_front();
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    fn fail(&self, operation: &'static str, kind: io::ErrorKind) {
        self.0.lock().unwrap().failures.push_back((operation, kind));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().operations)
    }
}

impl Disk for RecordingDisk {
    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.note("write", None)?;
        LocalDisk.write_all(file, bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.note("sync file", None)?;
        LocalDisk.sync_file(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note("rename to", Some(to))?;
        LocalDisk.rename(from, to)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.note("sync directory", Some(directory))?;
        LocalDisk.sync_dir(directory)
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    disk: RecordingDisk,
    store: FsBlobStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = RecordingDisk::default();
        let store = FsBlobStore::open_on(directory.path(), Box::new(disk.clone())).unwrap();
        disk.take();
        Self { directory, disk, store }
    }

    /// Forgets all that is in memory, as a restart does.
    fn restart(&mut self) {
        self.store = FsBlobStore::open_on(self.directory.path(), Box::new(self.disk.clone())).unwrap();
        self.disk.take();
    }

    async fn begin(&self, id: u128) -> UploadId {
        let id = UploadId::from_bits(id);
        self.store.begin_upload(id).await.unwrap();
        id
    }

    async fn append(&self, id: UploadId, content: &[u8]) -> Result<u64, UploadError> {
        self.store.append(id, AppendAt::default(), bytes(content)).await
    }

    async fn blob(&self, id: u128, content: &[u8]) -> Digest {
        let id = self.begin(id).await;
        self.append(id, content).await.unwrap();
        let digest = Digest::sha256(content);
        assert_eq!(self.store.commit(id, &digest).await.unwrap(), content.len() as u64);
        digest
    }

    fn uploads(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("uploads")).unwrap().count()
    }
}

fn bytes(content: &[u8]) -> IncomingBytes {
    stream::iter([Ok(Bytes::copy_from_slice(content))]).boxed()
}

async fn content(store: &FsBlobStore, digest: &Digest, range: Range<u64>) -> Vec<u8> {
    let mut chunks = store.read(digest, range).await.unwrap();
    let mut content = Vec::new();
    while let Some(chunk) = chunks.next().await {
        content.extend_from_slice(&chunk.unwrap());
    }
    content
}

#[tokio::test]
async fn a_blob_is_synced_before_it_is_answered() {
    let fixture = Fixture::new();
    let digest = fixture.blob(1, b"hello").await;
    let (hex, shard) = (digest.hex(), &digest.hex()[..2]);
    let expect = ["write", "sync file", &format!("rename to {hex}"), &format!("sync directory {shard}")];
    assert_eq!(fixture.disk.take(), expect);
    assert_eq!(fixture.uploads(), 0);

    fixture.blob(2, b"hello").await;
    assert_eq!(fixture.disk.take(), ["write", &format!("sync directory {shard}")], "an existing blob is made sure of");
    assert_eq!(fixture.uploads(), 0);
    assert_eq!(content(&fixture.store, &digest, 0..5).await, b"hello");
}

#[tokio::test]
async fn nothing_is_answered_when_a_sync_fails() {
    for operation in ["sync file", "rename to", "sync directory"] {
        let fixture = Fixture::new();
        let id = fixture.begin(1).await;
        fixture.append(id, b"hello").await.unwrap();
        fixture.disk.fail(operation, io::ErrorKind::Other);
        let refused = fixture.store.commit(id, &Digest::sha256(b"hello")).await;
        assert!(matches!(refused, Err(UploadError::Io { operation: "commit", .. })), "{operation}: {refused:?}");
        assert_eq!(fixture.uploads(), 0, "bytes that were not synced are not trusted again");
        fixture.blob(2, b"hello").await;
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_upload_and_frees_its_space() {
    let fixture = Fixture::new();
    for operation in ["write", "sync file"] {
        let id = fixture.begin(1).await;
        fixture.append(id, b"some").await.unwrap();
        fixture.disk.fail(operation, io::ErrorKind::StorageFull);
        let refused = match operation {
            "write" => fixture.append(id, b"more").await,
            _ => fixture.store.commit(id, &Digest::sha256(b"some")).await,
        };
        assert!(matches!(refused, Err(UploadError::StorageFull(full)) if full == id), "{refused:?}");
        assert_eq!(fixture.uploads(), 0);
        assert!(matches!(fixture.store.upload_size(id).await, Err(UploadError::Unknown(_))));
    }
    fixture.blob(2, b"there is space again").await;
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let mut fixture = Fixture::new();
    let id = fixture.begin(1).await;
    assert_eq!(fixture.append(id, b"hel").await.unwrap(), 3);
    fixture.restart();
    assert_eq!(fixture.store.upload_size(id).await.unwrap(), 3);
    assert_eq!(fixture.append(id, b"lo").await.unwrap(), 5);
    fixture.restart();
    assert_eq!(fixture.store.commit(id, &Digest::sha256(b"hello")).await.unwrap(), 5);
}

#[tokio::test]
async fn uploads_that_are_long_over_are_removed_at_the_start() {
    let mut fixture = Fixture::new();
    let (old, new) = (fixture.begin(1).await, fixture.begin(2).await);
    let uploads = fixture.directory.path().join("uploads");
    std::fs::write(uploads.join("not-ours"), "x").unwrap();
    for (name, hours) in [(old.to_string(), 49), (new.to_string(), 47), ("not-ours".to_owned(), 1000)] {
        let file = File::options().write(true).open(uploads.join(name)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - std::time::Duration::from_secs(hours * 3600)).unwrap();
    }
    fixture.restart();
    assert!(matches!(fixture.store.upload_size(old).await, Err(UploadError::Unknown(_))));
    assert_eq!(fixture.store.upload_size(new).await.unwrap(), 0);
    assert_eq!(fixture.uploads(), 2);
}

#[tokio::test]
async fn bytes_out_of_order_change_nothing() {
    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    fixture.append(id, b"hel").await.unwrap();
    let at = |offset, length| AppendAt { offset: Some(offset), length };
    for offset in [0, 2, 4] {
        let refused = fixture.store.append(id, at(offset, None), bytes(b"xx")).await;
        assert!(matches!(refused, Err(UploadError::OutOfOrder { size: 3, .. })), "{refused:?}");
    }
    for announced in [0, 1, 3] {
        let refused = fixture.store.append(id, at(3, Some(announced)), bytes(b"xx")).await;
        assert!(matches!(refused, Err(UploadError::WrongLength { .. })), "{refused:?}");
        assert_eq!(fixture.store.upload_size(id).await.unwrap(), 3);
    }
    fixture.store.append(id, at(3, Some(2)), bytes(b"lo")).await.unwrap();
    fixture.store.commit(id, &Digest::sha256(b"hello")).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_append_keeps_what_came() {
    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    let broken = stream::iter([Ok(Bytes::from_static(b"hel")), Err("connection reset".into())]).boxed();
    let interrupted = fixture.store.append(id, AppendAt::default(), broken).await;
    assert!(matches!(interrupted, Err(UploadError::Interrupted { .. })));
    assert_eq!(fixture.append(id, b"lo").await.unwrap(), 5);
    fixture.store.commit(id, &Digest::sha256(b"hello")).await.unwrap();
}

#[tokio::test]
async fn tiny_chunks_take_little_memory_and_all_count() {
    let count = 2 * BATCH_CHUNKS + 1;
    let sent = stream::iter((0..3 * count).map(|n| Ok(Bytes::from_static(if n % 3 == 0 { b"x" } else { b"" }))));
    let mut rest = sent.clone().boxed();
    let batch = Batch::gather(&mut rest).await;
    assert_eq!((batch.chunks.len(), batch.size, batch.end), (BATCH_CHUNKS, BATCH_CHUNKS, false));

    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    let size = fixture.store.append(id, AppendAt::default(), sent.boxed()).await.unwrap();
    assert_eq!(size, count as u64);
    fixture.store.commit(id, &Digest::sha256(&vec![b'x'; count])).await.unwrap();
}

#[tokio::test]
async fn an_abandoned_append_lets_go_of_the_upload() {
    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    let head = stream::iter([Ok(Bytes::from(vec![7; BATCH]))]);
    let silent = head.chain(stream::pending()).boxed();
    let mut append = fixture.store.append(id, AppendAt::default(), silent);
    assert!(matches!(futures::poll!(&mut append), std::task::Poll::Pending));
    let busy = fixture.append(id, b"x").await;
    assert!(matches!(busy, Err(UploadError::Busy(_))), "{busy:?}");
    drop(append);
    // The thread that has the file may still be at work; it lets go by itself.
    let size = loop {
        match fixture.store.upload_size(id).await {
            Ok(size) => break size,
            Err(UploadError::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(size == 0 || size == BATCH as u64, "{size}");
}

#[tokio::test]
async fn other_bytes_than_promised_end_the_upload() {
    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    fixture.append(id, b"hello").await.unwrap();
    let refused = fixture.store.commit(id, &Digest::sha256(b"other")).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch { actual, .. }) if actual == Digest::sha256(b"hello")));
    assert_eq!(fixture.uploads(), 0);
    assert_eq!(fixture.store.size(&Digest::sha256(b"other")).await.unwrap(), None);
    assert_eq!(fixture.store.size(&Digest::sha256(b"hello")).await.unwrap(), None);
}

#[tokio::test]
async fn large_and_empty_blobs_and_both_algorithms() {
    let fixture = Fixture::new();
    let large: Vec<u8> = (0..3 * BATCH + 17).map(|i| (i % 251) as u8).collect();
    for (id, content_bytes) in [(1, large.as_slice()), (2, b"".as_slice())] {
        let id = fixture.begin(id).await;
        let chunks: Vec<_> = content_bytes.chunks(70_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        fixture.store.append(id, AppendAt::default(), stream::iter(chunks).boxed()).await.unwrap();
        let mut hasher = Hasher::new(DigestAlgorithm::Sha512);
        hasher.update(content_bytes);
        let digest = hasher.finish();
        fixture.store.commit(id, &digest).await.unwrap();
        let size = content_bytes.len() as u64;
        assert_eq!(fixture.store.size(&digest).await.unwrap(), Some(size));
        assert_eq!(content(&fixture.store, &digest, 0..size).await, content_bytes);
    }
    let digest = fixture.blob(3, &large).await;
    assert_eq!(content(&fixture.store, &digest, 70_000..2_000_000).await, &large[70_000..2_000_000]);
    let beyond = fixture.store.read(&digest, 0..u64::MAX).await;
    assert!(matches!(beyond, Err(BlobReadError::Truncated(_))));
}

#[tokio::test]
async fn discarding_is_idempotent_and_unknown_uploads_leave_no_trace() {
    let fixture = Fixture::new();
    let id = fixture.begin(1).await;
    fixture.store.discard(id).await.unwrap();
    fixture.store.discard(id).await.unwrap();
    assert_eq!(fixture.uploads(), 0);
    for bits in 10..20 {
        let unknown = fixture.append(UploadId::from_bits(bits), b"x").await;
        assert!(matches!(unknown, Err(UploadError::Unknown(_))));
    }
    assert_eq!(fixture.store.0.sessions.count(), 0);
    assert_eq!(fixture.uploads(), 0);
}
