//! `cooper lint`, `render` and `graph`: what they say of files that are right and of those that are not.

use super::Cooper;

const DIAMOND: &str = "version: v1.1.0\nalias:\n  src: [aliases.yaml]\nsecrets:\n- id: token\n  keyvault: cooper://npm\nsteps:\n\
                       - id: a\n  cmd: $tool -c '{{.Secrets.token}}'\n- id: b\n  build: -t x --build-arg P={{.Values.pw}} .\n  \
                       when: [a]\n- id: c\n  cmd: $tool\n  when: [a]\n  platform: linux/amd64\n- id: d\n  push: [x]\n  when: [b, c]\n";

fn written(text: &str) -> Cooper {
    let cooper = Cooper::new();
    cooper.write("task.yaml", text);
    cooper.write("aliases.yaml", "tool: '{{.Run.Registry}}/tool:1'\n");
    cooper
}

#[tokio::test]
async fn lint_says_what_a_file_means() {
    let cooper = written(DIAMOND);
    let ended = cooper.run(["lint", "task.yaml", "--set-secret", "pw=hunter22", "--output", "json"]).await;
    ended.succeeds();
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let steps: Vec<String> = shown["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| format!("{} {} {}", step["id"], step["type"], step["dependsOn"]))
        .collect();
    assert_eq!(steps, [r#""a" "cmd" []"#, r#""b" "build" ["a"]"#, r#""c" "cmd" ["a"]"#, r#""d" "push" ["b","c"]"#]);
    assert_eq!(shown["steps"][0]["cmdOptions"]["image"], "localhost:5000/tool:1");
    assert_eq!(shown["steps"][1]["buildOptions"]["buildArgs"][0], "P=***");
    assert!(!ended.stdout.contains("hunter22") && !ended.stderr.contains("hunter22"), "{ended:?}");

    let ended = cooper.run(["lint", "task.yaml"]).await;
    ended.succeeds();
    assert!(ended.stdout.starts_with("task.yaml: 4 steps, no errors"), "{ended:?}");
}

#[tokio::test]
async fn what_is_shorter_than_a_word_is_masked_nowhere() {
    let cooper = written("steps:\n- cmd: img {{.Values.long}} {{.Values.short}}\n");
    let flags = ["--set-secret", "short=st", "--set-secret", "long=first", "--output", "json"];
    for command in ["lint", "graph", "render"] {
        let ended = cooper.run([&[command, "task.yaml"], &flags[..]].concat()).await;
        ended.succeeds();
        assert!(!ended.stdout.contains("first"), "{ended:?}");
        let id = if command == "render" { "img *** st" } else { "\"acb_step_0\"" };
        assert!(ended.stdout.contains(id), "{ended:?}");
    }
}

#[tokio::test]
async fn faults_go_to_stderr_with_their_lines_and_end_with_2() {
    let cooper = written("steps:\n- cmd: img -v\n  wehn: [x]\n- cmd: -v /:/host img\n  when: [nope]\n");
    for command in ["lint", "graph"] {
        let ended = cooper.run([command, "task.yaml", "--output", "json"]).await;
        ended.fails_with(2, &["task.yaml:4:8: flag `-v` is not allowed", "volumeMounts"]);
        assert_eq!(ended.stdout, "");
        assert!(ended.stderr.contains("  4 | - cmd: -v /:/host img\n    |        ^^\n"), "{}", ended.stderr);
        assert!(ended.stderr.contains("error: task.yaml:5:10: step `acb_step_1` waits for `nope`"), "{}", ended.stderr);
    }
    let cooper = written("steps:\n- cmd: img\n  wehn: [x]\n");
    let ended = cooper.run(["lint", "task.yaml"]).await;
    ended.succeeds();
    assert!(ended.stderr.starts_with("warning: task.yaml:3:3: a step has no key `wehn`; "), "{ended:?}");
    assert!(ended.stderr.contains("did you mean `when`?"), "{ended:?}");

    cooper.run(["lint", "nothing.yaml"]).await.fails_with(2, &["task file `nothing.yaml`", "can't be read"]);
    cooper.run(["lint", "task.yaml", "--set", "x"]).await.fails_with(2, &["--set", "NAME=VALUE"]);
    cooper.run(["lint", "."]).await.fails_with(2, &["task file `.` is a folder"]);
    cooper.write("url.yaml", "version: v1.1.0\nalias:\n  src: ['https://h/a.yaml']\nsteps:\n- cmd: $x\n");
    cooper.run(["lint", "url.yaml"]).await.fails_with(2, &["url.yaml:3:9", "alias source `https://h/a.yaml`"]);
    cooper.write("copy.yaml", "x: img\n");
    cooper.run(["lint", "url.yaml", "--alias-source", "https://h/a.yaml=copy.yaml"]).await.succeeds();
}

#[tokio::test]
async fn render_and_graph_show_the_file() {
    let cooper = written(DIAMOND);
    let ended = cooper.run(["render", "task.yaml", "--set-secret", "pw=hunter22"]).await;
    ended.succeeds();
    assert!(ended.stdout.contains("cmd: localhost:5000/tool:1 -c '***'"), "{ended:?}");
    assert!(ended.stdout.contains("P=***"), "{ended:?}");

    let ended = cooper.run(["graph", "task.yaml"]).await;
    ended.succeeds();
    let tree = "a (cmd)\n├── b (build)\n└── c (cmd, linux/amd64)\n    └── d (push)  also after b\n";
    assert_eq!(ended.stdout, tree, "{ended:?}");
    let ended = cooper.run(["graph", "task.yaml", "--format", "mermaid"]).await;
    assert!(ended.stdout.starts_with("flowchart TD\n  s0[\"a<br/>cmd\"]\n"), "{ended:?}");
    assert!(ended.stdout.ends_with("  s0 --> s1\n  s0 --> s2\n  s1 --> s3\n  s2 --> s3\n"), "{ended:?}");
    let ended = cooper.run(["graph", "task.yaml", "--format", "dot"]).await;
    assert!(ended.stdout.contains("  \"b\" -> \"d\";\n") && ended.stdout.ends_with("}\n"), "{ended:?}");
    let ended = cooper.run(["graph", "task.yaml", "-o", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(shown["steps"][3]["dependsOn"], serde_json::json!(["b", "c"]));
}
