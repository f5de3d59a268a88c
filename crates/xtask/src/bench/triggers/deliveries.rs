//! Webhooks of forges at a pace: from a delivery to its answer, and whether each has set off one run.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::connection::Access;
use super::timers::{PAGE, accepted, seconds_now};
use crate::bench::times::Times;
use crate::command::Interrupt;
use crate::report::Report;

/// Tasks with a hook each.
const TASKS: usize = 10;
/// Forges that send at a time.
const SENDERS: usize = 16;
/// How long the runs may take to be queued after the last answer.
const LATEST: Duration = Duration::from_secs(60);

/// A task's hook.
struct Hook {
    path: String,
    secret: String,
}

/// How many deliveries, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) per_second: u32,
    pub(super) seconds: u32,
}

/// Sends the deliveries, and shows how they were answered and what became of them.
pub(super) fn measure(report: &Report, interrupt: &Interrupt, access: &Access, pace: Pace) -> anyhow::Result<()> {
    let hooks = (0..TASKS).map(|number| make(access, number)).collect::<anyhow::Result<Vec<Hook>>>()?;
    let mut connection = access.connect()?;
    let before = accepted(&mut connection)?;
    let all = pace.per_second * pace.seconds;
    let what = format!("sent {all} deliveries, {} a second", pace.per_second);
    let times = report.step(&what, || send(access, &hooks, pace))?;
    report.line(format_args!("{}", times.row("delivery to answer")));
    report.step("all runs are queued", || {
        let queued = interrupt.wait(LATEST, || Ok((accepted(&mut connection)? >= before + all).then_some(())))?;
        queued
            .with_context(|| format!("{} of {all} were queued", accepted(&mut connection).unwrap_or_default() - before))
    })?;
    count(access, all)
}

fn make(access: &Access, number: usize) -> anyhow::Result<Hook> {
    let task = json!({
        "name": format!("pushed-{number}"),
        "step": { "type": "FileTask", "taskFilePath": "acr-task.yaml", "contextPath": repository(number) },
        "sourceTriggers": { "pushes": { "provider": "generic", "branches": ["main"] } },
    });
    let made = access.connect()?.json("POST", "/api/v1/tasks", Some(&task))?;
    let text = |name| made.pointer(&format!("/hooks/0/{name}")).and_then(Value::as_str).map(str::to_owned);
    let (path, secret) = text("path").zip(text("secret")).context("the task has no hook with a secret")?;
    Ok(Hook { path, secret })
}

fn repository(number: usize) -> String {
    format!("https://git.example.org/team/app-{number}.git")
}

fn send(access: &Access, hooks: &[Hook], pace: Pace) -> anyhow::Result<Times> {
    let start = Instant::now();
    let mut times = Times::default();
    let sent = thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SENDERS).map(|sender| scope.spawn(move || send_some(access, hooks, pace, sender, start))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap_or_else(|_| bail!("a sender panicked"))).collect()
    });
    let sent: anyhow::Result<Vec<Vec<Duration>>> = sent;
    sent?.into_iter().flatten().for_each(|time| times.add(time));
    Ok(times)
}

/// Sends every sixteenth delivery at its time.
fn send_some(
    access: &Access,
    hooks: &[Hook],
    pace: Pace,
    sender: usize,
    start: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = access.connect()?;
    let mut times = Vec::new();
    for number in (sender..(pace.per_second * pace.seconds) as usize).step_by(SENDERS) {
        let due = start + Duration::from_secs_f64(number as f64 / f64::from(pace.per_second));
        wait_for(due);
        let hook = hooks.get(number % TASKS).context("there is a hook for each task")?;
        let body = json!({
            "delivery": format!("delivery-{number}"), "repository": repository(number % TASKS),
            "ref": "refs/heads/main", "before": format!("{:040x}", number + 1), "after": format!("{:040x}", number + 1_000_000),
            "message": "a change",
        });
        let seconds = seconds_now()?.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(hook.secret.as_bytes()).context("a secret is a key")?;
        mac.update(format!("{seconds}.{body}").as_bytes());
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let headers = format!("Cooper-Timestamp: {seconds}\r\nCooper-Signature: v1={digits}\r\n");
        let asked = Instant::now();
        connection.ask_with("POST", &hook.path, &headers, &body.to_string())?;
        times.push(asked.elapsed());
    }
    Ok(times)
}

#[expect(clippy::disallowed_methods, reason = "a load has a pace, and this thread has nothing else to do")]
fn wait_for(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Looks whether each delivery has one run.
fn count(access: &Access, all: u32) -> anyhow::Result<()> {
    let mut connection = access.connect()?;
    let mut commits = BTreeSet::new();
    let (mut before, mut found) = (String::new(), 0);
    loop {
        let page = connection.json("GET", &format!("/api/v1/runs?top={PAGE}{before}"), None)?;
        let page = page.get("value").and_then(Value::as_array).context("the list of runs has no value")?;
        for run in page {
            if let Some(commit) = run.pointer("/sourceTrigger/commitId").and_then(Value::as_str) {
                commits.insert(commit.to_owned());
                found += 1;
            }
            let id = run.get("runId").and_then(Value::as_str).context("a run has no runId")?;
            before = format!("&before={id}");
        }
        if page.len() < PAGE {
            break;
        }
    }
    if found != all || commits.len() != all as usize {
        bail!("{all} deliveries led to {found} runs of {} commits", commits.len());
    }
    Ok(())
}
