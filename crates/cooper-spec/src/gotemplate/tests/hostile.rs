//! Templates that want to harm: they end soon, with an error or within their limits, and never panic.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check_limited(text: &str) {
    // A part of the fuel, so that the test is quick: what ends with less ends with more.
    let limits = Limits { fuel: 200_000, ..Limits::DEFAULT };
    let error = render("t", text, &data(), NOW, &limits).expect_err(&text[..text.len().min(200)]);
    assert_eq!(error.kind, RenderErrorKind::Limit, "{error}");
}

#[test]
fn bombs_run_out_of_fuel_or_room() {
    for text in [
        "{{range until 2000000000}}{{end}}",
        "{{range 9000000000000000000}}{{end}}",
        "{{range until 10000}}{{range until 10000}}{{end}}{{end}}",
        "{{repeat 2000000000 \"a\"}}",
        "{{indent 1000000000 \"a\"}}",
        "{{nindent 9223372036854775807 \"\\n\\n\"}}",
        "{{untilStep 0 9223372036854775807 1}}",
        "{{untilStep -9223372036854775808 9223372036854775807 1}}",
        "{{printf \"%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d%1000000d\" 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1}}",
        "{{$a := repeat 5000 \"a\"}}{{range until 1000}}{{$a = replace \"a\" $a $a}}{{end}}",
        "{{$a := \"a\"}}{{range until 100}}{{$a = print $a $a}}{{end}}",
        "{{$a := list 1}}{{range until 100}}{{$a = list $a $a}}{{end}}{{$a}}",
        "{{$a := dict}}{{range until 100}}{{$a = dict \"a\" $a \"b\" $a}}{{end}}{{toJson $a}}",
        "{{$a := dict}}{{range until 100}}{{$a = dict \"a\" $a \"b\" $a}}{{end}}{{deepCopy $a}}",
        "{{$a := repeat 100000 \"a\"}}{{range until 100000}}{{$a}}{{end}}",
        "{{$a := repeat 60000 \"a\"}}{{range until 100000}}{{$b := regexMatch \"(a|aa)+$\" $a}}{{end}}",
        "{{range until 100000}}{{$b := regexMatch (print \"a\" .) \"a\"}}{{end}}",
        "{{$a := until 5000}}{{uniq $a}}",
        "{{$a := list (repeat 100000 \"a\")}}{{range until 10}}{{$a = concat $a $a $a}}{{end}}{{join \"\" $a}}",
        "{{$a := until 50000}}{{range $a}}{{$b := append $a 1}}{{end}}",
        "{{$d := dict}}{{range until 2000000}}{{$_ := set $d (toString .) .}}{{end}}",
        "{{wrapWith 1 (repeat 10000 \"x\") (repeat 10000 \"a\")}}",
        "{{date (repeat 1000000 \"2006\") now}}{{date (repeat 1000000 \"2006\") now}}{{date (repeat 1000000 \"2006\") now}}",
        "{{$f := repeat 10000 \"2006\"}}{{range until 10000}}{{$x := now.Format $f}}{{end}}",
        "{{$f := repeat 10000 \"2006\"}}{{range until 10000}}{{$x := toDate $f \"\"}}{{end}}",
        "{{$a := list (repeat 100000 \"a\")}}{{$b := list (repeat 100000 \"a\")}}{{range until 10000}}{{$x := deepEqual $a $b}}{{end}}",
        "{{$a := dict (repeat 100000 \"a\") 1}}{{$b := dict (repeat 100000 \"a\") 1}}{{range until 1000}}{{$x := merge $a $b}}{{end}}",
        "{{$a := list 1}}{{range until 1000}}{{$a = list $a}}{{end}}",
        "{{$a := dict}}{{range until 1000}}{{$a = dict \"a\" $a}}{{end}}{{$a}}",
        "{{$a := dict}}{{$_ := set $a \"a\" $a}}{{$a}}",
        "{{$a := dict}}{{$_ := set $a \"a\" $a}}{{deepEqual $a $a}}",
        "{{$a := dict}}{{$_ := set $a \"a\" $a}}{{$b := dict}}{{$_ := set $b \"a\" $b}}{{merge $a $b}}",
        "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}",
        "{{define \"a\"}}{{template \"b\" .}}{{end}}{{define \"b\"}}{{template \"a\" .}}{{end}}{{template \"a\" .}}",
    ] {
        check_limited(text);
    }
}

