//! `cooper agent list|show|drain|remove`.

use clap::{Args, Subcommand};
use cooper_api::rest::{AgentState, AgentView};
use cooper_types::AgentName;

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// How much of what keeps an agent from work a list shows, in characters.
const MAX_WHY: usize = 40;

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// List the agents, connected or not
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Show an agent
    Show(OneAgent),
    /// Offer an agent nothing new; what it holds goes on to its end
    Drain {
        #[command(flatten)]
        agent: OneAgent,
        /// Offer it work again
        #[arg(long)]
        undo: bool,
    },
    /// Forget an agent and free its name; what it holds starts again on another one
    Remove {
        #[command(flatten)]
        agent: OneAgent,
        /// Revoke the token that it showed last, so that it can't come back; others that show the same can't either
        #[arg(long)]
        revoke: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct OneAgent {
    /// The agent's name
    #[arg(value_name = "NAME")]
    name: String,
    /// The form of the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(super) async fn run(command: &AdminCommand, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    match command {
        AdminCommand::List { output: form } => {
            let list = server.connect(environment)?.list_agents().await?;
            match form {
                OutputForm::Json => output::json(&list.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 7]> = list.value.iter().map(row).collect();
                    let heads = ["NAME", "POOL", "STATE", "RUNS", "PLATFORMS", "ENGINE", "LAST SEEN"];
                    output::line(&table::table(heads, &rows))?;
                }
            }
        }
        AdminCommand::Show(one) => {
            let agent = server.connect(environment)?.get_agent(&one.name()?).await?;
            match one.output {
                OutputForm::Json => output::json(&agent)?,
                OutputForm::Text => output::line(&details(&agent))?,
            }
        }
        AdminCommand::Drain { agent: one, undo } => {
            let agent = server.connect(environment)?.drain_agent(&one.name()?, !undo).await?;
            let (name, runs) = (&agent.name, agent.runs);
            match one.output {
                OutputForm::Json => output::json(&agent)?,
                OutputForm::Text if *undo => output::note(&format!("Agent {name} is offered work again.")),
                OutputForm::Text if runs == 0 => {
                    output::note(&format!("Agent {name} holds nothing and gets nothing new."))
                }
                OutputForm::Text => {
                    output::note(&format!(
                        "Agent {name} gets nothing new; it still holds {runs} of its {} slots.",
                        agent.slots
                    ));
                }
            }
        }
        AdminCommand::Remove { agent: one, revoke } => {
            let (name, client) = (one.name()?, server.connect(environment)?);
            if *revoke {
                // First: an agent that lives would be back before its token is gone.
                client.revoke_token(&client.get_agent(&name).await?.token_id).await?;
            }
            let agent = client.remove_agent(&name).await?;
            match one.output {
                OutputForm::Json => output::json(&agent)?,
                OutputForm::Text => {
                    output::note(&format!("Agent {} is removed.", agent.name));
                    let (token, whose) = (&agent.token_id, &agent.principal);
                    output::note(&match (*revoke, agent.state) {
                        (true, _) => format!("Its token {token} of {whose} no longer works: it can't come back."),
                        (false, AgentState::Connected) => format!(
                            "It is running and comes back by itself. To keep it away, stop it, or revoke its token: \
                             `cooper token revoke {token}` (a token of {whose})."
                        ),
                        (false, AgentState::Away) => format!(
                            "It can come back with its token; `cooper token revoke {token}` prevents that (a token of \
                             {whose})."
                        ),
                    });
                }
            }
        }
    }
    Ok(Exit::Success)
}

impl OneAgent {
    fn name(&self) -> Result<AgentName, Fault> {
        AgentName::parse(&self.name).map_err(|error| {
            Fault::usage(error.to_string()).with_hint("`cooper agent list` shows the names of the agents")
        })
    }
}

fn state(agent: &AgentView) -> String {
    let draining = if agent.draining { ", draining" } else { "" };
    format!("{}{draining}", agent.state.name())
}

/// The state for a list: what keeps it from work stands there in a few words.
fn short_state(agent: &AgentView) -> String {
    let why = agent.unavailable.as_deref().map(|why| why.split(':').next().unwrap_or_default());
    match why.map(|why| why.chars().take(MAX_WHY).collect::<String>()) {
        Some(why) => format!("{}, {why}", state(agent)),
        None => state(agent),
    }
}

fn platforms(agent: &AgentView) -> String {
    let emulated = agent.emulated_platforms.iter().map(|platform| format!("({platform})"));
    agent.platforms.iter().cloned().chain(emulated).collect::<Vec<_>>().join(" ")
}

fn row(agent: &AgentView) -> [String; 7] {
    let seen = match agent.state {
        AgentState::Connected => "now".to_owned(),
        AgentState::Away => agent.last_seen.to_string(),
    };
    let slots = format!("{}/{}", agent.runs, agent.slots);
    let (name, pool) = (agent.name.to_string(), agent.pool.to_string());
    [name, pool, short_state(agent), slots, platforms(agent), agent.engine.clone(), seen]
}

fn details(agent: &AgentView) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let disk = match (agent.disk_free_bytes, agent.disk_total_bytes) {
        (Some(free), Some(total)) => format!("{:.1} GiB free of {:.1}", gib(free), gib(total)),
        _ => "not known".to_owned(),
    };
    let lines = [
        ("Name", agent.name.to_string()),
        ("Pool", agent.pool.to_string()),
        ("State", state(agent)),
        ("Runs", format!("{} of {} slots", agent.runs, agent.slots)),
        ("Platforms", platforms(agent)),
        ("Engine", agent.engine.clone()),
        ("Capabilities", agent.capabilities.join(" ")),
        ("Version", format!("{}, protocol {}", agent.version, agent.protocol)),
        ("Disk", disk),
        ("Token", format!("{} of {}", agent.token_id, agent.principal)),
        ("First seen", agent.first_seen.to_string()),
        ("Last seen", agent.last_seen.to_string()),
    ];
    let unavailable = agent.unavailable.iter().map(|why| ("Takes no work", why.clone()));
    let [name, pool, state, rest @ ..] = lines;
    let lines = [name, pool, state].into_iter().chain(unavailable).chain(rest);
    lines.map(|(key, value)| format!("{:<15}{value}", format!("{key}:"))).collect::<Vec<_>>().join("\n")
}
