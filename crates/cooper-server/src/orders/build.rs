//! A build's order.

use cooper_api::agent::{BuildContextOrder, BuildOrder, EnvironmentOrder};
use cooper_engine::run::Run;
use cooper_spec::plan::{ArgumentValue, BuildContext, BuildWork, SecretFile};
use cooper_types::{Platform, SecretBytes, SecretString};

use super::secrets::RunSecrets;
use super::{OrderError, built_image};
use crate::core::Core;

pub(super) fn order(
    core: &Core,
    run: &Run,
    build: &BuildWork,
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
            BuildContext::Remote { source } => BuildContextOrder::Remote(source.clone()),
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
        cache: build.cache.clone(),
        frontends: core.frontends.clone(),
        allowed_networks: core.allowed_sources.iter().map(ToString::to_string).collect(),
        own_bases: own_bases.collect(),
        staged_bases: staged_bases.collect(),
        pinned: build.pinned.clone(),
    })
}

/// The contents of a secret volume's file.
fn file_of(environment: Option<&EnvironmentOrder>, wanted: &SecretFile) -> Result<SecretBytes, OrderError> {
    let volumes = environment.map(|environment| environment.volumes.as_slice()).unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.name == wanted.volume);
    let file = volume.and_then(|volume| volume.files.iter().find(|(name, _)| *name == wanted.file));
    let missing = || OrderError::Volume { volume: wanted.volume.clone(), file: wanted.file.clone() };
    file.map(|(_, data)| data.clone()).ok_or_else(missing)
}
