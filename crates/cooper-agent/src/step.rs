//! One attempt at a step, from its order to its result. Everything it says is masked; every failure becomes a result.

mod bases;
mod build;
mod command;
mod context;
mod credentials;
mod dockerfile;
mod environment;
mod heard;
mod limit;
mod logins;
mod own_tries;
mod prepare;
mod push;
mod step_log;
mod turns;
mod user_tries;
mod workspace;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cooper_api::agent::{EnvironmentOrder, StepOrder, StepWork};
use cooper_engine::message::{PlacementKey, Resolved, StepOutput, StepResult, ToServer};
use cooper_ports::clock::Clock;
use cooper_ports::engine::{ContainerEngine, LocalName, PlacementScope, RegistryCredential};
use cooper_spec::plan::Tries;
use cooper_types::{AttemptNumber, RegistryName, StepId};
use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::connect::Bearer;
use crate::engine_watch::EngineState;
use crate::error::chain;
use crate::forward::Ways;
use crate::log::LogHub;
use crate::mask::MaskSet;
use crate::placement::SharedPlacement;
use crate::remote::RemoteServer;
use crate::settings::AgentSettings;
use credentials::HostCredentials;
use limit::Limit;
use logins::AttemptLogins;
use step_log::StepLog;
pub(crate) use turns::Turns;

/// How long work may take to stop after its timeout; then it is dropped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the engine may take to be left clean at the agent's end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest reason of a result, in characters.
const MAX_REASON: usize = 2000;

/// Runs the steps of an agent.
pub(crate) struct StepRunner {
    pub(crate) engine: Arc<dyn ContainerEngine>,
    pub(crate) engine_state: EngineState,
    /// Is told when a build found the engine's disk full.
    pub(crate) disk_was_full: Arc<Notify>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hub: Arc<LogHub>,
    /// The channel of the open stream, for contexts.
    pub(crate) channels: watch::Receiver<Option<Channel>>,
    pub(crate) bearer: Bearer,
    /// The server by itself, where the agent is not in its process.
    pub(crate) forward: Option<RemoteServer>,
    /// Pushes to registries outside, by their references.
    pub(crate) outside_pushes: Turns,
    /// Whether any placement's environment was in the engine.
    pub(crate) opened_any: AtomicBool,
    pub(crate) settings: AgentSettings,
}

/// What an attempt works with.
struct Attempt<'a> {
    runner: &'a StepRunner,
    key: PlacementKey,
    attempt: AttemptNumber,
    log: StepLog,
    /// What the steps of its placement share.
    shared: Arc<SharedPlacement>,
    /// When its time begins.
    limit: Limit,
    /// Fires when the attempt has to stop.
    stop: CancellationToken,
    /// For what is to be known before its end.
    said: mpsc::Sender<ToServer>,
}

/// A step's place in its run.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    step: &'a StepId,
    environment: &'a EnvironmentOrder,
    tries: &'a Tries,
    registry: &'a RegistryName,
    credential: &'a RegistryCredential,
    logins: &'a Arc<AttemptLogins>,
}

/// How work ended without doing what it was for.
#[derive(Debug)]
enum Ended {
    /// The user's work failed.
    Failed { exit_code: Option<i32>, reason: String },
    /// The machinery failed.
    Lost(String),
    /// It was told to stop.
    Stopped,
}

impl Ended {
    fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed { exit_code: None, reason: chain(error) }
    }

    fn lost(doing: &str, error: &dyn std::error::Error) -> Self {
        Self::Lost(format!("{doing}: {}", chain(error)))
    }
}

impl Attempt<'_> {
    /// Tells the server what names stood for, in case the attempt does not end well. Nobody waits for that.
    fn has_resolved(&self, mut resolved: Resolved) {
        let masks = self.log.masks();
        resolved.bases.retain(|base| base.digest.is_some());
        resolved.bases.iter_mut().for_each(|base| base.reference = masks.text(&base.reference));
        if resolved != Resolved::default() {
            let _ = self.said.try_send(ToServer::Resolved(self.key, self.attempt, resolved));
        }
    }
}

