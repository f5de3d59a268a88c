//! Regular expressions. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        (r#"{{regexMatch "^[a-z]+$" "abc"}}"#, "true"),
        (r#"{{regexMatch "^\\d+\\.\\d+$" "12.5"}}"#, "true"),
        (r#"{{regexMatch "\\bfoo\\b" "a foo b"}}"#, "true"),
        (r#"{{regexMatch "\\w" "é"}}"#, "false"),
        (r#"{{regexMatch "^\\S+$" "a b"}}"#, "false"),
        (r#"{{regexFind "[a-zA-Z][1-9]" "abcd1234"}}"#, "d1"),
        (r#"{{regexFind "x" "abc"}}"#, ""),
        (r#"{{regexFindAll "[2,4,6,8]" "123456789" -1}}"#, "[2 4 6 8]"),
        (r#"{{regexFindAll "[2,4,6,8]" "123456789" 2}}"#, "[2 4]"),
        (r#"{{regexFindAll "a*" "baac" -1}}"#, "[ aa ]"),
        (r#"{{regexFindAll "z" "abc" -1}}"#, "[]"),
        (r#"{{regexReplaceAll "a(x*)b" "-ab-axxb-" "${1}W"}}"#, "-W-xxW-"),
        (r#"{{regexReplaceAll "a(x*)b" "-ab-axxb-" "$1W"}}"#, "---"),
        (r#"{{regexReplaceAll "a(x*)b" "-ab-axxb-" "$1"}}"#, "--xx-"),
        (r#"{{regexReplaceAll "(?P<n>b)" "abc" "[${n}$$]"}}"#, "a[b$]c"),
        (r#"{{regexReplaceAllLiteral "a(x*)b" "-ab-axxb-" "${1}"}}"#, "-${1}-${1}-"),
        (r#"{{regexSplit "z+" "pizza" -1}}"#, "[pi a]"),
        (r#"{{regexSplit "z+" "pizza" 1}}"#, "[pizza]"),
        (r#"{{regexSplit "z+" "pizza" 0}}"#, "[]"),
        (r#"{{regexSplit "" "abc" -1}}"#, "[a b c]"),
        (r#"{{regexSplit "," "" -1}}"#, "[]"),
        (r#"{{regexSplit "," "a,b,c" 2}}"#, "[a b,c]"),
        (r#"{{regexSplit "," ",a," -1}}"#, "[ a ]"),
        (r#"{{regexSplit "" "abc" 2}}"#, "[a bc]"),
        (r#"{{regexFind "[[a]" "x[a"}}"#, "["),
        (r#"{{regexFind "[a&&b]+" "a&b"}}"#, "a&b"),
        (r#"{{regexFind "a{,2}" "a{,2}"}}"#, "a{,2}"),
        (r#"{{regexFind "x{2}" "axxx"}}"#, "xx"),
        (r#"{{regexFind "[[:digit:]]+" "ab12"}}"#, "12"),
        (r#"{{regexFind "\\Qa.b\\E" "xa.b"}}"#, "a.b"),
        (r#"{{regexFind "[]a]+" "x]a"}}"#, "]a"),
        (r#"{{regexFind "[^]a]+" "]ab"}}"#, "b"),
        (r#"{{regexFind "(?i)ABC" "xabc"}}"#, "abc"),
        (r#"{{regexFind "a{1,2}" "caaa"}}"#, "aa"),
        (r#"{{regexFind "}" "a}"}}"#, "}"),
        (r#"{{regexFind "]" "a]"}}"#, "]"),
        (r#"{{regexFind "[a-]+" "x-a"}}"#, "-a"),
        (r#"{{regexFind "[\\d-]+" "x-1"}}"#, "-1"),
        (r#"{{regexFind "[^\\d]+" "12ab"}}"#, "ab"),
        (r#"{{regexFind "[\\D]+" "12ab"}}"#, "ab"),
        (r#"{{regexFind "\\pL+" "1éa"}}"#, "éa"),
        (r#"{{regexFind "\\x41" "A"}}"#, "A"),
        (r#"{{regexFind "\\101" "A"}}"#, "A"),
        (r#"{{regexFind "(a|ab)(c|bcd)" "abcd"}}"#, "abcd"),
        (r#"{{regexFind "a.c" "a\nc"}}"#, ""),
        (r#"{{regexFind "(?s)a.c" "a\nc"}}"#, "a\nc"),
        (r#"{{regexFind "(?m)^b$" "a\nb"}}"#, "b"),
        (r#"{{regexFind "a+?" "aaa"}}"#, "a"),
        (r#"{{regexFind "\\Bb" "ab"}}"#, "b"),
        (r#"{{regexFind "a{x" "a{x"}}"#, "a{x"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&[
        r#"{{regexFind "(?x)a" "a"}}"#,
        r#"{{regexFind "(a" "a"}}"#,
        r#"{{regexFind "\\1" "a"}}"#,
        r#"{{regexFind "(?=a)" "a"}}"#,
        r#"{{regexFind "\\y" "a"}}"#,
    ]);
}
