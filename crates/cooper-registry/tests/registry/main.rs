//! The registry from outside: its router over real files, and real clients against it.

mod access;
mod blobs;
mod harness;
mod manifests;
mod staged;
