//! Shows a run as it goes: plain lines, or a live picture on a terminal.

mod live;
mod plain;
mod terminal_text;
mod vertex_text;

use cooper_api::rest::{LogFrame, StatusEvent};

use crate::fault::Stop;
use live::LiveDisplay;
use plain::PlainDisplay;
pub(crate) use terminal_text::TerminalText;

/// Where a plain display writes the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogTarget {
    /// The log is the command's data.
    Stdout,
    /// Standard output is for something else.
    Stderr,
    /// Nobody wants it.
    Nowhere,
}

/// A display.
#[derive(Debug)]
pub(crate) enum Display {
    Plain(PlainDisplay),
    Live(Box<LiveDisplay>),
}

impl Display {
    /// Plain lines, the log to `target`.
    pub(crate) fn plain(target: LogTarget) -> Self {
        Self::Plain(PlainDisplay::new(target))
    }

    /// Plain lines, the log to standard output.
    pub(crate) fn plain_to_stdout() -> Self {
        Self::plain(LogTarget::Stdout)
    }

    /// A live picture on standard error.
    pub(crate) fn live() -> Self {
        Self::Live(Box::new(LiveDisplay::new()))
    }

    /// Shows the next frames.
    pub(crate) fn frames(&mut self, frames: &[LogFrame]) -> Result<(), Stop> {
        match self {
            Self::Plain(display) => display.frames(frames),
            Self::Live(display) => {
                frames.iter().for_each(|frame| display.frame(frame));
                Ok(())
            }
        }
    }

    /// Shows what the run waits for.
    pub(crate) fn status(&mut self, status: &StatusEvent) {
        match self {
            Self::Plain(display) => display.status(status),
            Self::Live(display) => display.status(status),
        }
    }

    /// Shows a line about the command itself.
    pub(crate) fn notice(&mut self, text: &str) {
        match self {
            Self::Plain(display) => display.notice(text),
            Self::Live(display) => display.notice(text),
        }
    }

    /// Leaves the terminal to a question.
    pub(crate) fn pause(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Live(display) => display.pause(),
        }
    }

    /// Takes the terminal again.
    pub(crate) fn resume(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Live(display) => display.resume(),
        }
    }

    /// Leaves the terminal clean while the run goes on: nothing that is being worked on has stopped.
    pub(crate) fn leave(&mut self) -> Result<(), Stop> {
        if let Self::Live(display) = self {
            display.forget_vertices();
        }
        self.finish()
    }

    /// Shows what is left, and leaves the terminal clean.
    pub(crate) fn finish(&mut self) -> Result<(), Stop> {
        match self {
            Self::Plain(display) => display.finish(),
            Self::Live(display) => {
                display.finish();
                Ok(())
            }
        }
    }
}
