//! A build: its context, its Dockerfile, the engine's work, and what came of it.

mod cache;
mod frontend;
mod own;
mod source;

use std::time::Duration;

use cooper_api::agent::BuildOrder;
use cooper_engine::message::{BaseImage, Resolved, StepOutput};
use cooper_ports::engine::{
    BaseImages, BuildError, BuildEvent, BuildFailure, BuildNetwork, BuildRequest, BuiltImage, EngineError, ResolvedBase,
};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_types::ImageRef;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::bases::{bases, frontend_of, text_in_full};
use super::dockerfile::{self, Scan};
use super::heard::Heard;
use super::user_tries::{Last, Next, Progress, TryFailure};
use super::{Attempt, Ended, Surroundings};
use crate::placement;
use crate::render::Renderer;
use own::OwnImages;
use source::BuildSource;

/// Events of the engine that may wait for the log; more make the build wait.
const EVENT_QUEUE: usize = 256;
/// How often the renderer says what has waited.
const TICK: Duration = Duration::from_millis(100);

impl Attempt<'_> {
    /// Builds an image, as often as the step says.
    pub(super) async fn build(&self, order: BuildOrder, around: Surroundings<'_>) -> Result<StepOutput, Ended> {
        let BuildSource { context, dockerfile_tree, dockerfile, found: fetched } =
            self.build_source(&order, &around).await?;
        failpoint::pass(Failpoint::ContextFetched);
        self.has_resolved(Resolved { context: fetched.clone(), ..Resolved::default() });
        let network = self.build_network(order.network.as_deref())?;
        let mut arguments: Vec<(String, String)> =
            order.arguments.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let engine = self.runner.engine.describe();
        let tree = dockerfile_tree.as_ref().unwrap_or(&context);
        let mut found = dockerfile::find(tree, &dockerfile)?;
        let frontend = frontend::decide(&found.text, &mut arguments, &order.frontends, &order.pinned, &engine);
        let frontend = frontend.map_err(|reason| Ended::Failed {
            exit_code: None,
            reason: format!("Dockerfile `{dockerfile}`: {reason}"),
        })?;
        if let Some(note) = &frontend.note {
            self.log.service(note).await;
        }
        let is_other = frontend.text.is_some();
        if let Some(text) = frontend.text {
            found.text = text;
        }
        let scan =
            Scan { target: order.target.as_deref(), arguments: &arguments, platform: &order.platform, engine: &engine };
        let scanned = dockerfile::scan(found, scan)?;
        let mut own = self.own_images(&order, &scanned, &arguments, &around).await?;
        if own.of_the_engine
            && let Some(image) = &frontend.image
        {
            // The engine takes what it has under the name, whoever put it there.
            self.pull_base(&image.exact().to_string(), &order, &around).await?;
        }
        let preferred = if own.of_the_engine { BaseImages::OfTheEngineFirst } else { BaseImages::FromRegistries };
        let text = own.dockerfile.take().or_else(|| is_other.then(|| scanned.text.clone()));
        let dockerfile_tree = match text {
            Some(text) => Some(self.rewritten(tree, &scanned.path, &text)?),
            None => dockerfile_tree,
        };
        let copied = scanned.dependencies.iter().flat_map(|found| &found.copied);
        let copied = copied.filter(|name| !own.of_the_engine && !own.is_one(name) && own.pin(name).is_none());
        let copied = copied.map(|name| text_in_full(name)).collect();
        let mut request = BuildRequest {
            name: self.runner.local_name(self.key, self.attempt),
            context,
            dockerfile_tree,
            dockerfile: scanned.path.clone(),
            target: order.target,
            platform: Some(order.platform),
            arguments,
            labels: order.labels,
            no_cache: order.no_cache,
            secrets: order.secrets.into_iter().collect(),
            logins: around.logins.clone(),
            bases: preferred,
            network,
            hosts: order.add_hosts,
            cache_from: Vec::new(),
            cache_to: None,
            shared_key: order.shared_key,
            resolved: std::mem::take(&mut own.pulled),
            copied,
        };
        if let Some(cache) = order.cache {
            let line = cache::apply(cache, &engine, &mut request);
            self.log.service(&line).await;
        }
        self.limit.begin();
        let mut progress = Progress::new(around.tries);
        loop {
            let mut seen = Vec::new();
            let ended = self.build_once(request.clone(), &own, &around, &mut seen).await;
            let as_written = |resolved: Vec<ResolvedBase>| -> Vec<BaseImage> {
                let resolved = resolved.into_iter().map(|base| match &frontend.image {
                    Some(image) => own.as_written(image.as_written(base)),
                    None => own.as_written(base),
                });
                let mut bases = bases(scanned.dependencies.as_ref(), &resolved.collect::<Vec<_>>());
                bases.retain(|base| !own.is_one(&base.reference));
                bases
            };
            if !matches!(ended, Ok(Ok(_))) {
                self.has_resolved(Resolved { bases: as_written(seen), context: fetched.clone(), tries: 0 });
            }
            let (built, ended) = match ended? {
                Ok(built) => (Some(built), Ok(())),
                Err(failure) => (None, Err(failure)),
            };
            if let Err(failure) = &ended
                && !around.tries.is_plain()
            {
                self.say_build_failure(&around, &progress, failure).await;
            }
            let next = progress.after(ended);
            if !matches!(next, Next::Done(_)) {
                self.has_resolved(Resolved { tries: progress.begun, ..Resolved::default() });
            }
            match (next, built) {
                (Next::Retry(delay), _) => self.pause(delay).await?,
                (Next::Repeat, _) => {}
                (Next::Done(Ok(())), Some(built)) => {
                    self.shared.built(built.image.clone(), request.name.clone());
                    let mut bases = as_written(built.bases);
                    for base in bases.iter_mut().filter(|base| base.digest.is_none()) {
                        base.digest = own.pin(&base.reference).cloned();
                    }
                    let named = frontend.image.as_ref().map(|image| image.named.to_string());
                    let frontend = frontend_of(named, &mut bases);
                    return Ok(StepOutput::Built { image: built.image, bases, frontend, context: fetched });
                }
                (Next::Done(Ok(())), None) => return Err(Ended::Lost("the last build gave no image".to_owned())),
                (Next::Done(Err(TryFailure { exit_code, reason, .. })), _) => {
                    return Err(Ended::Failed { exit_code, reason });
                }
            }
        }
    }

    async fn say_build_failure(&self, around: &Surroundings<'_>, progress: &Progress<'_>, failure: &TryFailure) {
        let step = around.step;
        let line = match progress.is_last(failure) {
            None => format!(
                "{step}: {}; waiting {} seconds before retrying...",
                failure.reason,
                around.tries.retry_delay.as_secs()
            ),
            Some(Last::NoneLeft) => format!("{step}: {}. No retries remaining.", failure.reason),
            Some(Last::OtherError) => {
                format!("{step}: {}. Not retrying: its output holds none of retryOnErrors.", failure.reason)
            }
        };
        self.log.service(&line).await;
    }

    fn build_network(&self, network: Option<&str>) -> Result<BuildNetwork, Ended> {
        let fail = |reason: String| Err(Ended::Failed { exit_code: None, reason });
        match network {
            None | Some("" | "default") => Ok(BuildNetwork::Default),
            Some("none") => Ok(BuildNetwork::None),
            Some("host") if self.runner.settings.steps.networks.contains("host") => Ok(BuildNetwork::Host),
            Some("host") => fail(placement::network_refused("host")),
            Some(other) => fail(format!("a build's network is `default`, `none` or `host`, not `{other}`")),
        }
    }

    /// One build. The inner error is the user's.
    async fn build_once(
        &self,
        request: BuildRequest,
        own: &OwnImages,
        around: &Surroundings<'_>,
        seen: &mut Vec<ResolvedBase>,
    ) -> Result<Result<BuiltImage, TryFailure>, Ended> {
        let own_images = format!("{}/", around.registry);
        let label = self.log.label().to_owned();
        let renderer = Renderer::new(self.log.masks().clone(), request.name.to_string(), label);
        let mut heard = Heard::new(&around.tries.retry_on_errors);
        let (sink, events) = mpsc::channel(EVENT_QUEUE);
        let cancel = self.stop.child_token();
        let build = self.runner.engine.build(request, sink, cancel.clone());
        let mut foreign = None;
        let (built, ()) =
            tokio::join!(build, self.show(events, renderer, own, &mut heard, seen, (&mut foreign, &cancel)));
        if let Some(name) = foreign.filter(|_| !self.stop.is_cancelled()) {
            let reason = format!("a base's ONBUILD names image `{name}`: names of this kind are the agent's own");
            return Ok(Err(TryFailure { exit_code: None, reason, has_retryable_output: false }));
        }
        match built {
            Ok(built) => {
                failpoint::pass(Failpoint::ImageBuilt);
                Ok(Ok(built))
            }
            Err(BuildError::Cancelled) => Err(Ended::Stopped),
            // The engine takes a login that can't be had now for a refusal.
            Err(BuildError::Failed(_)) if let Some(error) = around.logins.take_fault() => {
                Err(Ended::Lost(error.to_string()))
            }
            // Our own registry being away is nothing that the user could mend.
            Err(BuildError::Failed(failure)) if is_ours(&failure, &own_images) => Err(Ended::Lost(failure.to_string())),
            Err(BuildError::Failed(failure)) => {
                let exit_code = match &failure {
                    BuildFailure::Exited { code, .. } => i32::try_from(*code).ok(),
                    _ => None,
                };
                let advice = match &failure {
                    BuildFailure::BaseDenied { reference, .. } => {
                        ImageRef::parse(reference).map(|image| around.logins.advice(&image)).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                let reason = own.shown(&format!("{failure}{advice}"));
                heard.feed("", reason.as_bytes());
                Ok(Err(TryFailure { exit_code, reason, has_retryable_output: heard.found() }))
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
    async fn show(
        &self,
        mut events: mpsc::Receiver<BuildEvent>,
        mut renderer: Renderer,
        own: &OwnImages,
        heard: &mut Heard,
        seen: &mut Vec<ResolvedBase>,
        (foreign, cancel): (&mut Option<String>, &CancellationToken),
    ) {
        let mut take = |renderer: &mut Renderer, event: BuildEvent| {
            if let BuildEvent::Vertex(vertex) = &event
                && let Some(name) = own.foreign(&vertex.name)
            {
                // Before anything of it runs: images are looked up first.
                foreign.get_or_insert(name);
                cancel.cancel();
            }
            if foreign.is_some() {
                return;
            }
            if let BuildEvent::Base(base) = event {
                seen.push(base);
                return;
            }
            if let BuildEvent::Log { vertex, bytes, .. } = &event {
                heard.feed(vertex, bytes);
            }
            renderer.event(own.shown_in(event), self.log.now());
        };
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => take(&mut renderer, event),
                    None => break,
                },
                _ = ticks.tick() => renderer.tick(self.log.now()),
            }
            while let Ok(event) = events.try_recv() {
                take(&mut renderer, event);
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
