//! Who sends a request and what they may do: Basic and Bearer credentials, and the challenges that ask for them.
//!
//! Every refusal of a credential looks the same. A repository's existence is nothing to those who may not pull it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_ports::registry::{AttemptRef, ORIGIN_HEADER, Writer};
use cooper_types::{
    Access, PrincipalName, RegistryName, RepositoryName, RepositoryPattern, RunId, Scopes, SecretString, Timestamp,
    TokenId,
};
use http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::AttemptCredential;
use crate::error::OciError;
use crate::own::OWN_REPOSITORY;
use crate::service::RegistryService;
use crate::signing::{AccessToken, Grant, Holder};
use crate::token::AskedFor;

/// The longest credential that is looked at, in bytes. An attempt's, which names its repositories, is the longest.
pub(crate) const MAX_CREDENTIAL: usize = 16 * 1024;

/// Who sends a request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    subject: Subject,
    powers: Powers,
}

/// In whose name a request is made.
#[derive(Clone, Debug)]
enum Subject {
    Anonymous,
    Token { principal: PrincipalName, token: TokenId },
    Attempt { principal: PrincipalName, attempt: AttemptRef },
}

/// What a credential allows.
#[derive(Clone, Debug)]
enum Powers {
    /// Nothing was shown; pulling may be free.
    Anonymous { pull: bool },
    /// An access token's scopes.
    Scopes(Scopes),
    /// An attempt's plan.
    Attempt { credential: Box<AttemptCredential> },
    /// What a bearer token was granted, what it was refused, and which repositories are listed for it.
    Grants { granted: Vec<Grant>, refused: Vec<Grant>, catalog: Option<Vec<RepositoryPattern>> },
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may.
    Allowed,
    /// It may not, and asking for another token would not help.
    Denied,
    /// It may not with this credential; another one may.
    OtherCredential,
}

impl Identity {
    /// Somebody who has shown nothing.
    pub(crate) fn anonymous(pull: bool) -> Self {
        Self { subject: Subject::Anonymous, powers: Powers::Anonymous { pull } }
    }

    fn of_attempt(credential: AttemptCredential) -> Self {
        let (principal, attempt) = (credential.principal.clone(), credential.attempt_ref());
        let powers = Powers::Attempt { credential: Box::new(credential) };
        Self { subject: Subject::Attempt { principal, attempt }, powers }
    }

    fn of_access_token(token: AccessToken) -> Self {
        let subject = match token.holder {
            Holder::Anonymous => Subject::Anonymous,
            Holder::Token { principal, token } => Subject::Token { principal, token },
            Holder::Attempt { principal, attempt } => Subject::Attempt { principal, attempt },
        };
        let AccessToken { granted, refused, catalog, .. } = token;
        Self { subject, powers: Powers::Grants { granted, refused, catalog } }
    }

