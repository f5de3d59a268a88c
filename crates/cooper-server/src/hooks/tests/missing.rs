//! Branches, tags and pull requests that no delivery told of.

use cooper_api::rest::{LookKind, LookView};
use cooper_engine::trigger::FiringKind;
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_ports::references::{ChangedReference, LookWay, Reference, SeenAt};
use serde_json::Value;

use super::registering::Forge;
use super::*;

pub(super) fn listed(name: &str, at: char, peeled: Option<char>) -> ListedReference {
    let id = |digit: char| digit.to_string().repeat(40);
    ListedReference { name: name.to_owned(), id: id(at), peeled: peeled.map(id) }
}

/// Looks at what is in the repository of the task `nightly`, and tells whether something waits for the next look.
pub(super) async fn look_at(world: &World, kind: ReferenceKind, list: Vec<ListedReference>) -> bool {
    let name = TaskName::parse("nightly").expect("valid");
    let task = world.core.tasks.find_task(&name).await.expect("store").expect("a task").task;
    let found = missed::listed(&task, kind, &list).expect("not too many");
    let look = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
    look.compare(&world.core, &task, kind, found).await.expect("store").waits
}

#[tokio::test]
async fn a_push_that_no_delivery_told_of_is_found_at_the_second_look() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"branches": ["main"]})).await;
    let look = async |branches: &[(&str, char)]| {
        let list = branches.iter().map(|(branch, at)| listed(&format!("refs/heads/{branch}"), *at, None)).collect();
        (look_at(&world, ReferenceKind::Branches, list).await, world.runs().await.len())
    };
    let deliver = async |delivery: &str, at: char, message: &str| {
        let mut body = push(REPOSITORY, delivery, "main", at);
        body["message"] = json!(message);
        let (headers, body) = world.generic(&hook, &body);
        world.take(&hook, &headers, &body).await;
        world.pass().await;
    };
    assert_eq!(look(&[("main", 'a'), ("topic", 'a')]).await, (false, 0), "what was there is no push");
    assert_eq!(look(&[("main", 'b'), ("topic", 'b')]).await, (true, 0), "its delivery may be on its way");
    assert_eq!(look(&[("main", 'b'), ("topic", 'b')]).await, (false, 1));
    assert_eq!(look(&[("main", 'b'), ("topic", 'b'), ("other", 'b')]).await, (false, 1));
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    assert_eq!((cause.delivery.as_ref(), cause.firing.commit.as_str()), (None, &*"b".repeat(40)));
    // What deliveries told of, and what a rule said no to.
    assert_eq!(look(&[("main", 'c')]).await, (true, 1));
    deliver("late", 'c', "x").await;
    assert_eq!(look(&[("main", 'c')]).await, (false, 2));
    deliver("skipped", 'd', "x [skip ci]").await;
    for _ in 0..2 {
        assert_eq!(look(&[("main", 'd')]).await, (false, 2));
    }
    // A delivery that comes after all makes no second run.
    deliver("very-late", 'b', "x").await;
    assert_eq!(world.runs().await.len(), 2);
}

/// Looks everywhere, and tells whether something waits.
async fn look_all(world: &World, pulls: bool) -> bool {
    !missed::look(&world.core, Settings::DEFAULT_SOURCE_POLL, pulls, None).await.expect("store").is_empty()
}

