//! Texts: cutting, trimming, padding, quoting. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        ("{{hello}}", "Hello!"),
        (r#"{{abbrev 5 "hello world"}}"#, "he..."),
        (r#"{{abbrev 3 "hello"}}"#, "hello"),
        (r#"{{abbrev 20 "hello"}}"#, "hello"),
        (r#"{{abbrev 8 "hello world"}}"#, "hello..."),
        (r#"{{abbrevboth 5 10 "1234 5678 9123"}}"#, "...5678..."),
        (r#"{{abbrevboth 0 7 "hello world foo"}}"#, "hell..."),
        (r#"{{abbrevboth 5 6 "hello world"}}"#, "hello world"),
        (r#"{{abbrevboth 8 9 "abcdefghijklmnopqrstuvwxyz"}}"#, "...ijk..."),
        (r#"{{abbrevboth 24 9 "abcdefghijklmnopqrstuvwxyz"}}"#, "...uvwxyz"),
        (r#"{{abbrevboth 40 9 "abcdefghijklmnopqrstuvwxyz"}}"#, "...uvwxyz"),
        (r#"{{trunc 5 "hello world"}}"#, "hello"),
        (r#"{{trunc 50 "hello"}}"#, "hello"),
        (r#"{{trunc 0 "hello"}}"#, ""),
        (r#"{{substr 0 5 "hello world"}}"#, "hello"),
        (r#"{{substr -1 5 "hello world"}}"#, "hello"),
        (r#"{{substr 6 -1 "hello world"}}"#, "world"),
        (r#"{{substr 3 100 "hello"}}"#, "lo"),
        (r#"{{trim "  a b \n"}}"#, "a b"),
        (r#"{{trimAll "$" "$5.00$"}}"#, "5.00"),
        (r#"{{trimall "ab" "abcba"}}"#, "c"),
        (r#"{{trimSuffix "-" "hello-"}}"#, "hello"),
        (r#"{{trimPrefix "-" "-hello-"}}"#, "hello-"),
        (r#"{{trimSuffix "x" "hello"}}"#, "hello"),
        (r#"{{repeat 3 "ab"}}"#, "ababab"),
        (r#"{{repeat 0 "ab"}}"#, ""),
        (r#"{{nospace " h e l\tl o\n"}}"#, "hello"),
        (r#"{{contains "cat" "catch"}}"#, "true"),
        (r#"{{hasPrefix "cat" "catch"}}"#, "true"),
        (r#"{{hasSuffix "cat" "catch"}}"#, "false"),
        (r#"{{quote "a" 1 1.5 true nil .list}}"#, r#""a" "1" "1.5" "true" "[a b c]""#),
        (r#"{{squote "a" 1 nil "it's"}}"#, "'a' '1' 'it's'"),
        (r#"{{quote "tab\t\"q\" ü \\"}}"#, r#""tab\t\"q\" ü \\""#),
        ("{{quote .missing}}", ""),
        ("{{quote}}", ""),
        ("{{squote .map}}", "'map[x:1 y:two z:map[deep:true]]'"),
        (r#"{{cat "hello" "beautiful" 1 true nil "x"}}"#, "hello beautiful 1 true x"),
        ("{{cat}}", ""),
        (r#"{{cat " a " "b "}}"#, " a  b "),
        (r#"{{indent 4 "a\nb\n\nc"}}"#, "    a\n    b\n    \n    c"),
        (r#"{{nindent 2 "a\nb"}}"#, "\n  a\n  b"),
        (r#"{{indent 0 "a"}}"#, "a"),
        (r#"{{replace " " "-" "I am X"}}"#, "I-am-X"),
        (r#"{{replace "" "-" "abc"}}"#, "-a-b-c-"),
        (r#"{{plural "one" "many" 1}}"#, "one"),
        (r#"{{plural "one" "many" 2}}"#, "many"),
        ("{{toString 1}}", "1"),
        ("{{toString 1.5}}", "1.5"),
        ("{{toString true}}", "true"),
        ("{{toString .list}}", "[a b c]"),
        ("{{toString nil}}", "<nil>"),
        ("{{toString .map}}", "map[x:1 y:two z:map[deep:true]]"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&[
        r#"{{trunc -5 "hello world"}}"#,
        r#"{{substr 5 3 "hello world"}}"#,
        r#"{{substr -1 30 "hello world"}}"#,
        r#"{{repeat -1 "ab"}}"#,
        r#"{{fail "no way"}}"#,
        r#"{{trunc "a" "b"}}"#,
    ]);
}
