//! The container engine as a process: where it answers, whether it does, how it starts and stops.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::command;
use crate::workspace::environment;

/// Where Docker listens when nothing else is said.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where `dockerd` with default settings keeps its process id, and where Debian's init script does, a moment sooner.
const PID_FILES: [&str; 2] = ["/var/run/docker.pid", "/var/run/docker-ssd.pid"];
/// How long one question to an engine may take.
const PING_LIMIT: Duration = Duration::from_secs(20);
/// How long an engine may take to stop its containers and itself.
const STOP_LIMIT: Duration = Duration::from_secs(180);

/// Where an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineAddress {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A host and port, without TLS.
    Tcp(String),
}

/// An engine's answer to the question whether it is there.
pub(super) enum Ping {
    /// It is, and has this version.
    Answers(String),
    /// It may be, but this user may not ask.
    Forbidden,
    /// Nobody answers.
    Silent,
}

impl EngineAddress {
    /// What `DOCKER_HOST` says, else the usual socket.
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        match environment("DOCKER_HOST") {
            Some(host) => Self::parse(&host.to_string_lossy()),
            None => Ok(Self::Unix(DEFAULT_SOCKET.into())),
        }
    }

    fn parse(host: &str) -> anyhow::Result<Self> {
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http", address)) if !address.is_empty() => Ok(Self::Tcp(address.to_owned())),
            _ => bail!("DOCKER_HOST is `{host}`: set it to unix:///PATH or tcp://HOST:PORT, or unset it"),
        }
    }

    /// Whether the engine shares this machine's loopback addresses.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// What to do about an engine that isn't ours to start.
    pub(super) fn remote_hint(&self) -> Option<&'static str> {
        let ours = *self == Self::Unix(DEFAULT_SOCKET.into());
        (!ours).then_some("it is what DOCKER_HOST names; start it, or unset DOCKER_HOST to have one started here")
    }

    /// Asks the engine whether it is there.
    pub(super) fn ping(&self) -> anyhow::Result<Ping> {
        let answer = match self {
            Self::Unix(path) => UnixStream::connect(path).and_then(|stream| {
                stream.set_read_timeout(Some(PING_LIMIT))?;
                ask(stream)
            }),
            Self::Tcp(address) => TcpStream::connect(address).and_then(|stream| {
                stream.set_read_timeout(Some(PING_LIMIT))?;
                ask(stream)
            }),
        };
        match answer {
            Ok(answer) => Ok(version(&answer).map_or(Ping::Silent, Ping::Answers)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(Ping::Forbidden),
            Err(_) => Ok(Ping::Silent),
        }
    }

    /// The version of the engine that answers.
    pub(super) fn answers(&self) -> anyhow::Result<Option<String>> {
        match self.ping()? {
            Ping::Answers(version) => Ok(Some(version)),
            Ping::Forbidden | Ping::Silent => Ok(None),
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Sends the request and reads the answer to its end.
fn ask(mut stream: impl Read + Write) -> std::io::Result<String> {
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: engine\r\n\r\n")?;
    let mut answer = Vec::new();
    // An engine's answer has two kilobytes; whatever else listens there may not fill the memory.
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The version in an engine's answer.
fn version(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    // The body may come in chunks: what counts is the object inside.
    let object = body.get(body.find('{')?..=body.rfind('}')?)?;
    let value: serde_json::Value = serde_json::from_str(object).ok()?;
    value.get("Version")?.as_str().map(str::to_owned)
}

/// The process id of an engine that runs on this machine with the usual settings.
pub(super) fn running_pid() -> Option<i32> {
    PID_FILES.iter().find_map(|file| {
        let pid: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // A process id is used again after a crash or in another container: the name has to fit, too.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        name.starts_with("dockerd").then_some(pid)
    })
}

/// An engine that this program started, and will stop unless it is told to leave it.
pub(super) enum StartedEngine {
    /// A child of ours.
    Child { process: Child, log: PathBuf, pid_file: PathBuf },
    /// The service manager's.
    Service,
    /// A process that the package's installation started.
    Foreign(i32),
}

impl StartedEngine {
    /// Starts `dockerd`, detached from the terminal.
    pub(super) fn by_hand(log: &Path, pid_file: &Path) -> anyhow::Result<Self> {
        Self::by_command(&mut Command::new("dockerd"), log, pid_file)
    }

    /// Starts an engine by a command that becomes it, detached from the terminal.
    pub(super) fn by_command(command: &mut Command, log: &Path, pid_file: &Path) -> anyhow::Result<Self> {
        let out = File::create(log).with_context(|| format!("make the log {}", log.display()))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("share the engine's log")?)
            .stderr(out)
            // Ctrl-C in this terminal is for us: the engine is stopped in order, or left.
            .process_group(0)
            .spawn()
            .context("start `dockerd`")?;
        std::fs::write(pid_file, format!("{}\n", process.id()))
            .with_context(|| format!("write {}", pid_file.display()))?;
        Ok(Self::Child { process, log: log.to_owned(), pid_file: pid_file.to_owned() })
    }

    /// Has the service manager start it.
    pub(super) fn by_systemd() -> anyhow::Result<Self> {
        command::run_visibly(Command::new("systemctl").args(["start", "docker"]))?;
        Ok(Self::Service)
    }

    /// Takes over a process that the package started.
    pub(super) fn by_package(pid: i32) -> Self {
        Self::Foreign(pid)
    }

    /// Its process id, where it is a child of ours.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child { process, .. } => Some(process.id()),
            Self::Service | Self::Foreign(_) => None,
        }
    }

    /// Fails when the engine has ended by itself.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Self::Child { process, .. } = self
            && let Some(status) = process.try_wait().context("look at the engine's process")?
        {
            bail!("dockerd ended at once ({status})");
        }
        Ok(())
    }

    /// Where to look when it doesn't start.
    pub(super) fn log_hint(&self) -> String {
        match self {
            Self::Child { log, .. } => format!("its log is {}", log.display()),
            Self::Service => "see `journalctl -u docker`".to_owned(),
            Self::Foreign(_) => "its log is /var/log/docker.log".to_owned(),
        }
    }

    /// The command that stops it.
    pub(super) fn stop_hint(&self) -> String {
        match self {
            Self::Child { process, .. } => format!("kill {}", process.id()),
            Self::Service => "systemctl stop docker.socket docker".to_owned(),
            Self::Foreign(pid) => format!("kill {pid}"),
        }
    }

    /// Stops it and waits until it has.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Child { mut process, pid_file, .. } => {
                command::stop(&mut process);
                let _ = std::fs::remove_file(pid_file);
                Ok(())
            }
            Self::Service => command::run_visibly(Command::new("systemctl").args(["stop", "docker.socket", "docker"])),
            Self::Foreign(pid) => {
                let pid = Pid::from_raw(pid).context("the engine has no process id")?;
                kill_process(pid, Signal::TERM).context("stop the engine")?;
                let start = Instant::now();
                while test_kill_process(pid).is_ok() {
                    if start.elapsed() > STOP_LIMIT {
                        bail!("the engine did not stop within {} s", STOP_LIMIT.as_secs());
                    }
                    command::pause();
                }
                Ok(())
            }
        }
    }

    /// Leaves it running after this program's end.
    pub(super) fn leave(self) {
        // Dropping a child's handle neither kills nor waits for it.
        drop(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_bad_ones_say_the_way_out() {
        let unix = EngineAddress::parse("unix:///run/user/1000/docker.sock").unwrap();
        assert_eq!(unix, EngineAddress::Unix("/run/user/1000/docker.sock".into()));
        assert!(unix.is_local() && unix.remote_hint().is_some());
        assert!(!EngineAddress::parse("tcp://10.0.0.1:2375").unwrap().is_local());
        for bad in ["", "10.0.0.1:2375", "ssh://host", "unix://relative", "tcp://"] {
            let error = EngineAddress::parse(bad).unwrap_err().to_string();
            assert!(error.contains("unix:///PATH"), "{bad}: {error}");
        }
    }

    #[test]
    fn only_an_engine_counts_as_one() {
        let answer = "HTTP/1.0 200 OK\r\nServer: Docker\r\n\r\n{\"Version\":\"20.10.24\",\"Os\":\"linux\"}\n";
        assert_eq!(version(answer).as_deref(), Some("20.10.24"));
        assert_eq!(
            version("HTTP/1.1 200 OK\r\n\r\n1a\r\n{\"Version\":\"26.1.5\"}\r\n0\r\n").as_deref(),
            Some("26.1.5")
        );
        assert_eq!(version("HTTP/1.0 503 Service Unavailable\r\n\r\n{\"Version\":\"1\"}"), None);
        assert_eq!(version("HTTP/1.0 200 OK\r\n\r\nhello"), None);
        assert_eq!(version("} {"), None);
        assert_eq!(version("HTTP/1.0 200 OK\r\n\r\n} {"), None);
    }

    #[test]
    fn a_socket_without_a_listener_is_silent() {
        let address = EngineAddress::Unix("/nonexistent/engine.sock".into());
        assert!(matches!(address.ping().unwrap(), Ping::Silent));
        assert_eq!(address.answers().unwrap(), None);
    }
}
