//! Pull requests of a forge that leaves out whose they are: Azure DevOps names forks, and calls none its repository's own.

use cooper_e2e::{Follows, Trap};
use cooper_ports::credentials::{NewSourceCredential, UsableBy};
use cooper_types::{SecretBytes, SourceHost};
use serde_json::Value;

use super::inside::{Beside, authority, told};
use super::registering::Forge;
use super::*;
use crate::hooks::work::{Turn, turn};
use crate::orders::credential_purpose;

fn context(authority: &str) -> String {
    format!("http://{authority}/acme/shop/_git/app")
}

/// A pull request from a branch called `faster`, as it is told and as it is listed.
fn pull_request(authority: &str, number: u64, commit: char) -> Value {
    let (_, body) = fixture("azure-devops/pull-request-created");
    let mut pull = serde_json::from_slice::<Value>(&body).expect("json")["resource"].take();
    pull["repository"]["remoteUrl"] = json!(context(authority));
    pull["pullRequestId"] = json!(number);
    pull["lastMergeSourceCommit"]["commitId"] = json!(commit.to_string().repeat(40));
    assert!(pull["forkSource"].is_null());
    pull
}

impl World {
    async fn azure_task(&self, forge: &Forge) -> Known {
        let trigger = json!({"provider": "azure-devops", "events": ["pullrequest"]});
        self.task("nightly", &context(&forge.authority), trigger).await
    }

    /// Delivers it, and tells whether something has to wait.
    async fn tell(&self, hook: &Known, delivery: &str, pull: Value) -> bool {
        let (headers, body) = fixture("azure-devops/pull-request-created");
        let mut body: Value = serde_json::from_slice(&body).expect("json");
        (body["id"], body["resource"]) = (json!(delivery), pull);
        let body = body.to_string().into_bytes();
        let headers = signed(hook, headers, &body, self.clock.now());
        assert_eq!(self.take(hook, &headers, &body).await.status, ReceiptStatus::Kept);
        settle(&self.core).await
    }

    /// Keeps a credential for the forge that the runs of somebody may use.
    pub(super) async fn keep_credential(&self, forge: &Forge, password: &str, usable_by: &str) {
        let host = SourceHost::parse(&forge.authority).expect("valid");
        let sealed = self.core.key.seal(&credential_purpose(&host), &SecretBytes::new(password.as_bytes().to_vec()));
        let usable_by = UsableBy::Principals([testing::principal(usable_by)].into());
        let set_by = testing::principal("admin");
        let new = NewSourceCredential { host, username: "git".to_owned(), sealed, usable_by, set_by };
        self.core.credentials.put_credential(new).await.expect("store");
    }

    /// Why the last delivery started nothing.
    async fn refusal(&self, task: &str) -> String {
        let newest = self.hooks(task).await.deliveries.remove(0);
        let [outcome] = &newest.outcomes.expect("worked off")[..] else { panic!("one event") };
        assert_eq!((outcome.run_id, outcome.rule.as_deref()), (None, Some("fork")), "{outcome:?}");
        outcome.why_not.clone().expect("a reason")
    }
}

