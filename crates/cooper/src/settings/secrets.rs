//! Where the secrets that tasks name may come from, out of the settings and the environment.

use std::collections::BTreeMap;

use cooper_server::{SecretSettings, SecretUsers, VaultAddress, VaultSettings, VaultTarget};
use cooper_spec::secret_place::{is_host, is_variable};
use cooper_types::{PrincipalName, SecretString};

use super::{Key, Layers, value};
use crate::environment::Environment;

/// The variable that may hold the server's key. It is no setting: a file of settings is no place for a key.
pub(crate) const KEY_VARIABLE: &str = "COOPER_SECRET_KEY";

/// Resolves everything about secrets. What is wrong goes to the layers' faults.
pub(super) fn take(layers: &mut Layers<'_>) -> SecretSettings {
    let environment = layers.environment;
    let listed = layers.take(Key::SecretEnv, |names| listed(names, environment)).unwrap_or_default();
    let vaults = layers.take(Key::SecretVault, vaults).unwrap_or_default();
    let vaults = vaults.into_iter().map(|(host, (target, users))| (host, (with_values(target, environment), users)));
    let vaults: BTreeMap<_, _> = vaults.collect();
    let vault = vault(layers, vaults.values().any(|(target, _)| needs_vault(target)));
    SecretSettings { key: key(layers), environment: listed, vaults, vault }
}

/// The variables that tasks may name, with their values.
pub(super) fn listed(
    names: &str,
    environment: &Environment,
) -> Result<BTreeMap<String, (Option<SecretString>, SecretUsers)>, String> {
    let with_value = |(name, users): (String, SecretUsers)| {
        let value = text(environment, &name);
        (name, (value, users))
    };
    Ok(variables(names)?.into_iter().map(with_value).collect())
}

/// The server's key, if the environment has it.
fn key(layers: &mut Layers<'_>) -> Option<SecretString> {
    match layers.environment.text(KEY_VARIABLE) {
        Ok(text) => {
            let text = SecretString::new(text?);
            let trimmed = text.expose().trim();
            if trimmed.len() == 64 && trimmed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Some(text);
            }
            let hint = "make one with `openssl rand -hex 32`, and keep it: without it nothing stored can be read";
            layers.fault(format!("{KEY_VARIABLE} does not hold 64 hexadecimal digits"), Some(hint))
        }
        Err(fault) => {
            layers.faults.push(fault);
            None
        }
    }
}

/// A variable as text. One that is not text counts as not set.
fn text(environment: &Environment, name: &str) -> Option<SecretString> {
    environment.text(name).ok().flatten().map(SecretString::new)
}

fn with_values(target: VaultTarget, environment: &Environment) -> VaultTarget {
    let VaultTarget::Environment { prefix, .. } = target else { return target };
    let names = environment.beginning_with(&prefix).into_iter();
    let variables = names.filter_map(|name| text(environment, &name).map(|value| (name, value))).collect();
    VaultTarget::Environment { prefix, variables }
}

fn needs_vault(target: &VaultTarget) -> bool {
    match target {
        VaultTarget::Kv1 { .. } | VaultTarget::Kv2 { .. } => true,
        VaultTarget::Store | VaultTarget::Environment { .. } => false,
    }
}

fn vault(layers: &mut Layers<'_>, is_needed: bool) -> Option<VaultSettings> {
    let faults = layers.faults.len();
    let address = layers.take(Key::VaultAddress, |text| VaultAddress::parse(text).map_err(|error| error.to_string()));
    let token_file = layers.take(Key::VaultTokenFile, value::path);
    let namespace = layers.take(Key::VaultNamespace, namespace);
    let ca_file = layers.take(Key::VaultCaFile, value::path);
    if layers.faults.len() > faults {
        // What is wrong counts as absent, and must not be asked for again.
        return None;
    }
    match (address, token_file) {
        (Some(address), Some(token_file)) => Some(VaultSettings { address, token_file, namespace, ca_file }),
        (None, None) if !is_needed && namespace.is_none() && ca_file.is_none() => None,
        _ => layers.fault(
            "HashiCorp Vault needs both --vault-address and --vault-token-file".to_owned(),
            Some("name both, or leave out what is for Vault"),
        ),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not a namespace such as team/ci")),
    }
}

/// Entries with commas between them, each of words: what it is, and whose runs may use it.
fn entries(text: &str) -> Result<Vec<(&str, SecretUsers)>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    let entries = entries.map(|entry| {
        let mut words = entry.split_whitespace();
        let what = words.next().unwrap_or_default();
        let users = match words.collect::<Vec<_>>().as_slice() {
            [] => SecretUsers::Admins,
            ["*"] => SecretUsers::Everybody,
            names => {
                let names = names.iter().map(|name| PrincipalName::parse(name).map_err(|error| error.to_string()));
                SecretUsers::Principals(names.collect::<Result<_, _>>()?)
            }
        };
        Ok((what, users))
    });
    entries.collect()
}

/// `NAME`, `NAME PRINCIPAL…` or `NAME *`. The server's own settings are for nobody.
fn variables(text: &str) -> Result<BTreeMap<String, SecretUsers>, String> {
    let mut variables = BTreeMap::new();
    for (name, users) in entries(text)? {
        if !is_variable(name) || name.starts_with("COOPER_") {
            return Err(format!("`{name}` is not a variable that tasks could be given"));
        }
        if variables.insert(name.to_owned(), users).is_some() {
            return Err(format!("variable {name} is listed twice"));
        }
    }
    Ok(variables)
}

