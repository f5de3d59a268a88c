//! Source triggers: what happened in a repository, in one form for all forges.
//!
//! Owns the events' types. How a forge signs and writes them is `cooper-forge`'s business.

pub mod event;
pub mod name;
pub mod provider;
pub mod repository;
