//! Platforms: `os[/architecture[/variant]]`, in the values that ACR accepts and the names that OCI uses.

use std::fmt;

use crate::parsed::text_form;

/// What an image runs on, such as `linux/amd64` or `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: &'static str,
    architecture: &'static str,
    variant: Option<&'static str>,
}

/// Why a text is not a platform.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "platform `{0}` is not os[/architecture[/variant]] with os linux or windows, architecture amd64, 386, arm or arm64, \
     and variant v6, v7 or v8"
)]
pub struct PlatformError(String);

impl Platform {
    /// `linux/amd64`, what a build is for when nothing else is said.
    pub const LINUX_AMD64: Self = Self { os: "linux", architecture: "amd64", variant: None };

    /// Parses a platform in any letter case; `x86` is another name of `386`; the architecture is `amd64` if left out.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(160).collect());
        let lower = text.to_ascii_lowercase();
        let mut parts = lower.split('/');
        let os = known(parts.next(), &["linux", "windows"]).ok_or_else(error)?;
        let architecture = match parts.next() {
            None => "amd64",
            Some("x86") => "386",
            Some("x86_64") => "amd64",
            Some("aarch64") => "arm64",
            part => known(part, &["amd64", "386", "arm", "arm64"]).ok_or_else(error)?,
        };
        let variant = match parts.next() {
            None => None,
            part => Some(known(part, &["v6", "v7", "v8"]).ok_or_else(error)?),
        };
        let variant_fits = match (architecture, variant) {
            (_, None) | ("arm", Some("v6" | "v7" | "v8")) | ("arm64", Some("v8")) => true,
            (_, Some(_)) => false,
        };
        if parts.next().is_some() || !variant_fits {
            return Err(error());
        }
        // OCI: arm64 means v8, and writing it out would make two names of one platform.
        let variant = if architecture == "arm64" { None } else { variant };
        Ok(Self { os, architecture, variant })
    }

    /// The operating system: `linux` or `windows`.
    pub fn os(&self) -> &'static str {
        self.os
    }

    /// The architecture, by Go's names.
    pub fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The variant, for `arm`.
    pub fn variant(&self) -> Option<&'static str> {
        self.variant
    }
}

fn known(part: Option<&str>, values: &[&'static str]) -> Option<&'static str> {
    let part = part?;
    values.iter().find(|value| **value == part).copied()
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

text_form!(Platform, PlatformError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_acr_accepts() {
        let check = |text: &str, expect: &str| assert_eq!(Platform::parse(text).expect(text).to_string(), expect);
        check("linux", "linux/amd64");
        check("Linux/ARM64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm/v7", "linux/arm/v7");
        check("linux/x86", "linux/386");
        check("windows/amd64", "windows/amd64");
        for bad in ["", "darwin", "linux/", "linux/mips", "linux/amd64/v7", "linux/arm64/v9", "linux/arm/v7/x"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }
}
