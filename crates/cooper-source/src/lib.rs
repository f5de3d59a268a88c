//! Sources of runs: a local folder becomes an archive, an archive becomes a context that an engine can be served from.
//!
//! Everything here is blocking: callers put it on a thread of its own. Which paths an ignore file leaves out is decided
//! by [`cooper_spec::ignore`]; what a context is, by [`cooper_ports::context_tree`].

pub mod pack;
pub mod unpack;

pub use pack::{PackError, PackOptions, PackProgress, PackReport, pack};
pub use unpack::{UnpackError, UnpackLimits, unpack};
