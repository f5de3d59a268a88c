//! An agent whose engine is not there. It is connected, so that everybody sees it and why it does nothing, and declines
//! what it is offered with that reason. When the engine comes, the same life of the agent goes on in [`Agent`].
//!
//! [`Agent`]: crate::agent::Agent

use std::sync::Arc;
use std::time::Duration;

use cooper_api::agent::wire::agent_message;
use cooper_api::agent::{StepOrder, to_server};
use cooper_engine::agent::{AgentEffect, AgentEvent, AgentState};
use cooper_engine::message::ToServer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use crate::connect::{Bearer, Connector};
use crate::error::AgentError;
use crate::greeting::Greeting;
use crate::link::{Link, LinkEvent, Uplink};
use crate::log::{Limits, LogHub};
use crate::settings::AgentSettings;

/// Messages of the server that may wait.
const QUEUE: usize = 64;
/// How long the last messages may take to get out at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The connection of an agent without an engine.
pub(crate) struct Absent {
    why: watch::Sender<String>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Absent {
    /// Connects, for as long as it takes, as this life of the agent.
    pub(crate) fn begin(
        settings: &AgentSettings,
        connector: Arc<dyn Connector>,
        incarnation: &str,
        why: String,
    ) -> Result<Self, AgentError> {
        let bearer = Bearer::new(&settings.token)?;
        let (why, reason) = watch::channel(why);
        let (events, link_events) = mpsc::channel(QUEUE);
        let limits = Limits { memory_bytes: 0, spool_bytes: 0, patience: Duration::ZERO };
        let link = Link {
            connector,
            bearer,
            greeting: Greeting::without_engine(settings, incarnation),
            reconnect: settings.reconnect,
            hub: LogHub::new(limits),
            channel: watch::Sender::new(None),
            events,
            ready: watch::Sender::new(true).subscribe(),
            registry: watch::Sender::new(None),
        };
        let stop = CancellationToken::new();
        let slots = usize::try_from(settings.slots).unwrap_or(usize::MAX);
        let presence = Presence { state: AgentState::new(slots), why: reason, uplink: None };
        let task = tokio::spawn(presence.keep(link, link_events, stop.clone()));
        Ok(Self { why, stop, task })
    }

    /// The engine is still not there, for this reason.
    pub(crate) fn because(&self, why: String) {
        self.why.send_if_modified(|before| {
            let changed = *before != why;
            *before = why;
            changed
        });
    }

    /// Ends the connection in order.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the agent without an engine failed");
        }
    }
}

struct Presence {
    state: AgentState,
    why: watch::Receiver<String>,
    uplink: Option<(Uplink, Interval)>,
}

impl Presence {
    async fn keep(mut self, link: Link, mut events: mpsc::Receiver<LinkEvent>, stop: CancellationToken) {
        let stop_link = CancellationToken::new();
        let mut link = tokio::spawn(link.keep(stop_link.clone()));
        self.why.mark_changed();
        loop {
            // Every branch is cancel safe.
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = self.why.changed() => {
                    let why = self.why.borrow_and_update().clone();
                    self.apply(AgentEvent::Unavailable(Some(why)));
                    self.apply(AgentEvent::ReportDue);
                }
                event = events.recv() => match event {
                    Some(LinkEvent::Up(uplink)) => {
                        let beats = tokio::time::interval(uplink.heartbeat);
                        self.uplink = Some((uplink, beats));
                    }
                    Some(LinkEvent::Message(message)) => self.apply(AgentEvent::Received(*message)),
                    Some(LinkEvent::Down) => self.uplink = None,
                    None => break,
                },
                () = crate::supervisor::beat(&mut self.uplink) => self.apply(AgentEvent::ReportDue),
            }
        }
        // Without its owner the stream ends in order.
        drop((events, self.uplink));
        if tokio::time::timeout(FAREWELL, &mut link).await.is_err() {
            stop_link.cancel();
            let _ = link.await;
        }
    }

    fn apply(&mut self, event: AgentEvent<StepOrder>) {
        for effect in self.state.apply(event) {
            match effect {
                AgentEffect::Send(message) => self.send(message),
                // What is never accepted has nothing to run and nothing to clean up.
                AgentEffect::Run(..) | AgentEffect::Abandon(..) | AgentEffect::CleanUp(_) => {}
            }
        }
    }

    fn send(&mut self, message: ToServer) {
        let mut message = to_server(message);
        if let Some(agent_message::Message::Holding(report)) = &mut message.message {
            report.unavailable = self.why.borrow().clone();
        }
        let Some((uplink, _)) = &self.uplink else { return };
        if uplink.control.try_send(message).is_err() {
            uplink.cut.cancel();
            self.uplink = None;
        }
    }
}
