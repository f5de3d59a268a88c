//! The command line: its commands and what they share.

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands::{
    acr, agent, backup, build, completions, config, credential, doctor, graph, impact, lint, login, logout, logs, pool,
    purge, render, repository, restore, run, runs, schema, secret, serve, task, token, wave, webhook,
};
use crate::exit::EXIT_CODES_HELP;

/// Build container images on a server of your own.
#[derive(Debug, Parser)]
#[command(name = "cooper", version, after_help = EXIT_CODES_HELP, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server: API, registry and, where there is a container engine, an agent
    #[command(after_help = serve::LAYERS_HELP)]
    Serve(Box<serve::ServeArgs>),
    /// Run an agent, which builds for a server on another machine; list, show, drain and remove agents
    #[command(after_help = agent::LAYERS_HELP)]
    Agent(Box<agent::AgentArgs>),
    /// Build an image from a folder or a Git repository with a Dockerfile, and push it
    #[command(after_help = EXIT_CODES_HELP)]
    Build(Box<build::BuildArgs>),
    /// Run a task file, or one command, on the server's agents
    #[command(after_help = EXIT_CODES_HELP)]
    Run(Box<run::RunArgs>),
    /// Log in to a server
    Login(login::LoginArgs),
    /// Forget a login
    Logout(logout::LogoutArgs),
    /// Make, list and delete pools of agents
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Pool(pool::PoolArgs),
    /// Make, list and revoke access tokens
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Token(token::TokenArgs),
    /// Keep, list and forget credentials for Git hosts and registries
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Credential(credential::CredentialArgs),
    /// Keep, list and forget secrets that task files name
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Secret(secret::SecretArgs),
    /// List, show and cancel runs
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Runs(runs::RunsArgs),
    /// Make, change and run stored tasks, and let timers and base images run them
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Task(Box<task::TaskArgs>),
    /// List, show, pause, resume and cancel what changes of base images set off
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Wave(wave::WaveArgs),
    /// Show what a new image would rebuild, in order
    Impact(impact::ImpactArgs),
    /// Tell others of pushes, deletions and runs, and see what they were told
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Webhook(Box<webhook::WebhookArgs>),
    /// Show a run's log
    Logs(logs::LogsArgs),
    /// List and delete what the registry holds
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Repository(repository::RepositoryArgs),
    /// Delete old tags and what has none, as `acr purge` does
    #[command(after_help = purge::PURGE_HELP)]
    Purge(purge::PurgeArgs),
    /// What the image of ACR's client does in `cmd` steps
    #[command(hide = true, subcommand_required = true)]
    Acr(acr::AcrArgs),
    /// Say what is wrong with a task file, or what it means
    Lint(lint::LintArgs),
    /// Show a task file after aliases and templates
    Render(render::RenderArgs),
    /// Show which steps of a task file wait for which
    Graph(graph::GraphArgs),
    /// Look at engine, server, registry, data and limits, and say what to do
    #[command(after_help = doctor::DOCTOR_HELP)]
    Doctor(doctor::DoctorArgs),
    /// Copy a server's data into one file, while the server runs or not
    #[command(after_help = backup::BACKUP_HELP)]
    Backup(backup::BackupArgs),
    /// Make a server's data folder from a backup
    #[command(after_help = restore::RESTORE_HELP)]
    Restore(restore::RestoreArgs),
    /// Show the settings that `cooper serve` would have
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Config(config::ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = completions::INSTALL_HELP)]
    Completions(completions::CompletionsArgs),
    /// Print the JSON Schema of task files or of stored tasks, for editors
    Schema(schema::SchemaArgs),
    /// Print the OpenAPI document of the server's API
    Openapi,
    /// Print the version
    Version,
}

/// The form of a command's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    // Plain comments: clap would give each value a paragraph of its own in the help.
    // For people.
    #[default]
    Text,
    // For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
