//! The kinds of forges.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who sends a hook, and so how it is signed and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// github.com and GitHub Enterprise.
    #[serde(rename = "github")]
    GitHub,
    /// gitlab.com and GitLab.
    #[serde(rename = "gitlab")]
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// bitbucket.org.
    BitbucketCloud,
    /// Bitbucket Server and Data Center.
    BitbucketServer,
    /// Azure DevOps, in Microsoft's cloud and as a server.
    AzureDevops,
    /// Anybody who signs as `docs/webhooks.md` says.
    Generic,
}

/// A name that is no provider's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no kind of forge; there are {names}", names = Provider::ALL.map(Provider::as_str).join(", "))]
pub struct ProviderError {
    text: String,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::GitHub,
        Self::GitLab,
        Self::Gitea,
        Self::BitbucketCloud,
        Self::BitbucketServer,
        Self::AzureDevops,
        Self::Generic,
    ];

    /// The name in settings, on the command line and in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::BitbucketCloud => "bitbucket-cloud",
            Self::BitbucketServer => "bitbucket-server",
            Self::AzureDevops => "azure-devops",
            Self::Generic => "generic",
        }
    }

    /// The kind of forge that a repository's host is, as far as its name tells.
    pub fn of_host(host: &str) -> Self {
        let host = host.to_ascii_lowercase();
        match host.as_str() {
            "codeberg.org" | "gitea.com" => Self::Gitea,
            "bitbucket.org" => Self::BitbucketCloud,
            "dev.azure.com" => Self::AzureDevops,
            host if host.ends_with(".visualstudio.com") => Self::AzureDevops,
            host if host.starts_with("github.") => Self::GitHub,
            host if host.starts_with("gitlab.") => Self::GitLab,
            host if host.starts_with("gitea.") || host.starts_with("forgejo.") => Self::Gitea,
            host if host.starts_with("bitbucket.") => Self::BitbucketServer,
            _ => Self::Generic,
        }
    }

    /// The reference in the base repository that holds a pull request's head, where the forge keeps one: a fork's code can
    /// be fetched without its repository. Azure DevOps keeps only the merge with the base, Bitbucket Cloud nothing.
    pub fn pull_request_reference(self, number: u64) -> Option<String> {
        match self {
            Self::GitHub | Self::Gitea => Some(format!("refs/pull/{number}/head")),
            Self::GitLab => Some(format!("refs/merge-requests/{number}/head")),
            Self::BitbucketServer => Some(format!("refs/pull-requests/{number}/from")),
            Self::AzureDevops => Some(format!("refs/pull/{number}/merge")),
            Self::BitbucketCloud | Self::Generic => None,
        }
    }

    /// Reads a name; `forgejo` is `gitea`.
    pub fn parse(text: &str) -> Result<Self, ProviderError> {
        if text == "forgejo" {
            return Ok(Self::Gitea);
        }
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == text)
            .ok_or_else(|| ProviderError { text: text.chars().take(80).flat_map(char::escape_debug).collect() })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for provider in Provider::ALL {
            assert_eq!(Provider::parse(provider.as_str()), Ok(provider));
            assert_eq!(serde_json::to_string(&provider).unwrap(), format!("\"{provider}\""));
        }
        assert_eq!(Provider::parse("forgejo"), Ok(Provider::Gitea));
        let error = Provider::parse("svn").unwrap_err().to_string();
        assert!(error.contains("`svn` is no kind of forge; there are github, gitlab, gitea"), "{error}");
    }
}
