//! Errors of the REST API: RFC 9457 problem documents with a code that programs can tell apart.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The media type of a problem document.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// An error answer: `application/problem+json` with this body and the status that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:cooper:problem:` and the code.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// What kind of problem it is: the same text for each problem of a code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with what, in one line.
    pub detail: String,
    /// The problem's code.
    #[schema(value_type = String, example = "not-found")]
    pub code: ProblemCode,
    /// What to try next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of this code; `detail` is one line that names the object.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            problem_type: format!("urn:cooper:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            hint: None,
        }
    }

    /// The same problem with what to try next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
            /// A code that this version does not know, from a newer server.
            Other(String),
        }

        impl ProblemCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// The HTTP status that goes with the code.
            pub fn status(&self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Other(_) => 500,
                }
            }

            /// What the problems of this code have in common, in a few words.
            pub fn title(&self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Other(_) => "Another problem",
                }
            }
        }
    };
}

codes! {
    /// No token, or one that does not work.
    Unauthorized = "unauthorized", 401, "A valid access token is needed";
    /// A hook's delivery without the hook's signature, or with another one's.
    Unsigned = "unsigned", 401, "The delivery is not signed with the hook's secret";
    /// The token works and does not allow this.
    Forbidden = "forbidden", 403, "The access token does not allow this";
    /// No such object, or none that the caller may see.
    NotFound = "not-found", 404, "There is no such object";
    /// The path exists, the method does not.
    MethodNotAllowed = "method-not-allowed", 405, "The path does not take this method";
    /// The request's form or a value in it is wrong.
    InvalidRequest = "invalid-request", 400, "The request is not valid";
    /// An image name is not one.
    InvalidReference = "invalid-reference", 400, "An image reference is not valid";
    /// A template in the request can't be rendered.
    InvalidTemplate = "invalid-template", 400, "A template is not valid";
    /// Not a platform, or none that can be built.
    UnsupportedPlatform = "unsupported-platform", 400, "The platform is not supported";
    /// The body is of another type than it has to be.
    UnsupportedMediaType = "unsupported-media-type", 415, "The body is of the wrong media type";
    /// The request's context does not exist, is not uploaded yet, or is another principal's.
    ContextNotFound = "context-not-found", 404, "There is no such context";
    /// The context's upload is larger than the server takes.
    ContextTooLarge = "context-too-large", 413, "The context is too large";
    /// The context's bytes are not a tar.gz, or hold what a context may not hold.
    InvalidContext = "invalid-context", 400, "The context is not valid";
    /// The request's body is larger than the server takes.
    RequestTooLarge = "request-too-large", 413, "The request is too large";
    /// The object is in a state that does not allow this.
    Conflict = "conflict", 409, "The object's state does not allow this";
    /// The key was used before, with another request.
    IdempotencyConflict = "idempotency-conflict", 409, "The idempotency key belongs to another request";
    /// Too many requests, or too much of something.
    TooManyRequests = "too-many-requests", 429, "Too many requests";
    /// The server's disk is full.
    StorageFull = "storage-full", 507, "The server's storage is full";
    /// The server can't do it now, and may do it later.
    Unavailable = "unavailable", 503, "The server can't do this now";
    /// A fault in the server.
    Internal = "internal", 500, "The server failed";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ProblemCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().find(|code| code.as_str() == text).cloned();
        Ok(known.unwrap_or(Self::Other(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_round_trips_and_keeps_codes_of_newer_servers() {
        let problem = Problem::new(ProblemCode::StorageFull, "context `c-1` does not fit").with_hint("free some space");
        let json = serde_json::to_value(&problem).expect("json");
        assert_eq!(json["type"], "urn:cooper:problem:storage-full");
        assert_eq!(json["status"], 507);
        assert_eq!(serde_json::from_value::<Problem>(json.clone()).expect("problem"), problem);
        let mut newer = json;
        newer["code"] = "quota-exceeded".into();
        let newer: Problem = serde_json::from_value(newer).expect("problem");
        assert_eq!(newer.code, ProblemCode::Other("quota-exceeded".to_owned()));
    }

    #[test]
    fn codes_are_kebab_case_unique_errors() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ProblemCode::ALL {
            assert!(seen.insert(code.as_str()), "{code}");
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }
}
