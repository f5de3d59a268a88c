//! Names and labels by which an agent finds its own things in an engine that others use too.

use std::fmt;

use cooper_engine::message::PlacementKey;
use cooper_types::{AttemptNumber, Digest, RunId};

/// The label of every container, network and volume that an agent makes; its value is [`EngineOwner::label`].
pub const OWNER_LABEL: &str = "dev.cooperage.owner";

/// The label with the run's id, of everything that was made for one placement.
pub const RUN_LABEL: &str = "dev.cooperage.run";

/// The label of everything that was made for one placement; its value is [`PlacementScope::label`].
pub const PLACEMENT_LABEL: &str = "dev.cooperage.placement";

/// The label of a step's container; its value is the step's id.
pub const STEP_LABEL: &str = "dev.cooperage.step";

/// Local names live in a registry that cannot exist (RFC 6761, `.invalid`), so none can ever be pulled or pushed.
const LOCAL_REGISTRY: &str = "cooper.invalid";

/// Whose things they are in a shared engine: an agent of a server, over all its lives.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EngineOwner {
    /// Sixteen hexadecimal digits: fits labels and repository names, whatever the identity was made of.
    key: Box<str>,
}

impl EngineOwner {
    /// The owner with this identity. It must be the same after a restart, and different for any two agents that can
    /// share an engine: agents of different servers included.
    pub fn new(identity: &str) -> Self {
        Self { key: Digest::sha256(identity.as_bytes()).hex()[..16].into() }
    }

    /// The value of [`OWNER_LABEL`].
    pub fn label(&self) -> &str {
        &self.key
    }

    /// Every local name of the owner starts with this, and no other name does.
    pub fn name_prefix(&self) -> String {
        format!("{LOCAL_REGISTRY}/{}/", self.key)
    }
}

impl fmt::Debug for EngineOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineOwner({})", self.key)
    }
}

/// One placement as an engine knows it: whose it is, and which.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlacementScope {
    /// The agent.
    pub owner: EngineOwner,
    /// The placement: a restarted one has another key.
    pub key: PlacementKey,
}

impl PlacementScope {
    /// The value of [`PLACEMENT_LABEL`]: unique among an owner's placements.
    pub fn label(&self) -> String {
        format!("{}.{}", self.key.run, self.key.fence)
    }

    /// A name in the engine that no other placement uses, of any owner; `part` tells the placement's own things apart.
    pub fn object_name(&self, part: &str) -> String {
        format!("cooper-{}-{}-{}-{part}", self.owner.label(), self.key.run, self.key.fence)
    }
}

/// An image's name inside one engine, made by one attempt: two runs of `-t app:latest` never meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalName(String);

impl LocalName {
    /// The name for what this attempt of a run builds.
    pub fn new(owner: &EngineOwner, run: RunId, attempt: AttemptNumber) -> Self {
        Self(format!("{}{run}:{attempt}", owner.name_prefix()))
    }

    /// Whether a reference is a name of this kind, whoever's.
    pub fn is_one(reference: &str) -> bool {
        reference.strip_prefix(LOCAL_REGISTRY).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The text, a reference that the engine takes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LocalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_types::ImageRef;

    #[test]
    fn local_names_are_references_under_their_owners_prefix() {
        let owner = EngineOwner::new("server 1/Agent_One.example");
        let name = LocalName::new(&owner, RunId::from_number(7), AttemptNumber(u64::MAX));
        assert!(name.as_str().starts_with(&owner.name_prefix()));
        assert_eq!(ImageRef::parse(name.as_str()).expect("a reference").to_string(), name.as_str());
        assert_ne!(owner.label(), EngineOwner::new("server 2/Agent_One.example").label());
    }
}
