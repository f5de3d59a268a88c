//! From a data directory to an archive.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cooper_blobs::blob_file;
use cooper_store::{Snapshot, SnapshotError};
use cooper_types::Digest;

use super::archive::{ArchiveWriter, CopyError, digest_of};
use super::{
    BackupError, BackupReport, DATABASE, FORMAT, MANIFEST, MAX_SMALL_FILE, MAX_SMALL_FILES, Manifest, ManifestFile,
    PAGE, SECRET_FILES, TLS_FOLDER, blob_name, context_name, is_small_file,
};

/// How the folders for second names begin.
const LINKS: &str = ".backup-";
/// How often a snapshot is taken anew because a context went away before it was held, or a folder made anew.
const TRIES: u32 = 5;

/// What a backup must be told.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The data directory, which a server may be using.
    pub data_dir: PathBuf,
    /// A private folder for the copy of the database; as large as that.
    pub scratch: PathBuf,
    /// Whether the key, the administrator's token and the certificates are copied too.
    pub with_key: bool,
}

/// A file to copy.
struct Held {
    name: String,
    path: PathBuf,
    size: u64,
    digest: Digest,
}

/// A folder for files on their way. It goes with this value; if its process is killed, the next one in the same place
/// removes it.
#[derive(Debug)]
pub struct WorkFolder {
    folder: tempfile::TempDir,
    /// Says that somebody is at work here: who finds a folder that is not locked may remove it.
    _lock: File,
}

impl WorkFolder {
    /// Makes a folder in `place` whose name begins with `prefix`, and removes those that nobody works in any more.
    pub fn new(place: &Path, prefix: &str) -> io::Result<Self> {
        Self::after(place, prefix, |_| {})
    }

