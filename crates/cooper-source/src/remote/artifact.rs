//! An artifact of an OCI registry: its manifest, then its layers. A layer with a title is a file of that name, as `oras
//! push` makes them; one whose title is marked as packed, and one without a title that is a tar, is unpacked. Every
//! byte is checked against the digest that names it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_spec::source::ArtifactSource;
use cooper_types::Digest;
use serde::Deserialize;

use super::archive::spool;
use super::place::content;
use super::registry::{Access, Fetched, Registry};
use super::repack::{of_archive, repack};
use super::{RemoteError, RemoteRequest, RemoteSnapshot, Say, blocking};
use crate::egress::Egress;
use crate::git::CredentialSource;
use crate::pack::archive::{Archive, EntryHead};
use crate::unpack::unpack;

/// More layers than any artifact has that is meant.
const MAX_LAYERS: usize = 1024;
const NANOSECONDS: i64 = 1_000_000_000;
/// The annotation with a file's name.
const TITLE: &str = "org.opencontainers.image.title";
/// The annotation of a directory that was packed to be a layer.
const PACKED: &str = "io.deis.oras.content.unpack";

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// A layer that is part of the source.
struct Layer {
    digest: Digest,
    /// The file that it is; a tar to be unpacked otherwise.
    file: Option<String>,
}

/// Fetches an artifact. Dropping the future ends the work.
///
/// Registries on loopback names are asked over http, all others over https. `credentials` are asked by the registry's host.
pub async fn fetch_artifact(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    source: &ArtifactSource,
    request: RemoteRequest,
    say: Say<'_>,
) -> Result<RemoteSnapshot, RemoteError> {
    let what = format!("oci://{}", source.reference());
    say(format!("Fetching {what}"));
    let place = (source.registry(), &source.reference().repository);
    let registry = Registry::new(egress, credentials, place, Access::Pull, what.clone())?;
    let Fetched { bytes: manifest, digest: pinned, .. } = registry.manifest(source.reference()).await?;
    say(format!("{what} is {pinned}"));
    let layers = layers(&manifest, &what)?;
    let combined = request.scratch.join("artifact.tar");
    let mut left = request.received;
    let mut parts = Vec::new();
    for (index, layer) in layers.into_iter().enumerate() {
        let place = request.scratch.join(format!("layer-{index}"));
        let size = registry.blob(&layer.digest, &place, left).await?;
        left -= size;
        parts.push((layer, place, size));
    }
    let count = parts.len();
    say(format!("Received {} bytes in {count} layers", request.received - left));
    let subdirectory = source.subdirectory.as_ref().map(|path| path.as_str().to_owned());
    blocking(move |stop| {
        let disk = |source| RemoteError::Disk { source };
        let failed = |source| RemoteError::Unpack { what: what.clone(), source };
        combine(parts, &combined, &request, stop, &failed)?;
        let reader = BufReader::with_capacity(256 << 10, File::open(&combined).map_err(disk)?);
        // All names are judged here, also those in annotations.
        let tree = unpack(reader, spool(&request)?, &request.unpack, stop).map_err(failed)?;
        repack(&tree, &what, subdirectory.as_deref(), &request, Some(pinned), stop)
    })
    .await
}

fn layers(bytes: &[u8], what: &str) -> Result<Vec<Layer>, RemoteError> {
    let bad = |why: String| RemoteError::Artifact { what: what.to_owned(), why };
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| bad(format!("its manifest can't be read: {error}")))?;
    if !manifest.manifests.is_empty() {
        return Err(bad("it is an index of several manifests; name one of them by its digest".to_owned()));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(bad(format!("it has more than {MAX_LAYERS} layers")));
    }
    let mut layers = Vec::new();
    for layer in manifest.layers {
        let annotations = layer.annotations.unwrap_or_default();
        let is_packed = annotations.get(PACKED).is_some_and(|value| value == "true");
        let file = annotations.get(TITLE).filter(|_| !is_packed).cloned();
        // Others, such as signatures, are no files.
        if file.is_some() || is_packed || layer.media_type.contains("tar") {
            let digest = Digest::parse(&layer.digest)
                .map_err(|error| bad(format!("a layer's digest can't be read: {error}")))?;
            layers.push(Layer { digest, file });
        }
    }
    match layers.is_empty() {
        true => Err(bad("it has no files: no layer with a title, and none that is a tar archive".to_owned())),
        false => Ok(layers),
    }
}

