//! Webhooks as a user sets them up, and what their receivers get, whatever happens to the server.

use std::time::Duration;

use cooper_e2e::{
    Context, EventReceiver, ReceivedEvent, ServerOptions, TestServer, expect_sealed, run_to_end, wait_until,
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at a signature as docs/webhooks-out.md says.
pub(crate) fn check_signature(event: &ReceivedEvent, secret: &str) {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{}.{}", event.header("cooper-timestamp"), event.body).as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(event.header("cooper-signature"), format!("v1={digits}"));
}

#[test]
fn what_was_accepted_before_a_kill_is_told_after_it_in_order() {
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).into();
    let mut server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let mut receiver = EventReceiver::start();
    let uri = receiver.url();
    let make = [
        "webhook",
        "create",
        "deploy",
        "--uri",
        &uri,
        "--actions",
        "push",
        "run_finished",
        "--headers",
        "X-Team=c1-and-c0",
    ];
    let made = server.cooper(&make).ok();
    let secret = made.stdout.trim().to_owned();
    assert_eq!(secret.len(), 52, "{made}");
    server
        .cooper(&["webhook", "create", "-n", "other", "--uri", &uri, "--actions", "push", "--scope", "no/other"])
        .ok();

    server.cooper(&["webhook", "ping", "deploy"]).ok();
    wait_until("the ping is there", PATIENCE, || !receiver.received().is_empty());
    let ping = &receiver.received()[0];
    assert_eq!((ping.header("cooper-event"), ping.header("x-team")), ("ping", "c1-and-c0"));
    check_signature(ping, &secret);

    receiver.go_away();
    server.build(
        &["-t", "team/app:v1", "-t", "team/app:v2"],
        &Context::new("FROM scratch\nCOPY file /\n").file("file", "1"),
    );
    let events =
        |server: &TestServer| server.cooper(&["webhook", "list-events", "deploy", "--output", "json"]).ok().json();
    wait_until("the first was tried in vain", PATIENCE, || events(&server)[2]["attempts"].as_u64() > Some(0));
    server.crash();
    server.restart();
    receiver.come_back();
    wait_until("all has come", PATIENCE, || {
        events(&server).as_array().unwrap().iter().all(|event| event["status"] == "Delivered")
    });

    let mut told = receiver.received().split_off(1);
    told.dedup_by(|later, earlier| later.header("cooper-delivery") == earlier.header("cooper-delivery"));
    for event in &told {
        check_signature(event, &secret);
        assert_eq!(event.json()["id"], event.header("cooper-delivery"));
    }
    let what: Vec<_> = told.iter().map(|event| event.header("cooper-event").to_owned()).collect();
    assert_eq!(what, ["push", "push", "run_finished"]);
    let (first, second, run) = (told[0].json(), told[1].json(), told[2].json());
    assert_eq!((&first["target"]["tag"], &second["target"]["tag"]), (&"v1".into(), &"v2".into()));
    assert_eq!(first["target"]["repository"], "team/app");
    assert_eq!(first["request"]["useragent"], "cooper");
    assert_eq!(
        (&run["version"], &run["run"]["runId"], &run["run"]["status"]),
        (&1.into(), &"ca1".into(), &"Succeeded".into())
    );
    assert_eq!(run["run"]["outputImages"][0]["digest"], first["target"]["digest"]);

    // The log, a redelivery, and what is shown of secrets.
    let table = server.cooper(&["webhook", "list-events", "deploy"]).ok().stdout;
    assert!(table.contains("team/app:v1") && table.contains("204"), "{table}");
    let id = first["id"].as_str().unwrap();
    server.cooper(&["webhook", "list-events", "deploy", "--redeliver", id]).ok();
    wait_until("it comes again", PATIENCE, || {
        receiver.received().last().is_some_and(|event| event.header("cooper-delivery") == id)
    });
    let config = server.cooper(&["webhook", "get-config", "deploy"]).ok().stdout;
    assert!(config.contains(&uri) && config.contains("***") && !config.contains(&secret), "{config}");
    let shown = server.cooper(&["webhook", "show", "deploy", "--output", "json"]).ok();
    assert!(!shown.stdout.contains(&secret) && shown.json()["secret"].is_null(), "{shown}");

    // Another secret, of the server's or of one's own: what is sent from then on is signed with it.
    let signed_with = |secret: &str| {
        let before = receiver.received().len();
        server.cooper(&["webhook", "ping", "deploy"]).ok();
        wait_until("the ping is there", PATIENCE, || receiver.received().len() > before);
        check_signature(receiver.received().last().unwrap(), secret);
    };
    let renewed = server.cooper(&["webhook", "update", "deploy", "--new-secret"]).ok().stdout;
    assert!(renewed.trim().len() == 52 && renewed.trim() != secret, "{renewed}");
    signed_with(renewed.trim());
    let folder = Context::empty().file("secret", "one-of-our-own-secrets\n");
    let mut update = server.command(&["webhook", "update", "deploy", "--secret-stdin"]);
    update.stdin(std::fs::File::open(folder.join("secret")).unwrap());
    let given = run_to_end(&mut update, PATIENCE).ok();
    assert!(given.stdout.is_empty() && !given.stderr.contains("our-own"), "who gives it knows it: {given}");
    signed_with("one-of-our-own-secrets");
    server.cooper(&["webhook", "update", "deploy", "--new-secret", "--secret-stdin"]).expect(2);

    // Of deletions it is told instead of pushes.
    server.cooper(&["webhook", "update", "deploy", "--actions", "delete"]).ok();
    let before = receiver.received().len();
    server.build(&["-t", "team/app:v3"], &Context::new("FROM scratch\nCOPY file /\n").file("file", "3"));
    server.cooper(&["repository", "untag", "team/app:v1"]).ok();
    server.cooper(&["repository", "delete", "team/app:v2", "--yes"]).ok();
    wait_until("the deletion is told", PATIENCE, || receiver.received().len() > before);
    let deleted = receiver.received().split_off(before);
    check_signature(&deleted[0], "one-of-our-own-secrets");
    let told = deleted[0].json();
    assert_eq!((deleted.len(), deleted[0].header("cooper-event"), &told["action"]), (1, "delete", &"delete".into()));
    assert_eq!(
        (&told["target"]["repository"], &told["target"]["digest"]),
        (&"team/app".into(), &first["target"]["digest"])
    );
    assert!(told["target"]["tag"].is_null() && told["request"]["method"] == "DELETE", "{told}");

    // The address is a secret as well: those of chats need no other.
    let secrets = [secret.as_str(), renewed.trim(), "one-of-our-own-secrets", "c1-and-c0", uri.as_str()];
    expect_sealed(server.data(), "deploy", &secrets);
    server.cooper(&["webhook", "update", "deploy", "--status", "disabled"]).ok();
    let list = server.cooper(&["webhook", "list"]).ok().stdout;
    assert!(list.contains("disabled") && list.contains("no/other:latest"), "{list}");
    server.cooper(&["webhook", "delete", "deploy", "--yes"]).ok();
    server.cooper(&["webhook", "show", "deploy"]).expect(5).error_names(&["webhook `deploy` does not exist"]);
    let wrong = ["webhook", "create", "bad", "--uri", "https://a:b@example.org/", "--actions", "push"];
    server.cooper(&wrong).expect(2).error_names(&["user name or a password"]);
}

