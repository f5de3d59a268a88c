//! Pull requests of forks, from a real Git server to an agent that is there for strangers alone: the base's definition, the
//! fork's files, and nothing that is worth anything.

use std::fs;
use std::time::Duration;

use cooper_e2e::{
    Context, GitBehaviour, GitRepository, GitServer, RemoteAgent, ServerOptions, TestServer, request, wait_until,
};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

const ZERO: &str = "0000000000000000000000000000000000000000";

/// A server whose only agent is for strangers, and a repository with a fork's pull requests.
struct World {
    server: TestServer,
    git: GitServer,
    base: String,
    fork: String,
    agent: RemoteAgent,
    _root: TempDir,
}

impl World {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("team")).unwrap();
        let repository = GitRepository::new(&root.path().join("team"), "app.git");
        let base = repository.commit_files(&[
            ("Dockerfile", "FROM scratch\nARG TOKEN\nCOPY theirs /\n"),
            ("ours.dockerfile", "FROM scratch\nCOPY theirs /\n"),
            (
                "task.yaml",
                "version: v1.1.0\nsteps:\n  - build: -t $Registry/forked:task -f ours.dockerfile .\n  - push: [$Registry/forked:task]\n",
            ),
        ]);
        // Whatever the fork says of how it is built would fail.
        let fork = repository.commit_files(&[
            ("Dockerfile", "FROM nowhere.example/evil\n"),
            ("task.yaml", "version: v0\n"),
            ("theirs", "hello\n"),
        ]);
        repository.git(["update-ref", "refs/pull/7/head", &fork]);
        repository.git(["reset", "-q", "--hard", &base]);
        let git = GitServer::start(root.path());
        let arguments = ["--allow-source", "127.0.0.1", "--no-agent"].map(str::to_owned).to_vec();
        let server = TestServer::with(ServerOptions { arguments, ..ServerOptions::default() });
        server.cooper(&["pool", "create", "strangers", "--untrusted"]).ok();
        let token = root.path().join("token");
        let made = server.cooper(&["token", "create", "outside", "--scope", "agent:strangers"]).ok();
        fs::write(&token, made.stdout.trim()).unwrap();
        fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let token = token.display().to_string();
        let agent = RemoteAgent::start(
            &server,
            "outside",
            &server.url(),
            None,
            &["--pool", "strangers", "--token-file", &token],
        );
        Self { server, git, base, fork, agent, _root: root }
    }

    /// Makes a task that listens to pull requests; its hook.
    fn task(&self, name: &str, more: &[&str]) -> Value {
        let url = format!("{}#main", self.git.url("team/app.git"));
        let create = ["task", "create", "--output", "json", name, "-c", &url, "--forge", "gitea"];
        let events = ["--commit-trigger-enabled", "false", "--pull-request-trigger-enabled"];
        self.server.cooper(&[&create[..], &events, more].concat()).ok().json()["hooks"][0].clone()
    }

    /// Tells a hook of a fork's pull request.
    fn tell(&self, hook: &Value, number: u64) {
        let url = self.git.url("team/app.git");
        let repository = json!({"id": 5, "full_name": "team/app", "clone_url": url});
        let fork = json!({"id": 6, "full_name": "bob/app", "clone_url": self.git.url("bob/app.git")});
        let body = json!({
            "action": "opened", "number": number, "repository": repository, "sender": {"login": "bob"},
            "pull_request": {
                "number": number, "title": "Faster", "state": "open", "draft": false,
                "base": {"ref": "main", "sha": ZERO, "repo_id": 5, "repo": repository},
                "head": {"ref": "faster", "sha": self.fork, "repo_id": 6, "repo": fork},
            },
        });
        let body = body.to_string().into_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(hook["secret"].as_str().unwrap().as_bytes()).unwrap();
        mac.update(&body);
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let delivery = format!("X-Gitea-Delivery: pull-{number}");
        let signature = format!("X-Gitea-Signature: {digits}");
        let headers = ["Content-Type: application/json", "X-Gitea-Event: pull_request", &*delivery, &*signature];
        let answer = request(self.server.authority(), "POST", hook["path"].as_str().unwrap(), &headers, &body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
    }

    /// What the last delivery to a task led to.
    fn outcome(&self, name: &str) -> Value {
        let outcome = || {
            let hooks = self.server.cooper(&["task", "hooks", name, "--output", "json"]).ok().json();
            hooks["deliveries"][0]["outcomes"][0].clone()
        };
        wait_until("the delivery is worked off", Duration::from_secs(30), || !outcome().is_null());
        outcome()
    }

    /// A run when it has ended, with its log.
    fn ended(&self, id: &str) -> (Value, String) {
        wait_until("the run has ended", Duration::from_secs(90), || !self.server.run(id)["finishTime"].is_null());
        (self.server.run(id), self.server.cooper(&["logs", id]).stdout)
    }
}

