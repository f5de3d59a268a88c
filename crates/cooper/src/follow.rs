//! Follows a run on a display, and decides what Ctrl-C means meanwhile.
//!
//! The first Ctrl-C on a terminal asks whether to cancel the run. A second one, at any time, stops waiting and leaves
//! the run alone. Away from a terminal the first one does that, and a signal to end does everywhere. Where the server ends with
//! the command, the first signal cancels the run, and the second one leaves it to the server's own end.

use std::io::BufRead as _;

use cooper_api::rest::Run;
use cooper_client::{Client, FollowOptions, LogEvent};
use cooper_types::RunId;
use futures::StreamExt as _;
use tokio::sync::oneshot;

use crate::display::Display;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;
use crate::signals::Signals;

/// What the first Ctrl-C does.
pub(crate) enum OnInterrupt<'a> {
    /// Ask whether to cancel the run.
    Ask,
    /// Stop waiting; the run goes on.
    Leave,
    /// Cancel the run; so do the other signals to stop.
    Cancel(&'a mut Signals),
}

/// What the next signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Ask,
    Cancel,
    Leave,
}

impl Next {
    /// What it is for this signal: one to end asks nothing.
    fn on(self, signal: Exit) -> Self {
        match (self, signal) {
            (Self::Ask, Exit::Terminated) => Self::Leave,
            (next, _) => next,
        }
    }
}

/// How following ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The run ended.
    Ended(Box<Run>),
    /// The user stopped waiting, in a way that has this exit code.
    Left(Exit),
}

/// What is said of a run that somebody stopped waiting for.
pub(crate) fn goes_on(run: RunId) -> String {
    format!("Run {run} goes on. Follow it with `cooper logs {run} --follow`; end it with `cooper runs cancel {run}`.")
}

/// Follows a run to its end.
pub(crate) async fn follow(
    client: &Client,
    run: RunId,
    display: &mut Display,
    options: FollowOptions,
    on_interrupt: OnInterrupt<'_>,
) -> Result<Outcome, Stop> {
    let (mut interrupt, mut next) = match on_interrupt {
        OnInterrupt::Ask => (Interrupt::listen()?, Next::Ask),
        OnInterrupt::Leave => (Interrupt::listen()?, Next::Leave),
        OnInterrupt::Cancel(signals) => (Interrupt::Any(signals), Next::Cancel),
    };
    let mut events = std::pin::pin!(client.follow(run, options));
    let (mut is_lost, mut has_begun) = (false, false);
    loop {
        // Both branches are safe to cancel: a signal stays pending, and the follower keeps its state in the stream.
        let event = tokio::select! {
            event = events.next() => event,
            signal = interrupt.next() => {
                match std::mem::replace(&mut next, Next::Leave).on(signal) {
                    Next::Leave => {
                        display.leave()?;
                        return Ok(Outcome::Left(signal));
                    }
                    Next::Cancel => {
                        cancel(client, run, display).await;
                        continue;
                    }
                    Next::Ask => {}
                }
                display.pause();
                let answer = ask(run, &mut interrupt).await;
                display.resume();
                match answer {
                    Answer::Leave(signal) => {
                        display.leave()?;
                        return Ok(Outcome::Left(signal));
                    }
                    Answer::No => {}
                    Answer::Cancel => cancel(client, run, display).await,
                }
                continue;
            }
        };
        let was_lost = std::mem::replace(&mut is_lost, matches!(event, Some(Ok(LogEvent::Reconnecting { .. }))));
        has_begun |= matches!(event, Some(Ok(_)));
        match event {
            Some(Ok(LogEvent::Frames(frames))) => display.frames(&frames)?,
            Some(Ok(LogEvent::Status(status))) => display.status(&status),
            // Once is enough, however many attempts it takes.
            Some(Ok(LogEvent::Reconnecting { .. })) if was_lost => {}
            Some(Ok(LogEvent::Reconnecting { reason, .. })) => {
                display.notice(&format!("Connection lost ({reason}); trying again, run {run} goes on."));
            }
            Some(Ok(LogEvent::End(run))) => {
                display.finish()?;
                return Ok(Outcome::Ended(run));
            }
            Some(Err(error)) => {
                display.leave()?;
                let transient = error.is_transient();
                let fault = Fault::from(error);
                let hint = format!("run {run} goes on without us; follow it with `cooper logs {run} --follow`");
                return Err(if transient && has_begun { fault.with_hint(hint) } else { fault }.into());
            }
            None => return Err(Fault::machinery(format!("the log of run {run} ended without the run's end")).into()),
        }
    }
}

