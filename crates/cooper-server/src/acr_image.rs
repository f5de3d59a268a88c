//! The image that stands for ACR's client in `cmd` steps: this very program, with the libraries that it is linked with.
//!
//! It is made when a step first wants it, kept in the embedded registry under the program's digest, and needs no network. A
//! program that is linked statically has no libraries, and then the image holds nothing else.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cooper_registry::{OwnImage, OwnImageError, RegistryService};
use cooper_types::{Digest, DigestAlgorithm, Hasher, Tag};
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::problem::chain;

/// This program, also where its file was replaced by a newer one's.
const PROGRAM: &str = "/proc/self/exe";
/// Where it is in the image.
const IN_IMAGE: &str = "cooper";
/// Whom it runs as there: nobody.
const USER: &str = "65534:65534";
/// How long whoever wants it waits for it: agents' reports ask again.
const PATIENCE: Duration = Duration::from_secs(2);
/// After which time it is tried again to make it.
const RETRY: Duration = Duration::from_secs(30);
/// How much is read at once.
const CHUNK: usize = 256 << 10;
/// How many digits of the program's digest are its image's tag.
const TAG_DIGITS: usize = 32;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcrImageError {
    /// The server is none that has one, as in tests.
    #[error("this server has no program to make it of")]
    Absent,
    /// It takes a while to make it.
    #[error("it is being made")]
    Making,
    /// It could not be made, a moment ago.
    #[error("it could not be made; the server's log says why")]
    Failed,
    /// The program or its libraries can't be read.
    #[error("failed to read this program and its libraries")]
    Program(#[source] io::Error),
    /// The registry does not take it.
    #[error("failed to put it into the registry")]
    Registry(#[from] OwnImageError),
}

/// Makes the image once, beside whoever wants it.
pub(crate) struct AcrImage(Arc<Inner>);

struct Inner {
    registry: RegistryService,
    /// For a file of its size, for a moment.
    scratch: PathBuf,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Absent,
    Making,
    Made(Digest),
    /// Until when it is not tried again.
    Failed(Instant),
}

impl AcrImage {
    pub(crate) fn new(registry: RegistryService, scratch: PathBuf) -> Self {
        Self(Arc::new(Inner { registry, scratch, state: watch::Sender::new(State::Absent) }))
    }

    /// The image's digest. It is waited for, but not for long: others have to be answered, too.
    pub(crate) async fn digest(&self) -> Result<Digest, AcrImageError> {
        let mut states = self.0.state.subscribe();
        let begins = self.0.state.send_if_modified(|state| {
            let begins = match state {
                State::Absent => true,
                State::Failed(until) => *until <= Instant::now(),
                State::Making | State::Made(_) => false,
            };
            if begins {
                *state = State::Making;
            }
            begins
        });
        if begins {
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move {
                let state = match inner.find_or_make().await {
                    Ok(digest) => State::Made(digest),
                    Err(error) => {
                        tracing::error!(error = chain(&error), "the image of `acr` can't be made");
                        State::Failed(Instant::now() + RETRY)
                    }
                };
                inner.state.send_replace(state);
            });
        }
        let settled = states.wait_for(|state| !matches!(state, State::Making));
        match tokio::time::timeout(PATIENCE, settled).await {
            Err(_) => Err(AcrImageError::Making),
            Ok(Ok(state)) => match &*state {
                State::Made(digest) => Ok(digest.clone()),
                State::Absent | State::Making | State::Failed(_) => Err(AcrImageError::Failed),
            },
            // The sender is ours.
            Ok(Err(_)) => Err(AcrImageError::Failed),
        }
    }
}

impl Inner {
    async fn find_or_make(&self) -> Result<Digest, AcrImageError> {
        let program = blocking(|| digest_of(File::open(PROGRAM)?)).await?;
        let tag = Tag::parse(&program.hex()[..TAG_DIGITS]).expect("hexadecimal digits make a tag");
        match self.registry.find_own_image(&tag).await.map_err(OwnImageError::from)? {
            Some(digest) => Ok(digest),
            None => self.make(tag).await,
        }
    }

    async fn make(&self, tag: Tag) -> Result<Digest, AcrImageError> {
        let scratch = self.scratch.clone();
        let (layer, search) = blocking(move || layer(&scratch)).await?;
        let (layer_digest, layer_size) = {
            let file = layer.reopen().map_err(AcrImageError::Program)?;
            blocking(move || Ok((digest_of(file.try_clone()?)?, file.metadata()?.len()))).await?
        };
        let config = json!({
            "architecture": architecture(),
            "os": std::env::consts::OS,
            "config": {
                "Entrypoint": [format!("/{IN_IMAGE}"), "acr"],
                "User": USER,
                "Env": search.iter().map(|path| format!("LD_LIBRARY_PATH={path}")).collect::<Vec<_>>(),
            },
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
        });
        let config = serde_json::to_vec(&config).expect("texts are JSON");
        let file = tokio::fs::File::from_std(layer.reopen().map_err(AcrImageError::Program)?);
        let bytes = tokio_util::io::ReaderStream::with_capacity(file, CHUNK);
        let layer = bytes.map(|chunk| chunk.map_err(Into::into)).boxed();
        tracing::info!(%tag, layer_size, "putting the image of `acr` into the registry");
        let image = OwnImage { tag: tag.clone(), config, layer, layer_digest, layer_size };
        let digest = self.registry.put_own_image(image).await?;
        self.registry.forget_own_images(&tag).await?;
        Ok(digest)
    }
}

/// The layer, as a file, and where its libraries are to be looked for.
fn layer(scratch: &Path) -> io::Result<(tempfile::NamedTempFile, Option<String>)> {
    let libraries = libraries()?;
    let file = tempfile::NamedTempFile::new_in(scratch)?;
    let mut archive = Archive { tar: tar::Builder::new(io::BufWriter::new(file.reopen()?)), folders: BTreeSet::new() };
    archive.add(Path::new(IN_IMAGE), Path::new(PROGRAM))?;
    for library in &libraries {
        archive.add(library, library)?;
    }
    archive.tar.into_inner()?.flush()?;
    let folders: BTreeSet<&Path> = libraries.iter().filter_map(|library| library.parent()).collect();
    let search: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Ok((file, (!search.is_empty()).then(|| search.join(":"))))
}

struct Archive<W: Write> {
    tar: tar::Builder<W>,
    folders: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    /// Adds a file under a name, with the folders that it is in.
    fn add(&mut self, name: &Path, file: &Path) -> io::Result<()> {
        let parts = name.components().filter(|part| matches!(part, Component::Normal(_)));
        let name: PathBuf = parts.collect();
        let folders: Vec<PathBuf> = name.ancestors().skip(1).map(Path::to_owned).collect();
        for folder in folders.into_iter().rev().filter(|folder| !folder.as_os_str().is_empty()) {
            if self.folders.insert(folder.clone()) {
                let mut header = header(tar::EntryType::Directory, 0);
                self.tar.append_data(&mut header, format!("{}/", folder.display()), io::empty())?;
            }
        }
        let file = File::open(file)?;
        let mut header = header(tar::EntryType::Regular, file.metadata()?.len());
        self.tar.append_data(&mut header, name, file)
    }
}

/// What the same program makes is the same image.
fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_mtime(0);
    header
}

