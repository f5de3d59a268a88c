//! A `build` step's text: the arguments of `docker build`, split as a shell would split them and read by their names.

use cooper_types::{ImageRef, Platform};

use crate::source::{RemoteSource, SourceLocation};

use super::fields::clip;
use super::flags::{self, Flag, Given, Means, Note, Takes};
use super::limits;

/// What a `build` step's text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildLine {
    /// The image's names (`-t`), each with a tag; names without a registry stay so.
    pub images: Vec<ImageRef>,
    /// The Dockerfile (`-f`): relative to the step's working directory, or to the root of a remote context.
    pub dockerfile: Option<String>,
    /// The stage to build (`--target`).
    pub target: Option<String>,
    /// Where the files come from.
    pub context: BuildContext,
    /// Build arguments (`--build-arg`) in order; one without a value has taken it from the step's environment.
    pub arguments: Vec<(String, String)>,
    /// Labels (`--label`).
    pub labels: Vec<(String, String)>,
    /// Whether the cache is left unused.
    pub no_cache: bool,
    /// Whether base images are looked up anew (`--pull`).
    pub pull: bool,
    /// What is built for (`--platform`); the step's platforms are the same unless they are given there alone.
    pub platforms: Vec<Platform>,
    /// The network of `RUN` instructions (`--network`).
    pub network: Option<String>,
    /// Additional lines of `/etc/hosts` (`--add-host`): name and address.
    pub add_hosts: Vec<(String, String)>,
    /// Secrets for `RUN --mount=type=secret`.
    pub secrets: Vec<BuildSecret>,
    /// Where cache is taken from (`--cache-from`), as it is written.
    pub cache_from: Vec<String>,
    /// Where cache is kept (`--cache-to`), as it is written.
    pub cache_to: Vec<String>,
}

/// Where a build's files come from (contract §2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A folder of the workspace.
    Local(String),
    /// A Git repository.
    Git(String),
    /// An archive at a URL.
    Tarball(String),
    /// An artifact in a registry.
    Oci(String),
}

/// A secret of a build (`--secret id=ID,src=FILE` or `,env=NAME`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSecret {
    /// Its id.
    pub id: String,
    /// Where its value is.
    pub source: BuildSecretSource,
}

/// Where a build secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildSecretSource {
    /// A file: in one of the step's mounts, or in the workspace.
    File(String),
    /// The step's environment.
    Env(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Tag,
    File,
    Target,
    Argument,
    Label,
    NoCache,
    Pull,
    Platform,
    Network,
    AddHost,
    Secret,
    CacheFrom,
    CacheTo,
    Isolation,
}

const fn value(long: &'static str, short: Option<char>, part: Part) -> Flag<Part> {
    Flag { long, short, takes: Takes::Value, means: Means::Is(part) }
}

const fn switch(long: &'static str, part: Part) -> Flag<Part> {
    Flag { long, short: None, takes: Takes::Switch, means: Means::Is(part) }
}

const fn ignored(long: &'static str, short: Option<char>, takes: Takes, why: &'static str) -> Flag<Part> {
    Flag { long, short, takes, means: Means::Ignored(why) }
}

const fn refused(long: &'static str, short: Option<char>, takes: Takes, way: &'static str) -> Flag<Part> {
    Flag { long, short, takes, means: Means::Refused(way) }
}

const BUILDKIT: &str = "BuildKit, which builds here, has no such limit";
const ATTESTATIONS: &str = "images are made without attestations";

