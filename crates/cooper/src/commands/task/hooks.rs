//! `cooper task hooks`: where forges send what happens, what came, and what each delivery led to.

use clap::Args;
use cooper_api::rest::{
    DeliveryView, EventOutcomeView, HookList, HookSetup, LookKind, LookView, RegistrationStatus, RegistrationView,
    SeenHook,
};
use cooper_client::ServerUrl;

use super::{NameArgs, plain, source};
use crate::cli::OutputForm;
use crate::commands::runs::short_time;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(super) struct HooksArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Give the hook of this kind of forge another secret; the one before is taken for a day
    #[arg(long, value_name = "KIND")]
    rotate_secret: Option<String>,
    /// With `--rotate-secret`: take no secret before the new one any more, as when one has leaked
    #[arg(long, requires = "rotate_secret")]
    revoke_old: bool,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(super) async fn run(args: &HooksArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    let name = args.name.get()?;
    let client = server.connect(environment)?;
    let hooks = client.list_hooks(&name).await?;
    if let Some(kind) = &args.rotate_secret {
        let named = |hook: &&SeenHook| hook.hook.provider == *kind || hook.hook.id.as_str() == kind;
        let Some(hook) = hooks.value.iter().find(named) else {
            return Err(Fault::usage(format!("task `{name}` has no hook for `{kind}`"))
                .with_hint(format!("`cooper task hooks {name}` shows its hooks"))
                .into());
        };
        let hook = client.rotate_hook(&name, &hook.hook.id, args.revoke_old).await?;
        match args.output {
            OutputForm::Json => output::json(&hook)?,
            OutputForm::Text => {
                source::tell_secret(&hook, client.server());
                output::note(match args.revoke_old {
                    true => "No other is taken any more: until the forge has it, what happens there is not told.",
                    false => "The one before is taken for another day.",
                });
                output::note(&plain(&source::who_sets_up(&hook, name.as_str())));
            }
        }
        return Ok(Exit::Success);
    }
    match args.output {
        OutputForm::Json => output::json(&hooks)?,
        OutputForm::Text if hooks.value.is_empty() => output::note(&format!("Task {name} listens to no repository.")),
        OutputForm::Text => output::line(&describe(&hooks, name.as_str(), client.server()))?,
    }
    Ok(Exit::Success)
}

fn describe(hooks: &HookList, task: &str, server: &ServerUrl) -> String {
    let mut lines = Vec::new();
    for seen in &hooks.value {
        lines.push(plain(&format!("{}: {}", seen.hook.provider, source::url(&seen.hook, server))));
        let last = seen.last.map(|last| format!(", the last {}", short_time(last))).unwrap_or_default();
        let repeated = if seen.repeated > 0 { format!(", {} came again", seen.repeated) } else { String::new() };
        lines.push(format!(
            "  since the server's start: {} kept{repeated}, {} passed over, {} refused{last}",
            seen.kept, seen.passed_over, seen.refused
        ));
        if let Some((at, why)) = seen.last_not_kept.zip(seen.why.as_ref()) {
            lines.push(plain(&format!("  not kept {}: {why}", short_time(at))));
        }
        if seen.hook.setup == HookSetup::LacksForge {
            lines.push(plain(&format!("  {}", source::who_sets_up(&seen.hook, task))));
        }
        lines.extend(seen.registration.as_ref().map(|registration| plain(&registered(registration))));
        if let Some(until) = seen.hook.previous_secret_until {
            lines.push(format!("  the secret before is taken until {}", short_time(until)));
        }
    }
    lines.extend(hooks.looks.iter().map(|look| plain(&looked(look))));
    if !hooks.deliveries.is_empty() {
        let rows: Vec<[String; 4]> = hooks.deliveries.iter().flat_map(rows).collect();
        lines.push(String::new());
        lines.push(table::table(["RECEIVED", "DELIVERY", "EVENT", "LED TO"], &rows));
    }
    lines.join("\n")
}

/// How a look for what no webhook told of went.
fn looked(look: &LookView) -> String {
    let what = match look.kind {
        LookKind::References => "branches and tags",
        LookKind::PullRequests => "pull requests",
    };
    let (time, next) = (short_time(look.time), short_time(look.next_time));
    match &look.fault {
        None => format!("{what} looked at {time} for what no webhook told of, next {next}"),
        Some(fault) => format!("{what} can't be looked at ({time}, next {next}): {fault}"),
    }
}

/// How far its registration at the forge is.
fn registered(view: &RegistrationView) -> String {
    let RegistrationView { status, repository, registered, next_try, fault } = view;
    let fault = fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let earlier = registered.map(|at| format!("registered at {repository} {}", short_time(at)));
    match (status, earlier) {
        (RegistrationStatus::Registered, Some(earlier)) => format!("  {earlier}"),
        (RegistrationStatus::Registered, None) => format!("  registered at {repository}"),
        (RegistrationStatus::Waiting, earlier) => {
            let earlier = earlier.map(|earlier| format!(" ({earlier})")).unwrap_or_default();
            let next = next_try.map(short_time).unwrap_or_default();
            format!("  to be registered at {repository} {next}{earlier}{fault}")
        }
        (RegistrationStatus::Failed, Some(earlier)) => format!("  {earlier}; not renewed{fault}"),
        (RegistrationStatus::Failed, None) => {
            format!("  not registered at {repository}{fault}; set it there by hand, or mend that")
        }
    }
}

fn rows(delivery: &DeliveryView) -> Vec<[String; 4]> {
    let row = |event: String, led_to: String| {
        let again = delivery.again.map(|at| format!(" (came again {})", short_time(at))).unwrap_or_default();
        [short_time(delivery.received), plain(&format!("{}{again}", delivery.id)), plain(&event), plain(&led_to)]
    };
    match &delivery.outcomes {
        None => vec![row(String::new(), "waits".to_owned())],
        Some(outcomes) => outcomes.iter().map(|outcome| row(outcome.event.clone(), led_to(outcome))).collect(),
    }
}

fn led_to(outcome: &EventOutcomeView) -> String {
    match outcome {
        EventOutcomeView { run_id: Some(run), .. } => format!("run {run}"),
        EventOutcomeView { known_run_id: Some(run), .. } => format!("nothing: it had led to run {run} before"),
        EventOutcomeView { rule, why_not, .. } => {
            let rule = rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
            format!("nothing{rule}: {}", why_not.as_deref().unwrap_or_default())
        }
    }
}
