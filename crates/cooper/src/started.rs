//! A run that was just asked for: waited for or not, shown or not, until its verdict is an exit code.

use std::io::IsTerminal as _;

use clap::Args;
use cooper_api::rest::{Run, RunStatus};
use cooper_client::{Client, FollowOptions};
use cooper_types::IdempotencyKey;

use crate::cli::OutputForm;
use crate::display::{Display, LogTarget};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::follow::{self, OnInterrupt, Outcome};
use crate::output;
use crate::signals::Signals;

/// How a command waits for the run that it asked for.
#[derive(Args, Clone, Debug)]
pub(crate) struct WaitFlags {
    /// Queue the run and return
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait for the end without showing the log
    #[arg(long)]
    pub(crate) no_logs: bool,
    /// Plain lines even on a terminal
    #[arg(long)]
    pub(crate) no_format: bool,
    /// The form of the result; as json, standard output holds the run's record alone
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: OutputForm,
}

impl WaitFlags {
    /// A live display needs a terminal that we may paint on, and data on standard output must not get mixed into it.
    pub(crate) fn is_live(&self, environment: &Environment) -> bool {
        let painted = std::io::stderr().is_terminal()
            && !environment.is_set("NO_COLOR")
            && environment.raw("TERM").is_none_or(|term| term != "dumb");
        painted && !self.no_format && (self.output == OutputForm::Json || std::io::stdout().is_terminal())
    }
}

/// Whose server a run is on.
pub(crate) enum Whose<'a> {
    /// Somebody's, where it goes on without us.
    Theirs,
    /// This command's own, which ends with it.
    Ours {
        /// What ends both.
        signals: &'a mut Signals,
        /// The name of its registry.
        registry: String,
    },
}

/// Waits for a run as the flags say.
pub(crate) async fn see_through(
    client: &Client,
    run: Run,
    flags: &WaitFlags,
    environment: &Environment,
    whose: Whose<'_>,
) -> Result<Exit, Stop> {
    let live = flags.is_live(environment);
    if flags.no_wait {
        match flags.output {
            OutputForm::Json => output::json(&run)?,
            OutputForm::Text => output::line(&run.run_id.to_string())?,
        }
        return Ok(Exit::Success);
    }
    let target = match (flags.no_logs, flags.output) {
        (true, _) => LogTarget::Nowhere,
        (false, OutputForm::Text) => LogTarget::Stdout,
        (false, OutputForm::Json) => LogTarget::Stderr,
    };
    let mut display = if live && !flags.no_logs { Display::live() } else { Display::plain(target) };
    let (on_interrupt, ours) = match whose {
        Whose::Ours { signals, registry } => (OnInterrupt::Cancel(signals), Some(registry)),
        Whose::Theirs => (on_interrupt(), None),
    };
    let options = FollowOptions { status_only: flags.no_logs, ..FollowOptions::default() };
    match follow::follow(client, run.run_id, &mut display, options, on_interrupt).await? {
        Outcome::Left(_) if ours.is_some() => {
            output::note(&format!("Run {} is stopped at once.", run.run_id));
            Ok(Exit::Canceled)
        }
        Outcome::Left(signal) => {
            output::note(&follow::goes_on(run.run_id));
            Ok(signal)
        }
        Outcome::Ended(run) => ended(&run, flags.output, ours.as_deref()),
    }
}

fn on_interrupt() -> OnInterrupt<'static> {
    match std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        true => OnInterrupt::Ask,
        false => OnInterrupt::Leave,
    }
}

/// A key that no other request has. A fresh name is what counts, not its form.
pub(crate) fn new_key() -> Result<IdempotencyKey, Stop> {
    let key = uuid::Uuid::new_v4().to_string();
    Ok(IdempotencyKey::parse(&key).map_err(|error| Fault::machinery(error.to_string()))?)
}

/// The verdict. `ours` is the registry that ends with this command.
fn ended(run: &Run, form: OutputForm, ours: Option<&str>) -> Result<Exit, Stop> {
    if form == OutputForm::Json {
        output::json(run)?;
    }
    let took = run.finish_time.zip(run.start_time).map(|(finish, start)| output::duration(finish.since(start)));
    let took = took.map(|took| format!(" after {took}")).unwrap_or_default();
    let exit = Exit::of_run(run.status);
    let what = match run.status {
        RunStatus::Succeeded => {
            output::note(&format!("Run {} succeeded{took}.", run.run_id));
            for image in &run.output_images {
                let tag = image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
                let digest = image.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
                output::note(&format!("Pushed {}/{}{tag}{digest}", image.registry, image.repository));
            }
            if let Some(ours) = ours
                && run.output_images.iter().any(|image| image.registry == ours)
            {
                output::note(&format!("What was pushed to {ours} goes now: push to another registry to keep it."));
            }
            return Ok(exit);
        }
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "was cancelled",
        RunStatus::Timeout => "timed out",
        RunStatus::Error => "was ended by a failure of the machinery",
        RunStatus::Queued | RunStatus::Started | RunStatus::Running => "goes on",
    };
    let reason = run.run_error_message.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let fault = Fault { exit, message: format!("run {} {what}{took}{reason}", run.run_id), hint: None };
    Err(match run.status {
        RunStatus::Canceled => fault,
        RunStatus::Timeout => fault.with_hint("give it more time with --timeout SECONDS"),
        _ if ours.is_some() => fault,
        _ => fault.with_hint(format!("read its log again with `cooper logs {}`", run.run_id)),
    }
    .into())
}
