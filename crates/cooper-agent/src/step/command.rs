//! A `cmd` step: its container, run as often as the step says, in the environment of its placement.

mod image;
mod output;
mod request;

use std::sync::Arc;
use std::time::Duration;

use cooper_api::agent::{CommandImageOrder, CommandOrder};
use cooper_engine::message::{Resolved, StepOutput};
use cooper_ports::engine::{
    ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerRequest, EngineError, Placement,
    PublishedPort,
};
use cooper_spec::plan::Tries;
use cooper_types::StepId;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::forward::address_within;

use super::user_tries::{Last, Next, Progress, TryFailure};
use super::{Attempt, Ended, Surroundings};
use output::Output;
use request::StepRequest;

/// Events of the engine that may wait for the log; a container that says more waits itself.
const EVENT_QUEUE: usize = 16;
/// How often what has waited for the end of its line is said.
const TICK: Duration = Duration::from_millis(100);
/// Bytes that are gathered before they go to the log.
const BATCH_BYTES: usize = 256 * 1024;

impl Attempt<'_> {
    /// Runs a step's container to its last end, or to its start where it is to be detached.
    pub(super) async fn command(&self, order: CommandOrder, around: Surroundings<'_>) -> Result<StepOutput, Ended> {
        let Surroundings { step, environment, tries, registry, credential, logins } = around;
        let fail = |reason: String| Ended::Failed { exit_code: None, reason };
        // What the operator does not allow is not worth a pull.
        let StepRequest { mut request, notes } =
            request::request(step, &order, nothing(), environment, &self.runner.settings.steps).map_err(fail)?;
        for note in notes {
            self.log.service(&note).await;
        }
        // Neither waits for the other, and the image's fault is told first. Opening is not broken off by one: the next
        // step would meet what is being removed.
        let (image, placement) =
            tokio::join!(self.step_image(&order, registry, logins), self.open(environment, registry));
        let (image, placement) = (image?, placement?);
        self.has_resolved(Resolved { bases: image.base.iter().cloned().collect(), ..Resolved::default() });
        request.image = image.image;
        if let Some(address) = address_within(registry, self.runner.ways(environment)) {
            request::tell_address(&mut request, address);
        }
        let _login = self.shared.logins.add(self.attempt, credential);
        self.limit.begin();
        let built = matches!(order.image, CommandImageOrder::Built(_));
        let mut progress = Progress::new(tries);
        loop {
            self.log.service(&format!("Launching container with name: {step}")).await;
            let ended = self.run_once(&placement, request.clone(), step, tries, built).await?;
            match &ended {
                Ok(()) => self.log.service(&format!("Successfully executed container: {step}")).await,
                Err(failure) => self.say_failure(step, tries, &progress, failure).await,
            }
            let next = progress.after(ended);
            if !matches!(next, Next::Done(_)) {
                self.has_resolved(Resolved { tries: progress.begun, ..Resolved::default() });
            }
            match next {
                Next::Retry(delay) => self.pause(delay).await?,
                Next::Repeat => {}
                Next::Done(Ok(())) => return Ok(StepOutput::Ran { image: image.base }),
                Next::Done(Err(TryFailure { exit_code, reason, .. })) => {
                    return Err(Ended::Failed { exit_code, reason });
                }
            }
        }
    }

    /// Says how a try ended that failed, in ACR's words where it has some (contract §5.3).
    pub(super) async fn say_failure(
        &self,
        step: &StepId,
        tries: &Tries,
        progress: &Progress<'_>,
        failure: &TryFailure,
    ) {
        self.log.service(&format!("{step}: {}", failure.reason)).await;
        let rest = match progress.is_last(failure) {
            None => format!("waiting {} seconds before retrying...", tries.retry_delay.as_secs()),
            Some(Last::NoneLeft) => {
                self.log.service(&format!("Container failed during run: {step}. No retries remaining.")).await;
                return;
            }
            Some(Last::OtherError) => "not retrying: its output holds none of retryOnErrors".to_owned(),
        };
        self.log.service(&format!("Container failed during run: {step}, {rest}")).await;
    }

    /// Waits, unless the attempt is to stop.
    pub(super) async fn pause(&self, delay: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }

    /// One container. The inner error is the user's.
    async fn run_once(
        &self,
        placement: &Arc<dyn Placement>,
        request: ContainerRequest,
        step: &StepId,
        tries: &Tries,
        built: bool,
    ) -> Result<Result<(), TryFailure>, Ended> {
        self.shared.change();
        let detach = request.detach;
        let (sink, events) = mpsc::channel(EVENT_QUEUE);
        let run = placement.run(request, sink, self.stop.clone());
        let (ended, found) = if detach {
            let output = Output::new(self.log.masks(), &[], &format!("{step} | "));
            let following = self.follow_detached(events, output, step.clone());
            tokio::spawn(self.shared.closed.clone().run_until_cancelled_owned(following));
            (run.await, false)
        } else {
            let mut output = Output::new(self.log.masks(), &tries.retry_on_errors, self.log.label());
            let (ended, ()) = tokio::join!(run, self.show_output(events, &mut output));
            (ended, output.found())
        };
        let failed = |exit_code, reason| Ok(Err(TryFailure { exit_code, reason, has_retryable_output: found }));
        match ended {
            Ok(ContainerEnd::Detached | ContainerEnd::Exited { code: 0, .. }) => Ok(Ok(())),
            Ok(ContainerEnd::Exited { code, out_of_memory }) => {
                let memory = match (out_of_memory, self.runner.settings.steps.memory) {
                    (false, _) => String::new(),
                    (true, None) => ": the machine's memory ran out (OOMKilled)".to_owned(),
                    (true, Some(limit)) => {
                        let limit = limit >> 20;
                        format!(
                            ": its memory of {limit} MiB ran out (OOMKilled); --step-memory of the agent gives more"
                        )
                    }
                };
                failed(i32::try_from(code).ok(), format!("container exited with code {code}{memory}"))
            }
            Err(ContainerError::Cancelled) => Err(Ended::Stopped),
            Err(ContainerError::Machinery(error)) => {
                if matches!(error, EngineError::DiskFull { .. }) {
                    self.runner.disk_was_full.notify_one();
                }
                Err(Ended::lost("container failed", &error))
            }
            // What an earlier step of the run built, somebody else removed.
            Err(ContainerError::Failed(failure @ ContainerFailure::ImageMissing { .. })) if built => {
                Err(Ended::Lost(failure.to_string()))
            }
            Err(ContainerError::Failed(failure)) => failed(shell_code(&failure), failure.to_string()),
        }
    }

    /// Puts a container's output into the log until it says nothing more.
    async fn show_output(&self, mut events: mpsc::Receiver<ContainerEvent>, output: &mut Output) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = ticks.tick() => {
                    output.tick(self.log.now());
                    self.log.append(output.take_frames()).await;
                    continue;
                }
            };
            let mut event = event;
            let over = event.is_none();
            while let Some(next) = event {
                match next {
                    ContainerEvent::Started { ports } => {
                        for port in ports {
                            self.log.service(&published(&port)).await;
                        }
                    }
                    ContainerEvent::Output { stream, bytes } => output.feed(stream, &bytes, self.log.now()),
                }
                event = if output.ready_bytes() < BATCH_BYTES { events.try_recv().ok() } else { None };
            }
            if over {
                output.finish(self.log.now());
            }
            self.log.append(output.take_frames()).await;
            if over {
                return;
            }
        }
    }

    /// What puts a detached container's output where running attempts take it, until the container ends.
    fn follow_detached(
        &self,
        mut events: mpsc::Receiver<ContainerEvent>,
        mut output: Output,
        step: StepId,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (detached, log) = (Arc::clone(&self.shared.detached), self.log.clone());
        async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(ContainerEvent::Output { stream, bytes }) => output.feed(stream, &bytes, log.now()),
                        Some(ContainerEvent::Started { ports }) => {
                            let lines = ports.iter().map(|port| log.line(&published(port))).collect();
                            detached.push(lines).await;
                        }
                        None => break,
                    },
                    _ = ticks.tick() => output.tick(log.now()),
                }
                detached.push(output.take_frames()).await;
            }
            output.finish(log.now());
            detached.push(output.take_frames()).await;
            detached.push(vec![log.line(&format!("{step}: detached container has ended"))]).await;
        }
    }
}

fn published(port: &PublishedPort) -> String {
    let PublishedPort { container, protocol, host } = port;
    format!("port {container}/{} is port {host} of the agent's machine", protocol.as_str())
}

/// The code that a shell gives for a command that does not start.
fn shell_code(failure: &ContainerFailure) -> Option<i32> {
    match failure {
        ContainerFailure::CommandMissing { .. } => Some(127),
        ContainerFailure::NotExecutable { .. } => Some(126),
        ContainerFailure::ImageMissing { .. }
        | ContainerFailure::WrongPlatform { .. }
        | ContainerFailure::NoCommand
        | ContainerFailure::UserMissing { .. }
        | ContainerFailure::PortTaken { .. }
        | ContainerFailure::Invalid { .. } => None,
    }
}

/// Stands for an image that is not known yet.
fn nothing() -> cooper_types::Digest {
    cooper_types::Digest::sha256(b"")
}
