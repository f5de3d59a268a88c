//! What differs from Go and Sprig on purpose.

use super::*;

#[test]
fn gentler() {
    check(&[
        // Sprig's own takes lists alone.
        ("{{slice .name 1 3}}", "or"),
        // Sprig takes its own int64 for no int.
        ("{{until (add 1 2)}}", "[0 1 2]"),
        ("{{join \",\" (keys (split \"-\" \"a-b\"))}}", "_0,_1"),
        // mergo leaves a scalar where a map overwrites it.
        ("{{mergeOverwrite (dict \"a\" 1) (dict \"a\" (dict \"b\" 1))}}", "map[a:map[b:1]]"),
        // Sprig writes empty lists as null.
        ("{{toJson (rest .none)}}{{toJson (concat)}}", "[][]"),
        // One connector more comes out of xstrings.
        ("{{camelcase \"__\"}}", "__"),
        // Go's debug text.
        ("{{b64enc 5 | b64dec}}", "5"),
        // Maps in Go have no order.
        ("{{keys .map}}{{values .map}}", "[x y z][1 two map[deep:true]]"),
        // Go cuts bytes.
        ("{{trunc 2 \"aü\"}}|{{substr 0 2 \"aü\"}}|{{abbrev 6 \"üüüüüüü\"}}", "a|a|ü..."),
    ]);
}

#[test]
fn stricter() {
    check_faults(&[
        // Sprig makes a text of its own error, or is silent.
        ("{{b64dec \"a\"}}", "`b64dec`: argument 1 is not in base 64"),
        ("{{b64dec \"/w==\"}}", "is no UTF-8 text"),
        ("{{b32dec \"1\"}}", "not in base 32"),
        ("{{regexMatch \"[a\" \"a\"}}", "no regular expression"),
        ("{{1i}}", "is no number"),
        ("{{$ := 1}}", "`$` is the template's data"),
        ("{{print ($x := 1)}}", "at the beginning of an action only"),
    ]);
}

#[test]
fn the_present_is_the_run_s_time() {
    check(&[
        ("{{now}}", "2024-02-29 13:14:15.678901 +0000 UTC"),
        ("{{now | date \"20060102-150405\"}}", "20240229-131415"),
        ("{{now.Unix}} {{unixEpoch now}} {{htmlDate now}}", "1709212455 1709212455 2024-02-29"),
        (
            "{{ago (now | dateModify \"-90m\")}} {{ago 1709212455}} {{ago (now | dateModify \"30h\")}}",
            "1h30m0s 1s -30h0m0s",
        ),
        ("{{date \"2006\" \"no date\"}}", "2024"),
    ]);
}

#[test]
fn what_is_not_pure_is_refused_with_the_way_out() {
    for name in [
        "env",
        "expandenv",
        "getHostByName",
        "genPrivateKey",
        "derivePassword",
        "buildCustomCert",
        "genCA",
        "genSelfSignedCert",
        "genSignedCert",
        "encryptAES",
        "decryptAES",
        "uuidv4",
        "randAlpha",
        "randAlphaNum",
        "randAscii",
        "randNumeric",
        "shuffle",
        "call",
    ] {
        let error = rendered(&format!("{{{{{name} 1}}}}")).expect_err(name);
        assert!(error.message.starts_with(&format!("function `{name}` is refused: ")), "{error}");
    }
}

/// ACR's list (Sprig 2.22's text functions), and Go's own.
#[test]
fn every_other_function_is_there() {
    let names = "abbrev abbrevboth add add1 adler32sum ago append atoi b32dec b32enc b64dec b64enc base biggest camelcase \
        cat ceil clean coalesce compact concat contains date dateInZone dateModify date_in_zone date_modify deepCopy \
        deepEqual default dict dir div empty ext fail first float64 floor has hasKey hasPrefix hasSuffix hello htmlDate \
        htmlDateInZone indent initial initials int int64 isAbs join kebabcase keys kindIs kindOf last list lower max \
        merge mergeOverwrite min mod mul nindent nospace now omit pick pluck plural prepend push quote regexFind \
        regexFindAll regexMatch regexReplaceAll regexReplaceAllLiteral regexSplit repeat replace rest reverse round \
        semver semverCompare set sha1sum sha256sum slice snakecase sortAlpha split splitList splitn squote sub substr \
        swapcase ternary title toDate toDecimal toJson toPrettyJson toString toStrings trim trimAll trimPrefix trimSuffix \
        trimall trunc tuple typeIs typeIsLike typeOf uniq unixEpoch unset until untilStep untitle upper urlJoin urlParse \
        values without wrap wrapWith \
        and or not eq ne lt le gt ge len index print printf println html js urlquery";
    let wanted: std::collections::BTreeSet<_> = names.split_whitespace().collect();
    assert_eq!(super::super::function::names().collect::<std::collections::BTreeSet<_>>(), wanted);
}
