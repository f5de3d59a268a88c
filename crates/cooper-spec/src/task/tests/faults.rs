//! Every fault of the contract's §1.1 to §1.13, and what we say of it.

use super::*;

/// Whether one of the file's faults holds the text; the steps' part of a file alone is given.
pub(super) fn check(text: &str, expected: &str) {
    let told = faults(text);
    assert!(told.lines().any(|line| line.contains(expected)), "{text}\n{told}\nwithout\n{expected}");
}

#[test]
fn versions() {
    check("version: 1.1.0\nsteps: []\n", "task.yaml:1:10: version `1.1.0` is not known; did you mean `v1.1.0`?");
    check("version: v1.2.0\n", "version `v1.2.0` is not known; known are v1.0.0 and v1.1.0");
    check("version: 1.0.0\n", "version `1.0.0` is not known; did you mean `v1.0.0`?");
    check("version: v2\n", "version `v2` is not known; known are v1.0.0 and v1.1.0");
    check("version: latest\n", "version `latest` is not known");
    check("version: [v1.1.0]\n", "`version` of a task is a list; write one text");
    check("version: 1.0\n", "version `1.0` is not known");
    for (text, version) in [
        ("steps: []", TaskVersion::V1_0_0),
        ("version:\nsteps: []", TaskVersion::V1_0_0),
        ("version: 1.0-preview-1\nsteps: []", TaskVersion::Preview1),
        ("version: V1.1.0\nsteps: []", TaskVersion::V1_1_0),
    ] {
        assert_eq!(task(text).version, version, "{text}");
    }
}

#[test]
fn kinds_of_values() {
    let steps = [
        ("steps: x\n", "task.yaml:1:8: `steps` of a task is a text, not a list; write `steps: [\"x\"]`"),
        ("steps: {a: b}\n", "`steps` of a task is a map; write a list"),
        ("steps: 5\n", "`steps` of a task is a text, not a list"),
        ("just a text\n", "task.yaml:1:1: a task is a text; write a map with the keys version, alias,"),
        ("stepTimeout: '5'\n", "`stepTimeout` of a task is `5`, which is no number"),
        ("workingDirectory: [a]\n", "`workingDirectory` of a task is a list; write one text"),
        ("env: {A: 1}\n", "`env` of a task is a map; write a list"),
        ("secrets: {id: a}\n", "`secrets` of a task is a map; write a list"),
        ("networks: [a]\n", "a network is a text; write a map with the keys name, driver,"),
        ("networks: [{name: n, ipv6: 1}]\n", "`ipv6` of a network is `1`, which is no boolean"),
        (
            "volumes: [{name: v, secret: [a]}]\n",
            "`secret` of a volume is a list; write a map: `NAME: TEXT` in each line",
        ),
        ("steps: [a]\n", "a step is a text; write a map with the keys id, cmd,"),
        ("steps:\n- cmd: a\n  ignoreErrors: maybe\n", "`ignoreErrors` of a step is `maybe`, which is no boolean"),
        ("steps:\n- cmd: a\n  retryOnErrors: x\n", "`retryOnErrors` of a step is a text, not a list"),
        ("steps:\n- cmd: a\n  volumeMounts: [v]\n", "a mount is a text; write a map with the keys name, mountPath"),
        ("steps:\n- cmd: a\n  network: {name: n}\n", "`network` of a step is a map; write one text"),
        ("- a\n", "task.yaml:1:1: a task is a list; write a map with the keys version, alias,"),
        ("steps: [~]\n", "a step is nothing; write a map"),
        ("steps: [[]]\n", "a step is a list"),
        ("steps:\n- cmd: a\n  when: b\n", "`when` of a step is a text, not a list; write `when: [\"b\"]`"),
        ("steps:\n- push: x\n", "`push` of a step is a text, not a list; write `push: [\"x\"]`"),
        ("steps:\n- cmd: a\n  env: A=1\n", "`env` of a step is a text, not a list"),
        ("steps:\n- cmd: [a]\n", "`cmd` of a step is a list; write one text"),
        (
            "steps:\n- cmd: a\n  timeout: \"300\"\n",
            "`timeout` of a step is `300`, which is no number; write a whole number, without",
        ),
        ("steps:\n- cmd: a\n  timeout: 5m\n", "`timeout` of a step is `5m`, which is no number"),
        ("steps:\n- cmd: a\n  timeout: 9999999999\n", "`timeout` is 9999999999; write 1000000000 or less"),
        (
            "steps:\n- cmd: a\n  keep: \"true\"\n",
            "`keep` of a step is `true`, which is no boolean; write true or false, without quotes",
        ),
        ("steps:\n- cmd: a\n  keep: [true]\n", "`keep` of a step is a list; write true or false"),
        ("steps:\n- cmd: a\n  env: [{A: 1}]\n", "an entry of `env` of a step is a map; write a text"),
        ("steps:\n- cmd: a\n  [b]: c\n", "a key of a step is a list; write a name before the colon"),
        ("steps:\n- cmd: a\n  <<: b\n", "`<<` merges a text; let it name a map"),
        ("steps: [\n", "task.yaml:"),
        ("steps: *a\n", "task.yaml:1:8"),
    ];
    for (text, expected) in steps {
        check(text, expected);
    }
    let text = "x: &x {cmd: img, timeout: 5}\nsteps:\n- <<: *x\n  id: 1\n  cpus: 2\n  keep: Yes\n  timeout: 07\n";
    let step = &task(text).steps[0];
    assert_eq!((step.id.as_str(), step.cpus.as_deref(), step.keep), ("1", Some("2"), true));
    assert_eq!(step.timeout.as_secs(), 7);
}