static FLAGS: &[Flag<Part>] = &[
    value("tag", Some('t'), Part::Tag),
    value("file", Some('f'), Part::File),
    value("target", None, Part::Target),
    value("build-arg", None, Part::Argument),
    value("label", None, Part::Label),
    switch("no-cache", Part::NoCache),
    switch("pull", Part::Pull),
    value("platform", None, Part::Platform),
    value("network", None, Part::Network),
    value("add-host", None, Part::AddHost),
    value("secret", None, Part::Secret),
    value("cache-from", None, Part::CacheFrom),
    value("cache-to", None, Part::CacheTo),
    value("isolation", None, Part::Isolation),
    ignored("rm", None, Takes::Switch, "a build leaves no containers"),
    ignored("force-rm", None, Takes::Switch, "a build leaves no containers"),
    ignored("load", None, Takes::Switch, "the engine always has the image"),
    ignored("quiet", Some('q'), Takes::Switch, "the log shows the whole build"),
    ignored("progress", None, Takes::Value, "the log has one form"),
    ignored("compress", None, Takes::Switch, "the context is sent as it changes"),
    ignored("disable-content-trust", None, Takes::Switch, "content trust is not checked"),
    ignored("provenance", None, Takes::Value, ATTESTATIONS),
    ignored("sbom", None, Takes::Value, ATTESTATIONS),
    ignored("memory", Some('m'), Takes::Value, BUILDKIT),
    ignored("memory-swap", None, Takes::Value, BUILDKIT),
    ignored("cpu-shares", Some('c'), Takes::Value, BUILDKIT),
    ignored("cpu-period", None, Takes::Value, BUILDKIT),
    ignored("cpu-quota", None, Takes::Value, BUILDKIT),
    ignored("cpuset-cpus", None, Takes::Value, BUILDKIT),
    ignored("cpuset-mems", None, Takes::Value, BUILDKIT),
    ignored("shm-size", None, Takes::Value, BUILDKIT),
    ignored("ulimit", None, Takes::Value, BUILDKIT),
    refused("push", None, Takes::Switch, "push with a `push` step"),
    refused("image", None, Takes::Value, "name the image with `-t`"),
    refused("output", Some('o'), Takes::Value, "build an image with `-t`, and push it with a `push` step"),
    refused("iidfile", None, Takes::Value, "name the image with `-t`; later steps know it by that name"),
    refused("metadata-file", None, Takes::Value, "`cooper runs show` tells digests and base images"),
    refused("ssh", None, Takes::Value, "use `--secret` for a key"),
    refused("builder", None, Takes::Value, "the agent's engine builds"),
    refused("build-context", None, Takes::Value, "put what is needed into the context"),
    refused("no-cache-filter", None, Takes::Value, "use `--no-cache`"),
    refused("allow", None, Takes::Value, "a build gets no privileges"),
    refused("security-opt", None, Takes::Value, "a build gets no privileges"),
    refused("cgroup-parent", None, Takes::Value, "the agent's operator sets limits"),
    refused("squash", None, Takes::Switch, "use stages in the Dockerfile"),
    refused("attest", None, Takes::Value, ATTESTATIONS),
];

/// What a line says, and what it says to the step's other properties.
#[derive(Debug)]
pub(super) struct ReadBuild {
    pub(super) line: BuildLine,
    pub(super) isolation: Option<String>,
    pub(super) notes: Vec<Note>,
}

/// Reads the words of a `build` step. What is wrong with them is noted, and left out of the line.
pub(super) fn read(words: &[String], environment: &[(String, String)]) -> ReadBuild {
    let parsed = flags::parse(words, FLAGS, "docker build", false);
    let mut notes = parsed.notes;
    let context = match parsed.rest.as_slice() {
        [] => ".",
        [context] => context.as_str(),
        [first, second, ..] => {
            if !parsed.doubtful {
                let message = format!("two contexts: `{}` and `{}`", clip(first), clip(second));
                let help = "name one folder or URL; quote a value that holds blanks";
                notes.push(Note::fault(message, help).at(parsed.rest_places[1]));
            }
            first
        }
    };
    if context == "-" {
        let help = "name a folder of the workspace, or a URL";
        notes.push(Note::fault("context `-` would be read from a terminal", help).at(parsed.rest_places[0]));
    }
    let line = BuildLine {
        images: Vec::new(),
        dockerfile: None,
        target: None,
        context: BuildContext::of(context),
        arguments: Vec::new(),
        labels: Vec::new(),
        no_cache: false,
        pull: false,
        platforms: Vec::new(),
        network: None,
        add_hosts: Vec::new(),
        secrets: Vec::new(),
        cache_from: Vec::new(),
        cache_to: Vec::new(),
    };
    if context.to_ascii_lowercase().contains("github") && matches!(line.context, BuildContext::Tarball(_)) {
        let message = format!("context `{}` is taken for an archive", clip(context));
        notes.push(Note::warning(message, "end the URL of a repository in `.git`").at(parsed.rest_places[0]));
    }
    let mut read = ReadBuild { line, isolation: None, notes };
    for Given { kind, value, word } in parsed.given {
        let before = read.notes.len();
        read.take(kind, value, environment);
        read.notes[before..].iter_mut().for_each(|note| note.word = Some(word));
    }
    read
}

