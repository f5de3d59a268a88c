//! Where a repository's forge takes requests, from the repository's URL.

use cooper_engine::trigger::provider::Provider;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::Url;

/// What stays as it is within a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A repository at a forge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgePlace {
    provider: Provider,
    /// Where the interface begins, without a slash at its end.
    api: String,
    /// The parts of the repository's name, decoded: owner and name; organisation, project and name (Azure DevOps).
    parts: Vec<String>,
    host: String,
}

/// Why a URL leads to no forge's interface.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{url}` is no repository's URL of {provider}: {reason}")]
pub struct PlaceError {
    url: String,
    provider: Provider,
    reason: &'static str,
}

impl ForgePlace {
    /// Reads a repository's https URL. `http` stays `http`, for forges within a network that the operator allows.
    pub fn parse(provider: Provider, text: &str) -> Result<Self, PlaceError> {
        let fault = |reason| PlaceError {
            url: text.rsplit('@').next().unwrap_or_default().chars().take(160).flat_map(char::escape_debug).collect(),
            provider,
            reason,
        };
        let url = Url::parse(text).map_err(|_| fault("it is no URL"))?;
        let host = url.host_str().ok_or_else(|| fault("it has no host"))?.to_owned();
        if !matches!(url.scheme(), "https" | "http") {
            return Err(fault("write it with https"));
        }
        let mut authority = host.clone();
        if let Some(port) = url.port() {
            authority = format!("{host}:{port}");
        }
        let base = format!("{}://{authority}", url.scheme());
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let parts: Option<Vec<String>> = path
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().ok().map(|part| part.into_owned()))
            .filter(|part| part.as_deref() != Some(""))
            .collect();
        let parts = parts.ok_or_else(|| fault("its path is not UTF-8"))?;
        if parts.iter().any(|part| part == "." || part == "..") {
            return Err(fault("its path leads upwards"));
        }
        let named: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (api, parts): (String, Vec<&str>) = match (provider, &named[..]) {
            (Provider::GitHub, [owner, name]) => {
                let public = matches!(host.as_str(), "github.com" | "www.github.com");
                (if public { "https://api.github.com".to_owned() } else { format!("{base}/api/v3") }, vec![owner, name])
            }
            (Provider::GitLab, parts @ [_, _, ..]) => (format!("{base}/api/v4"), parts.to_vec()),
            // A Gitea may be below a path.
            (Provider::Gitea, [below @ .., owner, name]) => {
                (format!("{}/api/v1", joined(&base, below)), vec![owner, name])
            }
            (Provider::BitbucketCloud, [owner, name]) => {
                let public = host == "bitbucket.org";
                (
                    if public { "https://api.bitbucket.org/2.0".to_owned() } else { format!("{base}/2.0") },
                    vec![owner, name],
                )
            }
            (Provider::BitbucketServer, [below @ .., "scm", project, slug]) => {
                (joined(&base, below), vec![project, slug])
            }
            (Provider::AzureDevops, [organization, project, "_git", name]) if !host.ends_with(".visualstudio.com") => {
                (format!("{base}/{}", encoded(organization)), vec![project, name])
            }
            (Provider::AzureDevops, [organization, "_git", name]) if !host.ends_with(".visualstudio.com") => {
                (format!("{base}/{}", encoded(organization)), vec![name, name])
            }
            (Provider::AzureDevops, [.., project, "_git", name]) => (base, vec![project, name]),
            (Provider::GitHub | Provider::BitbucketCloud, _) => return Err(fault("its path is OWNER/NAME")),
            (Provider::GitLab, _) => return Err(fault("its path is GROUP/NAME")),
            (Provider::Gitea, _) => return Err(fault("its path is OWNER/NAME")),
            (Provider::BitbucketServer, _) => return Err(fault("its path is scm/PROJECT/NAME")),
            (Provider::AzureDevops, _) => return Err(fault("its path is ORGANISATION/PROJECT/_git/NAME")),
            (Provider::Generic, _) => return Err(fault("the generic form has no interface")),
        };
        let parts = parts.into_iter().map(str::to_owned).collect();
        // As credentials are kept: plain http always has its port.
        let host = if url.scheme() == "http" && url.port().is_none() { format!("{host}:80") } else { authority };
        Ok(Self { provider, api, parts, host })
    }

    /// Whether two spellings of a URL are one repository: forges take names in any letter case.
    pub fn is_same(&self, other: &Self) -> bool {
        let parts = |place: &Self| place.parts.iter().map(|part| part.to_lowercase()).collect::<Vec<_>>();
        self.provider == other.provider && self.api.eq_ignore_ascii_case(&other.api) && parts(self) == parts(other)
    }

    /// The kind of forge.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The host, with its port if it is unusual.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's name at the forge.
    pub fn name(&self) -> String {
        self.parts.join("/")
    }

    /// A URL of the repository, as far as it is told from others by it.
    pub(super) fn repository_url(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).collect();
        format!("{}.git", joined(&format!("https://{}", self.host), &parts))
    }

    /// Where the interface begins.
    pub(super) fn api(&self) -> &str {
        &self.api
    }

    pub(super) fn owner(&self) -> &str {
        self.parts.first().map(String::as_str).unwrap_or_default()
    }

    pub(super) fn repository(&self) -> &str {
        self.parts.last().map(String::as_str).unwrap_or_default()
    }
}