#[tokio::test]
async fn a_tag_that_no_delivery_told_of_starts_its_task_once_under_all_its_names() {
    let world = World::new().await;
    let hook = world.task("nightly", REPOSITORY, json!({"events": ["tag"], "tags": ["v*"]})).await;
    let look = async |tags: &[(&str, char, Option<char>)]| {
        let list = tags.iter().map(|(tag, at, peeled)| listed(&format!("refs/tags/{tag}"), *at, *peeled)).collect();
        (look_at(&world, ReferenceKind::Tags, list).await, world.runs().await.len())
    };
    let deliver = async |delivery: &str, tag: &str, object: char, more: Value| {
        let mut body = push(REPOSITORY, delivery, "x", object);
        body["ref"] = json!(format!("refs/tags/{tag}"));
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let (headers, body) = world.generic(&hook, &body);
        assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
        world.pass().await;
        world.runs().await.len()
    };
    let commit = |digit: char| json!({"commit": digit.to_string().repeat(40)});
    assert_eq!(look(&[]).await, (false, 0), "a repository without tags has been looked at, too");
    let odd = ("x1", '9', None);
    assert_eq!(look(&[("v1", 'a', Some('1')), odd]).await, (true, 0), "its delivery may be on its way");
    assert_eq!(look(&[("v1", 'a', Some('1')), odd]).await, (false, 1), "and the trigger does not take the other");
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    assert_eq!(cause.firing.commit.as_str(), "1".repeat(40), "the commit, not the tag's object");
    // Late deliveries, one by the tag's object, the other by the commit.
    assert_eq!(deliver("late", "v1", 'a', json!({})).await, 1);
    assert_eq!(deliver("later", "v1", 'a', commit('1')).await, 1);
    // Of what was told by its object alone, by its commit alone, and of a tag that is none.
    assert_eq!(deliver("object", "v2", 'b', json!({})).await, 2);
    assert_eq!(deliver("commit", "v3", '3', json!({})).await, 3);
    assert_eq!(deliver("light", "v4", 'd', json!({})).await, 4);
    let told = [("v1", 'a', Some('1')), ("v2", 'b', Some('2')), ("v3", 'c', Some('3')), ("v4", 'd', None)];
    assert_eq!(look(&told).await, (false, 4));
    // What a rule said no to for which more must be known.
    let skipped = [&told[..], &[("v5", 'e', Some('5'))]].concat();
    assert_eq!(deliver("skipped", "v5", 'e', json!({"message": "x [skip ci]"})).await, 4);
    assert_eq!((look(&skipped).await, look(&skipped).await), ((false, 4), (false, 4)));
    // A delivery that waits here comes first.
    let (headers, body) = world.generic(&hook, &push(REPOSITORY, "waits", "x", '8'));
    let mut waits: Value = serde_json::from_slice(&body).expect("json");
    (waits["ref"], waits["message"]) = (json!("refs/tags/v6"), json!("[skip ci]"));
    drop(headers);
    let (headers, body) = world.generic(&hook, &waits);
    world.take(&hook, &headers, &body).await;
    let more = [&skipped[..], &[("v6", '8', None)]].concat();
    assert_eq!((look(&more).await, look(&more).await), ((true, 4), (true, 4)));
    world.pass().await;
    assert_eq!(look(&more).await, (false, 4));
}

#[tokio::test]
async fn a_repository_is_looked_at_as_git_tells_of_it() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github", "events": ["commit", "tag"]})).await;
    let look = async || (look_all(&world, true).await, world.runs().await.len());
    forge.point(&[("refs/heads/main", 'a')]);
    assert_eq!(look().await, (false, 0));
    let all = [("refs/heads/main", 'b'), ("refs/tags/v1", 'c'), ("refs/tags/v1^{}", 'b'), ("refs/notes/x", 'd')];
    forge.point(&all);
    assert_eq!((look().await, look().await, look().await), ((true, 0), (false, 2), (false, 2)));
    let runs = world.runs().await;
    let commits = runs.iter().map(|run| {
        let Cause::Source(cause) = &run.origin.cause else { panic!("{:?}", run.origin) };
        (cause.firing.event_type(), cause.firing.commit.as_str().starts_with("bb"))
    });
    assert_eq!(commits.collect::<Vec<_>>(), [("commit", true), ("tag", true)]);
}

