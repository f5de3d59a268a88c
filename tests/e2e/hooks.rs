//! Source triggers as their users set them up: a real Git server over HTTP, whose `post-receive` is the documentation's.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cooper_e2e::{GitBehaviour, GitRepository, GitRequest, GitServer, ServerOptions, TestServer, request, wait_until};
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tempfile::TempDir;

/// A server that may fetch from this machine, a Git server on it, and somebody who pushes to that.
struct World {
    server: TestServer,
    git: GitServer,
    bare: PathBuf,
    developer: GitRepository,
    _root: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(&[])
    }

    /// One whose server has more arguments.
    fn with(arguments: &[&str]) -> Self {
        let root = TempDir::new().unwrap();
        let repository = GitRepository::new(root.path(), "app.git");
        repository.git(["config", "http.receivepack", "true"]);
        let developer = GitRepository::new(root.path(), "developer.git");
        let git = GitServer::start(root.path());
        let arguments = ["--allow-source", "127.0.0.1"].iter().chain(arguments).map(|text| (*text).to_owned());
        let server = TestServer::with(ServerOptions { arguments: arguments.collect(), ..ServerOptions::default() });
        let bare = root.path().join("app.git");
        Self { server, git, bare, developer, _root: root }
    }

    fn url(&self) -> String {
        self.git.url("app.git")
    }

    fn task(&self, arguments: &[&str]) -> cooper_e2e::Finished {
        self.server.cooper(&[&["task"], arguments].concat())
    }

    /// Makes a task; its hook's path and secret.
    fn create(&self, arguments: &[&str]) -> (String, String) {
        let made = self.task(&[&["create", "--output", "json"], arguments].concat()).ok().json();
        let hook = &made["hooks"][0];
        (hook["path"].as_str().unwrap().to_owned(), hook["secret"].as_str().unwrap().to_owned())
    }

    /// Has the Git server tell hooks of pushes: each a path and a secret.
    fn install(&self, hooks: &[&(String, String)]) {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/webhooks.md");
        let page = fs::read_to_string(page).unwrap();
        let (_, rest) = page.split_once("```sh\n").unwrap();
        let (script, _) = rest.split_once("```").unwrap();
        let script = script.replace("https://git.example.org/team/app.git", &self.url());
        let file = self.bare.join("hooks/post-receive");
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let line = |(path, secret): &&(String, String)| format!("{}{path} {secret}\n", self.server.url());
        fs::write(self.bare.join("cooper-hooks"), hooks.iter().map(line).collect::<String>()).unwrap();
    }

    fn push(&self, to: &str) {
        self.developer.git(["push", "-q", "-f", &self.url(), &format!("HEAD:{to}")]);
    }

    /// Runs the Git server's script by hand; what it says.
    fn tell_again(&self, line: &str) -> String {
        let mut child = Command::new(self.bare.join("hooks/post-receive"))
            .current_dir(&self.bare)
            .env("GIT_DIR", &self.bare)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned()
    }

    fn runs(&self, name: &str) -> Vec<Value> {
        let list = self.task(&["list-runs", name, "--output", "json"]).ok().json();
        list.as_array().unwrap().clone()
    }

    /// The run that a push has set off, when it has ended well.
    fn run_of(&self, name: &str, commit: &str) -> Value {
        let find = || self.runs(name).into_iter().find(|run| run["sourceTrigger"]["commitId"] == commit);
        wait_until("the push has set off a run", Duration::from_secs(30), || find().is_some());
        let id = find().unwrap()["runId"].as_str().unwrap().to_owned();
        wait_until("it has ended", Duration::from_secs(90), || !self.server.run(&id)["finishTime"].is_null());
        let run = self.server.run(&id);
        assert_eq!(run["status"], "Succeeded", "{run}");
        run
    }

    fn hooks(&self, name: &str) -> Value {
        self.task(&["hooks", name, "--output", "json"]).ok().json()
    }
}

