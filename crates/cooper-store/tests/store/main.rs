//! The store's own tests and the conformance of its ports, on real SQLite files. One binary: linking is what costs.

mod fixture;
mod open;
mod writer;
