//! Open pull requests. What forges list is, but for GitLab, what their hooks send: so it is read as if they had sent it.

use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use super::azure;
use super::error::{ForgeError, Operation};
use super::place::encoded;
use super::rest::Rest;

const OPERATION: Operation = Operation::ReadPullRequests;
/// How many are asked for on a page: their texts may be long, and a page has a limit.
const PAGE: usize = 20;
/// The most pages.
const PAGES: usize = 50;

/// All that are open; nothing if they are more than are read.
pub(super) async fn open(rest: &Rest) -> Result<Option<Vec<SourceEvent>>, ForgeError> {
    let mut found = Vec::new();
    let mut start = 0;
    for page in 1..=PAGES {
        let (value, _) = rest.ask(OPERATION, Method::GET, &path(rest, page, start)?, None).await?;
        let (items, next) = items(rest, value)?;
        // One that can't be read keeps nobody from the others: no hook could tell of it either.
        found.extend(items.into_iter().filter_map(|item| read(rest, item)));
        match next {
            Some(next) => start = next.unwrap_or(page * PAGE),
            None => return Ok(Some(found)),
        }
    }
    Ok(None)
}

fn path(rest: &Rest, page: usize, start: usize) -> Result<String, ForgeError> {
    let (owner, name) = (encoded(rest.place().owner()), encoded(rest.place().repository()));
    Ok(match rest.provider() {
        Provider::GitHub => {
            format!("/repos/{owner}/{name}/pulls?state=open&sort=created&direction=asc&per_page={PAGE}&page={page}")
        }
        Provider::Gitea => format!("/repos/{owner}/{name}/pulls?state=open&sort=oldest&limit={PAGE}&page={page}"),
        Provider::GitLab => {
            let project = encoded(&rest.place().name());
            format!(
                "/projects/{project}/merge_requests?state=opened&order_by=created_at&sort=asc&per_page={PAGE}&page={page}"
            )
        }
        Provider::BitbucketCloud => {
            format!("/repositories/{owner}/{name}/pullrequests?state=OPEN&pagelen={PAGE}&page={page}")
        }
        Provider::BitbucketServer => {
            format!(
                "/rest/api/1.0/projects/{owner}/repos/{name}/pull-requests?state=OPEN&order=OLDEST&limit={PAGE}&start={start}"
            )
        }
        Provider::AzureDevops => format!(
            "/{owner}/_apis/git/repositories/{name}/pullrequests?searchCriteria.status=active&$top={PAGE}&$skip={start}&{}",
            azure::VERSION
        ),
        Provider::Generic => return Err(rest.unsupported("list of pull requests")),
    })
}

/// What is on a page; and if there is another, where it begins, if that is said.
fn items(rest: &Rest, mut value: Value) -> Result<(Vec<Value>, Option<Option<usize>>), ForgeError> {
    let list = match rest.provider() {
        Provider::BitbucketCloud | Provider::BitbucketServer => value["values"].take(),
        Provider::AzureDevops => value["value"].take(),
        _ => value.take(),
    };
    let Value::Array(items) = list else { return Err(rest.strange(OPERATION, "it is no list")) };
    let more = match rest.provider() {
        // The address of the next page is not followed: it could lead anywhere with the token.
        Provider::BitbucketCloud => (!value["next"].is_null()).then_some(None),
        Provider::BitbucketServer if value["isLastPage"] == true => None,
        Provider::BitbucketServer => {
            value["nextPageStart"].as_u64().map(|next| Some(usize::try_from(next).unwrap_or(usize::MAX)))
        }
        // An operator may have set less for a page: so an empty one is the end, not a short one.
        Provider::Gitea => (!items.is_empty()).then_some(None),
        _ => (items.len() >= PAGE).then_some(None),
    };
    Ok((items, more))
}

/// A pull request as a hook would tell of it.
fn read(rest: &Rest, mut item: Value) -> Option<SourceEvent> {
    let provider = rest.provider();
    let (header, body) = match provider {
        Provider::GitHub => {
            let repository = item["base"]["repo"].clone();
            let body = json!({"action": "synchronize", "pull_request": item, "repository": repository});
            (Some(("x-github-event", "pull_request")), body)
        }
        Provider::Gitea => {
            let repository = item["base"]["repo"].clone();
            let body = json!({"action": "synchronized", "pull_request": item, "repository": repository});
            (Some(("x-gitea-event", "pull_request")), body)
        }
        Provider::GitLab => {
            let place = rest.place();
            let project = json!({"path_with_namespace": place.name(), "git_http_url": place.repository_url()});
            // Whose a fork is is not said; only that it is another project.
            let is_own = item["source_project_id"].is_u64() && item["source_project_id"] == item["target_project_id"];
            let source = if is_own { project.clone() } else { Value::Null };
            let sha = item["sha"].take();
            let merge = item.as_object_mut()?;
            merge.insert("source".to_owned(), source);
            merge.insert("last_commit".to_owned(), json!({"id": sha}));
            merge.insert("action".to_owned(), json!("update"));
            merge.insert("oldrev".to_owned(), json!("0"));
            let body = json!({"object_kind": "merge_request", "project": project, "object_attributes": item});
            (Some(("x-gitlab-event", "Merge Request Hook")), body)
        }
        Provider::BitbucketCloud => {
            let repository = item["destination"]["repository"].clone();
            (Some(("x-event-key", "pullrequest:updated")), json!({"pullrequest": item, "repository": repository}))
        }
        Provider::BitbucketServer => (Some(("x-event-key", "pr:from_ref_updated")), json!({"pullRequest": item})),
        Provider::AzureDevops => {
            if item["repository"]["remoteUrl"].is_null() {
                let repository = item["repository"].as_object_mut()?;
                repository.insert("remoteUrl".to_owned(), json!(rest.place().repository_url()));
            }
            (None, json!({"eventType": "git.pullrequest.updated", "id": "listed", "resource": item}))
        }
        Provider::Generic => return None,
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = header {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let delivery = crate::parse(provider, &headers, body.to_string().as_bytes()).ok()?;
    delivery.events.into_iter().next()
}
