//! What is asked of each forge, over real HTTP and the real guarded client, and what its answers become.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "api/errors.rs"]
mod errors;
#[path = "api/forge.rs"]
mod forge;
#[path = "api/pulls.rs"]
mod pulls;

use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_forge::api::{CommitStatus, NewHook, StatusState};
use cooper_types::SecretBytes;
use forge::{FakeForge, Said};
use serde_json::{Value, json};

const SHA: &str = "2222222222222222222222222222222222222222";

/// Each forge's repository below a server's address.
const PLACES: [(Provider, &str); 6] = [
    (Provider::GitHub, "acme/shop.git"),
    (Provider::GitLab, "team/sub/app.git"),
    (Provider::Gitea, "team/app.git"),
    (Provider::BitbucketCloud, "acme/shop"),
    (Provider::BitbucketServer, "scm/SHOP/app.git"),
    (Provider::AzureDevops, "acme/My%20Shop/_git/app"),
];

fn status(state: StatusState) -> CommitStatus {
    CommitStatus {
        state,
        description: "x".repeat(400),
        context: "cooperage/build".to_owned(),
        target_url: "https://cooper.example/runs/ca1".to_owned(),
    }
}

#[tokio::test]
async fn a_status_is_set_as_each_forge_wants_it() {
    for (provider, place) in PLACES {
        let (path, authorization, states, reply) = match provider {
            Provider::GitHub => (
                format!("/api/v3/repos/acme/shop/statuses/{SHA}"),
                "Bearer t0ken",
                ["pending", "success", "failure", "error"],
                json!({"id": 1, "state": "success", "context": "cooperage/build", "description": null}),
            ),
            Provider::GitLab => (
                format!("/api/v4/projects/team%2Fsub%2Fapp/statuses/{SHA}"),
                "Bearer t0ken",
                ["pending", "success", "failed", "canceled"],
                json!({"id": 1, "sha": SHA, "status": "success"}),
            ),
            Provider::Gitea => (
                format!("/api/v1/repos/team/app/statuses/{SHA}"),
                "token t0ken",
                ["pending", "success", "failure", "error"],
                json!({"id": 1, "status": "success"}),
            ),
            Provider::BitbucketCloud => (
                format!("/2.0/repositories/acme/shop/commit/{SHA}/statuses/build"),
                "Bearer t0ken",
                ["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"],
                json!({"key": "cooperage/build", "state": "SUCCESSFUL"}),
            ),
            Provider::BitbucketServer => (
                format!("/rest/api/1.0/projects/SHOP/repos/app/commits/{SHA}/builds"),
                "Bearer t0ken",
                ["INPROGRESS", "SUCCESSFUL", "FAILED", "UNKNOWN"],
                Value::Null,
            ),
            _ => (
                format!("/acme/My%20Shop/_apis/git/repositories/app/commits/{SHA}/statuses?api-version=7.1"),
                // `:t0ken`.
                "Basic OnQwa2Vu",
                ["pending", "succeeded", "failed", "error"],
                json!({"id": 1, "state": "succeeded"}),
            ),
        };
        let answer = if reply.is_null() { Said::empty(204) } else { Said::json(201, &reply) };
        let server = FakeForge::start(move |_| answer.clone()).await;
        let api = server.api(provider, place);
        let commit = CommitId::parse(SHA).unwrap();
        let all = [StatusState::Pending, StatusState::Success, StatusState::Failure, StatusState::Error];
        for (state, expect) in all.into_iter().zip(states) {
            api.set_status(&commit, &status(state)).await.unwrap_or_else(|error| panic!("{provider}: {error}"));
            let asked = server.last();
            assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", path.as_str()), "{provider}");
            assert_eq!(asked.header("authorization"), authorization, "{provider}");
            assert_eq!(asked.header("content-type"), "application/json", "{provider}");
            assert!(asked.header("user-agent").starts_with("cooper/"), "{provider}");
            let body = asked.json();
            assert_eq!(body["state"], expect, "{provider}");
            let link = ["target_url", "url", "targetUrl"].into_iter().find_map(|name| body[name].as_str()).unwrap();
            assert_eq!(link, "https://cooper.example/runs/ca1", "{provider}");
            let description = body["description"].as_str().unwrap();
            let limit = if provider == Provider::GitHub { 140 } else { 255 };
            assert_eq!(description.chars().count(), limit, "{provider}");
            let context = match provider {
                Provider::GitLab => body["name"].clone(),
                Provider::BitbucketCloud | Provider::BitbucketServer => body["key"].clone(),
                Provider::AzureDevops => json!(format!(
                    "{}/{}",
                    body["context"]["genre"].as_str().unwrap(),
                    body["context"]["name"].as_str().unwrap()
                )),
                _ => body["context"].clone(),
            };
            assert_eq!(context, "cooperage/build", "{provider}");
        }
    }
}

#[tokio::test]
async fn gitlab_minds_no_status_that_is_there_already() {
    let said = json!({"message": "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"});
    let server = FakeForge::start(move |_| Said::json(400, &said)).await;
    let api = server.api(Provider::GitLab, "team/app.git");
    api.set_status(&CommitId::parse(SHA).unwrap(), &status(StatusState::Pending)).await.unwrap();
}

