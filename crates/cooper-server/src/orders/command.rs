//! A container's order.

use cooper_api::agent::{CommandImageOrder, CommandOrder};
use cooper_engine::run::Run;
use cooper_spec::plan::{CommandImage, CommandWork, with_digest};
use cooper_types::Platform;

use super::secrets::RunSecrets;
use super::{OrderError, built_image};

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
        pull: command.pull,
        pull_retries: command.pull_retries,
        pull_retry_delay: command.pull_retry_delay,
    })
}
