//! Tables of Dockerfiles: what they depend on, what they need of an engine, what is wrong with them.

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// `runtime | buildtime buildtime`, with `-` for no runtime.
fn show(dependencies: &Dependencies) -> String {
    let runtime = dependencies.runtime.as_deref().unwrap_or("-");
    format!("{runtime} | {}", dependencies.buildtime.join(" ")).trim_end().to_owned()
}

fn depends(text: &str, target: Option<&str>, args: &[(&str, &str)]) -> Result<String, DockerfileError> {
    let args: Vec<_> = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Dockerfile::parse(text)?.dependencies(target, &args, None).map(|found| show(&found))
}

#[test]
fn what_is_only_copied_from_is_told_apart() {
    let table: &[(&str, &[&str])] = &[
        ("FROM a AS x\nFROM b\nCOPY --from=x / /", &[]),
        ("FROM a\nCOPY --from=c:1 / /\nRUN --mount=from=d true", &["c:1", "d"]),
        ("FROM a\nCOPY --from=a / /", &[]),
        ("FROM b AS x\nFROM a\nCOPY --from=x / /\nCOPY --from=b / /", &[]),
        // No stage that is built begins with it.
        ("FROM b AS x\nFROM a\nCOPY --from=b / /", &["b"]),
    ];
    for (text, expect) in table {
        assert_eq!(parse(text).dependencies(None, &[], None).expect(text).copied, *expect, "{text}");
    }
}

