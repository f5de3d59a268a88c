//! Azure DevOps' REST interface, version 7.1.

use cooper_engine::trigger::name::CommitId;
use http::Method;
use serde_json::{Value, json};

use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::Rest;
use super::{CommitStatus, Hook, NewHook, StatusState, cut};

pub(super) const VERSION: &str = "api-version=7.1";
/// The form of what hooks send: one that names a pull request's fork.
const RESOURCE_VERSION: &str = "1.0";
/// The events of a hook, each a subscription of its own.
const PUSH: &str = "git.push";
const PULL_REQUESTS: [&str; 2] = ["git.pullrequest.created", "git.pullrequest.updated"];

fn repository(rest: &Rest) -> String {
    format!("/{}/_apis/git/repositories/{}", encoded(rest.place().owner()), encoded(rest.place().repository()))
}

pub(super) async fn set_status(rest: &Rest, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
    let state = match status.state {
        StatusState::Pending => "pending",
        StatusState::Success => "succeeded",
        StatusState::Failure => "failed",
        StatusState::Error => "error",
    };
    let path = format!("{}/commits/{commit}/statuses?{VERSION}", repository(rest));
    // A context is a name within a genre.
    let (genre, name) = status.context.rsplit_once('/').unwrap_or(("cooperage", &status.context));
    let body = json!({
        "state": state,
        "description": cut(&status.description, 255),
        "targetUrl": status.target_url,
        "context": { "name": name, "genre": genre },
    });
    rest.ask(Operation::SetStatus, Method::POST, &path, Some(body)).await.map(drop)
}

/// The ids of the repository and its project, which subscriptions ask for.
async fn ids(rest: &Rest, operation: Operation) -> Result<(String, String), ForgeError> {
    let (value, _) = rest.ask(operation, Method::GET, &format!("{}?{VERSION}", repository(rest)), None).await?;
    Ok((rest.text(operation, &value, "/id")?, rest.text(operation, &value, "/project/id")?))
}

pub(super) async fn create_hook(rest: &Rest, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
    let (repository, project) = ids(rest, Operation::ChangeHooks).await?;
    let mut events = Vec::new();
    if hook.commits || hook.tags {
        events.push(PUSH);
    }
    if hook.pull_requests {
        events.extend(PULL_REQUESTS);
    }
    let mut made: Vec<String> = Vec::new();
    for event in events {
        let body = json!({
            "publisherId": "tfs",
            "eventType": event,
            "resourceVersion": RESOURCE_VERSION,
            "consumerId": "webHooks",
            "consumerActionId": "httpRequest",
            "publisherInputs": { "projectId": project, "repository": repository },
            "consumerInputs": {
                "url": hook.url,
                "basicAuthUsername": "cooper",
                "basicAuthPassword": String::from_utf8_lossy(hook.secret.expose()),
            },
        });
        let path = format!("/_apis/hooks/subscriptions?{VERSION}");
        let answer = rest.ask(Operation::ChangeHooks, Method::POST, &path, Some(body)).await;
        match answer.and_then(|(value, _)| rest.text(Operation::ChangeHooks, &value, "/id")) {
            Ok(id) => made.push(id),
            Err(error) => {
                // Half a hook would be found by nobody: the first error is what counts.
                for id in &made {
                    drop(delete_hook(rest, id).await);
                }
                return Err(error);
            }
        }
    }
    Ok(made)
}

pub(super) async fn hooks(rest: &Rest) -> Result<Vec<Hook>, ForgeError> {
    let (repository, _) = ids(rest, Operation::ReadHooks).await?;
    let path = format!("/_apis/hooks/subscriptions?consumerId=webHooks&{VERSION}");
    let (value, _) = rest.ask(Operation::ReadHooks, Method::GET, &path, None).await?;
    let list = value["value"].as_array().ok_or_else(|| rest.strange(Operation::ReadHooks, "there is no `value`"))?;
    list.iter()
        .filter(|hook| hook["publisherInputs"]["repository"] == Value::String(repository.clone()))
        .map(|hook| rest.hook(hook, "/id", &["/consumerInputs/url"], hook["status"] == "enabled"))
        .collect()
}

pub(super) async fn delete_hook(rest: &Rest, id: &str) -> Result<(), ForgeError> {
    let path = format!("/_apis/hooks/subscriptions/{}?{VERSION}", encoded(id));
    rest.ask(Operation::ChangeHooks, Method::DELETE, &path, None).await.map(drop)
}