/// Makes one archive of all layers; what a later one brings replaces what an earlier one brought.
fn combine(
    parts: Vec<(Layer, PathBuf, u64)>,
    combined: &std::path::Path,
    request: &RemoteRequest,
    stop: &std::sync::atomic::AtomicBool,
    failed: &dyn Fn(crate::UnpackError) -> RemoteError,
) -> Result<(), RemoteError> {
    let disk = |source| RemoteError::Disk { source };
    let output = BufWriter::with_capacity(256 << 10, File::create(combined).map_err(disk)?);
    let mut ignore = |_| {};
    let mut archive = Archive::new(output, &mut ignore);
    // All layers together may come to what one archive may.
    let mut limits = request.unpack.clone();
    for (layer, place, size) in parts {
        let mut bytes = File::open(&place).map_err(disk)?;
        match layer.file {
            Some(name) => {
                let head = EntryHead { mode: 0o644, mtime: 0 };
                archive.file(&name, head, size, &mut bytes).map_err(of_archive)?;
            }
            None => {
                let reader = BufReader::with_capacity(256 << 10, bytes);
                let tree = unpack(reader, spool(request)?, &limits, stop).map_err(failed)?;
                limits.entries = limits.entries.saturating_sub(tree.entries().len() as u64);
                limits.bytes = limits.bytes.saturating_sub(bytes_of(&tree));
                append(&mut archive, &tree)?;
            }
        }
        std::fs::remove_file(&place).map_err(disk)?;
    }
    let (mut output, _) = archive.finish().map_err(of_archive)?;
    output.flush().map_err(disk)
}

fn bytes_of(tree: &ContextTree) -> u64 {
    let size = |kind: &EntryKind| if let EntryKind::File { size, .. } = kind { *size } else { 0 };
    tree.entries().iter().map(|entry| size(&entry.kind)).sum()
}

fn append<W: Write>(archive: &mut Archive<'_, W>, tree: &ContextTree) -> Result<(), RemoteError> {
    for entry in tree.entries() {
        let head = EntryHead { mode: entry.mode, mtime: u64::try_from(entry.mtime_ns / NANOSECONDS).unwrap_or(0) };
        match &entry.kind {
            EntryKind::Directory => archive.directory(&entry.path, head),
            EntryKind::Symlink { target } => archive.symlink(&entry.path, head, target),
            EntryKind::File { offset, size } => {
                let mut content = content(tree, *offset, *size).map_err(|source| RemoteError::Disk { source })?;
                archive.file(&entry.path, head, *size, &mut content)
            }
        }
        .map_err(of_archive)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::unpack::{UnpackError, UnpackLimits};

    #[test]
    fn layers_together_come_to_no_more_than_one_archive_may() {
        let scratch = tempfile::tempdir().unwrap();
        let combined = scratch.path().join("combined");
        let mut request = RemoteRequest {
            dockerfile: None,
            files: Vec::new(),
            further: crate::FurtherFiles::default(),
            scratch: scratch.path().to_owned(),
            unpack: UnpackLimits { bytes: 10_000, ..UnpackLimits::default() },
            received: 1 << 20,
            named_file_len: 0,
        };
        let mut run = |layers: usize, entries: u64| {
            let parts = (0..layers).map(|index| {
                let place = scratch.path().join(index.to_string());
                let mut archive = tar::Builder::new(File::create(&place).unwrap());
                let mut header = tar::Header::new_gnu();
                header.set_size(3_000);
                header.set_mode(0o644);
                archive.append_data(&mut header, format!("f{index}"), [7; 3_000].as_slice()).unwrap();
                archive.finish().unwrap();
                (Layer { digest: Digest::sha256(b""), file: None }, place, 0)
            });
            request.unpack.entries = entries;
            let failed = |source| RemoteError::Unpack { what: "it".to_owned(), source };
            combine(parts.collect(), &combined, &request, &AtomicBool::new(false), &failed)
        };
        run(2, 2).unwrap();
        let too_large = run(3, 10).unwrap_err();
        assert!(matches!(too_large, RemoteError::Unpack { source: UnpackError::TooLarge { .. }, .. }), "{too_large:?}");
        let too_many = run(2, 1).unwrap_err();
        let told = matches!(too_many, RemoteError::Unpack { source: UnpackError::TooManyEntries { .. }, .. });
        assert!(told, "{too_many:?}");
    }
}
