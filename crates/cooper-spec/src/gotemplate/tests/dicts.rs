//! Maps. What is expected is what Go and Sprig 2.22 make of it.

use super::check;

#[test]
fn renders() {
    check(&[
        (r#"{{dict "a" 1 "b" "two"}}"#, "map[a:1 b:two]"),
        ("{{dict}}", "map[]"),
        (r#"{{dict "a"}}"#, "map[a:]"),
        ("{{dict 1 2 nil 3}}", "map[1:2 <nil>:3]"),
        (r#"{{(dict "a" (dict "b" 3)).a.b}}"#, "3"),
        (r#"{{pluck "name" (index .people 0) (index .people 1) .map}}"#, "[Ada Bo]"),
        (r#"{{keys (dict "a" 1)}}"#, "[a]"),
        ("{{keys .map | sortAlpha}}", "[x y z]"),
        (r#"{{values (dict "a" 1)}}"#, "[1]"),
        (r#"{{pick .map "x" "nope"}}"#, "map[x:1]"),
        (r#"{{omit .map "z" "nope"}}"#, "map[x:1 y:two]"),
        (r#"{{keys (dict "a" 1) (dict "b" 1)}}"#, "[a b]"),
        (
            r#"{{merge (dict "a" 1 "n" (dict "x" 1)) (dict "a" 2 "b" 3 "n" (dict "x" 2 "y" 3))}}"#,
            "map[a:1 b:3 n:map[x:1 y:3]]",
        ),
        (
            r#"{{mergeOverwrite (dict "a" 1 "n" (dict "x" 1)) (dict "a" 2 "b" 3 "n" (dict "x" 2 "y" 3))}}"#,
            "map[a:2 b:3 n:map[x:2 y:3]]",
        ),
        (
            r#"{{merge (dict "a" 0 "b" "" "c" nil "d" false "e" (list)) (dict "a" 1 "b" 2 "c" 3 "d" 4 "e" 5)}}"#,
            "map[a:1 b:2 c:3 d:4 e:5]",
        ),
        (r#"{{mergeOverwrite (dict "a" 1 "b" 2 "c" 3) (dict "a" 0 "b" "" "c" nil)}}"#, "map[a:0 b: c:<nil>]"),
        (r#"{{merge (dict "a" (dict)) (dict "a" (dict "b" 1))}}"#, "map[a:map[b:1]]"),
        (r#"{{mergeOverwrite (dict "a" (dict "b" 1)) (dict "a" (dict))}}"#, "map[a:map[b:1]]"),
        (r#"{{merge (dict "a" 1) (dict "a" (dict "b" 1))}}"#, "map[a:1]"),
        (r#"{{merge (dict "a" (dict "b" 1)) (dict "a" 1)}}"#, "map[a:map[b:1]]"),
        (r#"{{mergeOverwrite (dict "a" (dict "b" 1)) (dict "a" 1)}}"#, "map[a:1]"),
        (r#"{{merge (dict "a" (list 1)) (dict "a" (list 2))}}"#, "map[a:[1]]"),
        (r#"{{mergeOverwrite (dict "a" (list 1)) (dict "a" (list 2 3))}}"#, "map[a:[2 3]]"),
        (r#"{{merge (dict) (dict "a" nil)}}"#, "map[]"),
        (r#"{{mergeOverwrite (dict) (dict "a" nil)}}"#, "map[a:<nil>]"),
        (r#"{{ dict "k" "v" | toJson }}"#, r#"{"k":"v"}"#),
    ]);
}
