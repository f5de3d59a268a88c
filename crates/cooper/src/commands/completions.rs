//! `cooper completions`: scripts with which a shell completes commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;

/// Where each shell looks for them.
pub(crate) const INSTALL_HELP: &str = "\
Install them, for yourself and new shells:
  bash        cooper completions bash > ~/.local/share/bash-completion/completions/cooper
  zsh         cooper completions zsh > ~/.zfunc/_cooper      (with `fpath+=~/.zfunc` before compinit)
  fish        cooper completions fish > ~/.config/fish/completions/cooper.fish
  powershell  cooper completions powershell >> $PROFILE
  elvish      cooper completions elvish >> ~/.config/elvish/rc.elv";

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cooper", &mut script);
    output::data(&script)?;
    Ok(Exit::Success)
}
