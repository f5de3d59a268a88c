//! Wire types: the REST API with its OpenAPI document, and the agents' protocol.
//!
//! Contracts only: nothing here does IO or decides anything.

pub mod agent;
pub mod openapi;
pub mod problem;
pub mod rest;
