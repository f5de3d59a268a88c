//! What a build takes, tells and gives, and how it fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cooper_types::{Digest, Platform, SecretBytes, Timestamp};

use super::{EngineError, EngineFeature, LocalName, RegistryLogins};
use crate::context_tree::ContextTree;

/// One build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The name that the image gets in the engine.
    pub name: LocalName,
    /// The source files. The engine applies the rules of a `.dockerignore` in it, or of `<Dockerfile>.dockerignore`
    /// where it knows that (Docker Engine 19.03 and newer), once more to what `COPY` sees.
    pub context: ContextTree,
    /// Path of the Dockerfile in the context, or where it is read from instead.
    pub dockerfile: String,
    /// Where the Dockerfile is read from, and its own ignore file, if that is not the context.
    pub dockerfile_tree: Option<ContextTree>,
    /// The stage to build; the last one if absent.
    pub target: Option<String>,
    /// What to build for; the engine's own platform if absent.
    pub platform: Option<Platform>,
    /// Build arguments; the last of a name counts.
    pub arguments: Vec<(String, String)>,
    /// Labels of the image; the last of a name counts.
    pub labels: Vec<(String, String)>,
    /// Whether to run every step again.
    pub no_cache: bool,
    /// What `RUN --mount=type=secret,id=…` gets.
    pub secrets: BTreeMap<String, SecretBytes>,
    /// How to log in to registries of base images, each when it asks.
    pub logins: Arc<dyn RegistryLogins>,
    /// Which bases may be images that the engine has.
    pub bases: BaseImages,
    /// The network of what `RUN` runs.
    pub network: BuildNetwork,
    /// Additional hosts that what `RUN` runs resolves, as `name:address`.
    pub hosts: Vec<String>,
    /// References in registries whose cache may be used besides the engine's own: images with an inline one, or what was
    /// written by `cache_to`. One that is not there is no error.
    pub cache_from: Vec<String>,
    /// The reference in a registry that the build's cache is written to, of every stage. It takes
    /// [`EngineFeature::RegistryCache`]; where the cache can't be written, the build warns of it and succeeds.
    pub cache_to: Option<String>,
    /// Which earlier transfers of contexts the engine may compare this one with. Two builds with one key see each
    /// other's cached files by size, time and mode, so it is derived by the server per principal and trust, never taken
    /// from input.
    pub shared_key: String,
    /// What references in full stand for, as far as that was found out for this build: it counts where the engine does not say
    /// what it took.
    pub resolved: Vec<ResolvedBase>,
    /// References in full of images that files are copied from and no stage stands on, as far as they are known. An engine that
    /// does not say what it took for them is not asked after the build, when they may stand for something else: their
    /// registries are, before it.
    pub copied: Vec<String>,
}

/// Which images a build may stand on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseImages {
    /// What their names stand for at their registries now, never what the engine happens to hold.
    #[default]
    FromRegistries,
    /// What the engine has under their names, if anything, else what they stand for at their registries.
    OfTheEngineFirst,
}

/// The network of what a build runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The engine's default.
    #[default]
    Default,
    /// None but a loopback.
    None,
    /// The machine's own. The pool's leave is the caller's to ask.
    Host,
}

/// What a build says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// A vertex was found, started, or ended; it comes again with each change.
    Vertex(VertexEvent),
    /// Output of what a vertex runs: any bytes, cut anywhere. An engine may leave out what comes too fast, and says so
    /// in the output itself: Docker's takes 200 KiB a second and 1 MiB a step unless its operator sets
    /// `BUILDKIT_STEP_LOG_MAX_SPEED` and `BUILDKIT_STEP_LOG_MAX_SIZE` for the daemon.
    Log {
        /// The vertex's id.
        vertex: String,
        /// Which stream.
        stream: OutputStream,
        /// The bytes.
        bytes: Bytes,
    },
    /// A base image was found to have this digest.
    Base(ResolvedBase),
    /// Progress of a transfer or another countable thing inside a vertex.
    Status {
        /// The vertex's id.
        vertex: String,
        /// What it is about, unique in the vertex.
        id: String,
        /// How much is done.
        current: u64,
        /// How much there is, if known.
        total: Option<u64>,
    },
    /// A warning about the Dockerfile or the build.
    Warning {
        /// The vertex's id.
        vertex: String,
        /// One line.
        message: String,
    },
}

