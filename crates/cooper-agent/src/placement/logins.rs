//! The credentials by which containers of a placement read the embedded registry: those of the attempts that run.
//!
//! They never come into a container: what is reached under the registry's loopback name there goes through the agent,
//! which shows one for a request that shows nothing itself. All attempts of a placement may read the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_ports::engine::RegistryCredential;
use cooper_types::AttemptNumber;
use hyper::header::HeaderValue;

/// The credentials of the attempts that run.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<Vec<(AttemptNumber, HeaderValue)>>);

/// Takes an attempt's credential away when the attempt is over.
#[derive(Debug)]
pub(crate) struct Login {
    logins: Arc<Logins>,
    attempt: AttemptNumber,
}

impl Logins {
    fn live(&self) -> MutexGuard<'_, Vec<(AttemptNumber, HeaderValue)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an attempt's credential for as long as the guard lives.
    pub(crate) fn add(self: &Arc<Self>, attempt: AttemptNumber, credential: &RegistryCredential) -> Login {
        let text = STANDARD.encode(format!("{}:{}", credential.username, credential.password.expose()));
        if let Ok(mut value) = HeaderValue::try_from(format!("Basic {text}")) {
            value.set_sensitive(true);
            self.live().push((attempt, value));
        }
        Login { logins: Arc::clone(self), attempt }
    }

    /// What the newest of the attempts that run would show.
    pub(crate) fn newest(&self) -> Option<HeaderValue> {
        self.live().last().map(|(_, value)| value.clone())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.logins.live().retain(|(attempt, _)| *attempt != self.attempt);
    }
}

#[cfg(test)]
mod tests {
    use cooper_types::SecretString;

    use super::*;

    #[test]
    fn the_newest_attempt_that_runs_counts() {
        let logins = Arc::new(Logins::default());
        let credential = |password: &str| RegistryCredential {
            username: "run".to_owned(),
            password: SecretString::new(password.to_owned()),
        };
        let shown = |logins: &Logins| logins.newest().map(|value| value.to_str().expect("ASCII").to_owned());
        assert_eq!(shown(&logins), None);
        let first = logins.add(AttemptNumber(1), &credential("a"));
        let second = logins.add(AttemptNumber(2), &credential("b"));
        assert_eq!(shown(&logins).as_deref(), Some("Basic cnVuOmI="));
        drop(second);
        assert_eq!(shown(&logins).as_deref(), Some("Basic cnVuOmE="));
        drop(first);
        assert_eq!(shown(&logins), None);
    }
}