    /// Whether nothing was shown.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.powers, Powers::Anonymous { .. })
    }

    /// Decides about one access.
    pub(crate) fn decide(&self, repository: &RepositoryName, access: Access) -> Decision {
        let allowed = |allowed, otherwise| if allowed { Decision::Allowed } else { otherwise };
        let is_own = repository.as_str() == OWN_REPOSITORY;
        match &self.powers {
            // Everybody who has a credential may run the server's own programs, and nobody replaces them.
            Powers::Scopes(_) | Powers::Attempt { .. } if is_own => allowed(access == Access::Pull, Decision::Denied),
            Powers::Anonymous { pull } => allowed(*pull && access == Access::Pull, Decision::OtherCredential),
            Powers::Scopes(scopes) => allowed(scopes.repository(repository, access), Decision::Denied),
            Powers::Attempt { credential } => allowed(credential.allows(repository, access), Decision::Denied),
            Powers::Grants { granted, refused, .. } => {
                let covered = |grants: &[Grant]| grants.iter().any(|grant| grant.covers(repository, access));
                let asked_for = covered(refused) && !matches!(self.subject, Subject::Anonymous);
                let otherwise = if asked_for { Decision::Denied } else { Decision::OtherCredential };
                allowed(covered(granted), otherwise)
            }
        }
    }

    /// Which repositories are listed for the caller; `None` if it has to show something else for a list.
    pub(crate) fn catalog(&self) -> Option<Vec<RepositoryPattern>> {
        match &self.powers {
            // What there is to see is nobody's business who has shown nothing.
            Powers::Anonymous { .. } => None,
            Powers::Scopes(scopes) => Some(scopes.repositories(Access::Pull)),
            Powers::Attempt { credential } => {
                let own = credential.push.iter().cloned().map(RepositoryPattern::Named);
                Some(own.chain(credential.pull.iter().cloned()).collect())
            }
            Powers::Grants { catalog, .. } => catalog.clone(),
        }
    }

    /// In whose name a write is made. Nobody writes anonymously.
    pub(crate) fn writer(&self) -> Option<Writer> {
        match &self.subject {
            Subject::Anonymous => None,
            Subject::Token { principal, .. } => Some(Writer { principal: principal.clone(), attempt: None }),
            Subject::Attempt { principal, attempt } => {
                Some(Writer { principal: principal.clone(), attempt: Some(attempt.clone()) })
            }
        }
    }

    /// The run whose staged tags the request sees.
    pub(crate) fn run(&self) -> Option<RunId> {
        match &self.subject {
            Subject::Attempt { attempt, .. } => Some(attempt.run),
            Subject::Anonymous | Subject::Token { .. } => None,
        }
    }

    /// A short-lived token for what was asked for and is allowed.
    pub(crate) fn exchange(&self, asked: AskedFor, expires: Timestamp) -> AccessToken {
        let holder = match &self.subject {
            Subject::Anonymous => Holder::Anonymous,
            Subject::Token { principal, token } => Holder::Token { principal: principal.clone(), token: token.clone() },
            Subject::Attempt { principal, attempt } => {
                Holder::Attempt { principal: principal.clone(), attempt: attempt.clone() }
            }
        };
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        for Grant { name, actions, .. } in asked.grants {
            let (yes, no): (BTreeSet<Access>, BTreeSet<Access>) =
                actions.into_iter().partition(|access| self.decide(&name, *access) == Decision::Allowed);
            if !yes.is_empty() {
                granted.push(Grant::new(name.clone(), yes));
            }
            if !no.is_empty() {
                refused.push(Grant::new(name, no));
            }
        }
        // A token must not outlive the credential that it stands for.
        let expires = match &self.powers {
            Powers::Attempt { credential } => expires.min(credential.expires),
            _ => expires,
        };
        let catalog = if asked.catalog { self.catalog() } else { None };
        AccessToken { holder, granted, refused, catalog, expires }
    }
}

/// What a request shows.
enum Shown {
    Nothing,
    Basic { username: String, password: SecretString },
    Bearer(String),
    Garbage,
}

impl Shown {
    fn read(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Nothing };
        if values.next().is_some() || value.len() > MAX_CREDENTIAL {
            return Self::Garbage;
        }
        let Some((scheme, value)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return Self::Garbage;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Self::Bearer(value.trim().to_owned()),
            "basic" => Self::basic(value.trim()).unwrap_or(Self::Garbage),
            _ => Self::Garbage,
        }
    }

    fn basic(value: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        if username.is_empty() && password.is_empty() {
            // Clients that have no credential for a host send an empty one.
            return Some(Self::Nothing);
        }
        Some(Self::Basic { username: username.to_owned(), password: SecretString::new(password.to_owned()) })
    }
}

impl RegistryService {
    /// Finds out who sends a request to the registry itself.
    pub(crate) async fn identify(&self, request: &Parts) -> Result<Identity, OciError> {
        let identity = match Shown::read(&request.headers) {
            Shown::Nothing => return Ok(Identity::anonymous(self.options().anonymous_pull)),
            Shown::Basic { username, password } => self.log_in(&username, &password).await?,
            Shown::Bearer(text) => self.read_bearer(&text).await?,
            Shown::Garbage => None,
        };
        identity.ok_or_else(|| self.challenge(request, None, Some("invalid_token")))
    }

    /// Finds out who asks for a token: a bearer token buys no other.
    pub(crate) async fn identify_for_token(&self, headers: &HeaderMap) -> Result<Option<Identity>, OciError> {
        match Shown::read(headers) {
            Shown::Nothing => Ok(Some(Identity::anonymous(self.options().anonymous_pull))),
            Shown::Basic { username, password } => self.log_in(&username, &password).await,
            Shown::Bearer(_) | Shown::Garbage => Ok(None),
        }
    }

    /// Whom a user name and a password stand for.
    pub(crate) async fn log_in(&self, username: &str, password: &SecretString) -> Result<Option<Identity>, OciError> {
        if password.expose().len() > MAX_CREDENTIAL {
            return Ok(None);
        }
        let now = self.parts().clock.now();
        if let Some(credential) = self.parts().key.verify_attempt(password, now) {
            self.check_live(&credential.attempt_ref()).await?;
            return Ok(Some(Identity::of_attempt(credential)));
        }
        let caller = self.parts().credentials.verify(username, password).await?;
        Ok(caller.map(|caller| Identity {
            subject: Subject::Token { principal: caller.principal, token: caller.token },
            powers: Powers::Scopes(caller.scopes),
        }))
    }

