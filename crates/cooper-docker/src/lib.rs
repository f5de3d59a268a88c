//! The adapter to Docker Engine: builds through a BuildKit session of our own, pushes and pulls, the containers of steps,
//! and clean-up.
//!
//! bollard carries the plain requests. Builds, sessions and pushes go over connections of their own (`wire.rs`), because
//! a build is stopped by closing them, and because bollard drops the parts of the answers that are needed here.

mod attach;
mod build;
mod cache;
mod container;
mod describe;
mod engine;
mod failure;
mod helper;
mod housekeeping;
mod lines;
mod placement;
mod pull;
mod push;
mod session;
mod socket;
mod trace;
mod wire;

pub use engine::DockerEngine;
pub use socket::EngineSocket;
