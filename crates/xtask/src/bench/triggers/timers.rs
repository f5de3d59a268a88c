//! Many tasks with a timer in the same minute: from that minute's begin until each run is queued, and whether each is there once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::connection::{Access, Connection};
use super::making::{CLIENTS, make};
use crate::command::Interrupt;
use crate::report::Report;

/// How many tasks are made in a second at the least; else the minute would come too early.
const MADE_PER_SECOND: u64 = 150;
/// How long the last run may take after the minute's begin.
const LATEST: Duration = Duration::from_secs(120);
/// How many runs a page has.
pub(super) const PAGE: usize = 1000;
pub(super) const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// Makes the tasks, waits for their minute, and shows when the runs were queued.
pub(super) fn measure(report: &Report, interrupt: &Interrupt, access: &Access, tasks: u32) -> anyhow::Result<()> {
    // The minute after the one in which the last task is made at the latest.
    let minute = seconds_now()?.saturating_add(u64::from(tasks) / MADE_PER_SECOND + 5) / 60 + 1;
    let schedule = format!("{} {} * * *", minute % 60, minute / 60 % 24);
    let begun = Instant::now();
    let timers = json!({ "t1": { "schedule": schedule } });
    report.step(&format!("made {tasks} tasks with the timer {schedule}"), || make(access, tasks, "task", &timers))?;
    let rate = f64::from(tasks) / begun.elapsed().as_secs_f64();
    report.line(format_args!("  {rate:.0} tasks made a second by {CLIENTS} clients"));
    if seconds_now()? >= minute * 60 {
        bail!("the tasks were not there before their minute: this machine is too slow for {tasks}");
    }
    report.step("the minute came, and all runs are queued", || wait(interrupt, access, tasks, minute))?;
    let mut delays = delays(access, tasks, minute)?;
    delays.sort_unstable();
    let at = |share: f64| {
        let place = ((delays.len() - 1) as f64 * share).round() as usize;
        delays.get(place).copied().unwrap_or_default() as f64 / 1000.0
    };
    report.line(format_args!("from the minute's begin to queued, ms     first    median       p99      last"));
    report.line(format_args!(
        "  {tasks:>7} runs, each once               {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0)
    ));
    Ok(())
}

fn seconds_now() -> anyhow::Result<u64> {
    Ok(micros_now()?.unsigned_abs() / 1_000_000)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what the server says of its time is compared with the clock on the wall"
)]
pub(super) fn micros_now() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("read the clock")?;
    i64::try_from(since.as_micros()).context("read the clock")
}

/// Waits until so many runs were accepted.
fn wait(interrupt: &Interrupt, access: &Access, tasks: u32, minute: u64) -> anyhow::Result<()> {
    let left = Duration::from_secs((minute * 60).saturating_sub(seconds_now()?));
    // Looking costs the server something: not before there is anything to see.
    interrupt.wait(left + LATEST, || Ok((seconds_now()? >= minute * 60).then_some(())))?;
    // One that was made before would have been closed meanwhile.
    let mut connection = access.connect()?;
    let ended = interrupt.wait(LATEST, || Ok((accepted(&mut connection)? >= tasks).then_some(())));
    ended?.with_context(|| format!("{} of {tasks} runs were queued", accepted(&mut connection).unwrap_or_default()))
}

fn accepted(connection: &mut Connection<'_>) -> anyhow::Result<u32> {
    let text = String::from_utf8(connection.ask("GET", "/metrics", None)?).context("read the metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix("cooper_runs_accepted_total "));
    line.context("the metrics have no cooper_runs_accepted_total")?.trim().parse().context("read the metrics")
}

/// How long after the minute's begin each run was queued, in microseconds. Each task has one run.
fn delays(access: &Access, tasks: u32, minute: u64) -> anyhow::Result<Vec<i64>> {
    let mut connection = access.connect()?;
    let mut runs: BTreeMap<String, i64> = BTreeMap::new();
    let mut before = String::new();
    loop {
        let page = connection.json("GET", &format!("/api/v1/runs?top={PAGE}{before}"), None)?;
        let page = page.get("value").and_then(Value::as_array).context("the list of runs has no value")?;
        for run in page {
            let text = |name| run.get(name).and_then(Value::as_str).with_context(|| format!("a run has no {name}"));
            let delay = (micros_of_day(text("createTime")?)? - i64::try_from(minute * 60_000_000)? % DAY_MICROS)
                .rem_euclid(DAY_MICROS);
            if runs.insert(text("task")?.to_owned(), delay).is_some() {
                bail!("task {} was started twice", text("task")?);
            }
            before = format!("&before={}", text("runId")?);
        }
        if page.len() < PAGE {
            break;
        }
    }
    if runs.len() != tasks as usize {
        bail!("{} of {tasks} tasks were started", runs.len());
    }
    Ok(runs.into_values().collect())
}

/// The time of day of `2026-01-31T12:34:56.789012Z`, in microseconds.
pub(super) fn micros_of_day(text: &str) -> anyhow::Result<i64> {
    let time = text.split_once('T').map(|(_, time)| time.trim_end_matches('Z').replace('.', ":"));
    let parts: Vec<i64> = time.unwrap_or_default().split(':').filter_map(|part| part.parse().ok()).collect();
    match parts.as_slice() {
        [hours, minutes, seconds, micros] => Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros),
        _ => bail!("time `{text}` can't be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_read() {
        assert_eq!(micros_of_day("2026-01-31T01:02:03.000004Z").expect("a time"), 3_723_000_004);
        assert!(micros_of_day("yesterday").is_err());
    }
}
