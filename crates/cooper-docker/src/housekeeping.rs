//! Removing what we made: names of images one by one, and everything of an owner's earlier life.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptionsBuilder,
};
use cooper_ports::engine::{EngineError, EngineOwner, OWNER_LABEL, PLACEMENT_LABEL, PlacementScope, Reaped};
use futures::StreamExt as _;
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

/// How long the removal of containers may take that somebody else removes at the same time.
const REMOVAL: Duration = Duration::from_secs(30);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(50);
/// How many things are removed at once: the engine works on few, and others wait for it, too.
const AT_ONCE: usize = 4;

/// Removes an owner's containers, then what they used, then its images' names.
pub(crate) async fn reap(
    docker: &Docker,
    socket: &EngineSocket,
    removals: &Removals,
    owner: &EngineOwner,
) -> Result<Reaped, EngineError> {
    let failed = |operation| move |error| engine_error(socket, operation, error);
    let mut reaped = remove_labelled(docker, socket, &[&format!("{OWNER_LABEL}={}", owner.label())]).await?;

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

/// Removes a placement's containers, then what they used.
pub(crate) async fn remove_placement(
    docker: &Docker,
    socket: &EngineSocket,
    scope: &PlacementScope,
) -> Result<Reaped, EngineError> {
    let (owner, placement) = (scope.owner.label(), scope.label());
    // The engine takes all of several labels.
    let labels = [format!("{OWNER_LABEL}={owner}"), format!("{PLACEMENT_LABEL}={placement}")];
    remove_labelled(docker, socket, &labels.each_ref().map(String::as_str)).await
}

async fn remove_labelled(docker: &Docker, socket: &EngineSocket, labels: &[&str]) -> Result<Reaped, EngineError> {
    let failed = |operation| move |error| engine_error(socket, operation, error);
    let filters = HashMap::from([("label", labels.to_vec())]);
    let mut reaped = Reaped::default();

    // Again until none is there: one that somebody else removes just now still uses its volumes and networks.
    let patience = tokio::time::Instant::now() + REMOVAL;
    loop {
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = docker.list_containers(Some(options)).await.map_err(failed("list containers"))?;
        let ids: Vec<String> = listed.into_iter().filter_map(|container| container.id).collect();
        if ids.is_empty() {
            break;
        }
        if tokio::time::Instant::now() > patience {
            return Err(EngineError::TimedOut { operation: "remove containers", after: REMOVAL });
        }
        let removed = in_parallel(ids, |id| async move {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            gone(docker.remove_container(&id, Some(options)).await)
        });
        let removed = removed.await.map_err(failed("remove a container"))?;
        reaped.containers += removed;
        if removed == 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }

    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let listed = docker.list_networks(Some(options)).await.map_err(failed("list networks"))?;
    let ids = listed.into_iter().filter_map(|network| network.id).collect();
    let removed = in_parallel(ids, |id| async move { gone(docker.remove_network(&id).await) });
    reaped.networks += removed.await.map_err(failed("remove a network"))?;

    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let listed = docker.list_volumes(Some(options)).await.map_err(failed("list volumes"))?;
    let names = listed.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect();
    let removed = in_parallel(names, |name| async move {
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        gone(docker.remove_volume(&name, Some(options)).await)
    });
    reaped.volumes += removed.await.map_err(failed("remove a volume"))?;
    Ok(reaped)
}

/// Removes each, a few at a time; how many were there. The first error counts, after all were tried.
async fn in_parallel<F>(things: Vec<String>, remove: impl Fn(String) -> F) -> Result<usize, Error>
where
    F: Future<Output = Result<usize, Error>>,
{
    let results: Vec<_> = futures::stream::iter(things).map(remove).buffer_unordered(AT_ONCE).collect().await;
    results.into_iter().sum()
}

/// Kills and removes one container with the volumes that nobody named. One that is not there is fine.
pub(crate) async fn remove_container(docker: &Docker, socket: &EngineSocket, name: &str) -> Result<(), EngineError> {
    const TRIES: u32 = 3;
    let mut tries = 0;
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        tries += 1;
        match gone(docker.remove_container(name, Some(options)).await) {
            Ok(_) => return Ok(()),
            Err(error) if tries >= TRIES => return Err(engine_error(socket, "remove a container", error)),
            // A container that is just starting may not be killable yet.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
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
