//! Whose fault a failed build is, and what the user can do: the engine's error texts, sorted.
//!
//! The engine gives text only. Each pattern here was seen from Docker Engine 20.10 (BuildKit 0.8) or read in the
//! sources of 23 and later; what fits none is the user's, with the engine's own words.

mod base;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileExt;

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_ports::engine::{
    BuildError, BuildFailure, BuildRequest, EngineDescription, EngineError, EngineFeature, VertexEvent,
};
use http::StatusCode;

use crate::container::create::LOST_SNAPSHOT;
use crate::wire::one_line;

pub(crate) const OPERATION: &str = "build an image";
/// Enough for any Dockerfile in earnest; only looked through for here-documents.
const MAX_DOCKERFILE: u64 = 1 << 20;

/// Steps whose output is looked through; the engine's word is not trusted with our memory.
const MAX_TELLING: usize = 4096;

/// What a step's output tells of the machine beneath it.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// Nothing: its command has said something.
    Began,
    /// Its disk is full.
    DiskFull,
    /// The runtime could not make the step's container, and said so first: the step's command never began.
    NeverBegan,
}

/// How vertices are called that read a cache from a registry.
const CACHE: &str = "importing cache manifest from ";

/// What is known of a build when its errors are sorted.
pub(crate) struct Blame {
    dockerfile: String,
    target: Option<String>,
    engine: String,
    missing_features: Vec<EngineFeature>,
    context: ContextTree,
    /// The first vertex that failed by itself.
    failed: Option<(String, String)>,
    /// The id of that vertex.
    failed_id: String,
    /// What vertices' output tells of their machine, by id.
    told: BTreeMap<String, Told>,
}

impl Blame {
    pub(crate) fn new(request: &BuildRequest, engine: &EngineDescription) -> Self {
        let features = [EngineFeature::Heredoc, EngineFeature::CopyLink, EngineFeature::RunNetwork];
        Self {
            dockerfile: request.dockerfile.clone(),
            target: request.target.clone(),
            engine: format!("{} {}", engine.name, engine.version),
            missing_features: features.into_iter().filter(|feature| !engine.features.contains(feature)).collect(),
            context: request.dockerfile_tree.as_ref().unwrap_or(&request.context).clone(),
            failed: None,
            failed_id: String::new(),
            told: BTreeMap::new(),
        }
    }

    /// What can be told without the engine.
    pub(crate) fn before_the_build(&self) -> Result<(), BuildFailure> {
        // A path may lead through links, and BuildKit takes `dockerfile` for `Dockerfile`: only the plain case is ours.
        let plain = !self.dockerfile.contains('/') && self.dockerfile != "Dockerfile";
        let missing = match self.dockerfile.as_str() {
            "" => true,
            "Dockerfile" => self.context.get("Dockerfile").or_else(|| self.context.get("dockerfile")).is_none(),
            path => plain && self.context.get(path).is_none(),
        };
        if missing {
            return Err(BuildFailure::DockerfileMissing { path: self.dockerfile.clone() });
        }
        Ok(())
    }

    /// Takes note of a vertex that failed.
    pub(crate) fn saw(&mut self, vertex: &VertexEvent) {
        // A cache that is not there, or can't be read, fails no build.
        let Some(error) = vertex.error.as_ref().filter(|_| !vertex.name.starts_with(CACHE)) else { return };
        // What ran beside a failing step is cancelled with it, and is not to blame.
        let cancelled = error.ends_with("context canceled");
        if !cancelled && self.failed.is_none() {
            self.failed = Some((one_line(&vertex.name), one_line(error)));
            self.failed_id.clone_from(&vertex.id);
        }
    }

    /// Takes note of what a vertex's output tells of its machine.
    pub(crate) fn heard(&mut self, vertex: &str, output: &[u8]) {
        let has_room = self.told.len() < MAX_TELLING;
        match self.told.get_mut(vertex) {
            Some(told @ Told::Began) if is_full(output) => *told = Told::DiskFull,
            Some(_) => {}
            None if has_room => {
                let told = match (never_began(output), is_full(output)) {
                    (true, _) => Told::NeverBegan,
                    (false, true) => Told::DiskFull,
                    (false, false) => Told::Began,
                };
                self.told.insert(vertex.to_owned(), told);
            }
            None => {}
        }
    }

    /// The error of a build that the engine refused before it began.
    pub(crate) fn refusal(&self, status: StatusCode, message: &str) -> BuildError {
        match self.known(message) {
            Some(error) => error,
            None if status.is_client_error() => self.other(message).into(),
            None => EngineError::Refused { operation: OPERATION, message: one_line(message) }.into(),
        }
    }

    /// The error of a build that began.
    pub(crate) fn error(&self, message: &str) -> BuildError {
        self.known(message).unwrap_or_else(|| self.other(message).into())
    }

