//! A real `cooper agent`, where a test wants it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::namespace::Namespace;
use crate::outcome::{Finished, PATIENCE, Running, try_wait_until};
use crate::product::cooper_binary;
use crate::server::{GRACE, TestServer, hermetic};

/// How long an agent may take to stop in order.
const STOP: Duration = PATIENCE;

/// An agent of a test server.
pub struct RemoteAgent {
    folder: TempDir,
    namespace: Option<Namespace>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Option<Running>,
}

impl RemoteAgent {
    /// Starts an agent of this name in a namespace, or in the machine's own network. It reaches the server by `url`.
    #[track_caller]
    pub fn start(server: &TestServer, name: &str, url: &str, namespace: Option<&Namespace>, more: &[&str]) -> Self {
        Self::start_with(server, name, url, namespace, more, Vec::new())
    }

    /// The same, with more variables in the agent's environment, in all its lives.
    #[track_caller]
    pub fn start_with(
        server: &TestServer,
        name: &str,
        url: &str,
        namespace: Option<&Namespace>,
        more: &[&str],
        environment: Vec<(String, String)>,
    ) -> Self {
        let folder = TempDir::with_prefix("cooper-agent-").expect("make a temporary folder");
        let made = server.cooper(&["token", "create", name, "--scope", "agent"]).ok();
        let token = folder.path().join("token");
        write_private(&token, made.stdout.trim());
        let place = |name: &str| folder.path().join(name).display().to_string();
        let mut arguments = vec!["agent".to_owned()];
        let (token, data) = (place("token"), place("data"));
        let own = [["--server", url], ["--token-file", &token], ["--name", name], ["--data-dir", &data]];
        // What a test says itself counts.
        let own = own.iter().filter(|[flag, _]| !more.contains(flag));
        arguments.extend(own.flatten().chain(more).map(|text| (*text).to_owned()));
        if server.ca_file().exists() {
            arguments.extend(["--ca-file".to_owned(), server.ca_file().display().to_string()]);
        }
        let mut agent = Self { folder, namespace: namespace.cloned(), arguments, environment, process: None };
        agent.launch();
        agent
    }

    /// Starts the process again.
    #[track_caller]
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// Starts the process again so that it dies at a failpoint.
    #[track_caller]
    pub fn launch_to_die(&mut self, failpoint: &str) {
        self.launch_with(&[("COOPER_FAILPOINT", failpoint)]);
    }

    #[track_caller]
    fn launch_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = hermetic(cooper_binary(), self.folder.path(), self.namespace.as_ref());
        command
            .args(&self.arguments)
            .env("COOPER_SHUTDOWN_GRACE", GRACE)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(environment.iter().copied());
        self.process = Some(Running::start(&mut command));
    }

    /// What `cooper-ports` makes of the agent's identity. Other servers' agents share the engine, and run ids.
    #[track_caller]
    fn owner(&self, server: &TestServer) -> String {
        let name = self.arguments.iter().skip_while(|argument| *argument != "--name").nth(1).expect("it has a name");
        let digest = Sha256::digest(format!("{}/{name}", server.url()));
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The names of images that a run's attempts on this agent have left in an engine.
    #[track_caller]
    pub fn names_in(&self, engine: &Engine, server: &TestServer, run: &str) -> Vec<String> {
        let images = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
        let own = format!("cooper.invalid/{}/{run}:", self.owner(server));
        images.lines().filter(|image| image.starts_with(&own)).map(str::to_owned).collect()
    }

    /// Containers, networks and volumes that a run's placements on this agent have in an engine.
    #[track_caller]
    pub fn held_in(&self, engine: &Engine, server: &TestServer, run: &str) -> Vec<String> {
        engine.held(&[&format!("dev.cooperage.owner={}", self.owner(server)), &format!("dev.cooperage.run={run}")])
    }

    /// The same of all its runs.
    #[track_caller]
    pub fn all_held_in(&self, engine: &Engine, server: &TestServer) -> Vec<String> {
        // What is of no run is the agent's own, for as long as it lives.
        engine.held(&[&format!("dev.cooperage.owner={}", self.owner(server)), "dev.cooperage.run"])
    }

    /// The process.
    #[track_caller]
    pub fn process(&self) -> &Running {
        self.process.as_ref().expect("the agent runs")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.output().1).unwrap_or_default()
    }

    /// The file with its token.
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self) -> Finished {
        self.process.take().expect("the agent runs").end(STOP)
    }

    /// Stops it in order, with success.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        self.process().signal(Signal::TERM);
        self.end().ok()
    }

    /// Kills it as a crash of its machine would.
    #[track_caller]
    pub fn crash(&mut self) {
        self.process().signal(Signal::KILL);
        self.end();
    }
}

impl Drop for RemoteAgent {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if std::thread::panicking() {
            let log = format!("--- the agent's log ---\n{}\n", process.output().1);
            let _ = std::io::Write::write_all(&mut std::io::stderr(), log.as_bytes());
        }
        process.signal(Signal::TERM);
        try_wait_until(STOP, || process.has_ended());
    }
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).expect("make a file");
    writeln!(file, "{text}").expect("write a file");
}
