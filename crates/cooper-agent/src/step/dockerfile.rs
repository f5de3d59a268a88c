//! What can be said of a build before the engine sees it: its Dockerfile's place, needs and dependencies.

use std::fs::File;
use std::io;

use cooper_ports::context_tree::{ContextTree, EntryKind};
use cooper_ports::engine::{EngineDescription, EngineFeature, LocalName};
use cooper_spec::dockerfile::{Dependencies, Dockerfile, DockerfileFeature};
use cooper_types::Platform;

use super::Ended;

/// The longest Dockerfile that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// The most symbolic links on the way to a Dockerfile.
const MAX_LINKS: usize = 20;

/// What is to be built, and by which engine.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) target: Option<&'a str>,
    pub(super) arguments: &'a [(String, String)],
    pub(super) platform: &'a Platform,
    pub(super) engine: &'a EngineDescription,
}

/// What is known before the engine begins.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The Dockerfile's path in the context, in its shortest form.
    pub(super) path: String,
    /// The images that the build names; absent for a file that another frontend reads.
    pub(super) dependencies: Option<Dependencies>,
    /// What it says.
    pub(super) text: String,
}

/// A Dockerfile's text.
#[derive(Debug)]
pub(super) struct Found {
    /// Its path in the context, as it was asked for.
    pub(super) shown: String,
    /// Its path in the context, in its shortest form.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
}

/// Whether a context has such a file.
pub(super) fn is_there(context: &ContextTree, shown: &str) -> bool {
    shortest(shown).is_some_and(|path| place(context, &path).is_some())
}

/// Reads a Dockerfile of a context.
pub(super) fn find(context: &ContextTree, shown: &str) -> Result<Found, Ended> {
    let fail = |reason: String| Ended::Failed { exit_code: None, reason };
    let missing = || fail(format!("Dockerfile `{shown}` is not in the context: name it with --file"));
    let path = shortest(shown).ok_or_else(missing)?;
    let (offset, size) = place(context, &path).ok_or_else(missing)?;
    if size > MAX_BYTES {
        return Err(fail(format!("Dockerfile `{shown}` is longer than {MAX_BYTES} bytes")));
    }
    let bytes = read(context, offset, size).map_err(|error| Ended::lost("Dockerfile can't be read back", &error))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Found { shown: shown.to_owned(), path, text })
}

/// Looks at a Dockerfile. What is certain to fail fails here, with the line and the way out.
pub(super) fn scan(found: Found, scan: Scan<'_>) -> Result<Scanned, Ended> {
    let fail = |reason: String| Ended::Failed { exit_code: None, reason };
    let Found { shown, path, text } = found;
    let shown = shown.as_str();
    let not_theirs = |dependencies: &Dependencies| {
        let mut named = dependencies.runtime.iter().chain(&dependencies.buildtime);
        let foreign = named.find(|name| LocalName::is_one(name));
        foreign.map(|name| {
            fail(format!(
                "Dockerfile `{shown}`: image `{name}` is in no registry: names of this kind are the agent's own"
            ))
        })
    };
    let file = match Dockerfile::parse(&text) {
        Ok(file) => file,
        Err(error) => return Err(fail(located(shown, &error.to_string()))),
    };
    if file.syntax().is_some() {
        // Another frontend reads the file, and may know more than this scan: it judges, and only what is sure is used.
        let dependencies = file.dependencies(scan.target, scan.arguments, Some(scan.platform)).ok();
        if let Some(refusal) = dependencies.as_ref().and_then(not_theirs) {
            return Err(refusal);
        }
        return Ok(Scanned { path, dependencies, text });
    }
    if let Some((feature, line)) = file.required_features().into_iter().find(|(feature, _)| !can(scan.engine, *feature))
    {
        return Err(fail(format!(
            "Dockerfile `{shown}`, line {line}: {}; this agent has {} {}",
            feature.requirement(),
            scan.engine.name,
            scan.engine.version
        )));
    }
    match file.dependencies(scan.target, scan.arguments, Some(scan.platform)) {
        Ok(dependencies) if let Some(refusal) = not_theirs(&dependencies) => Err(refusal),
        Ok(dependencies) => Ok(Scanned { path, dependencies: Some(dependencies), text }),
        Err(error) => Err(fail(located(shown, &error.to_string()))),
    }
}

/// What is wrong with a Dockerfile, with its name: `Dockerfile `a/b`, line 3: …`.
fn located(shown: &str, error: &str) -> String {
    match error.strip_prefix("Dockerfile line ") {
        Some(rest) => format!("Dockerfile `{shown}`, line {rest}"),
        None => format!("Dockerfile `{shown}`: {error}"),
    }
}

/// Whether the engine's own frontend knows a feature. What it does not tell is left to it.
fn can(engine: &EngineDescription, feature: DockerfileFeature) -> bool {
    match feature {
        DockerfileFeature::Heredoc => engine.features.contains(&EngineFeature::Heredoc),
        DockerfileFeature::CopyLink => engine.features.contains(&EngineFeature::CopyLink),
        DockerfileFeature::RunNetwork => engine.features.contains(&EngineFeature::RunNetwork),
        other => {
            let major = engine.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            engine.name != "Docker Engine" || major.is_none_or(|major| major >= other.minimum_engine())
        }
    }
}

/// The path without `.`, `..` and empty parts; none if it leads out of the context.
pub(super) fn shortest(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Where a file's bytes lie, following symbolic links inside the context as the engine does.
fn place(context: &ContextTree, path: &str) -> Option<(u64, u64)> {
    let mut path = path.to_owned();
    'links: for _ in 0..MAX_LINKS {
        let ends = path.match_indices('/').map(|(index, _)| index).chain([path.len()]).collect::<Vec<_>>();
        for end in ends {
            let (head, tail) = path.split_at(end);
            match &context.get(head)?.kind {
                EntryKind::Directory => {}
                EntryKind::File { offset, size } => return tail.is_empty().then_some((*offset, *size)),
                EntryKind::Symlink { target } => {
                    let parent = head.rsplit_once('/').map_or("", |(parent, _)| parent);
                    // An absolute target begins at the context's root.
                    let base = if target.starts_with('/') { "" } else { parent };
                    path = shortest(&format!("{base}/{target}/{tail}"))?;
                    continue 'links;
                }
            }
        }
        return None;
    }
    None
}

fn read(context: &ContextTree, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    read_at(context.contents(), offset, &mut bytes)?;
    Ok(bytes)
}

/// Fills the buffer from a place in a file, whatever its own position is.
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)?;
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
