//! Base images as a platform team sees them: one is patched, and what stands on it is built again, in order and once.

use std::time::Duration;

use cooper_e2e::{Context, EventReceiver, GitRepository, GitServer, ServerOptions, TestServer, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::webhooks::check_signature;

/// How long a wave of a few small builds may take.
const WAVE: Duration = Duration::from_secs(120);

struct World {
    server: TestServer,
    git: GitServer,
    repository: GitRepository,
    busybox: String,
    _root: TempDir,
}

impl World {
    fn new() -> Self {
        Self::of(&[])
    }

    /// With these options of the server besides.
    fn of(more: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        let repository = GitRepository::new(root.path(), "images.git");
        let git = GitServer::start(root.path());
        let arguments = ["--allow-source", "127.0.0.1", "--allow-webhook", "127.0.0.1"];
        let arguments = [&arguments[..], more].concat().into_iter().map(str::to_owned).collect();
        let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
        let busybox = server.base_image();
        Self { server, git, repository, busybox, _root: root }
    }

    /// An image of the server's registry, as Dockerfiles name it.
    fn image(&self, name: &str) -> String {
        format!("localhost:{}/{name}", self.server.port())
    }

    /// Builds and pushes the base image of a version; its digest.
    fn push_base(&self, version: &str) -> String {
        let context = Context::new(&format!("FROM {}\nRUN echo {version} > /version\n", self.busybox));
        let run = self.server.build(&["-t", "base:1"], &context);
        run["outputImages"][0]["digest"].as_str().unwrap().to_owned()
    }

    /// Makes a task that builds one Dockerfile of the repository, and runs it.
    fn make(&self, name: &str, more: &[&str]) {
        let (source, image) = (self.git.url("images.git"), format!("{name}:1"));
        let create = ["task", "create", name, "-c", &source, "-f", name, "-t", &image];
        self.server.cooper(&[&create[..], more].concat()).ok();
        self.server.cooper(&["task", "run", name, "--no-logs"]).ok();
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.server.cooper(&[arguments, &["--output", "json"]].concat()).ok().json()
    }

    /// The newest wave, when it is the one of this number and over.
    fn wave(&self, id: &str) -> Value {
        let over = || {
            let waves = self.json(&["wave", "list"]);
            waves[0]["waveId"] == id && !waves[0]["finishTime"].is_null()
        };
        wait_until(&format!("wave {id} is over"), WAVE, over);
        self.json(&["wave", "show", id])
    }

    /// The state of a member of a wave.
    fn state(wave: &Value, task: &str) -> String {
        let members = wave["members"].as_array().unwrap();
        let member = members.iter().find(|member| member["task"] == task).unwrap();
        member["state"].as_str().unwrap().to_owned()
    }

    fn runs(&self, task: &str) -> Vec<Value> {
        self.json(&["task", "list-runs", task]).as_array().unwrap().clone()
    }
}

#[test]
fn a_server_that_is_killed_in_a_wave_builds_each_once() {
    let mut world = World::new();
    let image = world.busybox.clone();
    world.server.cooper(&["pool", "create", "nobody"]).ok();
    let follow = ["--base-image-trigger-steps", "true"];
    let command = format!("{image} true");
    let create = ["task", "create", "steps", "-c", "/dev/null", "--cmd", &command];
    world.server.cooper(&[&create[..], &follow].concat()).ok();
    world.server.cooper(&["task", "run", "steps", "--no-logs"]).ok();
    // Runs wait from now on: a wave's end is in our hands.
    world.server.cooper(&["task", "update", "steps", "--agent-pool", "nobody"]).ok();
    let push = |world: &World, number: u32| {
        let kind = "application/vnd.oci.image.index.v1+json";
        let annotations = serde_json::json!({ "number": number.to_string() });
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [], "annotations": annotations });
        world.server.put_manifest("base/busybox", "1", kind, &index.to_string());
    };
    let dies = |world: &mut World, failpoint: &str, act: &dyn Fn(&World)| {
        world.server.stop();
        assert!(world.server.restart_to_die(failpoint), "{failpoint}");
        act(world);
        wait_until(&format!("the server dies at {failpoint}"), WAVE, || world.server.has_died());
        let death = world.server.death(WAVE);
        assert!(death.stderr.contains(&format!("failpoint {failpoint}: ")), "{death}");
        world.server.restart();
    };
    // What the server dies at, and how often the task has run when the wave goes on.
    for (number, failpoint) in [(1_u32, "wave-opened"), (2, "run-accepted")] {
        dies(&mut world, failpoint, &|world| push(world, number));
        let wave = format!("w{number}");
        let running = || World::state(&world.json(&["wave", "show", &wave]), "steps") == "running";
        wait_until(&format!("{failpoint}: its run is accepted"), WAVE, running);
        assert_eq!(world.runs("steps").len(), 1 + number as usize, "{failpoint}");
        let run = world.runs("steps")[0]["runId"].as_str().unwrap().to_owned();
        if number == 1 {
            dies(&mut world, "wave-saved", &|world| drop(world.server.cooper(&["runs", "cancel", &run])));
            assert_eq!(world.wave(&wave)["status"], "Failed");
        } else {
            dies(&mut world, "wave-canceled", &|world| drop(world.server.cooper(&["wave", "cancel", &wave])));
            assert_eq!(world.wave(&wave)["status"], "Canceled");
        }
        assert_eq!(world.server.run(&run)["status"], "Canceled", "{failpoint}");
        assert_eq!(world.runs("steps").len(), 1 + number as usize, "{failpoint}");
    }
    let again = world.server.cooper(&["wave", "retry", "w2", "--output", "json"]).ok().json();
    assert_eq!((&again["waveId"], &again["changes"][0]["image"]), (&"w3".into(), &"base/busybox:1".into()), "{again}");
    wait_until("it is tried again", WAVE, || world.runs("steps").len() == 4);
}

