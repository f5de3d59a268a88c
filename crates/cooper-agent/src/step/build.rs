//! A build: its context, its Dockerfile, the engine's work, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::agent::BuildOrder;
use cooper_engine::message::StepOutput;
use cooper_ports::engine::{BuildError, BuildEvent, BuildFailure, BuildRequest, EngineError, RegistryCredential};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::RegistryName;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::bases::bases;
use super::dockerfile::{self, Scan};
use super::{Attempt, Ended};
use crate::render::Renderer;

/// Events of the engine that may wait for the log; more make the build wait.
const EVENT_QUEUE: usize = 256;
/// How often the renderer says what has waited.
const TICK: Duration = Duration::from_millis(100);

impl Attempt<'_> {
    pub(super) async fn build(
        &self,
        order: BuildOrder,
        registry: RegistryName,
        credential: RegistryCredential,
    ) -> Result<StepOutput, Ended> {
        let context = self.context().await?;
        failpoint::pass(Failpoint::ContextFetched);
        let arguments: Vec<(String, String)> =
            order.arguments.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let own_images = format!("{registry}/");
        let engine = self.runner.engine.describe();
        let scan = Scan {
            dockerfile: &order.dockerfile,
            target: order.target.as_deref(),
            arguments: &arguments,
            platform: &order.platform,
            engine: &engine,
        };
        let scanned = dockerfile::scan(&context, scan)?;
        let name = self.runner.local_name(self.key, self.attempt);
        let renderer = Renderer::new(self.log.masks().clone(), name.to_string());
        let request = BuildRequest {
            name,
            context,
            dockerfile: scanned.path,
            target: order.target,
            platform: Some(order.platform),
            arguments,
            labels: order.labels,
            no_cache: order.no_cache,
            secrets: order.secrets.into_iter().collect(),
            credentials: BTreeMap::from([(registry, credential)]),
            shared_key: order.shared_key,
        };
        let (sink, events) = mpsc::channel(EVENT_QUEUE);
        let build = self.runner.engine.build(request, sink, self.stop.clone());
        let (built, ()) = tokio::join!(build, self.show(events, renderer));
        match built {
            Ok(built) => {
                failpoint::pass(Failpoint::ImageBuilt);
                Ok(StepOutput::Built { image: built.image, bases: bases(scanned.dependencies.as_ref(), &built.bases) })
            }
            Err(BuildError::Cancelled) => Err(Ended::Stopped),
            // Our own registry being away is nothing that the user could mend.
            Err(BuildError::Failed(failure)) if is_ours(&failure, &own_images) => Err(Ended::Lost(failure.to_string())),
            Err(BuildError::Failed(failure)) => {
                let exit_code = match &failure {
                    BuildFailure::Exited { code, .. } => i32::try_from(*code).ok(),
                    _ => None,
                };
                Err(Ended::Failed { exit_code, reason: failure.to_string() })
            }
            Err(BuildError::Machinery(error)) => {
                if matches!(error, EngineError::DiskFull { .. }) {
                    self.runner.disk_was_full.notify_one();
                }
                Err(Ended::lost("build failed", &error))
            }
        }
    }

    /// Puts what a build says into the log, until it says nothing more.
    async fn show(&self, mut events: mpsc::Receiver<BuildEvent>, mut renderer: Renderer) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => renderer.event(event, self.log.now()),
                    None => break,
                },
                _ = ticks.tick() => renderer.tick(self.log.now()),
            }
            while let Ok(event) = events.try_recv() {
                renderer.event(event, self.log.now());
                if renderer.is_full() {
                    break;
                }
            }
            self.log.append(renderer.take_frames()).await;
        }
        renderer.finish(self.log.now());
        self.log.append(renderer.take_frames()).await;
    }
}

/// Whether a base image failed because the embedded registry, whose references begin so, cannot be reached.
fn is_ours(failure: &BuildFailure, own_images: &str) -> bool {
    matches!(failure, BuildFailure::BaseUnreachable { reference, .. } if reference.starts_with(own_images))
}
