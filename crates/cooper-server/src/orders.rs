//! An attempt's order for an agent: the plan's step with secrets opened and a registry credential of its own.

mod build;
mod command;
mod secrets;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::agent::{
    EnvironmentOrder, PrepareOrder, PushFrom, PushOrder, PushTarget, RegistryAccess, StepOrder, StepWork, TaskOrder,
    VolumeOrder,
};
use cooper_engine::message::StepOutput;
use cooper_engine::run::{Run, RunSource, StepState};
use cooper_ports::runs::SecretKind;
use cooper_ports::store_error::StoreError;
use cooper_registry::AttemptCredential;
use cooper_spec::plan::{
    Environment, IndexPart, PrepareWork, PushWork, PushedFrom, PushedName, SecretVolume, Text, Work,
};
use cooper_spec::source::RemoteSource;
use cooper_types::{
    Access as RepositoryAccess, AttemptNumber, Digest, ImageRef, RepositoryName, RepositoryPattern, Scope, SecretBytes,
    SecretString, SourceHost, Tag, TaskName,
};
use secrets::RunSecrets;

use crate::acr_image::AcrImageError;
use crate::core::Core;
use crate::keys::UnsealError;

/// The user name that goes with an attempt's credential; the registry looks at the password alone.
const REGISTRY_USER: &str = "cooper-run";

/// Why an order can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The attempt is over.
    #[error("the attempt is over")]
    Over,
    /// The step that built the image has not succeeded.
    #[error("the image that it needs has not been built")]
    NoImage,
    /// A secret is missing or not text.
    #[error("secret build argument `{0}` is missing or not text")]
    Argument(String),
    /// A secret text of the plan is missing or not text.
    #[error("secret text `{0}` of the run is missing or not text")]
    Text(String),
    /// A secret volume's file is no base64.
    #[error("file `{file}` of volume `{volume}` is not base64")]
    Volume {
        /// The volume.
        volume: String,
        /// The file.
        file: String,
    },
    /// A secret does not open.
    #[error("a secret of the run can't be read")]
    Unseal(#[from] UnsealError),
    /// The server's own image can't be served.
    #[error("the image of `acr` can't be made")]
    OwnImage(#[from] AcrImageError),
    /// The store failed.
    #[error("the run's secrets can't be read")]
    Store(#[from] StoreError),
}

impl OrderError {
    /// Whether it comes of the user's work: a step failed, and the run was to go on without what it makes.
    pub(crate) fn is_users(&self) -> bool {
        matches!(self, Self::NoImage)
    }

    /// Whether it is on its way: nothing is wrong.
    pub(crate) fn is_soon(&self) -> bool {
        matches!(self, Self::OwnImage(AcrImageError::Making))
    }

    /// Whether the same order may be made later. Agents' reports ask for it again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => match error {
                StoreError::StorageFull { .. }
                | StoreError::Commit(_)
                | StoreError::Closed
                | StoreError::Panicked
                | StoreError::Database { .. } => true,
                StoreError::Corrupt { .. } | StoreError::Newer { .. } => false,
            },
            Self::OwnImage(error) => !matches!(error, AcrImageError::Absent),
            Self::Over | Self::NoImage | Self::Argument(_) | Self::Text(_) | Self::Volume { .. } | Self::Unseal(_) => {
                false
            }
        }
    }
}

/// What a secret is bound to when it is sealed.
pub(crate) fn sealing_purpose(kind: SecretKind, name: &str) -> String {
    format!("{}/{name}", kind.as_str())
}

/// What a secret of a stored task is bound to when it is sealed.
pub(crate) fn task_secret_purpose(task: &TaskName, kind: SecretKind, name: &str) -> String {
    format!("task/{}/{}/{name}", task.key(), kind.as_str())
}

/// What a stored task's credential is bound to when it is sealed. The key is [`TaskName::key`].
pub(crate) fn task_credential_purpose(key: &str, host: &SourceHost) -> String {
    format!("task-credential/{key}/{host}")
}

/// What a Git host's credential is bound to when it is sealed.
pub(crate) fn credential_purpose(host: &SourceHost) -> String {
    format!("source-credential/{host}")
}

