//! A container engine of a test's own, in a network of its own, to be stopped and broken at will.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::engine::Engine;
use crate::namespace::Namespace;
use crate::outcome::{PATIENCE, Running, quiet, run_to_end, try_wait_until};

/// How long the engine may take to answer for the first time.
const READY: Duration = PATIENCE;
/// How long it may take to stop.
const STOP: Duration = PATIENCE;

/// A `dockerd` with its own data, sockets and mounts. It must have a network of its own: a second one in the same
/// network would take down the first one's bridge.
pub struct PrivateEngine {
    namespace: Namespace,
    folder: TempDir,
    data: PathBuf,
    process: Option<Running>,
}

impl PrivateEngine {
    /// Starts one inside a namespace, and waits until it answers.
    #[track_caller]
    pub fn start(namespace: &Namespace) -> Self {
        Self::start_on(namespace, None)
    }

    /// The same, with its data in a folder that is on a disk of its own, say.
    #[track_caller]
    pub fn start_on(namespace: &Namespace, data: Option<PathBuf>) -> Self {
        let folder = TempDir::with_prefix("cooper-engine-").expect("make a temporary folder");
        let data = data.unwrap_or_else(|| folder.path().join("data"));
        let mut engine = Self { namespace: namespace.clone(), folder, data, process: None };
        engine.launch();
        engine
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The client `docker` for it.
    pub fn client(&self) -> Engine {
        Engine::at(&self.socket())
    }

    /// The process, to send signals to.
    #[track_caller]
    pub fn process(&self) -> &Running {
        self.process.as_ref().expect("the engine runs")
    }

    /// Stops it in order.
    #[track_caller]
    pub fn stop(&mut self) {
        let process = self.process.take().expect("the engine runs");
        process.signal(Signal::TERM);
        process.end(STOP);
    }

    /// Kills it, and its container daemon with it, as the kernel does by the engine's wish.
    #[track_caller]
    pub fn kill(&mut self) {
        let process = self.process.take().expect("the engine runs");
        process.signal(Signal::KILL);
        process.end(STOP);
        // Where nobody collects orphans, the daemon's number looks alive for ever, and the next engine waits for it.
        let _ = std::fs::remove_file(self.folder.path().join("exec/containerd/containerd.pid"));
    }

    /// Starts it again, on what it had.
    #[track_caller]
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "stop the engine first");
        let place = |name: &str| self.folder.path().join(name);
        let config = place("daemon.json");
        std::fs::write(&config, "{}").expect("write the engine's configuration");
        let mut command = self.namespace.command("unshare");
        // Its own mounts: what it mounts is gone with it, however it ends.
        command.args(["--mount", "--propagation", "private", "dockerd"]);
        command.arg("--config-file").arg(&config);
        command.arg("--data-root").arg(&self.data).arg("--exec-root").arg(place("exec"));
        command.arg("--pidfile").arg(place("pid"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        // A network without a way out needs none of these, and they are the machine's.
        command.args(["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]);
        let mut process = Running::start(&mut command);
        let socket = self.socket();
        let ready = try_wait_until(READY, || process.has_ended() || answers(&socket));
        assert!(ready && !process.has_ended(), "the engine is not ready:\n{}", process.output().1);
        self.process = Some(process);
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::CONT);
        process.signal(Signal::TERM);
        try_wait_until(STOP, || process.has_ended());
    }
}

fn answers(socket: &Path) -> bool {
    let mut command = quiet("docker");
    command.arg("--host").arg(format!("unix://{}", socket.display())).args([
        "version",
        "--format",
        "{{.Server.Version}}",
    ]);
    socket.exists() && run_to_end(&mut command, READY).code == Some(0)
}