#[test]
fn steps() {
    let table = [
        ("- id: a\n", "task.yaml:2:3: step `a` has no `cmd`, `build` or `push`; give it one of them"),
        ("- cmd: ''\n  push: []\n", "step `acb_step_0` has no `cmd`, `build` or `push`"),
        ("- cmd: a\n  build: .\n", "step `acb_step_0` has build and cmd; a step does one thing: make a step of each"),
        ("- cmd: a\n  push: [b]\n", "step `acb_step_0` has cmd and push"),
        ("- cmd: a\n  retries: -1\n", "`retries` of a step is -1; write 0 or more"),
        ("- cmd: a\n  repeat: -1\n", "`repeat` of a step is -1; write 0 or more"),
        ("- cmd: a\n  cmdDownloadRetries: -1\n", "`cmdDownloadRetries` of a step is -1"),
        ("- cmd: a\n  id: a b\n", "step id `a b` holds a blank"),
        ("- cmd: a\n  id: \"a\\tb\"\n", "holds a blank; write letters, digits, `-`, `_` and `.`"),
        ("- cmd: a\n  id: [x]\n", "`id` of a step is a list; write one text"),
        ("- build: .\n  push: [b]\n", "step `acb_step_0` has build and push; a step does one thing"),
        ("- build: .\n  cmd: a\n  push: [b]\n", "step `acb_step_0` has build and cmd and push"),
        ("- cmd: '  '\n", "step `acb_step_0` has no `cmd`, `build` or `push`; give it one of them"),
        ("- when: ['-']\n", "step `acb_step_0` has no `cmd`, `build` or `push`"),
        ("- cmd: a\n  id: \"a\\u00a0b\"\n", "holds a blank"),
        ("- cmd: a\n  id: a/b\n", "step id `a/b` is not one; write at most 128 letters"),
        ("- cmd: a\n  id: acb_root\n", "step id `acb_root` is reserved"),
        ("- cmd: a\n  id: '-'\n", "step id `-` is reserved"),
        ("- cmd: a\n  cache: maybe\n", "`cache` of a step is `maybe`; write enabled or disabled"),
        ("- push: [a]\n  cache: maybe\n", "`cache` of a step is `maybe`"),
        ("- build: .\n  cache: yes\n", "`cache` of a step is `yes`; write enabled or disabled"),
        (
            "- cmd: a\n  isolation: hyperv\n",
            "`isolation` of a step is `hyperv`, and the step runs on Linux; leave it out",
        ),
        ("- cmd: a\n  isolation: Process\n", "`isolation` of a step is `process`, and the step runs on Linux"),
        ("- cmd: a\n  isolation: jail\n", "`isolation` of a step is `jail`; write default or process or hyperv"),
        ("- build: --isolation jail .\n", "flag `--isolation` is `jail`; write default, process or hyperv"),
        ("- cmd: a\n  cpus: lots\n", "`cpus` is `lots`; write a number above 0"),
        ("- cmd: a\n  cpus: 0\n", "`cpus` is `0`"),
        (
            "- cmd: a\n  cpus: '1.0000000001'\n",
            "`cpus` is `1.0000000001`; write a number above 0, such as 1.5, with at most 9",
        ),
        ("- cmd: a\n  ports: [http]\n", "entry `http` of `ports` is no port; write \"PORT:PORT\""),
        ("- cmd: a\n  ports: ['0:80', 'x:1:2']\n", "entry `x:1:2` of `ports` is no port"),
        ("- cmd: a\n  expose: ['70000']\n", "entry `70000` of `expose` is no port"),
        ("- cmd: a\n  ports: ['8000-8001:80-85']\n", "entry `8000-8001:80-85` of `ports` is no port"),
        ("- cmd: a\n  ports: ['80-70']\n", "entry `80-70` of `ports` is no port"),
        ("- cmd: a\n  ports: ['8000-8001:80']\n", "entry `8000-8001:80` of `ports` is no port"),
        ("- cmd: a\n  ports: ['1-257']\n", "entry `1-257` of `ports` is no port"),
        ("- cmd: a\n  expose: ['1-4097']\n", "entry `1-4097` of `expose` is no port"),
        ("- cmd: a\n  ports: ['host:80:80']\n", "entry `host:80:80` of `ports` is no port"),
        ("- cmd: a\n  ports: ['80/icmp']\n", "entry `80/icmp` of `ports` is no port"),
        ("- cmd: a\n  expose: [http]\n", "entry `http` of `expose` is no port; write PORT, PORT-PORT or PORT/udp"),
        ("- cmd: a | b\n", "`cmd` can't be read: `|` is a shell's, and no shell reads this text; quote it"),
        ("- cmd: a 'b\n", "`cmd` can't be read: a single quote is not closed"),
        ("- cmd: a $(date)\n", "`cmd` can't be read: `$(` would run a command on the agent"),
        (
            "- cmd: |\n    a b\n    c d\n",
            "`cmd` can't be read: the text has a second command in line 2 of it; write a step for each",
        ),
        ("- build: . && x\n", "`build` can't be read: `&&` is a shell's"),
        ("- cmd: \"a\\0b\"\n", "`cmd` holds a NUL character"),
        ("- push: ['']\n", "task.yaml:2:10: image reference is empty"),
        ("- push: [A]\n", "image reference `A` is not valid"),
        ("- push: ['$Registry/a']\n", "image name `$Registry/a` holds a `$`"),
        ("- cmd: a\n  env: ['=x']\n", "entry `=x` of env is not NAME=VALUE"),
        ("- cmd: a\n  platform: linux/mips\n", "platform `linux/mips` is not os"),
        (
            "- cmd: a\n  platform: windows/arm64\n",
            "platform `windows/arm64` is not one; of Windows there is windows/amd64",
        ),
        ("- cmd: a\n  platforms: [linux/amd64, linux/arm64]\n", "a cmd step has 2 platforms; only a build has several"),
        ("- build: .\n  platform: linux\n  platforms: [linux]\n", "a step has `platform` and `platforms`"),
        (
            "- build: --platform linux/arm64 .\n  platform: linux/amd64\n",
            "the build's text has other platforms than its step",
        ),
    ];
    for (text, expected) in table {
        check(&format!("steps:\n{text}"), expected);
    }
    for ports in ["1-256", "8000-8001:80-81", "127.0.0.1::80", "[::1]:8080:80/UDP", "80/sctp", "1-4096/TCP"] {
        let property = if ports == "1-4096/TCP" { "expose" } else { "ports" };
        task(&format!("steps:\n- cmd: a\n  {property}: ['{ports}']\n"));
    }
}

