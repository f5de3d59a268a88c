//! Between the wire and the domain's words, both ways. Everything that is missing or malformed is an error that names
//! the field; nothing is guessed.

mod task;

use std::time::Duration;

use cooper_engine::message::{
    BaseImage, Held, PlacementKey, PreparedFile, PreparedSource, PushedManifest, StepOutput, StepResult, ToAgent,
    ToServer,
};
use cooper_spec::source::RemoteSource;
use cooper_types::{
    AttemptNumber, ContextId, Digest, Fence, ImageRef, Platform, RegistryName, RepositoryName, RunId, SecretBytes,
    SecretString, StepId, Tag,
};

use super::wire::{self, agent_message, server_message, start_step, step_ended};
use super::work::{
    BuildContextOrder, BuildOrder, PrepareOrder, PushOrder, PushTarget, RegistryAccess, StepOrder, StepWork,
};
use super::{MAX_PREPARED_BYTES, MAX_PREPARED_FILE_BYTES, MAX_PREPARED_FILES};

/// A message that does not follow the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A field that must be there is not.
    #[error("message has no {0}")]
    Missing(&'static str),
    /// A field's value is not one of its kind.
    #[error("message has a bad {0}")]
    Bad(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

fn bad<E: std::error::Error + Send + Sync + 'static>(field: &'static str) -> impl FnOnce(E) -> ProtocolError {
    move |source| ProtocolError::Bad(field, Box::new(source))
}

fn key_message(key: PlacementKey) -> wire::PlacementKey {
    wire::PlacementKey { run: key.run.to_string(), fence: key.fence.0 }
}

impl wire::PlacementKey {
    /// The key in the domain's words.
    pub fn read(&self) -> Result<PlacementKey, ProtocolError> {
        let run = RunId::parse(&self.run).map_err(bad("run id"))?;
        Ok(PlacementKey { run, fence: Fence(self.fence) })
    }
}

fn read_key(key: Option<wire::PlacementKey>) -> Result<PlacementKey, ProtocolError> {
    key.ok_or(ProtocolError::Missing("placement key"))?.read()
}

/// The message that names an attempt.
pub fn attempt_message(key: PlacementKey, attempt: AttemptNumber) -> wire::Attempt {
    wire::Attempt { key: Some(key_message(key)), attempt: attempt.0 }
}

impl wire::Attempt {
    /// The attempt in the domain's words.
    pub fn read(&self) -> Result<(PlacementKey, AttemptNumber), ProtocolError> {
        Ok((read_key(self.key.clone())?, AttemptNumber(self.attempt)))
    }
}

/// Puts a message for an agent on the wire.
pub fn to_agent(message: ToAgent<StepOrder>) -> wire::ServerMessage {
    let message = match message {
        ToAgent::Offer { key, platform } => {
            server_message::Message::Offer(wire::Offer { key: Some(key_message(key)), platform: platform.to_string() })
        }
        ToAgent::StartStep { key, attempt, work } => {
            server_message::Message::StartStep(start_message(key, attempt, work))
        }
        ToAgent::Stop { key } => server_message::Message::Stop(key_message(key)),
        ToAgent::ResultStored { key, attempt } => server_message::Message::ResultStored(attempt_message(key, attempt)),
    };
    wire::ServerMessage { message: Some(message) }
}

/// Puts a message for the server on the wire.
pub fn to_server(message: ToServer) -> wire::AgentMessage {
    let message = match message {
        ToServer::Holding(held) => {
            let held = held
                .into_iter()
                .map(|held| wire::holding::Held {
                    key: Some(key_message(held.key)),
                    attempts: held.attempts.into_iter().map(|attempt| attempt.0).collect(),
                })
                .collect();
            agent_message::Message::Holding(wire::Holding { held, ..wire::Holding::default() })
        }
        ToServer::Accepted(key) => agent_message::Message::Accepted(key_message(key)),
        ToServer::Declined(key, why) => {
            agent_message::Message::Declined(wire::Declined { key: Some(key_message(key)), why })
        }
        ToServer::StepStarted(key, attempt) => {
            agent_message::Message::StepStarted(wire::StepStarted { key: Some(key_message(key)), attempt: attempt.0 })
        }
        ToServer::StepEnded(key, attempt, result) => agent_message::Message::StepEnded(wire::StepEnded {
            key: Some(key_message(key)),
            attempt: attempt.0,
            result: Some(result_message(result)),
        }),
        ToServer::Stopped(key) => agent_message::Message::Stopped(key_message(key)),
    };
    wire::AgentMessage { message: Some(message) }
}

/// Reads what the state machines understand of an agent's message; `None` for greetings and log frames.
pub fn read_agent_message(message: wire::AgentMessage) -> Result<Option<ToServer>, ProtocolError> {
    let message = message.message.ok_or(ProtocolError::Missing("content"))?;
    Ok(Some(match message {
        agent_message::Message::Hello(_) | agent_message::Message::LogFrames(_) => return Ok(None),
        agent_message::Message::Holding(holding) => {
            few("number of placements", holding.held.len(), MAX_HELD)?;
            let held = holding.held.into_iter().map(|held| {
                let attempts = held.attempts.into_iter().map(AttemptNumber).collect();
                Ok(Held { key: read_key(held.key)?, attempts })
            });
            ToServer::Holding(held.collect::<Result<_, ProtocolError>>()?)
        }
        agent_message::Message::Accepted(key) => ToServer::Accepted(key.read()?),
        agent_message::Message::Declined(declined) => ToServer::Declined(read_key(declined.key)?, clip(declined.why)),
        agent_message::Message::StepStarted(started) => {
            ToServer::StepStarted(read_key(started.key)?, AttemptNumber(started.attempt))
        }
        agent_message::Message::StepEnded(ended) => {
            let result = read_result(ended.result.ok_or(ProtocolError::Missing("result"))?)?;
            ToServer::StepEnded(read_key(ended.key)?, AttemptNumber(ended.attempt), result)
        }
        agent_message::Message::Stopped(key) => ToServer::Stopped(key.read()?),
    }))
}

/// Reads what the state machines understand of the server's message; `None` for greetings and log acknowledgements.
pub fn read_server_message(message: wire::ServerMessage) -> Result<Option<ToAgent<StepOrder>>, ProtocolError> {
    let message = message.message.ok_or(ProtocolError::Missing("content"))?;
    Ok(Some(match message {
        server_message::Message::Welcome(_) | server_message::Message::LogStored(_) => return Ok(None),
        server_message::Message::Offer(offer) => ToAgent::Offer {
            key: read_key(offer.key)?,
            platform: Platform::parse(&offer.platform).map_err(bad("platform"))?,
        },
        server_message::Message::StartStep(start) => {
            let (key, attempt) = (read_key(start.key.clone())?, AttemptNumber(start.attempt));
            ToAgent::StartStep { key, attempt, work: read_order(start)? }
        }
        server_message::Message::Stop(key) => ToAgent::Stop { key: key.read()? },
        server_message::Message::ResultStored(attempt) => {
            let (key, attempt) = attempt.read()?;
            ToAgent::ResultStored { key, attempt }
        }
    }))
}

fn result_message(result: StepResult) -> step_ended::Result {
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
            })
        }
        StepResult::Succeeded { output: StepOutput::Built { image, bases } } => {
            let bases = bases.into_iter().map(base_message).collect();
            step_ended::Result::Built(step_ended::Built { image: image.to_string(), bases })
        }
        StepResult::Succeeded { output: StepOutput::Pushed { manifests } } => {
            let manifests = manifests
                .into_iter()
                .map(|manifest| step_ended::Manifest {
                    repository: manifest.repository.to_string(),
                    staging_tag: manifest.staging_tag.to_string(),
                    digest: manifest.digest.to_string(),
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

fn read_result(result: step_ended::Result) -> Result<StepResult, ProtocolError> {
    Ok(match result {
        step_ended::Result::Prepared(prepared) => {
            let pinned = match prepared.pinned.as_str() {
                "" => None,
                text => Some(Digest::parse(text).map_err(bad("source digest"))?),
            };
            let is_commit = (prepared.commit.len() == 40 || prepared.commit.len() == 64)
                && prepared.commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !is_commit && (pinned.is_none() || !prepared.commit.is_empty()) {
                return Err(bad("commit")(NoCommit));
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
                    files: read_files(prepared.files)?,
                }),
            }
        }
        step_ended::Result::Built(built) => {
            few("number of base images", built.bases.len(), MAX_RESULTS)?;
            let bases = built.bases.into_iter().map(read_base).collect::<Result<_, ProtocolError>>()?;
            let image = Digest::parse(&built.image).map_err(bad("image id"))?;
            StepResult::Succeeded { output: StepOutput::Built { image, bases } }
        }
        step_ended::Result::Pushed(pushed) => {
            few("number of manifests", pushed.manifests.len(), MAX_RESULTS)?;
            let manifests = pushed.manifests.into_iter().map(|manifest| {
                Ok(PushedManifest {
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

fn start_message(key: PlacementKey, attempt: AttemptNumber, order: StepOrder) -> wire::StartStep {
    let pair = |name: String, value: String| wire::build_work::Pair { name, value };
    let work = match order.work {
        StepWork::Prepare(prepare) => start_step::Work::Prepare(wire::PrepareWork {
            source: prepare.source.to_string(),
            dockerfile: prepare.dockerfile.unwrap_or_default(),
            allowed_networks: prepare.allowed_networks,
            max_bytes: prepare.max_bytes,
            files: prepare.files,
            task_file: prepare.task_file.unwrap_or_default(),
        }),
        StepWork::Command(command) => start_step::Work::Command(task::command_message(command)),
        StepWork::Build(build) => start_step::Work::Build(wire::BuildWork {
            workspace_folder: match &build.context {
                BuildContextOrder::Workspace(folder) => Some(folder.clone()),
                BuildContextOrder::Fetched | BuildContextOrder::Remote(_) => None,
            },
            remote_source: match build.context {
                BuildContextOrder::Remote(source) => Some(source),
                BuildContextOrder::Fetched | BuildContextOrder::Workspace(_) => None,
            },
            network: build.network,
            add_hosts: build.add_hosts,
            cache: build.cache.map(|reference| reference.to_string()),
            own_bases: build.own_bases.into_iter().map(|(name, image)| pair(name, image.to_string())).collect(),
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
            targets: push
                .targets
                .into_iter()
                .map(|target| wire::push_work::Target {
                    repository: target.repository.to_string(),
                    staging_tag: target.staging_tag.to_string(),
                    image: target.image.to_string(),
                    registry: target.registry.map(|registry| registry.to_string()).unwrap_or_default(),
                })
                .collect(),
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
    }
}

fn read_order(start: wire::StartStep) -> Result<StepOrder, ProtocolError> {
    let work = match start.work.ok_or(ProtocolError::Missing("work"))? {
        start_step::Work::Prepare(prepare) => StepWork::Prepare(PrepareOrder {
            source: RemoteSource::parse(&prepare.source).map_err(bad("source"))?,
            dockerfile: Some(prepare.dockerfile).filter(|path| !path.is_empty()),
            files: prepare.files,
            task_file: Some(prepare.task_file).filter(|path| !path.is_empty()),
            allowed_networks: prepare.allowed_networks,
            max_bytes: prepare.max_bytes,
        }),
        start_step::Work::Command(command) => StepWork::Command(task::read_command(command)?),
        start_step::Work::Build(build) => StepWork::Build(BuildOrder {
            context: match (build.workspace_folder, build.remote_source) {
                (Some(folder), None) => BuildContextOrder::Workspace(folder),
                (None, Some(source)) => BuildContextOrder::Remote(source),
                (None, None) => BuildContextOrder::Fetched,
                (Some(_), Some(_)) => return Err(bad("context")(TwoContexts)),
            },
            network: build.network,
            add_hosts: build.add_hosts,
            cache: build.cache.map(|text| ImageRef::parse(&text)).transpose().map_err(bad("cache reference"))?,
            own_bases: build
                .own_bases
                .into_iter()
                .map(|base| Ok((base.name, Digest::parse(&base.value).map_err(bad("image id"))?)))
                .collect::<Result<_, ProtocolError>>()?,
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
            let targets = push.targets.into_iter().map(|target| {
                let image = if target.image.is_empty() { &push.image } else { &target.image };
                let registry = Some(&target.registry).filter(|registry| !registry.is_empty());
                Ok(PushTarget {
                    image: Digest::parse(image).map_err(bad("image id"))?,
                    registry: registry.map(|name| RegistryName::parse(name)).transpose().map_err(bad("registry"))?,
                    repository: RepositoryName::parse(&target.repository).map_err(bad("repository"))?,
                    staging_tag: Tag::parse(&target.staging_tag).map_err(bad("tag"))?,
                })
            });
            StepWork::Push(PushOrder { targets: targets.collect::<Result<_, ProtocolError>>()? })
        }
    };
    Ok(StepOrder {
        environment: start.environment.map(task::read_environment),
        tries: start.tries.map(task::read_tries).unwrap_or_default(),
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

/// The longest text, in characters, that an agent may put on a run's record.
const MAX_TEXT: usize = 4096;

/// The most placements that one report may name: several times the slots that an agent may have.
const MAX_HELD: usize = 4096;
/// The most base images or manifests that one result may name.
const MAX_RESULTS: usize = 1024;

/// Texts become lines of logs and records: a line break in one would let it pass for lines of the service's own.
fn clip(text: String) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text that is no commit's id.
#[derive(Debug, thiserror::Error)]
#[error("it is not 40 or 64 hexadecimal digits in lower case")]
struct NoCommit;

/// A build that is to take its files from two places.
#[derive(Debug, thiserror::Error)]
#[error("it names a workspace folder and a remote source")]
struct TwoContexts;

/// More of something than an honest agent says.
#[derive(Debug, thiserror::Error)]
#[error("{count} is more than {limit}")]
struct TooMany {
    count: usize,
    limit: usize,
}

fn few(field: &'static str, count: usize, limit: usize) -> Result<(), ProtocolError> {
    if count > limit { Err(bad(field)(TooMany { count, limit })) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use cooper_spec::plan::{Mount, Network, Tries};

    use super::super::work::{CommandImageOrder, CommandOrder, EnvironmentOrder, VolumeOrder};
    use super::*;

    fn key() -> PlacementKey {
        PlacementKey { run: RunId::from_number(7), fence: Fence(3) }
    }

    fn order(work: StepWork) -> StepOrder {
        StepOrder {
            step: StepId::parse("build").expect("valid"),
            timeout: Duration::from_secs(5),
            masked: vec![SecretBytes::new(b"s3cret".to_vec())],
            registry: RegistryAccess {
                name: RegistryName::parse("localhost:5000").expect("valid"),
                username: "run".to_owned(),
                password: SecretString::new("pw".to_owned()),
            },
            environment: None,
            tries: Tries::default(),
            work,
        }
    }

    #[test]
    fn messages_for_agents_survive_the_wire() {
        let build = StepWork::Build(BuildOrder {
            dockerfile: "Dockerfile".to_owned(),
            target: None,
            arguments: vec![("A".to_owned(), SecretString::new("b".to_owned()))],
            labels: vec![("l".to_owned(), "v".to_owned())],
            no_cache: true,
            secrets: vec![("id".to_owned(), SecretBytes::new(vec![0, 255]))],
            platform: Platform::LINUX_AMD64,
            shared_key: "k".to_owned(),
            context: BuildContextOrder::Workspace("src".to_owned()),
            network: Some("none".to_owned()),
            add_hosts: vec!["db:10.0.0.1".to_owned()],
            cache: Some(ImageRef::parse("localhost:5000/app:cache_quickrun_build").expect("valid")),
            own_bases: vec![("base:v1".to_owned(), Digest::sha256(b"base"))],
        });
        let command = StepWork::Command(CommandOrder {
            image: CommandImageOrder::Built(Digest::sha256(b"x")),
            arguments: vec![SecretString::new("echo".to_owned()), SecretString::new("a b".to_owned())],
            environment: vec![("A".to_owned(), SecretString::new("b=c".to_owned()))],
            mounts: vec![Mount { volume: "keys".to_owned(), path: "/run/keys".to_owned() }],
            platform: Platform::LINUX_AMD64,
            entry_point: Some("sh".to_owned()),
            working_directory: Some("/workspace".to_owned()),
            user: Some("1:1".to_owned()),
            network: Some("back".to_owned()),
            ports: vec!["8080:80".to_owned()],
            expose: vec!["80".to_owned()],
            cpus: Some("0.5".to_owned()),
            isolation: None,
            privileged: false,
            keep: true,
            detach: true,
            pull: true,
            pull_retries: 2,
            pull_retry_delay: Duration::from_secs(3),
        });
        let network = Network { name: "back".to_owned(), driver: None, ipv6: true, external: false };
        let file = ("key".to_owned(), SecretBytes::new(vec![0, 255]));
        let command = StepOrder {
            environment: Some(EnvironmentOrder {
                has_context: true,
                networks: vec![network],
                volumes: vec![VolumeOrder { name: "keys".to_owned(), files: vec![file] }],
            }),
            tries: Tries {
                start_delay: Duration::from_secs(1),
                retries: 2,
                retry_delay: Duration::from_secs(5),
                retry_on_errors: vec!["reset".to_owned()],
                repeat: 3,
            },
            ..order(command)
        };
        let prepare = |source: &str, task_file: Option<&str>| {
            StepWork::Prepare(PrepareOrder {
                source: RemoteSource::parse(source).expect("valid"),
                dockerfile: task_file.is_none().then(|| "Dockerfile".to_owned()),
                files: task_file.map(|_| "values.yaml".to_owned()).into_iter().collect(),
                task_file: task_file.map(str::to_owned),
                allowed_networks: vec!["10.0.0.0/8".to_owned()],
                max_bytes: 7,
            })
        };
        let push = StepWork::Push(PushOrder {
            targets: vec![PushTarget {
                image: Digest::sha256(b"x"),
                registry: Some(RegistryName::parse("registry.example").expect("valid")),
                repository: RepositoryName::parse("a/b").expect("valid"),
                staging_tag: Tag::parse("staged.ca7.2").expect("valid"),
            }],
        });
        let attempt = AttemptNumber(2);
        for message in [
            ToAgent::Offer { key: key(), platform: Platform::LINUX_AMD64 },
            ToAgent::StartStep {
                key: key(),
                attempt,
                work: order(prepare("https://git.example:8443/a/b.git#v1:sub/folder", None)),
            },
            ToAgent::StartStep {
                key: key(),
                attempt,
                work: order(prepare("https://h.example/a.tgz?sig=x#:sub", Some("acb.yaml"))),
            },
            ToAgent::StartStep { key: key(), attempt, work: order(build) },
            ToAgent::StartStep { key: key(), attempt, work: order(push) },
            ToAgent::StartStep { key: key(), attempt, work: command },
            ToAgent::Stop { key: key() },
            ToAgent::ResultStored { key: key(), attempt },
        ] {
            assert_eq!(read_server_message(to_agent(message.clone())).expect("reads"), Some(message));
        }
    }

    #[test]
    fn messages_for_the_server_survive_the_wire() {
        let attempt = AttemptNumber(2);
        let built = StepOutput::Built {
            image: Digest::sha256(b"x"),
            bases: vec![BaseImage { reference: "scratch".to_owned(), digest: None, runtime: true }],
        };
        let image = BaseImage { reference: "busybox".to_owned(), digest: Some(Digest::sha256(b"b")), runtime: true };
        let ran = StepOutput::Ran { image: Some(image) };
        let pushed = StepOutput::Pushed {
            manifests: vec![PushedManifest {
                repository: RepositoryName::parse("a").expect("valid"),
                staging_tag: Tag::latest(),
                digest: Digest::sha256(b"y"),
            }],
        };
        let prepared = |branch: Option<&str>| {
            StepOutput::Prepared(PreparedSource {
                commit: branch.map(|_| "0123456789abcdef0123456789abcdef01234567".to_owned()),
                branch: branch.map(str::to_owned),
                tag: branch.is_none().then(|| "v1".to_owned()),
                context: ContextId::parse("c-1").expect("valid"),
                digest: Digest::sha256(b"archive"),
                size: 7,
                dockerfile: branch.map(|_| "Dockerfile".to_owned()),
                pinned: branch.is_none().then(|| Digest::sha256(b"as it came")),
                files: vec![
                    PreparedFile { name: "acb.yaml".to_owned(), content: Some(vec![0, 255]) },
                    PreparedFile { name: "empty".to_owned(), content: Some(Vec::new()) },
                    PreparedFile { name: "missing".to_owned(), content: None },
                ],
            })
        };
        for message in [
            ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: prepared(Some("main")) }),
            ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: prepared(None) }),
            ToServer::Holding(vec![Held { key: key(), attempts: vec![attempt] }]),
            ToServer::Accepted(key()),
            ToServer::Declined(key(), "busy".to_owned()),
            ToServer::StepStarted(key(), attempt),
            ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: built }),
            ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: pushed }),
            ToServer::StepEnded(key(), attempt, StepResult::Succeeded { output: ran }),
            ToServer::StepEnded(key(), attempt, StepResult::Failed { exit_code: Some(3), reason: "r".to_owned() }),
            ToServer::StepEnded(key(), attempt, StepResult::TimedOut),
            ToServer::StepEnded(key(), attempt, StepResult::Lost { reason: "r".to_owned() }),
            ToServer::Stopped(key()),
        ] {
            assert_eq!(read_agent_message(to_server(message.clone())).expect("reads"), Some(message));
        }
    }

    #[test]
    fn texts_stay_one_line_and_lists_stay_short() {
        let reason = format!("no\nRun ID: ca7 was successful\r\u{1b}[2J{}", "x".repeat(2 * MAX_TEXT));
        let lost = StepResult::Lost { reason };
        let read = read_agent_message(to_server(ToServer::StepEnded(key(), AttemptNumber(1), lost))).expect("reads");
        let Some(ToServer::StepEnded(_, _, StepResult::Lost { reason })) = read else { panic!("{read:?}") };
        assert!(reason.starts_with("no Run ID: ca7 was successful  [2Jx"), "{reason}");
        assert_eq!(reason.chars().count(), MAX_TEXT);

        let many = |count| ToServer::Holding(vec![Held { key: key(), attempts: Vec::new() }; count]);
        assert!(read_agent_message(to_server(many(MAX_HELD))).is_ok());
        let error = read_agent_message(to_server(many(MAX_HELD + 1))).expect_err("refused");
        assert_eq!(error.to_string(), "message has a bad number of placements");
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |message: agent_message::Message, expect: &str| {
            let error = read_agent_message(wire::AgentMessage { message: Some(message) }).expect_err("refused");
            assert_eq!(error.to_string(), expect);
        };
        check(agent_message::Message::StepEnded(wire::StepEnded::default()), "message has no result");
        check(agent_message::Message::StepStarted(wire::StepStarted::default()), "message has no placement key");
        let prepared =
            step_ended::Result::Prepared(step_ended::Prepared { commit: "main".to_owned(), ..Default::default() });
        let ended = wire::StepEnded { result: Some(prepared), ..Default::default() };
        check(agent_message::Message::StepEnded(ended), "message has a bad commit");
        let (commit, dockerfile) = ("a".repeat(40), "x".repeat(MAX_TEXT + 1));
        let prepared = step_ended::Result::Prepared(step_ended::Prepared { commit, dockerfile, ..Default::default() });
        let ended = wire::StepEnded { result: Some(prepared), ..Default::default() };
        check(agent_message::Message::StepEnded(ended), "message has a bad length of the Dockerfile's path");
        check(agent_message::Message::Stopped(wire::PlacementKey::default()), "message has a bad run id");
        let of = |files: Vec<step_ended::SourceFile>, pinned: &str| {
            let pinned = pinned.to_owned();
            let context = "c".to_owned();
            let digest = Digest::sha256(b"archive").to_string();
            let prepared = step_ended::Prepared { files, pinned, context, digest, ..Default::default() };
            let result = Some(step_ended::Result::Prepared(prepared));
            agent_message::Message::StepEnded(wire::StepEnded { result, ..Default::default() })
        };
        let file = |len: usize| step_ended::SourceFile { name: "f".to_owned(), content: Some(vec![0; len]) };
        let pinned = Digest::sha256(b"as it came").to_string();
        check(of(Vec::new(), ""), "message has a bad commit");
        check(of(Vec::new(), "latest"), "message has a bad source digest");
        check(of(vec![file(MAX_PREPARED_FILE_BYTES + 1)], &pinned), "message has a bad length of a file");
        check(of(vec![file(MAX_PREPARED_FILE_BYTES); 5], &pinned), "message has a bad length of all files");
        check(of(vec![file(0); MAX_PREPARED_FILES + 1], &pinned), "message has a bad number of files");
    }
}