#[tokio::test]
async fn a_look_shows_the_repository_what_the_runs_of_the_task_would_show() {
    let (mut world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github", "events": ["commit"]})).await;
    world.token = testing::token(&world.core, "root", &["admin"]).await.expose().to_owned();
    forge.point(&[("refs/heads/main", 'a')]);
    forge.close();
    let look = async || {
        let waits = look_all(&world, true).await;
        (waits, world.hooks("nightly").await.looks.remove(0).fault.unwrap_or_default())
    };
    let (waits, fault) = look().await;
    assert!(!waits && fault.contains("there is none that the task's runs may use"), "{fault}");
    world.keep_credential(&forge, "bens", "ben").await;
    assert_eq!(look().await, (false, fault), "what is for others is shown to nobody");
    world.keep_credential(&forge, "anns", "ann").await;
    assert_eq!(look().await, (false, String::new()));
    forge.point(&[("refs/heads/main", 'b')]);
    assert_eq!(look().await, (true, String::new()));
    // Whose task it is may start nothing any more: no run would show it, and neither does a look.
    let tokens = world.core.access.store();
    let all = tokens.list_tokens().await.expect("store");
    for token in all.iter().filter(|token| token.principal == testing::principal("ann")) {
        tokens.revoke_token(&token.id).await.expect("revoked");
    }
    testing::token(&world.core, "ann", &["read"]).await;
    let before = forge.asked();
    let (waits, fault) = look().await;
    assert!(!waits && fault.contains("no token of ann may start the task's runs"), "{fault}");
    assert!(forge.asked() > before, "the repository was asked");
    testing::token(&world.core, "ann", &["run"]).await;
    assert_eq!(look().await.1, "");
}

#[tokio::test]
async fn what_a_delivery_deals_with_during_a_look_stays_dealt_with() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({})).await;
    let (name, branch) = (TaskName::parse("nightly").expect("valid"), RefName::parse("main").expect("valid"));
    let (store, reference) = (&world.core.references, Reference::Branch(branch));
    let commit = |digit: char| CommitId::parse(&digit.to_string().repeat(40)).expect("valid");
    let task = world.core.tasks.find_task(&name).await.expect("store").expect("a task").task;
    store.put_references(&task, ReferenceKind::Branches, Vec::new(), Vec::new()).await.expect("store");
    // Seen while nothing was known of it; then its delivery is worked off.
    store.reference_dealt_with(&name, &reference, &commit('a')).await.expect("store");
    let at = SeenAt { done: None, seen: Some(commit('a')) };
    let changed = vec![ChangedReference { reference: reference.clone(), was: None, at }];
    store.put_references(&task, ReferenceKind::Branches, changed, Vec::new()).await.expect("store");
    let known = store.seen_references(&name).await.expect("store");
    assert_eq!(known.at[&reference], SeenAt { done: Some(commit('a')), seen: None });
}

#[tokio::test]
async fn what_happens_while_nobody_listens_or_elsewhere_starts_nothing() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({})).await;
    let look = async |branch: &str| {
        (look_at(&world, ReferenceKind::Branches, vec![listed(branch, 'a', None)]).await, world.runs().await.len())
    };
    let patch = async |change: Value| {
        let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(change)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
    };
    assert_eq!(look("refs/heads/main").await, (false, 0));
    patch(json!({"status": "Disabled"})).await;
    assert!(!look_all(&world, true).await);
    patch(json!({"status": "Enabled"})).await;
    assert_eq!(look("refs/heads/topic").await, (false, 0), "pushed while the task was disabled");
    let name = TaskName::parse("nightly").expect("valid");
    let before = world.core.tasks.find_task(&name).await.expect("store").expect("a task").task;
    let step = json!({"type": "Docker", "contextPath": "https://git.example/team/other.git"});
    patch(json!({"step": step})).await;
    // Somebody was just looking at the other one.
    let list = [listed("refs/heads/topic", 'a', None)];
    let found = missed::listed(&before, ReferenceKind::Branches, &list).expect("not too many");
    let look_before = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
    let compared = look_before.compare(&world.core, &before, ReferenceKind::Branches, found).await.expect("store");
    assert!(!compared.waits);
    assert_eq!(look("refs/heads/old").await, (false, 0), "another repository's");
    assert_eq!(look("refs/heads/new").await, (true, 0));
}

#[tokio::test]
async fn a_pull_request_that_no_delivery_told_of_is_found_where_there_is_a_token() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    let hook = world.task("nightly", &context, json!({"provider": "github", "events": ["pullrequest"]})).await;
    let look = async || (look_all(&world, true).await, world.runs().await.len());
    assert_eq!((look().await, forge.asked()), ((false, 0), 0), "without a token, nobody is asked");
    world.give_token("nightly", &forge).await;
    let (headers, opened) = fixture("github/pull-request-opened");
    let (_, fork) = fixture("github/pull-request-fork");
    let pull = |body: &[u8], number: u64, commit: char| {
        let mut pull = serde_json::from_slice::<Value>(body).expect("json")["pull_request"].take();
        pull["number"] = json!(number);
        pull["head"]["sha"] = json!(commit.to_string().repeat(40));
        pull
    };
    let mut draft = pull(&opened, 4, 'e');
    draft["draft"] = json!(true);
    let old = pull(&opened, 1, 'a');
    forge.show(vec![old.clone()]);
    assert_eq!(look().await, (false, 0), "what was there is not new");
    let all = [old.clone(), pull(&opened, 2, 'b'), pull(&fork, 3, 'c'), draft];
    forge.show(all.to_vec());
    assert_eq!(look().await, (true, 0), "its delivery may be on its way");
    // What waits is looked at between the times at which all are.
    let soon = async || (look_all(&world, false).await, world.runs().await.len());
    assert_eq!(soon().await, (false, 1), "a fork's is refused, as a hook's would be, and so is a draft");
    let asked = forge.asked();
    assert_eq!((soon().await, forge.asked()), ((false, 1), asked), "nothing waits any more");
    let Cause::Source(cause) = &world.runs().await[0].origin.cause else { panic!("it is an event's") };
    let is_it = matches!(cause.firing.kind, FiringKind::PullRequest { number: 2, .. });
    assert!(is_it && cause.delivery.is_none() && cause.firing.commit.as_str() == "b".repeat(40), "{cause:?}");
    // The delivery comes after all.
    let mut told: Value = serde_json::from_slice(&opened).expect("json");
    told["pull_request"] = pull(&opened, 2, 'b');
    told["number"] = json!(2);
    told["repository"]["clone_url"] = json!(context);
    let body = told.to_string().into_bytes();
    let headers = signed(&hook, headers, &body, world.clock.now());
    assert_eq!(world.take(&hook, &headers, &body).await.status, ReceiptStatus::Kept);
    world.pass().await;
    assert_eq!(world.runs().await.len(), 1);
    // A forge that does not answer is no repository without pull requests.
    forge.refuse(503);
    assert_eq!(look().await, (false, 1));
    forge.refuse(0);
    let [_, second, third, mut ready] = all;
    ready["draft"] = json!(false);
    forge.show(vec![old, second, third, ready]);
    assert_eq!((look().await, look().await), ((true, 1), (false, 2)), "it is no draft any more");
}

