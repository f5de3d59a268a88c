//! Access tokens: making them, checking them, and the first one.
//!
//! A token is `cooper_ID_SECRET`. The store holds the secret's SHA-256: the secret has 256 random bits, so a slow hash
//! would protect nothing. What a token may do where is decided by whoever is asked, from its scopes.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cooper_ports::access::{AccessStore, CreateTokenError, NewToken, Token};
use cooper_ports::clock::Clock;
use cooper_ports::registry::{Caller, CredentialVerifier, VerifyError};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, PrincipalName, Scope, Scopes, SecretString, TokenId};
use subtle::ConstantTimeEq as _;

/// What every token begins with, so that secret scanners find lost ones.
const PREFIX: &str = "cooper_";
/// Who the first token speaks for.
const ADMIN: &str = "admin";

/// Makes and checks tokens.
#[derive(Clone)]
pub(crate) struct Access {
    store: Arc<dyn AccessStore>,
    clock: Arc<dyn Clock>,
    /// The token of the agent inside this process: it ends with the process and is stored nowhere.
    local_agent: Arc<OnceLock<Token>>,
}

/// Why the administrator's token file was not made.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// The store failed.
    #[error("failed to make the first admin token")]
    Store(#[source] CreateTokenError),
    /// The store failed.
    #[error("failed to look for tokens")]
    List(#[source] StoreError),
    /// The file can't be written.
    #[error("admin token file `{path}` can't be written")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Access {
    pub(crate) fn new(store: Arc<dyn AccessStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, local_agent: Arc::default() }
    }

    /// Makes a token. The secret is in the second value and nowhere else.
    pub(crate) async fn create(
        &self,
        principal: PrincipalName,
        scopes: Scopes,
        expires_in: Option<Duration>,
    ) -> Result<(Token, SecretString), CreateTokenError> {
        let id = TokenId::parse(&random_text(12)).expect("random texts are letters and digits");
        let secret = random_text(52);
        let token = NewToken {
            id: id.clone(),
            principal,
            secret_hash: Digest::sha256(secret.as_bytes()),
            scopes,
            expires: expires_in.map(|duration| self.clock.now().after(duration)),
        };
        let token = self.store.create_token(token).await?;
        Ok((token, SecretString::new(format!("{PREFIX}{id}_{secret}"))))
    }

    /// The token behind a text, if it is active. Nothing tells why it is not.
    pub(crate) async fn check(&self, text: &str) -> Result<Option<Token>, StoreError> {
        let Some((id, secret)) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')) else {
            return Ok(None);
        };
        let Ok(id) = TokenId::parse(id) else { return Ok(None) };
        let hash = Digest::sha256(secret.as_bytes());
        let Some(token) = self.find(&id).await? else { return Ok(None) };
        let same = bool::from(token.secret_hash.as_str().as_bytes().ct_eq(hash.as_str().as_bytes()));
        Ok((same && token.is_active(self.clock.now())).then_some(token))
    }

    async fn find(&self, id: &TokenId) -> Result<Option<Token>, StoreError> {
        match self.local_agent.get().filter(|token| token.id == *id) {
            Some(token) => Ok(Some(token.clone())),
            None => self.store.find_token(id).await,
        }
    }

    /// Makes the token of the agent inside this process. It may be an agent and nothing else.
    pub(crate) fn local_agent_token(&self, principal: PrincipalName) -> SecretString {
        let id = TokenId::parse(&random_text(12)).expect("random texts are letters and digits");
        let secret = random_text(52);
        let token = Token {
            id: id.clone(),
            principal,
            secret_hash: Digest::sha256(secret.as_bytes()),
            scopes: Scopes(vec![Scope::Agent]),
            created: self.clock.now(),
            expires: None,
            revoked: None,
        };
        self.local_agent.set(token).expect("a server starts one agent of its own");
        SecretString::new(format!("{PREFIX}{id}_{secret}"))
    }

    /// Whether this is the token of the agent inside this process.
    pub(crate) fn is_local_agent(&self, token: &TokenId) -> bool {
        self.local_agent.get().is_some_and(|local| local.id == *token)
    }

    pub(crate) fn store(&self) -> &dyn AccessStore {
        &*self.store
    }

    /// Makes an administrator's token and writes it to a 0600 file if there is none that works: on the first start, and
    /// when the last one was revoked or has expired. Returns whether it did.
    ///
    /// The file is written before the token exists, so that a crash between the two leaves a file that is written
    /// again at the next start instead of a token that nobody knows.
    pub(crate) async fn ensure_admin(&self, path: &Path) -> Result<bool, AdminTokenError> {
        let tokens = self.store.list_tokens().await.map_err(AdminTokenError::List)?;
        let now = self.clock.now();
        if tokens.iter().any(|token| token.scopes.admin() && token.is_active(now)) {
            return Ok(false);
        }
        let failed = |source| AdminTokenError::File { path: path.to_owned(), source };
        let id = TokenId::parse(&random_text(12)).expect("random texts are letters and digits");
        let secret = random_text(52);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        std::io::Write::write_all(&mut file, format!("{PREFIX}{id}_{secret}\n").as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        if let Some(directory) = path.parent() {
            // The name of the file must outlive a power cut too, or the token would be there and nobody would know it.
            std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        let token = NewToken {
            id,
            principal: PrincipalName::parse(ADMIN).expect("`admin` is a principal's name"),
            secret_hash: Digest::sha256(secret.as_bytes()),
            scopes: Scopes(vec![Scope::Admin]),
            expires: None,
        };
        self.store.create_token(token).await.map_err(AdminTokenError::Store)?;
        Ok(true)
    }
}

#[async_trait]
impl CredentialVerifier for Access {
    async fn verify(&self, _username: &str, password: &SecretString) -> Result<Option<Caller>, VerifyError> {
        let token = self.check(password.expose()).await.map_err(|error| VerifyError(Box::new(error)))?;
        Ok(token.map(|token| Caller { principal: token.principal, token: token.id, scopes: token.scopes }))
    }

    async fn is_active(&self, token: &TokenId) -> Result<bool, VerifyError> {
        let found = self.find(token).await.map_err(|error| VerifyError(Box::new(error)))?;
        Ok(found.is_some_and(|token| token.is_active(self.clock.now())))
    }
}

/// Random lower-case letters and digits, five bits each.
pub(crate) fn random_text(length: usize) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..length).map(|_| char::from(DIGITS[usize::from(rand::random::<u8>() & 31)])).collect()
}
