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
    // What a file is after its templates is shown whatever it says, and told of.
    let ended = cooper.run(["render", "task.yaml"]).await;
    ended.succeeds();
    assert!(ended.stdout.contains("- cmd: -v /:/host img"), "{ended:?}");
    assert!(ended.stderr.ends_with("this is no task that could run: `cooper lint` tells its 2 errors\n"), "{ended:?}");
    // It has no faults but those of its templates.
    let cooper = written("steps:\n- cmd: img {{fail \"not today\"}}\n");
    for output in ["json", "text"] {
        let ended = cooper.run(["render", "task.yaml", "--output", output]).await;
        ended.fails_with(2, &["task.yaml:2:", "not today"]);
        assert_eq!(ended.stdout, "");
    }
    let cooper = written("steps:\n- cmd: img\n  wehn: [x]\n");
    let ended = cooper.run(["lint", "task.yaml"]).await;
    ended.succeeds();
    assert!(ended.stderr.starts_with("warning: task.yaml:3:3: a step has no key `wehn`; "), "{ended:?}");
    assert!(ended.stderr.contains("did you mean `when`?"), "{ended:?}");

    // It is a file all the same, and what is wrong with its run is told where it stands.
    cooper.write("unbuilt.yaml", "steps:\n- push: [a]\n");
    let ended = cooper.run(["lint", "unbuilt.yaml", "--output", "json"]).await;
    ended.succeeds();
    let told = "warning: unbuilt.yaml:2:10: a run is refused: step acb_step_0: no step before it builds";
    assert!(ended.stderr.starts_with(told), "{ended:?}");
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((&shown["steps"][0]["type"], &shown["warnings"][0]["line"]), (&"push".into(), &2.into()));

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

#[tokio::test]
async fn all_three_take_what_a_run_takes() {
    let cooper = Cooper::new();
    let text = "version: v1.1.0\nalias:\n  src: [own.yaml]\nsteps:\n- cmd: $tool {{.Values.a}} {{.Values.b}} $own {{.Run.Registry}} \
                {{.Run.Architecture}}\n";
    cooper.write("ci/task.yaml", text);
    cooper.write("source/own.yaml", "own: of-the-source\n");
    cooper.write("v.yaml", "a: of-the-file\nb: hidden\n");
    let flags = [
        ["--values", "v.yaml"],
        ["--set", "b=set"],
        ["--source", "source"],
        ["--image-alias", "tool=r.io/tool:2"],
        ["--registry-name", "reg.example"],
        ["--platform", "linux/arm64"],
    ];
    let line = "r.io/tool:2 of-the-file set of-the-source reg.example arm64";
    let mut described = Vec::new();
    for command in ["lint", "render", "graph"] {
        for file in ["ci/task.yaml", "-"] {
            let all = [&[command, file, "--output", "json"], flags.as_flattened()].concat();
            let ended = cooper.piped(&all, if file == "-" { text } else { "" }).await;
            ended.succeeds();
            assert_eq!(ended.stderr, "");
            let mut shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
            if command == "render" {
                assert_eq!(shown["rendered"], format!("version: v1.1.0\nsteps:\n- cmd: {line}\n"));
                continue;
            }
            assert_eq!(
                (&shown["steps"][0]["cmd"], &shown["steps"][0]["platform"]),
                (&line.into(), &"linux/arm64".into())
            );
            // The one also says what it warns of.
            shown.as_object_mut().expect("an object").remove("warnings");
            described.push(shown);
        }
        // Each flag counts: without it, something is missing or not the same.
        for left_out in 0..flags.len() {
            let mut fewer = flags.to_vec();
            fewer.remove(left_out);
            let ended = cooper.run([&[command, "ci/task.yaml", "-o", "json"], fewer.as_flattened()].concat()).await;
            assert!(!ended.stdout.contains(line), "{command} without {}: {ended:?}", flags[left_out][0]);
        }
    }
    assert!(described.windows(2).all(|pair| pair[0] == pair[1]), "{described:#?}");
}

#[tokio::test]
async fn all_three_read_every_example() {
    let cooper = Cooper::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tasks");
    let files = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("an entry").path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    assert!(files.len() >= 10, "{files:?}");
    for file in files.iter().map(|path| path.to_str().expect("text")) {
        for command in ["lint", "render", "graph"] {
            let ended = cooper.run([command, file, "--set-secret", "user=somebody"]).await;
            ended.succeeds();
            assert_eq!((ended.stderr.as_str(), ended.stdout.is_empty()), ("", false), "{command} {file}");
        }
    }
}
