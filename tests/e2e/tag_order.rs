//! Two pushes, of which the older one's build is the slower one: the tag stays where the newer one has moved it,
//! in the server's own registry and in another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use cooper_e2e::{GitRepository, GitServer, RemoteAgent, ServerOptions, TestServer, request, wait_until};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use super::registries::keep;

const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    server: TestServer,
    /// Where the images go, if not to the server's own registry.
    other: Option<TestServer>,
    url: String,
    hook: Value,
    _git: GitServer,
    _root: TempDir,
}

impl World {
    /// Tells the task's hook of a push to `main`; the run that it sets off.
    fn push(&self, commit: &str) -> String {
        let body = json!({"delivery": commit, "repository": self.url, "ref": "refs/heads/main", "after": commit});
        let body = body.to_string().into_bytes();
        let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.hook["secret"].as_str().unwrap().as_bytes()).unwrap();
        mac.update(format!("{time}.").as_bytes());
        mac.update(&body);
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let (time, signature) = (format!("Cooper-Timestamp: {time}"), format!("Cooper-Signature: v1={digits}"));
        let headers = ["Content-Type: application/json", &time, &signature];
        let path = self.hook["path"].as_str().unwrap();
        let answer = request(self.server.authority(), "POST", path, &headers, &body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        let find = || {
            let runs = self.server.cooper(&["task", "list-runs", "ordered", "--output", "json"]).ok().json();
            let is_of = |run: &&Value| run["sourceTrigger"]["commitId"] == commit;
            runs.as_array().unwrap().iter().find(is_of).map(|run| run["runId"].as_str().unwrap().to_owned())
        };
        wait_until("the push has set off a run", PATIENCE, || find().is_some());
        find().unwrap()
    }

    /// A run that has ended well, and its log.
    fn ended(&self, id: &str) -> (Value, String) {
        wait_until("the run has ended", PATIENCE, || !self.server.run(id)["finishTime"].is_null());
        let (run, log) = (self.server.run(id), self.server.cooper(&["logs", id]).ok().stdout);
        assert_eq!(run["status"], "Succeeded", "{run}\n{log}");
        (run, log)
    }

    /// The tags that a run's push has moved.
    fn moved(&self, run: &Value) -> Vec<String> {
        let pushed = match &self.other {
            None => run["outputImages"].clone(),
            Some(_) => run["steps"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|step| step["pushed"].as_array())
                .flatten()
                .cloned()
                .collect(),
        };
        pushed.as_array().unwrap().iter().map(|image| image["tag"].as_str().unwrap().to_owned()).collect()
    }

    /// The commit whose file is in the image of a tag, told by its manifest.
    fn manifest(&self, tag: &str) -> String {
        let registry = self.other.as_ref().unwrap_or(&self.server);
        let answer = registry.registry(&format!("/v2/app/manifests/{tag}"));
        assert_eq!(answer.status, 200, "{tag}: {}", answer.body);
        answer.body
    }
}

#[test]
fn an_older_run_that_ends_later_takes_no_tag_back() {
    takes_no_tag_back(None);
}

#[test]
fn nor_does_it_in_another_registry() {
    takes_no_tag_back(Some(TestServer::start()));
}

fn takes_no_tag_back(other: Option<TestServer>) {
    let root = TempDir::new().unwrap();
    let repository = GitRepository::new(root.path(), "app.git");
    let git = GitServer::start(root.path());
    let arguments = ["--allow-source", "127.0.0.1"].map(str::to_owned).to_vec();
    let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
    let prefix = other.as_ref().map(|other| {
        let host = format!("localhost:{}", other.port());
        keep(&server, &host, &other.token(), &[]);
        format!("{host}/")
    });
    let prefix = prefix.unwrap_or_default();
    let (latest, own) = (format!("{prefix}app:latest"), format!("{prefix}app:{{{{.Run.Commit}}}}"));
    let task = format!("version: v1.1.0\nsteps:\n  - build: -t {latest} -t {own} .\n  - push: ['{latest}', '{own}']\n");
    let dockerfile = "FROM scratch\nCOPY a /a\n";
    let file =
        |text: &str| repository.commit_files(&[("Dockerfile", dockerfile), ("acr-task.yaml", &task), ("a", text)]);
    let (older, newer) = (file("older"), file("newer"));
    // The older one's pool has nobody yet who does its work.
    server.cooper(&["pool", "create", "slow"]).ok();
    let url = git.url("app.git");
    let context = format!("{url}#main");
    let create = ["task", "create", "ordered", "--output", "json", "-c", &context, "--agent-pool", "slow"];
    let what: &[&str] = match &other {
        None => &["-f", "Dockerfile", "-t", &latest, "-t", &own],
        Some(_) => &["-f", "acr-task.yaml"],
    };
    let made = server.cooper(&[&create[..], what].concat()).ok().json();
    let world = World { server, other, url, hook: made["hooks"][0].clone(), _git: git, _root: root };
    let (server, first) = (&world.server, world.push(&older));
    server.cooper(&["task", "update", "ordered", "--agent-pool", "default"]).ok();
    let second = world.push(&newer);
    let (run, log) = world.ended(&second);
    assert_eq!(world.moved(&run).len(), 2, "{run}");
    assert!(!log.contains("tag not moved"), "{log}");
    assert!(server.run(&first)["finishTime"].is_null(), "it waits");
    assert_eq!(world.manifest("latest"), world.manifest(&newer));

    let token = world._root.path().join("token");
    let text = server.cooper(&["token", "create", "late", "--scope", "agent:slow"]).ok().stdout;
    fs::write(&token, text.trim()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let more = ["--pool", "slow", "--token-file", &token.display().to_string()];
    let _agent = RemoteAgent::start(server, "late", &server.url(), None, &more);
    let (run, log) = world.ended(&first);
    let line = format!("{latest}: tag not moved: newer run {second} has moved it");
    assert!(log.contains(&line), "{log}");
    assert_eq!(world.moved(&run), [older.as_str()], "what no newer run has moved is moved: {run}");
    assert_eq!(world.manifest("latest"), world.manifest(&newer));
    assert_ne!(world.manifest("latest"), world.manifest(&older));
    // Whoever asks by hand wants that one.
    let again = server.cooper(&["runs", "rerun", &first, "--no-wait", "--output", "json"]).ok().json();
    let (_, log) = world.ended(again["runId"].as_str().unwrap());
    assert!(!log.contains("tag not moved"), "{log}");
    assert_eq!(world.manifest("latest"), world.manifest(&older));
}
