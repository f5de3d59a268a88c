//! Standard output for data, standard error for everything else. A closed pipe is no fault.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::fault::{Fault, Stop, chain};

/// Writes data to standard output.
pub(crate) fn data(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(stdout_stop)
}

/// Writes a line of data to standard output.
pub(crate) fn line(text: &str) -> Result<(), Stop> {
    data(format!("{text}\n").as_bytes())
}

/// Writes a value as pretty JSON to standard output.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Stop> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Fault::machinery(format!("the answer can't be shown as JSON: {}", chain(&error))))?;
    line(&text)
}

/// Writes raw bytes to standard error. Nobody can be told if that fails.
pub(crate) fn note_bytes(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

/// Writes a line to standard error. What others wrote into it, names of files say, neither ends the line nor steers a
/// terminal: control characters are shown as `\n` and `\u{1b}`.
pub(crate) fn note(text: &str) {
    note_bytes(format!("{}\n", escaped(text)).as_bytes());
}

/// The text with its control characters escaped.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// Writes a warning to standard error.
pub(crate) fn warning(text: &str) {
    note(&format!("warning: {text}"));
}

/// Writes an error and its hint to standard error.
pub(crate) fn error(fault: &Fault) {
    note(&format!("error: {}", fault.message));
    if let Some(hint) = &fault.hint {
        note(&format!("hint: {hint}"));
    }
}

/// Asks at the terminal whether to go on. Where there is none, nobody can agree but by `--yes`.
pub(crate) fn agreed(question: &str) -> Result<bool, Fault> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(nobody_to_ask());
    }
    note_bytes(format!("{} (y/N): ", escaped(question)).as_bytes());
    let answer = console::Term::stderr().read_line();
    let answer = answer.map_err(|error| Fault::usage(format!("the answer can't be read: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What is said where somebody has to agree and can't be asked.
pub(crate) fn nobody_to_ask() -> Fault {
    Fault::usage("there is no terminal to ask at").with_hint("agree with --yes")
}

/// What a failed write to standard output means.
pub(crate) fn stdout_stop(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::OutputClosed,
        _ => Fault::machinery(format!("standard output can't be written: {error}")).into(),
    }
}

/// A size for people: three digits after the point, as `az` shows it.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.3} {}", units[unit]),
    }
}

/// A duration for people: `0.4s`, `12.3s`, `1m05s`, `2h03m`.
pub(crate) fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_and_durations_are_readable() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.500 KiB");
        assert_eq!(size(5 << 30), "5.000 GiB");
        assert_eq!(duration(Duration::from_millis(420)), "0.4s");
        assert_eq!(duration(Duration::from_secs(65)), "1m05s");
        assert_eq!(duration(Duration::from_secs(7380)), "2h03m");
    }

    #[test]
    fn a_line_is_a_line_whatever_it_names() {
        assert_eq!(escaped("`a\nb\u{1b}[2J\u{9b}1m\tc`"), r"`a\nb\u{1b}[2J\u{9b}1m\tc`");
        assert_eq!(escaped("größer — 😀 \\n"), "größer — 😀 \\n");
    }

    #[test]
    fn a_closed_pipe_is_no_fault() {
        assert!(matches!(stdout_stop(io::ErrorKind::BrokenPipe.into()), Stop::OutputClosed));
        assert!(matches!(stdout_stop(io::ErrorKind::StorageFull.into()), Stop::Fault(_)));
    }
}