/// Makes the order for a live attempt at a step.
pub(crate) async fn make(core: &Core, run: &Run, step: usize, attempt: AttemptNumber) -> Result<StepOrder, OrderError> {
    let planned = &run.plan.steps[step];
    let placement = &run.plan.placements[planned.placement];
    let secrets = match &planned.work {
        Work::Build(_) | Work::Command(_) => RunSecrets::open(core, run, attempt).await?,
        Work::Prepare(_) | Work::Push(_) => RunSecrets::default(),
    };
    let environment = match (&planned.work, &placement.environment) {
        (Work::Build(_) | Work::Command(_), Some(environment)) => Some(EnvironmentOrder {
            registry_by_address: has_acr_client(run, planned.placement),
            ..environment_order(environment, &secrets)?
        }),
        (Work::Prepare(_) | Work::Push(_), _) | (_, None) => None,
    };
    // Credentials for sources are asked for host by host, and masked from then on.
    let mut masked = secrets.masked();
    let work = match &planned.work {
        Work::Prepare(prepare) => StepWork::Prepare(PrepareOrder {
            source: prepare.source.clone(),
            dockerfile: prepare.dockerfile.clone(),
            files: prepare.files.clone(),
            task_file: prepare.task_file.clone(),
            definition: prepare.definition.clone(),
            task: match &run.source {
                Some(RunSource::TaskWanted { task, .. }) => {
                    Some(TaskOrder { request: (**task).clone(), created: run.created, known: run.known_variables() })
                }
                _ => None,
            },
            allowed_networks: core.allowed_sources.iter().map(ToString::to_string).collect(),
            max_bytes: core.context_files.max_bytes(),
        }),
        Work::Build(build) => StepWork::Build(build::order(
            core,
            run,
            (step, build),
            environment.as_ref(),
            &placement.platform,
            &secrets,
        )?),
        Work::Push(push) => StepWork::Push(PushOrder {
            targets: push_targets(run, step, push, attempt)?,
            allowed_networks: core.allowed_sources.iter().map(ToString::to_string).collect(),
        }),
        Work::Command(command) => {
            let mut order = command::order(run, command, &placement.platform, &secrets)?;
            if command::is_acr_client(run, command) {
                let password = credential(core, run, step, attempt, Deletes::Yes);
                masked.push(SecretBytes::new(password.expose().as_bytes().to_vec()));
                command::serve_acr_client(core, run, &mut order, password).await?;
            }
            StepWork::Command(order)
        }
    };
    Ok(StepOrder {
        step: planned.id.clone(),
        timeout: planned.timeout,
        masked,
        registry: RegistryAccess {
            name: run.registry.clone(),
            username: REGISTRY_USER.to_owned(),
            password: credential(core, run, step, attempt, Deletes::No),
        },
        environment,
        tries: planned.tries.clone(),
        beside: run.plan.speaks_beside(step),
        work,
    })
}

/// Whether a step of a placement is the server's own program.
fn has_acr_client(run: &Run, placement: usize) -> bool {
    let is_one = |work: &Work| matches!(work, Work::Command(command) if command::is_acr_client(run, command));
    run.plan.steps.iter().any(|step| step.placement == placement && is_one(&step.work))
}

/// What the steps of a placement share, with the secret files' contents.
fn environment_order(environment: &Environment, secrets: &RunSecrets) -> Result<EnvironmentOrder, OrderError> {
    let volume = |volume: &SecretVolume| {
        let file = |(name, text): &(String, Text)| {
            let data = STANDARD.decode(secrets.text(text)?.expose());
            let data = data.map_err(|_| OrderError::Volume { volume: volume.name.clone(), file: name.clone() })?;
            Ok((name.clone(), SecretBytes::new(data)))
        };
        let files = volume.files.iter().map(file).collect::<Result<_, OrderError>>()?;
        Ok(VolumeOrder { name: volume.name.clone(), files })
    };
    Ok(EnvironmentOrder {
        has_context: environment.context.is_some(),
        networks: environment.networks.clone(),
        volumes: environment.volumes.iter().map(volume).collect::<Result<_, OrderError>>()?,
        registry_by_address: false,
    })
}

fn push_targets(
    run: &Run,
    step: usize,
    push: &PushWork,
    attempt: AttemptNumber,
) -> Result<Vec<PushTarget>, OrderError> {
    let mut targets = Vec::new();
    for target in run.tag_targets(step, attempt) {
        let image = ImageRef {
            registry: Some(run.registry.clone()),
            repository: target.repository.clone(),
            tag: None,
            digest: None,
        };
        targets.push(PushTarget {
            from: pushed_from(run, &target.from, &image)?,
            registry: None,
            repository: target.repository,
            staging_tag: target.staging_tag,
        });
    }
    for PushedName { image, from } in &push.names {
        if image.registry.as_ref() != Some(&run.registry) {
            targets.push(PushTarget {
                from: pushed_from(run, from, image)?,
                registry: image.registry.clone(),
                repository: image.repository.clone(),
                staging_tag: image.tag.clone().unwrap_or_else(Tag::latest),
            });
        }
    }
    Ok(targets)
}

