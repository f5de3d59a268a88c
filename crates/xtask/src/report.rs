//! What a person sees while a task runs: one line a step, with a mark and a time.
//!
//! Owns the only writes to standard output and standard error of this program.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

/// Writes the progress of a task. A pipe that was closed is not an error: nobody is left to tell.
pub(crate) struct Report {
    terminal: bool,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { terminal: stdout().is_terminal() && stderr().is_terminal() }
    }

    /// Whether somebody watches, so that programs may show their own progress.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line of text on standard output.
    pub(crate) fn line(&self, text: impl Display) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// Says that something long begins.
    pub(crate) fn begin(&self, text: impl Display) {
        self.line(format_args!("  · {text}"));
    }

    /// Runs a step and reports how it went and how long it took.
    pub(crate) fn step<T>(&self, what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        let result = work();
        let mark = if result.is_ok() { "✓" } else { "✗" };
        self.line(format_args!("  {mark} {what:<58} {:>8}", seconds(start.elapsed())));
        result
    }

    /// The error that ended the task, with its causes, on standard error.
    pub(crate) fn failure(&self, error: &anyhow::Error) {
        let _ = writeln!(stderr().lock(), "error: {error:#}");
    }
}

/// A duration as people read it: `0.4 s`, `75 s`, `3 min 20 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    match total {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{total} s"),
        _ => format!("{} min {} s", total / 60, total % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(440)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(75)), "75 s");
        assert_eq!(seconds(Duration::from_secs(200)), "3 min 20 s");
    }
}