impl StepRunner {
    /// How the server is reached from containers of an environment.
    fn ways(&self, environment: &EnvironmentOrder) -> Ways<'_> {
        let by_address = environment.registry_by_address;
        Ways { server: self.forward.as_ref(), here: self.settings.server_here, by_address }
    }

    /// Removes what the agent's placements shared among each other. What is left goes with the next start.
    pub(crate) async fn leave_engine(&self) {
        if !self.opened_any.load(Ordering::Relaxed) {
            return;
        }
        let reaped = tokio::time::timeout(LEAVE_TIMEOUT, self.engine.reap(&self.settings.engine_owner)).await;
        if !matches!(reaped, Ok(Ok(_))) {
            tracing::debug!("engine is left with what the agent's placements shared");
        }
    }

    /// The folder for what an attempt of this placement keeps on disk.
    pub(crate) fn placement_dir(&self, key: PlacementKey) -> PathBuf {
        self.settings.work_dir.join(format!("{}-{}", key.run, key.fence))
    }

    /// A placement as the engine knows it.
    pub(crate) fn scope(&self, key: PlacementKey) -> PlacementScope {
        PlacementScope { owner: self.settings.engine_owner.clone(), key }
    }

    /// The name in the engine for what an attempt builds.
    pub(crate) fn local_name(&self, key: PlacementKey, attempt: AttemptNumber) -> LocalName {
        LocalName::new(&self.settings.engine_owner, key.run, attempt)
    }

    /// Runs an attempt. The result comes when its log is stored; there is none if `cancel` fired.
    pub(crate) async fn run(
        self: Arc<Self>,
        key: PlacementKey,
        attempt: AttemptNumber,
        order: StepOrder,
        shared: Arc<SharedPlacement>,
        said: mpsc::Sender<ToServer>,
        cancel: CancellationToken,
    ) -> Option<StepResult> {
        let span = tracing::info_span!("step", run = %key.run, attempt = %attempt, step = %order.step);
        tracing::Instrument::instrument(Box::pin(self.run_in_span(key, attempt, order, shared, said, cancel)), span)
            .await
    }

    async fn run_in_span(
        &self,
        key: PlacementKey,
        attempt: AttemptNumber,
        order: StepOrder,
        shared: Arc<SharedPlacement>,
        said: mpsc::Sender<ToServer>,
        cancel: CancellationToken,
    ) -> Option<StepResult> {
        let sender = self.hub.open(key, attempt, self.placement_dir(key));
        let masks = match mask_set(&order) {
            Ok(masks) => masks,
            Err(error) => return Some(StepResult::Failed { exit_code: None, reason: error.to_string() }),
        };
        let stop = cancel.child_token();
        let label = if order.beside { format!("{} | ", order.step) } else { String::new() };
        let log = StepLog::new(sender.clone(), masks.clone(), label, Arc::clone(&self.clock), stop.clone());
        let running = Attempt { runner: self, key, attempt, log, shared, limit: Limit::default(), stop, said };
        let result = AssertUnwindSafe(running.to_end(order)).catch_unwind().await.unwrap_or_else(|panic| {
            let reason = format!("the agent failed: {}", panic_text(&*panic));
            Some(StepResult::Lost { reason })
        });
        let result = match result {
            Some(result) => result,
            None if cancel.is_cancelled() => return None,
            // Without a result the server would wait for ever.
            None => StepResult::Lost { reason: "the engine stopped the step of its own accord".to_owned() },
        };
        let result = masked(result, &masks);
        match &result {
            StepResult::Succeeded { .. } => tracing::info!("step succeeded"),
            StepResult::Failed { reason, .. } => tracing::info!(reason, "step failed"),
            StepResult::TimedOut => tracing::info!("step timed out"),
            StepResult::Lost { reason } => {
                self.engine_state.doubt();
                tracing::warn!(reason, "step was lost");
            }
        }
        if let StepResult::Failed { reason, .. } | StepResult::Lost { reason } = &result {
            running.log.last_service_line(&format!("error: {reason}")).await;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            () = sender.drained() => Some(result),
        }
    }
}