#[test]
fn a_push_starts_each_task_of_the_repository() {
    let world = World::with(&["--no-agent"]);
    let source = format!("{}#main", world.url());
    let hooks = ["first", "second"].map(|name| world.create(&[name, "-c", &source, "-f", "Dockerfile", "-t", "a:b"]));
    world.install(&[&hooks[0], &hooks[1]]);
    world.developer.commit_files(&[("Dockerfile", "FROM scratch\n")]);
    world.push("refs/heads/main");
    for name in ["first", "second"] {
        wait_until("the push has set off a run", Duration::from_secs(60), || world.runs(name).len() == 1);
    }
    world.server.expect_quiet_log();
}

#[test]
fn a_push_starts_its_task_once_and_nobody_elses() {
    let world = World::new();
    let source = format!("{}#main:app", world.url());
    let names = ["-t", "app:{{.Run.Branch}}{{.Run.GitTag}}", "--path", "app", "--tag-trigger-enabled"];
    let hook = world.create(&[&["pushed", "-c", &source, "-f", "Dockerfile"], &names[..]].concat());
    let (path, secret) = hook.clone();
    world.install(&[&hook]);
    let first = world.developer.commit_files(&[("app/Dockerfile", "FROM scratch\nCOPY a /a\n"), ("app/a", "1")]);
    world.push("refs/heads/main");
    let run = world.run_of("pushed", &first);
    assert_eq!((&run["runType"], &run["sourceCommit"]), (&"AutoBuild".into(), &first.as_str().into()));
    assert_eq!(
        (&run["outputImages"][0]["tag"], &run["sourceTrigger"]["eventType"]),
        (&"main".into(), &"commit".into())
    );
    let id = run["runId"].as_str().unwrap();
    let why = world.server.cooper(&["runs", "why", id]).ok().stdout;
    assert!(why.contains("was pushed to main") && why.contains("starts task pushed by its trigger"), "{why}");
    let table = world.task(&["list-runs", "pushed"]).ok().stdout;
    assert!(table.contains("Commit"), "{table}");

    // The same under another delivery id, a branch that is none of the task's, files that don't count, and a wrong secret.
    let again = world.tell_again(&format!("{} {first} refs/heads/main\n", "0".repeat(40)));
    assert_eq!(again, "");
    world.developer.commit_files(&[("docs/b", "2")]);
    world.push("refs/heads/topic");
    world.push("refs/heads/main");
    let settled = || {
        let hooks = world.hooks("pushed");
        let deliveries = hooks["deliveries"].as_array().unwrap();
        deliveries.len() == 3 && deliveries.iter().all(|delivery| !delivery["outcomes"].is_null())
    };
    wait_until("three deliveries are worked off", Duration::from_secs(30), settled);
    world.install(&[&(path.clone(), "guessed".to_owned())]);
    let refused = world.tell_again(&format!("{} {first} refs/heads/main\n", "0".repeat(40)));
    assert!(refused.contains("was not told"), "{refused}");
    let hooks = world.hooks("pushed");
    let seen = &hooks["value"][0];
    assert_eq!((&seen["kept"], &seen["passedOver"], &seen["refused"]), (&3.into(), &1.into(), &1.into()), "{hooks}");
    assert_eq!(hooks["deliveries"][0]["outcomes"][0]["rule"], "paths");
    assert_eq!(hooks["deliveries"][1]["outcomes"][0]["knownRunId"], id);
    let shown = world.task(&["hooks", "pushed"]).ok().stdout;
    assert!(shown.contains("1 refused") && shown.contains(&format!("run {id}")) && !shown.contains(&secret), "{shown}");
    assert_eq!(world.runs("pushed").len(), 1);

    // A tag, under the secret that takes the first one's place.
    let rotate = |more: &[&str]| {
        let rotate = ["hooks", "pushed", "--rotate-secret", "generic", "--output", "json"];
        let rotated = world.task(&[&rotate[..], more].concat()).ok().json();
        (path.clone(), rotated["secret"].as_str().unwrap().to_owned())
    };
    let rotated = rotate(&[]);
    world.install(&[&rotated]);
    let tagged = world.developer.git(["rev-parse", "HEAD"]);
    world.push("refs/tags/v1");
    let run = world.run_of("pushed", &tagged);
    assert_eq!((&run["sourceTrigger"]["tagName"], &run["sourceTrigger"]["eventType"]), (&"v1".into(), &"tag".into()));

    // The one before is taken for a day, until none before the newest is.
    let is_taken = |hook: &(String, String)| {
        world.install(&[hook]);
        let said = world.tell_again(&format!("{} {first} refs/heads/main\n", "0".repeat(40)));
        assert!(said.is_empty() || said.contains("was not told"), "{said}");
        said.is_empty()
    };
    assert_eq!([&hook, &rotated].map(is_taken), [true, true]);
    let newest = rotate(&["--revoke-old"]);
    assert_eq!([&hook, &rotated, &newest].map(is_taken), [false, false, true]);
    let shown = world.task(&["hooks", "pushed"]).ok().stdout;
    assert!(!shown.contains("the secret before is taken"), "{shown}");
    world.server.expect_quiet_log();
}

