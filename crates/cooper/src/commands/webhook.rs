//! `cooper webhook`: who is told of pushes, deletions and runs, with the names and flags of `az acr webhook`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use cooper_api::rest::{ListWebhookEventsQuery, WebhookEvent, WebhookSettings, WebhookStatus, WebhookView};
use cooper_types::{EventId, WebhookName};

use crate::cli::OutputForm;
use crate::commands::credential::password;
use crate::commands::runs::short_time;
use crate::commands::task::plain;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(crate) struct WebhookArgs {
    #[command(subcommand)]
    command: WebhookCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Make a webhook; its secret is shown once
    Create(CreateArgs),
    /// Change a webhook: what is not named stays as it is
    Update(UpdateArgs),
    /// Show a webhook
    Show(NamedOutput),
    /// List the webhooks
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Delete a webhook, with what waits for it
    Delete {
        #[command(flatten)]
        name: NameArgs,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Send a ping to a webhook
    Ping(NamedOutput),
    /// List what was sent to a webhook and what waits, the newest first
    ListEvents {
        #[command(flatten)]
        name: NameArgs,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = ListWebhookEventsQuery::DEFAULT_TOP)]
        top: u32,
        /// Send this one once more, after all that waits
        #[arg(long, value_name = "ID", conflicts_with = "top")]
        redeliver: Option<String>,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Show a webhook's address, and the names of its headers
    GetConfig(NamedOutput),
    /// Send an event to a webhook once more: what `list-events --redeliver` does
    #[command(hide = true)]
    Redeliver {
        #[command(flatten)]
        name: NameArgs,
        /// The event's id, as `list-events` shows it
        #[arg(long, value_name = "ID")]
        event: String,
    },
}

/// A webhook's name, by its place or by az's flag.
#[derive(Args, Debug)]
struct NameArgs {
    /// The webhook's name
    #[arg(value_name = "NAME")]
    webhook: Option<String>,
    /// The webhook's name
    #[arg(long, short, value_name = "NAME", conflicts_with = "webhook")]
    name: Option<String>,
}

#[derive(Args, Debug)]
struct NamedOutput {
    #[command(flatten)]
    name: NameArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

#[derive(Args, Debug)]
struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The address that events are posted to
    #[arg(long, value_name = "URI")]
    uri: String,
    /// What it is told of: push, delete, run_finished, wave_finished
    #[arg(long, value_name = "ACTION", num_args = 1.., value_delimiter = ',', required = true)]
    actions: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

#[derive(Args, Debug)]
struct UpdateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The address that events are posted to
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// What it is told of: push, delete, run_finished, wave_finished
    #[arg(long, value_name = "ACTION", num_args = 1.., value_delimiter = ',')]
    actions: Option<Vec<String>>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Have the server make another secret, and show it
    #[arg(long, conflicts_with = "secret_stdin")]
    new_secret: bool,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

#[derive(Args, Debug)]
struct SettingsArgs {
    /// Of which images: REPOSITORY:TAG, REPOSITORY:*, or REPOSITORY for its tag latest; all if it is empty
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// Whether it is told of anything
    #[arg(long, value_enum)]
    status: Option<StatusArg>,
    /// Headers that go with every event, in place of all earlier ones
    #[arg(long, value_name = "NAME=VALUE", num_args = 1..)]
    headers: Option<Vec<String>>,
    /// Read what requests are signed with from standard input
    #[arg(long)]
    secret_stdin: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusArg {
    // Plain comments: clap would give each value a paragraph of its own in the help.
    Enabled,
    Disabled,
}

impl NameArgs {
    fn is_missing(&self) -> bool {
        self.webhook.is_none() && self.name.is_none()
    }

