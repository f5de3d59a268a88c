//! GitLab's REST interface, version 4.

use cooper_engine::trigger::name::CommitId;
use http::Method;
use serde_json::json;

use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::Rest;
use super::{CommitStatus, Hook, NewHook, StatusState, cut};

/// How many are on a page.
const PAGE: usize = 100;

fn project(rest: &Rest) -> String {
    format!("/projects/{}", encoded(&rest.place().name()))
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    let state = match status.state {
        StatusState::Pending => "pending",
        StatusState::Success => "success",
        StatusState::Failure => "failed",
        StatusState::Error => "canceled",
    };
    let path = format!("{}/statuses/{commit}", project(rest));
    let body = json!({
        "state": state,
        "name": cut(&status.context, 255),
        "description": cut(&status.description, 255),
        "target_url": status.target_url,
    });
    match rest.ask(Operation::SetStatus, Method::POST, &path, Some(body)).await {
        // Its states are a machine's: to be what it is already is an error there.
        Err(ForgeError::Refused { said, .. }) if said.contains("Cannot transition status") => Ok(()),
        other => other.map(drop),
    }
}

pub(super) async fn create_hook(rest: &Rest, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
    let body = json!({
        "url": hook.url,
        "token": String::from_utf8_lossy(hook.secret.expose()),
        "push_events": hook.commits,
        "tag_push_events": hook.tags,
        "merge_requests_events": hook.pull_requests,
        "enable_ssl_verification": true,
    });
    let path = format!("{}/hooks", project(rest));
    let (made, _) = rest.ask(Operation::ChangeHooks, Method::POST, &path, Some(body)).await?;
    Ok(vec![rest.text(Operation::ChangeHooks, &made, "/id")?])
}

pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let path = format!("{}/hooks?per_page={PAGE}", project(rest));
    let list = rest.pages(Operation::ReadHooks, &path, PAGE).await?;
    let active = |hook: &serde_json::Value| hook["alert_status"].as_str().is_none_or(|status| status == "executable");
    list.iter().map(|hook| rest.hook(hook, "/id", &["/url"], active(hook))).collect()
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    let path = format!("{}/hooks/{}", project(rest), encoded(id));
    rest.ask(Operation::ChangeHooks, Method::DELETE, &path, None).await.map(drop)
}
