//! Where tasks' secrets come from: what the settings list, and whether it is there. Nobody is asked for a secret.

use cooper_server::{SecretSettings, VaultTarget};

use super::check::Check;

const NAME: &str = "secret-providers";

pub(super) fn look(settings: &SecretSettings, checks: &mut Vec<Check>) {
    let mut found = vec!["the server's store".to_owned()];
    if !settings.environment.is_empty() {
        let names: Vec<&str> = settings.environment.keys().map(String::as_str).collect();
        found.push(format!("variables {}", names.join(", ")));
    }
    for (host, (target, _)) in &settings.vaults {
        found.push(match target {
            VaultTarget::Store => format!("vault {host} in the store"),
            VaultTarget::Environment { prefix, variables } => {
                format!("vault {host} in {} variables {prefix}*", variables.len())
            }
            VaultTarget::Kv1 { .. } | VaultTarget::Kv2 { .. } => format!("vault {host} in HashiCorp Vault"),
        });
    }
    checks.push(Check::ok(NAME, found.join("; ")));
    for (name, (value, _)) in &settings.environment {
        if value.is_none() {
            let seen = format!("variable {name} of --secret-env is not set here");
            checks.push(Check::warning(NAME, seen, "set it where the server is started, and start the server again"));
        }
    }
    if let Some(vault) = &settings.vault
        && let Err(error) = std::fs::File::open(&vault.token_file)
    {
        let seen = format!("token file {} can't be read: {error}", vault.token_file.display());
        checks.push(Check::warning(NAME, seen, "run this as the server's user, or have the token put there"));
    }
}
