//! Parts of the Dockerfile language that came after the oldest engine that is supported, and which files use them.

use std::fmt;

use super::lines::Instruction;

/// A part of the language that an engine's built-in frontend may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DockerfileFeature {
    /// Here-documents in `RUN`, `COPY` and `ADD`.
    Heredoc,
    /// `COPY --link` and `ADD --link`.
    CopyLink,
    /// `RUN --network`.
    RunNetwork,
    /// `ADD --checksum`.
    AddChecksum,
    /// `ADD --keep-git-dir`.
    AddKeepGitDir,
    /// `HEALTHCHECK --start-interval`.
    HealthStartInterval,
    /// `ADD --unpack`.
    AddUnpack,
    /// `COPY --exclude` and `ADD --exclude`.
    CopyExclude,
    /// `COPY --parents`.
    CopyParents,
    /// `RUN --security`.
    RunSecurity,
}

impl DockerfileFeature {
    /// The first major version of Docker Engine whose built-in frontend has it.
    pub fn minimum_engine(self) -> u32 {
        match self {
            Self::Heredoc | Self::CopyLink | Self::RunNetwork => 23,
            Self::AddChecksum | Self::AddKeepGitDir | Self::HealthStartInterval => 25,
            Self::AddUnpack => 28,
            Self::CopyExclude | Self::CopyParents | Self::RunSecurity => 29,
        }
    }

    /// What it needs, as the middle of a message: `heredocs need Docker Engine 23 or newer`.
    pub fn requirement(self) -> String {
        let verb = if self == Self::Heredoc { "need" } else { "needs" };
        format!("{self} {verb} Docker Engine {} or newer", self.minimum_engine())
    }
}

impl fmt::Display for DockerfileFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Heredoc => "heredocs",
            Self::CopyLink => "`--link`",
            Self::RunNetwork => "`RUN --network`",
            Self::AddChecksum => "`ADD --checksum`",
            Self::AddKeepGitDir => "`ADD --keep-git-dir`",
            Self::HealthStartInterval => "`HEALTHCHECK --start-interval`",
            Self::AddUnpack => "`ADD --unpack`",
            Self::CopyExclude => "`--exclude`",
            Self::CopyParents => "`COPY --parents`",
            Self::RunSecurity => "`RUN --security`",
        })
    }
}

/// The features of a file, each with the first line that uses it, in the order of lines.
pub(super) fn of(instructions: &[Instruction]) -> Vec<(DockerfileFeature, usize)> {
    let mut found: Vec<(DockerfileFeature, usize)> = Vec::new();
    for outer in instructions {
        for instruction in std::iter::once(outer).chain(outer.trigger.as_deref()) {
            let heredoc = instruction.has_heredoc.then_some(DockerfileFeature::Heredoc);
            let flags = instruction.flags.iter().filter_map(|flag| of_flag(&instruction.word, flag_name(flag)));
            for feature in heredoc.into_iter().chain(flags) {
                if found.iter().all(|(known, _)| *known != feature) {
                    found.push((feature, instruction.line));
                }
            }
        }
    }
    found
}

fn flag_name(flag: &str) -> &str {
    flag.split_once('=').map_or(flag, |(name, _)| name)
}

fn of_flag(word: &str, flag: &str) -> Option<DockerfileFeature> {
    Some(match (word, flag) {
        ("COPY" | "ADD", "--link") => DockerfileFeature::CopyLink,
        ("COPY" | "ADD", "--exclude") => DockerfileFeature::CopyExclude,
        ("COPY", "--parents") => DockerfileFeature::CopyParents,
        ("ADD", "--checksum") => DockerfileFeature::AddChecksum,
        ("ADD", "--keep-git-dir") => DockerfileFeature::AddKeepGitDir,
        ("ADD", "--unpack") => DockerfileFeature::AddUnpack,
        ("RUN", "--network") => DockerfileFeature::RunNetwork,
        ("RUN", "--security") => DockerfileFeature::RunSecurity,
        ("HEALTHCHECK", "--start-interval") => DockerfileFeature::HealthStartInterval,
        _ => return None,
    })
}
