//! A task as JSON: everything that holds for it, whole.

use serde_json::json;

use super::*;
use crate::task::keys;

const HEAD: &str = "\
version: v1.1.0
env: [A=task, T=task]
workingDirectory: src
secrets: [{id: s, keyvault: 'cooper://s/2'}]
networks: [{name: net, driver: bridge, ipv6: true, isDefault: true}, {name: corp, skipCreation: true}]
volumes: [{name: v, secret: {f: YQ==, g: Yg==}}]
";

const BUILD: &str = "\
steps:
- id: b
  build: >-
    -t app --tag r.io/x:2 -f D --target s --build-arg X='a b' --label l=v --no-cache --pull --network none
    --add-host h:1.2.3.4 --secret id=f,src=/run/v/f --secret id=e,env=A ctx
  timeout: 60
  startDelay: 1
  retries: 2
  retryDelay: 3
  retryOnErrors: [x, y z]
  repeat: 4
  ignoreErrors: yes
  env: [A=step]
  volumeMounts: [{name: v, mountPath: /run/v}]
  workingDirectory: sub
  cache: enabled
  platforms: [linux/amd64, linux/arm64]
";

const CMD: &str = "\
- id: c
  cmd: -t -i -e A=flag img sh -c 'echo \"x\"'
  when: ['-']
  timeout: 61
  startDelay: 5
  retries: 6
  retryDelay: 7
  retryOnErrors: [z]
  repeat: 8
  ignoreErrors: true
  keep: true
  detach: true
  privileged: true
  user: u:g
  network: corp
  isolation: Default
  cpus: 1.5
  entryPoint: /bin/sh
  env: [B=2]
  expose: ['80', '53/udp']
  ports: ['8080:80']
  volumeMounts: [{name: v, mountPath: /run/w}]
  disableWorkingDirectoryOverride: true
  pull: true
  cmdDownloadRetries: 9
  cmdDownloadRetryDelay: 10
  platform: linux/arm64
";

const PUSH: &str = "\
- push: [app, 'r.io/x:2']
  when: [b, c]
  timeout: 62
  startDelay: 11
  ignoreErrors: true
";

#[test]
fn a_build_is_shown_whole() {
    let shown = task(&format!("{HEAD}{BUILD}")).to_json(&Platform::LINUX_AMD64);
    let expected = json!({
        "version": "v1.1.0",
        "secrets": [{"id": "s", "keyvault": "cooper://s/2", "clientID": null}],
        "networks": [
            {"name": "net", "driver": "bridge", "ipv6": true, "skipCreation": false, "isDefault": true},
            {"name": "corp", "driver": null, "ipv6": false, "skipCreation": true, "isDefault": false},
        ],
        // Of the files, the names alone.
        "volumes": [{"name": "v", "secret": ["f", "g"]}],
        "steps": [{
            "id": "b",
            "type": "build",
            "dependsOn": [],
            "build": "-t app:latest -t r.io/x:2 -f D --target s --build-arg 'X=a b' --label l=v --network none --add-host h:1.2.3.4 \
                      --secret id=f,src=/run/v/f --secret id=e,env=A --no-cache --pull ctx",
            "buildOptions": {
                "tags": ["app:latest", "r.io/x:2"],
                "file": "D",
                "target": "s",
                "context": "ctx",
                "contextType": "local",
                "buildArgs": ["X=a b"],
                "labels": ["l=v"],
                "noCache": true,
                "pull": true,
                "platforms": [],
                "network": "none",
                "addHosts": ["h:1.2.3.4"],
                "secrets": ["id=f,src=/run/v/f", "id=e,env=A"],
                "cacheFrom": [],
                "cacheTo": [],
            },
            "when": ["-"],
            "timeout": 60,
            "startDelay": 1,
            "retries": 2,
            "retryDelay": 3,
            "retryOnErrors": ["x", "y z"],
            "repeat": 4,
            "ignoreErrors": true,
            "env": ["A=step", "T=task"],
            "volumeMounts": [{"name": "v", "mountPath": "/run/v"}],
            "workingDirectory": "/workspace/sub",
            "cache": "enabled",
            "platforms": ["linux/amd64", "linux/arm64"],
        }],
    });
    assert_eq!(shown, expected, "{shown:#}");
}

#[test]
fn a_command_is_shown_whole() {
    let shown = task(&format!("{HEAD}{BUILD}{CMD}")).to_json(&Platform::LINUX_AMD64);
    let expected = json!({
        "id": "c",
        "type": "cmd",
        "dependsOn": [],
        "cmd": r#"-t -i img:latest sh -c 'echo "x"'"#,
        "cmdOptions": {"image": "img:latest", "args": ["sh", "-c", r#"echo "x""#], "tty": true, "interactive": true},
        "when": ["-"],
        "timeout": 61,
        "startDelay": 5,
        "retries": 6,
        "retryDelay": 7,
        "retryOnErrors": ["z"],
        "repeat": 8,
        "ignoreErrors": true,
        "keep": true,
        "detach": true,
        "privileged": true,
        "user": "u:g",
        "network": "corp",
        "isolation": "default",
        "cpus": "1.5",
        "entryPoint": "/bin/sh",
        "env": ["B=2", "T=task", "A=flag"],
        "expose": ["80", "53/udp"],
        "ports": ["8080:80"],
        "volumeMounts": [{"name": "v", "mountPath": "/run/w"}],
        "workingDirectory": "/workspace/src",
        "disableWorkingDirectoryOverride": true,
        "pull": true,
        "cmdDownloadRetries": 9,
        "cmdDownloadRetryDelay": 10,
        "platform": "linux/arm64",
    });
    assert_eq!(shown["steps"][1], expected, "{shown:#}");
}

#[test]
fn a_push_is_shown_whole() {
    let shown = task(&format!("{HEAD}{BUILD}{CMD}{PUSH}")).to_json(&Platform::LINUX_AMD64);
    let expected = json!({
        "id": "acb_step_2",
        "type": "push",
        "dependsOn": ["b", "c"],
        "push": ["app:latest", "r.io/x:2"],
        "when": ["b", "c"],
        "timeout": 62,
        "startDelay": 11,
        "ignoreErrors": true,
        // Where a step says nothing, what the run is for.
        "platform": "linux/amd64",
    });
    assert_eq!(shown["steps"][2], expected, "{shown:#}");
    assert!(!shown.to_string().contains("YQ=="));
}

#[test]
fn each_property_is_shown_of_each_step_that_it_counts_for() {
    let defaults = task("steps:\n- build: .\n- cmd: img\n- push: [x]\n").to_json(&Platform::LINUX_AMD64);
    let steps = defaults["steps"].as_array().expect("steps");
    for (step, kind) in steps.iter().zip(["build", "cmd", "push"]) {
        for key in keys::STEP.keys.iter().filter(|key| key.steps.contains(&kind)) {
            assert!(step.get(key.name).is_some(), "`{}` of a {kind}: {step:#}", key.name);
        }
    }
    assert_eq!(steps[1]["timeout"], 600);
    assert_eq!((&steps[1]["network"], &steps[1]["retryDelay"]), (&"acb_default_network".into(), &5.into()));
    assert_eq!(
        steps.iter().map(|step| step["dependsOn"].clone()).collect::<Vec<_>>(),
        [json!([]), json!(["acb_step_0"]), json!(["acb_step_1"])]
    );
}
