//! How an attempt ended. Agents are not trusted: texts are clipped to a line, lists and files are limited.

use cooper_engine::message::{
    BaseImage, DefinitionPin, Frontend, PreparedFile, PreparedSource, PushedManifest, Resolved, StepOutput, StepResult,
};
use cooper_spec::source::SourcePin;
use cooper_types::{AttemptNumber, ContextId, Digest, RegistryName, RepositoryName, Tag};

use super::super::wire::{self, step_ended, step_started};
use super::super::{MAX_PREPARED_BYTES, MAX_PREPARED_FILE_BYTES, MAX_PREPARED_FILES};
use super::{MAX_TEXT, ProtocolError, bad, clip, few};

/// The most base images or manifests that one result may name.
const MAX_RESULTS: usize = 1024;

/// A text that is no commit's id.
#[derive(Debug, thiserror::Error)]
#[error("it is not 40 or 64 hexadecimal digits in lower case")]
struct NoCommit;

pub(super) fn result_message(result: StepResult) -> step_ended::Result {
    match result {
        StepResult::Succeeded { output: StepOutput::Prepared(found) } => {
            step_ended::Result::Prepared(step_ended::Prepared {
                commit: found.commit.unwrap_or_default(),
                branch: found.branch.unwrap_or_default(),
                tag: found.tag.unwrap_or_default(),
                context: found.context.to_string(),
                digest: found.digest.to_string(),
                size: found.size,
                dockerfile: found.dockerfile.unwrap_or_default(),
                files: found
                    .files
                    .into_iter()
                    .map(|file| step_ended::SourceFile { name: file.name, content: file.content })
                    .collect(),
                pinned: found.pinned.map(|digest| digest.to_string()).unwrap_or_default(),
                definition: found.definition.map(|pin| pin.commit).unwrap_or_default(),
            })
        }
        StepResult::Succeeded { output: StepOutput::Built { image, bases, frontend, context } } => {
            let bases = bases.into_iter().map(base_message).collect();
            let frontend =
                frontend.map(|Frontend { reference, digest }| BaseImage { reference, digest, runtime: false });
            let frontend = frontend.map(base_message);
            let context = context.map(ContextBuilt::from);
            step_ended::Result::Built(step_ended::Built { image: image.to_string(), bases, frontend, context })
        }
        StepResult::Succeeded { output: StepOutput::Pushed { manifests } } => {
            let manifests = manifests
                .into_iter()
                .map(|manifest| step_ended::Manifest {
                    repository: manifest.repository.to_string(),
                    staging_tag: manifest.staging_tag.to_string(),
                    digest: manifest.digest.to_string(),
                    registry: manifest.registry.map(|registry| registry.to_string()).unwrap_or_default(),
                })
                .collect();
            step_ended::Result::Pushed(step_ended::Pushed { manifests })
        }
        StepResult::Succeeded { output: StepOutput::Ran { image } } => {
            step_ended::Result::Ran(step_ended::Ran { image: image.map(base_message) })
        }
        StepResult::Failed { exit_code, reason } => {
            step_ended::Result::Failed(step_ended::Failed { exit_code, reason })
        }
        StepResult::TimedOut => step_ended::Result::TimedOut(step_ended::TimedOut {}),
        StepResult::Lost { reason } => step_ended::Result::Lost(step_ended::Lost { reason }),
    }
}

pub(super) fn resolved_message(
    key: wire::PlacementKey,
    attempt: AttemptNumber,
    resolved: Resolved,
) -> wire::StepStarted {
    let context = resolved.context.map(ContextStarted::from);
    let bases = resolved.bases.into_iter().map(base_message).collect();
    wire::StepStarted { key: Some(key), attempt: attempt.0, bases, context, tries: resolved.tries }
}

/// What an attempt has resolved; nothing if it says of nothing.
pub(super) fn read_resolved(
    bases: Vec<step_ended::BaseImage>,
    context: Option<step_started::Context>,
    tries: u32,
) -> Result<Option<Resolved>, ProtocolError> {
    few("number of base images", bases.len(), MAX_RESULTS)?;
    let context = context.map(SourcePin::try_from).transpose()?;
    let bases = bases.into_iter().map(read_base).collect::<Result<Vec<_>, ProtocolError>>()?;
    let resolved = Resolved { bases, context, tries };
    Ok((resolved != Resolved::default()).then_some(resolved))
}

fn read_commit(commit: String) -> Result<SourcePin, ProtocolError> {
    if is_commit(&commit) { Ok(SourcePin::Commit(commit)) } else { Err(bad("commit")(NoCommit)) }
}

fn read_digest(digest: &str) -> Result<SourcePin, ProtocolError> {
    Digest::parse(digest).map(SourcePin::Digest).map_err(bad("source digest"))
}

/// What a context was found to be, in each message that says so: protobuf gives each a type of its own.
macro_rules! source_pin_of {
    ($name:ident, $wire:ty) => {
        type $name = $wire;

        impl From<SourcePin> for $name {
            fn from(pin: SourcePin) -> Self {
                match pin {
                    SourcePin::Commit(commit) => Self::ContextCommit(commit),
                    SourcePin::Digest(digest) => Self::ContextDigest(digest.to_string()),
                }
            }
        }

        impl TryFrom<$name> for SourcePin {
            type Error = ProtocolError;

            fn try_from(pin: $name) -> Result<Self, ProtocolError> {
                match pin {
                    $name::ContextCommit(commit) => read_commit(commit),
                    $name::ContextDigest(digest) => read_digest(&digest),
                }
            }
        }
    };
}