#[tokio::test]
async fn what_names_no_fork_is_ours_only_where_our_branch_is_at_its_commit() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let hook = world.azure_task(&forge).await;
    let pull = |number, commit| pull_request(&forge.authority, number, commit);
    // A fork's branch may be called like one of ours, and our branches may be at what nobody asked to be merged.
    forge.point(&[("refs/heads/main", '3'), ("refs/heads/faster-still", '3'), ("refs/heads/faster", '2')]);
    assert!(!world.tell(&hook, "stranger", pull(30, '3')).await);
    let why = world.refusal("nightly").await;
    let expect = "pull request 30 may come from a fork (the forge does not say, and no branch faster of the repository is at \
                  333333333333), and the task runs no pull requests of forks";
    assert_eq!(why, expect);
    let (_, why_not) = world.call("GET", "/api/v1/tasks/nightly/refusals", None).await;
    assert!(why_not.contains("may come from a fork"), "{why_not}");
    assert!(!world.tell(&hook, "own", pull(31, '2')).await);
    let [run] = &world.runs().await[..] else { panic!("one run") };
    let Cause::Source(cause) = &run.origin.cause else { panic!("{:?}", run.origin) };
    assert!(!run.origin.untrusted && !cause.firing.untrusted && cause.firing.commit.as_str() == "2".repeat(40));
    // It was pushed to the repository after all: what was refused is looked at again.
    forge.point(&[("refs/heads/faster", '3')]);
    assert!(!world.tell(&hook, "stranger", pull(30, '3')).await);
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn who_is_asked_whose_it_is_is_shown_what_the_run_would_show() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let hook = world.azure_task(&forge).await;
    forge.point(&[("refs/heads/faster", '2')]);
    forge.close();
    let tell = async |delivery: &str, number| {
        assert!(!world.tell(&hook, delivery, pull_request(&forge.authority, number, '2')).await);
        world.runs().await.len()
    };
    assert_eq!(tell("without", 1).await, 0);
    let why = world.refusal("nightly").await;
    let way_out = format!("`cooper task credential add --name nightly --login-server {}` sets one", forge.authority);
    assert!(why.contains(&way_out), "{why}");
    let basic = |password: &str| format!("Basic {}", STANDARD.encode(format!("git:{password}")));
    world.keep_credential(&forge, "bens", "ben").await;
    assert_eq!(tell("others", 2).await, 0, "what is for others is shown to nobody");
    world.keep_credential(&forge, "anns", "ann").await;
    assert_eq!(tell("principals", 3).await, 1);
    world.give_token("nightly", &forge).await;
    assert_eq!(tell("tasks", 4).await, 2);
    let shown = forge.shown();
    assert!(shown.contains(&basic("anns")) && shown.contains(&basic("t0ken")), "{shown:?}");
    assert!(!shown.contains(&basic("bens")), "{shown:?}");
}

#[tokio::test]
async fn a_repository_that_is_away_is_asked_again_for_ten_minutes() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let hook = world.azure_task(&forge).await;
    forge.point(&[("refs/heads/faster", '2')]);
    forge.refuse(503);
    assert!(world.tell(&hook, "away", pull_request(&forge.authority, 1, '2')).await, "it waits");
    let name = TaskName::parse("nightly").expect("valid");
    let next = async |trying| turn(Arc::clone(&world.core), name.clone(), trying).await.expect("store");
    let Turn::Later(trying) = next(None).await else { panic!("it waits") };
    world.clock.advance(Duration::from_secs(599));
    let Turn::Later(trying) = next(Some(trying)).await else { panic!("it waits") };
    assert_eq!(world.runs().await.len(), 0);
    world.clock.advance(Duration::from_secs(1));
    let Turn::Over = next(Some(trying)).await else { panic!("it is given up") };
    assert!(world.refusal("nightly").await.contains("its repository can't be asked: "));
    assert!(world.tell(&hook, "back", pull_request(&forge.authority, 2, '2')).await);
    forge.refuse(0);
    world.pass().await;
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn what_is_listed_is_ours_only_where_our_branch_is_at_its_commit() {
    let (world, forge) = (World::new().await, Forge::start().await);
    world.azure_task(&forge).await;
    world.give_token("nightly", &forge).await;
    let look = async || {
        let waits = missed::look(&world.core, Settings::DEFAULT_SOURCE_POLL, true, None).await.expect("store");
        (!waits.is_empty(), world.runs().await.len())
    };
    assert_eq!(look().await, (false, 0), "what was there is not new");
    let pull = |number, commit| pull_request(&forge.authority, number, commit);
    forge.show(vec![pull(30, '3'), pull(31, '2')]);
    forge.point(&[("refs/heads/main", '3'), ("refs/heads/faster", '2')]);
    assert_eq!((look().await, look().await, look().await), ((true, 0), (false, 1), (false, 1)));
    let run = &world.runs().await[0];
    let Cause::Source(cause) = &run.origin.cause else { panic!("{:?}", run.origin) };
    assert!(!run.origin.untrusted && cause.firing.commit.as_str() == "2".repeat(40));
    // Between two looks its branch was made.
    forge.point(&[("refs/heads/faster", '3')]);
    assert_eq!((look().await, look().await), ((true, 1), (false, 2)));
}

#[tokio::test]
async fn no_repository_leads_inside_when_it_is_asked_whose_a_pull_request_is() {
    let trap = Trap::start();
    let beside = Beside::new(&trap).await;
    let ask = async |host: &str| {
        let (task, hook) = beside.azure_task(host).await;
        let world = &beside.world;
        assert!(
            !world.tell(&hook, "created", pull_request(&authority(host), 1, '2')).await,
            "it is no use to try again"
        );
        let why = world.refusal(&task).await;
        told(host, Some(why))
    };
    trap.try_way("whose", Follows::Redirects, "--allow-source", ask).await;
}
