//! Encodings, checksums, paths and URLs. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        (r#"{{b64enc "hello"}}"#, "aGVsbG8="),
        (r#"{{b64enc ""}}"#, ""),
        ("{{b64enc nil}}", ""),
        ("{{b64enc .missing}}", ""),
        (r#"{{b64dec "aGVsbG8="}}"#, "hello"),
        (r#"{{b64dec "aGVs\nbG8="}}"#, "hello"),
        (r#"{{b64enc "a"}}"#, "YQ=="),
        (r#"{{b64enc "ab"}}"#, "YWI="),
        (r#"{{b32enc "hello world"}}"#, "NBSWY3DPEB3W64TMMQ======"),
        (r#"{{b32dec "NBSWY3DPEB3W64TMMQ======"}}"#, "hello world"),
        (r#"{{b32enc "a"}}"#, "ME======"),
        (r#"{{b32enc "ab"}}"#, "MFRA===="),
        (r#"{{b32enc "abc"}}"#, "MFRGG==="),
        (r#"{{b32enc "abcd"}}"#, "MFRGGZA="),
        (r#"{{b32dec "ME======"}}"#, "a"),
        (r#"{{sha1sum "Hello world!"}}"#, "d3486ae9136e7856bc42212385ea797094475802"),
        (r#"{{sha256sum "Hello world!"}}"#, "c0535e4be2b79ffd93291305436bf889314e4a3faec05ecffcbb7df31ad9e51a"),
        (r#"{{adler32sum "Hello world!"}}"#, "487130206"),
        (r#"{{adler32sum ""}}"#, "1"),
        (r#"{{sha256sum ""}}"#, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (r#"{{base "a/b/c.txt"}}"#, "c.txt"),
        (r#"{{base ""}}"#, "."),
        (r#"{{base "///"}}"#, "/"),
        (r#"{{base "a/"}}"#, "a"),
        (r#"{{dir "a/b/c"}}"#, "a/b"),
        (r#"{{dir "a"}}"#, "."),
        (r#"{{dir "/a"}}"#, "/"),
        (r#"{{dir ""}}"#, "."),
        (r#"{{dir "a//b"}}"#, "a"),
        (r#"{{clean "/a/../../b/./c//d/.."}}"#, "/b/c"),
        (r#"{{clean ""}}"#, "."),
        (r#"{{clean "../a/../../b"}}"#, "../../b"),
        (r#"{{clean "a/.."}}"#, "."),
        (r#"{{ext "a.tar.gz"}}"#, ".gz"),
        (r#"{{ext "a.b/c"}}"#, ""),
        (r#"{{ext ".x"}}"#, ".x"),
        (r#"{{isAbs "/a"}}"#, "true"),
        (r#"{{isAbs "a"}}"#, "false"),
        (
            r#"{{urlParse "http://user:pass@example.com:8080/a%20b/c?q=1&r=2#frag"}}"#,
            "map[fragment:frag host:example.com:8080 hostname:example.com opaque: path:/a b/c query:q=1&r=2 scheme:http userinfo:user:pass]",
        ),
        (
            r#"{{urlParse "mailto:a@b.c"}}"#,
            "map[fragment: host: hostname: opaque:a@b.c path: query: scheme:mailto userinfo:]",
        ),
        (r#"{{urlParse "/a/b?x"}}"#, "map[fragment: host: hostname: opaque: path:/a/b query:x scheme: userinfo:]"),
        (
            r#"{{urlParse "//host/p"}}"#,
            "map[fragment: host:host hostname:host opaque: path:/p query: scheme: userinfo:]",
        ),
        (
            r#"{{urlParse "http://[::1]:80/x"}}"#,
            "map[fragment: host:[::1]:80 hostname:::1 opaque: path:/x query: scheme:http userinfo:]",
        ),
        (r#"{{urlParse ""}}"#, "map[fragment: host: hostname: opaque: path: query: scheme: userinfo:]"),
        (r#"{{urlParse "a/b"}}"#, "map[fragment: host: hostname: opaque: path:a/b query: scheme: userinfo:]"),
        (
            r#"{{urlParse "HTTP://Ex.COM"}}"#,
            "map[fragment: host:Ex.COM hostname:Ex.COM opaque: path: query: scheme:http userinfo:]",
        ),
        (
            r#"{{urlParse "http://u@h"}}"#,
            "map[fragment: host:h hostname:h opaque: path: query: scheme:http userinfo:u]",
        ),
        (
            r#"{{urlParse "file:///x/y"}}"#,
            "map[fragment: host: hostname: opaque: path:/x/y query: scheme:file userinfo:]",
        ),
        (r#"{{urlParse "x?y#z%20"}}"#, "map[fragment:z  host: hostname: opaque: path:x query:y scheme: userinfo:]"),
        (r#"{{urlParse "///a"}}"#, "map[fragment: host: hostname: opaque: path:///a query: scheme: userinfo:]"),
        (r#"{{urlParse "a:b:c"}}"#, "map[fragment: host: hostname: opaque:b:c path: query: scheme:a userinfo:]"),
        (
            r#"{{urlJoin (dict "scheme" "https" "host" "h.io:1" "path" "/a b/ü;=@:$" "query" "q=1" "fragment" "f g" "userinfo" "u:p")}}"#,
            "https://u:p@h.io:1/a%20b/%C3%BC;=@:$?q=1#f%20g",
        ),
        (r#"{{urlJoin (dict "path" "a:b")}}"#, "./a:b"),
        (r#"{{urlJoin (dict "host" "h" "path" "p")}}"#, "//h/p"),
        (r#"{{urlJoin (dict "scheme" "mailto" "opaque" "a@b")}}"#, "mailto:a@b"),
        ("{{urlJoin (dict)}}", ""),
        (r#"{{urlJoin (dict "scheme" "file" "path" "/x")}}"#, "file:///x"),
        (r#"{{urlJoin (urlParse "https://u:p@h:1/p%20q?x=1#f")}}"#, "https://u:p@h:1/p%20q?x=1#f"),
        (r#"{{urlJoin (dict "scheme" "http")}}"#, "http:"),
        (r#"{{urlJoin (dict "path" "//a")}}"#, "//a"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&[
        r#"{{urlParse "http://a b/"}}"#,
        r#"{{urlParse "http://h:x/"}}"#,
        r#"{{urlParse ":foo"}}"#,
        r#"{{urlParse "1a:b"}}"#,
        r#"{{urlParse "%zz"}}"#,
        r#"{{urlJoin (dict "scheme" "https" "host" "h.io:1" "path" "/a b/ü" "query" "q=1" "fragment" "f g" "userinfo" "u:p w")}}"#,
        r#"{{urlJoin (dict "host" 1)}}"#,
    ]);
}
