//! Webhooks of forges at a pace, while the server is killed and started anew: from a delivery to its answer and to its run,
//! and whether each has set off one run.
//!
//! A forge whose delivery is not answered sends it again under its id; so do these.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::connection::{Access, Connection};
use super::timers::{DAY_MICROS, PAGE, micros_now, micros_of_day};
use crate::bench::times::Times;
use crate::command::Interrupt;
use crate::product::{Product, Server};
use crate::report::Report;

/// Tasks with a hook each.
const TASKS: usize = 10;
/// Forges that send at a time.
const SENDERS: usize = 16;
/// How long the runs may take to be queued after the last answer.
const LATEST: Duration = Duration::from_secs(60);
/// How long a delivery is sent again for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server counts as one that starts, from the end of the one before.
const START: Duration = Duration::from_secs(5);
/// How often the server is killed.
const KILLS: u32 = 2;

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

impl Pace {
    fn all(self) -> u32 {
        self.per_second * self.seconds
    }

    /// When a delivery is due, after the first.
    fn at(self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.per_second))
    }

    /// When the server is killed, after the first delivery.
    fn kills(self) -> impl Iterator<Item = Duration> {
        (1..=KILLS).map(move |kill| self.at((self.all() * kill / (KILLS + 1)) as usize))
    }
}

/// A delivery that was answered.
struct Sent {
    number: usize,
    /// When it was sent first, in microseconds of the day.
    at: i64,
    /// How long the answer took, where the first one came.
    answer: Option<Duration>,
    /// Whether the server had been killed a moment before: it reads what it finds, beside the answers.
    is_after_a_start: bool,
}

/// Sends the deliveries, and shows how they were answered and what became of them. The server lives on.
pub(super) fn measure(
    report: &Report,
    interrupt: &Interrupt,
    product: &Product<'_>,
    mut server: Server,
    pace: Pace,
) -> anyhow::Result<Server> {
    let access = Access::of(&server)?;
    let hooks = (0..TASKS).map(|number| make(&access, number)).collect::<anyhow::Result<Vec<Hook>>>()?;
    let what =
        format!("sent {} deliveries, {} a second; the server was killed {KILLS} times", pace.all(), pace.per_second);
    let sent = report.step(&what, || send(&access, &hooks, pace, product, &mut server))?;
    let runs = report.step("all runs are queued", || {
        let mut runs = BTreeMap::new();
        let all = pace.all() as usize;
        interrupt.wait(LATEST, || {
            runs = queued(&access)?;
            Ok((runs.len() >= all).then_some(()))
        })?;
        let found: u32 = runs.values().map(|(count, _)| count).sum();
        if runs.len() != all || found as usize != all {
            bail!("{all} deliveries led to {found} runs of {} commits", runs.len());
        }
        Ok(runs)
    })?;
    let again = sent.iter().filter(|sent| sent.answer.is_none()).count();
    report.line(format_args!("  each delivery has one run; {again} had to be sent again"));
    let answers = |is_told: fn(&&Sent) -> bool| Times::of(sent.iter().filter(is_told).filter_map(|sent| sent.answer));
    report.line(format_args!("{}", answers(|_| true).shares("delivery to answer, ms")));
    report.line(format_args!("{}", answers(|sent| !sent.is_after_a_start).shares("of a server that is up, ms")));
    report.line(format_args!("{}", answers(|sent| sent.is_after_a_start).shares("of one that starts, ms")));
    let delays = sent.iter().filter(|sent| sent.answer.is_some()).filter_map(|sent| {
        let (_, queued) = runs.get(&commit(sent.number))?;
        u64::try_from((queued - sent.at).rem_euclid(DAY_MICROS)).ok().map(Duration::from_micros)
    });
    report.line(format_args!("{}", Times::of(delays).shares("delivery to queued, ms")));
    Ok(server)
}