/// What goes to the repository of `image`.
fn pushed_from(run: &Run, from: &PushedFrom, image: &ImageRef) -> Result<PushFrom, OrderError> {
    Ok(match from {
        PushedFrom::Built(step) => PushFrom::Image(built_image(run, *step)?),
        PushedFrom::Staged(stage) => PushFrom::Manifest(staged_digest(run, *stage, image)?),
        PushedFrom::Index(parts) => {
            let part = |part: &IndexPart| Ok((part.platform.clone(), staged_digest(run, part.staged_by, image)?));
            PushFrom::Index(parts.iter().map(part).collect::<Result<_, OrderError>>()?)
        }
    })
}

/// The digest under which a stage left something in the repository of `image`.
fn staged_digest(run: &Run, stage: usize, image: &ImageRef) -> Result<Digest, OrderError> {
    run.staged_image(stage, image).and_then(|image| image.digest).ok_or(OrderError::NoImage)
}

/// The id of what a step has built, on the engine that built it.
fn built_image(run: &Run, step: usize) -> Result<Digest, OrderError> {
    match run.steps.get(step).map(|step| &step.state) {
        Some(StepState::Succeeded { output: StepOutput::Built { image, .. }, .. }) => Ok(image.clone()),
        _ => Err(OrderError::NoImage),
    }
}

/// Whether a source is an artifact in the server's own registry.
fn is_own_artifact(run: &Run, prepare: &PrepareWork) -> bool {
    matches!(&prepare.source, RemoteSource::Artifact(source) if *source.registry() == run.registry)
}

/// Whether a credential may delete what the run's token may delete.
#[derive(Clone, Copy, Debug)]
enum Deletes {
    Yes,
    No,
}

/// The attempt's credential: it pushes to the plan's repositories and that of its cache, and pulls what the run's principal may pull; one at a
/// source has nothing to do there, unless the source is there. The registry re-checks on each write that the attempt is live.
///
/// What deletes is for one container alone: that of the server's own program, of which it is known what it deletes. The
/// agent's credential serves all containers of the placement.
fn credential(core: &Core, run: &Run, step: usize, attempt: AttemptNumber, deletes: Deletes) -> SecretString {
    let planned = &run.plan.steps[step];
    let push: BTreeSet<RepositoryName> = match &planned.work {
        // Each once, however many tags it gets: the credential goes in a header. Whatever the plan says, never beyond what
        // the run's token allowed.
        Work::Push(push) => push
            .names
            .iter()
            .map(|name| &name.image)
            .filter(|image| image.registry.as_ref() == Some(&run.registry))
            .map(|image| &image.repository)
            .filter(|repository| run.scopes.repository(repository, RepositoryAccess::Push))
            .cloned()
            .collect(),
        // Its cache, and nothing else becomes real of what it writes.
        Work::Build(_) => run.own_cache(step).map(|cache| cache.repository.clone()).into_iter().collect(),
        Work::Prepare(_) | Work::Command(_) => BTreeSet::new(),
    };
    // What the run itself left there is read by its digest, whether or not the token may pull.
    let is_left = |image: &&ImageRef| {
        let may_push = run.scopes.repository(&image.repository, RepositoryAccess::Push);
        image.registry.as_ref() == Some(&run.registry) && may_push
    };
    let left: BTreeSet<&RepositoryName> = match &planned.work {
        Work::Build(build) => {
            build.staged_bases.iter().map(|base| &base.image).filter(is_left).map(|image| &image.repository).collect()
        }
        Work::Push(push) => {
            let taken = push.names.iter().filter(|name| !matches!(name.from, PushedFrom::Built(_)));
            taken.map(|name| &name.image).filter(is_left).map(|image| &image.repository).collect()
        }
        Work::Prepare(_) | Work::Command(_) => BTreeSet::new(),
    };
    let scopes: &[Scope] = match &planned.work {
        Work::Prepare(prepare) if !is_own_artifact(run, prepare) => &[],
        Work::Prepare(_) | Work::Build(_) | Work::Push(_) | Work::Command(_) => &run.scopes.0,
    };
    let pull = scopes
        .iter()
        .filter_map(|scope| match scope {
            Scope::Admin => Some(RepositoryPattern::All),
            Scope::Repository(pattern, accesses) if accesses.contains(&RepositoryAccess::Pull) => Some(pattern.clone()),
            Scope::Repository(..) | Scope::Read | Scope::Run | Scope::Agent | Scope::AgentOf(_) => None,
        })
        .chain(left.into_iter().cloned().map(RepositoryPattern::Named))
        .collect();
    let deletes = matches!(deletes, Deletes::Yes);
    let delete = run.scopes.0.iter().filter_map(|scope| match scope {
        Scope::Admin if deletes => Some(RepositoryPattern::All),
        Scope::Repository(pattern, accesses) if deletes && accesses.contains(&RepositoryAccess::Delete) => {
            Some(pattern.clone())
        }
        _ => None,
    });
    core.signing.mint_attempt(&AttemptCredential {
        run: run.id,
        step: planned.id.clone(),
        attempt,
        principal: run.principal.clone(),
        push: push.into_iter().collect(),
        pull,
        delete: delete.collect(),
        expires: core.clock.now().after(run.patience(planned, &core.policy)),
    })
}

