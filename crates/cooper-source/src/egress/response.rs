//! An answer: its head, and its body piece by piece.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Response, StatusCode, Url};

use super::{EgressError, host_of};

/// The answer to a request.
#[derive(Debug)]
pub struct EgressResponse {
    url: Url,
    authorized: bool,
    response: Response,
}

impl EgressResponse {
    pub(super) fn new(url: Url, authorized: bool, response: Response) -> Self {
        Self { url, authorized, response }
    }

    /// Where the answer comes from, after redirects.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The host that answered.
    pub fn host(&self) -> String {
        host_of(&self.url)
    }

    /// Whether the request that was answered carried credentials.
    pub fn was_authorized(&self) -> bool {
        self.authorized
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header's text; nothing if it is missing or no text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body; nothing at its end. Dropping the answer closes the connection.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        self.response.chunk().await.map_err(|error| EgressError::from_reqwest(&self.url, error))
    }
}