    /// The same, and tells of each folder that it is about to remove.
    pub fn after(place: &Path, prefix: &str, mut left: impl FnMut(&Path)) -> io::Result<Self> {
        for entry in std::fs::read_dir(place)?.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_folder || !entry.file_name().to_string_lossy().starts_with(prefix) {
                continue;
            }
            if let Ok(_lock) = lock(&entry.path()) {
                left(&entry.path());
                // What can't be removed is somebody else's.
                drop(std::fs::remove_dir_all(entry.path()));
            }
        }
        let mut tries = 1;
        loop {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(place)?;
            // Before it was locked, another one may have taken it for one that was left.
            match lock(folder.path()) {
                Ok(lock) if folder.path().exists() => return Ok(Self { folder, _lock: lock }),
                Err(error) if tries == TRIES => return Err(error),
                Ok(_) | Err(_) => tries += 1,
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it with everything in it.
    pub fn close(self) -> io::Result<()> {
        self.folder.close()
    }
}

/// Names of our own for the contexts, so that they can't go away while they wait for their turn. The folder is in the data
/// directory, where a second name costs nothing.
struct Links {
    folder: WorkFolder,
}

impl Links {
    fn new(data: &Path) -> io::Result<Self> {
        let links = Self { folder: WorkFolder::new(data, LINKS)? };
        for entry in std::fs::read_dir(data.join("contexts")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(".tar.gz") {
                links.link(&entry.path())?;
            }
        }
        Ok(links)
    }

    /// The path by which a file can be read from now on; `None` if it is gone.
    fn link(&self, file: &Path) -> io::Result<Option<PathBuf>> {
        let Some(name) = file.file_name() else { return Ok(None) };
        let link = self.folder.path().join(name);
        match std::fs::hard_link(file, &link) {
            Ok(()) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(link.exists().then_some(link)),
            // A file system without second names: the file is hoped to stay.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Some(file.to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// Whether somebody copies the data directory at this moment. One who begins later has no rows that are gone by now.
pub(crate) fn is_running(data: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(data) else { return true };
    let folders = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(LINKS));
    folders.map(|folder| folder.path()).any(|folder| match File::open(&folder) {
        // Its owner has it alone; with others it can be held as long as it has none.
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}

/// Locks a folder without waiting.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    file.try_lock()?;
    Ok(file)
}

/// Writes a backup of the data directory to `out`, which the caller makes durable.
pub async fn backup<W: Write>(options: &BackupOptions, out: W) -> Result<(BackupReport, W), BackupError> {
    let data = &options.data_dir;
    let read_data = |source| BackupError::Read { path: data.clone(), source };
    if !data.join(DATABASE).is_file() {
        return Err(SnapshotError::Absent(data.clone()).into());
    }
    let links = Links::new(data).map_err(read_data)?;
    let (mut snapshot, contexts) = hold(options, &links).await?;
    let mut report = BackupReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        newest_micros: snapshot.newest().await?.as_micros(),
        has_key: false,
        unfinished_runs: u64::try_from(snapshot.unfinished_runs().await?).unwrap_or(0),
        contexts: contexts.len() as u64,
        blobs: 0,
        bytes: 0,
    };
    let database = options.scratch.join(DATABASE);
    let mut files = vec![held(DATABASE.to_owned(), database.clone())?];
    if options.with_key {
        files.extend(small_files(data)?);
    }
    report.has_key = files.iter().any(|file| file.name == "key");

    let manifest = Manifest {
        format: FORMAT,
        version: report.version.clone(),
        schema: snapshot.schema().await?,
        newest: report.newest_micros,
        files: files.iter().map(manifest_file).collect(),
    };
    let manifest = serde_json::to_vec_pretty(&manifest).expect("numbers and texts are JSON");
    let mtime = u64::try_from(report.newest_micros / 1_000_000).unwrap_or(0);
    let mut archive = ArchiveWriter::new(out);
    let written = archive.entry(MANIFEST, mtime, manifest.len() as u64, &Digest::sha256(&manifest), &mut &manifest[..]);
    written.map_err(|error| backup_error(error, Path::new(MANIFEST)))?;
    for held in files.iter().chain(&contexts) {
        write(&mut archive, mtime, held, &mut report)?;
    }
    let mut after = None;
    loop {
        let page = snapshot.blobs(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for blob in page {
            let path = blob_file(data, &blob.key);
            let held = Held { name: blob_name(&blob.key), path, size: blob.size, digest: blob.digest };
            write(&mut archive, mtime, &held, &mut report)?;
            report.blobs += 1;
        }
    }
    snapshot.close().await?;
    let out = archive.finish().map_err(BackupError::Write)?;
    Ok((report, out))
}

/// Takes a snapshot, and holds the contexts that it refers to. One that came and went while it was taken is no longer
/// needed: the next snapshot does not refer to it.
async fn hold(options: &BackupOptions, links: &Links) -> Result<(Snapshot, Vec<Held>), BackupError> {
    let database = options.scratch.join(DATABASE);
    let mut tries = 1;
    loop {
        let mut snapshot = Snapshot::take(&options.data_dir, &database).await?;
        match hold_contexts(&options.data_dir, links, &mut snapshot).await? {
            Ok(contexts) => {
                // Closed, the file is whole; opened again, it is only read.
                snapshot.close().await?;
                return Ok((Snapshot::open(&database).await?, contexts));
            }
            Err(path) if tries == TRIES => return Err(BackupError::Gone(path)),
            Err(_) => tries += 1,
        }
        snapshot.close().await?;
        std::fs::remove_file(&database).map_err(BackupError::Write)?;
    }
}

/// The contexts, or the path of one that is not there.
async fn hold_contexts(
    data: &Path,
    links: &Links,
    snapshot: &mut Snapshot,
) -> Result<Result<Vec<Held>, PathBuf>, BackupError> {
    let mut contexts = Vec::new();
    for context in snapshot.contexts().await? {
        let name = context_name(&context.key);
        let path = data.join(&name);
        match links.link(&path) {
            Ok(Some(path)) => contexts.push(Held { name, path, size: context.size, digest: context.digest }),
            Ok(None) => return Ok(Err(path)),
            Err(source) => return Err(BackupError::Read { path, source }),
        }
    }
    Ok(Ok(contexts))
}

/// The key and its like, as far as they are there.
fn small_files(data: &Path) -> Result<Vec<Held>, BackupError> {
    let mut names: Vec<String> = SECRET_FILES.map(str::to_owned).into();
    let folder = data.join(TLS_FOLDER);
    match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(BackupError::Read { path: folder, source }),
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry.map_err(|source| BackupError::Read { path: folder.clone(), source })?;
                let name = format!("{TLS_FOLDER}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().is_ok_and(|kind| kind.is_file()) && is_small_file(&name) {
                    found.push(name);
                }
            }
            found.sort();
            names.extend(found);
        }
    }
    let mut files = Vec::new();
    for name in names {
        let path = data.join(&name);
        if !path.try_exists().map_err(|source| BackupError::Read { path: path.clone(), source })? {
            continue;
        }
        let file = held(name, path)?;
        if file.size > MAX_SMALL_FILE || files.len() == MAX_SMALL_FILES {
            let reason =
                format!("it is larger than {MAX_SMALL_FILE} bytes, or one of more than {MAX_SMALL_FILES} files");
            return Err(BackupError::Damaged { path: file.path, reason });
        }
        files.push(file);
    }
    Ok(files)
}

fn open(path: &Path) -> Result<File, BackupError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            BackupError::Damaged { path: path.to_owned(), reason: "it is in the database and not on disk".to_owned() }
        }
        _ => BackupError::Read { path: path.to_owned(), source },
    })
}