#[test]
fn finds_what_a_file_stands_on() {
    let table: &[(&str, &str)] = &[
        // From one image.
        ("FROM alpine", "alpine |"),
        ("FROM alpine:3.20@sha256:ab", "alpine:3.20@sha256:ab |"),
        ("from alpine", "alpine |"),
        ("FrOm\talpine", "alpine |"),
        ("\u{feff}FROM alpine", "alpine |"),
        ("\u{feff}# syntax=x\nFROM alpine", "alpine |"),
        ("\r\n# c\r\nFROM alpine\r\n", "alpine |"),
        ("   FROM   alpine   ", "alpine |"),
        ("FROM \"alpine\"", "alpine |"),
        ("FROM 'alpine:3'", "alpine:3 |"),
        ("FROM scratch", "- |"),
        ("FROM localhost:5000/x", "localhost:5000/x |"),
        ("FROM --platform=linux/arm64 alpine", "alpine |"),
        ("FROM --platform=$BUILDPLATFORM golang AS b\nFROM alpine\nCOPY --from=b /x /x", "alpine | golang"),
        // Continuations and comments.
        ("FROM \\\n alpine", "alpine |"),
        ("FROM \\\n# comment\n\n alpine \\\n AS x", "alpine |"),
        ("FROM alp\\\nine", "alpine |"),
        ("FROM alpine\nRUN echo \\\nFROM nothing", "alpine |"),
        ("FROM alpine\nRUN echo \\  \nFROM nothing", "alpine |"),
        ("FROM alpine\nRUN echo \\\\\nFROM other", "other |"),
        ("FROM alpine\n# FROM nothing\n  # FROM nothing", "alpine |"),
        ("# escape=`\nFROM `\nalpine", "alpine |"),
        ("# ESCAPE = `\nFROM alpine\nRUN dir c:\\\nFROM other", "other |"),
        ("# comment\n# escape=`\nFROM \\\nalpine", "alpine |"),
        ("# check=skip=all\n# escape=`\nFROM `\nalpine", "alpine |"),
        ("FROM alpine\nRUN x \\", "alpine |"),
        // Stages.
        ("FROM a AS x\nFROM x", "a |"),
        ("FROM a AS x\nFROM x AS y\nFROM y", "a |"),
        ("FROM a as X\nFROM x", "a |"),
        ("FROM a AS x\nFROM X", "X |"),
        ("FROM a\nFROM b", "b |"),
        ("FROM a AS x\nFROM b\nCOPY --from=x / /", "b | a"),
        ("FROM a AS x\nFROM b\nCOPY --from=X / /", "b | a"),
        ("FROM a\nFROM b\nCOPY --from=0 / /", "b | a"),
        ("FROM a\nFROM b\nCOPY --chown=1 --from=0 / /", "b | a"),
        ("FROM a\nFROM b\nCOPY --from=\"0\" / /", "b | a"),
        ("FROM a\nFROM b\nRUN cp --from=0 / /", "b |"),
        ("FROM a\nCOPY --from=c:1 / /", "a | c:1"),
        ("FROM a\nCOPY --from=c:1 / /\nCOPY --from=c:1 /x /", "a | c:1"),
        ("FROM a\nCOPY --from=a / /", "a |"),
        ("FROM a\nCOPY --from=scratch / /", "a |"),
        ("FROM a\nADD --from=c / /", "a | c"),
        ("FROM a\nCOPY --from= / /", "a |"),
        ("FROM scratch\nCOPY --from=c / /", "- | c"),
        ("FROM a\nRUN --mount=type=bind,from=c,target=/x true", "a | c"),
        ("FROM a\nRUN --mount=from=c --mount=type=cache,target=/y,FROM=d true", "a | c d"),
        ("FROM a\nRUN --mount=\"type=bind,from=c\" true", "a | c"),
        ("FROM a\nRUN --mount=type=secret,id=x true", "a |"),
        ("FROM a\nRUN --mount=type=tmpfs,target=/x true", "a |"),
        ("FROM a\nRUN --mount=from=0 true", "a | 0"),
        ("FROM a AS x\nFROM b\nRUN --mount=from=x true", "b | a"),
        ("FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x / /", "c | b"),
        ("FROM a\nCOPY --from=later / /\nFROM b AS later", "b |"),
        ("FROM a AS self\nCOPY --from=self / /", "a |"),
        ("FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nCOPY --from=x / /", "b | a"),
        ("FROM a AS scratch\nFROM scratch", "a |"),
        ("FROM a AS x\nONBUILD COPY --from=c / /\nFROM x", "a | c"),
        ("FROM a AS x\nONBUILD RUN --mount=from=c true", "a |"),
        // Variables.
        ("ARG V=3\nFROM alpine:$V", "alpine:3 |"),
        ("ARG V=3\nFROM alpine:${V}", "alpine:3 |"),
        ("ARG V=\"3\"\nFROM alpine:${V}", "alpine:3 |"),
        ("ARG V='3'\nFROM \"alpine:${V}\"", "alpine:3 |"),
        ("ARG V=3\nFROM 'alpine:$V'", "alpine:$V |"),
        ("ARG V=3\nFROM alpine\\$V", "alpine$V |"),
        ("ARG V\nFROM alpine:${V:-3}", "alpine:3 |"),
        ("ARG V=\nFROM alpine:${V:-3}", "alpine:3 |"),
        ("ARG V=\nFROM alpine:x${V-3}", "alpine:x |"),
        ("FROM alpine:${V-3}", "alpine:3 |"),
        ("ARG V=3\nFROM alpine${V:+:$V}", "alpine:3 |"),
        ("FROM alpine${V:+:$V}", "alpine |"),
        ("ARG V=3\nFROM alpine${V+:x}", "alpine:x |"),
        ("ARG V=3\nFROM alpine:${V:?needed}", "alpine:3 |"),
        ("FROM ${A:-${B:-c}}", "c |"),
        ("FROM ${A:-\"c\"}", "c |"),
        ("ARG A=1 B=2\nFROM x:$A-$B", "x:1-2 |"),
        ("ARG A=1\nARG B=${A}.5\nFROM x:$B", "x:1.5 |"),
        ("ARG A=1\nARG A=2\nFROM x:$A", "x:2 |"),
        ("ARG A=1\nARG A\nFROM x:$A", "x:1 |"),
        ("ARG A=1 \\\n  B=2\nFROM x:$A$B", "x:12 |"),
        ("ARG I=alpine\nFROM $I AS x\nFROM $I", "alpine |"),
        ("ARG S=x\nFROM a AS x\nFROM $S", "a |"),
        ("FROM a\nARG V=3\nFROM b:x$V", "b:x |"),
        ("ARG V=3.20.1\nFROM a:${V%.*}", "a:3.20 |"),
        ("ARG V=3.20.1\nFROM a:${V%%.*}", "a:3 |"),
        ("ARG V=v3.20\nFROM a:${V#v}", "a:3.20 |"),
        ("ARG V=x/y/z\nFROM a:${V##*/}", "a:z |"),
        ("ARG V=3.20.1\nFROM a:${V/./_}", "a:3_20.1 |"),
        ("ARG V=3.20.1\nFROM a:${V//./_}", "a:3_20_1 |"),
        ("ARG V=a/b\nFROM x:${V/\\//-}", "x:a-b |"),
        ("ARG V=3\nFROM a:$V$$", "a:3$$ |"),
        // Here-documents and what is none.
        ("FROM a\nRUN <<EOF\nFROM nothing\nEOF\n", "a |"),
        ("FROM a\nRUN <<-EOF\n\tFROM nothing\n\tEOF\nFROM b", "b |"),
        ("FROM a\nRUN cat <<'E F' > x\nFROM nothing\nE F\n", "a |"),
        ("FROM a\nCOPY <<a <<\"b\" /x/\nFROM nothing\na\nFROM nothing\nb\nFROM c", "c |"),
        ("FROM a\nRUN 3<< EOF cat\nFROM nothing\nEOF", "a |"),
        ("FROM a\nONBUILD RUN <<EOF\nFROM nothing\nEOF", "a |"),
        ("FROM a\nRUN echo $((1<<3))\nFROM b", "b |"),
        ("FROM a\nRUN cat <<<word\nFROM b", "b |"),
        ("FROM a\nRUN [\"cat\", \"<<EOF\"]\nFROM b", "b |"),
        ("FROM a\nLABEL x=<<EOF\nFROM b", "b |"),
        ("FROM a\nRUN echo \"<<EOF\"\nFROM b", "b |"),
        ("FROM a\nRUN echo it's <<EOF\nFROM b", "b |"),
        ("FROM a\nNOSUCH thing\nFROM b", "b |"),
    ];
    for (text, expected) in table {
        assert_eq!(depends(text, None, &[]).as_deref(), Ok(*expected), "{text}");
    }
    assert!(table.len() > 90, "{}", table.len());
}