#[test]
fn order() {
    let table = [
        (
            "- {id: a, cmd: x}\n- {id: b, cmd: x, when: [c]}\n- {id: c, cmd: x}\n",
            "step `b` waits for `c`, which comes later, in line 4;",
        ),
        (
            "- {id: abc, cmd: x}\n- {id: b, cmd: x, when: [abd]}\n",
            "step `b` waits for `abd`, which there is not; did you mean `abc`?",
        ),
        ("- {id: a, cmd: x}\n- {id: b, cmd: x, when: [zzz]}\n", "which there is not; above it are a"),
        ("- {id: a, cmd: x, when: [a]}\n", "step `a` waits for itself; name steps above it"),
        ("- {id: a, cmd: x}\n- {id: b, cmd: x, when: ['-', a]}\n", "`when` of step `b` holds `-` and other entries"),
        ("- {id: a, cmd: x}\n- {id: b, cmd: x, when: ['']}\n", "`when` of step `b` has an empty entry"),
        (
            "- {id: a, cmd: x}\n- {id: b, cmd: x, when: [~]}\n",
            "`when` of step `b` has an empty entry; name a step above",
        ),
        (
            "- {id: a, cmd: x, when: ['-', '-']}\n",
            "`when` of step `a` holds `-` and other entries; write `[\"-\"]` alone",
        ),
        (
            "- {id: a, cmd: x, when: [b]}\n",
            "waits for `b`, which there is not; it is the first step, and waits for nothing",
        ),
        ("- {cmd: x, when: [acb_root]}\n", "step `acb_step_0` waits for `acb_root`, which there is not"),
        ("- {id: a, cmd: x}\n- {id: b, cmd: x, when: {a: b}}\n", "`when` of a step is a map; write a list"),
        (
            "- {id: a, cmd: x, when: [b]}\n- {id: b, cmd: x, when: [a]}\n",
            "step `a` waits for `b`, which comes later, in line 3; a step can wait only for steps above it",
        ),
        (
            "- {cmd: x}\n- {id: acb_step_0, cmd: x}\n",
            "step id `acb_step_0` is there twice; give it another id than the step in line 2",
        ),
        (
            "- {id: a, cmd: x}\n- {id: a, cmd: x}\n",
            "task.yaml:3:8: step id `a` is there twice; give it another id than the step in line 2",
        ),
        (
            "- {id: acb_step_1, cmd: x}\n- {cmd: x}\n",
            "step id `acb_step_1` is there twice; the step in line 2 has taken",
        ),
    ];
    for (text, expected) in table {
        check(&format!("steps:\n{text}"), expected);
    }
    // Lines are the file's, whatever was taken out of it above.
    check(
        "version: v1.1.0\nalias:\n  values:\n    x: y\nsteps:\n- {id: a, cmd: x}\n- {id: a, cmd: x}\n",
        "task.yaml:7:8: step id `a` is there twice; give it another id than the step in line 6",
    );
    let after = |text: &str| -> Vec<Vec<usize>> { task(text).steps.into_iter().map(|step| step.after).collect() };
    // Without `when`: after the step just above, not after all above.
    assert_eq!(after("steps:\n- {cmd: a}\n- {cmd: b, when: ['-']}\n- {cmd: c}\n"), [vec![], vec![], vec![1]]);
    assert_eq!(after("steps:\n- {cmd: a, when: []}\n- {cmd: b, when: }\n"), [vec![], vec![0]]);
    let text = "steps:\n- {id: a, cmd: a}\n- {id: b, cmd: b}\n- {cmd: c, when: [b, a, a]}\n";
    assert_eq!(after(text)[2], [0, 1]);
    assert!(warnings(text)[0].contains("names `a` twice; once is enough"));
}