/// The files that the loader takes for this program, itself among them: it says them instead of starting the program.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let said = Command::new(PROGRAM)
        .arg("version")
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(loaded(&String::from_utf8_lossy(&said.stdout)))
}

/// Reads lines such as `libc.so.6 => /lib/libc.so.6 (0x7f…)` and `/lib64/ld-linux-x86-64.so.2 (0x7f…)`. A program that has
/// no loader says something else.
fn loaded(said: &str) -> Vec<PathBuf> {
    let file = |line: &str| {
        let (line, _) = line.trim().rsplit_once(" (0x")?;
        let path = line.rsplit_once(" => ").map_or(line, |(_, path)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    said.lines().filter_map(file).collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, AcrImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(AcrImageError::Program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_loader_says_is_understood() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                    \tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expect = ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(loaded(said), expect.map(PathBuf::from));
        assert_eq!(loaded("cooper 0.1.0\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_layer_holds_this_program_and_its_libraries() {
        let folder = tempfile::tempdir().expect("folder");
        let (file, _) = layer(folder.path()).expect("made");
        let mut archive = tar::Archive::new(file.reopen().expect("open"));
        let mut names = Vec::new();
        for entry in archive.entries().expect("entries") {
            let entry = entry.expect("an entry");
            assert!(entry.header().mtime().expect("a time") == 0);
            names.push(entry.path().expect("a name").display().to_string());
        }
        assert_eq!(names[0], IN_IMAGE);
        for library in libraries().expect("asked") {
            let name = library.display().to_string();
            assert!(names.contains(&name[1..].to_owned()), "{name} is not among {names:?}");
        }
    }
}
