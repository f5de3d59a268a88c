//! What is wrong with a template, and where.

use super::*;

#[test]
fn positions_count_lines_and_characters() {
    for (text, line, column, kind) in [
        ("{{", 1, 1, RenderErrorKind::Syntax),
        ("a\nüü {{.x", 2, 4, RenderErrorKind::Syntax),
        ("a\r\n\n  {{ .map.nope.x }}", 3, 6, RenderErrorKind::Execution),
        ("{{if .yes}}", 1, 3, RenderErrorKind::Syntax),
        ("ü{{ $x }}", 1, 5, RenderErrorKind::Syntax),
        ("{{ len 3 }}", 1, 4, RenderErrorKind::Execution),
    ] {
        let error = rendered(text).expect_err(text);
        assert_eq!((error.line, error.column, error.kind), (line, column, kind), "{text}: {error}");
    }
}

#[test]
fn messages_name_the_expression_and_the_way_out() {
    check_faults(&[
        ("{{.map.nope.x}}", "t:1:3: `.map.nope.x`: `.map.nope` is missing, so `x` can't be read from it"),
        ("{{$.nope.x}}", "`$.nope` is missing, so `x`"),
        ("{{(index .map \"nope\").x}}", "is missing, so `x`"),
        ("{{.name.x}}", "`.name.x`: a string has no field `x`"),
        ("{{uppper .name}}", "function `uppper` is unknown"),
        ("{{Run.ID}}", "a field of the data begins with a dot"),
        ("{{env \"PATH\"}}", "function `env` is refused"),
        ("{{randAlpha 5}}", "use `.Run.ID`"),
        ("{{$x}}", "variable `$x` is not set here"),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", "t:1:32: variable `$x`"),
        ("{{end}}", "ends nothing"),
        ("{{if true}}{{else}}{{else}}{{end}}", "second"),
        ("{{break}}", "outside of"),
        ("{{template \"x\"}}", "template \"x\" is not defined"),
        ("{{define \"a\"}}x{{end}}{{define \"a\"}}y{{end}}", "defined twice"),
        ("{{eq 1 1.0}}", "`eq` can't compare an int with a float"),
        ("{{lt true false}}", "can't order"),
        ("{{eq .list .list}}", "can't compare a list"),
        ("{{eq 1}}", "no other"),
        ("{{len}}", "`len` takes 1 argument, not 0"),
        ("{{not 1 2}}", "`not` takes 1 argument, not 2"),
        ("{{index .list 3}}", "there is no item 3"),
        ("{{index .list \"a\"}}", "read by an int"),
        ("{{.name 1}}", "`.name` is no function"),
        ("{{.map.x 1}}", "takes no arguments"),
        ("{{1 | 2}}", "is no function"),
        ("{{nil}}", "`nil` is no function"),
        ("{{}}", "a value is missing"),
        ("{{(1}}", "parenthesis is not closed"),
        ("{{1)}}", "without its `(`"),
        ("{{\"a}}", "not closed"),
        ("{{3x}}", "is no number"),
        ("{{range .name}}{{end}}", "not over a string"),
        ("{{/* x }}", "comment is not closed"),
        ("{{/* x */ 1}}", "action of its own"),
    ]);
}