#[test]
fn build_arguments_win_where_they_are_declared() {
    type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let table: &[Row] = &[
        ("ARG V=3\nFROM a:$V", &[("V", "4")], "a:4 |"),
        ("ARG V\nFROM a:$V", &[("V", "4")], "a:4 |"),
        ("ARG V=3\nFROM a:$V", &[("V", "4"), ("V", "5")], "a:5 |"),
        ("FROM a:x$V", &[("V", "4")], "a:x |"),
        ("ARG V=3\nFROM a:$V", &[("v", "4")], "a:3 |"),
        ("ARG V=3\nARG W=${V}1\nFROM a:$W", &[("V", "4")], "a:41 |"),
        ("ARG V=3\nFROM a:${V:-7}", &[("V", "")], "a:7 |"),
        ("ARG V=3\nFROM a:$V", &[("V", "$W")], "a:$W |"),
    ];
    for (text, args, expected) in table {
        assert_eq!(depends(text, None, args).as_deref(), Ok(*expected), "{text} {args:?}");
    }
}

#[test]
fn only_what_the_target_needs_counts() {
    let text = "FROM go AS Build\nFROM node AS web\nCOPY --from=tool / /\nFROM alpine AS base\n\
                FROM base AS test\nCOPY --from=build / /\nFROM base\nCOPY --from=web / /";
    let table: &[(Option<&str>, &str)] = &[
        (None, "alpine | node tool"),
        (Some(""), "alpine | node tool"),
        (Some("test"), "alpine | go"),
        (Some("TEST"), "alpine | go"),
        (Some("build"), "go |"),
        (Some("web"), "node | tool"),
        (Some("base"), "alpine |"),
        (Some("0"), "go |"),
        (Some("4"), "alpine | node tool"),
    ];
    for (target, expected) in table {
        assert_eq!(depends(text, *target, &[]).as_deref(), Ok(*expected), "{target:?}");
    }
    for target in ["nothing", "5", "-1"] {
        let error = depends(text, Some(target), &[]).expect_err(target).to_string();
        let stages = "its stages are `build`, `web`, `base`, `test`, `4`";
        assert_eq!(error, format!("the Dockerfile has no stage `{target}`; {stages}"));
    }
}

