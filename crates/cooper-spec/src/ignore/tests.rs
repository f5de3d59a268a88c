//! Tables of ignore rules: the behaviour that moby's own tests pin down, and what they leave out.

use super::*;

fn rules(lines: &str) -> IgnoreRules {
    IgnoreRules::parse(".dockerignore", lines).unwrap_or_else(|error| panic!("{lines:?}: {error}"))
}

/// The verdict of a walk that goes down to `path`, each parent asked first.
fn walked(rules: &IgnoreRules, path: &str) -> bool {
    let mut parent = None;
    for (at, _) in path.match_indices('/') {
        parent = Some(rules.matches_in(&path[..at], parent.as_ref()).1);
    }
    rules.matches_in(path, parent.as_ref()).0
}

/// Patterns, path, whether the path is ignored. All three ways to ask must agree.
const VERDICTS: &[(&str, &str, bool)] = &[
    // Plain text, anchored at the root.
    ("app", "app", true),
    ("app", "apps", false),
    ("app", "src/app", false),
    ("app", "app/main.rs", true),
    ("app", "app/src/deep/main.rs", true),
    ("App", "app", false),
    ("app", "APP", false),
    ("src/app", "src/app", true),
    ("src/app", "src", false),
    ("src/app", "app", false),
    ("src/app", "src/app/a/b", true),
    ("a.b", "aXb", false),
    ("a.b", "a.b", true),
    ("a(b)c/d", "a(b)c/d", true),
    ("a(b)c/d", "a(b)c/e", false),
    ("x.|)$(}+{y", "x.|)$(}+{y", true),
    ("lib-1.0+g12-any.whl", "lib-1.0+g12-any.whl", true),
    ("naïve☺", "naïve☺", true),
    // Cleaning.
    ("/app", "app", true),
    ("/app", "src/app", false),
    ("app/", "app", true),
    ("app/", "app/x", true),
    ("./app", "app", true),
    ("app/.", "app/x", true),
    ("src//app", "src/app", true),
    ("src/../app", "app", true),
    ("src/./app", "src/app", true),
    ("//app", "app", true),
    ("  app  ", "app", true),
    ("\tapp\t", "app", true),
    ("app\r", "app", true),
    ("..", "app", false),
    ("../app", "app", false),
    (".", "app", false),
    ("/", "app", false),
    ("/*", "app", true),
    // One star: any run without a slash.
    ("*", "main.go", true),
    ("*", "src/main.go", true),
    ("*.go", "main.go", true),
    ("*.go", "src/main.go", false),
    ("*.go", "main.gox", false),
    ("*.go", ".go", true),
    (".*", ".git", true),
    (".*", "git", false),
    ("a*", "a", true),
    ("a*", "abc", true),
    ("a*", "ab/c", true),
    ("*c", "abc", true),
    ("*x", "xxx", true),
    ("a*/b", "abc/b", true),
    ("a*/b", "a/c/b", false),
    ("a*b", "a/b", false),
    ("*/b", "a/b", true),
    ("*/b", "b", false),
    ("*/*/c", "a/b/c", true),
    ("*/*/c", "a/c", false),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
    ("a*b?c*x", "abxbbxdbxebxczzx", true),
    ("a*b?c*x", "abxbbxdbxebxczzy", false),
    ("src/*.txt", "src/a.txt", true),
    ("src/*.txt", "src/b/a.txt", false),
    ("dist/*.whl", "dist/lib-1.0+g12-any.whl", true),
    // Question marks.
    ("a?c", "abc", true),
    ("a?c", "ac", false),
    ("a?c", "a/c", false),
    ("a?b", "a☺b", true),
    ("a???b", "a☺b", false),
    // Two stars.
    ("**", "a", true),
    ("**", "a/b/c", true),
    ("**/", "a/b", true),
    ("**/**", "a/b", true),
    ("a/**", "a", false),
    ("a/**", "a/b", true),
    ("a/**", "a/b/c", true),
    ("a/**", "ab/c", false),
    ("a**", "abc", true),
    ("a**", "ab/c", true),
    ("**/a", "a", true),
    ("**/a", "a/b", true),
    ("**/a", "x/a", true),
    ("**/a", "x/y/a/z", true),
    ("**/a", "xa", false),
    ("**/bin", "roundrobin", false),
    ("**/.env", ".env", true),
    ("**/.env", "my.env", false),
    ("**/a/b", "a/b", true),
    ("**/a/b", "x/a/b", true),
    ("**/a/b", "x/y/a/b", true),
    ("**/a/b", "a/x/b", false),
    ("**a", "a", true),
    ("**a", "x/a", true),
    ("**a", "xa", true),
    ("**a", "x/y/xa", true),
    ("**/a*", "x/y/a.txt", true),
    ("**/a*txt", "x/y/a.txt", true),
    ("**/a*.txt", "x/y/a.txt", true),
    ("**/a*.txt*", "x/y/a.txt", true),
    ("**a*", "xa", false),
    ("**/**/*.txt", "a.txt", true),
    ("**/**/*.txt", "x/y/a.txt", true),
    ("**/**/*.txt2", "x/y/a.txt", false),
    ("**/*.txt", "a.txt", true),
    ("**/*.txt", "x/y/a.txt", true),
    ("**/d/*", "x/d/f", true),
    ("**/d/*", "x/d", false),
    ("**/d/**", "x/d/y/f", true),
    ("**/d/**", "x/d", false),
    ("a**/*.txt", "a/f.txt", true),
    ("a**/*.txt", "a/b/c/f.txt", true),
    ("a**b", "ab", true),
    ("a**b", "ax/b", true),
    ("a**b", "axb", false),
    ("a/**/b", "a/b", true),
    ("a/**/b", "a/x/y/b", true),
    ("a/**/b", "a/xb", false),
    ("a/**/b/*.c", "a/x/b/y.c", true),
    ("a/*.txt**", "a/f.txt", true),
    ("a/*.txt**", "a/f.txtra/x", true),
    ("**/node_modules", "web/node_modules/x/index.js", true),
    // Classes.
    ("a[b-d]e", "ace", true),
    ("a[b-d]e", "ae", false),
    ("a[b-d]e", "aae", false),
    ("a[^b-d]e", "aze", true),
    ("a[^b-d]e", "ace", false),
    ("a[^b-d]e", "a/e", true),
    ("a[^a]b", "a☺b", true),
    ("a[^a][^a][^a]b", "a☺b", false),
    ("[a-ζ]*", "α", true),
    ("*[a-ζ]", "A", false),
    ("[\\]a]", "]", true),
    ("[\\-]", "-", true),
    ("[x\\-]", "-", true),
    ("[x\\-]", "z", false),
    ("[\\-x]", "x", true),
    ("[!a]", "!", true),
    ("[!a]", "b", false),
    ("[*]", "*", true),
    ("[*]", "a", false),
    ("[.]x", "ax", false),
    ("a]", "a]", true),
    ("file[0-9].txt", "file7.txt", true),
    ("file[0-9].txt", "file10.txt", false),
    // Escapes.
    ("a\\*b", "a*b", true),
    ("a\\*b", "axb", false),
    ("a\\\\", "a\\", true),
    ("\\!a", "!a", true),
    ("\\#a", "#a", true),
    ("\\d", "d", true),
    ("a\\?", "a?", true),
    // Comments and blanks.
    ("#app", "#app", false),
    ("#app", "app", false),
    (" #app", "#app", true),
    ("\n\napp\n", "app", true),
    ("\u{feff}app", "app", true),
    ("\u{feff}#app", "#app", false),
    // Exceptions: the last match wins.
    ("docs\n!docs/README.md", "docs/README.md", false),
    ("docs/\n!docs/README.md", "docs/README.md", false),
    ("docs/*\n!docs/README.md", "docs/README.md", false),
    ("docs\n!docs/README.md", "docs/other.md", true),
    ("*.md\n!README.md", "README.md", false),
    ("!README.md\n*.md", "README.md", true),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
    ("*.md\n!README*.md\nREADME-secret.md", "README-open.md", false),
    ("**\n!a/b/c", "a/b/c/d", false),
    ("**\n!a/b/c\na/b/c/d", "a/b/c/d", true),
    ("**\n!a/b/c", "a/b/x", true),
    ("**\n!dist/*.whl", "dist/lib-1.0+g12-any.whl", false),
    ("*\n!src", "src/main.rs", false),
    ("*\n! src", "src/main.rs", false),
    ("*\n!/src/", "src/main.rs", false),
    ("*\n!src\nsrc/**/*.log", "src/a/b.log", true),
    ("*\n!**/*.go", "cmd/main.go", false),
    ("**\n!**/*.go", "cmd/deep/main.go", false),
    ("**/*.go\n!**/keep.go", "a/keep.go", false),
    ("!a", "a", false),
    ("a\n!a\na", "a/x", true),
    ("*\n!a\n!b", "b/x", false),
    ("*\n!!a", "a", true),
    ("*\n!!a", "!a", false),
    ("  !README.md", "README.md", false),
    ("", "a", false),
];

