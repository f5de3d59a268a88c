//! From an archive to a data directory.
//!
//! Everything is put together in a folder inside the target, which may so be a mounted disk, and moved to its place when
//! all of it is there and synced. While that folder exists no server takes the directory: its removal is what
//! makes the restore done.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use cooper_blobs::{FsBlobStore, blob_file};
use cooper_store::{DataLock, RESTORING, Snapshot, sync_directory};
use cooper_types::Digest;

use super::archive::{ArchiveReader, CopyError, read_error};
use super::{
    BackupReport, DATABASE, FORMAT, MANIFEST, MAX_SMALL_FILE, MAX_SMALL_FILES, Manifest, PAGE, RestoreError, blob_name,
    context_name, is_small_file,
};

/// The file that is locked, and may be there before.
const LOCK: &str = "lock";
/// What a disk of its own may have, whatever we do.
const LOST_AND_FOUND: &str = "lost+found";

/// Restores an archive to `data_dir`, which must be empty or absent. On an error nothing is left there.
pub async fn restore<R: Read>(archive: R, data_dir: &Path) -> Result<BackupReport, RestoreError> {
    let existed = data_dir.exists();
    if existed && !holds_at_most(data_dir, &[LOCK, RESTORING]).map_err(write_error(data_dir))? {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let lock = DataLock::take_any(data_dir)?;
    // Somebody may have been faster.
    if !holds_at_most(data_dir, &[LOCK, RESTORING]).map_err(write_error(data_dir))? {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let staging = data_dir.join(RESTORING);
    let restored = async {
        // What is left of an earlier try, before anything of it was moved.
        remove_all(&staging).map_err(write_error(&staging))?;
        create_dir(&staging)?;
        let report = unpack(ArchiveReader::new(archive), &staging).await?;
        publish(&staging, data_dir).map_err(write_error(data_dir))?;
        Ok(report)
    }
    .await;
    if restored.is_err() {
        // Whatever was moved already was made here: the directory had nothing else.
        for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
            if entry.file_name() != LOST_AND_FOUND {
                let _ = remove_all(&entry.path());
            }
        }
        if !existed {
            let _ = std::fs::remove_dir(data_dir);
        }
    }
    drop(lock);
    restored
}

async fn unpack<R: Read>(mut archive: ArchiveReader<R>, staging: &Path) -> Result<BackupReport, RestoreError> {
    let manifest = read_manifest(&mut archive)?;
    let mut report = BackupReport {
        version: manifest.version,
        newest_micros: manifest.newest,
        has_key: manifest.files.iter().any(|file| file.name == "key"),
        unfinished_runs: 0,
        contexts: 0,
        blobs: 0,
        bytes: 0,
    };
    for file in &manifest.files {
        let digest = Digest::parse(&file.digest).map_err(|error| RestoreError::Archive(error.to_string()))?;
        let path = staging.join(&file.name);
        if let Some(folder) = path.parent().filter(|folder| *folder != staging) {
            create_dir(folder)?;
        }
        receive(&mut archive, &file.name, &path, file.size, &digest, &mut report)?;
    }

    let database = staging.join(DATABASE);
    let mut snapshot = Snapshot::open(&database).await?;
    report.unfinished_runs = u64::try_from(snapshot.unfinished_runs().await?).unwrap_or(0);
    let contexts = staging.join("contexts");
    create_dir(&contexts)?;
    for context in snapshot.contexts().await? {
        let name = context_name(&context.key);
        receive(&mut archive, &name, &staging.join(&name), context.size, &context.digest, &mut report)?;
        report.contexts += 1;
    }
    // Makes its folders.
    FsBlobStore::open(staging).map_err(|error| write_error(staging)(io::Error::other(error)))?;
    let mut after = None;
    loop {
        let page = snapshot.blobs(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        for blob in page {
            let path = blob_file(staging, &blob.key);
            receive(&mut archive, &blob_name(&blob.key), &path, blob.size, &blob.digest, &mut report)?;
            report.blobs += 1;
        }
    }
    archive.finish()?;
    snapshot.skip_numbers().await?;
    snapshot.close().await?;
    sync_file(&database).map_err(write_error(&database))?;
    sync_folders(staging).map_err(write_error(staging))?;
    Ok(report)
}

fn read_manifest<R: Read>(archive: &mut ArchiveReader<R>) -> Result<Manifest, RestoreError> {
    let wrong = |what: String| RestoreError::Archive(what);
    let size = archive.expect(MANIFEST)?;
    if size > MAX_SMALL_FILE {
        return Err(wrong(format!("`{MANIFEST}` is larger than {MAX_SMALL_FILE} bytes")));
    }
    let bytes = archive.read(size).map_err(|error| read_error(error, MANIFEST))?;
    let form: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("`{MANIFEST}` is no JSON: {error}")))?;
    if form["format"] != FORMAT {
        return Err(wrong(format!(
            "its form is {} and this cooper reads {FORMAT}; use the cooper that made it",
            form["format"]
        )));
    }
    let manifest: Manifest =
        serde_json::from_value(form).map_err(|error| wrong(format!("`{MANIFEST}` is not understood: {error}")))?;
    let mut names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let Some((first, rest)) = manifest.files.split_first() else {
        return Err(wrong("it holds no database".to_owned()));
    };
    if first.name != DATABASE || rest.len() > MAX_SMALL_FILES {
        return Err(wrong(format!("`{MANIFEST}` does not begin with the database, or names too many files")));
    }
    if let Some(file) = rest.iter().find(|file| !is_small_file(&file.name) || file.size > MAX_SMALL_FILE) {
        let name: String = file.name.chars().take(100).collect();
        return Err(wrong(format!("`{MANIFEST}` names `{name}`, which no backup holds")));
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(wrong(format!("`{MANIFEST}` names a file twice")));
    }
    Ok(manifest)
}

