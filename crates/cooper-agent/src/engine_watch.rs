//! Looks after the engine: whether it answers, and what it is.
//!
//! An engine that stops answering (stopped, hung, its machine out of breath) would leave a build waiting for ever, for the
//! connection to it stays open. So it is asked for a sign of life all the time; after a missed one the agent takes no new
//! work, after [`MISSES`] in a row it gives up what runs. When it answers again, work is taken again by itself.

use std::sync::Arc;
use std::time::Duration;

use cooper_ports::engine::{ContainerEngine, EngineDescription, EngineError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::conditions::{Condition, Conditions};
use crate::error::chain;

/// Signs of life missed in a row until what runs counts as lost. A ping is the engine's cheapest request and has
/// fifteen seconds; with the usual pause of three seconds between them this is 51 to 54 s of silence. An engine on a machine
/// that is full of builds answers late now and then, but not that late, and a build that is lost for nothing costs more than
/// the wait.
const MISSES: u32 = 3;

/// What is known of the engine, for those who work with it.
#[derive(Clone, Debug)]
pub(crate) struct EngineState {
    /// Why it counts as gone, while it does.
    gone: watch::Receiver<Option<String>>,
    conditions: Conditions,
    doubts: Arc<Notify>,
}

/// Keeps the knowledge up to date.
pub(crate) struct EngineWatch {
    engine: Arc<dyn ContainerEngine>,
    conditions: Conditions,
    /// How often it is asked whether it lives.
    period: Duration,
    /// How often it is asked what it is.
    describe_period: Duration,
    gone: watch::Sender<Option<String>>,
    /// Somebody has reason to ask at once.
    doubts: Arc<Notify>,
    description: watch::Sender<Arc<EngineDescription>>,
}

impl EngineState {
    /// Something failed that may be the engine's doing. No work is taken until it has answered once more: an engine that
    /// starts again would lose a run as often as it is offered in the meantime.
    pub(crate) fn doubt(&self) {
        let why = "container engine has just lost a step, and is asked whether it works".to_owned();
        self.conditions.set(Condition::Engine, Some(why));
        self.doubts.notify_one();
    }

    /// Returns when the engine counts as gone, with the reason.
    pub(crate) async fn gone(&self) -> String {
        let mut gone = self.gone.clone();
        let why = gone.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // The watch has ended, and with it the agent.
            None => std::future::pending().await,
        }
    }
}

impl EngineWatch {
    /// A watch that has not begun.
    pub(crate) fn new(
        engine: Arc<dyn ContainerEngine>,
        conditions: Conditions,
        period: Duration,
        describe_period: Duration,
    ) -> Self {
        let (gone, description) = (watch::Sender::new(None), watch::Sender::new(engine.describe()));
        Self { engine, conditions, period, describe_period, gone, doubts: Arc::default(), description }
    }

    /// Where to see whether the engine is there.
    pub(crate) fn state(&self) -> EngineState {
        EngineState {
            gone: self.gone.subscribe(),
            conditions: self.conditions.clone(),
            doubts: Arc::clone(&self.doubts),
        }
    }

    /// Where to see what the engine is.
    pub(crate) fn description(&self) -> watch::Receiver<Arc<EngineDescription>> {
        self.description.subscribe()
    }

    /// Watches until it is dropped.
    pub(crate) async fn run(self) {
        let mut misses = 0;
        let mut described = Instant::now();
        loop {
            let mut answer = self.engine.ping().await;
            // What comes back after a while, or answers in another way than before, may be another engine.
            let other = misses > 0 && answer.is_ok();
            let other = other || matches!(answer, Err(EngineError::Refused { .. } | EngineError::Broken { .. }));
            if other || (answer.is_ok() && described.elapsed() >= self.describe_period) {
                described = Instant::now();
                answer = self.refresh().await;
            }
            match answer {
                Ok(()) => {
                    self.gone.send_replace(None);
                    if self.conditions.set(Condition::Engine, None) && misses > 0 {
                        tracing::info!("engine is back");
                    }
                    misses = 0;
                }
                Err(error) => {
                    misses += 1;
                    let why = chain(&error);
                    self.conditions.set(Condition::Engine, Some(why.clone()));
                    if misses == 1 {
                        tracing::warn!(error = why, "engine is away: no work is taken");
                    }
                    if misses >= MISSES {
                        self.gone.send_replace(Some(format!("{why}; it was asked {MISSES} times")));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.period) => {}
                () = self.doubts.notified() => {}
            }
        }
    }

    async fn refresh(&self) -> Result<(), EngineError> {
        let now = self.engine.refresh().await?;
        self.description.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tracing::info!(engine = ?now, "engine is not what it was: the server is told");
                *before = now;
            }
            changed
        });
        Ok(())
    }
}
