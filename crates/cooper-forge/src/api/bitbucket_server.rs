//! The REST interface of Bitbucket Server and Data Center, version 1.0.

use cooper_engine::trigger::name::CommitId;
use http::Method;
use serde_json::{Value, json};

use super::bitbucket_cloud::key;
use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::{MAX_PAGES, Rest};
use super::{CommitStatus, Hook, NewHook, StatusState, cut};

fn repository(rest: &Rest) -> String {
    let (project, slug) = (encoded(rest.place().owner()), encoded(rest.place().repository()));
    format!("/rest/api/1.0/projects/{project}/repos/{slug}")
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    let state = match status.state {
        StatusState::Pending => "INPROGRESS",
        StatusState::Success => "SUCCESSFUL",
        StatusState::Failure => "FAILED",
        StatusState::Error => "UNKNOWN",
    };
    let path = format!("{}/commits/{commit}/builds", repository(rest));
    let body = json!({
        "key": key(&status.context),
        "name": cut(&status.context, 255),
        "state": state,
        "description": cut(&status.description, 255),
        "url": status.target_url,
    });
    rest.ask(Operation::SetStatus, Method::POST, &path, Some(body)).await.map(drop)
}

pub(super) async fn create_hook(rest: &Rest, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
    let mut events = Vec::new();
    if hook.commits || hook.tags {
        events.push("repo:refs_changed");
    }
    if hook.pull_requests {
        events.extend(["pr:opened", "pr:from_ref_updated", "pr:modified"]);
    }
    let body = json!({
        "name": "Cooperage",
        "url": hook.url,
        "active": true,
        "events": events,
        "configuration": { "secret": String::from_utf8_lossy(hook.secret.expose()) },
    });
    let path = format!("{}/webhooks", repository(rest));
    let (made, _) = rest.ask(Operation::ChangeHooks, Method::POST, &path, Some(body)).await?;
    Ok(vec![rest.text(Operation::ChangeHooks, &made, "/id")?])
}

/// All values of a list, to the last page that is read.
async fn values(rest: &Rest, operation: Operation, path: &str) -> Result<Vec<Value>, ForgeError> {
    let mut all = Vec::new();
    let mut start = 0;
    for _ in 0..MAX_PAGES {
        let (value, _) = rest.ask(operation, Method::GET, &format!("{path}?limit=100&start={start}"), None).await?;
        let Some(items) = value["values"].as_array() else {
            return Err(rest.strange(operation, "there are no `values`"));
        };
        all.extend(items.iter().cloned());
        match value["nextPageStart"].as_u64() {
            Some(next) if value["isLastPage"] != true && next > start => start = next,
            _ => return Ok(all),
        }
    }
    Ok(all)
}

pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let list = values(rest, Operation::ReadHooks, &format!("{}/webhooks", repository(rest))).await?;
    list.iter().map(|hook| rest.hook(hook, "/id", &["/url"], hook["active"].as_bool().unwrap_or(true))).collect()
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    let path = format!("{}/webhooks/{}", repository(rest), encoded(id));
    rest.ask(Operation::ChangeHooks, Method::DELETE, &path, None).await.map(drop)
}
