//! The planning of a run whose source an agent has prepared. It fetches, so it goes on beside the agent's stream, once for
//! each attempt; an agent that hears nothing says its result again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cooper_api::agent::to_agent;
use cooper_engine::message::{PlacementKey, PreparedSource, StepResult, ToAgent};
use cooper_engine::run::{AgentRef, PlannedRun, Run, RunEvent, RunSource, SealedText, notes};
use cooper_ports::runs::{ApplyError, AttemptError, SecretKind};
use cooper_ports::secrets::Asker;
use cooper_spec::task_request::{Fetched, KeptTexts, MissingText, set_secret_name};
use cooper_types::{AttemptNumber, SecretString};
use futures::FutureExt as _;
use tokio::time::Instant;

use super::{fetch, off_the_loop};
use crate::core::Core;
use crate::orders::sealing_purpose;
use crate::problem::chain;

/// For how long alias sources that are away are asked for again. Not longer: the run holds a slot of its agent meanwhile, and a
/// place of its wave.
const AWAY: Duration = Duration::from_secs(30);
/// The pause before they are asked for again the first time; each is twice as long as the one before.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// Which attempts' sources are being planned.
#[derive(Debug, Default)]
pub(crate) struct Plannings(Mutex<BTreeSet<(PlacementKey, AttemptNumber)>>);

impl Plannings {
    fn begin(&self, key: PlacementKey, attempt: AttemptNumber) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((key, attempt))
    }

    fn end(&self, key: PlacementKey, attempt: AttemptNumber) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(key, attempt));
    }
}

/// How a planning can't be made.
enum Unplanned {
    /// The file or what it names is wrong: that is a result.
    Told(String),
    /// An alias source is away.
    Away(String),
    /// The server can't tell now; the agent says its result again.
    Later(String),
}

impl Core {
    /// Whether a result is for [`Self::plan_prepared`]: the source of a task file.
    pub(crate) fn is_task_source(run: &Run) -> bool {
        matches!(run.source, Some(RunSource::TaskWanted { .. }))
    }

    /// Plans a run with what an attempt prepared, stores that as the attempt's end, and tells its agent.
    pub(crate) fn plan_prepared(
        self: &Arc<Self>,
        agent: AgentRef,
        run: Run,
        key: PlacementKey,
        attempt: AttemptNumber,
        found: PreparedSource,
    ) {
        if !self.plannings.begin(key, attempt) {
            return;
        }
        let core = Arc::clone(self);
        self.beside(async move {
            let planning = AssertUnwindSafe(core.store_plan(&run, key, attempt, found)).catch_unwind().await;
            let stored = match planning {
                Ok(stored) => stored,
                // Said again, it would fail again: like any failure of the machinery, it counts as a loss.
                Err(_) => core.planning_failed(key, attempt).await,
            };
            core.plannings.end(key, attempt);
            if stored {
                core.agents.send(&agent, to_agent(ToAgent::ResultStored { key, attempt }));
            }
        });
    }

