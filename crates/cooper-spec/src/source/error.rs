//! Why a text is no source, each with what to write instead. No message repeats user names, passwords or queries.

/// Why a text is no source.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SourceError {
    /// There is nothing.
    #[error("the source is empty; name a folder (`.` is this one) or a Git repository's https URL")]
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
    /// An OCI artifact.
    #[error("`oci://` sources are not supported yet; name a folder or a Git repository's https URL")]
    Oci,
    /// A file on some machine.
    #[error("`file://` sources are refused; name the folder itself")]
    File,
    /// Another scheme.
    #[error("sources over `{scheme}` are not supported; name a folder or a Git repository's https URL")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The URL may be anything, such as an archive.
    #[error(
        "`{url}` does not look like a Git repository; add `.git` to the path (archives by URL are not supported yet)"
    )]
    NotGit {
        /// The URL, without credentials.
        url: String,
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
    #[error("source URL `{url}` names no repository; write https://HOST/PATH.git")]
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

/// Why a text is no directory of a repository.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubdirectoryError {
    /// It leads out of the repository.
    #[error("subdirectory `{0}` leads out of the repository with `..`")]
    Parent(String),
    /// It is too long.
    #[error("the subdirectory has more than {} bytes", super::MAX_SUBDIRECTORY_LEN)]
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
