//! Sources of runs: a folder, a Git repository, an archive behind a URL or an OCI artifact becomes an archive, an archive becomes a context that an engine can be
//! served from. And the one client for requests to places that users name.
//!
//! [`pack()`] and [`unpack()`] are blocking: callers put them on a thread of their own. Which paths an ignore file leaves out
//! is decided by [`cooper_spec::ignore`]; what a context is, by [`cooper_ports::context_tree`]; what a user may write as a
//! source, by [`cooper_spec::source`].

pub mod egress;
mod further;
pub mod git;
pub mod pack;
pub mod remote;
pub mod unpack;

pub use egress::{Cidr, CidrError, Egress, EgressOptions, EgressPolicy, Names};
pub use further::{Found, FurtherFiles};
pub use git::{FetchEvent, FetchLimits, FetchListener, FetchRequest, GitError, Snapshot};
pub use pack::{PackError, PackOptions, PackProgress, PackReport, pack};
pub use remote::{
    Publish, PublishError, Published, RemoteError, RemoteRequest, RemoteSnapshot, WatchError, Watched, fetch_archive,
    fetch_artifact, publish, read_context, watch,
};
pub use unpack::{UnpackError, UnpackLimits, unpack};
