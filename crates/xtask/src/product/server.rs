//! The product's server, as a process: started, waited for, stopped or left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::Product;
use crate::command::{self, Interrupt, Log};

/// How long the server may take until it is ready.
const READY: Duration = Duration::from_secs(30);
/// How long one question to the server may take.
const ASK: Duration = Duration::from_secs(2);

/// A server that stops when this is dropped, unless it is kept.
pub(crate) struct Server {
    process: Option<Child>,
    pid: u32,
    address: String,
    data: PathBuf,
    pid_file: PathBuf,
}

impl Server {
    /// Fails when an earlier quickstart's server still runs on this folder.
    pub(crate) fn refuse_second(folder: &Path) -> anyhow::Result<()> {
        let Ok(text) = std::fs::read_to_string(folder.join("server.pid")) else { return Ok(()) };
        let pid = text.trim();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "cooper" {
            bail!("the server that `quickstart --keep` left still runs (process {pid}): stop it with `kill {pid}`");
        }
        Ok(())
    }

    /// Starts `cooper serve` and waits until it is ready.
    pub(crate) fn start(
        mut command: Command,
        folder: &Path,
        port: u16,
        arguments: &[&str],
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let data = folder.join("data");
        // One that was killed is started again: what it said before is wanted then, too.
        let log = Log::go_on(folder.join("server.log"))?;
        let out = log.writer()?;
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(&data).args(arguments);
        command.stdin(Stdio::null()).stdout(out.try_clone().context("share the server's log")?).stderr(out);
        // Ctrl-C in this terminal is for us: we stop the server when the client's step has ended.
        command.process_group(0);
        let process = command.spawn().with_context(|| format!("start `{}`", command::show(&command)))?;
        let pid_file = folder.join("server.pid");
        let mut server = Self {
            pid: process.id(),
            process: Some(process),
            address: format!("http://127.0.0.1:{port}"),
            data,
            pid_file,
        };
        std::fs::write(&server.pid_file, format!("{}\n", server.pid))
            .with_context(|| format!("write {}", server.pid_file.display()))?;
        let socket = SocketAddr::from(([127, 0, 0, 1], port));
        let ready = interrupt.wait(READY, || {
            server.check_alive()?;
            Ok(is_ready(socket).then_some(()))
        });
        let problem = match ready {
            Ok(Some(())) => return Ok(server),
            Ok(None) => anyhow::anyhow!("it was not ready within {} s", READY.as_secs()),
            Err(error) => {
                // A person who gave up wants no log.
                interrupt.check()?;
                error
            }
        };
        bail!("the server did not start: {problem:#}; the end of {}:\n{}", log.path().display(), log.tail())
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &mut self.process
            && let Some(status) = process.try_wait().context("look at the server's process")?
        {
            bail!("it ended ({status})");
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The file with the token that the first start made.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.data.join("admin-token")
    }

    /// Stops it, in order.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end();
        Ok(())
    }

    /// Kills it as a power cut would, and starts it anew on its port, with these arguments.
    pub(crate) fn kill(&mut self, product: &Product<'_>, arguments: &[&str]) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).context("kill the server")?;
        }
        let port =
            self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).context("read the server's port")?;
        *self = product.serve(port, arguments)?;
        Ok(())
    }

    /// Leaves it running after this program's end.
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        self.check_alive().context("leave the server running")?;
        self.process = None;
        Ok(())
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            command::stop(&mut process);
            let _ = std::fs::remove_file(&self.pid_file);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the server says that it is ready.
fn is_ready(address: SocketAddr) -> bool {
    let answer = TcpStream::connect_timeout(&address, ASK).and_then(|mut stream| {
        stream.set_read_timeout(Some(ASK))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start)
    });
    answer.is_ok_and(|start| &start == b"HTTP/1.1 200")
}