#[cfg(test)]
mod tests {
    use cooper_spec::plan::{BuildContext, BuildWork, CommandImage, CommandWork, StagedBase};
    use cooper_types::{ImageRef, Platform, Scopes, StepId};

    use super::*;
    use crate::testing::{self, accept_git};

    #[tokio::test]
    async fn what_a_failed_step_was_to_build_is_missing_and_no_failure_of_the_machinery() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let mut run = core.runs.find_run(id).await.expect("store").expect("run").run;
        let image = || ImageRef::parse("localhost:5000/mine:v1").expect("valid");
        // Step 0 has built nothing: as far as the others can tell, it failed.
        let mut push = run.plan.steps[0].clone();
        push.work = Work::Push(PushWork::of_one(0, [image()]));
        let mut build = run.plan.steps[0].clone();
        let base = StagedBase { name: "staged".to_owned(), image: image(), staged_by: 1 };
        build.work = Work::Build(BuildWork {
            own_bases: vec![("own".to_owned(), 0)],
            staged_bases: vec![base],
            ..BuildWork::new(BuildContext::Workspace { folder: String::new() }, "Dockerfile")
        });
        let state = run.steps[0].clone();
        for planned in [push, build] {
            run.plan.steps.push(planned);
            run.steps.push(state.clone());
        }
        let error = make(&core, &run, 1, AttemptNumber(1)).await.expect_err("there is nothing to push");
        assert!(error.is_users() && !error.may_pass(), "{error}");
        let secrets = RunSecrets::default();
        let Work::Build(work) = &run.plan.steps[2].work else { panic!("it is a build") };
        let order =
            build::order(&core, &run, (2, work), None, &run.plan.placements[0].platform, &secrets).expect("an order");
        assert!(order.own_bases.is_empty() && order.staged_bases.is_empty(), "{order:?}");
    }

    #[tokio::test]
    async fn only_the_servers_own_program_deletes() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let mut run = core.runs.find_run(id).await.expect("store").expect("run").run;
        run.scopes = Scopes(vec![Scope::parse("repository:team/*:pull,delete").expect("valid")]);
        let pattern = RepositoryPattern::Under(RepositoryName::parse("team").expect("valid"));
        for (image, is_acr) in [
            ("mcr.microsoft.com/acr/acr-cli:0.19", true),
            ("mcr.microsoft.com/acr/acr-cli-x:0.19", false),
            ("localhost:5000/cooperage/acr-cli:old", true),
            ("localhost:5000/acr/acr-cli:0.19", false),
            ("busybox", false),
        ] {
            let command = CommandWork::new(CommandImage::Named(image.to_owned()));
            assert_eq!(command::is_acr_client(&run, &command), is_acr, "{image}");
            run.plan.steps[0].work = Work::Command(command);
            let of = |deletes| {
                let password = credential(&core, &run, 0, AttemptNumber(1), deletes);
                core.signing.verify_attempt(&password, core.clock.now()).expect("it is this server's").delete
            };
            assert_eq!(of(Deletes::No), [], "what all containers of the placement use");
            assert_eq!(of(Deletes::Yes), std::slice::from_ref(&pattern));
        }
    }

    #[tokio::test]
    async fn the_servers_own_program_is_led_nowhere_else() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let run = core.runs.find_run(id).await.expect("store").expect("run").run;
        let of = async |environment: &[(&str, &str)]| {
            let mut work = CommandWork::new(CommandImage::Named("mcr.microsoft.com/acr/acr-cli:0.19".to_owned()));
            work.entry_point = Some("/workspace/mine".to_owned());
            let mut order =
                command::order(&run, &work, &Platform::LINUX_AMD64, &RunSecrets::default()).expect("an order");
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), SecretString::new((*value).to_owned()));
            order.environment = environment.iter().map(pair).collect();
            command::lead(&run, &mut order, SecretString::new("password".to_owned()));
            assert_eq!(order.entry_point, None);
            let text = |(name, value): &(String, SecretString)| format!("{name}={}", value.expose());
            order.environment.iter().map(text).collect::<Vec<_>>()
        };
        let led = ["COOPER_REGISTRY_ADDRESS", "COOPER_REGISTRY_PASSWORD", "HTTPS_PROXY", "LD_PRELOAD"];
        let own = ["ACR_DEFAULT_REGISTRY=localhost:5000", "COOPER_REGISTRY_PASSWORD=password"];
        assert_eq!(of(&led.map(|name| (name, "http://203.0.113.9"))).await, own);
        assert_eq!(of(&[("ACR_DEFAULT_REGISTRY", "r.io"), (led[0], "x")]).await, ["ACR_DEFAULT_REGISTRY=r.io"]);
    }

    #[tokio::test]
    async fn an_attempts_credential_never_exceeds_the_runs_token() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let mut run = core.runs.find_run(id).await.expect("store").expect("run").run;
        let of = |run: &Run, step: usize| {
            let password = credential(&core, run, step, AttemptNumber(1), Deletes::Yes);
            core.signing.verify_attempt(&password, core.clock.now()).expect("it is this server's")
        };
        let prepare = of(&run, 0);
        assert_eq!((prepare.push, prepare.pull), (Vec::new(), Vec::new()), "it has nothing to do in the registry");

        // A plan that says more than its token allows.
        let images = ["localhost:5000/mine:v1", "localhost:5000/other:v1"];
        let images = images.map(|image| ImageRef::parse(image).expect("valid")).to_vec();
        let mut push = run.plan.steps[0].clone();
        push.id = StepId::parse("push").expect("valid");
        push.work = Work::Push(PushWork::of_one(0, images));
        run.plan.steps.push(push);
        run.scopes = Scopes(vec![Scope::parse("repository:mine:push").expect("valid")]);
        assert_eq!(of(&run, 1).push, [RepositoryName::parse("mine").expect("valid")]);
        assert_eq!(of(&run, 1).pull, [], "its own engine has the image");
        run.scopes = Scopes::default();
        assert_eq!(of(&run, 1).push, []);

        // What a stage of the run left has to be read.
        let mut build = run.plan.steps[0].clone();
        let bases = ["localhost:5000/mine", "localhost:5000/other"].map(|image| StagedBase {
            name: "base".to_owned(),
            image: ImageRef::parse(image).expect("valid"),
            staged_by: 0,
        });
        let work = BuildWork::new(BuildContext::Workspace { folder: String::new() }, "Dockerfile");
        build.work = Work::Build(BuildWork { staged_bases: bases.to_vec(), ..work });
        run.plan.steps.push(build);
        run.scopes = Scopes(vec![Scope::parse("repository:mine:push").expect("valid")]);
        let mine = RepositoryPattern::Named(RepositoryName::parse("mine").expect("valid"));
        assert_eq!((of(&run, 2).push, of(&run, 2).pull), (Vec::new(), vec![mine.clone()]));

        // And the cache goes where the token may push.
        for (cache, push) in
            [("localhost:5000/mine:cache_t_b", true), ("localhost:5000/other:c", false), ("r.io/mine:c", false)]
        {
            let Work::Build(build) = &mut run.plan.steps[2].work else { panic!("it is a build") };
            build.cache = Some(ImageRef::parse(cache).expect("valid"));
            let repositories = Some(RepositoryName::parse("mine").expect("valid")).filter(|_| push);
            assert_eq!(of(&run, 2).push, repositories.into_iter().collect::<Vec<_>>(), "{cache}");
        }
    }
}
