//! `cooper wave`: what changes of base images set off.

use clap::{Args, Subcommand};
use cooper_api::rest::{ListWavesQuery, RegistryHookView, WaveMember, WaveView};
use cooper_types::WaveId;

use super::runs::short_time;
use super::task::address;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// What a registry's webhook is to send.
const HOOK: &str = "\
Content type:  application/json (others are taken, too: the body is JSON)
Forms:         distribution and Cooperage (events with action push), ACR, Harbor (PUSH_ARTIFACT), Docker Hub
Signature:     none is asked for: what is told is not believed, the registry is asked. Whoever knows the URL can bring that forward";

#[derive(Args, Debug)]
pub(crate) struct WaveArgs {
    #[command(subcommand)]
    command: WaveCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum WaveCommand {
    /// List waves, the newest first
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = ListWavesQuery::DEFAULT_TOP,
              value_parser = clap::value_parser!(u32).range(1..=i64::from(ListWavesQuery::MAX_TOP)))]
        top: u32,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Show where other registries tell of pushes, as their webhooks do: they are asked sooner then
    Hook {
        /// The form of the answer
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Show a wave with its members
    Show(NamedWave),
    /// Let no member of a wave begin for now; runs that go on end as they would
    Pause(NamedWave),
    /// Let members of a wave begin again
    Resume(NamedWave),
    /// End a wave early: its runs are cancelled, and no other member begins
    Cancel(NamedWave),
    /// Try again what failed, was skipped or was cancelled in a wave: a new wave does that, and builds what differs still
    Retry(NamedWave),
}

#[derive(Args, Debug)]
struct NamedWave {
    /// The wave's id, such as w1
    #[arg(value_name = "WAVE")]
    wave: String,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

impl NamedWave {
    fn id(&self) -> Result<WaveId, Fault> {
        WaveId::parse(&self.wave).map_err(|error| Fault::usage(error.to_string()))
    }
}

pub(crate) async fn run(args: &WaveArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = args.server.connect(environment)?;
    let (wave, form, done) = match &args.command {
        WaveCommand::List { top, output } => {
            let waves = client.list_waves(*top).await?.value;
            match output {
                OutputForm::Json => output::json(&waves)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 5]> = waves.iter().map(row).collect();
                    output::line(&table::table(["WAVE", "STATUS", "OPENED", "MEMBERS", "IMAGES"], &rows))?;
                }
            }
            return Ok(Exit::Success);
        }
        WaveCommand::Hook { output } => {
            let RegistryHookView { path, url } = client.get_registry_hook().await?;
            let url = url.unwrap_or_else(|| address(client.server(), &path));
            match output {
                OutputForm::Json => output::json(&serde_json::json!({ "url": url, "path": path }))?,
                OutputForm::Text => {
                    output::line(&format!("URL:           {url}"))?;
                    output::line(HOOK)?;
                }
            }
            return Ok(Exit::Success);
        }
        WaveCommand::Show(named) => (client.get_wave(named.id()?).await?, named.output, None),
        WaveCommand::Pause(named) => (client.pause_wave(named.id()?).await?, named.output, Some("paused")),
        WaveCommand::Resume(named) => (client.resume_wave(named.id()?).await?, named.output, Some("resumed")),
        WaveCommand::Cancel(named) => (client.cancel_wave(named.id()?).await?, named.output, Some("cancelled")),
        WaveCommand::Retry(named) => {
            let wave = client.retry_wave(named.id()?).await?;
            match named.output {
                OutputForm::Json => output::json(&wave)?,
                OutputForm::Text => {
                    output::note(&format!(
                        "Wave {} tries again what came to nothing in wave {}.",
                        wave.wave_id, named.wave
                    ));
                }
            }
            return Ok(Exit::Success);
        }
    };
    match (form, done) {
        (OutputForm::Json, _) => output::json(&wave)?,
        (OutputForm::Text, None) => output::line(&describe(&wave))?,
        (OutputForm::Text, Some(done)) => output::note(&format!("Wave {} is {done}.", wave.wave_id)),
    }
    Ok(Exit::Success)
}

fn images(wave: &WaveView) -> String {
    let mut images: Vec<&str> = wave.changes.iter().map(|change| change.image.as_str()).collect();
    images.dedup();
    images.join(" ")
}

/// How many members are in which state.
fn counts(wave: &WaveView) -> String {
    let counts: Vec<String> = wave.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    counts.join(", ")
}

fn row(wave: &WaveView) -> [String; 5] {
    [wave.wave_id.to_string(), wave.status.clone(), short_time(wave.open_time), counts(wave), images(wave)]
}

/// A wave for people.
fn describe(wave: &WaveView) -> String {
    let mut lines = vec![
        format!("Wave:         {}", wave.wave_id),
        format!("Status:       {}", wave.status),
        format!("Opened:       {}", wave.open_time),
    ];
    lines.extend(wave.finish_time.map(|time| format!("Finished:     {time}")));
    lines.push(format!("At a time:    {} of all waves", wave.concurrency_limit));
    for change in &wave.changes {
        let before = change.previous_digest.as_deref().unwrap_or("something unknown");
        lines.push(format!("Changed:      {} from {before} to {}", change.image, change.digest));
    }
    lines.extend(wave.cuts.iter().map(|cut| format!("Cut:          {cut}")));
    lines.push(format!("Members:      {}", counts(wave)));
    lines.push(String::new());
    let rows: Vec<[String; 6]> = wave.members.iter().flatten().map(member_row).collect();
    lines.push(table::table(["LEVEL", "TASK", "STATE", "RUN", "AFTER", "WHY"], &rows));
    lines.join("\n")
}

fn member_row(member: &WaveMember) -> [String; 6] {
    let after: Vec<&str> = member.after.iter().map(cooper_types::TaskName::as_str).collect();
    [
        member.level.to_string(),
        member.task.to_string(),
        member.state.clone(),
        member.run_id.map(|run| run.to_string()).unwrap_or_default(),
        after.join(" "),
        member.reason.clone().unwrap_or_default(),
    ]
}
