//! What texts of a file stand for: what there is of the run in templates and aliases, and lines that are none.

use serde_json::json;

use super::*;

/// Every field of `.Run`, as a run has it of which everything is known.
const RUN: &[(&str, &str)] = &[
    ("ID", "ca1"),
    ("Commit", "c0ffee"),
    ("Branch", "main"),
    ("Repository", "https://h/r.git"),
    ("GitTag", "v1"),
    ("TriggeredBy", "Commit"),
    ("Registry", "r.io"),
    ("RegistryName", "r"),
    ("Date", "19700101-000000z"),
    ("OS", "linux"),
    ("Architecture", "amd64"),
    ("OSVersion", "6.1"),
    ("TaskName", "nightly"),
    ("SharedVolume", ""),
];

fn known(text: &str) -> TaskInputs {
    let mut inputs = inputs(text);
    let run = &mut inputs.run;
    for (field, value) in [
        (&mut run.commit, "c0ffee"),
        (&mut run.branch, "main"),
        (&mut run.repository, "https://h/r.git"),
        (&mut run.git_tag, "v1"),
        (&mut run.triggered_by, "Commit"),
        (&mut run.os_version, "6.1"),
        (&mut run.task_name, "nightly"),
    ] {
        *field = value.to_owned();
    }
    inputs
}

/// The words of the one step of such a run.
fn words(text: &str) -> Vec<String> {
    let loaded = load(&known(text)).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
    let TaskWork::Cmd(line) = &loaded.task.steps[0].work else { panic!("{text}: a cmd") };
    line.words.clone()
}

#[test]
fn templates_see_every_field_of_the_run() {
    let mut named: Vec<&str> = RUN.iter().map(|(name, _)| *name).collect();
    let mut all: Vec<&str> = known("").run.all().into_iter().map(|(name, _)| name).collect();
    named.sort_unstable();
    all.sort_unstable();
    assert_eq!(named, all);
    for (name, value) in RUN {
        let text = format!("steps:\n- cmd: img '[{{{{.Run.{name}}}}}]'\n");
        assert_eq!(words(&text), [format!("[{value}]")], "{name}");
    }
    let shown = words("steps:\n- cmd: img {{.RunJSON}} {{.Build.ID}}\n");
    let expected: serde_json::Map<_, _> = RUN.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&shown[0]).expect("JSON in one word"), json!(expected));
    assert_eq!(shown[1], "ca1");
}

#[test]
fn nine_fields_of_the_run_have_aliases() {
    let aliases = ["ID", "SharedVolume", "Registry", "RegistryName", "Date", "OS", "Architecture", "Commit", "Branch"];
    for (name, value) in RUN {
        let step = format!("steps:\n- cmd: img '[${name}]' '[$${name}]'\n");
        let itself = format!("[${name}]");
        let stands_for = if aliases.contains(name) { format!("[{value}]") } else { itself.clone() };
        assert_eq!(words(&format!("version: v1.1.0\n{step}")), [stands_for, itself.clone()], "{name}");
        assert_eq!(words(&step), [itself, format!("[$${name}]")], "{name}, where a file has no aliases");
    }
}

#[test]
fn the_name_of_the_workspace_s_volume_is_told_to_be_nothing() {
    for text in ["'{{.Run.SharedVolume}}'", "'$SharedVolume'"] {
        let told = warnings(&format!("version: v1.1.0\nsteps:\n- cmd: img {text}\n"));
        let [told] = &told[..] else { panic!("{text}: {told:?}") };
        assert!(told.starts_with("task.yaml:3:") && told.contains("`.Run.SharedVolume` renders as nothing"), "{told}");
        assert!(told.ends_with("; every step has the workspace as its directory /workspace, and no engine that could mount it elsewhere"), "{told}");
    }
    assert!(warnings("steps:\n- cmd: img {{if .Run.SharedVolume}}x{{end}}\n").is_empty());
}

#[test]
fn lines_of_comments_go_before_anything_is_read() {
    let text = "version: v1.1.0\n# {{fail \"a comment\"}}\nalias:\n  values:\n    # {{fail \"in the block\"}}\n    word: said\nsteps:\n- cmd: |\n    \
                img sh -c '\n    # it's {{fail \"in a script\"}}\n    echo $word\n      # {{.Values.gone}}\n    echo b # it stays'\n#- {{\n";
    let loaded = load(&known(text)).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(words(text), ["sh", "-c", "\necho said\necho b # it stays"]);
}
