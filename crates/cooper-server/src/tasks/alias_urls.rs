//! Alias sources behind URLs (contract §4.4): fetched by the one client for places that users name.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cooper_source::egress::{Egress, EgressError, EgressRequest};
use http::Method;
use url::Url;

/// How long one may take, from the request to the last byte.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest one, in bytes.
const MAX_BYTES: usize = 256 << 10;
/// How many a file may name.
const MAX_SOURCES: usize = 32;

/// Why an alias source was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AliasUrlError {
    #[error("alias source `{url}` is not a URL that can be fetched; write http(s)://HOST/PATH")]
    Url { url: String },
    #[error("alias source `{url}` can't be fetched")]
    Egress {
        url: String,
        #[source]
        source: EgressError,
    },
    #[error("alias source `{url}` was answered with {status}; the URL must be one that needs no sign-in")]
    Status { url: String, status: u16 },
    #[error("alias source `{url}` took longer than {} s; keep the file in the source instead", TIMEOUT.as_secs())]
    Slow { url: String },
    #[error("alias source `{url}` is larger than {MAX_BYTES} bytes, or no text in UTF-8")]
    Unusable { url: String },
    #[error("the task file names {count} alias sources by URL; at most {MAX_SOURCES} are fetched")]
    TooMany { count: usize },
}

/// What each URL holds.
pub(super) async fn fetch<'a>(
    egress: &Egress,
    urls: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, AliasUrlError> {
    let urls: Vec<&str> = urls.collect();
    if urls.len() > MAX_SOURCES {
        return Err(AliasUrlError::TooMany { count: urls.len() });
    }
    let mut all = BTreeMap::new();
    for url in urls {
        let text = tokio::time::timeout(TIMEOUT, one(egress, url)).await;
        all.insert(url.to_owned(), text.map_err(|_| AliasUrlError::Slow { url: url.to_owned() })??);
    }
    Ok(all)
}

async fn one(egress: &Egress, url: &str) -> Result<String, AliasUrlError> {
    let named = || url.to_owned();
    let parsed = Url::parse(url).map_err(|_| AliasUrlError::Url { url: named() })?;
    let request = EgressRequest {
        method: Method::GET,
        url: parsed,
        headers: Vec::new(),
        body: Bytes::new(),
        authorization: None,
        follow: true,
    };
    let failed = |source| AliasUrlError::Egress { url: named(), source };
    let mut answer = egress.send(request).await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(AliasUrlError::Status { url: named(), status: answer.status().as_u16() });
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(AliasUrlError::Unusable { url: named() });
        }
    }
    String::from_utf8(body).map_err(|_| AliasUrlError::Unusable { url: named() })
}