#[test]
fn what_a_paused_wave_held_is_built_by_the_newer_one_when_it_is_cancelled() {
    let world = World::of(&["--wave-concurrency", "1"]);
    let on_base = format!("FROM {}\nRUN cp /version /copied\n", world.image("base:1"));
    world.repository.commit_files(&[("first", &on_base), ("second", &on_base)]);
    world.push_base("one");
    world.make("first", &[]);
    world.make("second", &[]);
    // The first one takes the room, and keeps it.
    world.server.cooper(&["pool", "create", "nobody"]).ok();
    world.server.cooper(&["task", "update", "first", "--agent-pool", "nobody"]).ok();
    world.push_base("two");
    let why = |wave: &str, task: &str| {
        let wave = world.json(&["wave", "show", wave]);
        let member = wave["members"].as_array().unwrap().iter().find(|member| member["task"] == task).unwrap();
        format!("{} {}", member["state"].as_str().unwrap(), member["reason"].as_str().unwrap_or_default())
    };
    let is_open =
        |wave: &str| world.json(&["wave", "list"]).as_array().unwrap().iter().any(|one| one["waveId"] == wave);
    wait_until("it has begun", WAVE, || is_open("w1") && why("w1", "first").starts_with("running "));
    assert!(why("w1", "first").contains("waits for an agent"), "{}", why("w1", "first"));
    assert!(why("w1", "second").starts_with("waiting no room: 1 run"), "{}", why("w1", "second"));
    world.server.cooper(&["wave", "pause", "w1"]).ok();
    assert!(why("w1", "second").contains("`cooper wave resume w1`"), "{}", why("w1", "second"));
    world.server.cooper(&["task", "update", "first", "--agent-pool", "default"]).ok();
    world.push_base("three");
    wait_until("there is a newer one", WAVE, || is_open("w2"));
    let held = why("w2", "second");
    assert!(held.starts_with("waiting ") && held.contains("w1") && held.contains("`cooper wave cancel w1`"), "{held}");
    world.server.cooper(&["wave", "cancel", "w1"]).ok();
    let newer = world.wave("w2");
    assert_eq!(
        (&newer["status"], &newer["counts"]),
        (&"Succeeded".into(), &serde_json::json!({ "done": 2 })),
        "{newer}"
    );
    let older = world.json(&["wave", "show", "w1"]);
    assert_eq!(
        (&older["status"], World::state(&older, "second").as_str()),
        (&"Canceled".into(), "takenOver"),
        "{older}"
    );
    assert_eq!(world.runs("second").len(), 2, "by hand, and once in a wave");
    world.server.expect_quiet_log();
}

