//! The times of one side of a comparison, and how they are shown.

use std::time::{Duration, Instant};

/// The times of one side, sorted.
#[derive(Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    /// Does the work once and keeps how long it took.
    pub(super) fn measure(&mut self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let start = Instant::now();
        work()?;
        self.add(start.elapsed());
        Ok(())
    }

    /// Keeps a time that was measured elsewhere.
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// Times that were measured elsewhere.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort();
        Self(times)
    }

    /// A line: the name, then the median, the 99th percentile and the most in milliseconds.
    pub(super) fn shares(&self, name: &str) -> String {
        let at = |percent: usize| {
            let place = (self.0.len().saturating_sub(1) * percent).div_ceil(100);
            self.0.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        format!("  {name:<28} p50 {:.1}, p99 {:.1}, most {:.1}", at(50), at(99), at(100))
    }

    /// The middle time, the later one of two.
    pub(super) fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    /// A line of a table: the name, then median, least and most in milliseconds.
    pub(super) fn row(&self, name: &str) -> String {
        format!("  {}", self.row_of(name, 28))
    }

    /// The same without its margin, with so much room for the name.
    pub(super) fn row_of(&self, name: &str, width: usize) -> String {
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        let (median, least, most) = (self.median(), self.0.first(), self.0.last());
        format!("{name:<width$} {:>9.1} {:>9.1} {:>9.1}", ms(Some(&median)), ms(least), ms(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let times = Times([1, 2, 3, 40, 500].map(Duration::from_millis).to_vec());
        assert_eq!(times.median(), Duration::from_millis(3));
        assert_eq!(Times::default().median(), Duration::ZERO);
        assert!(times.row("x").contains("500.0"));
        let hundred = Times::of((0..=100).rev().map(Duration::from_millis));
        assert!(hundred.shares("x").ends_with("p50 50.0, p99 99.0, most 100.0"), "{}", hundred.shares("x"));
    }
}
