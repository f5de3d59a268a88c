//! The ports: what the services need from the world, as traits of the size of an operation, and their errors.
//!
//! Adapters implement them; services are written against them. Nothing here does IO.

pub mod blobs;
pub mod clock;
pub mod context_tree;
pub mod engine;
pub mod registry;
pub mod store_error;
