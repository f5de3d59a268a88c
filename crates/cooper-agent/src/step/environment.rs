//! Opening what a placement's steps share: by the first attempt that needs it, with the context in the workspace.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cooper_api::agent::EnvironmentOrder;
use cooper_ports::context_tree::ContextTree;
use cooper_ports::engine::{
    ArchiveError, EngineError, NetworkOrigin, NetworkRequest, Placement, PlacementError, PlacementRequest,
    VolumeContent, VolumeRequest,
};
use cooper_spec::plan::Network;
use cooper_types::{NetworkName, RegistryName};

use super::{Attempt, Ended, workspace};
use crate::forward::within_containers;
use crate::placement;
use crate::settings::StepPolicy;

/// Networks of these kinds are the engine's own affair; others are a part of what is around its machine.
const USUAL_DRIVERS: [&str; 2] = ["bridge", "nat"];

impl Attempt<'_> {
    /// The placement's environment, opened if it is not.
    pub(super) async fn open(
        &self,
        order: &EnvironmentOrder,
        registry: &RegistryName,
    ) -> Result<Arc<dyn Placement>, Ended> {
        let mut open = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            open = self.shared.open.lock() => open,
        };
        if let Some(placement) = &*open {
            return Ok(Arc::clone(placement));
        }
        let request = self.request(order, registry)?;
        let context = if order.has_context { Some(self.workspace_context().await?) } else { None };
        for network in &request.networks {
            self.log.service(&format!("setting up network {}", network.name)).await;
        }
        self.shared.touch();
        self.runner.opened_any.store(true, Ordering::Relaxed);
        let opened = self.runner.engine.open_placement(request, self.stop.clone()).await;
        let opened: Arc<dyn Placement> = Arc::from(opened.map_err(|error| self.not_opened(error))?);
        if let Some(context) = context {
            let volume = placement::workspace();
            let filled = tokio::select! {
                () = self.stop.cancelled() => Err(Ended::Stopped),
                filled = opened.put_archive(&volume, workspace::archive(context)) => {
                    filled.map_err(|error| not_archived("workspace can't be filled", &error))
                }
            };
            if let Err(ended) = filled {
                if let Err(error) = opened.close().await {
                    tracing::debug!(error = crate::error::chain(&error), "half an environment stays for the clean-up");
                }
                return Err(ended);
            }
        }
        *open = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// The context that the workspace begins with, fetched once in a placement.
    pub(super) async fn workspace_context(&self) -> Result<ContextTree, Ended> {
        let mut known = tokio::select! {
            () = self.stop.cancelled() => return Err(Ended::Stopped),
            known = self.shared.context.lock() => known,
        };
        if let Some(context) = &*known {
            return Ok(context.clone());
        }
        let context = self.context().await?;
        Ok(known.insert(context).clone())
    }

    fn request(&self, order: &EnvironmentOrder, registry: &RegistryName) -> Result<PlacementRequest, Ended> {
        let fail = |reason: String| Ended::Failed { exit_code: None, reason };
        let empty = |name| VolumeRequest { name, content: VolumeContent::Empty };
        let mut volumes = vec![empty(placement::workspace()), empty(placement::home())];
        for volume in &order.volumes {
            let name = placement::secret_volume(&volume.name).map_err(fail)?;
            volumes
                .push(VolumeRequest { name, content: VolumeContent::Secret(volume.files.iter().cloned().collect()) });
        }
        let networks =
            order.networks.iter().map(|network| made_or_taken(network, &self.runner.settings.steps).map_err(fail));
        Ok(PlacementRequest {
            scope: self.runner.scope(self.key),
            volumes,
            networks: networks.collect::<Result<_, _>>()?,
            shared_network: order.networks.is_empty(),
            registry: within_containers(registry, self.runner.ways(order), Arc::clone(&self.shared.logins)),
        })
    }

    fn not_opened(&self, error: PlacementError) -> Ended {
        match error {
            PlacementError::Cancelled => Ended::Stopped,
            PlacementError::Machinery(error) => {
                if matches!(error, EngineError::DiskFull { .. }) {
                    self.runner.disk_was_full.notify_one();
                }
                Ended::lost("environment of the steps can't be made", &error)
            }
            error @ (PlacementError::NetworkMissing { .. }
            | PlacementError::Network { .. }
            | PlacementError::SecretVolumes { .. }
            | PlacementError::SecretName { .. }) => Ended::failed(&error),
        }
    }
}

/// An archive that did not get into or out of a volume.
pub(super) fn not_archived(doing: &str, error: &ArchiveError) -> Ended {
    match error {
        ArchiveError::FolderMissing { folder, .. } => {
            Ended::Failed { exit_code: None, reason: format!("folder `{folder}` is not in the workspace") }
        }
        error => Ended::lost(doing, error),
    }
}

/// A declared network as the engine's: one to make, or one that is there and that the operator lets steps use.
fn made_or_taken(network: &Network, policy: &StepPolicy) -> Result<NetworkRequest, String> {
    let name = NetworkName::parse(&network.name).map_err(|error| error.to_string())?;
    if network.external {
        return match policy.networks.contains(&network.name) {
            true => Ok(NetworkRequest { name, origin: NetworkOrigin::Existing }),
            false => Err(placement::network_refused(&network.name)),
        };
    }
    let driver = network.driver.clone().filter(|driver| !driver.is_empty());
    if let Some(driver) = driver.as_deref().filter(|driver| !USUAL_DRIVERS.contains(driver)) {
        return Err(format!(
            "network `{name}` has driver `{driver}`, and steps' networks have `bridge` (`nat` on Windows): write that, or leave `driver` out"
        ));
    }
    Ok(NetworkRequest { name, origin: NetworkOrigin::Made { driver, ipv6: network.ipv6 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, driver: Option<&str>, external: bool, policy: &StepPolicy) -> Result<NetworkOrigin, String> {
        let network = Network { name: name.into(), driver: driver.map(str::to_owned), ipv6: false, external };
        made_or_taken(&network, policy).map(|request| request.origin)
    }

    #[test]
    fn networks_are_made_or_the_operators_to_give() {
        let usual = StepPolicy::default();
        let open = StepPolicy { networks: ["corp".to_owned()].into(), ..StepPolicy::default() };
        for driver in [None, Some(""), Some("bridge"), Some("nat")] {
            let origin = made("n", driver, false, &usual).expect("made");
            let driver = driver.filter(|driver| !driver.is_empty()).map(str::to_owned);
            assert_eq!(origin, NetworkOrigin::Made { driver, ipv6: false });
        }
        assert_eq!(made("corp", None, true, &open), Ok(NetworkOrigin::Existing));
        let refused = [
            (made("corp", None, true, &usual), "network `corp` is the agent's machine's own", "--allow-network corp"),
            (made("other", None, true, &open), "network `other` is the agent's machine's own", "--allow-network other"),
            (made("n", Some("host"), false, &open), "network `n` has driver `host`", "leave `driver` out"),
            (made("n", Some("macvlan"), false, &open), "network `n` has driver `macvlan`", "write that"),
            (made("a b", None, false, &open), "a b", "network"),
        ];
        for (refused, object, way_out) in refused {
            let told = refused.expect_err(object);
            assert!(told.contains(object) && told.contains(way_out), "{told}");
        }
    }
}
