//! Where a task file says that a secret is kept: the texts of `keyvault:`, and what they name. Who keeps it, and who may
//! have it, is the server's.

use std::fmt;

use cooper_types::SecretName;

/// The longest text of a place, in bytes.
const MAX_LEN: usize = 512;
/// The longest version, in bytes.
const MAX_VERSION: usize = 64;

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretPlace {
    /// `cooper://NAME[/VERSION]`: the server's own store.
    Store {
        /// Its name.
        name: SecretName,
        /// One version, or the newest.
        version: Option<u64>,
    },
    /// `env://NAME`: a variable of the server's environment that its operator has listed.
    Environment {
        /// The variable.
        variable: String,
    },
    /// `https://VAULT/secrets/NAME[/VERSION]`: a vault that the operator has mapped to one of the others, or to HashiCorp
    /// Vault.
    Vault {
        /// The vault's host name, lower-case.
        vault: String,
        /// The secret's name in it.
        name: SecretName,
        /// One version, or the newest. What it looks like is the vault's matter.
        version: Option<String>,
    },
}

/// Why a text names no place. The messages hold the text: it is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretPlaceError {
    /// It begins with nothing that is known.
    #[error(
        "`{0}` is not a place of a secret; write https://VAULT/secrets/NAME, cooper://NAME for the server's own store, or \
         env://NAME for a variable of the server"
    )]
    Unknown(String),
    /// A URL of another shape.
    #[error("`{0}` is not of the form https://VAULT/secrets/NAME or https://VAULT/secrets/NAME/VERSION")]
    Vault(String),
    /// The name or the version is not one of ours.
    #[error("`{0}` is not of the form cooper://NAME or cooper://NAME/VERSION, where the version is a number")]
    Store(String),
    /// No variable can have that name.
    #[error("`{0}` is not of the form env://NAME, where the name is one of an environment variable")]
    Environment(String),
    /// A name of other characters.
    #[error("secret name in `{0}` must be 1 to 127 letters, digits, `-` and `_`")]
    Name(String),
}

impl SecretPlace {
    /// Parses the text of `keyvault:`. Vaults and names are taken in lower case, as ACR does; variables as they are.
    pub fn parse(text: &str) -> Result<Self, SecretPlaceError> {
        let shown = || text.chars().take(160).collect::<String>();
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(SecretPlaceError::Unknown(shown()));
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(SecretPlaceError::Unknown(shown())) };
        let name = |text: &str| SecretName::parse(text).map_err(|_| SecretPlaceError::Name(shown()));
        let lower = rest.to_ascii_lowercase();
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {
                let failed = || SecretPlaceError::Vault(shown());
                let (vault, path) = lower.split_once('/').ok_or_else(failed)?;
                let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
                let (Some("secrets"), Some(named)) = (segments.next(), segments.next()) else { return Err(failed()) };
                let version = segments.next().map(str::to_owned);
                if segments.next().is_some() || !is_host(vault) || !version.as_deref().is_none_or(is_version) {
                    return Err(failed());
                }
                Ok(Self::Vault { vault: vault.to_owned(), name: name(named)?, version })
            }
            "cooper" => {
                let (named, version) = match lower.split_once('/') {
                    None => (lower.as_str(), None),
                    Some((named, version)) => (named, Some(version)),
                };
                let version = version.map(|text| text.parse().ok().filter(|number| *number > 0));
                let version =
                    version.map(|number| number.ok_or_else(|| SecretPlaceError::Store(shown()))).transpose()?;
                Ok(Self::Store { name: name(named)?, version })
            }
            "env" if is_variable(rest) => Ok(Self::Environment { variable: rest.to_owned() }),
            "env" => Err(SecretPlaceError::Environment(shown())),
            _ => Err(SecretPlaceError::Unknown(shown())),
        }
    }

    /// The same place at another version, where places of its kind have versions.
    #[must_use]
    pub fn at_version(self, at: &str) -> Option<Self> {
        match self {
            Self::Store { name, .. } => {
                at.parse().ok().filter(|number| *number > 0).map(|number| Self::Store { name, version: Some(number) })
            }
            Self::Vault { vault, name, .. } if is_version(at) => {
                Some(Self::Vault { vault, name, version: Some(at.to_owned()) })
            }
            Self::Vault { .. } | Self::Environment { .. } => None,
        }
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { name, version: None } => write!(f, "cooper://{name}"),
            Self::Store { name, version: Some(version) } => write!(f, "cooper://{name}/{version}"),
            Self::Environment { variable } => write!(f, "env://{variable}"),
            Self::Vault { vault, name, version: None } => write!(f, "https://{vault}/secrets/{name}"),
            Self::Vault { vault, name, version: Some(version) } => {
                write!(f, "https://{vault}/secrets/{name}/{version}")
            }
        }
    }
}

