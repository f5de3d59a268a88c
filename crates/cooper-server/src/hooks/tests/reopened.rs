//! Pull requests that are closed and opened again: built where their commits were not.

use cooper_api::rest::EventOutcomeView;

use super::*;

/// What a forge sends when a pull request is opened, and how it says that it was opened again.
struct Forge {
    provider: Provider,
    context: &'static str,
    opened: &'static str,
    words: (&'static str, &'static str),
}

const FORGES: [Forge; 4] = [
    Forge {
        provider: Provider::GitHub,
        context: "https://github.com/acme/shop.git",
        opened: "github/pull-request-opened",
        words: ("\"action\": \"opened\"", "\"action\": \"reopened\""),
    },
    Forge {
        provider: Provider::GitLab,
        context: "https://gitlab.example/team/app.git",
        opened: "gitlab/merge-request-open",
        words: ("\"action\": \"open\"", "\"action\": \"reopen\""),
    },
    Forge {
        provider: Provider::Gitea,
        context: "http://git.example:3000/team/app.git",
        opened: "gitea/pull-request-opened",
        words: ("\"action\": \"opened\"", "\"action\": \"reopened\""),
    },
    Forge {
        provider: Provider::BitbucketServer,
        context: "https://bitbucket.example/scm/shop/app.git",
        opened: "bitbucket-server/pull-request-opened",
        words: ("pr:opened", "pr:reopened"),
    },
];

impl Forge {
    /// A delivery of its own that says so of a pull request at this commit.
    fn sends(&self, delivery: &str, is_again: bool, commit: char) -> (Vec<(String, String)>, Vec<u8>) {
        let (headers, body) = fixture(self.opened);
        let write = |text: &str| {
            let text = text.replace(&"2".repeat(40), &commit.to_string().repeat(40));
            if is_again { text.replace(self.words.0, self.words.1) } else { text }
        };
        let ids = ["X-GitHub-Delivery", "X-Gitea-Delivery", "Idempotency-Key", "X-Request-Id"];
        let header = |(name, value): (String, String)| {
            let value = if ids.contains(&name.as_str()) { delivery.to_owned() } else { write(&value) };
            (name, value)
        };
        (headers.into_iter().map(header).collect(), write(&String::from_utf8(body).expect("text")).into_bytes())
    }
}

/// What came of one delivery.
async fn deliver(world: &World, hook: &Known, task: &str, sent: (Vec<(String, String)>, Vec<u8>)) -> EventOutcomeView {
    let (headers, body) = sent;
    let headers = signed(hook, headers, &body, world.clock.now());
    assert_eq!(world.take(hook, &headers, &body).await.status, ReceiptStatus::Kept);
    world.pass().await;
    world.hooks(task).await.deliveries.remove(0).outcomes.expect("worked off").remove(0)
}

#[tokio::test]
async fn a_pull_request_that_is_opened_again_is_built_where_its_commit_was_not() {
    let world = World::new().await;
    for forge in FORGES {
        let name = forge.provider.as_str();
        let trigger = json!({"provider": name, "events": ["pullrequest"]});
        let hook = world.task(name, forge.context, trigger.clone()).await;
        let first = deliver(&world, &hook, name, forge.sends("1", false, '2')).await;
        let built = first.run_id.expect("it is built");
        // Closed and opened again: what there is to know of the commit is known.
        let again = deliver(&world, &hook, name, forge.sends("2", true, '2')).await;
        assert!(again.event.contains("reopened"), "{again:?}");
        assert_eq!((again.run_id, again.known_run_id), (None, Some(built)), "{name}");
        // Closed, pushed to, and opened again.
        let pushed = deliver(&world, &hook, name, forge.sends("3", true, '3')).await;
        assert!(pushed.run_id.is_some_and(|run| run != built), "{name}: {pushed:?}");
        let runs = world.runs().await;
        let Cause::Source(cause) = &runs.last().expect("a run").origin.cause else { panic!("{runs:?}") };
        assert_eq!((cause.provider, cause.firing.commit.as_str()), (forge.provider, "3".repeat(40).as_str()));

        // Somebody who listens only since it was closed has built none of it.
        let late = format!("{name}-late");
        let hook = world.task(&late, forge.context, trigger).await;
        let outcome = deliver(&world, &hook, &late, forge.sends("4", true, '2')).await;
        let run = outcome.run_id.expect("it is built");
        let outcome = deliver(&world, &hook, &late, forge.sends("5", true, '2')).await;
        assert_eq!((outcome.run_id, outcome.known_run_id), (None, Some(run)), "{name}");
    }
    assert_eq!(world.runs().await.len(), 3 * FORGES.len());
}