#[test]
fn a_paused_wave_begins_nothing_more_and_ends_when_it_is_resumed() {
    let world = World::of(&["--wave-concurrency", "1"]);
    let command = format!("{} true", world.busybox);
    for name in ["first", "second"] {
        let create = ["task", "create", name, "-c", "/dev/null", "--cmd", &command];
        world.server.cooper(&[&create[..], &["--base-image-trigger-steps", "true"]].concat()).ok();
        world.server.cooper(&["task", "run", name, "--no-logs"]).ok();
    }
    // The first one's run waits for the agent until the wave is paused.
    world.server.cooper(&["agent", "drain", "local"]).ok();
    let manifest = world.server.registry("/v2/base/busybox/manifests/1");
    let mut other: Value = serde_json::from_str(&manifest.body).unwrap();
    other["annotations"] = serde_json::json!({ "number": "2" });
    world.server.put_manifest("base/busybox", "1", manifest.header("content-type").unwrap(), &other.to_string());
    let shown = || world.json(&["wave", "show", "w1"]);
    let has_begun = || {
        let waves = world.json(&["wave", "list"]);
        waves[0]["waveId"] == "w1" && World::state(&shown(), "first") == "running"
    };
    wait_until("the wave has begun", WAVE, has_begun);
    let paused = world.server.cooper(&["wave", "pause", "w1"]).ok();
    assert!(paused.stderr.contains("Wave w1 is paused."), "{paused}");
    world.server.cooper(&["agent", "drain", "local", "--undo"]).ok();
    wait_until("the run that went on has ended", WAVE, || World::state(&shown(), "first") == "done");
    let held = shown();
    assert_eq!((&held["status"], World::state(&held, "second").as_str()), (&"Paused".into(), "waiting"), "{held}");
    let held = world.server.cooper(&["wave", "show", "w1"]).ok().stdout;
    assert!(held.contains("`cooper wave resume w1`"), "it says what it waits for: {held}");
    let list = world.server.cooper(&["wave", "list"]).ok().stdout;
    let line = list.lines().find(|line| line.starts_with("w1 ")).unwrap();
    for part in ["Paused", "1 done", "1 waiting", "base/busybox:1"] {
        assert!(line.contains(part), "{part}: {list}");
    }
    assert_eq!(world.runs("second").len(), 1, "by hand");

    let resumed = world.server.cooper(&["wave", "resume", "w1"]).ok();
    assert!(resumed.stderr.contains("Wave w1 is resumed."), "{resumed}");
    let over = world.wave("w1");
    assert_eq!((&over["status"], &over["counts"]), (&"Succeeded".into(), &serde_json::json!({ "done": 2 })), "{over}");
    assert_eq!(["first", "second"].map(|task| world.runs(task).len()), [2, 2], "by hand, and once in the wave");
    world.server.cooper(&["wave", "resume", "w1"]).expect(5).error_names(&["it is over"]);
    world.server.expect_quiet_log();
}

