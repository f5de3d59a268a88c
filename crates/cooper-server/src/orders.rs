//! An attempt's order for an agent: the plan's step with secrets opened and a registry credential of its own.

use std::collections::{BTreeMap, BTreeSet};

use cooper_api::agent::{BuildOrder, PrepareOrder, PushOrder, PushTarget, RegistryAccess, StepOrder, StepWork};
use cooper_engine::message::StepOutput;
use cooper_engine::run::{Run, StepState};
use cooper_ports::runs::{SealedSecret, SecretKind, SecretsError};
use cooper_ports::store_error::StoreError;
use cooper_registry::AttemptCredential;
use cooper_spec::plan::{ArgumentValue, BuildWork, PlannedStep, PushWork, Work};
use cooper_types::{
    Access as RepositoryAccess, AttemptNumber, RepositoryName, RepositoryPattern, Scope, SecretBytes, SecretString,
    SourceHost,
};

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
    #[error("the image to push has not been built")]
    NoImage,
    /// A secret is missing or not text.
    #[error("secret build argument `{0}` is missing or not text")]
    Argument(String),
    /// A secret does not open.
    #[error("a secret of the run can't be read")]
    Unseal(#[from] UnsealError),
    /// The store failed.
    #[error("the run's secrets can't be read")]
    Store(#[from] StoreError),
}

impl OrderError {
    /// Whether the same order may be made later. Agents' reports ask for it again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => match error {
                StoreError::StorageFull { .. }
                | StoreError::Commit(_)
                | StoreError::Closed
                | StoreError::Panicked
                | StoreError::Database { .. } => true,
                StoreError::Corrupt { .. } => false,
            },
            Self::Over | Self::NoImage | Self::Argument(_) | Self::Unseal(_) => false,
        }
    }
}

/// What a secret is bound to when it is sealed.
pub(crate) fn sealing_purpose(kind: SecretKind, name: &str) -> String {
    format!("{}/{name}", kind.as_str())
}

/// What a Git host's credential is bound to when it is sealed.
pub(crate) fn credential_purpose(host: &SourceHost) -> String {
    format!("source-credential/{host}")
}

/// Makes the order for a live attempt at a step.
pub(crate) async fn make(core: &Core, run: &Run, step: usize, attempt: AttemptNumber) -> Result<StepOrder, OrderError> {
    let planned = &run.plan.steps[step];
    let work = match &planned.work {
        Work::Prepare(prepare) => StepWork::Prepare(PrepareOrder {
            source: prepare.source.clone(),
            dockerfile: prepare.dockerfile.clone(),
            allowed_networks: core.allowed_sources.iter().map(ToString::to_string).collect(),
            max_bytes: core.context_files.max_bytes(),
        }),
        Work::Build(build) => {
            let sealed = core.runs.run_secrets(run.id, attempt).await.map_err(|error| match error {
                SecretsError::NotLive { .. } => OrderError::Over,
                SecretsError::Store(error) => OrderError::Store(error),
            })?;
            StepWork::Build(build_order(core, run, build, &run.plan.placements[planned.placement].platform, sealed)?)
        }
        Work::Push(push) => StepWork::Push(push_order(run, step, push, attempt)?),
    };
    let masked = match &work {
        StepWork::Build(build) => masked_values(build, planned),
        // Credentials are asked for host by host, and masked from then on.
        StepWork::Prepare(_) | StepWork::Push(_) => Vec::new(),
    };
    Ok(StepOrder {
        step: planned.id.clone(),
        timeout: planned.timeout,
        masked,
        registry: RegistryAccess {
            name: run.registry.clone(),
            username: REGISTRY_USER.to_owned(),
            password: credential(core, run, planned, attempt),
        },
        work,
    })
}

fn build_order(
    core: &Core,
    run: &Run,
    build: &BuildWork,
    platform: &cooper_types::Platform,
    sealed: Vec<SealedSecret>,
) -> Result<BuildOrder, OrderError> {
    let mut secrets = Vec::new();
    let mut secret_arguments = BTreeMap::new();
    for secret in sealed {
        let value = core.key.unseal(&sealing_purpose(secret.kind, &secret.name), &secret.sealed)?;
        match secret.kind {
            SecretKind::Build => secrets.push((secret.name, value)),
            SecretKind::Argument => {
                let text = String::from_utf8(value.expose().to_vec())
                    .map_err(|_| OrderError::Argument(secret.name.clone()))?;
                secret_arguments.insert(secret.name, SecretString::new(text));
            }
            // A quick build's plan has none.
            SecretKind::Value => {}
        }
    }
    let arguments = build
        .arguments
        .iter()
        .map(|argument| {
            let value = match &argument.value {
                ArgumentValue::Plain(text) => SecretString::new(text.clone()),
                ArgumentValue::Secret => secret_arguments
                    .get(&argument.name)
                    .cloned()
                    .ok_or_else(|| OrderError::Argument(argument.name.clone()))?,
            };
            Ok((argument.name.clone(), value))
        })
        .collect::<Result<_, OrderError>>()?;
    Ok(BuildOrder {
        dockerfile: build.dockerfile.clone(),
        target: build.target.clone(),
        arguments,
        labels: build.labels.clone(),
        no_cache: build.no_cache,
        secrets,
        platform: platform.clone(),
        shared_key: core.key.context_sharing(&run.principal),
    })
}

