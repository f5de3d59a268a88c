//! When the steps of a run began and ended, as the run's record says.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// A run's steps, each with its beginning and its end.
pub(super) struct Record {
    steps: Vec<(String, Duration, Duration)>,
}

impl Record {
    /// Reads what `cooper run --output json` prints.
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let run: Value = serde_json::from_str(text).context("read the run that `cooper run --output json` printed")?;
        let steps = run.get("steps").and_then(Value::as_array).context("the run has no steps")?;
        let step = |step: &Value| {
            let text = |key: &str| step.get(key).and_then(Value::as_str);
            Some((text("id")?.to_owned(), time(text("startTime")?)?, time(text("finishTime")?)?))
        };
        let steps: Option<Vec<_>> = steps.iter().map(step).collect();
        Ok(Self { steps: steps.context("a step has no times")? })
    }

    /// From the first beginning to the last end.
    pub(super) fn all(&self) -> Duration {
        let first = self.steps.iter().map(|(_, begin, _)| *begin).min().unwrap_or_default();
        let last = self.steps.iter().map(|(_, _, end)| *end).max().unwrap_or_default();
        last.saturating_sub(first)
    }

    /// How long one step took.
    pub(super) fn of(&self, id: &str) -> anyhow::Result<Duration> {
        let step = self.steps.iter().find(|(step, ..)| step == id);
        step.map(|(_, begin, end)| end.saturating_sub(*begin)).with_context(|| format!("the run has no step {id}"))
    }

    /// How long the first step took, which makes what all share, and how long one of the others on the average, with
    /// what lies between them.
    pub(super) fn first_and_further(&self) -> (Duration, Duration) {
        let Some(((_, begin, first), rest)) = self.steps.split_first() else { return Default::default() };
        let last = rest.last().map_or(*first, |(_, _, end)| *end);
        let count = u32::try_from(rest.len()).unwrap_or(u32::MAX).max(1);
        (first.saturating_sub(*begin), last.saturating_sub(*first) / count)
    }
}

/// A time `2026-11-21T20:19:49.123456Z`, from the month's beginning: nothing here is measured across that.
fn time(text: &str) -> Option<Duration> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let day: u64 = date.rsplit('-').next()?.parse().ok()?;
    let mut parts = clock.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    let whole = Duration::from_secs(((day * 24 + hours) * 60 + minutes) * 60);
    Some(whole + Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_how_long_steps_took() {
        let step = |id: &str, begin: &str, end: &str| serde_json::json!({"id": id, "startTime": format!("2026-11-21T{begin}Z"), "finishTime": format!("2026-11-22T{end}Z")});
        let run = serde_json::json!({"steps": [
            step("a", "23:59:59", "00:00:00.5"), step("b", "23:59:59.75", "00:00:01"), step("c", "23:59:59.9", "00:00:02"),
        ]});
        let record = Record::read(&run.to_string()).unwrap();
        assert_eq!(record.all(), Duration::from_secs(3));
        assert_eq!(record.of("b").unwrap(), Duration::from_millis(1250));
        assert!(record.of("d").is_err());
        assert_eq!(record.first_and_further(), (Duration::from_millis(1500), Duration::from_millis(750)));
        assert!(Record::read(r#"{"steps": [{"id": "a"}]}"#).is_err());
    }
}
