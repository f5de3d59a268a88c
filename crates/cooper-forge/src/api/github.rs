//! GitHub's REST interface, that of GitHub Enterprise too, by octocrab over our own client.

use bytes::Bytes;
use cooper_engine::trigger::name::CommitId;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use octocrab::models::hooks::{Config, ContentType, Hook as GitHubHook};
use octocrab::models::webhook_events::WebhookEventType;
use octocrab::models::{HookId, StatusState as GitHubState};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use serde_json::json;
use tower::BoxError;

use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::Rest;
use super::{CommitStatus, Hook, NewHook, StatusState, cut};

/// How many are on a page.
const PAGE: u8 = 100;
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));

/// octocrab with our requests in place of its own: it has no token, no TLS, no retries and follows nothing.
fn client(rest: &Rest, operation: Operation) -> Octocrab {
    let rest = rest.clone();
    let service = tower::service_fn(move |request: Request<OctoBody>| {
        let rest = rest.clone();
        async move {
            let (mut head, body) = request.into_parts();
            head.headers.insert(VERSION.0, VERSION.1);
            let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let body: Bytes = body.collect().await?.to_bytes();
            let answer = rest.exchange(operation, &path, Request::from_parts(head, body)).await?;
            Ok::<Response<Full<Bytes>>, BoxError>(answer.map(Full::new))
        }
    });
    match OctocrabBuilder::new_empty().with_service(service).with_auth(AuthState::None).build() {
        Ok(client) => client,
        Err(never) => match never {},
    }
}

/// Our own error out of octocrab's, which has been carrying it; or what it could not understand.
fn error_of(rest: &Rest, operation: Operation, error: octocrab::Error) -> ForgeError {
    let error = match error {
        octocrab::Error::Service { source, .. } => match source.downcast::<ForgeError>() {
            Ok(own) => return *own,
            Err(other) => return rest.strange(operation, other),
        },
        other => other,
    };
    // Its own text ends in a backtrace.
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    rest.strange(operation, reason.unwrap_or_else(|| "octocrab can't read it".to_owned()))
}

fn repository(rest: &Rest) -> String {
    format!("/repos/{}/{}", encoded(rest.place().owner()), encoded(rest.place().repository()))
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    const OPERATION: Operation = Operation::SetStatus;
    let state = match status.state {
        StatusState::Pending => GitHubState::Pending,
        StatusState::Success => GitHubState::Success,
        StatusState::Failure => GitHubState::Failure,
        StatusState::Error => GitHubState::Error,
    };
    let client = client(rest, OPERATION);
    let repository = client.repos(rest.place().owner(), rest.place().repository());
    let sent = repository
        .create_status(commit.to_string(), state)
        .context(cut(&status.context, 255))
        .description(cut(&status.description, 140))
        .target(status.target_url.clone())
        .send()
        .await;
    sent.map(drop).map_err(|error| error_of(rest, OPERATION, error))
}

pub(super) async fn create_hook(rest: &Rest, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
    const OPERATION: Operation = Operation::ChangeHooks;
    let mut events = Vec::new();
    if hook.commits || hook.tags {
        events.push(WebhookEventType::Push);
    }
    if hook.pull_requests {
        events.push(WebhookEventType::PullRequest);
    }
    let config = Config {
        url: hook.url.clone(),
        content_type: Some(ContentType::Json),
        insecure_ssl: Some("0".to_owned()),
        secret: Some(String::from_utf8_lossy(hook.secret.expose()).into_owned()),
    };
    let new = GitHubHook { name: "web".to_owned(), active: true, events, config, ..GitHubHook::default() };
    let client = client(rest, OPERATION);
    let repository = client.repos(rest.place().owner(), rest.place().repository());
    let made = repository.hooks().create(new).await.map_err(|error| error_of(rest, OPERATION, error))?;
    Ok(vec![made.id.to_string()])
}

/// Sent by ourselves: octocrab makes and removes hooks, and changes none.
pub(super) async fn update_hook(rest: &Rest, id: &str, hook: &NewHook) -> Result<(), ForgeError> {
    let mut events = Vec::new();
    if hook.commits || hook.tags {
        events.push("push");
    }
    if hook.pull_requests {
        events.push("pull_request");
    }
    let secret = String::from_utf8_lossy(hook.secret.expose());
    let config = json!({ "url": hook.url, "content_type": "json", "insecure_ssl": "0", "secret": secret });
    let body = json!({ "active": true, "events": events, "config": config });
    let path = format!("{}/hooks/{}", repository(rest), encoded(id));
    rest.ask(Operation::ChangeHooks, Method::PATCH, &path, Some(body)).await.map(drop)
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    const OPERATION: Operation = Operation::ChangeHooks;
    let client = client(rest, OPERATION);
    let repository = client.repos(rest.place().owner(), rest.place().repository());
    let deleted = repository.hooks().delete(hook_id(rest, OPERATION, id)?).await;
    deleted.map_err(|error| error_of(rest, OPERATION, error))
}

fn hook_id(rest: &Rest, operation: Operation, id: &str) -> Result<HookId, ForgeError> {
    id.parse::<u64>().map(HookId).map_err(|_| rest.strange(operation, "a hook's id is a number"))
}

/// Read by ourselves: octocrab's model takes no number where GitHub writes one (`insecure_ssl`).
pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let path = format!("{}/hooks?per_page={PAGE}", repository(rest));
    let list = rest.pages(Operation::ReadHooks, &path, PAGE.into()).await?;
    list.iter().map(|hook| rest.hook(hook, "/id", &["/config/url"], hook["active"].as_bool().unwrap_or(true))).collect()
}
