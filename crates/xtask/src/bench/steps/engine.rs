//! The engine by itself: containers through its API, as few requests as do the work, no client in between.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::provision::EngineAddress;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// An engine that answers at a socket.
pub(super) struct Engine {
    socket: PathBuf,
}

impl Engine {
    pub(super) fn at(address: &EngineAddress) -> anyhow::Result<Self> {
        match address {
            EngineAddress::Unix(socket) => Ok(Self { socket: socket.clone() }),
            EngineAddress::Tcp(_) => bail!("the engine at {address} is not on this machine"),
        }
    }

    /// A container from its creation to its removal.
    pub(super) fn run(&self, body: &Value) -> anyhow::Result<()> {
        let id = self.create(body)?;
        self.ask("POST", &format!("/containers/{id}/start"), None)?;
        self.end(&id)
    }

    /// The same with its output read and thrown away; how many bytes came, the engine's own around each part included.
    pub(super) fn run_attached(&self, body: &Value) -> anyhow::Result<u64> {
        let id = self.create(body)?;
        let mut output = self.attach(&id)?;
        self.ask("POST", &format!("/containers/{id}/start"), None)?;
        let bytes = std::io::copy(&mut output, &mut std::io::sink()).context("read a container's output")?;
        self.end(&id)?;
        Ok(bytes)
    }

    fn create(&self, body: &Value) -> anyhow::Result<String> {
        let created = self.ask("POST", "/containers/create", Some(body))?;
        let id = created.get("Id").and_then(Value::as_str).context("the engine's answer has no id")?;
        Ok(id.to_owned())
    }

    /// Waits for a container's end, which must be a good one, and removes it.
    fn end(&self, id: &str) -> anyhow::Result<()> {
        let ended = self.ask("POST", &format!("/containers/{id}/wait"), None)?;
        self.ask("DELETE", &format!("/containers/{id}?v=1"), None)?;
        match ended.get("StatusCode").and_then(Value::as_i64) {
            Some(0) => Ok(()),
            code => bail!("the container ended with {code:?}"),
        }
    }

    fn connect(&self) -> anyhow::Result<UnixStream> {
        let stream =
            UnixStream::connect(&self.socket).with_context(|| format!("connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(LIMIT)).context("limit the wait for the engine")?;
        Ok(stream)
    }

    /// Asks for something; its answer is an object, or nothing.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let doing = || format!("ask the engine: {method} {path}");
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = self.connect()?;
        // With HTTP/1.0 an answer ends with its connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).with_context(doing)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(doing)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(doing)?;
        if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            bail!("{}: it answers {}", doing(), body.trim());
        }
        if body.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(body).with_context(doing) }
    }

    /// What a container says from its start on.
    fn attach(&self, id: &str) -> anyhow::Result<UnixStream> {
        let mut stream = self.connect()?;
        let request = format!(
            "POST /containers/{id}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\n\
             Upgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).context("attach to a container")?;
        let mut head = Vec::new();
        let mut byte = [0];
        // Byte by byte: what follows the head is the container's.
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
            stream.read_exact(&mut byte).context("attach to a container")?;
            head.extend_from_slice(&byte);
        }
        if !head.starts_with(b"HTTP/1.1 101") {
            let _ = stream.shutdown(Shutdown::Both);
            bail!("the engine does not attach to a container: {}", String::from_utf8_lossy(&head).trim());
        }
        Ok(stream)
    }
}

/// A container of an image in a network, with volumes where steps have them.
pub(super) fn container(image: &str, command: &[&str], network: &str, volumes: &[(String, &str)]) -> Value {
    let mount = |(volume, target): &(String, &str)| json!({ "Type": "volume", "Source": volume, "Target": target, "VolumeOptions": { "NoCopy": true } });
    json!({
        "Image": image,
        "Cmd": command,
        "WorkingDir": "/workspace",
        "AttachStdout": true,
        "AttachStderr": true,
        "HostConfig": {
            "NetworkMode": network,
            "LogConfig": { "Type": "none" },
            "Mounts": volumes.iter().map(mount).collect::<Vec<_>>(),
        },
    })
}