/// Takes the next entry, which must be this one, into a file.
fn receive<R: Read>(
    archive: &mut ArchiveReader<R>,
    name: &str,
    path: &Path,
    size: u64,
    digest: &Digest,
    report: &mut BackupReport,
) -> Result<(), RestoreError> {
    let found = archive.expect(name)?;
    if found != size {
        return Err(RestoreError::Archive(format!("`{name}` has {found} bytes and not {size}")));
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write_error(path))?;
    let mut writer = BufWriter::new(&file);
    archive.copy(&mut writer, size, digest).map_err(|error| match error {
        CopyError::Read(error) => read_error(error, name),
        CopyError::Write(source) => write_error(path)(source),
        CopyError::Digest(found) => {
            RestoreError::Archive(format!("`{name}` is damaged: its content is {found} and not {digest}"))
        }
    })?;
    writer.flush().and_then(|()| file.sync_all()).map_err(write_error(path))?;
    report.bytes += size;
    Ok(())
}

/// Moves everything to its place, the database last. No server takes the directory before the folder is gone.
fn publish(staging: &Path, data_dir: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(staging)? {
        names.push(entry?.file_name());
    }
    names.sort_by_key(|name| name == DATABASE);
    for name in names {
        std::fs::rename(staging.join(&name), data_dir.join(&name))?;
    }
    sync_file(staging)?;
    sync_file(data_dir)?;
    std::fs::remove_dir(staging)?;
    sync_directory(data_dir)
}

/// Syncs a folder and all folders in it; the files are synced where they are written.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_file(folder)
}

fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn create_dir(path: &Path) -> Result<(), RestoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(write_error(path)(error)),
        _ => Ok(()),
    }
}

fn holds_at_most(folder: &Path, names: &[&str]) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !names.iter().chain(&[LOST_AND_FOUND]).any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a file or folder; that it is not there is fine.
fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    let path: PathBuf = path.to_owned();
    move |source| RestoreError::Write { path: path.clone(), source }
}
