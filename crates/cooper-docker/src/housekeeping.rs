//! Removing what we made: names of images one by one, and everything of an owner's earlier life.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptionsBuilder,
};
use cooper_ports::engine::{EngineError, EngineOwner, OWNER_LABEL, Reaped};
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::engine::engine_error;
use crate::socket::EngineSocket;

/// Orders the removals of image names: one after the other, and none while a build holds them off.
#[derive(Debug, Default)]
pub(crate) struct Removals(RwLock<()>);

impl Removals {
    /// Waits for the removal that is under way; there is no other while the guard lives.
    pub(crate) async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read().await
    }

    /// Removes one name of an image; a name that is not there is fine.
    pub(crate) async fn remove(&self, docker: &Docker, socket: &EngineSocket, name: &str) -> Result<(), EngineError> {
        let _alone = self.0.write().await;
        let error = match gone(docker.remove_image(name, None::<RemoveImageOptions>, None).await.map(drop)) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Removals of two agents at one image confuse the engine; what counts is whether the name is gone.
        match docker.inspect_image(name).await {
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            _ => Err(engine_error(socket, "remove an image's name", error)),
        }
    }
}

/// Removes an owner's containers, then what they used, then its images' names.
pub(crate) async fn reap(
    docker: &Docker,
    socket: &EngineSocket,
    removals: &Removals,
    owner: &EngineOwner,
) -> Result<Reaped, EngineError> {
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
    for image in listed {
        // The list shows the names that fit the pattern only.
        let names = match docker.inspect_image(&image.id).await {
            Ok(image) => image.repo_tags.unwrap_or_default(),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => continue,
            Err(error) => return Err(failed("inspect an image")(error)),
        };
        for name in names_of_owner(&names, &prefix) {
            removals.remove(docker, socket, name).await?;
            reaped.image_names += 1;
        }
    }
    Ok(reaped)
}

/// Removes a local name, and before it those that a push of its run may have left on the image: of an engine that did
/// not answer just then, say. Without the local name nobody would find them again.
pub(crate) async fn remove_with_staged(
    docker: &Docker,
    socket: &EngineSocket,
    removals: &Removals,
    name: &str,
) -> Result<(), EngineError> {
    let names = match docker.inspect_image(name).await {
        Ok(image) => image.repo_tags.unwrap_or_default(),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
        Err(error) => return Err(engine_error(socket, "inspect an image", error)),
    };
    let run = name.rsplit_once('/').and_then(|(_, last)| last.split_once(':')).map_or("", |(run, _)| run);
    let staged = names.iter().map(String::as_str).filter(|name| staged_run(name) == Some(run));
    for name in staged.chain([name]) {
        removals.remove(docker, socket, name).await?;
    }
    Ok(())
}

/// Of an image's names, the owner's local ones, and those that a push of the same run left when its agent died: they
/// carry the run's staging tag, `staged.RUN.ATTEMPT`. A push elsewhere, to a tag of the user's, is not told apart from
/// a name that the user gave, and stays.
fn names_of_owner<'a>(names: &'a [String], prefix: &str) -> Vec<&'a str> {
    let run_of = |name: &'a String| name.strip_prefix(prefix)?.split_once(':').map(|(run, _)| run);
    let runs: Vec<&str> = names.iter().filter_map(run_of).collect();
    let is_staged = |name: &str| staged_run(name).is_some_and(|run| runs.contains(&run));
    names.iter().map(String::as_str).filter(|name| name.starts_with(prefix) || is_staged(name)).collect()
}

/// The run whose staging tag a name carries: `localhost:5000/app:staged.RUN.ATTEMPT`.
fn staged_run(name: &str) -> Option<&str> {
    let (_, tag) = name.rsplit_once(':')?;
    tag.strip_prefix("staged.")?.split_once('.').map(|(run, _)| run)
}

/// Somebody else may have removed it first: 404 counts as nothing done, 409 as being removed right now.
fn gone(result: Result<(), Error>) -> Result<usize, Error> {
    match result {
        Ok(()) => Ok(1),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(0),
        Err(Error::DockerResponseServerError { status_code: 409, message })
            if message.contains("is already in progress") =>
        {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_stay() {
        let names = [
            "cooper.invalid/mine/ca7:2",
            "cooper.invalid/other/ca8:1",
            "localhost:5000/app:staged.ca7.3",
            "localhost:5000/app:staged.ca8.1",
            "localhost:5000/app:staged.ca7",
            "localhost:5000/app",
            "app:latest",
        ];
        let names = names.map(str::to_owned);
        let mine = ["cooper.invalid/mine/ca7:2", "localhost:5000/app:staged.ca7.3"];
        assert_eq!(names_of_owner(&names, "cooper.invalid/mine/"), mine);
        assert!(names_of_owner(&names, "cooper.invalid/nobody/").is_empty());
    }
}
