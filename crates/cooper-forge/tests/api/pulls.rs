//! Open pull requests as each forge lists them: what its hook sends of one is what its list has of it.

use cooper_engine::trigger::event::{HeadOwner, PullRequest, PullRequestAction, SourceChange};

use super::*;

/// What hooks send of an own pull request and of a fork's, and where in it is what a list has.
fn hooks(provider: Provider) -> [(&'static str, &'static str); 2] {
    match provider {
        Provider::GitHub => {
            [("github/pull-request-opened", "/pull_request"), ("github/pull-request-fork", "/pull_request")]
        }
        Provider::Gitea => {
            [("gitea/pull-request-opened", "/pull_request"), ("gitea/forgejo-pull-request-fork", "/pull_request")]
        }
        Provider::BitbucketCloud => [
            ("bitbucket-cloud/pull-request-created", "/pullrequest"),
            ("bitbucket-cloud/pull-request-updated-fork", "/pullrequest"),
        ],
        Provider::BitbucketServer => [
            ("bitbucket-server/pull-request-opened", "/pullRequest"),
            ("bitbucket-server/pull-request-updated-fork", "/pullRequest"),
        ],
        _ => [("azure-devops/pull-request-created", "/resource"), ("azure-devops/pull-request-fork", "/resource")],
    }
}

fn item((name, pointer): (&str, &str)) -> Value {
    let path = format!("{}/tests/fixtures/{name}.http", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(text.split_once("\n\n").unwrap().1).unwrap().pointer(pointer).unwrap().clone()
}

/// A list with one of the repository's own and one of a fork.
fn list(provider: Provider) -> Vec<Value> {
    if provider != Provider::GitLab {
        return hooks(provider).map(item).to_vec();
    }
    let merge = |number: u64, project: u64| {
        json!({"iid": number, "title": "x", "draft": false, "source_branch": "topic", "target_branch": "main",
            "sha": SHA, "source_project_id": project, "target_project_id": 1})
    };
    vec![merge(1, 1), merge(2, 9)]
}

fn pulls(events: &[cooper_engine::trigger::event::SourceEvent]) -> Vec<&PullRequest> {
    let pull =
        |event: &'_ cooper_engine::trigger::event::SourceEvent| matches!(event.change, SourceChange::PullRequest(_));
    assert!(events.iter().all(pull));
    let pulls = events.iter().filter_map(|event| match &event.change {
        SourceChange::PullRequest(pull) => Some(&**pull),
        _ => None,
    });
    pulls.collect()
}

#[tokio::test]
async fn open_pull_requests_are_listed_as_hooks_tell_of_them() {
    for (provider, place) in PLACES {
        // What can't be read keeps nobody from the rest.
        let list: Vec<Value> = list(provider).into_iter().chain([json!({"odd": 1})]).collect();
        let server = FakeForge::start(move |asked| match provider {
            Provider::Gitea if !asked.path.ends_with("page=1") => Said::json(200, &json!([])),
            Provider::GitHub | Provider::GitLab | Provider::Gitea => Said::json(200, &json!(list)),
            Provider::BitbucketCloud => Said::json(200, &json!({"values": list})),
            Provider::BitbucketServer => Said::json(200, &json!({"values": list, "isLastPage": true})),
            _ => Said::json(200, &json!({"value": list})),
        })
        .await;
        let found = server.api(provider, place).pull_requests().await;
        let found = found.unwrap_or_else(|error| panic!("{provider}: {error}")).expect("not too many");
        let [own, fork] = pulls(&found)[..] else { panic!("{provider}: {found:?}") };
        // It may leave out that there is a fork.
        let owner = if provider == Provider::AzureDevops { HeadOwner::Unsaid } else { HeadOwner::Base };
        for (pull, owner) in [(own, owner), (fork, HeadOwner::Fork)] {
            assert_eq!(pull.head_owner, owner, "{provider}");
            assert_eq!(pull.action, PullRequestAction::Synchronized, "{provider}");
            assert!(pull.head.commit.is_some(), "{provider}");
        }
        let asked = server.last();
        assert!(asked.method == "GET" && asked.header("authorization").len() > 5, "{provider}: {asked:?}");
    }
}

#[tokio::test]
async fn pages_are_read_to_their_end_and_not_without_one() {
    let pull = item(("github/pull-request-opened", "/pull_request"));
    for (pages, found) in [(1, Some(20)), (49, Some(980)), (50, None)] {
        let pull = pull.clone();
        let server = FakeForge::start(move |asked| {
            let page: usize = asked.path.rsplit('=').next().unwrap().parse().unwrap();
            Said::json(200, &json!(vec![pull.clone(); if page <= pages { 20 } else { 0 }]))
        })
        .await;
        let all = server.api(Provider::GitHub, "acme/shop.git").pull_requests().await.unwrap();
        assert_eq!(all.map(|all| all.len()), found, "{pages}");
    }
}
