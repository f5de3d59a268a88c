//! A `cmd` step's text: Docker options of a short list, an image, and the words for its program.

use cooper_types::ImageRef;

use super::fields::clip;
use super::flags::{self, Flag, Given, Means, Note, Takes};

/// What a `cmd` step's text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CmdLine {
    /// The image, with a tag or a digest; a name without a registry stays so.
    pub image: ImageRef,
    /// The words after the image.
    pub words: Vec<String>,
    /// Whether the container has a terminal (`-t`).
    pub tty: bool,
    /// Whether its input stays open (`-i`); nothing ever comes from there.
    pub interactive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Tty,
    Interactive,
    Env,
    WorkingDirectory,
}

const fn is(long: &'static str, short: Option<char>, takes: Takes, part: Part) -> Flag<Part> {
    Flag { long, short, takes, means: Means::Is(part) }
}

const fn ignored(long: &'static str, takes: Takes, why: &'static str) -> Flag<Part> {
    Flag { long, short: None, takes, means: Means::Ignored(why) }
}

const fn refused(long: &'static str, short: Option<char>, takes: Takes, way: &'static str) -> Flag<Part> {
    Flag { long, short, takes, means: Means::Refused(way) }
}

const MOUNTS: &str = "mount a volume with the property `volumeMounts`; the workspace is at /workspace in every step";
const NETWORK: &str = "use the property `network`";
const NEVER: &str = "the agent's operator sets limits and rights; no property does";

static FLAGS: &[Flag<Part>] = &[
    is("tty", Some('t'), Takes::Switch, Part::Tty),
    is("interactive", Some('i'), Takes::Switch, Part::Interactive),
    is("env", Some('e'), Takes::Value, Part::Env),
    is("workdir", Some('w'), Takes::Value, Part::WorkingDirectory),
    ignored("name", Takes::Value, "the step's `id` is its name"),
    ignored("rm", Takes::Switch, "a step's container goes by itself; `keep` keeps it to the run's end"),
    ignored("init", Takes::Switch, "processes that are left are collected anyway"),
    refused("volume", Some('v'), Takes::Value, MOUNTS),
    refused("mount", None, Takes::Value, MOUNTS),
    refused("volumes-from", None, Takes::Value, MOUNTS),
    refused("tmpfs", None, Takes::Value, MOUNTS),
    refused("privileged", None, Takes::Switch, "use the property `privileged: true`, which the pool must allow"),
    refused("user", Some('u'), Takes::Value, "use the property `user`"),
    refused("network", None, Takes::Value, NETWORK),
    refused("net", None, Takes::Value, NETWORK),
    refused("network-alias", None, Takes::Value, "other steps know a step by its `id`"),
    refused("hostname", Some('h'), Takes::Value, "other steps know a step by its `id`"),
    refused("publish", Some('p'), Takes::Value, "use the property `ports`"),
    refused("publish-all", Some('P'), Takes::Switch, "use the property `ports`"),
    refused("expose", None, Takes::Value, "use the property `expose`"),
    refused("entrypoint", None, Takes::Value, "use the property `entryPoint`"),
    refused("cpus", None, Takes::Value, "use the property `cpus`"),
    refused("detach", Some('d'), Takes::Switch, "use the property `detach: true`"),
    refused("isolation", None, Takes::Value, "use the property `isolation`"),
    refused("pull", None, Takes::Value, "use the property `pull: true`"),
    refused("platform", None, Takes::Value, "use the property `platform`"),
    refused("env-file", None, Takes::Value, "use the property `env`"),
    refused("restart", None, Takes::Value, "use the properties `retries` and `repeat`"),
    refused("cap-add", None, Takes::Value, NEVER),
    refused("cap-drop", None, Takes::Value, NEVER),
    refused("device", None, Takes::Value, NEVER),
    refused("gpus", None, Takes::Value, NEVER),
    refused("security-opt", None, Takes::Value, NEVER),
    refused("pid", None, Takes::Value, NEVER),
    refused("ipc", None, Takes::Value, NEVER),
    refused("uts", None, Takes::Value, NEVER),
    refused("userns", None, Takes::Value, NEVER),
    refused("cgroup-parent", None, Takes::Value, NEVER),
    refused("memory", Some('m'), Takes::Value, NEVER),
    refused("shm-size", None, Takes::Value, NEVER),
    refused("ulimit", None, Takes::Value, NEVER),
    refused("sysctl", None, Takes::Value, NEVER),
    refused("runtime", None, Takes::Value, NEVER),
    refused("add-host", None, Takes::Value, "other steps know a step by its `id`"),
    refused("label", Some('l'), Takes::Value, "containers have the labels of their run alone"),
];

/// What a line says, and what it says to the step's other properties.
#[derive(Debug)]
pub(super) struct ReadCmd {
    /// Absent where the line names no image that is one.
    pub(super) line: Option<CmdLine>,
    /// `-e`, in order.
    pub(super) env: Vec<(String, String)>,
    /// `-w`
    pub(super) working_directory: Option<String>,
    pub(super) notes: Vec<Note>,
}

/// Reads the words of a `cmd` step: options, an image, and the rest.
pub(super) fn read(words: &[String]) -> ReadCmd {
    let parsed = flags::parse(words, FLAGS, "a cmd step", true);
    let mut read = ReadCmd { line: None, env: Vec::new(), working_directory: None, notes: parsed.notes };
    let (mut tty, mut interactive) = (false, false);
    for Given { kind, value, word } in parsed.given {
        match kind {
            Part::Tty => tty = value == "true",
            Part::Interactive => interactive = value == "true",
            Part::WorkingDirectory => read.working_directory = Some(value),
            Part::Env => match value.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    read.env.retain(|(before, _)| before != name);
                    read.env.push((name.to_owned(), value.to_owned()));
                }
                _ => {
                    let message = format!("flag `-e {}` has no value", clip(&value));
                    read.notes.push(Note::warning(message, "it is left out; write -e NAME=VALUE").at(word));
                }
            },
        }
    }
    match parsed.rest.split_first() {
        Some((image, words)) => match image_of(image) {
            Ok(image) => read.line = Some(CmdLine { image, words: words.to_vec(), tty, interactive }),
            Err(note) => read.notes.push(note.at(parsed.rest_places[0])),
        },
        None if parsed.doubtful => {}
        None => {
            read.notes.push(Note::fault("`cmd` names no image", "write an image and then the words for its program"))
        }
    }
    read
}

fn image_of(text: &str) -> Result<ImageRef, Note> {
    if text.starts_with('$') {
        let message = format!("image `{}` begins with a `$`", clip(text));
        let help = "aliases such as `$Registry` count from `version: v1.1.0` on, if they are known, and \
                    never in an alias's own value: write `{{.Run.Registry}}` there";
        return Err(Note::fault(message, help));
    }
    if text.starts_with('-') || text.is_empty() {
        return Err(Note::fault(
            format!("`{}` is no image", clip(text)),
            "write an image before the words for its program",
        ));
    }
    match ImageRef::parse(text) {
        Ok(image) => Ok(image.tagged_by_default()),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let help = "a `cmd` begins with the image that it runs, [REGISTRY/]NAME[:TAG]";
            Err(Note::fault(format!("{error}{cause}"), help))
        }
    }
}

#[cfg(test)]
mod tests;
