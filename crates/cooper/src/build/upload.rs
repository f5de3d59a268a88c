//! Packs a folder into a nameless temporary file, and sends that.

use std::fs::File;
use std::io::Seek as _;
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
    pub(crate) report: PackReport,
}

/// Packs the folder; `live` shows how far it has come.
pub(crate) async fn pack_folder(options: PackOptions, live: bool) -> Result<Packed, Stop> {
    let bar = progress_bar(live, "{spinner} packing: {msg}");
    let shown = bar.clone();
    let work = tokio::task::spawn_blocking(move || pack_blocking(&options, &shown)).await;
    bar.finish_and_clear();
    let packed = work.map_err(|error| Fault::machinery(format!("packing stopped: {}", chain(&error))))??;
    for path in &packed.report.skipped {
        output::warning(&format!("`{path}` is a socket, which no context can hold: left out"));
    }
    Ok(packed)
}

fn pack_blocking(options: &PackOptions, bar: &ProgressBar) -> Result<Packed, Fault> {
    let fault = |error: std::io::Error| {
        Fault::machinery(format!("the packed context can't be written to a temporary file: {error}"))
            .with_hint("free some space there, or name another folder with TMPDIR")
    };
    let file = tempfile::tempfile().map_err(fault)?;
    let mut report_progress = |progress: cooper_source::PackProgress| {
        bar.set_message(format!("{} files, {}", progress.files, output::size(progress.bytes)));
    };
    let report = pack(options, std::io::BufWriter::with_capacity(256 * 1024, &file), &mut report_progress)
        .map_err(|error| pack_fault(&error))?;
    let mut file = file;
    let size = file.metadata().map_err(fault)?.len();
    file.rewind().map_err(fault)?;
    Ok(Packed { file, size, report })
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
