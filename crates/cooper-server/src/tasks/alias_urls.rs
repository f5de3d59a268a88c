//! Alias sources behind URLs (contract §4.4): fetched by the one client for places that users name.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cooper_source::egress::{Egress, EgressError, EgressRequest};
use cooper_spec::task_request::shown_url;
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use url::Url;

/// How long one may take, from the request to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest one, in bytes.
const MAX_BYTES: usize = 256 << 10;
/// How many a file may name.
const MAX_SOURCES: usize = 32;
/// How many are fetched at a time: all of them within the time that a trigger has to ask for a run.
const AT_ONCE: usize = 16;

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

impl AliasUrlError {
    /// Whether the same may succeed later without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Slow { .. } => true,
            Self::Egress { source, .. } => source.is_transient(),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Url { .. } | Self::Unusable { .. } | Self::TooMany { .. } => false,
        }
    }
}

/// What each URL holds.
pub(super) async fn fetch<'a>(
    egress: &Egress,
    urls: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, AliasUrlError> {
    fetch_within(TIMEOUT, egress, urls).await
}

async fn fetch_within<'a>(
    timeout: Duration,
    egress: &Egress,
    urls: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, AliasUrlError> {
    let urls: Vec<&str> = urls.collect();
    if urls.len() > MAX_SOURCES {
        return Err(AliasUrlError::TooMany { count: urls.len() });
    }
    let fetched = urls.into_iter().map(|url| -> BoxFuture<'_, Result<(String, String), AliasUrlError>> {
        Box::pin(async move {
            let text = tokio::time::timeout(timeout, one(egress, url)).await;
            Ok((url.to_owned(), text.map_err(|_| AliasUrlError::Slow { url: shown(url) })??))
        })
    });
    // In the file's order: of several that can't be had, the first is told.
    let fetched: Vec<_> = fetched.collect();
    futures::stream::iter(fetched).buffered(AT_ONCE).try_collect().await
}

/// A URL as it was written, without what may be a secret.
fn shown(url: &str) -> String {
    if url.contains(['?', '#', '@']) { shown_url(url) } else { url.to_owned() }
}

async fn one(egress: &Egress, url: &str) -> Result<String, AliasUrlError> {
    let named = || shown(url);
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

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use cooper_source::{Cidr, EgressOptions, EgressPolicy};

    use super::*;
    use crate::problem::chain;

    /// A server with sources, good and bad ones.
    async fn sources() -> String {
        let answer = async |request: axum::extract::Request| match request.uri().path() {
            "/good" => "a: b\n".into_response(),
            "/large" => "x".repeat(MAX_BYTES + 1).into_response(),
            "/binary" => vec![0xff_u8, 0xfe].into_response(),
            "/private" => (StatusCode::UNAUTHORIZED, "the body of an error is not told").into_response(),
            "/busy" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            "/never" => std::future::pending().await,
            _ => StatusCode::NOT_FOUND.into_response(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        format!("http://{address}")
    }

    /// Longer than a machine can be slow.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn sources_are_fetched_beside_each_other() {
        // Each is answered when all have been asked for.
        let all = std::sync::Arc::new(tokio::sync::Barrier::new(AT_ONCE));
        let answer = move |request: axum::extract::Request| {
            let all = all.clone();
            async move {
                all.wait().await;
                request.uri().path().to_owned()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.1/32").expect("a network")] };
        let egress = Egress::new(EgressOptions { policy, ..EgressOptions::default() });
        let urls: Vec<String> = (0..AT_ONCE).map(|number| format!("{base}/{number}")).collect();
        let found = fetch_within(LONG, &egress, urls.iter().map(String::as_str)).await.expect("fetched");
        let expected = urls.iter().enumerate().map(|(number, url)| (url.clone(), format!("/{number}")));
        assert_eq!(found, expected.collect());
    }

    #[tokio::test]
    async fn each_source_that_is_not_had_is_named_with_the_way_out() {
        let base = sources().await;
        let policy = EgressPolicy { allow: vec![Cidr::parse("127.0.0.1/32").expect("a network")] };
        let egress = Egress::new(EgressOptions { policy, ..EgressOptions::default() });
        let good = format!("{base}/good");
        let found = fetch_within(LONG, &egress, [good.as_str()].into_iter()).await.expect("fetched");
        assert_eq!(found, BTreeMap::from([(good.clone(), "a: b\n".to_owned())]));
        let closed = "http://127.0.0.1:1/a".to_owned();
        for (url, words) in [
            (format!("{base}/missing"), "was answered with 404; the URL must be one that needs no sign-in"),
            (format!("{base}/private"), "was answered with 401"),
            (format!("{base}/busy"), "was answered with 503"),
            (format!("{base}/large"), "is larger than 262144 bytes, or no text in UTF-8"),
            (format!("{base}/binary"), "or no text in UTF-8"),
            (format!("{base}/never"), "took longer than 5 s; keep the file in the source instead"),
            ("http://".to_owned(), "is not a URL that can be fetched; write http(s)://HOST/PATH"),
            (closed, "can't be fetched"),
        ] {
            let timeout = if url.ends_with("/never") { TIMEOUT } else { LONG };
            let error = fetch_within(timeout, &egress, [url.as_str()].into_iter()).await.expect_err(&url);
            let passes = ["/busy", "/never", ":1/a"].iter().any(|end| url.ends_with(end));
            assert_eq!(error.may_pass(), passes, "{url}");
            let told = chain(&error);
            assert!(told.contains(&format!("alias source `{url}`")) && told.contains(words), "{told}");
            assert!(!told.contains("not told"), "{told}");
        }
        // A query may be a signature.
        let signed = format!("{base}/missing?sig=hunter2");
        let told = chain(&fetch_within(LONG, &egress, [signed.as_str()].into_iter()).await.expect_err("missing"));
        assert!(told.contains("/missing`") && !told.contains("hunter2"), "{told}");
        // A place that the operator has not listed is not asked at all.
        let told = chain(
            &fetch(&Egress::new(EgressOptions::default()), [good.as_str()].into_iter()).await.expect_err("closed"),
        );
        assert!(told.contains("can't be fetched") && told.contains("127.0.0.1"), "{told}");
        let many = vec!["http://h/a"; MAX_SOURCES + 1];
        let told = fetch(&egress, many.into_iter()).await.expect_err("too many").to_string();
        assert!(told.contains("names 33 alias sources by URL; at most 32 are fetched"), "{told}");
    }
}