source_pin_of!(ContextBuilt, step_ended::built::Context);
source_pin_of!(ContextStarted, step_started::Context);

fn base_message(base: BaseImage) -> step_ended::BaseImage {
    step_ended::BaseImage {
        reference: base.reference,
        digest: base.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        runtime: base.runtime,
    }
}

fn read_base(base: step_ended::BaseImage) -> Result<BaseImage, ProtocolError> {
    let digest = match base.digest.as_str() {
        "" => None,
        text => Some(Digest::parse(text).map_err(bad("base image digest"))?),
    };
    Ok(BaseImage { reference: clip(base.reference), digest, runtime: base.runtime })
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn read_result(result: step_ended::Result) -> Result<StepResult, ProtocolError> {
    Ok(match result {
        step_ended::Result::Prepared(prepared) => {
            let pinned = match prepared.pinned.as_str() {
                "" => None,
                text => Some(Digest::parse(text).map_err(bad("source digest"))?),
            };
            if !is_commit(&prepared.commit) && (pinned.is_none() || !prepared.commit.is_empty()) {
                return Err(bad("commit")(NoCommit));
            }
            if !prepared.definition.is_empty() && !is_commit(&prepared.definition) {
                return Err(bad("definition's commit")(NoCommit));
            }
            // Clipped, it would name another file.
            few("length of the Dockerfile's path", prepared.dockerfile.len(), MAX_TEXT)?;
            let name = |text: String| Some(clip(text)).filter(|text| !text.is_empty());
            StepResult::Succeeded {
                output: StepOutput::Prepared(PreparedSource {
                    commit: Some(prepared.commit).filter(|commit| !commit.is_empty()),
                    branch: name(prepared.branch),
                    tag: name(prepared.tag),
                    context: ContextId::parse(&prepared.context).map_err(bad("context id"))?,
                    digest: Digest::parse(&prepared.digest).map_err(bad("archive digest"))?,
                    size: prepared.size,
                    dockerfile: Some(prepared.dockerfile).filter(|path| !path.is_empty()),
                    pinned,
                    definition: Some(prepared.definition)
                        .filter(|commit| !commit.is_empty())
                        .map(|commit| Box::new(DefinitionPin { commit })),
                    files: read_files(prepared.files)?,
                }),
            }
        }
        step_ended::Result::Built(built) => {
            few("number of base images", built.bases.len(), MAX_RESULTS)?;
            let bases = built.bases.into_iter().map(read_base).collect::<Result<_, ProtocolError>>()?;
            let image = Digest::parse(&built.image).map_err(bad("image id"))?;
            let frontend = built.frontend.map(read_base).transpose()?;
            let frontend = frontend.map(|BaseImage { reference, digest, .. }| Frontend { reference, digest });
            let context = built.context.map(SourcePin::try_from).transpose()?;
            StepResult::Succeeded { output: StepOutput::Built { image, bases, frontend, context } }
        }
        step_ended::Result::Pushed(pushed) => {
            few("number of manifests", pushed.manifests.len(), MAX_RESULTS)?;
            let manifests = pushed.manifests.into_iter().map(|manifest| {
                let registry = Some(manifest.registry).filter(|registry| !registry.is_empty());
                Ok(PushedManifest {
                    registry: registry.map(|name| RegistryName::parse(&name)).transpose().map_err(bad("registry"))?,
                    repository: RepositoryName::parse(&manifest.repository).map_err(bad("repository"))?,
                    staging_tag: Tag::parse(&manifest.staging_tag).map_err(bad("tag"))?,
                    digest: Digest::parse(&manifest.digest).map_err(bad("digest"))?,
                })
            });
            let manifests = manifests.collect::<Result<_, ProtocolError>>()?;
            StepResult::Succeeded { output: StepOutput::Pushed { manifests } }
        }
        step_ended::Result::Ran(ran) => {
            StepResult::Succeeded { output: StepOutput::Ran { image: ran.image.map(read_base).transpose()? } }
        }
        step_ended::Result::Failed(failed) => {
            StepResult::Failed { exit_code: failed.exit_code, reason: clip(failed.reason) }
        }
        step_ended::Result::TimedOut(_) => StepResult::TimedOut,
        step_ended::Result::Lost(lost) => StepResult::Lost { reason: clip(lost.reason) },
    })
}

fn read_files(files: Vec<step_ended::SourceFile>) -> Result<Vec<PreparedFile>, ProtocolError> {
    few("number of files", files.len(), MAX_PREPARED_FILES)?;
    let len = |file: &step_ended::SourceFile| file.content.as_ref().map_or(0, Vec::len);
    for file in &files {
        few("length of a file's name", file.name.len(), MAX_TEXT)?;
        few("length of a file", len(file), MAX_PREPARED_FILE_BYTES)?;
    }
    few("length of all files", files.iter().map(len).sum(), MAX_PREPARED_BYTES)?;
    Ok(files.into_iter().map(|file| PreparedFile { name: file.name, content: file.content }).collect())
}