    fn known(&self, message: &str) -> Option<BuildError> {
        let message = &one_line(message);
        if let Some(failure) = self.failed_step(message).or_else(|| self.missing_base()) {
            if !matches!(failure, BuildFailure::Exited { .. }) {
                return Some(failure.into());
            }
            return Some(match self.told.get(&self.failed_id) {
                // What a command writes goes to the engine's disk, and that it is full is nothing that a user could
                // mend. A command that fills a file system of its own looks the same, and is rare.
                Some(Told::DiskFull) => EngineError::DiskFull { message: failure.to_string() }.into(),
                Some(Told::NeverBegan) => {
                    let message = format!("{failure}, as the runtime could not make its container");
                    EngineError::Refused { operation: OPERATION, message }.into()
                }
                Some(Told::Began) | None => failure.into(),
            });
        }
        if message.contains("no space left on device") {
            return Some(EngineError::DiskFull { message: strip(message).to_owned() }.into());
        }
        if is_machinery(message) {
            return Some(EngineError::Refused { operation: OPERATION, message: strip(message).to_owned() }.into());
        }
        self.dockerfile_fault(message).map(BuildError::from)
    }

    fn other(&self, message: &str) -> BuildFailure {
        let step = self.failed.as_ref().map(|(name, _)| name.clone());
        BuildFailure::Other { step, message: strip(&one_line(message)).to_owned() }
    }

    /// A command that ended with a code, or a secret that it wanted.
    fn failed_step(&self, message: &str) -> Option<BuildFailure> {
        let (step, error) = match &self.failed {
            Some((step, error)) => (step.as_str(), error.as_str()),
            None => ("", message),
        };
        // 20.10: `executor failed running [sh -c …]: exit code: 3`; 23: `process "sh -c …" did not complete
        // successfully: exit code: 3`. Anything before that, the command's text included, is the user's.
        let runs = error.starts_with("executor failed running [") || error.starts_with("process \"");
        if runs && let Some((_, code)) = error.rsplit_once(": exit code: ") {
            let code = code.split(' ').next().and_then(|code| code.parse().ok())?;
            return Some(BuildFailure::Exited { step: step.to_owned(), code });
        }
        // 20.10: `secret id not found: not found`; 23: `secret id: not found`, with more before it.
        let (_, wanted) = error.split_once("secret ").filter(|_| step.contains("RUN "))?;
        let (id, _) = wanted.split_once(" not found").or_else(|| wanted.split_once(": not found"))?;
        let id = id.trim_end_matches(':');
        let plain = !id.is_empty() && !id.contains(char::is_whitespace);
        plain.then(|| BuildFailure::SecretMissing { id: id.to_owned() })
    }

    /// An image that could not be resolved or pulled.
    fn missing_base(&self) -> Option<BuildFailure> {
        let (step, error) = self.failed.as_ref()?;
        base::failure(step, error)
    }

    /// A Dockerfile that is not there or cannot be understood.
    fn dockerfile_fault(&self, message: &str) -> Option<BuildFailure> {
        let path = || self.dockerfile.clone();
        if let Some((_, reason)) = message.split_once("failed to read dockerfile: ") {
            if reason.contains("no such file or directory") {
                return Some(BuildFailure::DockerfileMissing { path: path() });
            }
            // The engine names its own copy's path before the reason.
            let reason = reason.rsplit_once(": ").map_or(reason, |(_, reason)| reason);
            return Some(BuildFailure::Dockerfile { path: path(), line: None, message: reason.to_owned() });
        }
        // `… target stage foo could not be found`; quoted since 23.
        if message.contains("target stage ") && message.contains(" could not be found") {
            let target = self.target.clone().unwrap_or_default();
            return Some(BuildFailure::TargetMissing { path: path(), target });
        }
        let (line, text) = match message.split_once("dockerfile parse error ") {
            Some((_, rest)) => {
                let rest = rest.strip_prefix("on ").unwrap_or(rest).strip_prefix("line ")?;
                let (line, text) = rest.split_once(": ")?;
                (line.parse().ok(), text)
            }
            None => {
                let (_, text) = message
                    .split_once("failed to create LLB definition: ")
                    .or_else(|| message.split_once("dockerfile.v0: failed to parse dockerfile: "))?;
                (None, text)
            }
        };
        if let Some(feature) = self.missing_feature(line, text) {
            return Some(BuildFailure::FeatureMissing { path: path(), line, feature, engine: self.engine.clone() });
        }
        Some(BuildFailure::Dockerfile { path: path(), line, message: text.to_owned() })
    }