fn push_order(run: &Run, step: usize, push: &PushWork, attempt: AttemptNumber) -> Result<PushOrder, OrderError> {
    let StepState::Succeeded { output: StepOutput::Built { image, .. }, .. } = &run.steps[push.built_by].state else {
        return Err(OrderError::NoImage);
    };
    let targets = run
        .tag_targets(step, attempt)
        .into_iter()
        .map(|target| PushTarget { repository: target.repository, staging_tag: target.staging_tag })
        .collect();
    Ok(PushOrder { image: image.clone(), targets })
}

/// Everything that must not be seen in the log: secrets, and the arguments that were declared secret.
fn masked_values(build: &BuildOrder, planned: &PlannedStep) -> Vec<SecretBytes> {
    let Work::Build(plan) = &planned.work else { return Vec::new() };
    let secret_names = plan.arguments.iter().filter(|a| a.value == ArgumentValue::Secret).map(|a| a.name.as_str());
    let secret_names: BTreeSet<&str> = secret_names.collect();
    let arguments = build.arguments.iter().filter(|(name, _)| secret_names.contains(name.as_str()));
    let arguments = arguments.map(|(_, value)| SecretBytes::new(value.expose().as_bytes().to_vec()));
    build.secrets.iter().map(|(_, value)| value.clone()).chain(arguments).collect()
}

/// The attempt's credential: it pushes to the plan's repositories, and pulls what the run's principal may pull; one at a
/// source has nothing to do there. The registry re-checks on each write that the attempt is live.
fn credential(core: &Core, run: &Run, planned: &PlannedStep, attempt: AttemptNumber) -> SecretString {
    let push: BTreeSet<RepositoryName> = match &planned.work {
        // Each once, however many tags it gets: the credential goes in a header. Whatever the plan says, never beyond what
        // the run's token allowed.
        Work::Push(push) => push
            .images
            .iter()
            .map(|image| &image.repository)
            .filter(|repository| run.scopes.repository(repository, RepositoryAccess::Push))
            .cloned()
            .collect(),
        Work::Prepare(_) | Work::Build(_) => BTreeSet::new(),
    };
    let scopes: &[Scope] = match &planned.work {
        Work::Prepare(_) => &[],
        Work::Build(_) | Work::Push(_) => &run.scopes.0,
    };
    let pull = scopes
        .iter()
        .filter_map(|scope| match scope {
            Scope::Admin => Some(RepositoryPattern::All),
            Scope::Repository(pattern, accesses) if accesses.contains(&RepositoryAccess::Pull) => Some(pattern.clone()),
            Scope::Repository(..) | Scope::Read | Scope::Run | Scope::Agent | Scope::AgentOf(_) => None,
        })
        .collect();
    core.signing.mint_attempt(&AttemptCredential {
        run: run.id,
        step: planned.id.clone(),
        attempt,
        principal: run.principal.clone(),
        push: push.into_iter().collect(),
        pull,
        expires: core.clock.now().after(planned.timeout + core.policy.step_grace),
    })
}

#[cfg(test)]
mod tests {
    use cooper_types::{ImageRef, Scopes, StepId};

    use super::*;
    use crate::testing::{self, accept_git};

    #[tokio::test]
    async fn an_attempts_credential_never_exceeds_the_runs_token() {
        let (core, _data) = testing::core().await;
        let id = accept_git(&core).await;
        let mut run = core.runs.find_run(id).await.expect("store").expect("run").run;
        let of = |run: &Run, step: usize| {
            let password = credential(&core, run, &run.plan.steps[step], AttemptNumber(1));
            core.signing.verify_attempt(&password, core.clock.now()).expect("it is this server's")
        };
        let prepare = of(&run, 0);
        assert_eq!((prepare.push, prepare.pull), (Vec::new(), Vec::new()), "it has nothing to do in the registry");

        // A plan that says more than its token allows.
        let images = ["localhost:5000/mine:v1", "localhost:5000/other:v1"];
        let images = images.map(|image| ImageRef::parse(image).expect("valid")).to_vec();
        let mut push = run.plan.steps[0].clone();
        push.id = StepId::parse("push").expect("valid");
        push.work = Work::Push(PushWork { built_by: 0, images });
        run.plan.steps.push(push);
        run.scopes = Scopes(vec![Scope::parse("repository:mine:push").expect("valid")]);
        assert_eq!(of(&run, 1).push, [RepositoryName::parse("mine").expect("valid")]);
        run.scopes = Scopes::default();
        assert_eq!(of(&run, 1).push, []);
    }
}