#[test]
fn the_platform_gives_values() {
    let arm = Platform::parse("linux/arm/v7").expect("valid");
    let text = "FROM --platform=$BUILDPLATFORM x:$TARGETOS-$TARGETARCH-${TARGETVARIANT:-none}";
    let with =
        |platform, args: &[(String, String)]| show(&parse(text).dependencies(None, args, platform).expect("valid"));
    assert_eq!(with(Some(&arm), &[]), "x:linux-arm-v7 |");
    assert_eq!(with(Some(&Platform::LINUX_AMD64), &[]), "x:linux-amd64-none |");
    assert_eq!(with(Some(&arm), &[("TARGETARCH".to_owned(), "mine".to_owned())]), "x:linux-mine-v7 |");
    assert_eq!(with(None, &[]), "x:--none |");
}

#[test]
fn errors_name_the_line() {
    let doubling: String = (1..60).map(|n| format!("ARG A{n}=$A{0}$A{0}\n", n - 1)).collect();
    let doubling = format!("ARG A0=xxxxxxxx\n{doubling}FROM $A59");
    let nested = format!("FROM {}x{}", "${A:-".repeat(50), "}".repeat(50));
    let table: &[(&str, &str)] = &[
        ("", "the Dockerfile has no FROM; begin it with"),
        ("# only\n\n", "the Dockerfile has no FROM"),
        ("ARG A=1", "the Dockerfile has no FROM"),
        ("\n# x\nRUN x\nFROM a", "line 3: `RUN` comes before the first FROM, where only ARG may stand"),
        ("Hello there", "line 1: `HELLO` comes before"),
        ("FROM", "line 1: FROM takes `image` or `image AS name`"),
        ("FROM a b", "line 1: FROM takes"),
        ("FROM a IS b", "line 1: FROM takes"),
        ("FROM a AS b c", "line 1: FROM takes"),
        ("FROM a \\\n AS\nRUN x", "line 1: FROM takes"),
        ("FROM a AS 1x", "line 1: stage name `1x` must begin with a letter"),
        ("FROM a AS x/y", "stage name `x/y` must"),
        ("FROM a AS b\nFROM $X", "line 2: `FROM $X` names no image; give its variables values with --build-arg"),
        ("FROM \"\"", "names no image"),
        ("FROM ${X", "line 1: `${X` can't be expanded: `}` is missing"),
        ("FROM ${X:-", "`}` is missing"),
        ("FROM ${}", "`${` needs a name behind it"),
        ("FROM ${X^^}", "`^` is no known form of `${X…}`"),
        ("FROM ${X:=y}", "`:=` is no known form of `${X…}`"),
        ("FROM ${X:?tell-me}", "X: tell-me"),
        ("FROM ${X?}", "X must have a value"),
        ("FROM 'a", "a `'` is not closed"),
        ("FROM \"a", "a `\"` is not closed"),
        ("ARG X=${Y\nFROM a", "line 1: `${Y` can't be expanded"),
        ("FROM a\nCOPY --from=1 / /", "line 2: there is no stage number 1; the 1 stages count from 0"),
        ("FROM a\nCOPY --from=-1 / /", "line 2: there is no stage number -1"),
        ("FROM a\nCOPY --from=$X / /", "line 2: `from` can't hold the variable in `$X`; add a stage `FROM $X AS name`"),
        ("FROM a\nRUN --mount=from=${X} x", "line 2: `from` can't hold the variable in `${X}`"),
        ("FROM a\nRUN <<EOF\nx\nEOF2\n", "line 2: the here-document has no line `EOF` at its end"),
        ("# escape=x\nFROM a", "line 1: the escape directive takes `\\` or a backtick"),
        ("# escape=`\n# escape=`\nFROM a", "line 2: a parser directive can be given only once"),
        (&doubling, "it grows beyond 65536 bytes"),
        (&nested, "variables are nested more than 32 deep"),
    ];
    for (text, message) in table {
        let error = depends(text, None, &[]).expect_err(text).to_string();
        assert!(error.contains(message), "{text}: {error}");
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
    }
}

