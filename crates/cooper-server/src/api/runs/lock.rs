//! The lockfile of a run, made of what its record, its request and its results say.

use cooper_api::rest::{
    LOCKFILE_VERSION, LockedContext, LockedImage, LockedPlacement, LockedSecret, LockedSource, LockedStep, LockedText,
    LockedValue, Lockfile,
};
use cooper_engine::message::{Frontend, StepOutput};
use cooper_engine::run::{KeptAsked, Run, RunSource, StepState};
use cooper_ports::runs::{RunRecord, StoredRequest};
use cooper_spec::plan::{ArgumentValue, BuildContext, BuildWork, CommandImage, Work};
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_spec::task_request::{SecretVersion, TaskRequest, TaskText, TextDigest, TextRole, UsedSecret};
use cooper_types::Digest;

use crate::api::view::{rest_run_type, step_type};

/// What an engine's own frontend is called.
const BUILT_IN: &str = "built-in";

/// What a run was made from, as far as it is known: with the values that came with its request, or with their names alone.
pub(super) fn lockfile(record: &RunRecord, stored: Option<&StoredRequest>, with_values: bool) -> Lockfile {
    let run = &record.run;
    let found = run.source.as_ref().and_then(RunSource::found);
    let uploaded = stored.and_then(|stored| stored.uploaded.as_ref());
    let context = match (found, uploaded) {
        (Some(found), _) => Some((&found.digest, found.size)),
        (None, Some(context)) => Some((&context.digest, context.size)),
        (None, None) => None,
    };
    let mut lockfile = Lockfile {
        version: LOCKFILE_VERSION,
        run_id: run.id,
        run_type: rest_run_type(record.run_type),
        rerun_of: run.rerun_of(),
        source: run.source.as_ref().map(|source| LockedSource {
            location: source.location().shown(),
            commit: found.and_then(|found| found.commit.clone()),
            branch: found.and_then(|found| found.branch.clone()),
            tag: found.and_then(|found| found.tag.clone()),
            digest: found.and_then(|found| Some(found.pinned.as_ref()?.to_string())),
        }),
        context: context.map(|(digest, size)| LockedContext { digest: digest.to_string(), size }),
        task_file: None,
        values_file: None,
        alias_files: Vec::new(),
        values: Vec::new(),
        secrets: run.provenance.secrets.iter().map(secret).collect(),
        placements: placements(run),
        steps: (0..run.plan.steps.len()).map(|index| step(record, index)).collect(),
    };
    if let Some(StoredRequest { request, digests, .. }) = stored
        && let KeptAsked::Task { request: task, .. } = &request.asked
    {
        add_task(&mut lockfile, task, digests);
    }
    if !with_values {
        let arguments = lockfile.steps.iter_mut().flat_map(|step| &mut step.arguments);
        lockfile.values.iter_mut().chain(arguments).for_each(|value| value.value = None);
    }
    lockfile
}

/// What a task file's run was planned from.
fn add_task(lockfile: &mut Lockfile, task: &TaskRequest, digests: &[TextDigest]) {
    let is_there = |path: &str| digests.iter().any(|text| text.role == TextRole::Source && text.name == path);
    let (file, values) = (task.file_in_source(is_there), task.values.as_ref().and_then(TaskText::path));
    for TextDigest { role, name, digest } in digests {
        let text = LockedText { name: name.clone(), digest: digest.to_string() };
        let is_read = |path: Option<&str>| *role == TextRole::Source && path == Some(name.as_str());
        if *role == TextRole::TaskFile || is_read(file) {
            lockfile.task_file = Some(text);
        } else if *role == TextRole::ValuesFile || is_read(values) {
            lockfile.values_file = Some(text);
        } else if *role == TextRole::Source && task.fallbacks.contains(name) {
            // It was looked for and not taken.
        } else if !(*role == TextRole::Source && lockfile.alias_files.iter().any(|other| other.name == *name)) {
            // What came with the request comes before what the source has under the same name.
            lockfile.alias_files.push(text);
        }
    }
    lockfile.values = task
        .set
        .iter()
        .map(|set| LockedValue { name: set.name.clone(), value: set.value.clone(), is_secret: set.value.is_none() })
        .collect();
}

