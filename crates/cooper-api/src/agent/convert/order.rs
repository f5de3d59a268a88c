//! What a step is told to do.

use std::time::Duration;

use cooper_engine::message::PlacementKey;
use cooper_engine::run::KnownVariables;
use cooper_spec::dockerfile::{FrontendRule, FrontendRules};
use cooper_spec::source::RemoteSource;
use cooper_types::{
    AttemptNumber, Digest, ImageRef, ImageRefError, Platform, RegistryName, RepositoryName, SecretBytes, SecretString,
    StepId, Tag, Timestamp,
};

use super::super::wire::{self, start_step};
use super::super::work::{
    BuildContextOrder, BuildOrder, CacheOrder, PrepareOrder, PushFrom, PushOrder, PushTarget, RegistryAccess,
    StepOrder, StepWork, TaskOrder,
};
use super::{ProtocolError, bad, key_message, task};

/// A build that is to take its files from two places.
#[derive(Debug, thiserror::Error)]
#[error("it names a workspace folder and a remote source")]
struct TwoContexts;

pub(super) fn start_message(key: PlacementKey, attempt: AttemptNumber, order: StepOrder) -> wire::StartStep {
    let pair = |name: String, value: String| wire::build_work::Pair { name, value };
    let work = match order.work {
        StepWork::Prepare(prepare) => start_step::Work::Prepare(wire::PrepareWork {
            source: prepare.source.to_string(),
            dockerfile: prepare.dockerfile.unwrap_or_default(),
            allowed_networks: prepare.allowed_networks,
            max_bytes: prepare.max_bytes,
            files: prepare.files,
            task_file: prepare.task_file.unwrap_or_default(),
            definition: prepare.definition.unwrap_or_default(),
            created_us: prepare.task.as_ref().map_or(0, |task| task.created.as_micros()),
            branch: prepare.task.as_ref().and_then(|task| task.known.branch.clone()),
            git_tag: prepare.task.as_ref().and_then(|task| task.known.git_tag.clone()),
            task_name: prepare.task.as_ref().map(|task| task.known.task_name.clone()).unwrap_or_default(),
            triggered_by: prepare.task.as_ref().map(|task| task.known.triggered_by.clone()).unwrap_or_default(),
            task_request: prepare
                .task
                .map(|task| serde_json::to_vec(&task.request).expect("a struct of texts is JSON"))
                .unwrap_or_default(),
        }),
        StepWork::Command(command) => start_step::Work::Command(task::command_message(command)),
        StepWork::Build(build) => start_step::Work::Build(wire::BuildWork {
            workspace_folder: match &build.context {
                BuildContextOrder::Workspace(folder) => Some(folder.clone()),
                BuildContextOrder::Fetched | BuildContextOrder::Remote { .. } => None,
            },
            remote_digest: match &build.context {
                BuildContextOrder::Remote { digest, .. } => digest.as_ref().map(ToString::to_string),
                BuildContextOrder::Fetched | BuildContextOrder::Workspace(_) => None,
            },
            remote_source: match build.context {
                BuildContextOrder::Remote { source, .. } => Some(source),
                BuildContextOrder::Fetched | BuildContextOrder::Workspace(_) => None,
            },
            network: build.network,
            add_hosts: build.add_hosts,
            cache_writable: build.cache.as_ref().is_some_and(|cache| cache.writable),
            cache_from: build.cache.iter().flat_map(|cache| &cache.images).map(ToString::to_string).collect(),
            cache: build.cache.map(|cache| cache.reference.to_string()),
            own_bases: build.own_bases.into_iter().map(|(name, image)| pair(name, image.to_string())).collect(),
            staged_bases: build.staged_bases.into_iter().map(|(name, image)| pair(name, image.to_string())).collect(),
            frontends: build.frontends.0.iter().map(ToString::to_string).collect(),
            allowed_networks: build.allowed_networks,
            pinned: build.pinned.into_iter().map(|(name, digest)| pair(name, digest.to_string())).collect(),
            dockerfile: build.dockerfile,
            target: build.target.unwrap_or_default(),
            arguments: build.arguments.into_iter().map(|(name, value)| pair(name, value.expose().to_owned())).collect(),
            labels: build.labels.into_iter().map(|(name, value)| pair(name, value)).collect(),
            no_cache: build.no_cache,
            secrets: build
                .secrets
                .into_iter()
                .map(|(id, value)| wire::build_work::Secret { id, value: value.expose().to_vec() })
                .collect(),
            platform: build.platform.to_string(),
            shared_key: build.shared_key,
        }),
        StepWork::Push(push) => start_step::Work::Push(wire::PushWork {
            image: String::new(),
            targets: push.targets.into_iter().map(target_message).collect(),
            allowed_networks: push.allowed_networks,
        }),
    };
    wire::StartStep {
        key: Some(key_message(key)),
        attempt: attempt.0,
        step: order.step.to_string(),
        timeout_ms: u64::try_from(order.timeout.as_millis()).unwrap_or(u64::MAX),
        masked: order.masked.iter().map(|value| value.expose().to_vec()).collect(),
        registry: order.registry.name.to_string(),
        registry_username: order.registry.username,
        registry_password: order.registry.password.expose().to_owned(),
        work: Some(work),
        environment: order.environment.map(task::environment_message),
        tries: (!order.tries.is_plain()).then(|| task::tries_message(order.tries)),
        beside: order.beside,
    }
}

