//! Bitbucket Cloud's REST interface, version 2.

use cooper_engine::trigger::name::CommitId;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::{MAX_PAGES, Rest};
use super::{CommitStatus, Hook, NewHook, StatusState, cut};

/// The longest key of a status.
const KEY: usize = 40;

fn repository(rest: &Rest) -> String {
    format!("/repositories/{}/{}", encoded(rest.place().owner()), encoded(rest.place().repository()))
}

/// What tells statuses apart: a long context becomes its digest, so that two that begin alike stay two.
pub(super) fn key(context: &str) -> String {
    if context.len() <= KEY {
        return context.to_owned();
    }
    let digits = format!("{:x}", Sha256::digest(context));
    digits[..KEY].to_owned()
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    let state = match status.state {
        StatusState::Pending => "INPROGRESS",
        StatusState::Success => "SUCCESSFUL",
        StatusState::Failure => "FAILED",
        StatusState::Error => "STOPPED",
    };
    let path = format!("{}/commit/{commit}/statuses/build", repository(rest));
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
        events.push("repo:push");
    }
    if hook.pull_requests {
        events.extend(["pullrequest:created", "pullrequest:updated"]);
    }
    let body = json!({
        "description": "Cooperage",
        "url": hook.url,
        "active": true,
        "secret": String::from_utf8_lossy(hook.secret.expose()),
        "events": events,
    });
    let path = format!("{}/hooks", repository(rest));
    let (made, _) = rest.ask(Operation::ChangeHooks, Method::POST, &path, Some(body)).await?;
    Ok(vec![rest.text(Operation::ChangeHooks, &made, "/uuid")?])
}

/// All values of a list, to the last page that is read.
async fn values(rest: &Rest, operation: Operation, path: &str) -> Result<Vec<Value>, ForgeError> {
    let mut all = Vec::new();
    for page in 1..=MAX_PAGES {
        let (value, _) = rest.ask(operation, Method::GET, &format!("{path}?pagelen=100&page={page}"), None).await?;
        let Some(items) = value["values"].as_array() else {
            return Err(rest.strange(operation, "there are no `values`"));
        };
        all.extend(items.iter().cloned());
        // The address of the next page is not followed: it could lead anywhere with the token.
        if value["next"].is_null() {
            return Ok(all);
        }
    }
    Ok(all)
}

pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let list = values(rest, Operation::ReadHooks, &format!("{}/hooks", repository(rest))).await?;
    list.iter().map(|hook| rest.hook(hook, "/uuid", &["/url"], hook["active"].as_bool().unwrap_or(true))).collect()
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    let path = format!("{}/hooks/{}", repository(rest), encoded(id));
    rest.ask(Operation::ChangeHooks, Method::DELETE, &path, None).await.map(drop)
}
