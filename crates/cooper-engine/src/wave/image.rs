//! A tag that tasks stand on: in the embedded registry whatever that is called, or in another one by its name.

use std::fmt;

use cooper_types::{Digest, ImageRef, RegistryName, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

/// The registry of references that name none, its older names, and where it keeps images that are named with one word.
const HUB: &str = "docker.io";
const HUB_NAMES: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];
const HUB_NAMESPACE: &str = "library/";

/// A tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageTag {
    /// The registry; none is the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryName>,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

impl ImageTag {
    /// The tag that a reference follows, where the embedded registry is called `own`; nothing for one that names a digest,
    /// which no new image changes, and for what is no reference.
    pub fn followed(reference: &str, own: &RegistryName) -> Option<Self> {
        let image = ImageRef::parse(reference).ok().filter(|image| image.digest.is_none())?;
        Some(Self::of(image, own).0)
    }

    /// The tag of a reference, and the digest that it names.
    pub fn of(image: ImageRef, own: &RegistryName) -> (Self, Option<Digest>) {
        let ImageRef { registry, repository, tag, digest } = image;
        let tag = tag.unwrap_or_else(Tag::latest);
        let (registry, repository) = match registry {
            Some(registry) if registry == *own => (None, repository),
            Some(registry) if !HUB_NAMES.contains(&registry.as_str()) => (Some(registry), repository),
            Some(_) | None => {
                let hub = RegistryName::parse(HUB).expect("a host name is a registry's");
                let spaced = format!("{HUB_NAMESPACE}{repository}");
                let repository = match repository.as_str().contains('/') {
                    true => repository,
                    // One that is too long in full is in no registry.
                    false => RepositoryName::parse(&spaced).unwrap_or(repository),
                };
                (Some(hub), repository)
            }
        };
        (Self { registry, repository, tag }, digest)
    }
}

impl fmt::Display for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_follow_tags() {
        let own = RegistryName::parse("localhost:5000").expect("valid");
        for (reference, expect) in [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("index.docker.io/busybox:1", Some("docker.io/library/busybox:1")),
            ("me/app:2", Some("docker.io/me/app:2")),
            ("localhost:5000/app", Some("app:latest")),
            ("localhost:5000/team/app:3", Some("team/app:3")),
            ("localhost:5001/app:3", Some("localhost:5001/app:3")),
            ("mcr.example.com/app", Some("mcr.example.com/app:latest")),
            ("not a reference", None),
        ] {
            let image = ImageTag::followed(reference, &own);
            assert_eq!(image.map(|image| image.to_string()).as_deref(), expect, "{reference}");
        }
        let pinned = format!("localhost:5000/app:3@{}", Digest::sha256(b"x"));
        assert_eq!(ImageTag::followed(&pinned, &own), None);
    }
}
