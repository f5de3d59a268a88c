//! One task file in both of the ways in which steps get networks: one namespace that all share, and one each in a
//! network of the run. Where the first is chosen nobody is to see a difference.

use std::collections::BTreeMap;

use cooper_e2e::{Context, TestServer};
use serde_json::Value;

/// What makes a file's steps have namespaces of their own, and changes nothing else.
const OWN: &str = "networks:\n  - name: of-the-run\n    isDefault: true\n";

/// What can be seen of a run: its record without what is anew each time, and what its steps said.
#[derive(Debug, PartialEq)]
struct Seen {
    status: String,
    steps: Vec<BTreeMap<&'static str, Value>>,
    said: Vec<String>,
}

/// Runs a file. Each line that a step says begins with `> `; of the service's lines those count that say how steps went.
fn see(server: &TestServer, head: &str, steps: &str, code: i32) -> Seen {
    let context = Context::empty()
        .file("acr-task.yaml", format!("version: v1.1.0\n{head}{steps}"))
        .file("data", "of the source\n")
        .file("app/Dockerfile", "ARG BASE\nFROM $BASE\nCOPY made /made\n");
    let finished = server.cooper(&["run", "--no-logs", "--output", "json", &context.display()]).expect(code);
    let run = finished.json();
    let id = run["runId"].as_str().unwrap();
    let log = server.cooper(&["logs", id]).ok().stdout;
    assert_eq!(log.contains("setting up network of-the-run"), head.contains("of-the-run"), "{log}");
    let told = ["> ", "Launching container", "Successfully executed", "Container failed", "waiting "];
    let said = log.lines().filter(|line| told.iter().any(|start| line.starts_with(start)));
    let of_step = |step: &Value| {
        let keys = ["id", "type", "status", "attempts", "exitCode", "reason"];
        keys.map(|key| (key, step[key].clone())).into()
    };
    Seen {
        status: run["status"].as_str().unwrap().to_owned(),
        steps: run["steps"].as_array().unwrap().iter().map(of_step).collect(),
        said: said.map(|line| line.replace(id, "RUN")).collect(),
    }
}

/// A step that says what a script says, and ends as it ends.
fn step(id: &str, image: &str, script: &str, more: &str) -> String {
    let script = format!("set -o pipefail; ( {script} ) 2>&1 | sed \"s/^/> /\"");
    format!("  - id: {id}\n    cmd: {image} sh -c '{script}'\n{more}")
}

#[test]
fn steps_see_the_same_in_both_modes() {
    let server = TestServer::start();
    server.base_image();
    let base = "$Registry/base/busybox:1";
    let steps = [
        "volumes:\n  - name: keys\n    secret:\n      token: aHVudGVyMjI=\nsteps:\n".to_owned(),
        step("first", base, "pwd; id -u; cat data; echo made > app/made; echo kept > $HOME/note", ""),
        step("home", base, "echo $HOME; cat $HOME/note; env | sort | grep -v HOSTNAME", "    env: [WHO=me]\n"),
        step("wrong", base, "echo before; exit 7", "    ignoreErrors: true\n"),
        step("again", base, "test -e again || { touch again; exit 3; }", "    retries: 2\n    retryDelay: 1\n"),
        step("key", base, "wc -c < /keys/token", "    volumeMounts:\n      - name: keys\n        mountPath: /keys\n"),
        step("registry", base, "wget -q -O - http://$Registry/v2/base/busybox/tags/list; echo", ""),
        // What one leaves listening ends with it.
        step("listen", base, "httpd -p 8080 -h /workspace && wget -q -O - http://127.0.0.1:8080/data", ""),
        step("once-more", base, "httpd -p 8080 -h /workspace/app && wget -q -O - http://localhost:8080/made", ""),
        "  - id: image\n    build: -t app:1 -f app/Dockerfile --build-arg BASE=$Registry/base/busybox:1 app\n"
            .to_owned(),
        step("built", "app:1", "cat /made; find /workspace | sort", "    user: \"1000\"\n"),
        step("last", base, "exit 9", ""),
        step("never", base, "echo never", ""),
    ];
    let steps = steps.concat();
    let shared = see(&server, "", &steps, 1);
    assert_eq!(shared, see(&server, OWN, &steps, 1));

    // They saw what they were to see, and not nothing alike.
    let of = |id: &str| shared.steps.iter().find(|step| step["id"] == id).unwrap();
    assert_eq!((shared.status.as_str(), &of("last")["exitCode"]), ("Failed", &Value::from(9)));
    assert_eq!(of("wrong")["exitCode"], 7);
    assert_eq!(of("never")["status"], "Skipped");
    for part in ["/workspace", "of the source", "/acb/home", "WHO=me", "made", "8", "\"name\":\"base/busybox\""] {
        assert!(shared.said.iter().any(|line| line.contains(part)), "no `{part}` in {:#?}", shared.said);
    }
}
