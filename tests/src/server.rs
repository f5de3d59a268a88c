//! A real `cooper serve` with a data directory and a login of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::context::Context;
use crate::engine::Engine;
use crate::http::{Answer, request};
use crate::namespace::Namespace;
use crate::outcome::{Finished, PATIENCE, Running, quiet, run_to_end, try_wait_until, wait_until};
use crate::port::Port;
use crate::product::{cooper_binary, variables};

/// How long the server may take until it is ready.
const READY: Duration = PATIENCE;
/// How long the server may take to stop in order.
const STOP: Duration = PATIENCE;
/// How long it gives its steps and requests to end, in seconds: less than it has itself.
pub(crate) const GRACE: &str = "60";
/// How long a command of the client may take, builds included.
const COMMAND: Duration = Duration::from_secs(180);

/// How a test's server differs from a usual one.
#[derive(Default)]
pub struct ServerOptions {
    /// More arguments of `cooper serve`.
    pub arguments: Vec<String>,
    /// A data directory that the test made; by default one in the server's own temporary folder.
    pub data: Option<PathBuf>,
    /// The network that the server and its clients are in, if not the machine's own. The server listens on all of its
    /// addresses.
    pub namespace: Option<Namespace>,
    /// More variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

/// A server, the client that is logged in to it as its administrator, and their folder.
pub struct TestServer {
    folder: TempDir,
    data: PathBuf,
    arguments: Vec<String>,
    namespace: Option<Namespace>,
    environment: Vec<(String, String)>,
    process: Option<Running>,
    scheme: String,
    authority: String,
    /// Where it listens, so that nobody else does while it is away; a network of its own has nobody else.
    _port: Option<Port>,
    starts: u32,
}

impl TestServer {
    /// A usual server, started, ready and logged in to.
    #[track_caller]
    pub fn start() -> Self {
        Self::with(ServerOptions::default())
    }