    async fn read_bearer(&self, text: &str) -> Result<Option<Identity>, OciError> {
        let parts = self.parts();
        let Some(token) = parts.key.verify_access(self.options().name.as_str(), text, parts.clock.now()) else {
            return Ok(None);
        };
        let identity = match &token.holder {
            // The setting may have changed since.
            Holder::Anonymous => self.options().anonymous_pull.then(|| Identity::of_access_token(token)),
            // A revoked token stops at once, not when its bearer tokens run out.
            Holder::Token { token: id, .. } => {
                parts.credentials.is_active(id).await?.then(|| Identity::of_access_token(token))
            }
            Holder::Attempt { attempt, .. } => {
                self.check_live(attempt).await?;
                Some(Identity::of_access_token(token))
            }
        };
        Ok(identity)
    }

    async fn check_live(&self, attempt: &AttemptRef) -> Result<(), OciError> {
        if self.parts().store.attempt_is_live(attempt).await? {
            return Ok(());
        }
        Err(OciError::attempt_over(attempt))
    }

    /// Decides about a request, or says why it may not go on.
    pub(crate) fn authorize(
        &self,
        request: &Parts,
        identity: &Identity,
        repository: &RepositoryName,
        access: Access,
    ) -> Result<(), OciError> {
        match identity.decide(repository, access) {
            Decision::Allowed => Ok(()),
            // A credential never takes away what its bearer may do without one.
            _ if access == Access::Pull && self.options().anonymous_pull => Ok(()),
            Decision::Denied => {
                Err(OciError::denied(format!("the credential does not allow to {access} {repository}")))
            }
            Decision::OtherCredential => {
                // Clients ask for what a challenge names, and a push needs both.
                let actions = match access {
                    Access::Push => "pull,push".to_owned(),
                    other => other.to_string(),
                };
                let scope = format!("repository:{repository}:{actions}");
                let reason = (!identity.is_anonymous()).then_some("insufficient_scope");
                Err(self.challenge(request, Some(&scope), reason))
            }
        }
    }

    /// Asks for a credential (RFC 6750, 3; the distribution project's "Token Authentication").
    pub(crate) fn challenge(&self, request: &Parts, scope: Option<&str>, reason: Option<&str>) -> OciError {
        let name = &self.options().name;
        let mut challenge = format!("Bearer realm=\"{}/oauth2/token\",service=\"{name}\"", origin(request, name));
        for (key, value) in [("scope", scope), ("error", reason)] {
            if let Some(value) = value {
                challenge.push_str(&format!(",{key}=\"{value}\""));
            }
        }
        let message = match reason {
            None => log_in_first(name),
            Some("insufficient_scope") => "the bearer token does not cover this request".to_owned(),
            Some(_) => "the credential is not valid".to_owned(),
        };
        OciError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message).with_header(WWW_AUTHENTICATE, challenge)
    }
}

/// What those hear who show no credential. It must not be the bare "authentication required" of the distribution project:
/// Docker's engine takes an error of its own default words for one to try again, for most of a minute.
pub(crate) fn log_in_first(registry: &RegistryName) -> String {
    format!("authentication required; log in first, as with `docker login {registry}`")
}

/// How the connection of a request is made, for whoever serves it to say as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionScheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

/// Scheme and host by which the client reached us, so that it finds the token endpoint whatever stands in between. Only
/// the requester sees the answer, so believing what it says of itself harms nobody else.
fn origin(request: &Parts, name: &RegistryName) -> String {
    let text = |name: HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
    // Parsing keeps quotes and user names out of the header that this goes into.
    let forwarder = text(HeaderName::from_static(ORIGIN_HEADER)).and_then(|origin| origin.split_once("://"));
    if let Some((scheme @ ("http" | "https"), host)) = forwarder
        && let Ok(host) = RegistryName::parse(host)
    {
        return format!("{scheme}://{host}");
    }
    // Behind several proxies the first name is the client's. A name that is missed would have clients send credentials
    // in clear.
    let forwarded = text(HeaderName::from_static("x-forwarded-proto")).and_then(|value| value.split(',').next());
    let scheme = match forwarded.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
        Some("https") => "https",
        Some("http") => "http",
        _ => match request.extensions.get() {
            Some(ConnectionScheme::Https) => "https",
            _ => request.uri.scheme_str().unwrap_or("http"),
        },
    };
    let host = text(HOST).or_else(|| request.uri.authority().map(|authority| authority.as_str()));
    let host = host.and_then(|host| RegistryName::parse(host).ok()).unwrap_or_else(|| name.clone());
    format!("{scheme}://{host}")
}
