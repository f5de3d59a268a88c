//! Removing what we made: names of images one by one, and everything of an owner's earlier life.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptionsBuilder,
};
use cooper_ports::engine::{EngineError, EngineOwner, OWNER_LABEL, Reaped};

use crate::engine::engine_error;
use crate::socket::EngineSocket;

/// Removes one name of an image; a name that is not there is fine.
pub(crate) async fn remove_name(docker: &Docker, socket: &EngineSocket, name: &str) -> Result<(), EngineError> {
    let removed = docker.remove_image(name, None::<RemoveImageOptions>, None).await;
    gone(removed.map(drop)).map(drop).map_err(|error| engine_error(socket, "remove an image's name", error))
}

/// Removes an owner's containers, then what they used, then its images' names.
pub(crate) async fn reap(docker: &Docker, socket: &EngineSocket, owner: &EngineOwner) -> Result<Reaped, EngineError> {
    let failed = |operation| move |error| engine_error(socket, operation, error);
    let label = format!("{OWNER_LABEL}={}", owner.label());
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let mut reaped = Reaped::default();

    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = docker.list_containers(Some(options)).await.map_err(failed("list containers"))?;
    for id in listed.into_iter().filter_map(|container| container.id) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = docker.remove_container(&id, Some(options)).await;
        reaped.containers += gone(removed).map_err(failed("remove a container"))?;
    }

    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let listed = docker.list_networks(Some(options)).await.map_err(failed("list networks"))?;
    for id in listed.into_iter().filter_map(|network| network.id) {
        let removed = docker.remove_network(&id).await;
        reaped.networks += gone(removed).map_err(failed("remove a network"))?;
    }

    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let listed = docker.list_volumes(Some(options)).await.map_err(failed("list volumes"))?;
    for volume in listed.volumes.unwrap_or_default() {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        let removed = docker.remove_volume(&volume.name, Some(options)).await;
        reaped.volumes += gone(removed).map_err(failed("remove a volume"))?;
    }

    let prefix = owner.name_prefix();
    // The engine's pattern matches whole path parts, and a name has exactly one after the prefix.
    let pattern = format!("{prefix}*");
    let filters = HashMap::from([("reference", vec![pattern.as_str()])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let listed = docker.list_images(Some(options)).await.map_err(failed("list images"))?;
    for name in listed.into_iter().flat_map(|image| image.repo_tags).filter(|name| name.starts_with(&prefix)) {
        remove_name(docker, socket, &name).await?;
        reaped.image_names += 1;
    }
    Ok(reaped)
}

/// Somebody else may have removed it first: 404 counts as nothing done, 409 as being removed right now.
fn gone(result: Result<(), bollard::errors::Error>) -> Result<usize, bollard::errors::Error> {
    match result {
        Ok(()) => Ok(1),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(0),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, message })
            if message.contains("is already in progress") =>
        {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