fn target_message(target: PushTarget) -> wire::push_work::Target {
    let mut message = wire::push_work::Target {
        repository: target.repository.to_string(),
        staging_tag: target.staging_tag.to_string(),
        registry: target.registry.map(|registry| registry.to_string()).unwrap_or_default(),
        ..wire::push_work::Target::default()
    };
    match target.from {
        PushFrom::Image(image) => message.image = image.to_string(),
        PushFrom::Manifest(digest) => message.manifest = digest.to_string(),
        PushFrom::Index(parts) => {
            let part = |(platform, digest): (Platform, Digest)| wire::push_work::Part {
                platform: platform.to_string(),
                digest: digest.to_string(),
            };
            message.parts = parts.into_iter().map(part).collect();
        }
    }
    message
}

fn read_target(target: wire::push_work::Target, image: &str) -> Result<PushTarget, ProtocolError> {
    let from = if !target.parts.is_empty() {
        let part = |part: wire::push_work::Part| {
            let platform = Platform::parse(&part.platform).map_err(bad("platform"))?;
            Ok((platform, Digest::parse(&part.digest).map_err(bad("manifest"))?))
        };
        PushFrom::Index(target.parts.into_iter().map(part).collect::<Result<_, ProtocolError>>()?)
    } else if !target.manifest.is_empty() {
        PushFrom::Manifest(Digest::parse(&target.manifest).map_err(bad("manifest"))?)
    } else {
        let image = if target.image.is_empty() { image } else { &target.image };
        PushFrom::Image(Digest::parse(image).map_err(bad("image id"))?)
    };
    let registry = Some(&target.registry).filter(|registry| !registry.is_empty());
    Ok(PushTarget {
        from,
        registry: registry.map(|name| RegistryName::parse(name)).transpose().map_err(bad("registry"))?,
        repository: RepositoryName::parse(&target.repository).map_err(bad("repository"))?,
        staging_tag: Tag::parse(&target.staging_tag).map_err(bad("tag"))?,
    })
}

/// Names and the digests that they stand for.
fn read_images(images: Vec<wire::build_work::Pair>) -> Result<Vec<(String, Digest)>, ProtocolError> {
    let image = |pair: wire::build_work::Pair| Ok((pair.name, Digest::parse(&pair.value).map_err(bad("image id"))?));
    images.into_iter().map(image).collect()
}

fn read_cache(reference: &str, images: &[String], writable: bool) -> Result<CacheOrder, ImageRefError> {
    let images = images.iter().map(|image| ImageRef::parse(image)).collect::<Result<_, _>>()?;
    Ok(CacheOrder { reference: ImageRef::parse(reference)?, writable, images })
}

