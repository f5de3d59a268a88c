//! Where an engine listens: a Unix socket. Engines over TCP are not supported: their protection is not ours to guess.

use std::path::{Path, PathBuf};

use cooper_ports::engine::EngineError;

/// Where Docker Engine listens unless it is told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// The path of an engine's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSocket(PathBuf);

impl Default for EngineSocket {
    fn default() -> Self {
        Self(DEFAULT_SOCKET.into())
    }
}

impl EngineSocket {
    /// Parses `unix:///path` or `/path`.
    pub fn parse(address: &str) -> Result<Self, EngineError> {
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
}
