//! What a step runs for: `platform`, `platforms`, and `--platform` of a build's text.

use std::collections::BTreeSet;

use cooper_types::Platform;

use crate::task::fields::{Fields, Report};
use crate::task::yaml::At;

/// The platforms that a step's properties name.
pub(super) fn named(fields: &Fields<'_>, kind: &str, report: &mut Report<'_>) -> Vec<Platform> {
    let one = fields.text("platform", report);
    let many = fields.texts("platforms", report);
    if let (Some(one), false) = (&one, many.is_empty()) {
        report.fault(one.at, "a step has `platform` and `platforms`", "name all under `platforms`");
    }
    if kind != "build" && many.len() > 1 {
        let message = format!("a {kind} step has {} platforms", many.len());
        report.fault(
            fields.at("platforms"),
            message,
            "only a build has several: write a step with `platform` for each",
        );
    }
    let mut platforms = Vec::new();
    for told in one.into_iter().chain(many) {
        match Platform::parse(&told.value) {
            Ok(platform) if platform.os() == "windows" && platform.architecture() != "amd64" => {
                report.fault(told.at, format!("platform `{platform}` is not one"), "of Windows there is windows/amd64");
            }
            Ok(platform) if platforms.contains(&platform) => {
                report.warn(told.at, format!("platform `{platform}` is there twice"), "once is enough");
            }
            Ok(platform) => platforms.push(platform),
            Err(error) => report.fault(told.at, error.to_string(), "write for example linux/arm64"),
        }
    }
    platforms
}

/// The platforms of a build: of its property, or else of its text.
pub(super) fn same(step: Vec<Platform>, line: &[Platform], at: At, report: &mut Report<'_>) -> Vec<Platform> {
    let differ = !step.is_empty() && !line.is_empty() && {
        let set = |platforms: &[Platform]| platforms.iter().cloned().collect::<BTreeSet<_>>();
        set(&step) != set(line)
    };
    if differ {
        report.fault(at, "the build's text has other platforms than its step", "name them under `platforms` alone");
    }
    if step.is_empty() { line.to_vec() } else { step }
}
