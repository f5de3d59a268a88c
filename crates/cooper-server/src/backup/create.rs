//! From a data directory to an archive.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cooper_blobs::blob_file;
use cooper_store::Snapshot;
use cooper_types::Digest;

use super::archive::{ArchiveWriter, CopyError, digest_of};
use super::{
    BackupError, BackupReport, DATABASE, FORMAT, MANIFEST, MAX_SMALL_FILE, MAX_SMALL_FILES, Manifest, ManifestFile,
    PAGE, SECRET_FILES, TLS_FOLDER, blob_name, context_name, is_small_file,
};

/// How often a snapshot is taken anew because a context went away before it was held.
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

/// A file that is open, so that it can't go away any more.
struct Held {
    name: String,
    path: PathBuf,
    file: File,
    size: u64,
    digest: Digest,
}

/// Writes a backup of the data directory to `out`, which the caller makes durable.
pub async fn backup<W: Write>(options: &BackupOptions, out: W) -> Result<(BackupReport, W), BackupError> {
    let data = &options.data_dir;
    let (mut snapshot, contexts) = hold(options).await?;
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
    for mut held in files.into_iter().chain(contexts) {
        write(&mut archive, mtime, &mut held, &mut report)?;
    }
    let mut after = None;
    loop {
        let page = snapshot.blobs(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for blob in page {
            let path = blob_file(data, &blob.key);
            let file = open(&path)?;
            let mut held = Held { name: blob_name(&blob.key), path, file, size: blob.size, digest: blob.digest };
            write(&mut archive, mtime, &mut held, &mut report)?;
            report.blobs += 1;
        }
    }
    snapshot.close().await?;
    let out = archive.finish().map_err(BackupError::Write)?;
    Ok((report, out))
}

/// Takes a snapshot, and holds the contexts that it refers to. One that went away after the snapshot was no longer needed
/// then: the next snapshot does not refer to it.
async fn hold(options: &BackupOptions) -> Result<(Snapshot, Vec<Held>), BackupError> {
    let database = options.scratch.join(DATABASE);
    let mut tries = 1;
    loop {
        let mut snapshot = Snapshot::take(&options.data_dir, &database).await?;
        match hold_contexts(&options.data_dir, &mut snapshot).await? {
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

/// The open contexts, or the path of one that is not there.
async fn hold_contexts(data: &Path, snapshot: &mut Snapshot) -> Result<Result<Vec<Held>, PathBuf>, BackupError> {
    let mut contexts = Vec::new();
    for context in snapshot.contexts().await? {
        let name = context_name(&context.key);
        let path = data.join(&name);
        match File::open(&path) {
            Ok(file) => contexts.push(Held { name, path, file, size: context.size, digest: context.digest }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(path)),
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

/// Opens a file and takes its digest.
fn held(name: String, path: PathBuf) -> Result<Held, BackupError> {
    let failed = |source| BackupError::Read { path: path.clone(), source };
    let mut file = open(&path)?;
    let (digest, size) = digest_of(&mut file).map_err(failed)?;
    io::Seek::rewind(&mut file).map_err(failed)?;
    Ok(Held { name, path, file, size, digest })
}

fn manifest_file(held: &Held) -> ManifestFile {
    ManifestFile { name: held.name.clone(), size: held.size, digest: held.digest.to_string() }
}

fn write<W: Write>(
    archive: &mut ArchiveWriter<W>,
    mtime: u64,
    held: &mut Held,
    report: &mut BackupReport,
) -> Result<(), BackupError> {
    let written = archive.entry(&held.name, mtime, held.size, &held.digest, &mut held.file);
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