#[test]
fn an_event_whose_answer_was_lost_comes_again_under_its_id() {
    let arguments = ["--allow-source", "127.0.0.1", "--no-agent"].map(str::to_owned).into();
    let mut server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let receiver = EventReceiver::start();
    let make = ["webhook", "create", "hook", "--uri", &receiver.url(), "--actions", "push", "--status", "disabled"];
    server.cooper(&make).ok();
    let ids = [(); 3].map(|()| {
        let ping = server.cooper(&["webhook", "ping", "hook", "--output", "json"]).ok().json();
        ping["id"].as_str().unwrap().to_owned()
    });
    server.stop();
    assert!(server.restart_to_die("event-taken@2"));
    // The server may die before it has answered.
    server.cooper(&["webhook", "update", "hook", "--status", "enabled"]);
    wait_until("the server dies after the second event", PATIENCE, || server.has_died());
    server.death(PATIENCE);
    server.restart();
    wait_until("all has come", PATIENCE, || receiver.received().len() == 4);
    let received: Vec<_> = receiver.received().iter().map(|event| event.header("cooper-delivery").to_owned()).collect();
    assert_eq!(received, [0, 1, 1, 2].map(|event: usize| ids[event].clone()));
    assert_eq!(receiver.received()[2].header("cooper-attempt"), "2");
}