impl ReadBuild {
    fn take(&mut self, part: Part, value: String, environment: &[(String, String)]) {
        let line = &mut self.line;
        match part {
            Part::Tag => match image(&value) {
                Ok(image) if line.images.contains(&image) => {}
                Ok(_) if line.images.len() == limits::IMAGES => self.notes.push(Note::fault(
                    format!("a build has more than {} images", limits::IMAGES),
                    "give it fewer names with `-t`",
                )),
                Ok(image) => line.images.push(image),
                Err(note) => self.notes.push(note),
            },
            Part::File if value.is_empty() || value == "-" => {
                self.notes.push(Note::fault("flag `-f` names no file", "write the Dockerfile's path behind it"));
            }
            Part::File => line.dockerfile = Some(value),
            Part::Target => line.target = Some(value).filter(|target| !target.is_empty()),
            Part::Argument => match value.split_once('=') {
                Some(("", _)) => {
                    self.notes.push(Note::fault("a `--build-arg` has no name", "write --build-arg NAME=VALUE"));
                }
                Some((name, value)) => line.arguments.push((name.to_owned(), value.to_owned())),
                None => match environment.iter().find(|(name, _)| *name == value) {
                    Some(pair) => line.arguments.push(pair.clone()),
                    None => {
                        let message = format!("build argument `{}` has no value", clip(&value));
                        let help = "it is left out; write --build-arg NAME=VALUE, or set it in the step's env";
                        self.notes.push(Note::warning(message, help));
                    }
                },
            },
            Part::Label => {
                let (name, value) = value.split_once('=').unwrap_or((&value, ""));
                line.labels.retain(|(before, _)| before != name);
                line.labels.push((name.to_owned(), value.to_owned()));
            }
            Part::NoCache => line.no_cache = value == "true",
            Part::Pull => line.pull = value == "true",
            Part::Platform => {
                for text in value.split(',') {
                    match Platform::parse(text) {
                        Ok(platform) if line.platforms.contains(&platform) => {}
                        Ok(platform) => line.platforms.push(platform),
                        Err(error) => self.notes.push(Note::fault(error.to_string(), "write for example linux/arm64")),
                    }
                }
            }
            Part::Network => match value.as_str() {
                "default" => line.network = None,
                "none" | "host" => line.network = Some(value),
                _ => {
                    let message = format!("flag `--network` of a build is `{}`", clip(&value));
                    self.notes.push(Note::fault(message, "BuildKit knows default, none and host"));
                }
            },
            Part::AddHost => match value.split_once(['=', ':']) {
                Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                    line.add_hosts.push((name.to_owned(), address.to_owned()));
                }
                _ => {
                    let message = format!("flag `--add-host` is `{}`", clip(&value));
                    self.notes.push(Note::fault(message, "write NAME:ADDRESS"));
                }
            },
            Part::Secret => match secret(&value, environment) {
                Ok(secret) if line.secrets.iter().any(|before| before.id == secret.id) => {
                    let message = format!("build secret `{}` is there twice", clip(&secret.id));
                    self.notes.push(Note::fault(message, "give each an id of its own"));
                }
                Ok(secret) => line.secrets.push(secret),
                Err(note) => self.notes.push(note),
            },
            Part::CacheFrom | Part::CacheTo => {
                let (flag, values) = match part {
                    Part::CacheFrom => ("--cache-from", &mut line.cache_from),
                    _ => ("--cache-to", &mut line.cache_to),
                };
                values.push(value);
                let message = format!("flag `{flag}` has no effect");
                self.notes.push(Note::warning(message, "keep the build's cache with the property `cache: enabled`"));
            }
            Part::Isolation => self.isolation = Some(value),
        }
    }
}

