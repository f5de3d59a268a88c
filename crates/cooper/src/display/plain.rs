//! The log's bytes as they are, or as a terminal may see them, and news of the run as lines on standard error.

use std::io::IsTerminal as _;

use cooper_api::rest::{LogFrame, LogStream, StatusEvent};

use super::{LogTarget, TerminalText};
use crate::fault::Stop;
use crate::output;

/// A plain display.
#[derive(Debug)]
pub(crate) struct PlainDisplay {
    target: LogTarget,
    /// The last reason to wait that was shown.
    waiting: Option<String>,
    /// The log's last byte was not a newline.
    in_line: bool,
    /// The way to a terminal, if the log goes to one.
    terminal: Option<TerminalText>,
}

impl PlainDisplay {
    pub(super) fn new(target: LogTarget) -> Self {
        let is_terminal = match target {
            LogTarget::Stdout => std::io::stdout().is_terminal(),
            LogTarget::Stderr => std::io::stderr().is_terminal(),
            LogTarget::Nowhere => false,
        };
        Self { target, waiting: None, in_line: false, terminal: is_terminal.then(TerminalText::default) }
    }

    pub(super) fn frames(&mut self, frames: &[LogFrame]) -> Result<(), Stop> {
        let text = text(frames);
        let Some(last) = text.last() else { return Ok(()) };
        self.in_line = *last != b'\n';
        match &mut self.terminal {
            Some(terminal) => {
                let text = terminal.feed(&text);
                self.write(&text)
            }
            None => self.write(&text),
        }
    }

    fn write(&self, text: &[u8]) -> Result<(), Stop> {
        match self.target {
            LogTarget::Stdout => output::data(text),
            LogTarget::Stderr => {
                output::note_bytes(text);
                Ok(())
            }
            LogTarget::Nowhere => Ok(()),
        }
    }

    pub(super) fn status(&mut self, status: &StatusEvent) {
        if let Some(reason) = super::vertex_text::waiting(status)
            && self.waiting.as_ref() != Some(&reason)
        {
            self.notice(&reason);
            self.waiting = Some(reason);
        }
    }

    pub(super) fn notice(&mut self, text: &str) {
        if self.in_line && self.target == LogTarget::Stderr {
            output::note("");
            self.in_line = false;
        }
        output::note(text);
    }

    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        if let Some(terminal) = &mut self.terminal {
            let end = terminal.finish();
            self.write(end)?;
        }
        // What follows must not stand in the log's last line.
        match (std::mem::take(&mut self.in_line), self.target) {
            (true, LogTarget::Stdout) => output::data(b"\n"),
            (true, LogTarget::Stderr) => {
                output::note("");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The text of some frames: what `GET /runs/{id}/log` would give for them.
fn text(frames: &[LogFrame]) -> Vec<u8> {
    let texts = frames.iter().filter(|frame| frame.stream != LogStream::Vertex);
    texts.map(|frame| frame.data.as_slice()).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use cooper_types::Timestamp;

    use super::*;

    #[test]
    fn news_of_vertices_are_no_text() {
        let frame = |stream, data: &str| LogFrame {
            attempt: None,
            seq: 1,
            time: Timestamp::from_micros(0),
            stream,
            vertex: None,
            data: data.as_bytes().to_vec(),
        };
        let frames = [
            frame(LogStream::Service, "one "),
            frame(LogStream::Vertex, "{}"),
            frame(LogStream::Stderr, "two "),
            frame(LogStream::Gap, "[3 bytes lost]\n"),
        ];
        assert_eq!(text(&frames), b"one two [3 bytes lost]\n");
    }
}
