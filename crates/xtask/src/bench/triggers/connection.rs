//! Requests to the server over connections that stay open, as many clients at once make them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::product::Server;

/// How long an answer may take: the server is under load here.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest head of an answer, in lines.
const MAX_HEAD: usize = 100;

/// Where a server is, and the administrator's token.
#[derive(Clone)]
pub(super) struct Access {
    authority: String,
    token: String,
}

/// A connection that one request after the other goes over.
pub(super) struct Connection<'a> {
    access: &'a Access,
    stream: BufReader<TcpStream>,
}

impl Access {
    pub(super) fn of(server: &Server) -> anyhow::Result<Self> {
        let file = server.token_file();
        let token = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let authority = server.address().trim_start_matches("http://").to_owned();
        Ok(Self { authority, token: token.trim().to_owned() })
    }

    pub(super) fn connect(&self) -> anyhow::Result<Connection<'_>> {
        let stream = TcpStream::connect(&self.authority).with_context(|| format!("connect to {}", self.authority))?;
        stream.set_read_timeout(Some(LIMIT)).context("limit the answers' time")?;
        stream.set_nodelay(true).context("send at once")?;
        Ok(Connection { access: self, stream: BufReader::new(stream) })
    }
}

impl Connection<'_> {
    /// Sends a request; the body of an answer of success.
    pub(super) fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let authorization = format!("Authorization: Bearer {}\r\n", self.access.token);
        self.ask_with(method, path, &authorization, &body.map(Value::to_string).unwrap_or_default())
    }

    /// The same with headers of the caller's, whole lines, and nobody's token.
    pub(super) fn ask_with(&mut self, method: &str, path: &str, headers: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        self.send(method, path, &format!("{headers}Content-Type: application/json\r\n"), body)
    }

    /// Pushes a manifest.
    pub(super) fn push(&mut self, path: &str, media_type: &str, manifest: &str) -> anyhow::Result<Vec<u8>> {
        let credential = STANDARD.encode(format!("bench:{}", self.access.token));
        let headers = format!("Authorization: Basic {credential}\r\nContent-Type: {media_type}\r\n");
        self.send("PUT", path, &headers, manifest)
    }

    fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) -> anyhow::Result<Vec<u8>> {
        let authority = &self.access.authority;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).context("send a request")?;
        let status = self.line()?;
        let mut length = 0;
        for _ in 0..MAX_HEAD {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("read an answer's length")?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).context("read an answer")?;
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(answer),
            _ => bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer)),
        }
    }

    /// The same, where the answer is JSON.
    pub(super) fn json(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.ask(method, path, body)?).with_context(|| format!("read the answer of {path}"))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).context("read an answer's head")?;
        Ok(line.trim_end().to_owned())
    }
}
