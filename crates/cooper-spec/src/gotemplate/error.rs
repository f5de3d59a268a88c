//! What can be wrong with a template, and where.

/// A template that can't be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}:{line}:{column}: {message}")]
pub struct RenderError {
    /// What the caller called the text.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
    /// What kind of fault it is.
    pub kind: RenderErrorKind,
    /// What is wrong, with the expression that it is wrong with. It holds no value of the data, except what the template
    /// hands to `fail`.
    pub message: String,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderErrorKind {
    /// The text is no template.
    Syntax,
    /// The template can't do what it says with this data.
    Execution,
    /// It takes more work, memory or nesting than it may.
    Limit,
}

/// An error at a byte of the text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) kind: RenderErrorKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn syntax(at: usize, message: impl Into<String>) -> Self {
        Self { at, kind: RenderErrorKind::Syntax, message: message.into() }
    }

    pub(super) fn execution(at: usize, message: impl Into<String>) -> Self {
        Self { at, kind: RenderErrorKind::Execution, message: message.into() }
    }

    pub(super) fn limit(at: usize, limit: Exceeded) -> Self {
        Self { at, kind: RenderErrorKind::Limit, message: limit.message().to_owned() }
    }

    pub(super) fn locate(self, name: &str, text: &str) -> RenderError {
        let (line, column) = position(text, self.at);
        RenderError { name: name.to_owned(), line, column, kind: self.kind, message: self.message }
    }
}

/// The line and the column of a byte, both from 1, columns in characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    Fuel,
    Output,
    Depth,
}

impl Exceeded {
    fn message(self) -> &'static str {
        match self {
            Self::Fuel => "the template takes more steps than it may: loop over less, or make shorter texts",
            Self::Output => "the rendered text is longer than it may be: render less",
            Self::Depth => "actions, template calls or values are nested deeper than they may be: nest less",
        }
    }
}

/// Why a function or an operation can't be done; the caller knows where.
#[derive(Debug)]
pub(super) enum Trouble {
    Wrong(String),
    Limit(Exceeded),
}

impl Trouble {
    pub(super) fn at(self, at: usize) -> Fault {
        match self {
            Self::Wrong(message) => Fault::execution(at, message),
            Self::Limit(limit) => Fault::limit(at, limit),
        }
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

impl From<&str> for Trouble {
    fn from(message: &str) -> Self {
        Self::Wrong(message.to_owned())
    }
}

/// The result of an operation that knows no position.
pub(super) type Outcome<T> = Result<T, Trouble>;