    /// A server with these options.
    #[track_caller]
    pub fn with(options: ServerOptions) -> Self {
        let folder = TempDir::with_prefix("cooper-e2e-").expect("make a temporary folder");
        let data = options.data.unwrap_or_else(|| folder.path().join("data"));
        let port = options.namespace.is_none().then(Port::reserve);
        let mut server = Self {
            folder,
            data,
            arguments: options.arguments,
            namespace: options.namespace,
            environment: options.environment,
            process: None,
            scheme: "http".to_owned(),
            authority: port.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), |port| port.address().to_string()),
            _port: port,
            starts: 0,
        };
        server.launch();
        let token = server.token_file().display().to_string();
        let (url, ca) = (server.url(), server.ca_file().display().to_string());
        let trust: &[&str] = if server.ca_file().exists() { &["--ca-file", &ca] } else { &[] };
        server.cooper(&[&["login", &url, "--token-file", &token], trust].concat()).ok();
        server
    }

    /// Starts the process and waits until it is ready. A second start uses the first one's port.
    #[track_caller]
    fn launch(&mut self) {
        let ready = self.try_launch(&[]);
        assert!(ready, "the server is not ready (start {}):\n{}", self.starts, self.log());
    }

    /// Starts the process, and says whether it became ready; one that ended instead is there to be looked at.
    #[track_caller]
    fn try_launch(&mut self, environment: &[(&str, &str)]) -> bool {
        // The address of an earlier start is no sign of this one.
        let address_file = self.data.join("address");
        let _ = std::fs::remove_file(&address_file);
        self.starts += 1;
        let mut command = self.command(&["serve", "--data-dir"]);
        let listen = match &self.namespace {
            Some(_) => self.authority.replace("127.0.0.1:", "0.0.0.0:"),
            None => self.authority.clone(),
        };
        command.arg(&self.data).args(["--listen", &listen]).args(&self.arguments);
        // That it stops in order is what counts, and not how fast the machine is.
        command.env("COOPER_SHUTDOWN_GRACE", GRACE);
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).envs(environment.iter().copied());
        let mut process = Running::start(&mut command);
        let mut address = None;
        let ready = try_wait_until(READY, || {
            if process.has_ended() {
                return true;
            }
            address = std::fs::read_to_string(&address_file).ok().and_then(|text| {
                let (scheme, text) = text.trim().split_once("://")?;
                Some((scheme.to_owned(), text.replace("0.0.0.0:", "127.0.0.1:")))
            });
            let Some((_, authority)) = &address else { return false };
            let answer = self.inside(|| request(authority, "GET", "/readyz", &[], b""));
            answer.is_ok_and(|answer| answer.status == 200)
        });
        let ready = ready && !process.has_ended();
        self.process = Some(process);
        if let Some(address) = address.filter(|_| ready) {
            (self.scheme, self.authority) = address;
        }
        ready
    }

    /// `HOST:PORT` of the server.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// The port, the same on each of the server's addresses.
    pub fn port(&self) -> &str {
        self.authority.rsplit(':').next().expect("an address ends with a port")
    }

    /// Does something where the server's loopback address is its own.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.enter(work),
            None => work(),
        }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The file with the administrator's token.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("admin-token")
    }

    /// The certificate of the server's own CA, where it has one.
    pub fn ca_file(&self) -> PathBuf {
        self.data.join("tls/ca.pem")
    }

    /// The administrator's token.
    #[track_caller]
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("read the token file").trim().to_owned()
    }

    /// The client, as a command to change and run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic(cooper_binary(), self.folder.path(), self.namespace.as_ref());
        command.args(arguments);
        command
    }

    /// Runs the client to its end.
    #[track_caller]
    pub fn cooper(&self, arguments: &[&str]) -> Finished {
        run_to_end(&mut self.command(arguments), COMMAND)
    }

    /// Starts the client and leaves it running.
    #[track_caller]
    pub fn cooper_running(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Builds a folder with these flags, which must succeed, and gives the run's record.
    #[track_caller]
    pub fn build(&self, flags: &[&str], context: &Context) -> Value {
        let folder = context.display();
        let arguments = [&["build", "--output", "json"], flags, &[folder.as_str()]].concat();
        self.cooper(&arguments).ok().json()
    }

    /// Puts the image that the other builds stand on into the registry, and gives its name there.
    #[track_caller]
    pub fn base_image(&self) -> String {
        let run = self.build(&["-t", "base/busybox:1"], &Context::busybox());
        let registry = run["outputImages"][0]["registry"].as_str();
        format!("{}/base/busybox:1", registry.unwrap_or_else(|| panic!("the run names no registry: {run:#}")))
    }

    /// A run's record.
    #[track_caller]
    pub fn run(&self, id: &str) -> Value {
        self.cooper(&["runs", "show", id, "--output", "json"]).ok().json()
    }

    /// Asks the REST API with the administrator's token.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        let token = format!("Authorization: Bearer {}", self.token());
        self.inside(|| request(&self.authority, "GET", path, &[&token], b"")).expect("the server answers")
    }

    /// The label of everything that the server's own agent makes in an engine: what `cooper-server` makes of the server's
    /// key and the agent's name.
    #[track_caller]
    pub fn agent_owner(&self) -> String {
        let agents: Value = serde_json::from_str(&self.get("/api/v1/agents").body).expect("agents are JSON");
        let name = agents["value"][0]["name"].as_str().expect("the server has an agent of its own");
        let key = std::fs::read_to_string(self.data.join("key")).expect("read the server's key");
        let bytes = |text: &str| {
            let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("it is in hexadecimal digits");
            (0..text.len()).step_by(2).map(digit).collect::<Vec<u8>>()
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&bytes(key.trim())).expect("any length will do");
        mac.update(b"cooper/1/identity");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let identity = hex(&mac.finalize().into_bytes()[..16]);
        hex(&Sha256::digest(format!("{identity}/{name}"))[..8])
    }

    /// Pulls an image into the engine that the server's own agent uses, once the agent has removed what it had there.
    /// Docker Engine takes all names off an image whose last one goes, one that a pull gives it meanwhile included; and
    /// that takes as long as the start of any container, also when the name itself is no longer to be seen.
    #[track_caller]
    pub fn pull(&self, engine: &Engine, image: &str) {
        wait_until("the agent has cleaned up", Duration::from_secs(60), || {
            let log = self.log();
            let runs = |what: &str| -> BTreeSet<String> {
                let run = |line: &str| Some(line.split_once("run=")?.1.split([' ', '}']).next()?.to_owned());
                log.lines().filter(|line| line.contains(what)).filter_map(run).collect()
            };
            runs("step succeeded").is_subset(&runs("placement is cleaned up"))
        });
        // What an earlier process of the server has left.
        let own = format!("reference=cooper.invalid/{}/ca*", self.agent_owner());
        let names = || engine.docker(&["images", "--quiet", "--filter", &own]).ok().stdout;
        wait_until("the agent has removed its names", Duration::from_secs(60), || names().is_empty());
        engine.pull(image);
    }

    /// Asks the REST API as the administrator, and stands it if the server is away. `headers` are whole lines.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Answer> {
        let token = format!("Authorization: Bearer {}", self.token());
        let headers = [&[token.as_str()], headers].concat();
        self.inside(|| request(&self.authority, method, path, &headers, body))
    }

    /// Pushes a manifest to the embedded registry as the administrator, as far as the server lives to answer.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &str) {
        let credential = STANDARD.encode(format!("tester:{}", self.token()));
        let headers = [format!("Authorization: Basic {credential}"), format!("Content-Type: {media_type}")];
        let headers = headers.each_ref().map(String::as_str);
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.inside(|| request(&self.authority, "PUT", &path, &headers, manifest.as_bytes()));
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 201), "the registry takes {repository}:{tag}");
    }

    /// Asks the registry as the administrator, for a manifest of any kind.
    #[track_caller]
    pub fn registry(&self, path: &str) -> Answer {
        let credential = STANDARD.encode(format!("tester:{}", self.token()));
        let headers = [format!("Authorization: Basic {credential}"), "Accept: */*".to_owned()];
        let headers = headers.each_ref().map(String::as_str);
        self.inside(|| request(&self.authority, "GET", path, &headers, b"")).expect("the registry answers")
    }

    /// What the server has written so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(|process| process.output().1).unwrap_or_default()
    }

    /// Fails when the server has warned of anything: nothing of what a good test did is worth a person's look.
    #[track_caller]
    pub fn expect_quiet_log(&self) {
        let log = self.log();
        let loud: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        assert!(loud.is_empty(), "{}", loud.join("\n"));
    }

    /// Stops the server in order; it must end with success, in time.
    #[track_caller]
    pub fn stop(&mut self) -> Finished {
        let process = self.process.take().expect("the server runs");
        process.signal(Signal::TERM);
        process.end(STOP).ok()
    }

    /// Kills the server as a crash of the machine would, without any warning.
    #[track_caller]
    pub fn crash(&mut self) {
        let process = self.process.take().expect("the server runs");
        process.signal(Signal::KILL);
        let ended = process.end(STOP);
        assert_eq!(ended.code, None, "the server ended by itself: {ended}");
    }

    /// Starts the server again so that it dies at the Nth pass of a failpoint, and says whether it lived to be ready.
    #[track_caller]
    pub fn restart_to_die(&mut self, failpoint: &str) -> bool {
        assert!(self.process.is_none(), "stop or crash the server first");
        self.try_launch(&[("COOPER_FAILPOINT", failpoint)])
    }

    /// Whether the server has ended by itself.
    pub fn has_died(&mut self) -> bool {
        self.process.as_mut().is_none_or(Running::has_ended)
    }

    /// Waits for the server to end by itself and gives its log.
    #[track_caller]
    pub fn death(&mut self, deadline: Duration) -> Finished {
        self.process.take().expect("the server runs").end(deadline)
    }

    /// The server's process id.
    pub fn pid(&self) -> Option<rustix::process::Pid> {
        self.process.as_ref().map(Running::pid)
    }

    /// Has the next start take more arguments.
    pub fn add_arguments(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }

    /// Has the next start find another value in its environment.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the server again, on the same data and port.
    #[track_caller]
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "stop or crash the server first");
        self.launch();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let (_, log) = process.output();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            // libtest shows what a failed test printed.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("--- the server's log ---\n{tail}\n------------------------\n").as_bytes(),
            );
        }
        // In order, so that it takes from the engine what it put there.
        process.signal(Signal::TERM);
        try_wait_until(STOP, || process.has_ended());
    }
}

/// The product with nothing of the caller's settings.
pub fn hermetic(program: &Path, folder: &Path, namespace: Option<&Namespace>) -> Command {
    let mut command = namespace.map_or_else(|| quiet(program), |namespace| namespace.command(program));
    for name in variables("COOPER_") {
        command.env_remove(name);
    }
    command
        .env("COOPER_CONFIG_DIR", folder.join("config"))
        .env("HOME", folder)
        .env("NO_COLOR", "1")
        .current_dir(folder);
    command
}
