//! Flags of `az acr` that mean something to Azure only.

use clap::Args;

/// Flags that mean something to Azure only: accepted, so that scripts go on working.
#[derive(Args, Debug)]
#[command(next_help_heading = "Accepted for compatibility with az, without effect")]
pub(crate) struct AzureFlags {
    /// The server is the registry: see --server
    #[arg(long, short, value_name = "NAME")]
    registry: Option<String>,
    /// There are no resource groups
    #[arg(long, short = 'g', value_name = "NAME")]
    resource_group: Option<String>,
    /// The run always logs in to its own registry
    #[arg(long, value_name = "MODE")]
    auth_mode: Option<String>,
    /// The run always acts for its principal
    #[arg(long, value_name = "ID")]
    source_acr_auth_id: Option<String>,
    /// Logs are kept by the server
    #[arg(long, value_name = "TEMPLATE")]
    log_template: Option<String>,
    /// There are no subscriptions
    #[arg(long, value_name = "NAME", hide = true)]
    subscription: Option<String>,
}

impl AzureFlags {
    /// What the user should know of the flags that were given.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let flags = [
            (self.registry.is_some(), "--registry", "the server is named by --server, COOPER_SERVER or `cooper login`"),
            (self.resource_group.is_some(), "--resource-group", "there are no resource groups here"),
            (self.auth_mode.is_some(), "--auth-mode", "a run always logs in to its own registry"),
            (self.source_acr_auth_id.is_some(), "--source-acr-auth-id", "a run always acts for who started it"),
            (self.log_template.is_some(), "--log-template", "logs are kept by the server"),
            (self.subscription.is_some(), "--subscription", "there are no subscriptions here"),
        ];
        let given = flags.into_iter().filter(|(given, _, _)| *given);
        given.map(|(_, flag, reason)| format!("{flag} has no effect: {reason}")).collect()
    }
}
