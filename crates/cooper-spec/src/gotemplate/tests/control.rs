//! Actions, control structures and built-in functions, one by one.

use super::check;

#[test]
fn actions_and_data() {
    check(&[
        ("", ""),
        ("plain }} { text", "plain }} { text"),
        ("Hello, {{.name}}!", "Hello, World!"),
        ("{{.missing}}|{{.null}}|<no value>|", "|||"),
        ("{{.map.x}} {{.map.z.deep}} {{.map.nope}}", "1 true "),
        (
            "{{.}}|{{$.n}}",
            "map[empty: f:1.5 ints:[3 1 2] list:[a b c] map:map[x:1 y:two z:map[deep:true]] n:7 name:World no:false none:[] null:<nil> people:[map[age:36 name:Ada] map[age:4 name:Bo]] yes:true]|7",
        ),
        ("a  {{- .n -}}  b", "a7b"),
        ("a\n{{- /* note */ -}}\n b", "ab"),
        ("{{/* note */}}x", "x"),
        ("{{ \"a\\tb\\u00fc\" }}{{ `r\\n` }}{{ 'a' }}", "a\tbür\\n97"),
        (
            "{{ 1 }} {{ -3 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1_000 }} {{ 1.50 }} {{ 1e3 }} {{ 1e6 }} {{ .5 }}",
            "1 -3 31 3 15 1000 1.5 1000 1e+06 0.5",
        ),
        ("{{ true }} {{ (.map).y }} {{ (index .people 1).name }}", "true two Bo"),
        ("{{ $x := 3 }}{{ $x }}{{ $x = 4 }}{{ $x }}{{ if true }}{{ $x = 5 }}{{ $y := 1 }}{{ end }}{{ $x }}", "345"),
        ("{{ .name | printf \"%s-%s\" \"a\" | len }}", "7"),
        ("{{\n  .name\n}}", "World"),
    ]);
}

#[test]
fn control_structures() {
    check(&[
        ("{{if .yes}}a{{else}}b{{end}}{{if .no}}a{{else}}b{{end}}", "ab"),
        ("{{if .no}}a{{else if .empty}}b{{else if .n}}c{{else}}d{{end}}", "c"),
        ("{{if .none}}a{{end}}{{if .list}}b{{end}}{{if 0.0}}c{{end}}{{if .map}}d{{end}}", "bd"),
        ("{{with .map}}{{.x}}{{$.n}}{{end}}{{with .missing}}a{{else}}b{{end}}", "17b"),
        ("{{with .missing}}a{{else with .name}}{{.}}{{end}}", "World"),
        ("{{with $x := .n}}{{$x}}{{.}}{{end}}", "77"),
        ("{{range .list}}{{.}},{{end}}", "a,b,c,"),
        ("{{range $x := .ints}}{{$x}}{{end}}", "312"),
        ("{{range $i, $x := .list}}{{$i}}{{$x}}{{end}}", "0a1b2c"),
        ("{{range $k, $v := .map.z}}{{$k}}={{$v}}{{end}}", "deep=true"),
        ("{{range .none}}x{{else}}empty{{end}}{{range .missing}}x{{else}}none{{end}}", "emptynone"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .ints}}{{if eq . 1}}{{continue}}{{end}}{{.}}{{end}}", "32"),
        ("{{range .ints}}{{if eq . 1}}{{break}}{{end}}{{.}}{{end}}", "3"),
        ("{{range .people}}{{.name}}:{{range $.list}}{{.}}{{break}}{{end}} {{end}}", "Ada:a Bo:a "),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .n}}{{template \"t\"}}", "<7><>"),
        ("{{block \"b\" .name}}[{{.}}]{{end}}{{template \"b\" 1}}", "[World][1]"),
        ("{{define \"r\"}}{{if .}}x{{template \"r\" false}}{{end}}{{end}}{{template \"r\" .list}}", "x"),
    ]);
}

#[test]
fn built_in_functions() {
    check(&[
        ("{{and .yes 0 .nope}}|{{and 1 2}}|{{or 0 \"\" 3 4}}|{{or 0 \"\"}}|{{not .no}}", "0|2|3||true"),
        ("{{and .missing .missing.x}}", ""),
        (
            "{{eq .n 7}} {{eq .n 1 7}} {{eq .name \"World\"}} {{ne 1 2}} {{eq .yes true}} {{eq 1.5 .f}}",
            "true true true true true true",
        ),
        ("{{eq .missing nil}} {{eq .missing \"\"}} {{eq \"\" .missing}}", "true false false"),
        ("{{lt 1 2}} {{le 2 2}} {{gt \"b\" \"a\"}} {{ge 1.5 2.5}}", "true true true false"),
        ("{{len .list}} {{len .name}} {{len .map}}", "3 5 3"),
        ("{{index .list 1}} {{index .map \"z\" \"deep\"}} {{index .map \"nope\"}} {{index .name 0}}", "b true  87"),
        ("{{print 1 2 \"a\" \"b\" 3 .yes}}|{{println \"a\" 1}}", "1 2ab3 true|a 1\n"),
        ("{{html \"<a href='x'>&\\\"\"}}", "&lt;a href=&#39;x&#39;&gt;&amp;&#34;"),
        ("{{js \"it's <\\n=\"}}", "it\\'s \\u003C\\u000A\\u003D"),
        ("{{urlquery \"a b&c/ü~\"}}", "a+b%26c%2F%C3%BC~"),
    ]);
}
