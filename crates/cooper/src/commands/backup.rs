//! `cooper backup`: a data directory into one file.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use cooper_server::{BackupError, BackupOptions, BackupReport, WorkFolder};

use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;
use crate::settings::{self, Flags, Key};

/// What it is good for.
pub(crate) const BACKUP_HELP: &str = "\
Run it on the server's machine as the server's user; the server goes on. The backup is one moment:
database with logs, images, contexts of unfinished runs, key, first token and certificates, as an
uncompressed tar. It opens every secret of the server: keep it as you keep those. Without the key
(--without-key) runs that wait with secrets fail after a restore.";

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// The new file; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Leave out the server's key, its first token and its certificates
    #[arg(long)]
    without_key: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// Which data directory is meant: the one that `cooper serve` would have.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// The server's data folder [default: as for `cooper serve`]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// The server's configuration file [default: as for `cooper serve`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataArgs {
    /// What the flags say.
    pub(crate) fn flags(&self) -> Flags {
        self.data_dir.iter().map(|text| (Key::DataDir, text.clone())).collect()
    }

    /// The configuration file that is named.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The folder.
    pub(crate) fn resolve(&self, environment: &Environment) -> Result<PathBuf, Stop> {
        let settings = settings::resolve(&self.flags(), self.config(), environment).map_err(Stop::Faults)?;
        Ok(settings.server.data_dir)
    }
}

pub(crate) async fn run(args: &BackupArgs, environment: &Environment) -> Result<Exit, Stop> {
    let data_dir = args.data.resolve(environment)?;
    let report = match args.output.as_os_str() == "-" {
        true => to_stdout(data_dir, !args.without_key).await?,
        false => to_file(data_dir, !args.without_key, &args.output).await?,
    };
    output::note(&format!("Backed up {}.", summary(&report)));
    if report.has_key {
        output::warning("the backup holds the server's key and token: whoever reads it can do what the server can");
    } else {
        output::warning("the backup is without the server's key: keep that elsewhere, or stored secrets are lost");
    }
    Ok(Exit::Success)
}

/// What a backup holds, in a line.
pub(crate) fn summary(report: &BackupReport) -> String {
    let BackupReport { blobs, contexts, unfinished_runs, bytes, .. } = report;
    let size = output::size(*bytes);
    format!("{size}: database, {blobs} blobs, {unfinished_runs} unfinished runs with {contexts} contexts")
}

async fn to_stdout(data_dir: PathBuf, with_key: bool) -> Result<BackupReport, Stop> {
    let scratch = tempfile::Builder::new().prefix("cooper-backup-").tempdir().map_err(|error| {
        Fault::machinery(format!("there is no place for a copy of the database: {error}"))
            .with_hint("name a folder with TMPDIR")
    })?;
    let options = BackupOptions { data_dir, scratch: scratch.path().to_owned(), with_key };
    let out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let (report, mut out) = cooper_server::backup(&options, out).await.map_err(fault)?;
    out.flush().map_err(|error| Stop::from(fault(BackupError::Write(error))))?;
    Ok(report)
}

async fn to_file(data_dir: PathBuf, with_key: bool, path: &Path) -> Result<BackupReport, Stop> {
    let unwritable = |error: io::Error| Fault::usage(format!("backup {} can't be written: {error}", path.display()));
    let exists = || Fault::usage(format!("backup {} is there already", path.display())).with_hint("name a new file");
    if path.symlink_metadata().is_ok() {
        return Err(exists().into());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Beside the backup: where that fits, the copy of the database does, and the last step is a rename.
    let scratch = WorkFolder::new(folder, ".cooper-backup-").map_err(unwritable)?;
    let file = tempfile::NamedTempFile::new_in(scratch.path()).map_err(unwritable)?;
    let options = BackupOptions { data_dir, scratch: scratch.path().to_owned(), with_key };
    let out = BufWriter::with_capacity(256 * 1024, file);
    let (report, out) = cooper_server::backup(&options, out).await.map_err(fault)?;
    let file = out.into_inner().map_err(|error| unwritable(error.into_error()))?;
    file.as_file().sync_all().map_err(unwritable)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => exists(),
        _ => unwritable(error.error),
    })?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(report)
}

fn fault(error: BackupError) -> Fault {
    let message = chain(&error);
    match error {
        BackupError::Database(cooper_server::SnapshotError::Absent(_)) => Fault::usage(message),
        BackupError::Damaged { .. } => Fault::machinery(message)
            .with_hint("an image that needs it can't be pulled either: push it again, or restore an older backup"),
        _ => Fault::machinery(message),
    }
}