fn secret(used: &UsedSecret) -> LockedSecret {
    let (version, fingerprint) = match &used.version {
        SecretVersion::Kept(version) => (Some(version.clone()), None),
        SecretVersion::Fingerprint(print) => (None, Some(print.clone())),
    };
    LockedSecret {
        id: used.id.clone(),
        provider: used.provider.clone(),
        place: used.asked.clone(),
        version,
        fingerprint,
    }
}

fn placements(run: &Run) -> Vec<LockedPlacement> {
    let placements = run.plan.placements.iter().enumerate();
    placements
        .map(|(index, placement)| {
            let host = run.provenance.hosts.get(&index);
            LockedPlacement {
                platform: placement.platform.to_string(),
                agent: host.map(|host| host.agent.to_string()),
                agent_version: host.map(|host| host.version.clone()),
                engine: host.map(|host| host.engine.clone()),
            }
        })
        .collect()
}

fn step(record: &RunRecord, index: usize) -> LockedStep {
    let run = &record.run;
    let planned = &run.plan.steps[index];
    let resolved = record.base_images.iter().filter(|base| base.step == planned.id);
    let image = |reference: &str, digest: Option<&Digest>| LockedImage {
        reference: reference.to_owned(),
        digest: digest.map(ToString::to_string),
    };
    let mut resolved = resolved.map(|base| image(&base.base.reference, base.base.digest.as_ref()));
    let mut step = LockedStep {
        id: planned.id.clone(),
        step_type: step_type(&planned.work),
        platform: run.plan.placements[planned.placement].platform.to_string(),
        context: None,
        bases: Vec::new(),
        frontend: None,
        image: None,
        arguments: Vec::new(),
        secrets: Vec::new(),
    };
    match &planned.work {
        Work::Build(build) => {
            step.bases = resolved.collect();
            step.frontend = match &run.steps[index].state {
                StepState::Succeeded { output: StepOutput::Built { frontend, .. }, .. } => Some(match frontend {
                    Some(Frontend { reference, digest }) => image(reference, digest.as_ref()),
                    None => image(BUILT_IN, None),
                }),
                _ => None,
            };
            step.context = fetched(&build.context, run.context_of(planned, &run.steps[index]));
            step.arguments = arguments(build);
            let files = build.secret_files.iter().map(|file| file.id.clone());
            let texts = build.secret_texts.iter().map(|(id, _)| id.clone());
            step.secrets = build.secrets.iter().cloned().chain(files).chain(texts).collect();
        }
        Work::Command(command) => {
            step.image = match &command.image {
                CommandImage::Named(name) => Some(resolved.next().unwrap_or_else(|| image(name, None))),
                CommandImage::Pinned { name, digest } => Some(image(name, Some(digest))),
                CommandImage::Built { .. } => None,
            };
        }
        Work::Push(_) | Work::Prepare(_) => {}
    }
    step
}

/// A context that a step fetches for itself, as it was found or has to be.
fn fetched(context: &BuildContext, found: Option<&SourcePin>) -> Option<LockedSource> {
    let BuildContext::Remote { source, found: expected } = context else { return None };
    let found = found.or(expected.as_ref());
    Some(LockedSource {
        // One that was planned can be read.
        location: RemoteSource::parse(source).ok()?.shown(),
        commit: found.and_then(SourcePin::commit).map(str::to_owned),
        branch: None,
        tag: None,
        digest: found.and_then(SourcePin::digest).map(ToString::to_string),
    })
}

fn arguments(build: &BuildWork) -> Vec<LockedValue> {
    let argument = |argument: &cooper_spec::plan::BuildArgument| {
        let value = match &argument.value {
            ArgumentValue::Plain(text) => Some(text.clone()),
            ArgumentValue::Secret | ArgumentValue::Kept(_) => None,
        };
        LockedValue { name: argument.name.clone(), is_secret: value.is_none(), value }
    };
    build.arguments.iter().map(argument).collect()
}
