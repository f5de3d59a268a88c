//! The fault matrix: what is promised holds while things die, on real processes and a real engine. See docs/faults.md.

#![expect(
    clippy::unwrap_used,
    reason = "this binary is tests, and a panic is how a test fails; clippy sees only `#[test]`"
)]

mod agent_killed;
mod clock;
mod disk_full;
mod engine_broken;
mod machine;
mod machines;
mod network;
mod server_killed;
mod soak;
mod task_chaos;
mod task_killed;
mod timer_killed;