#[test]
fn verdicts() {
    for &(lines, path, ignored) in VERDICTS {
        let rules = rules(lines);
        assert_eq!(rules.is_ignored(path), ignored, "{lines:?} on {path:?}");
        assert_eq!(walked(&rules, path), ignored, "walk of {lines:?} to {path:?}");
        assert_eq!(rules.matches_in(path, None).0, ignored, "{lines:?} on {path:?} without its parents");
        assert_eq!(rules.is_ignored(&format!("{path}/")), ignored, "{lines:?} on {path:?} with a slash");
    }
    assert!(VERDICTS.len() > 150, "{}", VERDICTS.len());
}

#[test]
fn a_walk_does_not_try_an_exception_where_nothing_was_ignored() {
    let rules = rules("a/b\n!a");
    assert!(!rules.is_ignored("a/b"));
    assert!(walked(&rules, "a/b"));
}

#[test]
fn bad_patterns_name_file_and_line() {
    let table: &[(&str, usize)] = &[
        ("[", 1),
        ("a[", 1),
        ("[^", 1),
        ("[^bc", 1),
        ("[]a]", 1),
        ("[-]", 1),
        ("[x-]", 1),
        ("[-x]", 1),
        ("[a-b-c]", 1),
        ("\\", 1),
        ("a\\", 1),
        ("[\\", 1),
        ("[Local-Only]/", 1),
        ("[z-a]", 1),
        ("ok\n!", 2),
        ("ok\n! ", 2),
        ("ok\n\n# x\n!/", 4),
        ("ok\n**/[", 2),
        ("a/*/[b", 1),
    ];
    for &(lines, line) in table {
        let error = IgnoreRules::parse("web/.dockerignore", lines).expect_err(lines);
        assert_eq!((error.file.as_str(), error.line), ("web/.dockerignore", line), "{lines:?}");
    }
    let error = IgnoreRules::parse(".dockerignore", "a\nx[").expect_err("not closed");
    let message = "ignore pattern `x[` is not valid: `[` is not closed; write `\\[` for a bracket";
    assert_eq!(error.to_string(), format!(".dockerignore:2: {message}"));
}