/// A part of a path.
pub(super) fn encoded(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

fn joined(base: &str, parts: &[&str]) -> String {
    parts.iter().fold(base.to_owned(), |path, part| format!("{path}/{}", encoded(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_forge_has_its_interface_somewhere() {
        for (provider, url, api, name) in [
            (Provider::GitHub, "https://github.com/acme/shop.git", "https://api.github.com", "acme/shop"),
            (Provider::GitHub, "https://ghe.example/acme/shop", "https://ghe.example/api/v3", "acme/shop"),
            (Provider::GitLab, "https://gitlab.example:8443/a/b/c.git", "https://gitlab.example:8443/api/v4", "a/b/c"),
            (Provider::Gitea, "http://git.example:3000/team/app.git", "http://git.example:3000/api/v1", "team/app"),
            (Provider::Gitea, "https://x.example/gitea/team/app", "https://x.example/gitea/api/v1", "team/app"),
            (Provider::BitbucketCloud, "https://bitbucket.org/acme/shop", "https://api.bitbucket.org/2.0", "acme/shop"),
            (Provider::BitbucketServer, "https://bb.example/scm/SHOP/app.git", "https://bb.example", "SHOP/app"),
            (Provider::BitbucketServer, "https://x.example/bb/scm/~eve/app.git", "https://x.example/bb", "~eve/app"),
            (
                Provider::AzureDevops,
                "https://dev.azure.com/acme/My%20Shop/_git/app",
                "https://dev.azure.com/acme",
                "My Shop/app",
            ),
            (Provider::AzureDevops, "https://dev.azure.com/acme/_git/app", "https://dev.azure.com/acme", "app/app"),
            (
                Provider::AzureDevops,
                "https://acme.visualstudio.com/shop/_git/app",
                "https://acme.visualstudio.com",
                "shop/app",
            ),
        ] {
            let place = ForgePlace::parse(provider, url).unwrap();
            assert_eq!((place.api(), place.name().as_str()), (api, name), "{url}");
        }
        let place = |url: &str| ForgePlace::parse(Provider::GitHub, url).unwrap();
        let shop = place("https://github.com/acme/shop.git");
        for same in
            ["https://github.com/acme/shop", "https://www.github.com/Acme/Shop/", "https://GitHub.com/acme/shop"]
        {
            assert!(shop.is_same(&place(same)), "{same}");
        }
        assert!(!shop.is_same(&place("https://github.com/acme/shop2")));
        for (url, host) in [
            ("https://git.example/a/b", "git.example"),
            ("https://git.example:8443/a/b", "git.example:8443"),
            ("http://git.example/a/b", "git.example:80"),
            ("http://git.example:3000/a/b", "git.example:3000"),
        ] {
            assert_eq!(ForgePlace::parse(Provider::Gitea, url).unwrap().host(), host);
        }
        for (provider, url) in [
            (Provider::GitHub, "https://github.com/acme"),
            (Provider::GitHub, "git@github.com:acme/shop.git"),
            (Provider::GitHub, "ssh://git@github.com/acme/shop.git"),
            (Provider::GitHub, "https://github.com/acme/%2e%2e"),
            (Provider::GitLab, "https://gitlab.example/a"),
            (Provider::BitbucketServer, "https://bb.example/SHOP/app.git"),
            (Provider::AzureDevops, "https://dev.azure.com/acme/shop"),
            (Provider::Generic, "https://git.example/a/b.git"),
        ] {
            assert!(ForgePlace::parse(provider, url).is_err(), "{url}");
        }
        let error = ForgePlace::parse(Provider::GitHub, "https://ann:secret@github.com/x").unwrap_err().to_string();
        assert_eq!(error, "`github.com/x` is no repository's URL of github: its path is OWNER/NAME");
    }
}
