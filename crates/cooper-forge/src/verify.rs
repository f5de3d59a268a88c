//! Whether a delivery comes from who holds the hook's secret: checked over the raw body, before anything is parsed.
//!
//! Owns the forms in which forges sign. A hook has several secrets while one is replaced by another; each of them will
//! do. Comparisons take the same time wherever the first difference is. Nothing here says what was sent or expected.

mod azure;
mod hub;
mod timed;
mod token;

use std::time::Duration;

use cooper_engine::trigger::provider::Provider;
use cooper_types::{SecretBytes, Timestamp};
use http::HeaderMap;

use crate::headers::{self, HeaderFault};

/// How old, or how far in the future, a signature with a time may be.
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// Why a delivery is not believed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unsigned {
    /// The hook has no secret: then nobody can have signed.
    #[error("the hook has no secret; give it one")]
    NoSecret,
    /// The header is not there.
    #[error("the delivery has no `{header}` header; set the hook's secret at the forge")]
    Missing {
        /// The header.
        header: &'static str,
    },
    /// The header is there more than once.
    #[error("the delivery has several `{header}` headers")]
    Doubled {
        /// The header.
        header: &'static str,
    },
    /// The header has another form.
    #[error("the delivery's `{header}` header is not of the form `{form}`")]
    Malformed {
        /// The header.
        header: &'static str,
        /// What it should look like.
        form: &'static str,
    },
    /// None of the hook's secrets made it.
    #[error("the delivery's `{header}` header was not made with the hook's secret; compare the secret at the forge")]
    Mismatch {
        /// The header.
        header: &'static str,
    },
    /// The time in it is too far away.
    #[error(
        "the delivery's `{header}` header is more than {limit} s from now; compare the clocks of sender and server",
        limit = MAX_AGE.as_secs()
    )]
    Stale {
        /// The header.
        header: &'static str,
    },
}

/// Checks a delivery's signature, or the token in its stead.
///
/// GitHub and Gitea sign with HMAC-SHA256 in hexadecimal digits, Bitbucket likewise under an older header's name. GitLab
/// sends the secret itself, or signs with a time as Standard Webhooks do when the secret begins with `whsec_`: what it signs
/// with a token of its own making says nothing for the secret, nor against it. Azure DevOps sends the secret as the password of Basic credentials, under any user name. The generic form is our own.
pub fn verify(
    provider: Provider,
    secrets: &[SecretBytes],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Unsigned> {
    let secrets = used(secrets);
    if secrets.is_empty() {
        return Err(Unsigned::NoSecret);
    }
    let delivery = Signed { secrets: &secrets, headers, body };
    match provider {
        Provider::GitHub => hub::prefixed(&delivery, "X-Hub-Signature-256"),
        Provider::BitbucketCloud | Provider::BitbucketServer => hub::prefixed(&delivery, "X-Hub-Signature"),
        Provider::Gitea => hub::gitea(&delivery),
        Provider::GitLab => match token::gitlab(&delivery) {
            Err(_) if delivery.is_standard() => timed::standard(&delivery, now),
            answer => answer,
        },
        Provider::AzureDevops => azure::basic(&delivery),
        Provider::Generic => timed::generic(&delivery, now),
    }
}

/// Checks what can be checked before the body is read: that a signature in the right form is there, and, where the secret
/// itself is sent, that it is the right one.
pub fn verify_head(
    provider: Provider,
    secrets: &[SecretBytes],
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<(), Unsigned> {
    let sends_secret = match provider {
        Provider::AzureDevops => true,
        Provider::GitLab => !Signed { secrets: &used(secrets), headers, body: &[] }.is_standard(),
        Provider::GitHub
        | Provider::Gitea
        | Provider::BitbucketCloud
        | Provider::BitbucketServer
        | Provider::Generic => false,
    };
    match verify(provider, secrets, headers, &[], now) {
        // It is that of another body, as it should be.
        Err(Unsigned::Mismatch { .. }) if !sends_secret => Ok(()),
        answer => answer,
    }
}

/// An empty secret is everybody's.
fn used(secrets: &[SecretBytes]) -> Vec<&[u8]> {
    secrets.iter().map(SecretBytes::expose).filter(|secret| !secret.is_empty()).collect()
}

/// What is checked.
struct Signed<'a> {
    secrets: &'a [&'a [u8]],
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Signed<'a> {
    fn has(&self, header: &str) -> bool {
        self.headers.contains_key(header)
    }

    /// Whether a secret may have signed it as Standard Webhooks are.
    fn is_standard(&self) -> bool {
        self.has("webhook-signature") && self.secrets.iter().any(|secret| secret.starts_with(b"whsec_"))
    }

    fn header(&self, header: &'static str, form: &'static str) -> Result<&'a str, Unsigned> {
        match headers::text(self.headers, header) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(Unsigned::Missing { header }),
            Err(HeaderFault::Doubled) => Err(Unsigned::Doubled { header }),
            Err(HeaderFault::NoText) => Err(Unsigned::Malformed { header, form }),
        }
    }
}

#[cfg(test)]
mod tests;
