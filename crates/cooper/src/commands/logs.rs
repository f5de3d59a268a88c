//! `cooper logs`: a run's log as it was, or as it comes. It never fails because the run did.

use std::io::IsTerminal as _;

use clap::Args;
use cooper_client::{Client, FollowOptions};
use cooper_types::RunId;

use crate::connection::ServerArgs;
use crate::display::{Display, TerminalText};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::follow::{self, OnInterrupt, Outcome};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The run's id, such as ca1
    #[arg(value_name = "RUN")]
    run: String,
    /// Go on until the run ends
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &LogsArgs, environment: &Environment) -> Result<Exit, Stop> {
    let run = run_id(&args.run)?;
    let client = args.server.connect(environment)?;
    show(&client, run, args.follow).await
}

/// Shows a run's log, as far as it goes or to its end.
pub(crate) async fn show(client: &Client, run: RunId, follow: bool) -> Result<Exit, Stop> {
    if follow {
        let mut display = Display::plain_to_stdout();
        let options = FollowOptions { must_begin: true, ..FollowOptions::default() };
        return match follow::follow(client, run, &mut display, options, OnInterrupt::Leave).await? {
            Outcome::Ended(_) => Ok(Exit::Success),
            Outcome::Left(signal) => {
                output::note(&follow::goes_on(run));
                Ok(signal)
            }
        };
    }
    let mut offset = 0;
    let mut terminal = std::io::stdout().is_terminal().then(TerminalText::default);
    loop {
        let (text, next, complete) = client.log_text(run, offset).await?;
        match &mut terminal {
            Some(terminal) => output::data(&terminal.feed(&text))?,
            None => output::data(&text)?,
        }
        // What there is so far; a log that grows while it is read is read to where it then ends.
        if complete || text.is_empty() || next <= offset {
            if let Some(terminal) = &mut terminal {
                output::data(terminal.finish())?;
            }
            return Ok(Exit::Success);
        }
        offset = next;
    }
}

/// A run's id from the command line.
pub(crate) fn run_id(text: &str) -> Result<RunId, Fault> {
    RunId::parse(text)
        .map_err(|error| Fault::usage(error.to_string()).with_hint("list the runs with `cooper runs list`"))
}