#[test]
fn what_nobody_told_of_is_found_by_looking_and_why_not_is_told() {
    let world = World::with(&["--source-poll", "10s"]);
    let file = |text: &str| world.developer.commit_files(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", text)]);
    let first = file("1");
    world.push("refs/heads/main");
    let source = format!("{}#main", world.url());
    let more = ["-f", "Dockerfile", "-t", "app:{{.Run.Branch}}{{.Run.GitTag}}", "--tag-trigger-enabled"];
    world.create(&[&["quiet", "-c", &source], &more[..]].concat());
    // The Git server has no script: it tells nobody.
    let long = Duration::from_secs(120);
    let is_looked_at = || world.hooks("quiet")["looks"][0]["time"].is_string();
    wait_until("the repository is looked at", long, is_looked_at);
    let second = file("2");
    world.push("refs/heads/main");
    world.push("refs/tags/v1");
    let found = || -> std::collections::BTreeSet<String> {
        let runs = world.runs("quiet");
        assert!(runs.iter().all(|run| run["sourceTrigger"]["commitId"] != first.as_str()), "it was there before");
        let of = runs.iter().filter(|run| run["sourceTrigger"]["commitId"] == second.as_str());
        of.map(|run| run["sourceTrigger"]["eventType"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("the push and the tag are found", long, || found().len() == 2);
    assert_eq!(found().into_iter().collect::<Vec<_>>(), ["commit", "tag"]);
    let runs = world.runs("quiet");
    wait_until("their runs have ended well", Duration::from_secs(180), || {
        runs.iter().all(|run| world.server.run(run["runId"].as_str().unwrap())["status"] == "Succeeded")
    });
    assert_eq!(world.runs("quiet").len(), 2, "each once");

    let refusal = b"it is being moved to 10.1.2.3".to_vec();
    world.git.behave("app.git", &[GitBehaviour::Answer("GET", "503 Service Unavailable", "text/plain", refusal)]);
    let fault = || world.hooks("quiet")["looks"][0]["fault"].as_str().map(str::to_owned);
    wait_until("a look came to nothing", long, || fault().is_some());
    let told = fault().unwrap();
    assert!(told.contains("503") && !told.contains("10.1.2.3"), "{told}");
    let shown = world.task(&["hooks", "quiet"]).ok().stdout;
    assert!(shown.contains("branches and tags can't be looked at") && shown.contains(&told), "{shown}");
    let why_not = world.task(&["why-not", "quiet"]).ok().stdout;
    assert!(why_not.contains("for what no webhook told of") && why_not.contains("503"), "{why_not}");
    world.git.behave("app.git", &[]);
    wait_until("a look went well again", long, || fault().is_none());
    assert!(!world.task(&["why-not", "quiet"]).ok().stdout.contains("503"));
}

/// A `post-receive` that sends what Gitea sends of a push.
const SENDS_AS_GITEA: &str = r#"#!/bin/sh
while read -r before after ref; do
  body=$(mktemp)
  printf '{"ref":"%s","before":"%s","after":"%s","total_commits":1,' "$ref" "$before" "$after" >"$body"
  printf '"commits":[{"id":"%s","message":"files","added":["Dockerfile"],"removed":[],"modified":[]}],' "$after" >>"$body"
  printf '"head_commit":{"id":"%s","message":"files"},"pusher":{"login":"bob"},' "$after" >>"$body"
  printf '"repository":{"full_name":"team/app","clone_url":"%s"}}' "@URL@" >>"$body"
  digits=$(openssl dgst -sha256 -hmac "@SECRET@" -r <"$body" | cut -d ' ' -f 1)
  curl --silent --show-error --fail --output /dev/null --header 'Content-Type: application/json' \
    --header 'X-Gitea-Event: push' --header "X-Gitea-Delivery: $after" --header "X-Gitea-Signature: $digits" \
    --data-binary "@$body" "@HOOK@"
  rm -f "$body"
done
"#;

#[test]
fn a_forge_is_told_how_its_run_stands() {
    let root = TempDir::new().unwrap();
    let team = root.path().join("team");
    fs::create_dir(&team).unwrap();
    let repository = GitRepository::new(&team, "app.git");
    repository.git(["config", "http.receivepack", "true"]);
    let developer = GitRepository::new(root.path(), "developer.git");
    let git = GitServer::start(root.path());
    // The same host is the forge: it has no hooks, and takes what it is told.
    let answer =
        |method, status, body: &str| GitBehaviour::Answer(method, status, "application/json", body.as_bytes().to_vec());
    git.behave("api", &[answer("GET", "200 OK", "[]"), answer("POST", "201 Created", r#"{"id": 1}"#)]);
    let arguments =
        ["--allow-source", "127.0.0.1", "--public-url", "https://ci.example.org/"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let commit = developer.commit_files(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let url = git.url("team/app.git");
    let create = ["task", "create", "--output", "json", "told1", "-f", "Dockerfile", "-t", "told:{{.Run.Branch}}"];
    let forge = ["-c", &*format!("{url}#main"), "--forge", "gitea", "--git-access-token", "f0rge-t0ken"];
    let made = server.cooper(&[&create[..], &forge].concat()).ok().json();
    let hook = &made["hooks"][0];
    assert_eq!(hook["setup"], "server");
    let outside = format!("https://ci.example.org{}", hook["path"].as_str().unwrap());
    assert_eq!(hook["url"], *outside);
    let shown = server.cooper(&["task", "hooks", "told1"]).ok().stdout;
    assert!(shown.contains(&outside) && !shown.contains(&server.url()), "{shown}");
    let is_registered = || {
        let hooks = server.cooper(&["task", "hooks", "told1", "--output", "json"]).ok().json();
        !hooks["value"][0]["registration"]["registered"].is_null()
    };
    wait_until("the hook is registered", Duration::from_secs(30), is_registered);
    let posts = |target: &str| -> Vec<GitRequest> {
        let seen = git.seen().into_iter().filter(|seen| seen.method == "POST" && seen.target.starts_with(target));
        seen.inspect(|seen| {
            assert!(seen.authorization.as_deref().is_some_and(|shown| shown.contains("f0rge-t0ken")), "{seen:?}");
        })
        .collect()
    };
    let registered = posts("/api/v1/repos/team/app/hooks");
    let path = hook["path"].as_str().unwrap();
    assert!(registered.len() == 1 && registered[0].body.contains(&format!("https://ci.example.org{path}")));

    // What it sends by itself when somebody pushes.
    let script = SENDS_AS_GITEA
        .replace("@HOOK@", &format!("{}{path}", server.url()))
        .replace("@URL@", &url)
        .replace("@SECRET@", hook["secret"].as_str().unwrap());
    let file = team.join("app.git/hooks/post-receive");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    developer.git(["push", "-q", &url, "HEAD:refs/heads/main"]);

    let told = || -> Vec<Value> {
        let told = posts(&format!("/api/v1/repos/team/app/statuses/{commit}"));
        told.iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect()
    };
    let is_told = || told().last().is_some_and(|status| status["state"] == "success");
    wait_until("the forge is told of the success", Duration::from_secs(60), is_told);
    let told = told();
    let last = told.last().unwrap();
    assert_eq!((&last["context"], &told[0]["state"]), (&"cooper/told1".into(), &"pending".into()));
    // Whoever sees the status follows its link, in a browser that has no token.
    let authority = server.authority().to_owned();
    let link = last["target_url"].as_str().unwrap();
    let path = link.strip_prefix("https://ci.example.org").unwrap();
    let page = request(&authority, "GET", path, &["Accept: text/html"], b"").unwrap();
    assert_eq!(page.status, 200, "{}", page.body);
    for said in ["<h1>Run ca1 succeeded</h1>", "told1", &*commit, "branch main", "Succeeded"] {
        assert!(page.body.contains(said), "{said}: {}", page.body);
    }
    assert!(!page.body.contains("FROM scratch") && !page.body.contains("f0rge-t0ken"), "{}", page.body);
    let guessed = format!("{}0", &path[..path.len() - 1]);
    let others = ["/runs/ca1/", "/runs/ca1", "/runs/ca2/00000000000000000000000000000000"];
    for path in others.into_iter().chain((guessed != path).then_some(&*guessed)) {
        assert_eq!(request(&authority, "GET", path, &[], b"").unwrap().status, 404, "{path}");
    }

    // Whoever looks later sees what the forge was told, and has it told once more.
    let listed = || server.cooper(&["task", "notifications", "told1"]).ok().stdout;
    wait_until("it is written down that the forge has it", Duration::from_secs(60), || listed().contains("Delivered"));
    let listed = listed();
    let line = listed.lines().nth(1).unwrap();
    for part in ["forge", &*format!("success of {}", &commit[..12]), "ca1", "Delivered"] {
        assert!(line.contains(part), "{part}: {listed}");
    }
    let told = || posts(&format!("/api/v1/repos/team/app/statuses/{commit}"));
    let count = told().len();
    let again = server.cooper(&["task", "notifications", "told1", "--redeliver", "ca1"]).ok();
    assert!(again.stderr.contains("told once more how run ca1 stands"), "{again}");
    wait_until("the forge is told once more", Duration::from_secs(60), || told().len() > count);
    let last: Value = serde_json::from_str(&told().last().unwrap().body).unwrap();
    assert_eq!(last["state"], "success");
    server.cooper(&["task", "notifications", "told1", "--redeliver", "ca9"]).expect(5).error_names(&["ca9"]);
    server.expect_quiet_log();
}

/// A push of three branches, as Bitbucket signs it.
fn push_three(server: &TestServer, hook: &Value, number: usize) -> Option<u16> {
    let commit = |branch: usize| format!("{:040x}", 1_000 * (number + 1) + branch);
    let change = |branch: usize| {
        let new =
            serde_json::json!({"type": "branch", "name": format!("b{branch}"), "target": {"hash": commit(branch)}});
        serde_json::json!({"old": null, "new": new})
    };
    let body = serde_json::json!({
        "repository": {"full_name": "acme/shop", "links": {"html": {"href": "https://bitbucket.org/acme/shop"}}},
        "push": {"changes": (0..3).map(change).collect::<Vec<_>>()}
    });
    let body = body.to_string().into_bytes();
    let mut mac = Hmac::<Sha256>::new_from_slice(hook["secret"].as_str().unwrap().as_bytes()).unwrap();
    mac.update(&body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let (id, signature) = (format!("X-Request-UUID: d{number}"), format!("X-Hub-Signature: sha256={digits}"));
    let headers = ["Content-Type: application/json", "X-Event-Key: repo:push", &id, &signature];
    let answer = request(server.authority(), "POST", hook["path"].as_str().unwrap(), &headers, &body);
    answer.ok().map(|answer| answer.status)
}

#[test]
fn who_sets_a_hook_at_its_forge_is_said() {
    let server =
        TestServer::with(ServerOptions { arguments: vec!["--no-agent".to_owned()], ..ServerOptions::default() });
    let create = |more: &[&str]| server.cooper(&[&["task", "create", "-f", "Dockerfile"], more].concat()).ok().stderr;
    let said = create(&["by-hand", "-c", "https://git.example.org/team/app.git#main"]);
    assert!(said.contains("Its secret") && said.contains("Set it where pushes are to be told of"), "{said}");
    let said = create(&["tokenless", "-c", "https://github.com/acme/shop.git#main"]);
    assert!(
        said.contains("Its secret") && said.contains("task credential add --name tokenless --login-server github.com")
    );
    let own = ["-c", "https://git.example.org/team/app.git#main", "--git-access-token", "t0ken"];
    let said = create(&[&["unsaid"], &own[..]].concat());
    assert!(said.contains("keeps a token for git.example.org, but not what kind of forge"), "{said}");
    let hooks = || server.cooper(&["task", "hooks", "unsaid"]).ok().stdout;
    assert!(hooks().contains("cooper task update unsaid --forge KIND"), "{}", hooks());
    let said = server.cooper(&["task", "update", "unsaid", "--forge", "gitea"]).ok().stderr;
    assert!(said.contains("Webhook for gitea") && said.contains("started without --public-url"), "{said}");
    assert!(!hooks().contains("--forge KIND") && hooks().contains("gitea"), "{}", hooks());
}

#[test]
fn wherever_the_server_dies_each_event_has_one_run() {
    let arguments = vec!["--no-agent".to_owned()];
    let mut server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let create = ["task", "create", "--output", "json", "pushed", "-f", "Dockerfile", "-t", "app:{{.Run.Commit}}"];
    let context = ["-c", "https://bitbucket.org/acme/shop.git#main", "--branch", "b*"];
    let made = server.cooper(&[&create[..], &context].concat()).ok().json();
    let hook = &made["hooks"][0];
    assert_eq!(hook["provider"], "bitbucket-cloud");
    // Before the answer, after it and between the runs of one delivery, and with the last of them.
    let points = ["delivery-kept", "run-accepted@2", "run-accepted@3"];
    for (number, point) in points.into_iter().enumerate() {
        server.crash();
        assert!(server.restart_to_die(point), "{point}");
        let answered = push_three(&server, hook, number);
        let death = server.death(Duration::from_secs(20));
        assert!(death.stderr.contains("failpoint "), "{point}: {death}");
        assert_eq!(answered.is_none(), point == "delivery-kept", "{point}: {answered:?}");
        server.restart();
        // A forge that had no answer sends it again; one that had may.
        assert_eq!(push_three(&server, hook, number), Some(202), "{point}");
    }
    // What was answered is there, whatever was done of it.
    assert_eq!(push_three(&server, hook, points.len()), Some(202));
    server.crash();
    server.restart();
    let hooks = || server.cooper(&["task", "hooks", "pushed", "--output", "json"]).ok().json();
    wait_until("all is worked off", Duration::from_secs(30), || {
        hooks()["deliveries"].as_array().unwrap().iter().all(|delivery| !delivery["outcomes"].is_null())
    });
    assert_eq!(hooks()["deliveries"].as_array().unwrap().len(), points.len() + 1);
    let runs: Value = serde_json::from_str(&server.get("/api/v1/runs?top=1000").body).unwrap();
    let commits: Vec<&str> =
        runs["value"].as_array().unwrap().iter().filter_map(|run| run["sourceTrigger"]["commitId"].as_str()).collect();
    let different: std::collections::BTreeSet<&str> = commits.iter().copied().collect();
    assert_eq!((commits.len(), different.len()), (3 * (points.len() + 1), 3 * (points.len() + 1)), "{commits:?}");
}
