//! What does not cross platforms, where a file counts on it: files in the workspace, and steps' ids as host names.
//!
//! Owns what is told of it. Only what can be seen is told: a path that one step's container plainly writes and another
//! platform's step names, and the id of a detached step among another platform's words. A warning that comes with every
//! second file is read by nobody.

use cooper_types::Platform;

use super::build_line::BuildContext;
use super::fields::{Fields, Report};
use super::model::{Task, TaskStep, TaskWork};

/// Words whose next one is a path that is written.
const WRITERS: &[&str] = &[">", ">>", "-o", "--output", "tee", "touch", "mkdir"];
/// Where the workspace is in every container.
const WORKSPACE: &str = "/workspace/";

/// Tells of what can't work.
pub(super) fn warn(steps: &[TaskStep], read: &[Fields<'_>], default: &Platform, report: &mut Report<'_>) {
    let before = Task::ancestors(steps);
    for (index, (step, fields)) in steps.iter().zip(read).enumerate() {
        let earlier = steps[..index].iter().enumerate().filter(|(earlier, _)| before[index][*earlier]);
        let earlier: Vec<&TaskStep> = earlier.map(|(_, step)| step).collect();
        let mut told = |message: String, help: &str| report.warn(fields.at, message, help);
        if let Some((path, writer)) = lost_path(step, &earlier, default) {
            let message = format!(
                "step `{}` ({}) names `{path}`, which step `{}` ({}) writes",
                step.id,
                shown(step, default),
                writer.id,
                shown(writer, default)
            );
            told(
                message,
                "each platform has a workspace of its own; images cross, through the registry: build one from the files",
            );
        }
        let detached = steps.iter().filter(|other| other.detach && is_elsewhere(other, step, default));
        for host in detached.filter(|host| words(step).any(|word| hosts(word).any(|part| part == host.id.as_str()))) {
            let message = format!(
                "step `{}` ({}) names `{}`, a container for {}",
                step.id,
                shown(step, default),
                host.id,
                shown(host, default)
            );
            told(message, "steps' ids are host names within their platform only; give both steps the same `platform`");
        }
    }
}

/// A path that a step names and only a container of another platform writes.
fn lost_path<'s>(step: &TaskStep, earlier: &[&'s TaskStep], default: &Platform) -> Option<(String, &'s TaskStep)> {
    let named: Vec<String> = named_paths(step).collect();
    let names = |path: &String| named.iter().any(|name| is_at_or_below(name, path));
    let near = |writer: &&&TaskStep| !is_elsewhere(writer, step, default);
    // What its own platform writes, or the step itself, is there.
    let kept = earlier.iter().filter(near).flat_map(|writer| written(writer));
    let kept: Vec<String> = kept.chain(written(step)).collect();
    earlier.iter().filter(|writer| is_elsewhere(writer, step, default)).find_map(|writer| {
        let path = written(writer).into_iter().find(|path| names(path) && !kept.contains(path))?;
        Some((path, *writer))
    })
}

/// Whether a part of `step` runs where `other` does not.
fn is_elsewhere(other: &TaskStep, step: &TaskStep, default: &Platform) -> bool {
    let there = platforms(other, default);
    platforms(step, default).iter().any(|platform| !there.contains(platform))
}

fn platforms<'s>(step: &'s TaskStep, default: &'s Platform) -> &'s [Platform] {
    if step.platforms.is_empty() { std::slice::from_ref(default) } else { &step.platforms }
}

fn shown(step: &TaskStep, default: &Platform) -> String {
    platforms(step, default).iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

/// The words of a container, and what its environment holds.
fn words(step: &TaskStep) -> impl Iterator<Item = &str> {
    let words: &[String] = match &step.work {
        TaskWork::Cmd(line) => &line.words,
        TaskWork::Build(_) | TaskWork::Push(_) => &[],
    };
    let is_cmd = matches!(step.work, TaskWork::Cmd(_));
    let values = step.env.iter().filter(move |_| is_cmd).map(|(_, value)| value.as_str());
    words.iter().map(String::as_str).chain(values)
}

/// The parts of a word that are a host's name, if anything is: whole words, what stands before a port, and what stands for
/// a host in a URL. A folder of a URL's path is none.
fn hosts(word: &str) -> impl Iterator<Item = &str> {
    let words = word.split(|c: char| c.is_whitespace() || "'\"=,;|&()<>".contains(c));
    words.filter_map(|word| {
        let authority = match word.split_once("://") {
            Some((_, rest)) => rest.split(['/', '?', '#']).next()?,
            // A path may begin with a folder of that name.
            None => word.split('/').next().filter(|first| first.len() == word.len() || first.contains(':'))?,
        };
        let host = authority.rsplit('@').next()?;
        let host = host.split(':').next()?;
        (!host.is_empty()).then_some(host)
    })
}

/// Paths below the workspace that a container plainly writes.
fn written(step: &TaskStep) -> Vec<String> {
    let TaskWork::Cmd(line) = &step.work else { return Vec::new() };
    let mut paths = Vec::new();
    // The last word whose next one is a path. Flags may stand between the two.
    let mut writer = None;
    for text in line.words.iter().flat_map(|word| word.split_whitespace()) {
        let inline =
            text.strip_prefix("--output=").or_else(|| text.strip_prefix(">>")).or_else(|| text.strip_prefix('>'));
        let path = match (writer, inline) {
            (_, Some(path)) if !path.is_empty() => Some(path),
            // It has other meanings, too: `set -o pipefail` writes nothing.
            (Some("-o"), _) if !text.contains(['/', '.']) => None,
            (Some(_), _) if !text.starts_with('-') => Some(text),
            _ => None,
        };
        writer = if WRITERS.contains(&text) { Some(text) } else { writer.filter(|_| text.starts_with('-')) };
        paths.extend(path.and_then(in_workspace));
    }
    paths
}

/// Paths below the workspace that a step names.
fn named_paths(step: &TaskStep) -> impl Iterator<Item = String> {
    let of_build: Vec<&str> = match &step.work {
        TaskWork::Build(line) => {
            let folder = match &line.context {
                BuildContext::Local(path) => Some(path.as_str()),
                BuildContext::Git(_) | BuildContext::Tarball(_) | BuildContext::Oci(_) => None,
            };
            folder.into_iter().chain(line.dockerfile.as_deref()).collect()
        }
        TaskWork::Cmd(_) | TaskWork::Push(_) => Vec::new(),
    };
    let words = words(step).flat_map(|word| word.split(|c: char| c.is_whitespace() || "'\"=;|&()<>".contains(c)));
    words.chain(of_build).filter_map(in_workspace).collect::<Vec<_>>().into_iter()
}

/// A path relative to the workspace's root; nothing if it is elsewhere, or not known.
fn in_workspace(path: &str) -> Option<String> {
    let path = path.trim_end_matches([';', ')', '\'', '"', '/']).trim_start_matches(['\'', '"']);
    let path = path.strip_prefix(WORKSPACE).unwrap_or(path);
    let path = path.trim_start_matches("./");
    let known =
        !path.is_empty() && path != "." && !path.starts_with(['/', '&', '-']) && !path.contains(['$', '`', '*']);
    (known && !path.contains("..")).then(|| path.to_owned())
}

fn is_at_or_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