#[tokio::test]
async fn a_forge_that_takes_no_more_requests_is_left_alone() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    for name in ["first", "second", "third-task"] {
        world.task(name, &context, json!({"provider": "github", "events": ["pullrequest"]})).await;
        world.give_token(name, &forge).await;
    }
    forge.refuse(429);
    assert!(!look_all(&world, true).await);
    // They are asked for at once, so each may have been on its way.
    let asked = forge.asked();
    assert!((1..=3).contains(&asked), "{asked}");
    for name in ["fourth", "fifth", "sixth"] {
        world.task(name, &context, json!({"provider": "github", "events": ["pullrequest"]})).await;
        world.give_token(name, &forge).await;
    }
    assert!(!look_all(&world, true).await);
    assert!(forge.asked() - asked <= 4, "no more than at a time");
}

#[tokio::test]
async fn hosts_that_do_not_answer_are_waited_for_once() {
    let (world, forge) = (World::new().await, Forge::start().await);
    // It takes connections and says nothing.
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = slow.local_addr().expect("an address");
    let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((connection, _)) = slow.accept().await {
            takes.lock().expect("no panic").push(connection);
        }
    });
    for number in 0..20 {
        let context = format!("http://{address}/a/{number}.git");
        world.task(&format!("a-slow-{number}"), &context, json!({"events": ["commit"]})).await;
    }
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github", "events": ["commit"]})).await;
    forge.point(&[("refs/heads/main", 'a')]);
    let mut look = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
    // The one that answers has time enough on any machine.
    look.time = Duration::from_secs(10);
    assert!(look.everywhere(&world.core).await.expect("store").is_empty());
    let taken = taken.lock().expect("no panic").len();
    assert!((1..=4).contains(&taken), "those that were asked at once, and no more: {taken}");
    let name = TaskName::parse("nightly").expect("valid");
    let known = world.core.references.seen_references(&name).await.expect("store");
    assert!(known.looked.contains(&ReferenceKind::Branches), "it was looked at");
}

#[tokio::test]
async fn a_slow_host_keeps_no_later_page_of_tasks_waiting() {
    let (world, forge) = (World::new().await, Forge::start().await);
    forge.point(&[("refs/heads/main", 'a')]);
    // The system takes connections for it, and nobody answers.
    let slow = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let context = format!("http://{}/a/b.git", slow.local_addr().expect("an address"));
    world.task("a-slow", &context, json!({"events": ["commit"]})).await;
    let context = format!("http://{}/acme/shop.git", forge.authority);
    for number in 0..=100 {
        world.task(&format!("b-{number:03}"), &context, json!({"events": ["commit"]})).await;
    }
    let core = Arc::clone(&world.core);
    let look = tokio::spawn(async move {
        let mut look = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
        look.time = Duration::from_secs(3600);
        look.everywhere(&core).await.map(drop)
    });
    let last = TaskName::parse("b-100").expect("valid");
    let looked = async {
        while world.core.references.seen_references(&last).await.expect("store").looked.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), looked).await.expect("it is looked at");
    assert!(!look.is_finished(), "the slow one is still waited for");
    look.abort();
}

