//! The adapter to Docker Engine: builds through a BuildKit session of our own, pushes, and clean-up.
//!
//! bollard carries the plain requests. Builds, sessions and pushes go over connections of their own (`wire.rs`), because
//! a build is stopped by closing them, and because bollard drops the parts of the answers that are needed here.

mod build;
mod cache;
mod describe;
mod engine;
mod failure;
mod housekeeping;
mod lines;
mod push;
mod session;
mod socket;
mod trace;
mod wire;

pub use engine::DockerEngine;
pub use socket::EngineSocket;