/// Whether a text can be the name of an environment variable.
pub fn is_variable(text: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.len() <= 255 && text.starts_with(is_start) && text.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

/// Whether a text can be the host of a vault: a name in lower case, perhaps with a port.
pub fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_name = (1..=253).contains(&host.len()) && host.chars().all(allowed) && !host.starts_with(['-', '.']);
    is_name && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0))
}

fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let place = SecretPlace::parse(text).map(|place| place.to_string());
        assert_eq!(place.as_deref(), Ok(expect), "{text}");
    }

    #[test]
    fn places_are_read_and_written() {
        check("https://MyVault.vault.azure.net/secrets/Npm-Token", "https://myvault.vault.azure.net/secrets/npm-token");
        check("https://v.example:8200/secrets/a/", "https://v.example:8200/secrets/a");
        check("HTTPS://v/SECRETS/a/0A1b", "https://v/secrets/a/0a1b");
        check(" cooper://npm_token ", "cooper://npm_token");
        check("cooper://NPM/12", "cooper://npm/12");
        check("env://Npm_TOKEN", "env://Npm_TOKEN");
    }

    #[test]
    fn anything_else_says_what_is_expected() {
        let check = |text: &str, words: &str| {
            let error = SecretPlace::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        };
        for text in ["", "npm", "http://v/secrets/a", "vault://a", &"a".repeat(1000)] {
            check(text, "is not a place of a secret");
        }
        for text in [
            "https://v",
            "https://v/secrets",
            "https://v/secrets/",
            "https://v/keys/a",
            "https://v/secrets/a/1/2",
            "https://v/secrets/a//",
            "https:///secrets/a",
            "https://u:p@v/secrets/a",
            "https://-v/secrets/a",
            "https://v:0/secrets/a",
            "https://v/secrets/a/1?x",
        ] {
            check(text, "is not of the form https://VAULT/secrets/NAME");
        }
        for text in ["https://v/secrets/a.b", "https://v/secrets/..", "cooper://", "cooper://a b"] {
            check(text, "must be 1 to 127");
        }
        for text in ["cooper://a/0", "cooper://a/", "cooper://a/x", "cooper://a/1/2"] {
            check(text, "where the version is a number");
        }
        for text in ["env://", "env://1A", "env://A-B", "env://A/1"] {
            check(text, "is not of the form env://NAME");
        }
    }

    #[test]
    fn a_place_is_pinned_where_it_has_versions() {
        let at = |text: &str, version: &str| {
            SecretPlace::parse(text).expect("valid").at_version(version).map(|place| place.to_string())
        };
        assert_eq!(at("cooper://a", "3").as_deref(), Some("cooper://a/3"));
        assert_eq!(at("cooper://a/1", "3").as_deref(), Some("cooper://a/3"));
        assert_eq!(at("https://v/secrets/a", "3").as_deref(), Some("https://v/secrets/a/3"));
        assert_eq!(at("cooper://a", "x"), None);
        assert_eq!(at("https://v/secrets/a", "../x"), None);
        assert_eq!(at("env://A", "1"), None);
    }
}
