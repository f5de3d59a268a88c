//! Reading a Dockerfile for what a build depends on and for what an engine must be able to do.
//!
//! It follows BuildKit's own parser where stages, names and variables are concerned, and does not judge the rest: what
//! a `RUN` does or whether an instruction exists is the engine's to say. A file for another frontend than Docker's
//! (`# syntax=`) may be no Dockerfile at all; [`Dockerfile::syntax`] tells.

mod error;
mod feature;
mod frontend;
mod lines;
mod rewrite;
mod stages;
mod words;

use cooper_types::Platform;

pub use error::DockerfileError;
pub use feature::DockerfileFeature;
pub use frontend::{FrontendRule, FrontendRuleError, FrontendRules, FrontendUse};
use lines::Lines;
use stages::Stages;

/// A Dockerfile as far as it is understood here.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    syntax: Option<String>,
    stages: Stages,
    features: Vec<(DockerfileFeature, usize)>,
}

/// The images that a build stands on, as the Dockerfile names them, with variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// The image that the result begins with; none if it begins from `scratch`.
    pub runtime: Option<String>,
    /// The other images that are read, each once, in the order of the file.
    pub buildtime: Vec<String>,
    /// Those of them that no stage begins with: files are only copied or mounted from them.
    pub copied: Vec<String>,
}

impl Dockerfile {
    /// Reads a file's text. Lines in errors count from 1 and are those on which an instruction begins.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let Lines { escape, syntax, instructions } = lines::read(text)?;
        let features = feature::of(&instructions);
        let stages = Stages::from_instructions(&instructions, escape)?;
        Ok(Self { syntax, stages, features })
    }

    /// The frontend image that a `# syntax=` line asks for.
    pub fn syntax(&self) -> Option<&str> {
        self.syntax.as_deref()
    }

    /// The images that a build of `target` reads: of the last stage if nothing is said, else of the stage with that
    /// name (in any letter case) or number. Only stages that the target needs count, as in BuildKit.
    ///
    /// `build_args` replace the defaults of the `ARG` lines before the first `FROM`; of a name given twice, the last
    /// counts. `platform`, where it is known, gives `TARGETARCH` and its like their values (and `BUILDPLATFORM` and its
    /// like, for an agent that builds for its own platform).
    pub fn dependencies(
        &self,
        target: Option<&str>,
        build_args: &[(String, String)],
        platform: Option<&Platform>,
    ) -> Result<Dependencies, DockerfileError> {
        self.stages.dependencies(target, build_args, platform)
    }

    /// What the engine's built-in frontend must be able to do, with the line that needs it first. Nothing if a
    /// `# syntax=` line brings its own frontend: then that one decides.
    pub fn required_features(&self) -> Vec<(DockerfileFeature, usize)> {
        if self.syntax.is_some() { Vec::new() } else { self.features.clone() }
    }
}

#[cfg(test)]
mod tests;