/// What the endpoints of two tasks and a webhook were told of the first wave.
fn check_told(world: &World, receiver: &EventReceiver, middle: &Value, digest: &str) {
    wait_until("all are told", WAVE, || receiver.received().len() == 3);
    let received = receiver.received();
    let of = |event: &'static str| received.iter().filter(move |one| one.header("cooper-event") == event);
    let secret = world.server.cooper(&["task", "update-trigger-secret", "middle"]).ok().stdout;
    let notice = of("image_update").find(|one| one.json()["task"] == "middle").unwrap();
    check_signature(notice, secret.trim());
    let told = notice.json();
    assert_eq!((&told["runId"], &told["waveId"]), (&middle["runId"], &"w1".into()), "{told}");
    assert_eq!((&told["images"][0]["digest"], &told["images"][0]["repository"]), (&digest.into(), &"base".into()));
    let token = of("image_update").find(|one| one.json()["task"].is_null()).unwrap();
    assert_eq!(token.json(), serde_json::json!({ "updateTriggerToken": token.header("cooper-delivery") }));
    let wave = of("wave_finished").next().unwrap().json();
    assert_eq!((&wave["wave"]["waveId"], &wave["wave"]["status"]), (&"w1".into(), &"Succeeded".into()), "{wave}");
    assert_eq!((&wave["wave"]["counts"]["done"], &wave["wave"]["changes"][0]["digest"]), (&3.into(), &digest.into()));

    // It is told once more by its id, and from then on under another secret.
    let id = notice.header("cooper-delivery");
    let listed = || world.server.cooper(&["task", "notifications", "middle"]).ok().stdout;
    wait_until("its answer is written down", WAVE, || listed().contains("Delivered"));
    let line = listed().lines().find(|line| line.ends_with(id)).unwrap().to_owned();
    for part in ["endpoint", middle["runId"].as_str().unwrap(), "Delivered", "204"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let renewed = world.server.cooper(&["task", "update-trigger-secret", "middle", "--new-secret"]).ok().stdout;
    assert_ne!(renewed, secret);
    assert_eq!(world.server.cooper(&["task", "update-trigger-secret", "middle"]).ok().stdout, renewed);
    let again = world.server.cooper(&["task", "notifications", "middle", "--redeliver", id]).ok();
    assert!(again.stderr.contains(id), "{again}");
    wait_until("it comes once more", WAVE, || receiver.received().len() == 4);
    let again = receiver.received().pop().unwrap();
    assert_eq!((again.header("cooper-delivery"), again.json()["runId"].clone()), (id, middle["runId"].clone()));
    check_signature(&again, renewed.trim());
}

#[test]
fn a_patched_base_rebuilds_two_levels_in_order_and_once() {
    let world = World::new();
    let from = |base: &str, more: &str| format!("FROM {}\n{more}", world.image(base));
    let middle = from("base:1", "RUN cp /version /middle\n");
    let other = from("base:1", "RUN cp /version /other\n");
    // Both sides of a diamond, by its final stage and by a copy.
    let copy = format!("COPY --from={} /other /other\n", world.image("other:1"));
    let upper = from("middle:1", &copy);
    let files = [("middle", middle.as_str()), ("other", &other), ("upper", &upper), ("quiet", &middle)];
    world.repository.commit_files(&files);
    let first = world.push_base("one");
    let receiver = EventReceiver::start();
    let endpoint = receiver.url();
    let hook = ["webhook", "create", "waves", "--uri", &endpoint, "--actions", "wave_finished"];
    world.server.cooper(&hook).ok();
    world.make("middle", &["--update-trigger-endpoint", &endpoint]);
    let token = ["--update-trigger-endpoint", &endpoint, "--update-trigger-payload-type", "Token"];
    world.make("other", &token);
    world.make("upper", &["--base-image-trigger-type", "all"]);
    world.make("quiet", &["--base-image-trigger-enabled", "false"]);

    let source = world.git.url("images.git");
    world.server.cooper(&["task", "create", "never-run", "-c", &source, "-f", "middle", "-t", "never:1"]).ok();
    let shown = world.server.cooper(&["impact", "base:1"]).ok();
    assert!(shown.stderr.contains("Not known yet: never-run. What a task stands on"), "{}", shown.stderr);
    let impact = world.json(&["impact", "base:1"]);
    assert_eq!(impact["unknown"], serde_json::json!(["never-run"]));
    let order: Vec<&str> =
        impact["tasks"].as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap()).collect();
    assert_eq!(order, ["middle", "other", "upper"], "{impact}");
    assert_eq!(impact["tasks"][2]["after"], serde_json::json!(["middle", "other"]));
    assert_eq!(impact["refused"][0]["task"], "quiet", "{impact}");

    assert_eq!(world.push_base("one"), first, "the same digest, which sets nothing off");
    let second = world.push_base("two");
    assert_ne!(first, second);
    let wave = world.wave("w1");
    assert_eq!((&wave["status"], &wave["counts"]["done"]), (&"Succeeded".into(), &3.into()), "{wave}");
    assert_eq!(wave["changes"].as_array().unwrap().len(), 1, "{wave}");
    let of = |task: &str| {
        let runs = world.runs(task);
        assert_eq!((runs.len(), &runs[0]["status"]), (2, &"Succeeded".into()), "{task}: once, and once by hand");
        runs[0].clone()
    };
    let (middle, other, upper) = (of("middle"), of("other"), of("upper"));
    for below in [&middle, &other] {
        assert!(below["finishTime"].as_str().unwrap() <= upper["createTime"].as_str().unwrap(), "in order");
        let image = &below["imageUpdateTrigger"]["images"][0];
        assert_eq!((&image["previousDigest"], &image["digest"]), (&first.clone().into(), &second.clone().into()));
    }
    let images = upper["imageUpdateTrigger"]["images"].as_array().unwrap();
    let made = |run: &Value| run["outputImages"][0]["digest"].clone();
    let new: Vec<Value> = images.iter().map(|image| image["digest"].clone()).collect();
    assert_eq!(new.len(), 2, "{upper}");
    assert!(new.contains(&made(&middle)) && new.contains(&made(&other)), "it stands on what the wave made: {upper}");
    let told = world.server.cooper(&["runs", "why", middle["runId"].as_str().unwrap()]).ok().stdout;
    assert!(told.contains(&first) && told.contains(&second) && told.contains("wave w1"), "{told}");
    let command = format!("{} cat /middle /other", world.image("upper:1"));
    let ran = world.server.cooper(&["run", "--cmd", &command, "/dev/null"]).ok().stdout;
    assert_eq!(ran.lines().filter(|line| line.trim().ends_with("two")).count(), 2, "{ran}");
    check_told(&world, &receiver, &middle, &second);
    let shown = world.server.cooper(&["wave", "show", "w1"]).ok().stdout;
    assert!(shown.contains("upper") && shown.contains("middle other"), "{shown}");

    assert_eq!(world.runs("quiet").len(), 1);
    let why_not = world.server.cooper(&["task", "why-not", "quiet"]).ok().stdout;
    assert!(why_not.contains("base image base:1") && why_not.contains("trigger is disabled"), "{why_not}");

    // A branch that fails stops what stands on it, and nothing else.
    let broken = from("base:1", "RUN false\n");
    world.repository.commit_files(&[("middle", &broken)]);
    world.push_base("three");
    let wave = world.wave("w2");
    assert_eq!(wave["status"], "Failed");
    assert_eq!(["middle", "other", "upper"].map(|task| World::state(&wave, task)), ["failed", "done", "skipped"]);
    world.server.cooper(&["wave", "pause", "w2"]).expect(5).error_names(&["it is over"]);
    world.server.cooper(&["wave", "show", "w9"]).expect(5).error_names(&["wave w9 does not exist"]);
    world.server.expect_quiet_log();
}