    /// What the engine lacks, where that explains its complaint.
    fn missing_feature(&self, line: Option<u32>, text: &str) -> Option<EngineFeature> {
        let lower = text.to_ascii_lowercase();
        let feature = if lower.starts_with("unknown flag: link") {
            EngineFeature::CopyLink
        } else if lower.starts_with("unknown flag: network") {
            EngineFeature::RunNetwork
        } else if self.heredoc_before(line.unwrap_or(u32::MAX)) {
            EngineFeature::Heredoc
        } else {
            return None;
        };
        self.missing_features.contains(&feature).then_some(feature)
    }

    /// Whether the Dockerfile opens a here-document on a line up to this one: an engine that does not know them takes
    /// the document's lines for instructions.
    fn heredoc_before(&self, line: u32) -> bool {
        let Some(EntryKind::File { offset, size }) = self.context.get(&self.dockerfile).map(|entry| &entry.kind) else {
            return false;
        };
        let mut text = Vec::new();
        let mut part = Part { file: self.context.contents(), at: *offset };
        // Unreadable here, it was readable to the engine: then there is nothing to explain.
        if part.by_ref().take((*size).min(MAX_DOCKERFILE)).read_to_end(&mut text).is_err() {
            return false;
        }
        let lines = usize::try_from(line).unwrap_or(usize::MAX);
        String::from_utf8_lossy(&text).lines().take(lines).any(opens_heredoc)
    }
}

/// `RUN`, `COPY` and `ADD` with `<<WORD`, `<<-WORD` or `<<"WORD"`.
fn opens_heredoc(line: &str) -> bool {
    let line = line.trim_start();
    let instruction = line.split(char::is_whitespace).next().unwrap_or_default().to_ascii_uppercase();
    if !matches!(instruction.as_str(), "RUN" | "COPY" | "ADD") {
        return false;
    }
    line.match_indices("<<").any(|(at, _)| {
        let word = line[at + 2..].trim_start_matches('-').trim_start_matches(['"', '\'']);
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    })
}

/// Whether the engine says that an image which it was making was removed under its hands.
pub(crate) fn image_vanished(message: &str) -> bool {
    message.contains("failed to get digest sha256:") || message.contains("unrecognized image ID sha256:")
}

/// Whether BuildKit's solver lost a step that builds share: one of them ended while another one took it up. Another try
/// finds it gone. The braces hold an address. Or it waited for such a step longer than it does.
fn graph_broke(message: &str) -> bool {
    (message.contains("invalid request {") && message.ends_with("} for build"))
        || message.contains("inconsistent graph state")
        || message.contains("flightcontrol: exceeded retry timeout")
}

/// The texts by which the engine says that it, and not the build, has a problem.
fn is_machinery(message: &str) -> bool {
    image_vanished(message)
        || graph_broke(message)
        || [
            LOST_SNAPSHOT,
            "no active session for ",
            "transport is closing",
            "code = Unavailable",
            "code = Canceled",
            "context deadline exceeded",
            "error reading from server",
            "input/output error",
            "read-only file system",
            // A step's network, which an engine that is stopping can't make any more.
            "for object type *libnetwork.",
            "failed to create endpoint ",
        ]
        .into_iter()
        .any(|text| message.contains(text))
        || message.ends_with("context canceled")
}

/// Whether a step says that a disk is full.
fn is_full(output: &[u8]) -> bool {
    // As the C library and Go have it, whatever their first letter's case.
    has(output, b"o space left on device")
}

/// Whether a step's first output is runc's complaint of what is nothing of the build's.
///
/// runc's own words are in the step's output, and its exit code is the step's. It works in the engine's folders and runs
/// the hooks by which the engine gives a container its network: both end under its hands when the engine stops.
fn never_began(output: &[u8]) -> bool {
    // Before 1.1: `container_linux.go:380: starting container process caused: …`.
    let is_of_runc = output.starts_with(b"runc run failed: ") || has(output, b": starting container process caused: ");
    // A program that is not in the image or is for another machine, a folder or a mount that can't be.
    let of_the_build = [&b"exec: "[..], b"exec format error", b"chdir to cwd", b"cannot be mounted because "];
    is_of_runc && !of_the_build.iter().any(|text| has(output, text))
}

fn has(output: &[u8], text: &[u8]) -> bool {
    output.windows(text.len()).any(|window| window == text)
}

/// The message without the engine's account of its own layers.
fn strip(message: &str) -> &str {
    let mut message = message;
    for prefix in [
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve: ",
        "rpc error: code = Unknown desc = ",
        "failed to build LLB: ",
        "failed to solve with frontend gateway.v0: ",
    ] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    // A doubled end comes from the engine's wrapping of its own errors.
    match message.strip_suffix(": not found") {
        Some(rest) if rest.ends_with("not found") => rest,
        _ => message,
    }
}

/// A part of the spool file, read at offsets.
struct Part<'a> {
    file: &'a std::fs::File,
    at: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