/// An image's name that can be given to what is built or pushed.
pub(super) fn image(text: &str) -> Result<ImageRef, Note> {
    let help = "write [REGISTRY/]NAME[:TAG]; the embedded registry's name is `{{.Run.Registry}}`";
    if text.contains('$') {
        let message = format!("image name `{}` holds a `$`", clip(text));
        return Err(Note::fault(message, "aliases such as `$Registry` count from `version: v1.1.0` on"));
    }
    let image = ImageRef::parse(text).map_err(|error| {
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            message = format!("{message}: {cause}");
        }
        Note::fault(message, help)
    })?;
    if image.digest.is_some() {
        return Err(Note::fault(format!("image name `{}` holds a digest", clip(text)), "name a tag instead"));
    }
    Ok(image.tagged_by_default())
}

/// `id=ID[,src=FILE|env=NAME]`
fn secret(text: &str, environment: &[(String, String)]) -> Result<BuildSecret, Note> {
    let help = "write --secret id=ID,src=FILE or --secret id=ID,env=NAME";
    let (mut id, mut file, mut env, mut of_env) = (None, None, None, false);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) => id = Some(value),
            Some(("src" | "source", value)) => file = Some(value),
            Some(("env", value)) => env = Some(value),
            Some(("type", value @ ("file" | "env"))) => of_env = value == "env",
            _ => return Err(Note::fault(format!("flag `--secret` holds `{}`", clip(part)), help)),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return Err(Note::fault("a `--secret` has no id", help));
    };
    let in_environment = |name: &str| environment.iter().any(|(known, _)| known == name);
    let source = match (file, env) {
        (_, Some(name)) => BuildSecretSource::Env(name.to_owned()),
        (Some(name), None) if of_env => BuildSecretSource::Env(name.to_owned()),
        (Some(path), None) => BuildSecretSource::File(path.to_owned()),
        (None, None) if of_env || in_environment(id) => BuildSecretSource::Env(id.to_owned()),
        (None, None) => BuildSecretSource::File(id.to_owned()),
    };
    if let BuildSecretSource::Env(name) = &source
        && !in_environment(name)
    {
        let message =
            format!("build secret `{}` is `{}` of the environment, which the step doesn't set", clip(id), clip(name));
        return Err(Note::fault(message, format!("add `{}=VALUE` to the step's env", clip(name))));
    }
    Ok(BuildSecret { id: id.to_owned(), source })
}

impl BuildContext {
    /// What kind of place a text names (contract §2.3).
    pub fn of(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let own = text.to_owned();
        // As it is read where it is fetched, so that nothing is one thing here and another there.
        match SourceLocation::parse(text) {
            Ok(SourceLocation::Remote(RemoteSource::Git(_))) => return Self::Git(own),
            Ok(SourceLocation::Remote(RemoteSource::Archive(_))) => return Self::Tarball(own),
            Ok(SourceLocation::Remote(RemoteSource::Artifact(_))) => return Self::Oci(own),
            Ok(
                SourceLocation::Local(_)
                | SourceLocation::Stdin
                | SourceLocation::Nothing
                | SourceLocation::Remote(RemoteSource::Uploaded(_)),
            ) => return Self::Local(own),
            // What is wrong with it is said where the step is planned.
            Err(_) => {}
        }
        if lower.starts_with("oci://") {
            Self::Oci(own)
        } else if ["git://", "git@", "github.com/"].iter().any(|start| text.starts_with(start)) {
            Self::Git(own)
        } else if lower.starts_with("http://") || lower.starts_with("https://") {
            let (address, fragment) =
                text.split_once('#').map_or((text, None), |(address, rest)| (address, Some(rest)));
            let git = address.ends_with(".git") && fragment != Some("");
            if git || is_azure_devops(address) { Self::Git(own) } else { Self::Tarball(own) }
        } else {
            Self::Local(own)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Local(text) | Self::Git(text) | Self::Tarball(text) | Self::Oci(text) => text,
        }
    }
}

/// A repository of Azure DevOps or of its former hosts.
fn is_azure_devops(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    let Some((authority, path)) = rest.split_once('/') else { return false };
    let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let known = host == "dev.azure.com" || host.ends_with(".visualstudio.com");
    scheme.eq_ignore_ascii_case("https")
        && known
        && format!("/{path}").to_ascii_lowercase().contains("/_git/")
        && !path.contains('?')
}

#[cfg(test)]
mod tests;
