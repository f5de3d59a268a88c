//! Packs a folder, or keeps what comes from the standard input, in a nameless temporary file, and sends that.

use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::time::Duration;

use cooper_client::Client;
use cooper_source::{PackError, PackOptions, PackReport, pack};
use cooper_types::ContextId;
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;

/// A packed context. Its file has no name, so nothing is left behind however we end.
#[derive(Debug)]
pub(crate) struct Packed {
    file: File,
    size: u64,
    /// The Dockerfile's path inside it.
    pub(crate) dockerfile: String,
}

/// Packs the folder; `live` shows how far it has come.
pub(crate) async fn pack_folder(options: PackOptions, live: bool) -> Result<Packed, Stop> {
    let bar = progress_bar(live, "{spinner} packing: {msg}");
    let shown = bar.clone();
    let work = tokio::task::spawn_blocking(move || pack_blocking(&options, &shown)).await;
    bar.finish_and_clear();
    let packed = work.map_err(|error| Fault::machinery(format!("packing stopped: {}", chain(&error))))??;
    let (packed, report) = packed;
    for path in &report.skipped {
        output::warning(&format!("`{path}` is a socket, which no context can hold: left out"));
    }
    Ok(packed)
}

/// Keeps the archive from the standard input, as it comes: the agent unpacks whatever compression it has. What is no
/// archive at all is refused here.
pub(crate) async fn keep_stdin(dockerfile: String, live: bool) -> Result<Packed, Stop> {
    let bar = progress_bar(live, "{spinner} reading: {msg}");
    let shown = bar.clone();
    let work = tokio::task::spawn_blocking(move || keep_blocking(std::io::stdin().lock(), dockerfile, &shown)).await;
    bar.finish_and_clear();
    Ok(work.map_err(|error| Fault::machinery(format!("reading stopped: {}", chain(&error))))??)
}

fn keep_blocking(mut input: impl Read, dockerfile: String, bar: &ProgressBar) -> Result<Packed, Fault> {
    let mut file = tempfile::tempfile().map_err(disk_fault)?;
    let (mut buffer, mut size) = (vec![0; 256 << 10], 0);
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Fault::usage(format!("the standard input can't be read: {error}"))),
        };
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(disk_fault)?;
        size += read as u64;
        bar.set_message(output::size(size));
    }
    if size == 0 {
        return Err(Fault::usage("the standard input is empty")
            .with_hint("pipe a tar archive into it: `tar -c . | cooper build -`"));
    }
    file.rewind().map_err(disk_fault)?;
    Ok(Packed { file, size, dockerfile })
}

fn disk_fault(error: std::io::Error) -> Fault {
    Fault::machinery(format!("the packed context can't be written to a temporary file: {error}"))
        .with_hint("free some space there, or name another folder with TMPDIR")
}

fn pack_blocking(options: &PackOptions, bar: &ProgressBar) -> Result<(Packed, PackReport), Fault> {
    let file = tempfile::tempfile().map_err(disk_fault)?;
    let mut report_progress = |progress: cooper_source::PackProgress| {
        bar.set_message(format!("{} files, {}", progress.files, output::size(progress.bytes)));
    };
    let report = pack(options, std::io::BufWriter::with_capacity(256 * 1024, &file), &mut report_progress)
        .map_err(|error| pack_fault(&error))?;
    let mut file = file;
    let size = file.metadata().map_err(disk_fault)?.len();
    file.rewind().map_err(disk_fault)?;
    Ok((Packed { file, size, dockerfile: report.dockerfile_name.clone() }, report))
}

fn pack_fault(error: &PackError) -> Fault {
    let exit = match error {
        PackError::Output { .. } => Exit::Machinery,
        _ => Exit::Usage,
    };
    Fault { exit, message: chain(error), hint: None }
}

/// Uploads the context; gives its id.
pub(crate) async fn upload_context(client: &Client, packed: Packed, live: bool) -> Result<ContextId, Stop> {
    let context = client.create_context().await?;
    output::note(&format!("Sending context ({}) to {}...", output::size(packed.size), client.server()));
    let bar = progress_bar(live, "{spinner} sending: {bytes} of {total_bytes} ({bytes_per_sec})");
    bar.set_length(packed.size);
    let shown = bar.clone();
    let progress = move |bytes| shown.set_position(bytes);
    let file = tokio::fs::File::from_std(packed.file);
    let uploaded = client.upload_context(&context, file, packed.size, progress).await;
    bar.finish_and_clear();
    Ok(uploaded?.context_id)
}

fn progress_bar(live: bool, template: &str) -> ProgressBar {
    if !live {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
