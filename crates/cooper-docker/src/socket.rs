//! Where an engine listens: a Unix socket, or on Windows a named pipe. Engines over TCP are not supported: their protection
//! is not ours to guess.

use std::path::{Path, PathBuf};

use cooper_ports::engine::EngineError;

/// Where Docker Engine listens unless it is told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_PIPE: &str = r"\\.\pipe\docker_engine";
/// Whether this program runs on Windows.
const WINDOWS: bool = cfg!(windows);

/// The path of an engine's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSocket(PathBuf);

impl Default for EngineSocket {
    fn default() -> Self {
        Self(if WINDOWS { DEFAULT_PIPE } else { DEFAULT_SOCKET }.into())
    }
}

impl EngineSocket {
    /// Parses `unix:///path` or `/path`; on Windows `npipe:////./pipe/NAME` or the pipe's path.
    pub fn parse(address: &str) -> Result<Self, EngineError> {
        if WINDOWS { Self::parse_pipe(address) } else { Self::parse_socket(address) }
    }

    fn parse_pipe(address: &str) -> Result<Self, EngineError> {
        let path = address.strip_prefix("npipe://").unwrap_or(address).replace('/', r"\");
        // No pipe of another machine: that one's protection is not ours to guess either.
        let name = path.strip_prefix(r"\\.\pipe\").filter(|name| !name.is_empty() && path.len() <= 256);
        if name.is_none_or(|name| name.contains(['\\', '\0', '*', '?', '"', '<', '>', '|', ':'])) {
            return Err(EngineError::Address { address: address.chars().take(160).collect() });
        }
        Ok(Self(path.into()))
    }

    fn parse_socket(address: &str) -> Result<Self, EngineError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        // Longer paths do not fit a socket's address (`sun_path`), and a NUL would cut it.
        if !path.starts_with('/') || path.len() > 107 || path.contains('\0') {
            return Err(EngineError::Address { address: address.chars().take(160).collect() });
        }
        Ok(Self(path.into()))
    }

    /// What the settings say: the address that was given, else the value of `DOCKER_HOST`, else Docker's default.
    pub fn choose(given: Option<&str>, docker_host: Option<&str>) -> Result<Self, EngineError> {
        match given.or(docker_host.filter(|host| !host.is_empty())) {
            Some(address) => Self::parse(address),
            None => Ok(Self::default()),
        }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The error of a connection that could not be made.
    pub(crate) fn unreachable(&self, source: std::io::Error) -> EngineError {
        let socket = self.0.display().to_string();
        match source.kind() {
            std::io::ErrorKind::PermissionDenied => EngineError::Forbidden { socket, source },
            _ => EngineError::Unreachable { socket, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_win_over_the_environment_and_both_over_the_default() {
        let path = |given, host| EngineSocket::choose(given, host).map(|socket| socket.0);
        assert_eq!(path(None, None).expect("default"), Path::new(DEFAULT_SOCKET));
        assert_eq!(path(None, Some("")).expect("default"), Path::new(DEFAULT_SOCKET));
        assert_eq!(path(None, Some("unix:///run/x.sock")).expect("path"), Path::new("/run/x.sock"));
        assert_eq!(path(Some("/a"), Some("tcp://h:2375")).expect("path"), Path::new("/a"));
        for bad in ["tcp://127.0.0.1:2375", "ssh://host", "relative", "/a\0b", &"/a".repeat(60)] {
            let error = EngineSocket::parse(bad).expect_err(bad);
            assert!(error.to_string().contains("is not a Unix socket"), "{error}");
        }
    }

    #[test]
    fn windows_has_named_pipes() {
        let pipe = |text: &str| EngineSocket::parse_pipe(text).map(|socket| socket.0.display().to_string()).ok();
        for text in ["npipe:////./pipe/docker_engine", "//./pipe/docker_engine", DEFAULT_PIPE] {
            assert_eq!(pipe(text).as_deref(), Some(DEFAULT_PIPE), "{text}");
        }
        for bad in [
            "",
            "npipe://",
            "npipe:////./pipe/",
            "//server/pipe/x",
            "/var/run/docker.sock",
            "tcp://h:2375",
            r"\\.\pipe\a\b",
        ] {
            assert_eq!(pipe(bad), None, "{bad}");
        }
    }
}