#[tokio::test]
async fn hooks_are_registered_listed_and_removed() {
    let url = "https://cooper.example/hooks/abc";
    let hook = NewHook {
        url: url.to_owned(),
        secret: SecretBytes::new(b"s3cret".to_vec()),
        commits: true,
        tags: true,
        pull_requests: true,
    };
    for (provider, place) in PLACES {
        let server = FakeForge::start(move |asked| {
            let listed = match provider {
                // GitHub writes `insecure_ssl` as text or as number.
                Provider::GitHub => json!([{"type": "Repository", "id": 7, "name": "web", "active": true, "events": ["push"],
                    "config": {"url": url, "content_type": "json", "insecure_ssl": 0}}]),
                Provider::GitLab => json!([{"id": 7, "url": url, "alert_status": "executable"}]),
                Provider::Gitea => match asked.path.ends_with("page=1") {
                    true => json!([{"id": 7, "type": "gitea", "config": {"url": url, "content_type": "json"}, "active": true}]),
                    false => json!([]),
                },
                Provider::BitbucketCloud => json!({"values": [{"uuid": "{7}", "url": url, "active": true}], "page": 1}),
                Provider::BitbucketServer => json!({"values": [{"id": 7, "url": url, "active": true}], "isLastPage": true}),
                _ => json!({"count": 2, "value": [
                    {"id": "7", "status": "enabled", "publisherInputs": {"repository": "r-1"}, "consumerInputs": {"url": url}},
                    {"id": "8", "status": "enabled", "publisherInputs": {"repository": "r-2"}, "consumerInputs": {"url": url}}]}),
            };
            match asked.method.as_str() {
                "DELETE" => Said::empty(204),
                "GET" if asked.path.contains("/repositories/app?") => {
                    Said::json(200, &json!({"id": "r-1", "name": "app", "project": {"id": "p-1", "name": "My Shop"}}))
                }
                "GET" => Said::json(200, &listed),
                _ => match provider {
                    Provider::GitHub => Said::json(201, &listed[0].clone().tap(|hook| hook["config"]["insecure_ssl"] = json!("0"))),
                    Provider::GitLab | Provider::Gitea => Said::json(201, &listed.get(0).cloned().unwrap_or(json!({"id": 7}))),
                    Provider::BitbucketCloud | Provider::BitbucketServer => Said::json(201, &listed["values"][0]),
                    _ => Said::json(200, &listed["value"][0]),
                },
            }
        })
        .await;
        let api = server.api(provider, place);
        let ids = api.create_hook(&hook).await.unwrap_or_else(|error| panic!("{provider}: {error}"));
        let asked = server.last().json();
        let text = asked.to_string();
        assert!(text.contains(url) && text.contains("s3cret"), "{provider}: {text}");
        let (count, id) = match provider {
            Provider::AzureDevops => (3, "7"),
            Provider::BitbucketCloud => (1, "{7}"),
            _ => (1, "7"),
        };
        assert_eq!(ids, vec![id; count], "{provider}");
        match provider {
            Provider::GitHub => {
                assert_eq!(asked["events"], json!(["push", "pull_request"]));
                assert_eq!(asked["config"]["content_type"], "json");
                assert_eq!(asked["config"]["insecure_ssl"], "0");
                assert_eq!(asked["name"], "web");
                assert_eq!(server.last().header("x-github-api-version"), "2022-11-28");
            }
            Provider::GitLab => assert_eq!(
                [&asked["push_events"], &asked["tag_push_events"], &asked["merge_requests_events"]],
                [&json!(true); 3]
            ),
            Provider::Gitea => assert_eq!(asked["events"], json!(["push", "pull_request", "pull_request_sync"])),
            Provider::BitbucketCloud => {
                assert_eq!(asked["events"], json!(["repo:push", "pullrequest:created", "pullrequest:updated"]));
            }
            Provider::BitbucketServer => {
                assert_eq!(
                    asked["events"],
                    json!(["repo:refs_changed", "pr:opened", "pr:from_ref_updated", "pr:modified"])
                );
            }
            _ => {
                assert_eq!(asked["publisherInputs"], json!({"projectId": "p-1", "repository": "r-1"}));
                assert_eq!(asked["consumerInputs"]["basicAuthPassword"], "s3cret");
            }
        }
        let found = api.hooks().await.unwrap_or_else(|error| panic!("{provider}: {error}"));
        let found: Vec<_> = found.iter().map(|hook| (hook.id.as_str(), hook.url.as_str(), hook.active)).collect();
        assert_eq!(found, [(id, url, true)], "{provider}");
        // The one that is there is changed where that can be done; else it goes once the new one is there.
        api.replace_hook(&hook, |url| url.ends_with("/abc"))
            .await
            .unwrap_or_else(|error| panic!("{provider}: {error}"));
        let expect = if provider == Provider::GitHub { "PATCH" } else { "DELETE" };
        assert_eq!(server.last().method, expect, "{provider}");
        api.delete_hook(id).await.unwrap_or_else(|error| panic!("{provider}: {error}"));
        let asked = server.last();
        let name = if provider == Provider::BitbucketCloud { "%7B7%7D" } else { "7" };
        assert_eq!(asked.method, "DELETE");
        assert!(asked.path.split('?').next().unwrap().ends_with(&format!("/{name}")), "{provider}: {}", asked.path);
    }
}

/// Changes a value in passing.
trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for Value {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[tokio::test]
async fn a_hook_that_is_gone_is_removed() {
    let server = FakeForge::start(|_| Said::json(404, &json!({"message": "Not Found"}))).await;
    for (provider, place) in PLACES {
        server.api(provider, place).delete_hook("7").await.unwrap_or_else(|error| panic!("{provider}: {error}"));
    }
}