impl Attempt<'_> {
    /// Works until the end or the timeout. `None` means that it was told to stop.
    async fn to_end(&self, order: StepOrder) -> Option<StepResult> {
        let timeout = order.timeout;
        let work = self.work(order);
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = self.limit.reached(timeout) => {
                if self.stop.is_cancelled() {
                    return None;
                }
                self.stop.cancel();
                // What it answers no longer counts: its time is over.
                let _ = tokio::time::timeout(STOP_TIMEOUT, &mut work).await;
                self.log.last_service_line(&format!("error: timed out after {} s", timeout.as_secs_f64())).await;
                return Some(StepResult::TimedOut);
            }
            why = self.runner.engine_state.gone() => {
                self.stop.cancel();
                // It hardly answers; what it was doing is stopped by the end of the connections.
                let _ = tokio::time::timeout(STOP_TIMEOUT, &mut work).await;
                Err(Ended::Lost(format!("engine stopped answering: {why}")))
            }
        };
        match ended {
            Ok(output) => Some(StepResult::Succeeded { output }),
            Err(Ended::Failed { exit_code, reason }) => Some(StepResult::Failed { exit_code, reason }),
            Err(Ended::Lost(reason)) => Some(StepResult::Lost { reason }),
            Err(Ended::Stopped) => None,
        }
    }

    /// Does the work, and says what detached containers of the placement say meanwhile.
    async fn work(&self, order: StepOrder) -> Result<StepOutput, Ended> {
        let done = CancellationToken::new();
        let work = async {
            let ended = self.work_alone(order).await;
            done.cancel();
            ended
        };
        let pump = async {
            while !done.is_cancelled() {
                self.log.append(self.shared.detached.next(&done).await).await;
            }
            self.log.append(self.shared.detached.take()).await;
        };
        let (ended, ()) = tokio::join!(work, pump);
        ended
    }

    async fn work_alone(&self, order: StepOrder) -> Result<StepOutput, Ended> {
        let tries = &order.tries;
        if !tries.start_delay.is_zero() {
            let seconds = tries.start_delay.as_secs();
            self.log.service(&format!("Waiting {seconds} seconds before executing step ID: {}", order.step)).await;
            self.pause(tries.start_delay).await?;
        }
        if order.environment.is_none() {
            // Everything that such a step does counts.
            self.limit.begin();
        }
        if self.log.masks().too_short() > 0 {
            self.log.service("warning: a secret shorter than 4 bytes is not masked").await;
        }
        if let Err(error) = self.runner.engine.ping().await {
            return Err(Ended::lost("engine not running", &error));
        }
        let credential =
            RegistryCredential { username: order.registry.username.clone(), password: order.registry.password.clone() };
        let hosts = HostCredentials::new(self);
        let logins = Arc::new(AttemptLogins::new(order.registry.name.clone(), credential.clone(), hosts));
        let environment = order.environment.unwrap_or_default();
        let around = Surroundings {
            step: &order.step,
            environment: &environment,
            tries,
            registry: &order.registry.name,
            credential: &credential,
            logins: &logins,
        };
        match order.work {
            StepWork::Prepare(prepare) => self.prepare(prepare, &order.registry).await,
            StepWork::Build(build) => self.build(build, around).await,
            StepWork::Push(push) => self.push(push, around).await,
            StepWork::Command(command) => self.command(command, around).await,
        }
    }
}

/// Everything that must not be seen of an order.
fn mask_set(order: &StepOrder) -> Result<MaskSet, crate::mask::TooLarge> {
    let secrets: &[_] = match &order.work {
        StepWork::Build(build) => &build.secrets,
        StepWork::Prepare(_) | StepWork::Push(_) | StepWork::Command(_) => &[],
    };
    let password = order.registry.password.expose().as_bytes();
    let volumes = order.environment.iter().flat_map(|environment| &environment.volumes);
    let files = volumes.flat_map(|volume| &volume.files).map(|(_, data)| data.expose());
    let values = order.masked.iter().map(|value| value.expose()).chain(files);
    MaskSet::new(values.chain(secrets.iter().map(|(_, value)| value.expose())).chain([password]))
}

/// The result without anything that must not be seen.
fn masked(result: StepResult, masks: &MaskSet) -> StepResult {
    let line = |text: &str| masks.text(text).chars().take(MAX_REASON).collect::<String>();
    match result {
        StepResult::Failed { exit_code, reason } => StepResult::Failed { exit_code, reason: line(&reason) },
        StepResult::Lost { reason } => StepResult::Lost { reason: line(&reason) },
        StepResult::Succeeded { output: StepOutput::Built { image, mut bases, mut frontend, context } } => {
            bases.iter_mut().for_each(|base| base.reference = masks.text(&base.reference));
            frontend.iter_mut().for_each(|frontend| frontend.reference = masks.text(&frontend.reference));
            StepResult::Succeeded { output: StepOutput::Built { image, bases, frontend, context } }
        }
        result @ (StepResult::Succeeded {
            output: StepOutput::Pushed { .. } | StepOutput::Prepared(_) | StepOutput::Ran { .. },
        }
        | StepResult::TimedOut) => result,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}