#[tokio::test]
async fn what_is_away_for_a_moment_or_comes_in_masses_is_nothing_that_was_missed() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({"events": ["tag"]})).await;
    let look = async |tags: &[String]| {
        let list = tags.iter().map(|tag| listed(&format!("refs/tags/{tag}"), 'a', None)).collect();
        (look_at(&world, ReferenceKind::Tags, list).await, world.runs().await.len())
    };
    let old = ["v1", "v2"].map(str::to_owned);
    assert_eq!(look(&old).await, (false, 0));
    assert_eq!((look(&[]).await, look(&old).await, look(&old).await), ((false, 0), (false, 0), (false, 0)));
    // Gone for good, and made anew.
    assert_eq!((look(&[]).await, look(&[]).await, look(&old).await), ((false, 0), (false, 0), (true, 0)));
    // An import.
    let many: Vec<String> = (0..60).map(|number| format!("import-{number}")).collect();
    assert_eq!((look(&many).await, look(&many).await, look(&many).await), ((true, 0), (false, 0), (false, 0)));
    let one_more = [&many[..], &["v3".to_owned()]].concat();
    assert_eq!((look(&one_more).await, look(&one_more).await), ((true, 0), (false, 1)));
}

#[tokio::test]
async fn how_a_look_went_is_told_until_the_next_one() {
    let (world, forge) = (World::new().await, Forge::start().await);
    let context = format!("http://{}/acme/shop.git", forge.authority);
    world.task("nightly", &context, json!({"provider": "github"})).await;
    let looks = async || {
        look_all(&world, true).await;
        world.hooks("nightly").await.looks
    };
    let why_not = async || world.call("GET", "/api/v1/tasks/nightly/refusals", None).await.1;
    forge.refuse(503);
    let [look] = &looks().await[..] else { panic!("without a token the forge is not asked") };
    let fault = look.fault.as_deref().unwrap_or_default();
    assert!(fault.contains("503"), "{fault}");
    assert!(!fault.contains("not now"), "the forge's own words: {fault}");
    let period = |look: &LookView| look.next_time.since(look.time);
    assert_eq!((look.kind, period(look)), (LookKind::References, Settings::DEFAULT_SOURCE_POLL));
    assert!(why_not().await.contains("503"), "{}", why_not().await);
    world.give_token("nightly", &forge).await;
    forge.refuse(401);
    let both = looks().await;
    let [git, pulls] = &both[..] else { panic!("{both:?}") };
    assert!(git.fault.as_deref().is_some_and(|why| why.contains("cooper task credential add")), "{git:?}");
    assert!(pulls.fault.as_deref().is_some_and(|why| why.contains("does not take the token (401)")), "{pulls:?}");
    assert_eq!(period(pulls), Settings::DEFAULT_SOURCE_POLL * 6);
    forge.refuse(0);
    forge.point(&[("refs/heads/main", 'a')]);
    assert!(looks().await.iter().all(|look| look.fault.is_none()));
    forge.point(&[("refs/heads/main", 'b')]);
    let waits = looks().await;
    assert_eq!(period(&waits[0]), Duration::from_secs(60), "what is new is looked at again soon");
    assert_eq!(why_not().await, r#"{"value":[]}"#);
    // Another repository, of which nothing is known yet.
    let step = json!({"type": "Docker", "contextPath": "https://git.example/team/other.git"});
    let (status, text) = world.call("PATCH", "/api/v1/tasks/nightly", Some(json!({"step": step}))).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(world.hooks("nightly").await.looks, []);
}

#[tokio::test]
async fn what_was_found_and_started_nothing_is_told() {
    let world = World::new().await;
    world.task("nightly", REPOSITORY, json!({"events": ["tag"]})).await;
    let many: Vec<_> = (0..60).map(|number| listed(&format!("refs/tags/import-{number}"), 'a', None)).collect();
    let name = TaskName::parse("nightly").expect("valid");
    let task = world.core.tasks.find_task(&name).await.expect("store").expect("a task").task;
    let look = missed::Look::new(Settings::DEFAULT_SOURCE_POLL, false);
    for list in [&[][..], &many, &many] {
        let found = vec![(ReferenceKind::Tags, missed::listed(&task, ReferenceKind::Tags, list))];
        look.compare_all(&world.core, &task, LookWay::Git, found).await.expect("store");
    }
    let why_not = world.call("GET", "/api/v1/tasks/nightly/refusals", None).await.1;
    assert!(why_not.contains("60 are new at once"), "{why_not}");
}
