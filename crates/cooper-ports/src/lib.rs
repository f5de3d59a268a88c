//! The ports: what the services need from the world, as traits of the size of an operation, and their errors.
//!
//! Adapters implement them; services are written against them. Nothing here does IO.
//! [`failpoint`] is the exception to the rule that here are ports only: what every layer above dies at in tests.

pub mod access;
pub mod agents;
pub mod blobs;
pub mod clock;
pub mod context_tree;
pub mod contexts;
pub mod credentials;
pub mod engine;
pub mod failpoint;
pub mod hooks;
pub mod logs;
pub mod outbox;
pub mod outgoing;
pub mod outside_tags;
pub mod references;
pub mod registrations;
pub mod registry;
pub mod runs;
pub mod secrets;
pub mod statuses;
pub mod store_error;
pub mod tasks;
pub mod waves;