#[test]
fn the_place_is_in_the_part_of_its_line_that_is_shown() {
    let place = |times: usize| {
        let text = format!("steps:\n- cmd: img\n- cmd: img\n  when: [{}nope]\n", "acb_step_0,".repeat(times));
        let faults = load(&inputs(&text)).expect_err("a step that is not there").faults;
        let place = *faults[0].place.clone().expect("a place");
        assert!(place.text.chars().count() <= 400, "{}", place.text);
        place
    };
    for times in [0, 30, 36, 37, 500] {
        let place = place(times);
        let shown: String = place.text.chars().skip(place.column - place.start).take(place.length).collect();
        assert_eq!(shown, "nope", "{place:?}");
    }
    // Nobody reads such a line, and there may be thousands of faults in it.
    assert_eq!((place(2_000).column, place(2_000).start), (22_010, 1));
}

#[test]
fn aliases_and_templates() {
    let table = [
        ("alias:\n  directive: ab\n", "task.yaml:3:14: directive `ab` can't be one"),
        ("alias:\n  directive: a\n", "directive `a` is a letter or digit"),
        ("alias:\n  directive: '7'\n", "directive `7` is a letter or digit; write another character, such as `!`"),
        ("alias:\n  directive: '{'\n", "directive `{` can't be one; write one character that is no letter, digit,"),
        ("alias:\n  directive: [x]\n", "`directive` of an alias block is a list; write one text"),
        ("alias: text\n", "an alias block is a text; write a map with the keys src, values, directive"),
        ("alias:\n  values: {a: [x]}\n", "`a` is a list; write one text"),
        ("alias:\n  values: {'': x}\n", "alias name `` is not one"),
        ("alias:\n  values: {a-b: x}\n", "alias name `a-b` is not one; write letters and digits alone"),
        ("alias:\n  values: [a]\n", "`values` of an alias block is a list"),
        ("alias:\n  src: x\n", "`src` of an alias block is a text, not a list"),
        ("alias:\n  src: [nowhere.yaml]\n", "alias source `nowhere.yaml` is not there; name a file of the source"),
        (
            "alias:\n  src: ['https://h/a.yaml']\n",
            "alias source `https://h/a.yaml` is not there; it must answer within two seconds; or put the file beside",
        ),
        ("alias:\n  values: {a: [}\n", "the alias block is no YAML"),
        ("steps:\n- cmd: {{ .Values.x\n", "task.yaml:3:"),
        ("steps:\n- cmd: a {{ frobnicate }}\n", "task.yaml:3:13: function `frobnicate` is unknown"),
        ("steps:\n- cmd: a {{ .Values.a.b }}\n", "task.yaml:3:"),
        ("steps:\n- cmd: a {{ if }}\n", "task.yaml:3:"),
        ("steps:\n- cmd: a {{ end }}\n", "task.yaml:3:"),
        ("steps:\n- cmd: a {{ fail \"no tag\" }}\n", "task.yaml:3:13: the template fails: no tag"),
        ("steps:\n- cmd: a {{ env \"HOME\" }}\n", "task.yaml:3:13: function `env`"),
        ("alias:\n  values: {a: '{{ .Values.a.b }}'}\n", "task.yaml:3:"),
        ("alias:\n  values: {a: '{{ frobnicate }}'}\n", "function `frobnicate` is unknown"),
    ];
    for (text, expected) in table {
        check(&format!("version: v1.1.0\n{text}"), expected);
    }
    check("{{ if .Values.none }}\nsteps: []\n{{ end }}\n", "the file is empty after rendering");
    let mut inputs = inputs("version: v1.1.0\nalias:\n  src: [a.yaml]\nsteps: []\n");
    inputs.alias_sources.insert("a.yaml".to_owned(), "ok: x\na_b: y\nlist: [z]\n".to_owned());
    let told = load(&inputs).expect_err("faults").to_string();
    assert!(told.contains("a.yaml:2:1: alias name `a_b` is not one"), "{told}");
    assert!(told.contains("a.yaml:3:7: an alias stands for something other than a text"), "{told}");
    for (source, expected) in [
        ("- a\n", "a.yaml:1:1: the source is no map; a source of aliases is a flat map: `NAME: TEXT` in each line"),
        ("a: [\n", "a.yaml:"),
        ("a: '{{ frobnicate }}'\n", "function `frobnicate` is unknown"),
    ] {
        inputs.alias_sources.insert("a.yaml".to_owned(), source.to_owned());
        let told = load(&inputs).expect_err(source).to_string();
        assert!(told.contains(expected), "{source}: {told}");
    }
    inputs.alias_sources.insert("a.yaml".to_owned(), String::new());
    assert!(load(&inputs).is_ok());
}

