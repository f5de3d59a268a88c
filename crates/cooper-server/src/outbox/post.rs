//! One request to an endpoint: signed, bounded in time, and told of in a line.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderName, HeaderValue, Method};
use bytes::Bytes;
use cooper_engine::delivery::Answer;
use cooper_ports::outbox::{Claimed, Target, Tried};
use cooper_source::egress::{EgressError, EgressRequest, EgressResponse};
use cooper_types::{TaskName, Timestamp};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use url::Url;

use super::endpoint::Endpoint;
use crate::core::Core;
use crate::problem::chain;

/// How long everything may take. A receiver that has more to do answers first and works then.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long what an answer says is waited for, once its status has said it all.
const EXCERPT_DEADLINE: Duration = Duration::from_secs(1);
/// How much of an answer is kept.
const EXCERPT: usize = 1024;
/// The shortest value that is worth hiding in an answer.
const SHORTEST_HIDDEN: usize = 6;

/// Posts what was claimed, and tells what came of it.
pub(super) async fn post(core: &Core, claimed: Claimed) -> Tried {
    let (seq, number, spread) = (claimed.seq, claimed.number, rand::random::<f64>());
    let ended = |answer, status, said| Tried { seq, number, answer, spread, status, said };
    let not_now = Answer::NotNow { pause: None };
    let endpoint = match endpoint(core, &claimed).await {
        Ok(Some(endpoint)) => endpoint,
        Ok(None) => return ended(Answer::Gone, None, "the task has no such endpoint any more".to_owned()),
        Err(why) => return ended(not_now, None, why),
    };
    // Whoever may run something names these; what sources may be fetched from is no place for them to post to.
    let egress = match &claimed.target {
        Target::Webhook(_) => &core.webhook_egress,
        Target::UpdateTrigger(_) => &core.endpoint_egress,
    };
    let request = match request(&endpoint, &claimed, core.wall_clock.now()) {
        Some(request) => request,
        None => {
            return ended(not_now, None, "the address or a header is not valid any more; set them again".to_owned());
        }
    };
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut answer = match tokio::time::timeout_at(deadline, egress.send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let said = match &claimed.target {
                // Administrators make them.
                Target::Webhook(_) => chain(&error),
                Target::UpdateTrigger(task) => {
                    tracing::info!(task, error = chain(&error), "endpoint of a task can't be reached");
                    error.told()
                }
            };
            return ended(not_now, None, said);
        }
        Err(_) => {
            let said = format!("`{}` did not answer within {} s", endpoint.host(), DEADLINE.as_secs());
            return ended(not_now, None, said);
        }
    };
    let status = answer.status().as_u16();
    let pause = answer.header(RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    // The status has said it: an answer that does not end changes nothing.
    let mut excerpt = Vec::new();
    let _ = tokio::time::timeout(EXCERPT_DEADLINE, read(&mut answer, &mut excerpt)).await;
    ended(Answer::of_status(status, pause), Some(status), hidden(&excerpt, &endpoint))
}

/// Where it goes to now: what was corrected in the meantime counts. Nothing where a task has none any more.
async fn endpoint(core: &Core, claimed: &Claimed) -> Result<Option<Endpoint>, String> {
    match (&claimed.target, &claimed.sealed) {
        (Target::UpdateTrigger(task), _) => {
            let name = TaskName::parse(task).map_err(|error| error.to_string())?;
            let found = core.tasks.task(&name).await.map_err(|error| chain(&error))?;
            match found {
                Some(task) => Endpoint::of_task(&core.key, &task).map_err(|error| chain(&error)),
                None => Ok(None),
            }
        }
        (target, Some(sealed)) => Endpoint::unseal(&core.key, target, sealed).map(Some).map_err(|error| chain(&error)),
        (Target::Webhook(_), None) => Ok(None),
    }
}

async fn read(answer: &mut EgressResponse, excerpt: &mut Vec<u8>) -> Result<(), EgressError> {
    while excerpt.len() < EXCERPT
        && let Some(chunk) = answer.chunk().await?
    {
        excerpt.extend_from_slice(&chunk[..chunk.len().min(EXCERPT - excerpt.len())]);
    }
    Ok(())
}

/// The excerpt as text, without what the server itself has sent in secret: some endpoints answer with what they were asked.
fn hidden(excerpt: &[u8], endpoint: &Endpoint) -> String {
    let mut text = String::from_utf8_lossy(excerpt).into_owned();
    for value in endpoint.headers.values().filter(|value| value.len() >= SHORTEST_HIDDEN) {
        text = text.replace(value.as_str(), "***");
    }
    text
}

/// The request; nothing where the endpoint is none.
fn request(endpoint: &Endpoint, claimed: &Claimed, now: Timestamp) -> Option<EgressRequest> {
    let url = Url::parse(&endpoint.uri).ok()?;
    let seconds = now.as_micros().div_euclid(1_000_000).to_string();
    let signature = format!("v1={}", sign(&endpoint.secret, &seconds, &claimed.body));
    let own = |name: &'static str, text: &str| Some((HeaderName::from_static(name), HeaderValue::from_str(text).ok()?));
    let mut headers = vec![
        own("cooper-event", claimed.action.as_str())?,
        own("cooper-delivery", claimed.event.as_str())?,
        own("cooper-attempt", &claimed.number.to_string())?,
        own("cooper-timestamp", &seconds)?,
        own("cooper-signature", &signature)?,
    ];
    let mut authorization = None;
    let mut given = Vec::with_capacity(endpoint.headers.len());
    for (name, value) in &endpoint.headers {
        let (name, value) = (HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        match name == AUTHORIZATION {
            true => authorization = Some(value),
            false => given.push((name, value)),
        }
    }
    for (name, value) in [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (USER_AGENT, HeaderValue::from_static(concat!("cooper/", env!("CARGO_PKG_VERSION")))),
    ] {
        if !given.iter().any(|(one, _)| *one == name) {
            headers.push((name, value));
        }
    }
    headers.append(&mut given);
    let body = Bytes::from(claimed.body.clone());
    Some(EgressRequest { method: Method::POST, url, headers, body, authorization, follow: false })
}

/// HMAC-SHA256 of the time's digits, a dot, and the body, in hexadecimal.
fn sign(secret: &str, seconds: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(seconds.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digits come from `printf '1767225600.{"action":"ping"}' | openssl dgst -sha256 -hmac it-is-no-secret-here`.
    #[test]
    fn a_signature_is_what_openssl_makes() {
        let signature = sign("it-is-no-secret-here", "1767225600", r#"{"action":"ping"}"#);
        assert_eq!(signature, "e76b35bd54e0711d98fd133f3c81e59f5626aa98a554fb352e5100e9637237ec");
    }

    #[test]
    fn an_answer_shows_nothing_of_the_headers() {
        let headers =
            [("Authorization".to_owned(), "Bearer hunter22".to_owned()), ("X-A".to_owned(), "1".to_owned())].into();
        let endpoint = Endpoint { uri: String::new(), headers, secret: String::new() };
        assert_eq!(hidden(b"got Bearer hunter22 and 1\xff", &endpoint), "got *** and 1\u{fffd}");
    }
}
