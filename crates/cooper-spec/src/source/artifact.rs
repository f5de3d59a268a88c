//! An artifact in an OCI registry: `oci://REGISTRY/REPOSITORY[:TAG][@DIGEST][#:SUBDIRECTORY]`.

use std::fmt;

use cooper_types::{Digest, ImageRef, RegistryName};

use super::error::{shown, shown_authority};
use super::{MAX_SOURCE_LEN, SourceError, Subdirectory};

/// An artifact, and the directory of its files that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactSource {
    /// What the artifact is called: always with its registry, and with a tag or a digest.
    reference: ImageRef,
    /// The directory that is the context; the root of the artifact's files if nothing is named.
    pub subdirectory: Option<Subdirectory>,
}

impl ArtifactSource {
    /// Reads what follows `oci://`. Without tag and digest, `latest` is meant.
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        if text.len() > MAX_SOURCE_LEN {
            return Err(SourceError::TooLong { length: text.len() });
        }
        let (name, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (before, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        // A `@` before a `/` is a user's, not a digest's.
        if name.split('/').next().is_some_and(|authority| authority.contains('@')) {
            let host = shown_authority(name.split('/').next().unwrap_or_default());
            return Err(SourceError::Credentials { host });
        }
        let reference = ImageRef::parse(name).map_err(|error| {
            // The error beneath says what is wrong, the one above only where.
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            SourceError::Artifact { text: shown(name), why }
        })?;
        if reference.registry.is_none() {
            return Err(SourceError::NoRegistry { text: shown(name) });
        }
        if !before.is_empty() {
            return Err(SourceError::ArtifactReference { text: shown(name), reference: shown(before) });
        }
        Ok(Self { reference: reference.tagged_by_default(), subdirectory: Subdirectory::parse(subdirectory)? })
    }

    /// The artifact of this digest, whatever its tag says now.
    pub(super) fn pinned(&self, digest: &Digest) -> Self {
        let reference = ImageRef { tag: None, digest: Some(digest.clone()), ..self.reference.clone() };
        Self { reference, subdirectory: self.subdirectory.clone() }
    }

    /// What the artifact is called, with its registry and a tag or a digest.
    pub fn reference(&self) -> &ImageRef {
        &self.reference
    }

    /// The registry that it is in.
    pub fn registry(&self) -> &RegistryName {
        self.reference.registry.as_ref().expect("`parse` takes no reference without a registry")
    }
}

impl fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.reference)?;
        match &self.subdirectory {
            None => Ok(()),
            Some(subdirectory) => write!(f, "#:{subdirectory}"),
        }
    }
}
