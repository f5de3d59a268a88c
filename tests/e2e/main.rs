//! The end-to-end tests: what a user does, on a real engine.

#![expect(
    clippy::unwrap_used,
    reason = "this binary is tests, and a panic is how a test fails; clippy sees only `#[test]`"
)]

mod access;
mod agent_disk;
mod backup;
mod bad_input;
mod cancel;
mod client_gone;
mod disk_full;
mod dispatch;
mod doctor;
mod emulation;
mod examples;
mod exported;
mod forks;
mod git_source;
mod given_networks;
mod granted;
mod hooks;
mod local;
mod network_modes;
mod packaging;
mod platforms;
mod pools;
mod pull_requests;
mod purge;
mod quick_build;
mod registries;
mod registry_in_steps;
mod remote_agent;
mod rerun;
mod restart;
mod retention;
mod run_sources;
mod runs;
mod secrets;
mod sources;
mod tag_order;
mod task_faults;
mod task_runs;
mod tasks;
mod tasks_at_once;
mod tls;
mod two_machines;
mod waves;
mod webhooks;
