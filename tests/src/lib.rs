//! The harness of the end-to-end tests: the real `cooper` binary against a real container engine.
//!
//! It knows the product as its users do: by its command line, its HTTP interface and its files. It depends on none
//! of its crates. The tests themselves are in `e2e/`.

mod archive;
mod artifact;
mod at_rest;
mod chance;
mod context;
mod emulation;
mod engine;
mod event_receiver;
mod file_server;
mod git_server;
mod http;
mod namespace;
mod outcome;
mod pause;
mod port;
mod private_engine;
mod product;
mod remote_agent;
mod server;
mod small_disk;
mod submission;
mod trap;
mod wall_clock;

pub use archive::Archive;
pub use at_rest::expect_sealed;
pub use chance::Chance;
pub use context::{Context, unique};
pub use emulation::{Emulation, EmulationTurn, amd64_program, arm64_program};
pub use engine::Engine;
pub use event_receiver::{EventReceiver, ReceivedEvent};
pub use file_server::FileServer;
pub use git_server::{GitBehaviour, GitRepository, GitRequest, GitServer};
pub use http::{Answer, request};
pub use namespace::{Cable, Namespace};
pub use outcome::{Finished, Running, run_to_end, try_wait_until, wait_until};
pub use pause::Pause;
pub use private_engine::PrivateEngine;
pub use product::{cooper_binary, repository_path};
pub use remote_agent::RemoteAgent;
pub use server::{ServerOptions, TestServer, hermetic};
pub use small_disk::SmallDisk;
pub use submission::{Submission, is_final};
pub use trap::{Follows, Trap};
pub use wall_clock::WallClock;
