//! What only the steps of task files have: containers, what steps share, tries.

use std::time::Duration;

use cooper_spec::plan::{Mount, Network, Tries};
use cooper_types::{Digest, Platform, SecretBytes, SecretString};

use super::super::wire::{self, command_work, environment};
use super::super::work::{CommandImageOrder, CommandOrder, EnvironmentOrder, VolumeOrder};
use super::{ProtocolError, bad};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn command_message(command: CommandOrder) -> wire::CommandWork {
    let image = match command.image {
        CommandImageOrder::Named(name) => command_work::Image::Named(name),
        CommandImageOrder::Built(image) => command_work::Image::Built(image.to_string()),
    };
    let environment = command.environment.into_iter();
    wire::CommandWork {
        image: Some(image),
        arguments: command.arguments.iter().map(|word| word.expose().to_owned()).collect(),
        environment: environment
            .map(|(name, value)| command_work::Pair { name, value: value.expose().to_owned() })
            .collect(),
        entry_point: command.entry_point,
        working_directory: command.working_directory,
        user: command.user,
        network: command.network,
        ports: command.ports,
        expose: command.expose,
        mounts: command.mounts.into_iter().map(|Mount { volume, path }| command_work::Mount { volume, path }).collect(),
        cpus: command.cpus,
        isolation: command.isolation,
        privileged: command.privileged,
        keep: command.keep,
        detach: command.detach,
        terminal: command.terminal,
        pull: command.pull,
        pull_retries: command.pull_retries,
        pull_retry_delay_ms: millis(command.pull_retry_delay),
        platform: command.platform.to_string(),
    }
}

pub(super) fn read_command(command: wire::CommandWork) -> Result<CommandOrder, ProtocolError> {
    let image = match command.image.ok_or(ProtocolError::Missing("image"))? {
        command_work::Image::Named(name) => CommandImageOrder::Named(name),
        command_work::Image::Built(image) => CommandImageOrder::Built(Digest::parse(&image).map_err(bad("image id"))?),
    };
    Ok(CommandOrder {
        image,
        arguments: command.arguments.into_iter().map(SecretString::new).collect(),
        environment: command.environment.into_iter().map(|pair| (pair.name, SecretString::new(pair.value))).collect(),
        mounts: command.mounts.into_iter().map(|mount| Mount { volume: mount.volume, path: mount.path }).collect(),
        platform: Platform::parse(&command.platform).map_err(bad("platform"))?,
        entry_point: command.entry_point,
        working_directory: command.working_directory,
        user: command.user,
        network: command.network,
        ports: command.ports,
        expose: command.expose,
        cpus: command.cpus,
        isolation: command.isolation,
        privileged: command.privileged,
        keep: command.keep,
        detach: command.detach,
        terminal: command.terminal,
        pull: command.pull,
        pull_retries: command.pull_retries,
        pull_retry_delay: Duration::from_millis(command.pull_retry_delay_ms),
    })
}

pub(super) fn environment_message(order: EnvironmentOrder) -> wire::Environment {
    let network = |network: Network| environment::Network {
        name: network.name,
        driver: network.driver.unwrap_or_default(),
        ipv6: network.ipv6,
        external: network.external,
    };
    let volume = |volume: VolumeOrder| environment::SecretVolume {
        name: volume.name,
        files: volume
            .files
            .into_iter()
            .map(|(name, data)| environment::secret_volume::File { name, data: data.expose().to_vec() })
            .collect(),
    };
    wire::Environment {
        has_context: order.has_context,
        networks: order.networks.into_iter().map(network).collect(),
        volumes: order.volumes.into_iter().map(volume).collect(),
        registry_by_address: order.registry_by_address,
    }
}

pub(super) fn read_environment(order: wire::Environment) -> EnvironmentOrder {
    let network = |network: environment::Network| Network {
        name: network.name,
        driver: Some(network.driver).filter(|driver| !driver.is_empty()),
        ipv6: network.ipv6,
        external: network.external,
    };
    let volume = |volume: environment::SecretVolume| VolumeOrder {
        name: volume.name,
        files: volume.files.into_iter().map(|file| (file.name, SecretBytes::new(file.data))).collect(),
    };
    EnvironmentOrder {
        has_context: order.has_context,
        networks: order.networks.into_iter().map(network).collect(),
        volumes: order.volumes.into_iter().map(volume).collect(),
        registry_by_address: order.registry_by_address,
    }
}

pub(super) fn tries_message(tries: Tries) -> wire::Tries {
    wire::Tries {
        start_delay_ms: millis(tries.start_delay),
        retries: tries.retries,
        retry_delay_ms: millis(tries.retry_delay),
        retry_on_errors: tries.retry_on_errors,
        repeat: tries.repeat,
    }
}

pub(super) fn read_tries(tries: wire::Tries) -> Tries {
    Tries {
        start_delay: Duration::from_millis(tries.start_delay_ms),
        retries: tries.retries,
        retry_delay: Duration::from_millis(tries.retry_delay_ms),
        retry_on_errors: tries.retry_on_errors,
        repeat: tries.repeat,
    }
}