/// `HOST=TARGET`, with users as for variables.
fn vaults(text: &str) -> Result<BTreeMap<String, (VaultTarget, SecretUsers)>, String> {
    let mut vaults = BTreeMap::new();
    for (entry, users) in entries(text)? {
        let (host, target) =
            entry.split_once('=').ok_or_else(|| format!("`{entry}` is not of the form HOST=TARGET"))?;
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(format!("`{host}` is not the host name of a vault"));
        }
        let target = target_of(target).ok_or_else(|| {
            format!("`{target}` is not store, env:PREFIX, vault:MOUNT[/PATH] or vault-kv1:MOUNT[/PATH]")
        })?;
        if target == VaultTarget::Store && users != SecretUsers::Admins {
            return Err(format!("vault {host} is the store, where each secret has its users: name none here"));
        }
        if vaults.insert(host.clone(), (target, users)).is_some() {
            return Err(format!("vault {host} is mapped twice"));
        }
    }
    Ok(vaults)
}

fn target_of(text: &str) -> Option<VaultTarget> {
    if text == "store" {
        return Some(VaultTarget::Store);
    }
    let (kind, rest) = text.split_once(':')?;
    if kind == "env" {
        // Without a prefix, or with ours, the whole environment or the server's key would be at hand.
        let is_own = "COOPER_".starts_with(rest) || rest.starts_with("COOPER_");
        let target = VaultTarget::Environment { prefix: rest.to_owned(), variables: BTreeMap::new() };
        return (is_variable(rest) && !is_own).then_some(target);
    }
    let segments: Vec<String> = rest.split('/').map(str::to_owned).collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_segment = |text: &String| !text.is_empty() && !text.chars().all(|c| c == '.') && text.chars().all(allowed);
    if !segments.iter().all(is_segment) {
        return None;
    }
    let (mount, path) = segments.split_first()?;
    let (mount, path) = (mount.clone(), path.to_vec());
    match kind {
        "vault" => Some(VaultTarget::Kv2 { mount, path }),
        "vault-kv1" => Some(VaultTarget::Kv1 { mount, path }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Flags, resolve};

    fn settings(flags: &[(Key, &str)], variables: &[(&str, &str)]) -> Result<SecretSettings, Vec<String>> {
        let flags: Flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        let variables = [&[("HOME", "/nowhere")], variables].concat();
        let resolved = resolve(&flags, None, &Environment::of(&variables));
        resolved
            .map(|found| found.server.secrets)
            .map_err(|faults| faults.into_iter().map(|fault| fault.message).collect())
    }

    #[test]
    fn variables_have_their_values_and_users() {
        let environment = [("NPM", "n"), ("CI_A_B", "ab"), ("CI_EMPTY", ""), ("OTHER", "o")];
        let flags = [(Key::SecretEnv, "NPM alice ci, GONE *"), (Key::SecretVault, "CI.vault=env:CI_")];
        let found = settings(&flags, &environment).expect("valid");
        let principals = ["alice", "ci"].map(|name| PrincipalName::parse(name).expect("valid"));
        let npm = (Some(SecretString::new("n".to_owned())), SecretUsers::Principals(principals.into()));
        assert_eq!(found.environment["NPM"], npm);
        assert_eq!(found.environment["GONE"], (None, SecretUsers::Everybody));
        let variables = [("CI_A_B".to_owned(), SecretString::new("ab".to_owned()))].into();
        let expect = VaultTarget::Environment { prefix: "CI_".to_owned(), variables };
        assert_eq!(found.vaults["ci.vault"], (expect, SecretUsers::Admins));
    }

    #[test]
    fn what_is_wrong_is_named_and_a_key_is_not_shown() {
        let check = |flags: &[(Key, &str)], variables: &[(&str, &str)], words: &str| {
            let faults = settings(flags, variables).expect_err(words);
            assert!(faults.len() == 1 && faults[0].contains(words), "{faults:?}");
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        };
        check(&[(Key::SecretEnv, "COOPER_TOKEN")], &[], "`COOPER_TOKEN` is not a variable that");
        check(&[(Key::SecretEnv, "A,A x")], &[], "A is listed twice");
        check(&[(Key::SecretEnv, "A b/c")], &[], "principal name `b/c`");
        for target in
            ["", "env:", "env:COOPER_", "env:C", "env:COOPER_X", "vault:", "vault:a/../b", "vault:a//b", "x:a"]
        {
            check(&[(Key::SecretVault, &format!("v={target}"))], &[], "is not store, env:PREFIX");
        }
        check(&[(Key::SecretVault, "v")], &[], "HOST=TARGET");
        check(&[(Key::SecretVault, "v/x=store")], &[], "`v/x` is not the host name");
        check(&[(Key::SecretVault, "v=store,V=env:A_")], &[], "v is mapped twice");
        check(&[(Key::SecretVault, "v=store *")], &[], "each secret has its users");
        check(&[(Key::SecretVault, "v=vault:kv")], &[], "needs both --vault-address");
        check(&[(Key::VaultAddress, "https://v")], &[], "needs both --vault-address");
        check(&[(Key::VaultAddress, "http://v:8200"), (Key::VaultTokenFile, "/t")], &[], "plain http");
        check(&[(Key::VaultAddress, "https://u:hunter2@v"), (Key::VaultTokenFile, "/t")], &[], "is not an address");
        check(&[], &[(KEY_VARIABLE, "hunter2")], "COOPER_SECRET_KEY does not hold 64");
        let here = [(Key::VaultAddress, "http://127.0.0.1:8200"), (Key::VaultTokenFile, "/t")];
        assert!(settings(&here, &[(KEY_VARIABLE, &"0a".repeat(32))]).expect("valid").key.is_some());
    }
}