#[test]
fn places_pass_templates_and_secrets_stay_unsaid() {
    let text =
        "# a comment\nsteps:\n{{- range .Values.list }}\n- cmd: img {{ . }}\n{{- end }}\n- cmd: img\n  when: [nope]\n";
    let mut inputs = inputs(text);
    inputs.values = Some(NamedText { name: "v".to_owned(), text: "list: [1, 2, 3]".to_owned() });
    let told = load(&inputs).expect_err("a fault").to_string();
    assert!(told.starts_with("task.yaml:7:10: step `acb_step_3` waits for `nope`"), "{told}");

    let mut inputs = self::inputs("steps:\n- cmd: '{{ .Secrets.a }} x'\n- cmd: 'BAD{{ .Values.b }}'\n");
    inputs.secrets.insert("a".to_owned(), cooper_types::SecretString::new("HUSH".to_owned()));
    inputs.set.push(SetValue::parse("b=QUIET", true).expect("a value"));
    let faults = load(&inputs).expect_err("faults");
    let told = format!("{faults}\n{faults:?}");
    assert!(told.contains("image reference `***` is not valid"), "{told}");
    assert!(!told.contains("HUSH") && !told.contains("QUIET"), "{told}");
}

#[test]
fn what_has_no_effect_is_told() {
    let table = [
        ("- cmd: a\n  exitedWith: [1]\n", "`exitedWith` has no effect on a cmd step; ACR reads it and never uses it"),
        ("- cmd: a\n  outputs: [x]\n", "`outputs` has no effect on a cmd step; the key is reserved"),
        ("- build: .\n  entryPoint: x\n", "`entryPoint` has no effect on a build step; it counts for cmd steps"),
        ("- build: .\n  ports: ['1:1']\n", "`ports` has no effect on a build step"),
        ("- push: [a]\n  retries: 1\n", "`retries` has no effect on a push step; it counts for build and cmd steps"),
        (
            "- cmd: a\n  downloadRetries: 1\n",
            "a step has no key `downloadRetries`; it has no effect; did you mean `cmdDownloadRetries`?",
        ),
        ("- cmd: a\n  volumeMount: []\n", "did you mean `volumeMounts`?"),
        ("- cmd: a\n  secret: x\n", "a step has no key `secret`; it has no effect"),
        ("- build: .\n  tags: [a]\n  buildargs: [b]\n", "a step has no key `tags`; it has no effect"),
        ("- build: .\n  isbuildtask: true\n", "a step has no key `isbuildtask`; it has no effect"),
        ("- build: .\n  pull: true\n", "`pull` has no effect on a build step; it counts for cmd steps"),
        ("- build: .\n  isolation: hyperv\n", "`isolation` has no effect on a build step; it counts for cmd steps"),
        ("- build: --isolation hyperv .\n", "flag `--isolation` has no effect on a build; images of Windows are not"),
        (
            "- build: .\n  disableWorkingDirectoryOverride: true\n",
            "`disableWorkingDirectoryOverride` has no effect on a build",
        ),
        ("- push: [a]\n  env: [A=1]\n", "`env` has no effect on a push step; it counts for build and cmd steps"),
        ("- cmd: a\n  exitedWithout: [1]\n", "`exitedWithout` has no effect on a cmd step"),
        (
            "- cmd: a\n  platform: windows/amd64\n  isolation: process\n- build: -t a .\n  platform: windows/amd64\n  cache: enabled\n",
            "`cache` has no effect on Windows",
        ),
        ("- cmd: a\n  cmd: b\n", "key `cmd` is there twice; this one counts, the one in line 2 does not"),
        ("- cmd: a $HOME\n", "`$HOME` in `cmd` is not replaced; ACR's agent would replace it"),
        (
            "- cmd: a\n  network: corp\n",
            "network `corp` is not declared; declare it under `networks`, with `skipCreation: true` if",
        ),
        (
            "- cmd: a\n  network: host\n",
            "network `host` is the machine's own; an agent gives it where its operator lists it",
        ),
        (
            "- cmd: a\n  network: host\n  ports: [80]\n",
            "`ports` has no effect on network `host`; a container's ports are the machine's own there",
        ),
        (
            "- cmd: a\n  network: none\n  expose: [80]\n",
            "`expose` has no effect on network `none`; nothing reaches a container there",
        ),
        ("- cmd: a\n  timeout: 30000\n", "step `acb_step_0` may take 30000 s; its run ends after at most 28800 s"),
        ("- build: .\n  cache: enabled\n", "the cache of step `acb_step_0` has no name"),
        ("- cmd: a\n  env: [FOO]\n", "entry `FOO` of env has no value; it is left out"),
        (
            "- cmd: a sh -c 'make >out/app'\n- cmd: b ./out/app\n  platform: linux/arm64\n",
            "step `acb_step_1` (linux/arm64) names `out/app`, which step `acb_step_0` (linux/amd64) writes; each platform",
        ),
        (
            "- cmd: a cc -o bin/x x.c\n- build: -t i bin\n- build: -t j -f bin/x .\n  platforms: [linux/amd64, linux/arm64]\n",
            "step `acb_step_2` (linux/amd64, linux/arm64) names `bin/x`, which step `acb_step_0`",
        ),
        (
            "- id: db\n  cmd: a\n  detach: true\n- cmd: b --url=tcp://user@db:5432\n  platform: linux/arm64\n",
            "step `acb_step_1` (linux/arm64) names `db`, a container for linux/amd64; steps' ids are host names",
        ),
        ("- cmd: a\n---\nsteps: []\n", "a second document has no effect"),
    ];
    for (text, expected) in table {
        let told = warnings(&format!("steps:\n{text}"));
        assert!(told.iter().any(|line| line.contains(expected)), "{text}\n{told:?}\nwithout\n{expected}");
    }
    // What may be meant otherwise is nobody's fault.
    for text in [
        "- cmd: a\n- cmd: b\n  platform: linux/arm64\n",
        "- cmd: a test -e x/y\n- build: -t i x\n  platforms: [linux/amd64, linux/arm64]\n",
        "- cmd: a sh -c 'make >out/app'\n  platform: linux/arm64\n- cmd: b ./out/app\n  platform: linux/arm64\n",
        "- cmd: a mkdir out\n- cmd: b mkdir -p out\n  platform: linux/arm64\n- cmd: b ls out\n  platform: linux/arm64\n",
        "- cmd: a touch /tmp/x\n- cmd: b cat /tmp/x\n  platform: linux/arm64\n",
        "- id: db\n  cmd: a\n  detach: true\n  platform: linux/arm64\n- cmd: b db-dump\n",
        "- id: web\n  cmd: a\n  detach: true\n  platform: linux/arm64\n- cmd: curl https://h/web web/x ./web\n",
        "- cmd: a\n  network: none\n- cmd: b\n  network: bridge\n  ports: [80]\n",
        "- cmd: a set -o pipefail\n- cmd: b set -o pipefail\n  platform: linux/arm64\n",
    ] {
        assert_eq!(warnings(&format!("steps:\n{text}")), [""; 0], "{text}");
    }
    assert!(
        warnings("alias: {values: {a: b}}\nsteps: []\n")[0]
            .contains("`alias` has no effect here; write `version: v1.1.0`")
    );
    assert!(warnings("")[0].contains("the file says nothing"));
    assert!(warnings("version: v1.0.0\n")[0].contains("the file has no steps; a run of it does nothing"));
    let stored = warnings("name: nightly\nstep:\n  type: Docker\n");
    assert!(stored.iter().any(|text| text.contains("a file of stored tasks is for `cooper task apply`")), "{stored:?}");
    let bash = warnings("version: v1.1.0\nsteps:\n- cmd: bash -c x\n");
    assert!(bash[0].contains("`bash` is ACR's alias of an image, and this server has none of that name"), "{bash:?}");
    assert!(warnings("version: v1.1.0\nsteps:\n- cmd: bash:3.0 -c x\n").is_empty());
}
