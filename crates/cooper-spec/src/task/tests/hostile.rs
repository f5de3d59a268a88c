//! Files that nobody would write: the loader never panics, ends within its limits, and points into the file.

use proptest::prelude::*;

use super::*;

/// What is mutated: every example, and a file that has a little of everything.
fn seeds() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tasks");
    let of_examples = std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("an entry").path());
    let mut seeds: Vec<String> = of_examples
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .map(|path| std::fs::read_to_string(path).expect("a text"))
        .collect();
    seeds.sort();
    let everything = "version: v1.1.0\nalias:\n  directive: '!'\n  values: {img: 'r.io/a:{{.Run.ID}}'}\nstepTimeout: 60\nenv: \
                      ['A=1,B=2']\nsecrets: [{id: s, keyvault: 'cooper://s'}]\nnetworks: [{name: n, isDefault: on}]\nvolumes:\n- \
                      name: v\n  secret: {f: '{{.Values.x | b64enc}}'}\nsteps:\n- &one {id: one, cmd: \"!img sh -c 'a \\\"b\\\"'\", \
                      when: ['-']}\n- {<<: *one, id: two, detach: yes, ports: ['1:1']}\n- build: >-\n    -t !img\n    --secret \
                      id=s,src=/run/v/f .\n  volumeMounts: [{name: v, mountPath: /run/v}]\n- push: ['!img']\n  when: [two]\n";
    seeds.push(everything.to_owned());
    seeds
}

/// What may be put into a file anywhere.
const PIECES: &[&str] = &[
    "",
    " ",
    "\n",
    "\r\n",
    "\t",
    "- ",
    ": ",
    ":",
    "#",
    "|",
    ">-",
    "&a ",
    "*a",
    "<<: *one",
    "!",
    "!!binary ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    "\"",
    "\\",
    "\0",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\u{1f600}",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "? ",
    "{{",
    "}}",
    "{{ .Values.x }}",
    "{{ range until 9 }}",
    "{{ end }}",
    "{{/*",
    "$",
    "$$",
    "$ID",
    "!img",
    "alias:\n",
    "version: v1.1.0\n",
    "steps:\n",
    "~",
    "null",
    "1e999",
    "-1",
    "0x",
    "99999999999999999999",
    "cmd: a\n",
    "when: [a]\n",
    "\nsecrets: ",
    "`",
    "$(",
    ";",
    "windows/amd64",
    "c:\\",
    "platform: ",
];

/// Everything that is made of a file; what is said of it points into it.
fn check(text: &str) {
    let mut inputs = inputs(text);
    inputs.alias_sources.insert("a.yaml".to_owned(), text.chars().take(200).collect());
    inputs.set.push(SetValue { name: "x".to_owned(), value: "y".to_owned(), secret: false });
    let mut told = Vec::new();
    match load(&inputs) {
        Ok(loaded) => {
            told.extend(loaded.warnings);
            let _ = loaded.task.to_json(&Platform::LINUX_AMD64);
        }
        Err(faults) => {
            assert!((1..=100).contains(&faults.faults.len()), "{text:?}: {faults}");
            told.extend(faults.faults);
        }
    }
    told.extend(alias_sources(&inputs).err().into_iter().flat_map(|faults| faults.faults));
    told.extend(wanted_secrets(&inputs).err().into_iter().flat_map(|faults| faults.faults));
    let _ = render_text(&inputs);
    let stripped = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = stripped.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    for fault in told {
        let Some(place) = &fault.place else { continue };
        assert!(place.line >= 1 && place.column >= 1 && place.length >= 1, "{text:?}: {fault}: {place:?}");
        if place.file != "task.yaml" || place.rendered {
            // Only what a template or an alias made has no line of the file.
            assert!(place.file != "task.yaml" || text.contains("{{") || text.contains("alias"), "{text:?}: {fault}");
            continue;
        }
        let line = lines.get(place.line - 1).unwrap_or_else(|| panic!("{text:?}: no such line: {fault}"));
        assert!(place.column <= line.chars().count() + 1, "{text:?}: behind the line's end: {fault}");
        let shown = line.chars().skip(place.start - 1).take(place.text.chars().count()).collect::<String>();
        assert_eq!(shown, place.text, "{text:?}: another line is shown: {fault}: {place:?}");
        assert!(!fault.message.is_empty() && fault.to_string().len() < 4096, "{fault}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn bytes_of_any_kind(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn pieces_in_any_order(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        check(&pieces.concat());
        check(&format!("version: v1.1.0\nsteps:\n- cmd: {}\n", pieces.concat()));
    }

    #[test]
    fn files_with_a_few_changes(
        seed in proptest::sample::select(seeds()),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..12, proptest::sample::select(PIECES)), 1..6),
    ) {
        let mut text: Vec<char> = seed.chars().collect();
        for (place, length, piece) in changes {
            let start = place.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        check(&text.into_iter().collect::<String>());
    }

    #[test]
    fn files_that_are_cut_off(seed in proptest::sample::select(seeds()), place in any::<prop::sample::Index>()) {
        let text: Vec<char> = seed.chars().collect();
        check(&text[..place.index(text.len() + 1)].iter().collect::<String>());
    }
}

#[test]
fn what_grows_without_end_is_refused_in_time() {
    let nested = |open: &str, close: &str| format!("steps: {}{}\n", open.repeat(5_000), close.repeat(5_000));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let of = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![of; 10].join(", ")));
    }
    let mut aliases = "version: v1.1.0\nalias:\n  values:\n".to_owned();
    aliases.push_str(&format!("    big: {}\nsteps:\n- cmd: a {}\n", "x".repeat(60_000), "$big".repeat(60)));
    for (text, expected) in [
        (nested("[", "]"), "nodes stand more than 64 deep in each other; nothing that a task file means is that deep"),
        (
            nested("{a: ", "}"),
            "nodes stand more than 64 deep in each other; nothing that a task file means is that deep",
        ),
        (
            format!("{laughs}steps: []\n"),
            "with its aliases expanded, the text has more than 262144 keys, values and lists; write",
        ),
        (format!("steps: [{}]\n", "{cmd: a},".repeat(20_000)), "`steps` has 20000 entries; write at most 500"),
        (format!("# {}\nsteps: []\n", "x".repeat(2 << 20)), "is longer than 1024 KiB"),
        (aliases, "with aliases replaced, the file is longer than 1024 KiB"),
        (
            "steps:\n- cmd: a {{ range until 9999 }}{{ range until 9999 }}x{{ end }}{{ end }}\n".to_owned(),
            "more steps than it may",
        ),
        ("a: &a [*a]\nsteps: []\n".to_owned(), "an alias stands inside of what it names; write the alias outside"),
    ] {
        let begun = std::time::Instant::now();
        let told = faults(&text);
        assert!(told.contains(expected), "{expected}: {}", told.chars().take(300).collect::<String>());
        // Minutes are what this is to catch: the machine may be busy.
        assert!(begun.elapsed() < Duration::from_secs(60), "{expected}: {:?}", begun.elapsed());
    }
}
