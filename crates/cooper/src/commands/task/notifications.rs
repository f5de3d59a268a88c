//! `cooper task notifications`: what a task tells its endpoint and its forge, and what came of that.

use clap::Args;
use cooper_api::rest::{ListNotificationsQuery, NotificationKind, NotificationView};
use cooper_types::{EventId, RunId};

use super::{NameArgs, plain};
use crate::cli::OutputForm;
use crate::commands::runs::short_time;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(super) struct NotificationsArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = ListNotificationsQuery::DEFAULT_TOP,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(ListNotificationsQuery::MAX_TOP)))]
    last: u32,
    /// Send this one once more: to the endpoint after all that waits, or the status of this run's commit to the forge
    #[arg(long, value_name = "ID", conflicts_with = "last")]
    redeliver: Option<String>,
    /// The form of the list
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(super) async fn run(
    args: &NotificationsArgs,
    server: &ServerArgs,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    let client = server.connect(environment)?;
    if let Some(id) = &args.redeliver {
        if let Ok(run) = RunId::parse(id) {
            client.redeliver_status(&name, run).await?;
            output::note(&format!("The forge of task {name} is told once more how run {run} stands."));
            return Ok(Exit::Success);
        }
        let event = EventId::parse(id).map_err(|error| Fault::usage(error.to_string()))?;
        client.redeliver_notification(&name, &event).await?;
        output::note(&format!("Notification {event} is queued for the endpoint of task {name} once more."));
        return Ok(Exit::Success);
    }
    let all = client.list_notifications(&name, args.last).await?.value;
    match args.output {
        OutputForm::Json => output::json(&all)?,
        OutputForm::Text if all.is_empty() => {
            output::note(&format!("Task {name} has told nobody anything that is still known."));
        }
        OutputForm::Text => {
            let rows: Vec<[String; 8]> = all.iter().map(row).collect();
            let heading = ["TIME", "TOLD", "WHAT", "RUN ID", "STATUS", "ATTEMPTS", "ANSWER", "ID"];
            output::line(&table::table(heading, &rows))?;
        }
    }
    Ok(Exit::Success)
}

/// So many digits of a commit are shown.
const SHORT: usize = 12;

fn row(one: &NotificationView) -> [String; 8] {
    let told = match one.kind {
        NotificationKind::UpdateTrigger => "endpoint",
        NotificationKind::CommitStatus => "forge",
    };
    let what = match (&one.state, &one.commit_id) {
        (Some(state), Some(commit)) => format!("{state} of {}", commit.get(..SHORT).unwrap_or(commit)),
        _ => String::new(),
    };
    let status = match one.next_attempt_time {
        Some(next) if one.attempts > 0 => format!("{}, next {}", one.status.as_str(), short_time(next)),
        _ => one.status.as_str().to_owned(),
    };
    let attempts = match one.last_attempt_time {
        Some(last) => format!("{}, last {}", one.attempts, short_time(last)),
        None => one.attempts.to_string(),
    };
    let answer = match (one.last_status_code, &one.reason) {
        (Some(status), _) => status.to_string(),
        (None, reason) => reason.as_deref().map(plain).unwrap_or_default(),
    };
    [
        short_time(one.timestamp),
        told.to_owned(),
        plain(&what),
        one.run_id.to_string(),
        status,
        attempts,
        answer,
        one.id.as_ref().map_or_else(|| one.run_id.to_string(), ToString::to_string),
    ]
}
