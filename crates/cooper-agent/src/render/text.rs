//! Small texts of the plain progress: sizes, durations, single lines.

use std::time::Duration;

/// A number of bytes as docker shows it: `213B`, `1.20kB`, `3.40MB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{:02}{name}", bytes / unit, bytes % unit * 100 / unit),
        None => format!("{bytes}B"),
    }
}

/// Seconds with one decimal.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// The text in one line, without control characters: what a Dockerfile holds must not steer a terminal from a name.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lines() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1234), "1.23kB");
        assert_eq!(size(64_000_000), "64.00MB");
        assert_eq!(size(u64::MAX), "18446744073.70GB");
        assert_eq!(seconds(Duration::from_millis(1249)), "1.2s");
        assert_eq!(one_line("RUN a\n  && \u{1b}[1mb"), "RUN a && [1mb");
    }
}
