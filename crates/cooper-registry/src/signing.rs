//! Signed tokens: the short-lived bearer tokens of `/oauth2/token` and the credentials of attempts.
//!
//! Both are JWTs under one key (HS256) and say in a claim which of the two they are, so that neither passes for the
//! other. Times are judged by the caller's clock, not by the library's.

use std::collections::BTreeSet;

use cooper_ports::registry::AttemptRef;
use cooper_types::{
    Access, AttemptNumber, PrincipalName, RepositoryName, RepositoryPattern, RunId, Scope, SecretBytes, SecretString,
    StepId, Timestamp, TokenId,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::AttemptCredential;

/// The fewest bytes of a key: as many as the hash has (RFC 7518, 3.2).
const MIN_KEY: usize = 32;

/// The key that signs and verifies the registry's tokens. Clones share it.
#[derive(Clone)]
pub struct SigningKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// Why bytes are no signing key.
#[derive(Debug, thiserror::Error)]
#[error("signing key has {0} bytes, it needs {MIN_KEY}")]
pub struct SigningKeyError(usize);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey([secret])")
    }
}

/// What a bearer token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessToken {
    pub(crate) holder: Holder,
    /// What was asked for and granted.
    pub(crate) granted: Vec<Grant>,
    /// What was asked for and is not allowed: asking again would change nothing.
    pub(crate) refused: Vec<Grant>,
    /// The repositories that are listed for the holder, if it asked for the catalog.
    pub(crate) catalog: Option<Vec<RepositoryPattern>>,
    pub(crate) expires: Timestamp,
}

/// Whom a bearer token was given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Anonymous,
    Token { principal: PrincipalName, token: TokenId },
    Attempt { principal: PrincipalName, attempt: AttemptRef },
}

/// Accesses to one repository, in the form of a Docker token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    #[serde(rename = "type")]
    kind: RepositoryKind,
    pub(crate) name: RepositoryName,
    #[serde(with = "actions")]
    pub(crate) actions: BTreeSet<Access>,
}

impl Grant {
    pub(crate) fn new(name: RepositoryName, actions: BTreeSet<Access>) -> Self {
        Self { kind: RepositoryKind::Repository, name, actions }
    }

