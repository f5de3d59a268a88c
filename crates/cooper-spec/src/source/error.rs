//! Why a text is no source, each with what to write instead. No message repeats user names, passwords or queries.

/// Why a text is no source.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// There is nothing.
    #[error("the source is empty; name a folder (`.` is this one), or the https URL of a Git repository or an archive")]
    Empty,
    /// It is too long.
    #[error("the source has {length} bytes; at most {} are taken", super::MAX_SOURCE_LEN)]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
    /// It holds a character that no name has.
    #[error("the source holds a control character")]
    Control,
    /// Git over something else than HTTP.
    #[error(
        "source over `{scheme}` is not supported; write {instead}, and store credentials with `cooper credential set`"
    )]
    NotHttps {
        /// The scheme.
        scheme: String,
        /// The URL that most likely works.
        instead: String,
    },
    /// The name behind `oci://` is none.
    #[error("`oci://{text}` names no artifact: {why}")]
    Artifact {
        /// The name.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The name behind `oci://` begins with no registry.
    #[error("`oci://{text}` names no registry; write oci://HOST[:PORT]/REPOSITORY:TAG")]
    NoRegistry {
        /// The name.
        text: String,
    },
    /// A reference behind an artifact's `#`.
    #[error("`oci://{text}` has a tag or a digest of its own; `#{reference}` is no directory: write `#:DIRECTORY`")]
    ArtifactReference {
        /// The artifact.
        text: String,
        /// What stands behind the `#`.
        reference: String,
    },
    /// A reference behind an archive's `#`.
    #[error(
        "`{url}` is taken as an archive, which has no `#{reference}`; write `#:DIRECTORY` for a directory of it, or \
         `.git` at the path's end if it is a repository"
    )]
    ArchiveReference {
        /// The URL for people.
        url: String,
        /// What stands behind the `#`.
        reference: String,
    },
    /// A source that no agent can fetch.
    #[error("`{text}` is nothing that an agent can fetch; name an https URL or oci://HOST/REPOSITORY:TAG")]
    NotRemote {
        /// The text.
        text: String,
    },
    /// A file on some machine.
    #[error("`file://` sources are refused; name the folder itself")]
    File,
    /// Another scheme.
    #[error(
        "sources over `{scheme}` are not supported; name a folder, or the https URL of a Git repository or an archive"
    )]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The text is no URL.
    #[error("source URL `{url}` is not valid: {reason}")]
    Url {
        /// The URL, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A user name or password stands in the URL.
    #[error(
        "source URL for `{host}` holds credentials; remove them and store them with `cooper credential set {host}`"
    )]
    Credentials {
        /// The host.
        host: String,
    },
    /// The URL has a query.
    #[error("source URL `{url}` has a query (`?…`), which no repository needs; remove it")]
    Query {
        /// The URL without its query.
        url: String,
    },
    /// The URL names a host alone.
    #[error("source URL `{url}` names nothing on its host; write https://HOST/PATH.git for a repository")]
    NoPath {
        /// The URL.
        url: String,
    },
    /// The part between `#` and `:`.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The part after `:`.
    #[error(transparent)]
    Subdirectory(#[from] SubdirectoryError),
}

/// Why a text names nothing in a repository (git's own rules for names).
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("Git reference `{text}` {reason}; name a branch, a tag, a commit or `refs/…`")]
pub struct ReferenceError {
    /// The text, escaped and cut.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Why a text is no directory of a source.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubdirectoryError {
    /// It leads out of the source.
    #[error("subdirectory `{0}` leads out of the source with `..`")]
    Parent(String),
    /// It is too long.
    #[error("the subdirectory has more than {} bytes", super::subdirectory::MAX_SUBDIRECTORY_LEN)]
    TooLong,
    /// It holds a character that no name should have.
    #[error("the subdirectory holds a control character")]
    Control,
}

/// A text for a message: escaped, and not long.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

/// `[USER[:PASSWORD]@]HOST…` for a message: without who, and without a query.
pub(super) fn shown_authority(rest: &str) -> String {
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    // The last `@` counts, wherever it is: a password may hold a slash.
    match rest.rsplit_once('@') {
        Some((_, host)) => shown(host),
        None => shown(rest),
    }
}

/// A URL for a message: without who, and without a query.
pub(super) fn shown_url(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => format!("{}://{}", shown(scheme), shown_authority(rest)),
        None => shown_authority(text),
    }
}
