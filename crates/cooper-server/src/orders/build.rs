//! A build's order.

use cooper_api::agent::{BuildContextOrder, BuildOrder, CacheOrder, EnvironmentOrder};
use cooper_engine::run::Run;
use cooper_spec::plan::{ArgumentValue, BuildContext, BuildWork, PushedFrom, PushedName, SecretFile, Work};
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_types::{ImageRef, Platform, SecretBytes, SecretString};

use super::secrets::RunSecrets;
use super::{OrderError, built_image};
use crate::core::Core;

/// Each name is looked for in its registry before the build begins.
const MAX_CACHES: usize = 4;

pub(super) fn order(
    core: &Core,
    run: &Run,
    (step, build): (usize, &BuildWork),
    environment: Option<&EnvironmentOrder>,
    platform: &Platform,
    secrets: &RunSecrets,
) -> Result<BuildOrder, OrderError> {
    let arguments = build.arguments.iter().map(|argument| {
        let value = match &argument.value {
            ArgumentValue::Plain(text) => SecretString::new(text.clone()),
            ArgumentValue::Secret => secrets.argument(&argument.name)?,
            ArgumentValue::Kept(name) => secrets.kept(name)?,
        };
        Ok((argument.name.clone(), value))
    });
    let arguments = arguments.collect::<Result<_, OrderError>>()?;
    // A build may see the secrets that it names, and no others of its run.
    let named = secrets.build.iter().filter(|(id, _)| build.secrets.contains(id)).cloned();
    let files = build.secret_files.iter().map(|file| Ok((file.id.clone(), file_of(environment, file)?)));
    let files = files.collect::<Result<Vec<_>, OrderError>>()?;
    let texts = build.secret_texts.iter().map(|(id, text)| {
        let value = secrets.text(text)?;
        Ok((id.clone(), SecretBytes::new(value.expose().as_bytes().to_vec())))
    });
    let texts = texts.collect::<Result<Vec<_>, OrderError>>()?;
    // What a failed step was to build is read where its name says, if that is asked for at all: its failure is ignored.
    let own_bases =
        build.own_bases.iter().filter_map(|(name, step)| Some((name.clone(), built_image(run, *step).ok()?)));
    let staged_bases = build
        .staged_bases
        .iter()
        .filter_map(|base| Some((base.name.clone(), run.staged_image(base.staged_by, &base.image)?)));
    Ok(BuildOrder {
        context: match &build.context {
            BuildContext::Uploaded(_) => BuildContextOrder::Fetched,
            BuildContext::Workspace { folder } => BuildContextOrder::Workspace(folder.clone()),
            BuildContext::Remote { source, found } => BuildContextOrder::Remote {
                source: match (RemoteSource::parse(source), found) {
                    (Ok(location), Some(found)) => location.pinned(found.commit(), found.digest()).to_string(),
                    _ => source.clone(),
                },
                digest: found.as_ref().and_then(SourcePin::digest).cloned(),
            },
        },
        dockerfile: build.dockerfile.clone(),
        target: build.target.clone(),
        arguments,
        labels: build.labels.clone(),
        no_cache: build.no_cache,
        secrets: named.chain(files).chain(texts).collect(),
        platform: platform.clone(),
        shared_key: core.key.context_sharing(&run.principal),
        network: build.network.clone(),
        add_hosts: build.add_hosts.clone(),
        cache: build.cache.clone().map(|reference| {
            let is_elsewhere = reference.registry.as_ref() != Some(&run.registry);
            let writable = is_elsewhere || run.own_cache(step).is_some();
            CacheOrder { reference, writable, images: pushed_as(run, step) }
        }),
        frontends: core.frontends.clone(),
        allowed_networks: core.allowed_sources.iter().map(ToString::to_string).collect(),
        own_bases: own_bases.collect(),
        staged_bases: staged_bases.collect(),
        pinned: build.pinned.clone(),
    })
}

/// The names under which a build's image is pushed and may have been pushed before: those that are not this run's alone.
fn pushed_as(run: &Run, step: usize) -> Vec<ImageRef> {
    let is_it = |from: &PushedFrom| match from {
        PushedFrom::Built(built) => *built == step,
        PushedFrom::Index(parts) => parts.iter().any(|part| part.built_by == step),
        PushedFrom::Staged(_) => false,
    };
    let id = run.id.to_string();
    let mut names: Vec<ImageRef> = Vec::new();
    for planned in &run.plan.steps {
        let Work::Push(push) = &planned.work else { continue };
        let is_stage = push.is_stage;
        for PushedName { image, .. } in push.names.iter().filter(|name| !is_stage && is_it(&name.from)) {
            let is_own = image.tag.as_ref().is_some_and(|tag| tag.as_str().contains(&id));
            if !is_own && !names.contains(image) && names.len() < MAX_CACHES {
                names.push(image.clone());
            }
        }
    }
    names
}

/// The contents of a secret volume's file.
fn file_of(environment: Option<&EnvironmentOrder>, wanted: &SecretFile) -> Result<SecretBytes, OrderError> {
    let volumes = environment.map(|environment| environment.volumes.as_slice()).unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.name == wanted.volume);
    let file = volume.and_then(|volume| volume.files.iter().find(|(name, _)| *name == wanted.file));
    let missing = || OrderError::Volume { volume: wanted.volume.clone(), file: wanted.file.clone() };
    file.map(|(_, data)| data.clone()).ok_or_else(missing)
}
