//! The agent: it holds placements for a server, runs their steps on a container engine, and reports.
//!
//! What it holds and says is decided by [`cooper_engine::agent::AgentState`]; this crate is the shell around it. It
//! knows its engine by a port, and its server by a channel that a [`Connector`] opens: it is the same agent in the
//! server's own process and on another machine.
//!
//! ```text
//! Link ─messages─▶ Supervisor (AgentState) ─effects─▶ steps, clean-ups
//!   ▲                  │ results                          │ output
//!   └── control ◀──────┘          LogHub ◀── frames ── Renderer ◀─ Masker
//!   └── log frames ◀─────────────────┘
//! ```

mod absent;
mod agent;
mod cleanup;
mod clock;
mod conditions;
mod connect;
mod disk;
mod engine_watch;
mod error;
mod forward;
mod greeting;
mod host;
mod link;
mod log;
mod mask;
mod placement;
mod remote;
mod render;
mod settings;
mod step;
mod supervisor;

pub use agent::Agent;
pub use clock::SystemClock;
pub use connect::{ConnectError, Connector, InProcessConnector, tuned};
pub use error::AgentError;
pub use host::AgentHost;
pub use remote::{RemoteServer, RemoteServerError};
pub use settings::{AgentSettings, CacheBudget, CredentialKeeper, DiskSettings, MinFree, ReconnectWindow, StepPolicy};