#[test]
fn a_forks_pull_request_is_built_as_the_base_says_where_strangers_are() {
    let world = World::new();
    let forks = ["--fork-pool", "strangers"];
    let secret = ["-t", "forked:{{.Run.Commit}}", "--secret-arg", "TOKEN=hunter22", "-f", "Dockerfile"];
    let docker = world.task("dockerfile", &[&forks[..], &secret].concat());
    let file = world.task("taskfile", &[&forks[..], &["-f", "task.yaml"]].concat());
    let refusing = world.task("refusing", &["-f", "Dockerfile", "-t", "forked:1"]);
    for hook in [&docker, &file, &refusing] {
        world.tell(hook, 7);
    }
    let refused = world.outcome("refusing");
    assert_eq!((&refused["rule"], &refused["runId"]), (&"fork".into(), &Value::Null), "{refused}");
    for name in ["dockerfile", "taskfile"] {
        let id = world.outcome(name)["runId"].as_str().unwrap_or_else(|| panic!("{}", world.outcome(name))).to_owned();
        let (run, log) = world.ended(&id);
        assert_eq!((&run["status"], &run["agentPoolName"]), (&"Succeeded".into(), &"strangers".into()), "{run}\n{log}");
        assert_eq!((&run["sourceCommit"], &run["outputImages"]), (&world.fork.as_str().into(), &json!([])), "{run}");
        let definition = format!("its definition is of commit {}", world.base);
        assert!(log.contains(&definition) && !log.contains("hunter22"), "{log}");
        // The steps show where they ran.
        assert!(run["steps"].to_string().contains("outside"), "{run}");
        // A rerun is no more than the first, and takes what that one found.
        if name == "dockerfile" {
            let again = world.server.cooper(&["runs", "rerun", &id, "--output", "json"]).ok().json();
            assert_eq!((&again["agentPoolName"], &again["outputImages"]), (&"strangers".into(), &json!([])), "{again}");
        }
    }

    // Nothing else runs there, and a host that wants a credential is shown none, though the task keeps one.
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let own = world.server.cooper(&["build", "--no-push", "--agent-pool", "strangers", &context.display()]);
    assert!(own.code != Some(0) && own.stderr.contains("marked for untrusted work"), "{own}");
    world.git.behave("team", &[GitBehaviour::Password("git", "s3cret-t0ken")]);
    let credential = ["task", "credential", "add", "dockerfile", "--login-server", &world.git.host()];
    let login = ["--username", "git", "--password", "s3cret-t0ken"];
    world.server.cooper(&[&credential[..], &login].concat()).ok();
    world.tell(&docker, 8);
    wait_until("the second delivery is there", Duration::from_secs(30), || {
        let hooks = world.server.cooper(&["task", "hooks", "dockerfile", "--output", "json"]).ok().json();
        hooks["deliveries"].as_array().is_some_and(|all| all.len() == 2)
    });
    let id = world.outcome("dockerfile")["runId"].as_str().unwrap().to_owned();
    let (run, log) = world.ended(&id);
    assert_eq!(run["status"], "Failed", "{run}\n{log}");
    let shown = world.git.seen().into_iter().filter(|seen| seen.target.starts_with("/team/app.git"));
    assert!(shown.clone().count() > 0 && shown.clone().all(|seen| seen.authorization.is_none()));
    assert!(!world.agent.log().contains("s3cret-t0ken"));
}
