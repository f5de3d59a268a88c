//! The page of a run that a forge's event has set off, for people who follow the link of the commit's status: how the run stands.
//!
//! It is shown without a token to whoever has the link, whose last part can't be guessed. Forges show their links to all who see
//! the commit, so the page says what they see there already, and the steps' names and times: no log, no reason, no image.

use std::fmt::{self, Write as _};

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use cooper_engine::run::Run;
use cooper_engine::task::{Cause, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_types::{RunId, TaskName, Timestamp};
use subtle::ConstantTimeEq as _;

use super::{ApiState, PathIds};
use crate::hooks::statuses::words;
use crate::keys::ServerKey;
use crate::problem::{ApiError, ApiResult};

/// What the page's viewer may do with it: show it, and nothing else.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex, nofollow")),
];

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
    td,th{text-align:left;padding:.1rem 1.5rem .1rem 0}footer{opacity:.7;margin-top:2rem}";

/// Where a run's page is on the server.
pub(crate) fn path(key: &ServerKey, run: RunId) -> String {
    format!("/runs/{run}/{}", key.run_page(run))
}

/// `GET /runs/{id}/{key}`
pub(super) async fn show(
    State(state): State<ApiState>,
    PathIds(id, shown): PathIds<RunId, String>,
) -> ApiResult<Response> {
    let core = &state.core;
    // Who guesses learns of no run whether it is there.
    let unknown = || ApiError::not_found("this page");
    if !bool::from(core.key.run_page(id).as_bytes().ct_eq(shown.as_bytes())) {
        return Err(unknown());
    }
    let run = core.runs.find_run(id).await?.ok_or_else(unknown)?.run;
    let (Some(task), Cause::Source(cause)) = (&run.origin.task, &run.origin.cause) else { return Err(unknown()) };
    Ok((HEADERS, page(&run, &task.name, cause)).into_response())
}

fn page(run: &Run, task: &TaskName, cause: &SourceCause) -> String {
    let status = run.status();
    let mut rows = vec![
        ("Task", task.to_string()),
        ("Commit", cause.firing.commit.to_string()),
        ("From", origin(cause)),
        ("Accepted", run.created.to_string()),
    ];
    rows.extend(run.started.map(|at| ("Started", at.to_string())));
    rows.extend(run.finished().map(|at| ("Ended", at.to_string())));
    let rows: String = rows
        .iter()
        .map(|(what, text)| format!("<tr><th scope=\"row\">{what}</th><td>{}</td></tr>\n", Escaped(text)))
        .collect();
    let steps: String = run.plan.steps.iter().zip(&run.steps).fold(String::new(), |mut all, (planned, step)| {
        let state = step.state.status().as_str();
        let (began, ended) = (time(step.state.began()), time(step.state.finished()));
        let id = planned.id.to_string();
        let row = format!("<tr><td>{}</td><td>{state}</td><td>{began}</td><td>{ended}</td></tr>\n", Escaped(&id));
        all.push_str(&row);
        all
    });
    let steps = match steps.is_empty() {
        true => "<p>Its steps are not known yet.</p>\n".to_owned(),
        false => format!(
            "<table>\n<tr><th scope=\"col\">Step</th><th scope=\"col\">State</th><th scope=\"col\">Began</th><th scope=\"col\">Ended</th></tr>\n\
             {steps}</table>\n"
        ),
    };
    let refresh = if status.is_terminal() { "" } else { "<meta http-equiv=\"refresh\" content=\"10\">\n" };
    let (id, state) = (run.id, words(status));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n{refresh}<title>Run {id} {state}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Run {id} {state}</h1>\n<table>\n{rows}</table>\n<h2>Steps</h2>\n{steps}\
         <footer>Times are in UTC. <code>cooper logs {id}</code> shows the log to who may see it.</footer>\n</body>\n</html>\n"
    )
}

fn origin(cause: &SourceCause) -> String {
    match &cause.firing.kind {
        FiringKind::Commit { branch } => format!("branch {branch}"),
        FiringKind::Tag { tag } => format!("tag {tag}"),
        FiringKind::PullRequest { number, .. } => format!("pull request {number}"),
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// A text in a page.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_named_is_text() {
        assert_eq!(Escaped("a<b>&\"c'").to_string(), "a&lt;b&gt;&amp;&quot;c&#39;");
    }
}
