//! A container's order. Where it is ACR's client, the server's own program takes its place.

use cooper_api::agent::{ACR_PASSWORD, CommandImageOrder, CommandOrder};
use cooper_engine::run::Run;
use cooper_registry::RegistryService;
use cooper_spec::plan::{CommandImage, CommandWork, with_digest};
use cooper_spec::task::is_acr_cli;
use cooper_types::{ImageRef, Platform, SecretString};

use super::secrets::RunSecrets;
use super::{OrderError, built_image};
use crate::core::Core;

pub(super) fn order(
    run: &Run,
    command: &CommandWork,
    platform: &Platform,
    secrets: &RunSecrets,
) -> Result<CommandOrder, OrderError> {
    let arguments = command.arguments.iter().map(|word| secrets.text(word));
    let environment = command.environment.iter().map(|(name, value)| Ok((name.clone(), secrets.text(value)?)));
    Ok(CommandOrder {
        image: match &command.image {
            CommandImage::Named(name) => CommandImageOrder::Named(name.clone()),
            CommandImage::Pinned { name, digest } => CommandImageOrder::Named(with_digest(name, digest)),
            CommandImage::Built { step } => CommandImageOrder::Built(built_image(run, *step)?),
        },
        arguments: arguments.collect::<Result<_, OrderError>>()?,
        environment: environment.collect::<Result<_, OrderError>>()?,
        mounts: command.mounts.clone(),
        platform: platform.clone(),
        entry_point: command.entry_point.clone(),
        working_directory: command.working_directory.clone(),
        user: command.user.clone(),
        network: command.network.clone(),
        ports: command.ports.clone(),
        expose: command.expose.clone(),
        cpus: command.cpus.clone(),
        isolation: command.isolation.clone(),
        privileged: command.privileged,
        keep: command.keep,
        detach: command.detach,
        terminal: command.terminal,
        pull: command.pull,
        pull_retries: command.pull_retries,
        pull_retry_delay: command.pull_retry_delay,
    })
}

/// What all variables of ACR's client begin with.
const ACR: &str = "ACR_";
/// The variable by which ACR's client learns of its registry.
const ACR_REGISTRY: &str = "ACR_DEFAULT_REGISTRY";

/// Whether a container is made of the image of ACR's client, or of the one that an earlier run had in its place.
pub(super) fn is_acr_client(run: &Run, command: &CommandWork) -> bool {
    let (CommandImage::Named(name) | CommandImage::Pinned { name, .. }) = &command.image else { return false };
    let is_own = |image: &ImageRef| {
        image.registry.as_ref() == Some(&run.registry) && image.repository == RegistryService::own_repository()
    };
    ImageRef::parse(name).is_ok_and(|image| is_acr_cli(&image) || is_own(&image))
}

/// Puts the server's own image in the place of ACR's client, with a password for the run's registry.
pub(super) async fn serve_acr_client(
    core: &Core,
    run: &Run,
    order: &mut CommandOrder,
    password: SecretString,
) -> Result<(), OrderError> {
    let digest = core.acr_image().await?;
    let repository = RegistryService::own_repository();
    order.image = CommandImageOrder::Named(format!("{}/{repository}@{digest}", run.registry));
    lead(run, order, password);
    Ok(())
}

/// Tells the program of its registry, with a password if that is the run's. It runs as itself, and with nothing in its
/// environment that would lead it, and the password, elsewhere.
pub(super) fn lead(run: &Run, order: &mut CommandOrder, password: SecretString) {
    order.entry_point = None;
    order.environment.retain(|(name, _)| name.starts_with(ACR));
    if order.environment.iter().all(|(name, _)| name != ACR_REGISTRY) {
        order.environment.push((ACR_REGISTRY.to_owned(), SecretString::new(run.registry.to_string())));
        order.environment.push((ACR_PASSWORD.to_owned(), password));
    }
}