#[test]
fn lists_of_a_frontend_are_not_lines() {
    let rules = IgnoreRules::from_patterns(["a", "#b", " ", "!a/keep"]).expect("valid");
    assert!(rules.is_ignored("a/x") && rules.is_ignored("#b"));
    assert!(!rules.is_ignored("a/keep"));
    assert!(IgnoreRules::from_patterns(["a", "["]).is_err());
}

#[test]
fn walks_prune_only_where_nothing_can_be_kept() {
    use IgnoreVerdict::{Keep, Omit, Prune};
    type Visits = &'static [(&'static str, bool, IgnoreVerdict)];
    let table: &[(&str, Visits)] = &[
        ("target", &[("src", true, Keep), ("src/a", false, Keep), ("target", true, Prune)]),
        ("a\n!a/b/c", &[("a", true, Omit), ("a/b", true, Omit), ("a/b/c", false, Keep), ("a/x", true, Prune)]),
        ("a\n!a/b/*", &[("a", true, Omit), ("a/b", true, Omit), ("a/b/c", false, Keep), ("a/c", true, Prune)]),
        ("a\n!b", &[("a", true, Prune), ("b", true, Keep)]),
        ("a\n!ab/c", &[("a", true, Prune)]),
        ("a\n!**/keep", &[("a", true, Omit), ("a/b", true, Omit), ("a/b/keep", false, Keep)]),
        ("*\n!src", &[("lib", true, Prune), ("src", true, Keep), ("src/x", false, Keep), ("z", false, Omit)]),
    ];
    for (lines, visits) in table {
        let rules = rules(lines);
        let mut walk = rules.walk();
        for &(path, is_directory, verdict) in *visits {
            assert_eq!(walk.visit(path, is_directory), verdict, "{lines:?} at {path}");
        }
    }
}

#[test]
fn hostile_patterns_stay_fast() {
    let rules = rules(&format!("{}z", "**/a*a*".repeat(20)));
    assert!(!rules.is_ignored(&"a/aa".repeat(200)));
}

#[test]
fn pruning_never_loses_what_is_kept() {
    let atoms = ["a", "b", "ab", "*", "**", "*b", "?", "[ab]", ".."];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let names = ["a", "ab", "b"];
    let mut tree: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    for depth in 1..4 {
        let above: Vec<String> = tree.iter().filter(|path| path.matches('/').count() == depth - 1).cloned().collect();
        tree.extend(above.iter().flat_map(|path| names.iter().map(move |name| format!("{path}/{name}"))));
    }
    tree.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    for _ in 0..2_000 {
        let mut lines = String::new();
        for _ in 0..=next(4) {
            lines.push_str(if next(2) == 0 { "!" } else { "" });
            let parts: Vec<&str> = (0..=next(3)).map(|_| atoms[next(atoms.len())]).collect();
            lines.push_str(&parts.join("/"));
            lines.push('\n');
        }
        let rules = rules(&lines);
        let mut walk = rules.walk();
        let mut pruned: Option<&str> = None;
        for path in &tree {
            if pruned.is_some_and(|pruned| path.strip_prefix(pruned).is_some_and(|rest| rest.starts_with('/'))) {
                assert!(walked(&rules, path), "{lines:?} loses {path}");
                continue;
            }
            let verdict = walk.visit(path, path.matches('/').count() < 3);
            assert_eq!(verdict == IgnoreVerdict::Keep, !walked(&rules, path), "{lines:?} at {path}");
            if verdict == IgnoreVerdict::Prune {
                pruned = Some(path);
            }
        }
    }
}
