//! Cases of words and wrapping. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        (r#"{{upper "hello ß é"}}"#, "HELLO ß É"),
        (r#"{{lower "HELLO É"}}"#, "hello é"),
        (r#"{{title "hello wOrld foo-bar it's_x 1st"}}"#, "Hello WOrld Foo-Bar It'S_x 1st"),
        (r#"{{untitle "Hello World FOO"}}"#, "hello world fOO"),
        (r#"{{initials "First Try  again"}}"#, "FTa"),
        (r#"{{swapcase "aSd é É 1"}}"#, "AsD É é 1"),
        (r#"{{camelcase "http_server"}}"#, "HttpServer"),
        (r#"{{camelcase "_complex__case_"}}"#, "_Complex_Case_"),
        (r#"{{camelcase "some words"}}"#, "SomeWords"),
        (r#"{{camelcase "no_https"}}"#, "NoHttps"),
        (r#"{{camelcase "FooBar baz-qux"}}"#, "FoobarBazQux"),
        (r#"{{camelcase ""}}"#, ""),
        (r#"{{camelcase "a"}}"#, "A"),
        (r#"{{camelcase "a_"}}"#, "A_"),
        (r#"{{camelcase "_a"}}"#, "_A"),
        (r#"{{camelcase "a__b___c"}}"#, "A_B__C"),
        (r#"{{snakecase "FirstName"}}"#, "first_name"),
        (r#"{{snakecase "HTTPServer"}}"#, "http_server"),
        (r#"{{snakecase "NoHTTPS"}}"#, "no_https"),
        (r#"{{snakecase "GO_PATH"}}"#, "go_path"),
        (r#"{{snakecase "GO PATH"}}"#, "go_path"),
        (r#"{{snakecase "GO-PATH"}}"#, "go_path"),
        (r#"{{snakecase "http2xx"}}"#, "http_2xx"),
        (r#"{{snakecase "HTTP20xOK"}}"#, "http_20x_ok"),
        (r#"{{snakecase "Duration2m3s"}}"#, "duration_2m3s"),
        (r#"{{snakecase "Bld4Floor3rd"}}"#, "bld4_floor_3rd"),
        (r#"{{snakecase "_-_"}}"#, "___"),
        (r#"{{snakecase " Foo  Bar"}}"#, "_foo__bar"),
        (r#"{{snakecase "2_a"}}"#, "2__a"),
        (r#"{{snakecase "a2"}}"#, "a2"),
        (r#"{{snakecase "2A"}}"#, "2_a"),
        (r#"{{snakecase "a.b"}}"#, "a.b"),
        (r#"{{snakecase "Ab.Cd"}}"#, "ab.cd"),
        (r#"{{snakecase "A1B2"}}"#, "a1_b2"),
        (r#"{{snakecase "a$b"}}"#, "a_$_b"),
        (r#"{{snakecase "ABc1De"}}"#, "a_bc1_de"),
        (r#"{{snakecase ""}}"#, ""),
        (r#"{{snakecase "x"}}"#, "x"),
        (r#"{{snakecase "2 b"}}"#, "2__b"),
        (r#"{{snakecase "ÜberFoo"}}"#, "über_foo"),
        (r#"{{snakecase "foo12BarBaz99x_Y"}}"#, "foo12_bar_baz_99x_y"),
        (r#"{{snakecase "a1_b"}}"#, "a1_b"),
        (r#"{{snakecase "a1.b"}}"#, "a1.b"),
        (r#"{{snakecase "1.b"}}"#, "1.b"),
        (r#"{{kebabcase "FirstName"}}"#, "first-name"),
        (r#"{{kebabcase "HTTP20xOK"}}"#, "http-20x-ok"),
        (r#"{{kebabcase "foo_bar baz"}}"#, "foo-bar-baz"),
        (r#"{{wrap 5 "hello world foo"}}"#, "hello\nworld\nfoo"),
        (r#"{{wrap 3 "abcdefgh ij kl"}}"#, "abcdefgh\nij\nkl"),
        (r#"{{wrap 0 "a b"}}"#, "a\nb"),
        (r#"{{wrap 80 "a"}}"#, "a"),
        (r#"{{wrap 5 "a  b   c    d"}}"#, "a  b \nc   \nd"),
        (r#"{{wrap 5 ""}}"#, ""),
        (r#"{{wrapWith 5 "|" "hello world foo"}}"#, "hello|world|foo"),
        (r#"{{wrapWith 3 "\t" "abcdefgh ij"}}"#, "abc\tdef\tgh\tij"),
        (r#"{{wrapWith 3 "" "abcdefgh ij"}}"#, "abc\ndef\ngh\nij"),
        (r#"{{wrapWith 4 "+" "a verylongword b c d"}}"#, "a+very+long+word+b c+d"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&["{{upper 3}}", "{{upper .missing}}", "{{upper .list}}", "{{upper}}", r#"{{upper "a" "b"}}"#]);
}
