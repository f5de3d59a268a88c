//! What server and agent say to each other, in the domain's words. The wire form is `cooper-api`'s.
//!
//! Every message may be lost, doubled or late. What an agent must not forget it repeats until it is acknowledged;
//! what a server must not forget stands in the run, from which it is said again when the agent reports what it holds.

use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_types::{AttemptNumber, ContextId, Digest, Fence, Platform, RegistryName, RepositoryName, RunId, Tag};
use serde::{Deserialize, Serialize};

/// Names one placement of one run, once: the fence grows with every offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlacementKey {
    /// The run.
    pub run: RunId,
    /// The number of the offer.
    pub fence: Fence,
}

/// A placement that an agent holds, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub key: PlacementKey,
    /// The attempts that it knows of: running ones, and ended ones whose result is not acknowledged yet.
    pub attempts: Vec<AttemptNumber>,
}

/// From the server to an agent. `W` is what a step needs to run; the state machines don't look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent<W> {
    /// Take this placement?
    Offer {
        /// Which one.
        key: PlacementKey,
        /// What its steps are for.
        platform: Platform,
    },
    /// Start this attempt at a step.
    StartStep {
        /// Which placement.
        key: PlacementKey,
        /// The attempt's number.
        attempt: AttemptNumber,
        /// What to do.
        work: W,
    },
    /// Stop what runs of this placement and clean up after it. Also sent at the good end.
    Stop {
        /// Which one.
        key: PlacementKey,
    },
    /// The result of this attempt is stored: forget it, and stop what still runs of it. The server gives one itself to an
    /// attempt that it has waited for long enough.
    ResultStored {
        /// Which placement.
        key: PlacementKey,
        /// The attempt's number.
        attempt: AttemptNumber,
    },
}

/// From an agent to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer {
    /// Everything that the agent holds: said first on a new stream and again with every heartbeat.
    Holding(Vec<Held>),
    /// The offer is taken.
    Accepted(PlacementKey),
    /// The offer is not taken.
    Declined(PlacementKey, String),
    /// An attempt began.
    StepStarted(PlacementKey, AttemptNumber),
    /// What an attempt has resolved, said before its end so that it is known whatever that is. It may be lost.
    Resolved(PlacementKey, AttemptNumber, Resolved),
    /// An attempt ended. Repeated until the server says that it is stored.
    StepEnded(PlacementKey, AttemptNumber, StepResult),
    /// Nothing of the placement runs any more and it is cleaned up.
    Stopped(PlacementKey),
}

/// What the names that a step has to do with stood for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The bases of a build, or the image of a container; none while that is not known.
    pub bases: Vec<BaseImage>,
    /// What the context was found to be, where the step fetched one for itself.
    pub context: Option<SourcePin>,
    /// Which try of the attempt begins, from 2; 0 where that is not what is said.
    pub tries: u32,
}

/// How an attempt at a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "camelCase")]
pub enum StepResult {
    /// The step did its work.
    Succeeded {
        /// What it made.
        output: StepOutput,
    },
    /// The user's work failed: that is a result, not an error of ours.
    Failed {
        /// The failing process's exit code, where there was one.
        exit_code: Option<i32>,
        /// What failed, in a line.
        reason: String,
    },
    /// The step's own timeout passed.
    TimedOut,
    /// The machinery failed: the attempt counts as lost.
    Lost {
        /// What happened, in a line.
        reason: String,
    },
}

/// What a successful step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum StepOutput {
    /// A source, fetched and uploaded.
    Prepared(PreparedSource),
    /// A built image.
    Built {
        /// The image's id on the engine that built it: the digest of its configuration.
        image: Digest,
        /// The base images that the build resolved.
        bases: Vec<BaseImage>,
        /// The frontend that read the Dockerfile, where it was not the engine's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frontend: Option<Frontend>,
        /// What the context was found to be, where the step fetched one for itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<SourcePin>,
    },
    /// Pushed manifests.
    Pushed {
        /// One for each repository and image.
        manifests: Vec<PushedManifest>,
    },
    /// A container that ended well, or is left to run.
    Ran {
        /// The image that it ran in, where that is not the run's own.
        image: Option<BaseImage>,
    },
}

/// A source as an agent found it, and the context that it made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedSource {
    /// The commit's id, in hexadecimal digits; there is one for repositories alone.
    pub commit: Option<String>,
    /// The branch that was named, or the default one; absent where a tag, a commit or another reference was named.
    pub branch: Option<String>,
    /// The tag that was named.
    pub tag: Option<String>,
    /// What the attempt uploaded.
    pub context: ContextId,
    /// The archive's digest.
    pub digest: Digest,
    /// Bytes of the archive.
    pub size: u64,
    /// What the Dockerfile is called in it, where that is not what was asked for.
    pub dockerfile: Option<String>,
    /// What was fetched, where it is no repository: the digest of the archive as it came, or of the artifact's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Digest>,
    /// The commit that the Dockerfile, or the files that the planning needs, were taken from, where another place than the
    /// source was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Box<DefinitionPin>>,
    /// The files that the planning needs. They are in no record: what they come to is.
    #[serde(skip)]
    pub files: Vec<PreparedFile>,
}

/// Where a definition was found that is not the source's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionPin {
    /// The commit.
    pub commit: String,
}

/// A file of a source, as the planning reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedFile {
    /// Its path inside the source's folder, as it was asked for.
    pub name: String,
    /// What it holds; nothing if there is no such file.
    pub content: Option<Vec<u8>>,
}

impl PreparedSource {
    /// Whether it says what is known of every source of this kind.
    pub fn is_of(&self, location: &RemoteSource) -> bool {
        match location {
            RemoteSource::Git(_) => self.commit.is_some(),
            RemoteSource::Archive(_) | RemoteSource::Artifact(_) | RemoteSource::Uploaded(_) => self.pinned.is_some(),
        }
    }

    /// What goes on record: everything but the files.
    #[must_use]
    pub fn recorded(&self) -> Self {
        Self { files: Vec::new(), ..self.clone() }
    }
}

/// A base image that a build stood on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImage {
    /// How the Dockerfile named it, after its arguments were filled in.
    pub reference: String,
    /// What its registry resolved it to.
    pub digest: Option<Digest>,
    /// Whether it is the origin of the final stage; the others are needed at build time only.
    pub runtime: bool,
}

/// A frontend that a Dockerfile names by its `# syntax=` line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// The image, as it is written.
    pub reference: String,
    /// What it was resolved to, as far as the engine says it.
    pub digest: Option<Digest>,
}

/// A manifest that a push left in a registry: in the embedded one under its staging tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedManifest {
    /// A registry that is not the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryName>,
    /// The repository.
    pub repository: RepositoryName,
    /// The tag that the attempt pushed under.
    pub staging_tag: Tag,
    /// The manifest.
    pub digest: Digest,
}
