//! `printf` and its kin. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        (
            r#"{{printf "%v %+v %#v %T" .map .map "a" .map}}"#,
            r#"map[x:1 y:two z:map[deep:true]] map[x:1 y:two z:map[deep:true]] "a" map[string]interface {}"#,
        ),
        (
            r#"{{printf "%#v" (list 1 "a" nil 1.5 (dict "x" true))}}"#,
            r#"[]interface {}{1, "a", interface {}(nil), 1.5, map[string]interface {}{"x":true}}"#,
        ),
        (r#"{{printf "%#v" (splitList "," "a,b")}}"#, r#"[]string{"a", "b"}"#),
        (
            r#"{{printf "%d %5d %-5d| %05d %+d %x %X %#x %o %#o %O %b %c %q %U %#U" 42 42 42 42 42 42 42 42 42 42 42 42 42 42 42 42}}"#,
            "42    42 42   | 00042 +42 2a 2A 0x2a 52 052 0o52 101010 * '*' U+002A U+002A '*'",
        ),
        (
            r#"{{printf "%s %10s %-10s| %.2s %q %x %X % x %#x %+q %#q" "héllo" "héllo" "héllo" "héllo" "héllo" "hi" "hi" "hi" "hi" "héllo" "héllo"}}"#,
            r#"héllo      héllo héllo     | hé "héllo" 6869 6869 68 69 0x6869 "h\u00e9llo" `héllo`"#,
        ),
        (
            r#"{{printf "%f %.2f %8.3f %-8.1f| %e %E %g %G %08.2f %+.1f %.3e %.3g % f" 3.14159 3.14159 3.14159 3.14159 3.14159 3.14159 3.14159 3.14159 3.14159 3.14159 31415.9 31415.9 1.0}}"#,
            "3.141590 3.14    3.142 3.1     | 3.141590e+00 3.141590E+00 3.14159 3.14159 00003.14 +3.1 3.142e+04 3.14e+04  1.000000",
        ),
        (r#"{{printf "%v %v %v %v %v %v" 1.0 1e21 1e20 1e-5 123456.0 100000.0}}"#, "1 1e+21 1e+20 1e-05 123456 100000"),
        (r#"{{printf "%g %.1g %.10g %g" 1e6 123.0 123.456 1e5}}"#, "1e+06 1e+02 123.456 100000"),
        (r#"{{printf "%t %v %5t" true false true}}"#, "true false  true"),
        (r#"{{printf "%d" "a"}}"#, "%!d(string=a)"),
        (r#"{{printf "%s" 1}}"#, "%!s(int=1)"),
        (r#"{{printf "%d" nil}}"#, "%!d(<nil>)"),
        (r#"{{printf "%v" nil}}"#, "<nil>"),
        (r#"{{printf "%s" nil}}"#, "%!s(<nil>)"),
        (r#"{{printf "%z" 1}}"#, "%!z(int=1)"),
        (r#"{{printf "%t" 1}}"#, "%!t(int=1)"),
        (r#"{{printf "%d %d" 1}}"#, "1 %!d(MISSING)"),
        (r#"{{printf "%d" 1 2}}"#, "1%!(EXTRA int=2)"),
        (r#"{{printf "%"}}"#, "%!(NOVERB)"),
        (r#"{{printf "%!"}}"#, "%!!(MISSING)"),
        (r#"{{printf "%%"}}"#, "%"),
        (r#"{{printf "a" "b" 1 nil}}"#, "a%!(EXTRA string=b, int=1, <nil>)"),
        (r#"{{printf "%5%"}}"#, "%"),
        (r#"{{printf "%[2]d %[1]d" 1 2}}"#, "2 1"),
        (r#"{{printf "%[3]d" 1}}"#, "%!d(BADINDEX)"),
        (r#"{{printf "%[x]d" 1}}"#, "%!d(BADINDEX)"),
        (r#"{{printf "%*d" 5 1}}"#, "    1"),
        (r#"{{printf "%-*d|" 5 1}}"#, "1    |"),
        (r#"{{printf "%.*f" 2 3.14159}}"#, "3.14"),
        (r#"{{printf "%*d" "a" 1}}"#, "%!(BADWIDTH)1"),
        (
            r#"{{printf "%s %d %q %v %x" .list .ints .list .list .list}}"#,
            r#"[a b c] [3 1 2] ["a" "b" "c"] [a b c] [61 62 63]"#,
        ),
        (r#"{{printf "%05d" .ints}}"#, "[00003 00001 00002]"),
        (r#"{{printf "%s" .map}}"#, "map[x:%!s(int=1) y:two z:map[deep:%!s(bool=true)]]"),
        (r#"{{printf "%d" .list}}"#, "[%!d(string=a) %!d(string=b) %!d(string=c)]"),
        (r#"{{printf "%6.2f" (list 1.5 2.5)}}"#, "[  1.50   2.50]"),
        (r#"{{printf "%x %X %x" -255 -255 "ü"}}"#, "-ff -FF c3bc"),
        (r#"{{printf "%08x|%-8x|%#08x|% d|% d" 255 255 255 5 -5}}"#, "000000ff|ff      |0x000000ff| 5|-5"),
        (r#"{{printf "%.5d|%8.5d|%-8.5d|%08.5d" 42 42 42 42}}"#, "00042|   00042|00042   |   00042"),
        (r#"{{printf "%.0d|%.0d" 0 1}}"#, "|1"),
        (r#"{{printf "%06d|%+06d" -42 42}}"#, "-00042|+00042"),
        (r#"{{printf "%c|%5c|%q" 0x1F600 65 0x1F600}}"#, "😀|    A|'😀'"),
        (r#"{{printf "%s" now.Month | len}}"#, "8"),
        (r#"{{printf "%v|%s|%d" (semver "1.2.3") (semver "1.2.3") 1}}"#, "1.2.3|1.2.3|1"),
        (r#"{{printf "%q" 'x'}}"#, "'x'"),
        (r#"{{printf "%05s|%05q" "ab" "ab"}}"#, r#"000ab|0"ab""#),
        (r#"{{printf "%-05d|" 3}}"#, "3    |"),
        (r#"{{printf "%T %T %T %T %T" 1 "a" nil 1.5 .list}}"#, "int string <nil> float64 []interface {}"),
        (r#"{{printf "%10T|" 1}}"#, "       int|"),
        ("{{print}}", ""),
        ("{{print 1 2}}", "1 2"),
        (r#"{{print "a" 1 2 "b"}}"#, "a1 2b"),
        ("{{print nil nil}}", "<nil> <nil>"),
        ("{{println}}", "\n"),
        (r#"{{println 1 "a" nil}}"#, "1 a <nil>\n"),
        ("{{print .list .map}}", "[a b c] map[x:1 y:two z:map[deep:true]]"),
        (r#"{{html "<a href='x'>&\"\x00"}}"#, "&lt;a href=&#39;x&#39;&gt;&amp;&#34;�"),
        ("{{html 1 2}}", "1 2"),
        ("{{html .list}}", "[a b c]"),
        (r#"{{js "it's \\ <\n=\"& é \u2028"}}"#, r#"it\'s \\ \u003C\u000A\u003D\"\u0026 é \u2028"#),
        (r#"{{urlquery "a b&c/ü~!*'()"}}"#, "a+b%26c%2F%C3%BC~%21%2A%27%28%29"),
        (r#"{{urlquery 1 "a"}}"#, "1a"),
        ("{{js 1}}", "1"),
        ("{{print nil | print}}", "<nil>"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&[
        "{{print(1)(2)}}",
        "{{print 1,2}}",
        r#"{{print "a""b"}}"#,
        r#"{{print 1"b"}}"#,
        "{{print .name.x}}",
        "{{print $x := 1}}",
    ]);
}
