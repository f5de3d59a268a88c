//! What was looked at: a list of results, and its two forms.

use serde::Serialize;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, and may not for long or not for everything.
    Warning,
    /// It does not work.
    Failed,
    /// It could not be looked at from here.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What.
    pub(super) name: &'static str,
    /// How it stands.
    pub(super) status: Status,
    /// What was seen, in a line.
    pub(super) seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, seen: seen.into(), remedy: None }
    }

    pub(super) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, status: Status::Skipped, seen: why.into(), remedy: None }
    }

    pub(super) fn warning(name: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Warning, seen: seen.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn failed(name: &'static str, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Failed, seen: seen.into(), remedy: Some(remedy.into()) }
    }
}

/// The report for programs.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// Whether nothing failed.
    ok: bool,
    checks: &'a [Check],
}

impl<'a> Report<'a> {
    pub(super) fn of(checks: &'a [Check]) -> Self {
        Self { ok: checks.iter().all(|check| check.status != Status::Failed), checks }
    }
}

/// The report for people: a line for each thing, its remedy below, and a sum at the end.
pub(super) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for Check { name, status, seen, remedy } in checks {
        let word = match status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
            Status::Skipped => "skipped",
        };
        text.push_str(&format!("{word:<7}  {name:<width$}  {}\n", one_line(seen)));
        if let Some(remedy) = remedy {
            text.push_str(&format!("{:<7}  {:<width$}  → {}\n", "", "", one_line(remedy)));
        }
    }
    let count = |wanted: Status| checks.iter().filter(|check| check.status == wanted).count();
    let (failed, warnings) = (count(Status::Failed), count(Status::Warning));
    let sum = match (failed, warnings) {
        (0, 0) => "Nothing is wrong.".to_owned(),
        (0, warnings) => format!("Nothing failed; warnings: {warnings}."),
        (failed, warnings) => format!("Failed: {failed}; warnings: {warnings}."),
    };
    text.push_str(&format!("\n{sum}\n"));
    text
}

/// What others said must neither end the line nor steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_check_and_a_sum() {
        let checks = [
            Check::ok("engine", "there"),
            Check::warning("open-files", "few\nof them", "have more"),
            Check::failed("key", "loose", "chmod"),
            Check::skipped("server", "unknown"),
        ];
        let expect = "ok       engine      there\n\
                      warning  open-files  few of them\n\
                      \u{20}                    → have more\n\
                      FAILED   key         loose\n\
                      \u{20}                    → chmod\n\
                      skipped  server      unknown\n\
                      \nFailed: 1; warnings: 1.\n";
        assert_eq!(text(&checks), expect);
        assert!(text(&checks[..1]).ends_with("Nothing is wrong.\n"));
        let json = serde_json::to_value(Report::of(&checks)).expect("JSON");
        assert_eq!((json["ok"].as_bool(), json["checks"][2]["status"].as_str()), (Some(false), Some("failed")));
    }
}