async fn cancel(client: &Client, run: RunId, display: &mut Display) {
    match client.cancel_run(run).await {
        Ok(_) => display.notice(&format!("Cancelling run {run}...")),
        // The run may have ended meanwhile, which the log will tell.
        Err(error) => display.notice(&format!("run {run} can't be cancelled: {}", chain(&error))),
    }
}

/// The answer to the question whether to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Cancel,
    No,
    Leave(Exit),
}

async fn ask(run: RunId, interrupt: &mut Interrupt<'_>) -> Answer {
    output::note_bytes(format!("\nCancel run {run}? [y/N] (Ctrl-C again: stop waiting, the run goes on) ").as_bytes());
    let (sender, answer) = oneshot::channel();
    // A thread of its own, which nobody waits for: a read from a terminal can't be called off.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // The receiver is gone if Ctrl-C came first.
        let _ = sender.send(read.is_ok_and(|_| is_yes(&line)));
    });
    tokio::select! {
        answer = answer => match answer {
            Ok(true) => Answer::Cancel,
            Ok(false) | Err(_) => Answer::No,
        },
        signal = interrupt.next() => {
            output::note("");
            Answer::Leave(signal)
        }
    }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Signals as a stream: one that comes while nobody listens is not lost.
enum Interrupt<'a> {
    /// Ctrl-C and the one to end. Not the end of the terminal: `nohup` has it ignored.
    #[cfg(unix)]
    Usual { interrupt: tokio::signal::unix::Signal, terminate: tokio::signal::unix::Signal },
    #[cfg(windows)]
    Usual { interrupt: tokio::signal::windows::CtrlC },
    /// Every signal to stop.
    Any(&'a mut Signals),
}

impl Interrupt<'_> {
    fn listen() -> Result<Self, Fault> {
        let fault = |error: std::io::Error| Fault::machinery(format!("signals can't be listened for: {error}"));
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let interrupt = signal(SignalKind::interrupt()).map_err(fault)?;
            Ok(Self::Usual { interrupt, terminate: signal(SignalKind::terminate()).map_err(fault)? })
        }
        #[cfg(windows)]
        {
            Ok(Self::Usual { interrupt: tokio::signal::windows::ctrl_c().map_err(fault)? })
        }
    }

    /// The next signal, as the exit code of whoever ends by it.
    async fn next(&mut self) -> Exit {
        match self {
            #[cfg(unix)]
            Self::Usual { interrupt, terminate } => tokio::select! {
                Some(()) = interrupt.recv() => Exit::Interrupted,
                Some(()) = terminate.recv() => Exit::Terminated,
                // The runtime is shutting down: no signal will come.
                else => std::future::pending().await,
            },
            #[cfg(windows)]
            Self::Usual { interrupt } => match interrupt.recv().await {
                Some(()) => Exit::Interrupted,
                None => std::future::pending().await,
            },
            Self::Any(signals) => match signals.next_or_hang_up().await {
                "interrupted" => Exit::Interrupted,
                _ => Exit::Terminated,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_cancels() {
        for line in ["y", "Y\n", "yes\r\n", " YES "] {
            assert!(is_yes(line), "{line}");
        }
        for line in ["", "\n", "n", "no", "yep", "ye s"] {
            assert!(!is_yes(line), "{line}");
        }
    }
}
