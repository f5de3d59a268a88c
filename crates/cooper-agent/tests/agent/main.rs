//! The agent against a scripted server, over the real protocol: everything but the server's decisions is real here,
//! and in `real_engine` the engine too.

mod bench;
mod builds;
mod commands;
mod driven;
mod lives;
mod logs;
mod openings;
mod real_engine;
mod real_tasks;
mod server;
mod task_builds;
mod ways_out;