    fn get(&self) -> Result<WebhookName, Fault> {
        let text = self.webhook.as_deref().or(self.name.as_deref());
        let hint = "name it, such as `deploy` or `--name deploy`";
        let text = text.ok_or_else(|| Fault::usage("no webhook is named").with_hint(hint))?;
        WebhookName::parse(text).map_err(|error| Fault::usage(error.to_string()))
    }
}

impl SettingsArgs {
    fn settings(&self) -> Result<WebhookSettings, Fault> {
        Ok(WebhookSettings {
            scope: self.scope.clone(),
            status: self.status.map(|status| match status {
                StatusArg::Enabled => WebhookStatus::Enabled,
                StatusArg::Disabled => WebhookStatus::Disabled,
            }),
            custom_headers: self.headers.as_deref().map(headers).transpose()?,
            secret: if self.secret_stdin { Some(password(true)?) } else { None },
            ..WebhookSettings::default()
        })
    }
}

/// az's form: `name=value`, and `""` for none at all.
fn headers(texts: &[String]) -> Result<BTreeMap<String, String>, Fault> {
    let mut headers = BTreeMap::new();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let header = text.split_once('=').filter(|(name, _)| !name.is_empty());
        // The value may be a secret: what can't be split is not shown.
        let (name, value) = header.ok_or_else(|| {
            Fault::usage("a header is not NAME=VALUE").with_hint("such as --headers \"Authorization=Bearer TOKEN\"")
        })?;
        headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(headers)
}

pub(crate) async fn run(args: &WebhookArgs, environment: &Environment) -> Result<Exit, Stop> {
    let server = &args.server;
    match &args.command {
        WebhookCommand::Create(create) => {
            let name = create.name.get().map_err(|fault| match &create.actions[..] {
                [_, .., last] if create.name.is_missing() => {
                    Fault::usage(format!("no webhook is named: `{last}` was taken for an action"))
                        .with_hint("write the name before --actions, or with --name")
                }
                _ => fault,
            })?;
            let settings = WebhookSettings {
                name: Some(name),
                service_uri: Some(create.uri.clone()),
                actions: Some(create.actions.clone()),
                ..create.settings.settings()?
            };
            let webhook = server.connect(environment)?.create_webhook(&settings).await?;
            kept(&webhook, "made", create.settings.secret_stdin, create.output)?;
        }
        WebhookCommand::Update(update) => {
            let name = update.name.get()?;
            let settings = WebhookSettings {
                service_uri: update.uri.clone(),
                actions: update.actions.clone(),
                new_secret: update.new_secret,
                ..update.settings.settings()?
            };
            if settings == WebhookSettings::default() {
                return Err(Fault::usage("no flag says what to change").into());
            }
            let webhook = server.connect(environment)?.update_webhook(&name, &settings).await?;
            kept(&webhook, "changed", update.settings.secret_stdin, update.output)?;
        }
        WebhookCommand::Show(args) => {
            let webhook = server.connect(environment)?.get_webhook(&args.name.get()?).await?;
            match args.output {
                OutputForm::Json => output::json(&webhook)?,
                OutputForm::Text => output::line(&table::table(HEADING, &[row(&webhook)]))?,
            }
        }
        WebhookCommand::List { output: form } => {
            let webhooks = server.connect(environment)?.list_webhooks().await?.value;
            match form {
                OutputForm::Json => output::json(&webhooks)?,
                OutputForm::Text => {
                    let rows: Vec<_> = webhooks.iter().map(row).collect();
                    output::line(&table::table(HEADING, &rows))?;
                }
            }
        }
        WebhookCommand::Delete { name, yes } => {
            let (name, client) = (name.get()?, server.connect(environment)?);
            if !yes && !output::agreed(&format!("Delete webhook {name}, with what waits for it?"))? {
                output::note("Nothing is deleted.");
                return Ok(Exit::Success);
            }
            client.delete_webhook(&name).await?;
            output::note(&format!("Webhook {name} is deleted."));
        }
        WebhookCommand::Ping(args) => {
            let name = args.name.get()?;
            let client = server.connect(environment)?;
            let event = client.ping_webhook(&name).await?;
            match args.output {
                OutputForm::Json => output::json(&event)?,
                OutputForm::Text => output::note(&pinged(&client.get_webhook(&name).await?, &event.id)),
            }
        }
        WebhookCommand::ListEvents { name, redeliver: Some(event), .. } => {
            redeliver(&name.get()?, event, server, environment).await?;
        }
        WebhookCommand::ListEvents { name, top, redeliver: None, output: form } => {
            let events = server.connect(environment)?.list_webhook_events(&name.get()?, *top).await?.value;
            match form {
                OutputForm::Json => output::json(&events)?,
                OutputForm::Text => {
                    let rows: Vec<_> = events.iter().map(event_row).collect();
                    let heading = ["ID", "ACTION", "SUBJECT", "STATUS", "ATTEMPTS", "ANSWER", "TIMESTAMP"];
                    output::line(&table::table(heading, &rows))?;
                }
            }
        }
        WebhookCommand::GetConfig(args) => {
            let config = server.connect(environment)?.webhook_config(&args.name.get()?).await?;
            match args.output {
                OutputForm::Json => output::json(&config)?,
                OutputForm::Text => {
                    let headers = config.custom_headers.iter().map(|(name, value)| [name.clone(), value.clone()]);
                    let uri = [["SERVICE URI".to_owned(), config.service_uri.clone()]];
                    let rows: Vec<[String; 2]> = uri.into_iter().chain(headers).collect();
                    output::line(&table::table(["SETTING", "VALUE"], &rows))?;
                }
            }
        }
        WebhookCommand::Redeliver { name, event } => redeliver(&name.get()?, event, server, environment).await?,
    }
    Ok(Exit::Success)
}

/// Has an event sent once more.
async fn redeliver(
    name: &WebhookName,
    event: &str,
    server: &ServerArgs,
    environment: &Environment,
) -> Result<(), Stop> {
    let event = EventId::parse(event).map_err(|error| Fault::usage(error.to_string()))?;
    server.connect(environment)?.redeliver(name, &event).await?;
    output::note(&format!("Event {event} is queued for webhook {name} once more."));
    Ok(())
}

/// Tells of a webhook that was made or changed. A secret that the server made is data: standard output has it.
fn kept(webhook: &WebhookView, done: &str, was_given: bool, form: OutputForm) -> Result<(), Stop> {
    if form == OutputForm::Json {
        return output::json(webhook);
    }
    output::note(&told(webhook, done));
    match &webhook.secret {
        Some(secret) if !was_given => {
            output::note("Requests are signed with this secret, which is not shown again:");
            output::line(secret)
        }
        _ => Ok(()),
    }
}

/// What becomes of a ping.
fn pinged(webhook: &WebhookView, event: &EventId) -> String {
    let name = &webhook.name;
    match webhook.status {
        WebhookStatus::Enabled => {
            format!("Ping {event} is on its way. `cooper webhook list-events {name}` shows what comes of it.")
        }
        WebhookStatus::Disabled => format!(
            "Ping {event} waits: webhook {name} is disabled. `cooper webhook update {name} --status enabled` has it sent."
        ),
    }
}

/// What a webhook does from now on.
fn told(webhook: &WebhookView, done: &str) -> String {
    let WebhookView { name, host, actions, status, .. } = webhook;
    match status {
        WebhookStatus::Enabled => format!("Webhook {name} is {done}: {host} is told of {}.", actions.join(", ")),
        WebhookStatus::Disabled => format!(
            "Webhook {name} is {done}, and disabled: {host} is told of nothing, and what waits for it waits on. `cooper webhook \
             update {name} --status enabled` ends that."
        ),
    }
}

const HEADING: [&str; 5] = ["NAME", "HOST", "STATUS", "SCOPE", "ACTIONS"];

fn row(webhook: &WebhookView) -> [String; 5] {
    let status = match webhook.status {
        WebhookStatus::Enabled => "enabled",
        WebhookStatus::Disabled => "disabled",
    };
    [
        webhook.name.to_string(),
        webhook.host.clone(),
        status.to_owned(),
        webhook.scope.clone(),
        webhook.actions.join(","),
    ]
}

fn event_row(event: &WebhookEvent) -> [String; 7] {
    // Without an answer of theirs it is why there was none.
    let answer = event.last_attempt.as_ref().map(|last| match last.status_code {
        Some(status) => status.to_string(),
        None => plain(&last.answer),
    });
    let status = match event.next_attempt_time {
        Some(next) if event.attempts > 0 => format!("{}, next {}", event.status.as_str(), short_time(next)),
        _ => event.status.as_str().to_owned(),
    };
    [
        event.id.to_string(),
        event.action.clone(),
        event.subject.clone(),
        status,
        event.attempts.to_string(),
        answer.unwrap_or_default(),
        event.timestamp.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_disabled_webhook_is_said_to_tell_nobody() {
        let webhook = |status: &str| -> WebhookView {
            let webhook = json!({
                "name": "deploy", "host": "deploy.example", "actions": ["push", "delete"], "scope": "", "status": status,
                "setBy": "ann", "createTime": "2026-01-31T12:00:00.000000Z", "generation": 2
            });
            serde_json::from_value(webhook).expect("a webhook")
        };
        let event = EventId::parse("0f3c9f0e-7d3c-4f60-b0e5-5a8f4e1d2c3b").expect("an id");
        let (enabled, disabled) = (webhook("enabled"), webhook("disabled"));
        assert_eq!(told(&enabled, "changed"), "Webhook deploy is changed: deploy.example is told of push, delete.");
        assert!(pinged(&enabled, &event).contains("is on its way"));
        for text in [told(&disabled, "changed"), pinged(&disabled, &event)] {
            assert!(
                text.contains("disabled") && text.contains("`cooper webhook update deploy --status enabled`"),
                "{text}"
            );
            assert!(!text.contains("told of push") && !text.contains("on its way"), "{text}");
        }
    }
}
