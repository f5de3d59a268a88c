//! What an author is told besides: names that render as nothing, the text that steps run, and the very word that is wrong.

use super::*;

#[test]
fn what_is_wrong_in_a_step_is_told_together() {
    let told = faults(
        "steps:\n- cmd: a | b\n  timeout: \"5\"\n  retries: -1\n  volumeMounts: [{name: v, mountPath: /a}]\n- id: x y\n  build: . \
         && c\n  cache: maybe\n",
    );
    for part in [
        "`|` is a shell's",
        "`timeout` of a step",
        "`retries` of a step is -1",
        "volume `v` is not declared",
        "step id `x y` holds a blank",
        "`&&` is a shell's",
        "`cache` of a step is `maybe`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn names_that_render_as_nothing_are_told() {
    let mut told = inputs(
        "version: v1.1.0\nsecrets:\n- {id: token, keyvault: 'cooper://t'}\nsteps:\n- cmd: img {{.Run.Comit}} {{.Secrets.tokn}} \
         {{.Values.tag}}\n  env: ['A={{.Values.image.nam}}', 'B={{index .Secrets \"a-b\"}}', 'C={{.Valeus}}']\n- cmd: img \
         {{.Values.t | default \"x\"}}{{if .Values.t}}{{end}}{{with .Values.t}}{{end}}{{or .Values.t 1}}\n",
    );
    told.secrets.insert("token".to_owned(), cooper_types::SecretString::new("t0p".to_owned()));
    told.values = Some(NamedText { name: "v".to_owned(), text: "image: {name: a}\n".to_owned() });
    let loaded = load(&told).unwrap_or_else(|faults| panic!("{faults}"));
    let warnings: Vec<String> = loaded.warnings.iter().map(Fault::to_string).collect();
    let expected = [
        "task.yaml:5:14: `.Run.Comit` is unknown, and renders as nothing; did you mean `.Run.Commit`?",
        "task.yaml:5:29: secret `tokn` is not declared, and renders as nothing; did you mean `.Secrets.token`?",
        "task.yaml:5:47: `.Values.tag` is not set, and renders as nothing; set it with `--set tag=…` or in the values file \
         beside image, or ask `{{if .Values.tag}}` first",
        "task.yaml:6:14: `.Values.image.nam` is not set, and renders as nothing; did you mean `.Values.image.name`?",
        "task.yaml:6:41: secret `a-b` is not declared, and renders as nothing; declare it under `secrets`, where there is token",
        "task.yaml:6:71: `.Valeus` is unknown, and renders as nothing; did you mean `.Values`?",
    ];
    assert_eq!(warnings, expected);
    assert_eq!(loaded.warnings[0].place.as_ref().map(|place| place.length), Some(10));
    // Nothing else changes: a name that is missing is empty, as in ACR.
    assert_eq!(cmd(&loaded.task.steps[1]), "img:latest x1");
    // They are told beside what they break, too.
    let broken = load(&inputs("steps:\n- build: -t app:{{.Values.tag}} .\n")).expect_err("a tag is missing");
    assert_eq!((broken.faults.len(), broken.warnings.len()), (1, 1), "{broken}");
    let no_yaml = load(&inputs("steps:\n- push: [a, {{.Values.b}}\n")).expect_err("no YAML");
    assert_eq!(no_yaml.warnings.len(), 1, "{no_yaml}");
    // A loop tells of a place once.
    let many = inputs("steps:\n- cmd: img{{range until 1000}} {{$.Values.x}}{{end}}\n");
    assert_eq!(load(&many).unwrap_or_else(|faults| panic!("{faults}")).warnings.len(), 1);
}

#[test]
fn what_is_rendered_is_what_the_steps_run() {
    let mut inputs = inputs(
        "version: v1.1.0\nalias: {values: {sh: 'r.io/sh:1 -c', q: \"it's: x\"}}\nsteps:\n- cmd: sh 'echo $sh sh'\n- cmd: 'sh x'\n\
         - {cmd: \"sh x\", id: sh}\n- cmd: |\n    sh x\n- cmd: >-\n\n    sh\n    x\n- cmd: &a sh x\n- cmd: *a\n- cmd: q 'x'\n- cmd: shell sh\n\
         - cmd: sh\n    x\n",
    );
    inputs.image_aliases.insert("unused".to_owned(), "x".to_owned());
    let rendered = render_text(&inputs).unwrap_or_else(|faults| panic!("{faults}")).text;
    let expected = "version: v1.1.0\nsteps:\n- cmd: r.io/sh:1 -c 'echo r.io/sh:1 -c sh'\n- cmd: 'r.io/sh:1 -c x'\n\
                    - {cmd: \"r.io/sh:1 -c x\", id: sh}\n- cmd: |\n    r.io/sh:1 -c x\n- cmd: >-\n\n    r.io/sh:1 -c\n    x\n\
                    - cmd: &a r.io/sh:1 -c x\n- cmd: \"r.io/sh:1 -c x\"\n- cmd: \"it's: x 'x'\"\n- cmd: shell sh\n- cmd: r.io/sh:1 -c\n    x\n";
    assert_eq!(rendered, expected);
    let twice = "version: v1.1.0\nalias: {values: {sh: 'sh:5'}}\nsteps:\n- &a {cmd: sh x}\n- *a\n";
    let mut repeated = inputs.clone();
    repeated.file.text = twice.to_owned();
    let text = render_text(&repeated).unwrap_or_else(|faults| panic!("{faults}")).text;
    assert_eq!(text, "version: v1.1.0\nsteps:\n- &a {cmd: sh:5 x}\n- *a\n");
    // And it means the same: without the block, there are no such aliases any more.
    inputs.file.text = rendered.clone();
    assert_eq!(render_text(&inputs).unwrap_or_else(|faults| panic!("{faults}")).text, rendered);
}

#[test]
fn faults_point_at_the_word_that_is_wrong() {
    let under = |text: &str| -> Vec<String> {
        let (faults, warnings) = match load(&inputs(text)) {
            Ok(loaded) => (Vec::new(), loaded.warnings),
            Err(faults) => (faults.faults, faults.warnings),
        };
        let shown = |fault: &Fault| {
            let place = fault.place.as_ref().expect("a place");
            place.text.chars().skip(place.column - place.start).take(place.length).collect::<String>()
        };
        faults.iter().chain(&warnings).map(shown).collect()
    };
    let table: &[(&str, &[&str])] = &[
        ("steps:\n- build: -t app --frob .\n", &["--frob"]),
        ("steps:\n- build: -t App -t 'a b' -f '' x\n", &["App", "'a b'", "''"]),
        ("steps:\n- build: \"-t \\\"a b\\\" .\"\n", &["\\\"a b\\\""]),
        ("steps:\n- build: 'a ''b c'''\n", &["''b c''"]),
        ("steps:\n- build: -t app --platform=linux/amd64,bad .\n", &["--platform=linux/amd64,bad"]),
        ("steps:\n- cmd: -v /:/host img\n", &["-v"]),
        ("steps:\n- cmd: img a && b\n", &["&&"]),
        ("steps:\n- cmd: img $HOME x $USER\n", &["$HOME"]),
        ("steps:\n- cmd: img $(date)\n", &["$("]),
        ("steps:\n- cmd: IMG x\n", &["IMG"]),
        // Behind what an alias or a template has made longer.
        ("version: v1.1.0\nalias: {values: {s: 'r.io/sh:1'}}\nsteps:\n- cmd: s a | b\n", &["|"]),
        ("version: v1.1.0\nalias: {values: {s: 'R.io/Sh:1'}}\nsteps:\n- cmd: s a\n", &["s"]),
        ("steps:\n- build: -t {{.Run.ID}} --frob .\n", &["--frob"]),
        // Where it can't be told, the text begins.
        ("steps:\n- cmd: |\n    img a && b\n", &["&&"]),
        ("steps:\n- build: >-\n    -t app\n    --frob .\n", &["-"]),
    ];
    for (text, expected) in table {
        assert_eq!(under(text), *expected, "{text}");
    }
}
