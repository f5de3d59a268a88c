//! Texts that describe work, without IO: task files, the plan of a run, quick builds, run variables, sources, Dockerfiles.
//!
//! It knows nothing of engines, databases or the network; agents and the server share it.

pub mod dockerfile;
pub mod gotemplate;
pub mod ignore;
pub mod plan;
pub mod purge;
pub mod quick_build;
pub mod secret_place;
mod slash_path;
pub mod source;
pub mod task;
pub mod task_plan;
pub mod task_request;
pub mod template;
