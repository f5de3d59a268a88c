//! Why a Dockerfile can't be read: each error names the line and what to do.

/// Why a Dockerfile can't be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DockerfileError {
    /// There is no `FROM`.
    #[error("the Dockerfile has no FROM; begin it with `FROM image` or `FROM scratch`")]
    NoFrom,
    /// Something else than `ARG` comes before the first `FROM`.
    #[error("Dockerfile line {line}: `{word}` comes before the first FROM, where only ARG may stand")]
    BeforeFrom {
        /// The line.
        line: usize,
        /// The instruction.
        word: String,
    },
    /// A parser directive is wrong.
    #[error("Dockerfile line {line}: {reason}")]
    Directive {
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A `FROM` has the wrong number of words.
    #[error("Dockerfile line {line}: FROM takes `image` or `image AS name`")]
    From {
        /// The line.
        line: usize,
    },
    /// A stage's name has characters that it can't have.
    #[error(
        "Dockerfile line {line}: stage name `{name}` must begin with a letter and go on with letters, digits, `-`, `_` \
         or `.`"
    )]
    StageName {
        /// The line.
        line: usize,
        /// The name.
        name: String,
    },
    /// A variable can't be replaced.
    #[error("Dockerfile line {line}: `{text}` can't be expanded: {reason}")]
    Expansion {
        /// The line.
        line: usize,
        /// What was to be expanded.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A `FROM` names nothing once its variables are replaced.
    #[error(
        "Dockerfile line {line}: `FROM {text}` names no image; give its variables values with --build-arg, or defaults \
         with ARG before the first FROM"
    )]
    NoImage {
        /// The line.
        line: usize,
        /// The image as it is written.
        text: String,
    },
    /// A `--from` or `from=` holds a variable, which BuildKit doesn't replace there.
    #[error(
        "Dockerfile line {line}: `from` can't hold the variable in `{text}`; add a stage `FROM {text} AS name` and name \
         that"
    )]
    VariableInSource {
        /// The line.
        line: usize,
        /// The source as it is written.
        text: String,
    },
    /// A `--from` has the number of a stage that isn't there.
    #[error("Dockerfile line {line}: there is no stage number {index}; the {count} stages count from 0")]
    StageIndex {
        /// The line.
        line: usize,
        /// The number.
        index: i64,
        /// How many stages there are.
        count: usize,
    },
    /// A here-document is not ended.
    #[error("Dockerfile line {line}: the here-document has no line `{name}` at its end")]
    HeredocEnd {
        /// The line.
        line: usize,
        /// The word that would end it.
        name: String,
    },
    /// The target is no stage.
    #[error("the Dockerfile has no stage `{target}`; its stages are {stages}")]
    UnknownTarget {
        /// What was asked for.
        target: String,
        /// What there is.
        stages: String,
    },
}

/// Text of the file for a message: not long.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(160).collect()
}