fn commit(number: usize) -> String {
    format!("{:040x}", number + 1_000_000)
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

/// Sends from several places, and kills the server meanwhile.
fn send(
    access: &Access,
    hooks: &[Hook],
    pace: Pace,
    product: &Product<'_>,
    server: &mut Server,
) -> anyhow::Result<Vec<Sent>> {
    let start = Instant::now();
    let sent: anyhow::Result<Vec<Vec<Sent>>> = thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SENDERS).map(|sender| scope.spawn(move || send_some(access, hooks, pace, sender, start))).collect();
        for kill in pace.kills() {
            wait_for(start + kill);
            server.kill(product, &["--no-agent"])?;
        }
        senders.into_iter().map(|sender| sender.join().unwrap_or_else(|_| bail!("a sender panicked"))).collect()
    });
    Ok(sent?.into_iter().flatten().collect())
}

/// Sends every sixteenth delivery at its time.
fn send_some(access: &Access, hooks: &[Hook], pace: Pace, sender: usize, start: Instant) -> anyhow::Result<Vec<Sent>> {
    let mut connection = Some(access.connect()?);
    let mut sent = Vec::new();
    for number in (sender..pace.all() as usize).step_by(SENDERS) {
        wait_for(start + pace.at(number));
        let hook = hooks.get(number % TASKS).context("there is a hook for each task")?;
        let at = micros_now()? % DAY_MICROS;
        let begun = Instant::now();
        let mut tries = 0;
        while let Err(error) = deliver(access, &mut connection, hook, number) {
            if begun.elapsed() > PATIENCE {
                return Err(error.context(format!("deliver {number}")));
            }
            tries += 1;
            connection = None;
            wait_for(Instant::now() + Duration::from_millis(100));
        }
        let answer = (tries == 0).then(|| begun.elapsed());
        let after = begun.saturating_duration_since(start);
        let is_after_a_start = pace.kills().any(|kill| (kill..kill + START).contains(&after));
        sent.push(Sent { number, at, answer, is_after_a_start });
    }
    Ok(sent)
}

fn deliver<'a>(
    access: &'a Access,
    connection: &mut Option<Connection<'a>>,
    hook: &Hook,
    number: usize,
) -> anyhow::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(access.connect()?),
    };
    let body = json!({
        "delivery": format!("delivery-{number}"), "repository": repository(number % TASKS),
        "ref": "refs/heads/main", "before": format!("{:040x}", number + 1), "after": commit(number),
        "message": "a change",
    });
    let seconds = (micros_now()? / 1_000_000).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(hook.secret.as_bytes()).context("a secret is a key")?;
    mac.update(format!("{seconds}.{body}").as_bytes());
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = format!("Cooper-Timestamp: {seconds}\r\nCooper-Signature: v1={digits}\r\n");
    connection.ask_with("POST", &hook.path, &headers, &body.to_string()).map(drop)
}

#[expect(clippy::disallowed_methods, reason = "a load has a pace, and this thread has nothing else to do")]
fn wait_for(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// How many runs each commit has, and when the last of them was queued, in microseconds of the day.
fn queued(access: &Access) -> anyhow::Result<BTreeMap<String, (u32, i64)>> {
    let mut connection = access.connect()?;
    let mut runs = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = connection.json("GET", &format!("/api/v1/runs?top={PAGE}{before}"), None)?;
        let page = page.get("value").and_then(Value::as_array).context("the list of runs has no value")?;
        for run in page {
            if let Some(commit) = run.pointer("/sourceTrigger/commitId").and_then(Value::as_str) {
                let time = run.get("createTime").and_then(Value::as_str).context("a run has no createTime")?;
                let (count, at) = runs.entry(commit.to_owned()).or_insert((0, 0));
                *count += 1;
                *at = micros_of_day(time)?;
            }
            let id = run.get("runId").and_then(Value::as_str).context("a run has no runId")?;
            before = format!("&before={id}");
        }
        if page.len() < PAGE {
            return Ok(runs);
        }
    }
}
