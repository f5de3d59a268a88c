//! Deliveries of forges as events.
//!
//! Owns each forge's way of writing an event down. Read only what [`crate::verify`] has believed. Unknown fields are
//! passed over; a field that is needed and missing is an error that names it. Nothing that is sent makes it panic.

mod azure;
mod bitbucket_cloud;
mod bitbucket_server;
mod bounded;
mod error;
mod generic;
mod gitlab;
mod hub;
mod node;

use std::borrow::Cow;
use std::fmt;

use cooper_engine::trigger::event::{PullRequestAction, SourceChange, SourceEvent};
use cooper_engine::trigger::provider::Provider;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::headers::{self, HeaderFault};
pub use error::ParseError;
use node::Node;

/// The largest body, in bytes. GitHub and GitLab send up to 25 MB; what comes near it is a push of thousands of commits.
pub const MAX_BODY: usize = 16 << 20;
/// The most references of one push.
pub const MAX_EVENTS: usize = 100;
/// The most items of a list that are looked at; forges list fewer commits.
const MAX_ITEMS: usize = 4096;

/// What tells a delivery from another: redelivered, it has the same. At most 200 visible ASCII characters.
///
/// Headers are under no signature: who has seen a delivery can send it again under another id. So the same event,
/// reference and commit must not count twice either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(String);

/// One request of a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which one it is.
    pub id: DeliveryId,
    /// What happened, in the forge's order; a push may change several references, and one of none is empty.
    pub events: Vec<SourceEvent>,
}

impl DeliveryId {
    fn parse(text: &str) -> Option<Self> {
        let sound = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Self(text.to_owned()))
    }

    /// For forges that give none: what is sent again is the same again.
    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self(format!("sha256:{:x}", hash.finalize()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a delivery.
pub fn parse(provider: Provider, headers: &HeaderMap, body: &[u8]) -> Result<Delivery, ParseError> {
    if body.len() > MAX_BODY {
        return Err(ParseError::TooLarge { provider });
    }
    let request = Request { provider, headers, body };
    let json = request.json()?;
    let value = bounded::read(&json).map_err(|fault| match fault {
        bounded::Fault::Json(source) => ParseError::NotJson { provider, source },
        bounded::Fault::TooMuch => ParseError::TooMuch { provider },
    })?;
    let delivery = match provider {
        Provider::GitHub => hub::github(&request, &value),
        Provider::Gitea => hub::gitea(&request, &value),
        Provider::GitLab => gitlab::delivery(&request, &value),
        Provider::BitbucketCloud => bitbucket_cloud::delivery(&request, &value),
        Provider::BitbucketServer => bitbucket_server::delivery(&request, &value),
        Provider::AzureDevops => azure::delivery(&request, &value),
        Provider::Generic => generic::delivery(&request, &value),
    }?;
    Ok(delivery)
}

/// What came in.
struct Request<'a> {
    provider: Provider,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn header(&self, header: &'static str) -> Result<Option<&'a str>, ParseError> {
        let provider = self.provider;
        headers::text(self.headers, header).map_err(|fault| ParseError::Header {
            provider,
            header,
            reason: match fault {
                HeaderFault::Doubled => "is there several times",
                HeaderFault::NoText => "is no ASCII text",
            },
        })
    }

    fn needed_header(&self, header: &'static str) -> Result<&'a str, ParseError> {
        self.header(header)?.ok_or(ParseError::Header { provider: self.provider, header, reason: "is missing" })
    }

    /// The delivery's id in this header; a digest of everything if it is missing.
    fn id(&self, header: &'static str) -> Result<DeliveryId, ParseError> {
        match self.header(header)? {
            Some(text) => self.id_of(header, text),
            None => Ok(DeliveryId::of_parts(&[self.body])),
        }
    }

    fn id_of(&self, header: &'static str, text: &str) -> Result<DeliveryId, ParseError> {
        let reason = "is not 1 to 200 visible characters";
        DeliveryId::parse(text).ok_or(ParseError::Header { provider: self.provider, header, reason })
    }

    /// The body, out of the form that GitHub and Gitea put it into where a hook is set up so.
    fn json(&self) -> Result<Cow<'a, [u8]>, ParseError> {
        let media = self.header(CONTENT_TYPE.as_str()).ok().flatten().unwrap_or_default();
        let form = media
            .split(';')
            .next()
            .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if !form || !matches!(self.provider, Provider::GitHub | Provider::Gitea) {
            return Ok(Cow::Borrowed(self.body));
        }
        url::form_urlencoded::parse(self.body)
            .find(|(name, _)| name == "payload")
            .map(|(_, json)| Cow::Owned(json.into_owned().into_bytes()))
            .ok_or(ParseError::NoPayload { provider: self.provider })
    }

    fn node(&self, event: &str, value: &'a Value) -> Node<'a> {
        Node::root(self.provider, event, value)
    }
}

/// An event that starts nothing.
fn other(name: &str) -> SourceEvent {
    SourceEvent { repository: None, change: SourceChange::Other { name: node::cut_text(name) } }
}

fn other_action(name: &str) -> PullRequestAction {
    PullRequestAction::Other { name: node::cut_text(name) }
}

/// What a full reference names.
enum Named<'a> {
    Branch(&'a str),
    Tag(&'a str),
    /// Notes, changes under review, stashes.
    Else,
}

impl<'a> Named<'a> {
    fn of(reference: &'a str) -> Self {
        if let Some(branch) = reference.strip_prefix("refs/heads/") {
            Self::Branch(branch)
        } else if let Some(tag) = reference.strip_prefix("refs/tags/") {
            Self::Tag(tag)
        } else {
            Self::Else
        }
    }
}
