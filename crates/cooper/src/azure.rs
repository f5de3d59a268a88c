//! Flags of `az acr` that mean something to Azure only: accepted, so that scripts go on working; and its booleans.

use clap::Args;
use clap::builder::{BoolishValueParser, TypedValueParser};

/// How az names the registry that a command is for.
#[derive(Args, Debug)]
pub(crate) struct AzureScope {
    #[arg(long, short, value_name = "NAME", global = true, hide = true)]
    registry: Option<String>,
    #[arg(long, short = 'g', value_name = "NAME", global = true, hide = true)]
    resource_group: Option<String>,
    #[arg(long, value_name = "NAME", global = true, hide = true)]
    subscription: Option<String>,
}

/// What az says of runs beside that.
#[derive(Args, Debug)]
#[command(next_help_heading = "Accepted for compatibility with az, without effect")]
pub(crate) struct AzureRunFlags {
    /// The run always logs in to its own registry
    #[arg(long, value_name = "MODE")]
    auth_mode: Option<String>,
    /// The run always acts for its principal
    #[arg(long, value_name = "ID")]
    source_acr_auth_id: Option<String>,
    /// Logs are kept by the server
    #[arg(long, value_name = "TEMPLATE")]
    log_template: Option<String>,
}

/// Both, for commands that start a run.
#[derive(Args, Debug)]
pub(crate) struct AzureFlags {
    #[command(flatten)]
    scope: AzureScope,
    #[command(flatten)]
    run: AzureRunFlags,
}

impl AzureScope {
    /// What the user should know of the flags that were given.
    pub(crate) fn warnings(&self) -> Vec<String> {
        without_effect([
            (self.registry.is_some(), "--registry", "the server is named by --server, COOPER_SERVER or `cooper login`"),
            (self.resource_group.is_some(), "--resource-group", "there are no resource groups here"),
            (self.subscription.is_some(), "--subscription", "there are no subscriptions here"),
        ])
    }
}

impl AzureRunFlags {
    /// What the user should know of the flags that were given.
    pub(crate) fn warnings(&self) -> Vec<String> {
        without_effect([
            (self.auth_mode.is_some(), "--auth-mode", "a run always logs in to its own registry"),
            (self.source_acr_auth_id.is_some(), "--source-acr-auth-id", "a run always acts for who started it"),
            (self.log_template.is_some(), "--log-template", "logs are kept by the server"),
        ])
    }
}

impl AzureFlags {
    /// What the user should know of the flags that were given.
    pub(crate) fn warnings(&self) -> Vec<String> {
        [self.scope.warnings(), self.run.warnings()].concat()
    }
}

fn without_effect(flags: [(bool, &str, &str); 3]) -> Vec<String> {
    let given = flags.into_iter().filter(|(given, _, _)| *given);
    given.map(|(_, flag, reason)| format!("{flag} has no effect: {reason}")).collect()
}

/// Reads `true` and `false` in any letter case, as az does, and what others write for them.
pub(crate) fn boolean() -> impl TypedValueParser<Value = bool> {
    BoolishValueParser::new()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[arg(long, value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
        enabled: Option<bool>,
    }

    #[test]
    fn booleans_are_read_in_any_letter_case() {
        for (line, expect) in [
            (&["x"][..], None),
            (&["x", "--enabled"], Some(true)),
            (&["x", "--enabled", "True"], Some(true)),
            (&["x", "--enabled=FALSE"], Some(false)),
            (&["x", "--enabled", "false"], Some(false)),
        ] {
            assert_eq!(Flags::try_parse_from(line).expect("read").enabled, expect, "{line:?}");
        }
        assert!(Flags::try_parse_from(["x", "--enabled", "perhaps"]).is_err());
    }
}
