//! Texts of the live display: pure, so that they can be tested without a terminal.

use std::time::Duration;

use cooper_api::rest::{RunStatus, StatusEvent, VertexUpdate};

use crate::output;

/// Where the name of a line's step ends, and the plain form begins.
const LABEL_END: &str = " | #";

/// Output of a build vertex without what the plain form puts before it: `#5 0.123 text` is `text`. The plain form's own
/// lines (`#5 [2/3] RUN make`, `#5 DONE 1.2s`) give nothing: the picture shows these things its own way. Whose it is stands
/// before it where builds run side by side (`web | #5 0.123 text`), and stays there.
pub(super) fn vertex_output(line: &str) -> Option<String> {
    let (label, rest) = match line.strip_prefix('#') {
        Some(rest) => ("", rest),
        None => {
            let at = line.find(LABEL_END)? + LABEL_END.len();
            (&line[..at - 1], &line[at..])
        }
    };
    let (number, rest) = rest.split_once(' ')?;
    let (time, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.split_once('.').is_some_and(|(whole, part)| is_number(whole) && is_number(part));
    (is_number(number) && is_time).then(|| format!("{label}{}", clean(text)))
}

/// A line of a build for a terminal: no colours, nothing that moves the cursor, and of a line that was overwritten by
/// carriage returns the last state.
pub(super) fn clean(line: &str) -> String {
    let line = line.trim_end_matches(['\r', '\n']);
    let line = line.rsplit('\r').next().unwrap_or(line);
    let plain = console::strip_ansi_codes(line);
    plain.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

/// The line of a vertex that has ended.
pub(super) fn ended(vertex: &VertexUpdate) -> String {
    let name = clean(&vertex.name);
    match (&vertex.error, vertex.cached) {
        (Some(_), _) => format!("=> ERROR {name}{}", took(vertex)),
        (None, true) => format!("=> CACHED {name}"),
        (None, false) => format!("=> {name}{}", took(vertex)),
    }
}

/// The message of a vertex that is being worked on.
pub(super) fn running(vertex: &VertexUpdate) -> String {
    let name = clean(&vertex.name);
    match (vertex.current, vertex.total) {
        (Some(current), Some(total)) if total > 0 => {
            format!("{name} {} of {}", output::size(current), output::size(total))
        }
        (Some(current), _) if current > 0 => format!("{name} {}", output::size(current)),
        _ => name,
    }
}

fn took(vertex: &VertexUpdate) -> String {
    let duration = vertex.started.zip(vertex.completed).map(|(started, completed)| completed.since(started));
    match duration {
        Some(duration) if duration >= Duration::from_millis(50) => format!("  {}", output::duration(duration)),
        _ => String::new(),
    }
}

/// What a run that has not begun waits for.
pub(super) fn waiting(status: &StatusEvent) -> Option<String> {
    let reason = status.pending_reason.as_deref().map(clean).filter(|reason| !reason.is_empty());
    match (status.status, reason) {
        (RunStatus::Queued, None) => Some("Waiting for an agent...".to_owned()),
        (RunStatus::Queued | RunStatus::Started | RunStatus::Running, Some(reason)) => {
            Some(format!("Pending: {reason}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cooper_types::Timestamp;

    use super::*;

    #[test]
    fn output_is_told_from_the_plain_forms_own_lines() {
        let check = |line: &str, expect: Option<&str>| assert_eq!(vertex_output(line).as_deref(), expect, "{line}");
        check("#5 0.123 gcc -c a.c", Some("gcc -c a.c"));
        check("#12 103.5 #6 0.1 nested", Some("#6 0.1 nested"));
        check("#5 0.123", Some(""));
        check("#5 [2/3] RUN make", None);
        check("#5 DONE 1.2s", None);
        check("#5 CACHED", None);
        check("#5 ERROR: process \"/bin/sh\" did not complete", None);
        check("web | #5 0.123 gcc | #6 0.1 x", Some("web | gcc | #6 0.1 x"));
        check("web | #5 [2/3] RUN make", None);
        check("plain", None);
        check("#x 0.1 a", None);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{7}x\ty\r\n"), "red x y");
        assert_eq!(clean("10%\r50%\r100%\n"), "100%");
    }

    #[test]
    fn vertices_have_one_line() {
        let vertex = |cached, error: Option<&str>, micros| VertexUpdate {
            id: "a".to_owned(),
            name: "[2/3] RUN make".to_owned(),
            started: Some(Timestamp::from_micros(0)),
            completed: Some(Timestamp::from_micros(micros)),
            cached,
            error: error.map(str::to_owned),
            current: Some(1024),
            total: Some(2048),
        };
        assert_eq!(ended(&vertex(false, None, 1_240_000)), "=> [2/3] RUN make  1.2s");
        assert_eq!(ended(&vertex(false, None, 1000)), "=> [2/3] RUN make");
        assert_eq!(ended(&vertex(true, None, 0)), "=> CACHED [2/3] RUN make");
        assert_eq!(ended(&vertex(false, Some("exit code: 2"), 1_240_000)), "=> ERROR [2/3] RUN make  1.2s");
        assert_eq!(running(&vertex(false, None, 0)), "[2/3] RUN make 1.000 KiB of 2.000 KiB");
    }

    #[test]
    fn a_waiting_run_says_why() {
        let status = |status, reason: Option<&str>| StatusEvent { status, pending_reason: reason.map(str::to_owned) };
        assert_eq!(waiting(&status(RunStatus::Queued, None)).as_deref(), Some("Waiting for an agent..."));
        let reason = waiting(&status(RunStatus::Queued, Some("no agent builds for linux/arm64")));
        assert_eq!(reason.as_deref(), Some("Pending: no agent builds for linux/arm64"));
        assert_eq!(waiting(&status(RunStatus::Running, None)), None);
        assert_eq!(waiting(&status(RunStatus::Failed, Some("x"))), None);
    }
}
