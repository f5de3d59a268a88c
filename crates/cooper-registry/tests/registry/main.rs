//! The registry from outside: its router over real files, and real clients against it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod access;
mod blobs;
mod clients;
mod collection;
mod crash;
mod deletion;
mod harness;
mod manifests;
mod metadata;
mod own;
mod staged;