#[test]
fn deep_texts_are_refused_before_they_harm() {
    let n = 20_000;
    check_limited(&format!("{{{{{}1{}}}}}", "(".repeat(n), ")".repeat(n)));
    check_limited(&format!("{}{}", "{{if 1}}".repeat(n), "{{end}}".repeat(n)));
    check_limited(&format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(n)));
    check_limited(&format!("{{{{$x{}}}}}", ".a".repeat(n)).replace("$x", "$"));
    check_limited(&format!("{{{{{} 1}}}}", "print 1 | ".repeat(40_000)));
    let nested = format!("{}1{}", "print (".repeat(40), ")".repeat(40));
    assert_eq!(rendered(&format!("{{{{{nested}}}}}")).as_deref(), Ok("1"));
}

#[test]
fn what_is_within_the_limits_is_not_refused() {
    assert_eq!(rendered("{{range until 100000}}x{{end}}").expect("it fits").len(), 100_000);
    assert_eq!(rendered("{{repeat 1048576 \"a\"}}").expect("it fits").len(), 1 << 20);
    let error = rendered("{{repeat 1048577 \"a\"}}").expect_err("too long");
    assert_eq!(error.kind, RenderErrorKind::Limit);
    let limits = Limits { fuel: 10, ..Limits::DEFAULT };
    assert_eq!(
        render("t", "{{range until 11}}{{end}}", &data(), NOW, &limits).expect_err("no fuel").kind,
        RenderErrorKind::Limit
    );
}

/// Words that templates are made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let names: Vec<_> = super::super::function::names().collect();
    let piece = prop_oneof![
        2 => prop::sample::select(names).prop_map(|name| format!("{name} ")),
        4 => prop::sample::select(vec![
            "{{", "}}", "{{- ", " -}}", "(", ")", "|", " ", ".", "$", ":=", "=", ",", "\"", "`", "'", "/*", "*/", "\n",
            ".list ", ".map ", ".people ", ".missing ", "1 ", "-1 ", "1.5 ", "9223372036854775807 ", "-9223372036854775808 ",
            "1e308 ", "\"ü\" ", "\"a,b\" ", "\"%[2]*.3d\" ", "$x ", "nil ", "true ", ".name ", "'x' ", "\"\" ",
            "if ", "range ", "with ", "else ", "end ", "define \"a\" ", "template \"a\" ", "block \"b\" . ", "break ", "continue ",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// One call with any arguments.
fn calls() -> impl Strategy<Value = String> {
    let names: Vec<_> = super::super::function::names().collect();
    let argument = prop::sample::select(vec![
        ".list",
        ".map",
        ".people",
        ".missing",
        ".name",
        ".ints",
        "1",
        "0",
        "-1",
        "3",
        "1.5",
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
        "\"ü€a\"",
        "\"a,b\"",
        "\"\"",
        "\"%[2]*.3d %q %#v % x\"",
        "nil",
        "true",
        "now",
        "(semver \"1.2.3-a\")",
        "\"1.2.3\"",
        "\"^1.2 || <3\"",
        "\"2006-01-02\"",
        "\"(a|b)*[^x]\"",
        "(until 3)",
        "(dict \"a\" 1)",
        "(split \",\" \"a,b\")",
        "\"http://u:p@[::1]:80/%20?q#f\"",
        "\"-1.5h\"",
        "65",
        "1000000",
    ]);
    (prop::sample::select(names), prop::collection::vec(argument, 0..5))
        .prop_map(|(name, arguments)| format!("{{{{{name} {}}}}}", arguments.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in pieces()) {
        let limits = Limits { fuel: 20_000, output: 1000, depth: 50 };
        if let Ok(output) = render("t", &text, &data(), NOW, &limits) {
            prop_assert!(output.len() <= 1000);
        }
    }

    #[test]
    fn no_action_panics(text in pieces()) {
        let limits = Limits { fuel: 20_000, output: 1000, depth: 50 };
        let _ = render("t", &format!("{{{{{text}}}}}"), &data(), NOW, &limits);
    }

    #[test]
    fn no_call_panics_and_the_same_call_says_the_same(text in calls()) {
        let limits = Limits { fuel: 200_000, output: 10_000, depth: 50 };
        let once = render("t", &text, &data(), NOW, &limits);
        prop_assert_eq!(once, render("t", &text, &data(), NOW, &limits));
    }

    #[test]
    fn positions_are_within_the_text(text in "[{}a-z.$|() \n\"ü-]{0,40}") {
        if let Err(error) = rendered(&text) {
            let line = text.split('\n').nth(error.line - 1).expect("a line of the text");
            prop_assert!(error.column >= 1 && error.column <= line.chars().count() + 1);
        }
    }
}