    async fn planning_failed(&self, key: PlacementKey, attempt: AttemptNumber) -> bool {
        tracing::error!(run = %key.run, "planning a prepared source panicked");
        let result = StepResult::Lost { reason: "the server failed to plan the run; its log says why".to_owned() };
        let ended = self.apply(key.run, RunEvent::StepEnded { fence: key.fence, attempt, result }).await;
        matches!(ended, Ok(_) | Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)))
    }

    async fn store_plan(&self, run: &Run, key: PlacementKey, attempt: AttemptNumber, found: PreparedSource) -> bool {
        let planned = match self.plan_when_there(run, attempt, &found).await {
            Ok(planned) => Ok(planned),
            Err(Unplanned::Told(reason) | Unplanned::Away(reason)) => Err(reason),
            Err(Unplanned::Later(reason)) => {
                tracing::error!(run = %run.id, error = reason, "prepared source can't be planned now");
                return false;
            }
        };
        let (fence, found, planned) = (key.fence, Box::new(found), Box::new(planned));
        match self.apply(run.id, RunEvent::SourcePlanned { fence, attempt, found, planned }).await {
            Ok(_) | Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => true,
            Err(ApplyError::NotUploaded { .. } | ApplyError::NotPushed { .. }) => {
                let reason = "the source was reported and the server has nothing of it".to_owned();
                let result = StepResult::Lost { reason };
                self.apply(run.id, RunEvent::StepEnded { fence, attempt, result }).await.is_ok()
            }
            Err(error @ ApplyError::Store(_)) => {
                tracing::error!(run = %run.id, error = chain(&error), "plan can't be stored");
                false
            }
        }
    }

    /// Plans, and has alias sources that are away asked for again for a time.
    async fn plan_when_there(
        &self,
        run: &Run,
        attempt: AttemptNumber,
        found: &PreparedSource,
    ) -> Result<PlannedRun, Unplanned> {
        // A stranger's file says whom the server asks: once.
        let patience = if run.origin.untrusted { Duration::ZERO } else { AWAY };
        let (begun, mut pause, mut missed) = (Instant::now(), AWAY_PAUSE, None);
        loop {
            // Each try sees whether the attempt still lives.
            match (self.plan_source(run, attempt, found).await, missed) {
                (Err(Unplanned::Away(why)), _) if begun.elapsed() + pause <= patience => {
                    tracing::warn!(run = %run.id, why, "alias source of a run is away; trying again");
                    missed = Some(why);
                }
                (Err(Unplanned::Away(why)), Some(_)) => {
                    let seconds = begun.elapsed().as_secs();
                    return Err(Unplanned::Told(format!("{why}; it was asked for again and again for {seconds} s")));
                }
                (Ok(mut planned), Some(why)) => {
                    planned.notes.push(format!("warning: {why}; it was there when it was asked for again"));
                    return Ok(planned);
                }
                (planned, _) => return planned,
            }
            tokio::select! {
                () = self.stopping.cancelled() => return Err(Unplanned::Later("the server is stopping".to_owned())),
                () = tokio::time::sleep(pause) => {}
            }
            pause *= 2;
        }
    }

    async fn plan_source(
        &self,
        run: &Run,
        attempt: AttemptNumber,
        found: &PreparedSource,
    ) -> Result<PlannedRun, Unplanned> {
        let mut fetched = Fetched { set_secrets: self.set_secrets(run, attempt).await?, ..Fetched::default() };
        for file in &found.files {
            let Some(content) = &file.content else { continue };
            let text = String::from_utf8(content.clone())
                .map_err(|_| Unplanned::Told(format!("file `{}` of the source is no text in UTF-8", file.name)))?;
            fetched.files.insert(file.name.clone(), text);
        }
        let replay = run.provenance.replay.as_deref();
        if replay.is_some_and(|replay| !replay.fresh) {
            // It was given what the repeated run had when it was accepted.
            let own = self.runs.find_request(run.id).await.map_err(|error| Unplanned::Later(chain(&error)))?;
            fetched.known_urls = own.map(|own| own.texts.urls()).unwrap_or_default();
        }
        let asker = Asker { principal: run.principal.clone(), scopes: run.scopes.clone() };
        let inputs = |fetched: &Fetched| {
            let waits = "only runs that wait for a task file's source come here";
            run.task_inputs(found, fetched).unwrap_or_else(|| Err(MissingText::File(waits.to_owned())))
        };
        let fetched = fetch(self, &asker, replay, fetched, inputs).await.map_err(|error| match error.may_pass() {
            true => Unplanned::Later(chain(&error)),
            false if error.is_away() => Unplanned::Away(chain(&error)),
            false => Unplanned::Told(chain(&error)),
        })?;
        let (planner, source) = (run.clone(), found.clone());
        let task = match &run.source {
            Some(RunSource::TaskWanted { task, .. }) => task,
            Some(RunSource::Wanted { .. } | RunSource::Prepared { .. }) | None => {
                return Err(Unplanned::Told("it was planned before".to_owned()));
            }
        };
        let (texts, used_secrets) = (KeptTexts::of(task, &fetched), fetched.used_secrets.clone());
        let mut lines = fetched.notes.clone();
        let planned = off_the_loop(move || planner.plan_task(&source, &fetched)).await;
        let planned = planned.ok_or_else(|| Unplanned::Told("it was planned before".to_owned()))?;
        let planned = planned.map_err(|error| Unplanned::Told(chain(&error)))?;
        let secrets = planned.texts.iter();
        let secrets = secrets.map(|(name, text)| SealedText { name: name.clone(), sealed: self.seal_text(name, text) });
        let secrets = secrets.collect();
        lines.extend(notes(&planned.warnings));
        Ok(PlannedRun { plan: planned.plan, secrets, notes: lines, texts, used_secrets })
    }

    /// The values of `--set-secret` that came with the request.
    async fn set_secrets(
        &self,
        run: &Run,
        attempt: AttemptNumber,
    ) -> Result<BTreeMap<String, SecretString>, Unplanned> {
        let sealed = self.runs.run_secrets(run.id, attempt).await.map_err(|error| match error {
            AttemptError::NotLive { .. } => Unplanned::Told("the attempt is over".to_owned()),
            AttemptError::Store(error) => Unplanned::Later(chain(&error)),
        })?;
        let mut values = BTreeMap::new();
        let prefix = set_secret_name("");
        for secret in sealed {
            let (SecretKind::Value, Some(name)) = (secret.kind, secret.name.strip_prefix(&prefix)) else { continue };
            let value = self.key.unseal(&sealing_purpose(secret.kind, &secret.name), &secret.sealed);
            let value = value.map_err(|error| Unplanned::Told(chain(&error)))?;
            let text = String::from_utf8(value.expose().to_vec())
                .map_err(|_| Unplanned::Told(format!("`--set-secret {name}` is no text")))?;
            values.insert(name.to_owned(), SecretString::new(text));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
