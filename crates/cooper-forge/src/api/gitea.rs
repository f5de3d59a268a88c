//! The REST interface of Gitea and Forgejo, version 1.

use cooper_engine::trigger::name::CommitId;
use http::Method;
use serde_json::json;

use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::Rest;
use super::{CommitStatus, Hook, NewHook, cut};

/// How many are asked for on a page. An operator may have set less: so an empty page is the end, not a short one.
const PAGE: usize = 50;

fn repository(rest: &Rest) -> String {
    format!("/repos/{}/{}", encoded(rest.place().owner()), encoded(rest.place().repository()))
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    let path = format!("{}/statuses/{commit}", repository(rest));
    let body = json!({
        "state": status.state.as_str(),
        "context": cut(&status.context, 255),
        "description": cut(&status.description, 255),
        "target_url": status.target_url,
    });
    rest.ask(Operation::SetStatus, Method::POST, &path, Some(body)).await.map(drop)
}

pub(super) async fn create_hook(rest: &Rest, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
    let mut events = Vec::new();
    if hook.commits || hook.tags {
        events.push("push");
    }
    if hook.pull_requests {
        events.extend(["pull_request", "pull_request_sync"]);
    }
    let secret = String::from_utf8_lossy(hook.secret.expose());
    let body = json!({
        // Forgejo takes its older name too.
        "type": "gitea",
        "active": true,
        "events": events,
        "config": { "url": hook.url, "content_type": "json", "http_method": "post", "secret": secret },
    });
    let path = format!("{}/hooks", repository(rest));
    let (made, _) = rest.ask(Operation::ChangeHooks, Method::POST, &path, Some(body)).await?;
    Ok(vec![rest.text(Operation::ChangeHooks, &made, "/id")?])
}

pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let path = format!("{}/hooks?limit={PAGE}", repository(rest));
    let list = rest.pages(Operation::ReadHooks, &path, 1).await?;
    list.iter()
        .map(|hook| rest.hook(hook, "/id", &["/config/url", "/url"], hook["active"].as_bool().unwrap_or(true)))
        .collect()
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    let path = format!("{}/hooks/{}", repository(rest), encoded(id));
    rest.ask(Operation::ChangeHooks, Method::DELETE, &path, None).await.map(drop)
}