/// The state of a vertex of the build graph, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexEvent {
    /// The engine's id of it, unique in the build.
    pub id: String,
    /// The step as people know it, such as `[2/3] RUN make`.
    pub name: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
}

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A build that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// The image's id in the engine.
    pub image: Digest,
    /// The images that the build stands on, in the order of their names: bases of stages, and images that files were
    /// copied or mounted from. What no built stage needed is not here.
    pub bases: Vec<ResolvedBase>,
}

/// An image that a build used, and what its reference stood for at that moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResolvedBase {
    /// The reference in full, with registry, and with the tag or digest that was written: `busybox` is
    /// `docker.io/library/busybox:latest` here.
    pub reference: String,
    /// Digest of the manifest or index behind it.
    pub digest: Digest,
}

/// Why a build did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// What was asked for cannot be built: the user's result, not an error of ours.
    #[error(transparent)]
    Failed(#[from] BuildFailure),
    /// The engine failed.
    #[error("build failed for a reason of the machinery")]
    Machinery(#[from] EngineError),
    /// The caller cancelled.
    #[error("build was cancelled")]
    Cancelled,
}

/// How the user's build failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildFailure {
    /// A command of a `RUN` ended with another code than 0.
    #[error("step `{step}` exited with code {code}")]
    Exited {
        /// The vertex's name.
        step: String,
        /// The code.
        code: i64,
    },
    /// The context has no such Dockerfile.
    #[error("Dockerfile `{path}` is not in the context: name it with --file")]
    DockerfileMissing {
        /// The path that was looked for.
        path: String,
    },
    /// The Dockerfile cannot be understood.
    #[error("{}: {message}", place(.path, *.line))]
    Dockerfile {
        /// Its path in the context.
        path: String,
        /// Which line, from 1.
        line: Option<u32>,
        /// What is wrong.
        message: String,
    },
    /// The Dockerfile uses what this engine cannot do.
    #[error("{}: {} needs Docker Engine 23 or newer; this agent has {engine}", place(.path, *.line), feature_name(*.feature))]
    FeatureMissing {
        /// Its path in the context.
        path: String,
        /// Which line, from 1.
        line: Option<u32>,
        /// What it uses.
        feature: EngineFeature,
        /// The engine's name and version.
        engine: String,
    },
    /// No stage of the Dockerfile has the target's name.
    #[error("target stage `{target}` is not in Dockerfile `{path}`")]
    TargetMissing {
        /// Path of the Dockerfile in the context.
        path: String,
        /// What was asked for.
        target: String,
    },
    /// A base image is not in its registry.
    #[error("base image `{reference}` is not in its registry")]
    BaseMissing {
        /// The reference in full.
        reference: String,
    },
    /// A base image's registry does not let us read it (or hides that it is not there).
    #[error("base image `{reference}` may not be pulled, or is not there: {message}")]
    BaseDenied {
        /// The reference in full.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// A base image's registry cannot be reached from the engine.
    #[error("base image `{reference}` cannot be reached: {message}")]
    BaseUnreachable {
        /// The reference in full.
        reference: String,
        /// The engine's words.
        message: String,
    },
    /// A `RUN` requires a secret that the build was not given.
    #[error("secret `{id}` is required by the Dockerfile and was not given: give it with --secret id={id},src=FILE")]
    SecretMissing {
        /// The secret's id.
        id: String,
    },
    /// The request does not fit what an engine takes.
    #[error("build arguments and labels take {bytes} bytes together, more than the {limit} that the engine takes")]
    TooLong {
        /// What they take, encoded.
        bytes: usize,
        /// What is possible.
        limit: usize,
    },
    /// Anything else that the engine found wrong, such as a `COPY` of a file that is not there.
    #[error("{}{message}", step_prefix(.step.as_deref()))]
    Other {
        /// The vertex's name, where one failed.
        step: Option<String>,
        /// The engine's words.
        message: String,
    },
}

impl EngineFeature {
    /// The feature as it reads in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::BuildKit => "a build with BuildKit",
            Self::Heredoc => "a here-document",
            Self::CopyLink => "the flag --link",
            Self::RunNetwork => "RUN --network",
            Self::RegistryCache => "a build cache in a registry",
        }
    }
}

fn feature_name(feature: EngineFeature) -> &'static str {
    feature.name()
}

fn place(path: &str, line: Option<u32>) -> String {
    match line {
        Some(line) => format!("Dockerfile `{path}`, line {line}"),
        None => format!("Dockerfile `{path}`"),
    }
}

fn step_prefix(step: Option<&str>) -> String {
    step.map(|step| format!("step `{step}`: ")).unwrap_or_default()
}