/// A file with the digest that it has now.
fn held(name: String, path: PathBuf) -> Result<Held, BackupError> {
    let failed = |source| BackupError::Read { path: path.clone(), source };
    let (digest, size) = digest_of(&mut open(&path)?).map_err(failed)?;
    Ok(Held { name, path, size, digest })
}

fn manifest_file(held: &Held) -> ManifestFile {
    ManifestFile { name: held.name.clone(), size: held.size, digest: held.digest.to_string() }
}

fn write<W: Write>(
    archive: &mut ArchiveWriter<W>,
    mtime: u64,
    held: &Held,
    report: &mut BackupReport,
) -> Result<(), BackupError> {
    let written = archive.entry(&held.name, mtime, held.size, &held.digest, &mut open(&held.path)?);
    written.map_err(|error| backup_error(error, &held.path))?;
    report.bytes += held.size;
    Ok(())
}

fn backup_error(error: CopyError, path: &Path) -> BackupError {
    let path = path.to_owned();
    match error {
        CopyError::Write(source) => BackupError::Write(source),
        CopyError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            BackupError::Damaged { path, reason: "it is shorter than its record says".to_owned() }
        }
        CopyError::Read(source) => BackupError::Read { path, source },
        CopyError::Digest(found) => BackupError::Damaged { path, reason: format!("its content is {found} by now") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_context_outlives_its_removal_and_a_killed_backup_its_folder_does_not() {
        let data = tempfile::tempdir().expect("temp dir");
        let contexts = data.path().join("contexts");
        std::fs::create_dir(&contexts).expect("folder");
        let (early, late) = (contexts.join("early.tar.gz"), contexts.join("late.tar.gz"));
        std::fs::write(&early, "early").expect("write");
        std::fs::create_dir(data.path().join(".backup-killed")).expect("folder");
        let links = Links::new(data.path()).expect("links");
        assert!(!data.path().join(".backup-killed").exists());
        std::fs::remove_file(&early).expect("removed");
        let path = links.link(&early).expect("linked").expect("there");
        assert_eq!(std::fs::read(path).expect("read"), b"early");
        // What came later is linked when it is needed; what came and went is gone.
        assert!(links.link(&late).expect("asked").is_none());
        std::fs::write(&late, "late").expect("write");
        assert!(links.link(&late).expect("linked").is_some());
        // A second backup leaves the first one alone.
        let second = Links::new(data.path()).expect("links");
        assert!(links.folder.path().exists());
        drop((links, second));
        let left: Vec<_> = std::fs::read_dir(data.path()).expect("read").flatten().map(|it| it.file_name()).collect();
        assert_eq!(left, ["contexts"]);
    }
}