    pub(crate) fn covers(&self, name: &RepositoryName, access: Access) -> bool {
        self.name == *name && self.actions.contains(&access)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RepositoryKind {
    Repository,
}

mod actions {
    use super::{Access, BTreeSet};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(actions: &BTreeSet<Access>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(actions.iter().map(Access::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Access>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| super::access(name).ok_or_else(|| D::Error::custom("unknown action"))).collect()
    }
}

/// The access that an action's name stands for.
pub(crate) fn access(name: &str) -> Option<Access> {
    [Access::Pull, Access::Push, Access::Delete].into_iter().find(|access| access.to_string() == name)
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Claims {
    Access(AccessClaims),
    Attempt(AttemptClaims),
}

#[derive(Serialize, Deserialize)]
struct AccessClaims {
    iss: String,
    aud: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<PrincipalName>,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<TokenId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<AttemptClaim>,
    access: Vec<Grant>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    catalog: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct AttemptClaims {
    sub: PrincipalName,
    exp: i64,
    attempt: AttemptClaim,
    push: Vec<RepositoryName>,
    pull: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    delete: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct AttemptClaim {
    run: RunId,
    step: StepId,
    attempt: AttemptNumber,
}

impl From<AttemptRef> for AttemptClaim {
    fn from(attempt: AttemptRef) -> Self {
        Self { run: attempt.run, step: attempt.step, attempt: attempt.attempt }
    }
}

impl From<AttemptClaim> for AttemptRef {
    fn from(claim: AttemptClaim) -> Self {
        Self { run: claim.run, step: claim.step, attempt: claim.attempt }
    }
}

impl SigningKey {
    /// A key of random bytes, 32 at least. Tokens outlive a restart if the bytes do.
    pub fn new(bytes: &SecretBytes) -> Result<Self, SigningKeyError> {
        let bytes = bytes.expose();
        if bytes.len() < MIN_KEY {
            return Err(SigningKeyError(bytes.len()));
        }
        Ok(Self { encoding: EncodingKey::from_secret(bytes), decoding: DecodingKey::from_secret(bytes) })
    }

    /// Signs an attempt's credential: the password that goes with any user name.
    pub fn mint_attempt(&self, credential: &AttemptCredential) -> SecretString {
        self.sign(&Claims::Attempt(AttemptClaims {
            sub: credential.principal.clone(),
            exp: seconds(credential.expires),
            attempt: credential.attempt_ref().into(),
            push: credential.push.clone(),
            pull: texts(&credential.pull),
            delete: texts(&credential.delete),
        }))
    }

    /// The credential behind a password, if it is one of ours and its time is not over.
    pub fn verify_attempt(&self, password: &SecretString, now: Timestamp) -> Option<AttemptCredential> {
        let Claims::Attempt(claims) = self.verify(password.expose())? else { return None };
        let AttemptClaim { run, step, attempt } = claims.attempt;
        let expires = Timestamp::from_micros(claims.exp.checked_mul(1_000_000)?);
        let (pull, delete) = (patterns(&claims.pull)?, patterns(&claims.delete)?);
        let (principal, push) = (claims.sub, claims.push);
        let credential = AttemptCredential { run, step, attempt, principal, push, pull, delete, expires };
        (now < expires).then_some(credential)
    }

    pub(crate) fn mint_access(&self, registry: &str, token: &AccessToken, now: Timestamp) -> SecretString {
        let (sub, id, attempt) = match token.holder.clone() {
            Holder::Anonymous => (None, None, None),
            Holder::Token { principal, token } => (Some(principal), Some(token), None),
            Holder::Attempt { principal, attempt } => (Some(principal), None, Some(attempt.into())),
        };
        self.sign(&Claims::Access(AccessClaims {
            iss: registry.to_owned(),
            aud: registry.to_owned(),
            sub,
            iat: seconds(now),
            exp: seconds(token.expires),
            token: id,
            attempt,
            access: token.granted.clone(),
            refused: token.refused.clone(),
            catalog: token.catalog.as_deref().map(texts),
        }))
    }

    pub(crate) fn verify_access(&self, registry: &str, text: &str, now: Timestamp) -> Option<AccessToken> {
        let Claims::Access(claims) = self.verify(text)? else { return None };
        let expires = Timestamp::from_micros(claims.exp.checked_mul(1_000_000)?);
        let holder = match (claims.sub, claims.token, claims.attempt) {
            (None, None, None) => Holder::Anonymous,
            (Some(principal), Some(token), None) => Holder::Token { principal, token },
            (Some(principal), None, Some(attempt)) => Holder::Attempt { principal, attempt: attempt.into() },
            _ => return None,
        };
        let catalog = match &claims.catalog {
            Some(texts) => Some(patterns(texts)?),
            None => None,
        };
        let token = AccessToken { holder, granted: claims.access, refused: claims.refused, catalog, expires };
        (claims.aud == registry && now < expires).then_some(token)
    }

    fn sign(&self, claims: &Claims) -> SecretString {
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding);
        SecretString::new(token.expect("claims of our own types serialize, and the key is one for HS256"))
    }

    fn verify(&self, text: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The times and the audience are checked by our caller, with our clock.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Claims>(text, &self.decoding, &validation).ok().map(|token| token.claims)
    }
}

fn texts(patterns: &[RepositoryPattern]) -> Vec<String> {
    patterns.iter().map(RepositoryPattern::to_string).collect()
}

fn patterns(texts: &[String]) -> Option<Vec<RepositoryPattern>> {
    texts.iter().map(|text| pattern(text)).collect()
}

fn pattern(text: &str) -> Option<RepositoryPattern> {
    match Scope::parse(&format!("repository:{text}:pull")) {
        Ok(Scope::Repository(pattern, _)) => Some(pattern),
        _ => None,
    }
}

/// Whole seconds, rounded down: a token never outlives what it was made for.
fn seconds(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn key(byte: u8) -> SigningKey {
        SigningKey::new(&SecretBytes::new(vec![byte; MIN_KEY])).expect("long enough")
    }

    fn credential() -> AttemptCredential {
        AttemptCredential {
            run: RunId::from_number(7),
            step: StepId::parse("build").expect("valid"),
            attempt: AttemptNumber(3),
            principal: PrincipalName::parse("ann").expect("valid"),
            push: vec![RepositoryName::parse("team/app").expect("valid")],
            pull: vec![pattern("base/*").expect("valid"), pattern("*").expect("valid")],
            delete: vec![pattern("old/*").expect("valid")],
            expires: Timestamp::from_micros(1_700_000_060_000_000),
        }
    }

    fn access_token() -> AccessToken {
        AccessToken {
            holder: Holder::Attempt { principal: credential().principal, attempt: credential().attempt_ref() },
            granted: vec![Grant::new(credential().push[0].clone(), BTreeSet::from([Access::Pull, Access::Push]))],
            refused: vec![],
            catalog: Some(credential().pull),
            expires: credential().expires,
        }
    }

    #[test]
    fn tokens_round_trip_until_they_expire() {
        let password = key(1).mint_attempt(&credential());
        assert_eq!(key(1).verify_attempt(&password, NOW), Some(credential()));
        assert_eq!(key(1).verify_attempt(&password, credential().expires), None);
        let token = key(1).mint_access("reg", &access_token(), NOW);
        assert_eq!(key(1).verify_access("reg", token.expose(), NOW), Some(access_token()));
        assert_eq!(key(1).verify_access("reg", token.expose(), credential().expires), None);
        assert_eq!(key(1).verify_access("other", token.expose(), NOW), None);
    }

    #[test]
    fn neither_kind_passes_for_the_other_and_other_keys_for_none() {
        let password = key(1).mint_attempt(&credential());
        let token = key(1).mint_access("reg", &access_token(), NOW);
        assert_eq!(key(1).verify_access("reg", password.expose(), NOW), None);
        assert_eq!(key(1).verify_attempt(&token, NOW), None);
        assert_eq!(key(2).verify_attempt(&password, NOW), None);
        assert_eq!(key(2).verify_access("reg", token.expose(), NOW), None);
        for text in ["", "a.b.c", "..", "\u{0}", &format!("{}x", token.expose())] {
            assert_eq!(key(1).verify_access("reg", text, NOW), None, "{text}");
        }
        let (head, tail) = token.expose().split_once('.').expect("a JWT has dots");
        assert!(!head.is_empty());
        // {"alg":"none","typ":"JWT"}
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{tail}");
        assert_eq!(key(1).verify_access("reg", &unsigned, NOW), None);
        assert!(SigningKey::new(&SecretBytes::new(vec![0; MIN_KEY - 1])).is_err());
    }

    #[test]
    fn an_attempt_may_what_its_plan_says() {
        let name = |text| RepositoryName::parse(text).expect("valid");
        let mut credential = credential();
        credential.pull = vec![pattern("base/*").expect("valid")];
        for (repository, access, allowed) in [
            ("team/app", Access::Push, true),
            ("team/app", Access::Pull, true),
            ("team/app", Access::Delete, false),
            ("base/os", Access::Pull, true),
            ("base/os", Access::Push, false),
            ("team/other", Access::Pull, false),
        ] {
            assert_eq!(credential.allows(&name(repository), access), allowed, "{repository} {access}");
        }
    }
}
