//! The server's data directory on this machine.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::check::Check;
use super::machine;
use crate::fault::chain;
use crate::output;

/// A disk that takes longer to make a small file durable makes each accepted run and push as slow.
const SLOW_SYNC: Duration = Duration::from_millis(100);
/// How often a slow disk is asked.
const SYNCS: usize = 5;

/// Looks at the data directory. `has_key`: the environment holds the server's key.
pub(super) async fn look(folder: &Path, has_key: bool, checks: &mut Vec<Check>) {
    let shown = folder.display();
    let metadata = match folder.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seen = format!("{shown} is not there: no server has started with it on this machine");
            return checks.push(Check::skipped("data", seen));
        }
        Err(error) => {
            let remedy = "run this as the server's user, or name the right folder with --data-dir";
            return checks.push(Check::failed("data", format!("{shown} can't be read: {error}"), remedy));
        }
    };
    checks.push(data(folder, &metadata));
    checks.push(secrets(folder, has_key));
    checks.push(database(folder).await);
    checks.push(machine::space("data-disk", folder));
    checks.push(sync(folder));
}

/// The folder itself, and who has it.
fn data(folder: &Path, metadata: &Metadata) -> Check {
    let shown = folder.display();
    if folder.join(cooper_server::RESTORING).exists() {
        let remedy = format!("empty {shown} and restore the backup again");
        return Check::failed("data", format!("{shown} holds a restore that was broken off"), remedy);
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let seen = format!("{shown} is open to other users (mode {mode:o})");
        return Check::warning("data", seen, format!("chmod 700 {shown}"));
    }
    let holder = match holder(&folder.join("lock")) {
        Some(pid) => format!("in use by process {pid}"),
        None => "in use by no server".to_owned(),
    };
    Check::ok("data", format!("{shown}, {holder}"))
}

/// The process that has locked a file, as the system lists them: to try the lock would be to take it.
fn holder(lock: &Path) -> Option<String> {
    let inode = lock.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234567 0 EOF`
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, pid, file) = (words.get(1)?, words.get(4)?, words.get(5)?);
        let is_it = *kind == "FLOCK" && file.rsplit(':').next() == Some(&inode);
        is_it.then(|| (*pid).to_owned())
    })
}

/// Key, token and the like: there, and for nobody else.
fn secrets(folder: &Path, has_key: bool) -> Check {
    let key = folder.join("key");
    let mut files: Vec<PathBuf> = vec![key.clone(), folder.join("admin-token")];
    let certificates = std::fs::read_dir(folder.join("tls")).into_iter().flatten().flatten().map(|entry| entry.path());
    files.extend(
        certificates.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("key"))),
    );
    for path in &files {
        let shown = path.display();
        let mode = match path.metadata() {
            Ok(metadata) => metadata.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Check::failed(
                    "secrets",
                    format!("{shown} can't be read: {error}"),
                    "run this as the server's user",
                );
            }
        };
        if mode & 0o077 != 0 {
            let seen = format!("{shown} may be read by others (mode {mode:o})");
            let remedy =
                format!("chmod 600 {shown}; if others have been on this machine, revoke what they may have read");
            return Check::failed("secrets", seen, remedy);
        }
    }
    let mut text = String::new();
    match File::open(&key).and_then(|file| file.take(1024).read_to_string(&mut text)) {
        Ok(_) if text.trim().len() == 64 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Check::ok("secrets", "key and token are for the server's user alone")
        }
        Ok(_) => Check::failed("secrets", format!("{} holds no key", key.display()), "restore it from a backup"),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_key => {
            Check::ok("secrets", "the key is in the environment, the token for the server's user alone")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.join("cooper.db").exists() {
            true => Check::failed(
                "secrets",
                format!("{} is not there, and a new one opens none of the stored secrets", key.display()),
                "restore it from a backup, or set COOPER_SECRET_KEY if the server has its key from there",
            ),
            false => Check::skipped("secrets", "no server has started with this folder yet"),
        },
        Err(error) => {
            let seen = format!("{} can't be read: {error}", key.display());
            Check::failed("secrets", seen, "run this as the server's user")
        }
    }
}

async fn database(folder: &Path) -> Check {
    match cooper_server::schema(folder).await {
        Ok(schema) => Check::ok("database", format!("schema {schema}, which this cooper knows")),
        Err(cooper_server::SnapshotError::Absent(_)) => Check::skipped("database", "there is none yet"),
        Err(error) => Check::failed(
            "database",
            chain(&error),
            "use the newest cooper that served this folder; where the file itself is damaged, restore a backup",
        ),
    }
}

/// Writes a small file as the server does, and takes it away again: a few times where it is slow, for others may be busy on
/// the disk for a moment.
fn sync(folder: &Path) -> Check {
    let once = || {
        let start = Instant::now();
        let mut file = tempfile::NamedTempFile::with_prefix_in(".doctor-", folder)?;
        file.write_all(&[7; 4096])?;
        file.as_file().sync_all()?;
        file.close()?;
        Ok::<_, io::Error>(start.elapsed())
    };
    let mut written = once();
    for _ in 1..SYNCS {
        match written {
            Ok(took) if took > SLOW_SYNC => written = once().map(|again| again.min(took)),
            _ => break,
        }
    }
    match written {
        Ok(took) if took > SLOW_SYNC => Check::warning(
            "durable-writes",
            format!("a small file took {}", output::duration(took)),
            "put the data folder on a faster disk: each accepted run and each push waits as long",
        ),
        Ok(took) => Check::ok("durable-writes", format!("a small file took {} ms", took.as_millis())),
        Err(error) => {
            let seen = format!("a file in {} can't be written: {error}", folder.display());
            Check::failed("durable-writes", seen, "free some space there, or give the server's user the right to write")
        }
    }
}