#[test]
fn features_name_the_first_line_that_needs_them() {
    use DockerfileFeature::*;
    let table: &[(&str, &[(DockerfileFeature, usize)])] = &[
        ("FROM a\nRUN x\nCOPY --chmod=1 --from=b x y\nRUN --mount=type=cache,target=/x y", &[]),
        ("FROM a\nRUN x\nRUN <<EOF\ny\nEOF\nCOPY <<EOF /x\nEOF", &[(Heredoc, 3)]),
        ("FROM a\nONBUILD RUN <<EOF\nEOF", &[(Heredoc, 2)]),
        ("FROM a\nCOPY --link x y\nRUN --network=none x\nADD --link=false x y", &[(CopyLink, 2), (RunNetwork, 3)]),
        ("FROM a\nONBUILD COPY --link x y", &[(CopyLink, 2)]),
        ("FROM a\nRUN echo --link", &[]),
        ("FROM a\nRUN \\\n --network=host \\\n x", &[(RunNetwork, 2)]),
        (
            "FROM a\nADD --checksum=sha256:1 --keep-git-dir=true --unpack x y",
            &[(AddChecksum, 2), (AddKeepGitDir, 2), (AddUnpack, 2)],
        ),
        (
            "FROM a\nCOPY --parents --exclude=*.md x y\nRUN --security=insecure x",
            &[(CopyParents, 2), (CopyExclude, 2), (RunSecurity, 3)],
        ),
        ("FROM a\nHEALTHCHECK --start-interval=1s CMD x", &[(HealthStartInterval, 2)]),
        ("# syntax=docker/dockerfile:1\nFROM a\nRUN <<EOF\nEOF", &[]),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text).required_features(), *expected, "{text}");
    }
    assert_eq!(Heredoc.requirement(), "heredocs need Docker Engine 23 or newer");
    assert_eq!(CopyLink.requirement(), "`--link` needs Docker Engine 23 or newer");
}

#[test]
fn the_frontend_is_told() {
    let table: &[(&str, Option<&str>)] = &[
        ("FROM a", None),
        ("# syntax=docker/dockerfile:1.7\nFROM a", Some("docker/dockerfile:1.7")),
        ("#syntax = x/y arg\nFROM a", Some("x/y")),
        ("#!/usr/bin/env x\n# syntax=x\nFROM a", Some("x")),
        ("# comment\n# syntax=x\nFROM a", None),
        ("\n# syntax=x\nFROM a", None),
        ("FROM a\n# syntax=x", None),
        ("# syntax=\nFROM a", None),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text).syntax(), *expected, "{text}");
    }
}

#[test]
fn nothing_makes_it_panic() {
    let pieces = [
        "FROM ",
        "a",
        " AS b",
        "\n",
        "\\\n",
        "\\",
        "ARG ",
        "X=",
        "$X",
        "${X",
        ":-",
        "}",
        "'",
        "\"",
        "<<EOF",
        "EOF\n",
        "RUN ",
        "COPY --from=",
        "0",
        " ",
        "# escape=`\n",
        "`\n",
        "ONBUILD ",
        "[\"",
        "\"]",
        "--mount=from=",
        ",",
        "é",
        "/",
        "%",
        "#",
        "\t",
        "\r\n",
        "--",
        "<<-",
        "\u{feff}",
    ];
    // A small generator is enough: its state is the seed.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..(state % 24) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        if let Ok(file) = Dockerfile::parse(&text) {
            let _ = file.dependencies(None, &[("X".to_owned(), "y".to_owned())], None);
            let _ = file.required_features();
        }
    }
}
