//! The store's own tests and the conformance of its ports, on real SQLite files. One binary: linking is what costs.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod access;
mod agents;
mod backup;
mod contexts;
mod crash;
mod events;
mod fixture;
mod hooks;
mod logs;
mod open;
mod outbox;
mod pushes;
mod runs;
mod secrets;
mod simulation;
mod sources;
mod tasks;
mod waves;
mod writer;
