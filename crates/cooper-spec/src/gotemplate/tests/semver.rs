//! Versions. What is expected is what Go and Sprig 2.22 make of it.

use super::{check, check_refused};

#[test]
fn renders() {
    check(&[
        (r#"{{semver "1.2.3-beta.1+c0ff33"}}"#, "1.2.3-beta.1+c0ff33"),
        (r#"{{(semver "v1.2.3").Major}}"#, "1"),
        (r#"{{(semver "1.2.3").Minor}}"#, "2"),
        (r#"{{(semver "1.2.3").Patch}}"#, "3"),
        (r#"{{(semver "1.2.3-beta.1+x").Prerelease}}"#, "beta.1"),
        (r#"{{(semver "1.2.3+x.y").Metadata}}"#, "x.y"),
        (r#"{{(semver "v1.2").Original}}"#, "v1.2"),
        (r#"{{semver "1"}}"#, "1.0.0"),
        (r#"{{(semver "1.2.3").Compare (semver "1.3")}}"#, "-1"),
        (r#"{{semver "1.2.3" | (semver "1.2.3").Equal}}"#, "true"),
        (r#"{{semver "01.2"}}"#, "1.2.0"),
        (r#"{{semverCompare "^1.2.0" "1.2.3"}}"#, "true"),
        (r#"{{semverCompare "^1.2.0" "2.0.0"}}"#, "false"),
        (r#"{{semverCompare "~1.2" "1.2.9"}}"#, "true"),
        (r#"{{semverCompare "~1.2" "1.3.0"}}"#, "false"),
        (r#"{{semverCompare ">=1.2, <2" "1.9.9"}}"#, "true"),
        (r#"{{semverCompare ">=1.2, <2 || ^3" "3.1.0"}}"#, "true"),
        (r#"{{semverCompare "1.2.x" "1.2.5"}}"#, "true"),
        (r#"{{semverCompare "1.x" "1.9.5"}}"#, "true"),
        (r#"{{semverCompare "*" "1.2.3"}}"#, "true"),
        (r#"{{semverCompare "*" "1.2.3-a"}}"#, "false"),
        (r#"{{semverCompare "!=1.2.3" "1.2.3"}}"#, "false"),
        (r#"{{semverCompare "!=1.x" "1.2.3"}}"#, "false"),
        (r#"{{semverCompare "!=1.x" "2.2.3"}}"#, "true"),
        (r#"{{semverCompare "1.2 - 1.4" "1.3.0"}}"#, "true"),
        (r#"{{semverCompare "1.2 - 1.4" "1.5.0"}}"#, "false"),
        (r#"{{semverCompare ">1.2.3-alpha.1" "1.2.3-alpha.2"}}"#, "true"),
        (r#"{{semverCompare ">=1.2.3" "1.2.3-alpha"}}"#, "false"),
        (r#"{{semverCompare "<1.2.3-beta" "1.2.3-alpha.10"}}"#, "true"),
        (r#"{{semverCompare "=1.2.3" "1.2.3"}}"#, "true"),
        (r#"{{semverCompare "1.2.3" "1.2.4"}}"#, "false"),
        (r#"{{semverCompare "<=1.x" "1.9.0"}}"#, "true"),
        (r#"{{semverCompare "<1.x" "1.9.0"}}"#, "true"),
        (r#"{{semverCompare "<1.2.x" "1.3.0"}}"#, "false"),
        (r#"{{semverCompare "~0.0.0" "9.9.9"}}"#, "true"),
        (r#"{{semverCompare "~>2" "2.5.0"}}"#, "true"),
        (r#"{{semverCompare "=> 1" "1.0.0"}}"#, "true"),
        (r#"{{semverCompare "^0.2.3" "0.3.0"}}"#, "true"),
        (r#"{{semverCompare "^0" "0.3.0"}}"#, "true"),
        (r#"{{semverCompare "1.2-beta" "1.2.0-beta"}}"#, "true"),
        (r#"{{semverCompare "> 1.2.3-9" "1.2.3-10"}}"#, "true"),
        (r#"{{semverCompare "v1.2.3" "v1.2.3"}}"#, "true"),
        (r#"{{semverCompare "1.2.3+b" "1.2.3+a"}}"#, "true"),
        (r#"{{semverCompare ">1.x" "1.2.3"}}"#, "true"),
        (r#"{{semverCompare "<2.x" "2.0.0"}}"#, "true"),
    ]);
}

#[test]
fn refuses() {
    check_refused(&[
        r#"{{semver "x"}}"#,
        r#"{{semver "1.2.3.4"}}"#,
        r#"{{semverCompare "abc" "1.2.3"}}"#,
        r#"{{semverCompare "1.2.3" "abc"}}"#,
        r#"{{semverCompare "" "1.2.3"}}"#,
        r#"{{semverCompare ">=1 <2" "1.2.3"}}"#,
    ]);
}