#[test]
fn a_base_of_another_registry_is_watched_and_its_webhook_brings_the_look_forward() {
    let mut world = World::new();
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let other = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    world.busybox = other.base_image();
    let host = other.authority().to_owned();
    let push = |version: &str| {
        let context = Context::new(&format!("FROM {}\nRUN echo {version} > /version\n", world.busybox));
        let run = other.build(&["-t", "team/base:1"], &context);
        run["outputImages"][0]["digest"].as_str().unwrap().to_owned()
    };
    let first = push("one");
    let dockerfile = format!("FROM {host}/team/base:1\nRUN cp /version /copied\n");
    world.repository.commit_files(&[("watched", &dockerfile)]);
    let source = world.git.url("images.git");
    world.server.cooper(&["task", "create", "watched", "-c", &source, "-f", "watched", "-t", "watched:1"]).ok();
    let token = other.token();
    let add = ["task", "credential", "add", "watched", "--login-server", &host, "-u", "robot", "-p", &token];
    world.server.cooper(&add).ok();
    world.server.cooper(&["task", "run", "watched", "--no-logs"]).ok();
    assert_eq!(world.json(&["impact", &format!("{host}/team/base:1")])["tasks"][0]["task"], "watched");

    let shown = world.server.cooper(&["wave", "hook"]).ok().stdout;
    let told = world.json(&["wave", "hook"]);
    let (uri, hook) = (told["url"].as_str().unwrap().to_owned(), told["path"].as_str().unwrap().to_owned());
    assert_eq!(uri, format!("{}{hook}", world.server.url()));
    assert!(shown.contains(&uri) && shown.contains("application/json") && shown.contains("PUSH_ARTIFACT"), "{shown}");
    let post = |path: &str, body: &str| world.server.ask("POST", path, &[], body.as_bytes()).unwrap().status;
    assert_eq!([post("/hooks/registry/guessed", "{}"), post(&hook, "no json"), post(&hook, "{}")], [404, 400, 202]);
    other.cooper(&["webhook", "create", "news", "--uri", &uri, "--actions", "push"]).ok();
    let second = push("two");
    let wave = world.wave("w1");
    assert_eq!((&wave["status"], World::state(&wave, "watched").as_str()), (&"Succeeded".into(), "done"), "{wave}");
    let image = world.runs("watched")[0]["imageUpdateTrigger"]["images"][0].clone();
    assert_eq!(image["registry"], host);
    assert_eq!((&image["previousDigest"], &image["digest"]), (&first.into(), &second.into()));
    assert!(!world.server.log().contains(&token));
    world.server.expect_quiet_log();
}