pub(super) fn read_order(start: wire::StartStep) -> Result<StepOrder, ProtocolError> {
    let work = match start.work.ok_or(ProtocolError::Missing("work"))? {
        start_step::Work::Prepare(prepare) => StepWork::Prepare(PrepareOrder {
            source: RemoteSource::read(&prepare.source).map_err(bad("source"))?,
            dockerfile: Some(prepare.dockerfile).filter(|path| !path.is_empty()),
            files: prepare.files,
            task_file: Some(prepare.task_file).filter(|path| !path.is_empty()),
            definition: Some(prepare.definition).filter(|reference| !reference.is_empty()),
            task: match prepare.task_request.as_slice() {
                [] => None,
                json => Some(TaskOrder {
                    request: serde_json::from_slice(json).map_err(bad("task request"))?,
                    created: Timestamp::from_micros(prepare.created_us),
                    known: KnownVariables {
                        branch: prepare.branch,
                        git_tag: prepare.git_tag,
                        task_name: prepare.task_name,
                        triggered_by: prepare.triggered_by,
                    },
                }),
            },
            allowed_networks: prepare.allowed_networks,
            max_bytes: prepare.max_bytes,
        }),
        start_step::Work::Command(command) => StepWork::Command(task::read_command(command)?),
        start_step::Work::Build(build) => StepWork::Build(BuildOrder {
            context: match (build.workspace_folder, build.remote_source) {
                (Some(folder), None) => BuildContextOrder::Workspace(folder),
                (None, Some(source)) => {
                    let digest = build.remote_digest.map(|digest| Digest::parse(&digest).map_err(bad("source digest")));
                    BuildContextOrder::Remote { source, digest: digest.transpose()? }
                }
                (None, None) => BuildContextOrder::Fetched,
                (Some(_), Some(_)) => return Err(bad("context")(TwoContexts)),
            },
            network: build.network,
            add_hosts: build.add_hosts,
            cache: build
                .cache
                .map(|reference| read_cache(&reference, &build.cache_from, build.cache_writable))
                .transpose()
                .map_err(bad("cache reference"))?,
            own_bases: read_images(build.own_bases)?,
            staged_bases: build
                .staged_bases
                .into_iter()
                .map(|base| Ok((base.name, ImageRef::parse(&base.value).map_err(bad("base image"))?)))
                .collect::<Result<_, ProtocolError>>()?,
            frontends: {
                let rules = build.frontends.iter().map(|rule| FrontendRule::parse(rule));
                FrontendRules(rules.collect::<Result<_, _>>().map_err(bad("frontend"))?)
            },
            allowed_networks: build.allowed_networks,
            pinned: read_images(build.pinned)?,
            dockerfile: build.dockerfile,
            target: Some(build.target).filter(|target| !target.is_empty()),
            arguments: build.arguments.into_iter().map(|p| (p.name, SecretString::new(p.value))).collect(),
            labels: build.labels.into_iter().map(|p| (p.name, p.value)).collect(),
            no_cache: build.no_cache,
            secrets: build.secrets.into_iter().map(|s| (s.id, SecretBytes::new(s.value))).collect(),
            platform: Platform::parse(&build.platform).map_err(bad("platform"))?,
            shared_key: build.shared_key,
        }),
        start_step::Work::Push(push) => {
            let targets = push.targets.into_iter().map(|target| read_target(target, &push.image));
            let targets = targets.collect::<Result<_, ProtocolError>>()?;
            StepWork::Push(PushOrder { targets, allowed_networks: push.allowed_networks })
        }
    };
    Ok(StepOrder {
        environment: start.environment.map(task::read_environment),
        tries: start.tries.map(task::read_tries).unwrap_or_default(),
        beside: start.beside,
        step: StepId::parse(&start.step).map_err(bad("step id"))?,
        timeout: Duration::from_millis(start.timeout_ms),
        masked: start.masked.into_iter().map(SecretBytes::new).collect(),
        registry: RegistryAccess {
            name: RegistryName::parse(&start.registry).map_err(bad("registry name"))?,
            username: start.registry_username,
            password: SecretString::new(start.registry_password),
        },
        work,
    })
}
