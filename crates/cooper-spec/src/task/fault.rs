//! What is wrong with a task file, and where: every fault of a file together.

use std::fmt;

/// The most faults, and the most warnings, that are told of one file.
const MAX_TOLD: usize = 100;

/// Something wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it is; absent where no file is at fault.
    pub place: Option<Box<Place>>,
    /// What is wrong: a lower-case fragment that names the object.
    pub message: String,
    /// The way out: what is allowed, or what was meant.
    pub help: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are meant; at least 1.
    pub length: usize,
    /// The line's text; of a long line, a part around the place, or its beginning.
    pub text: String,
    /// The column that the text begins at, from 1.
    pub start: usize,
    /// Whether the line is one of the text after aliases and templates, because none of the file stands for it.
    pub rendered: bool,
}

/// All that is wrong with a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// At least one; at most a hundred are told.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub more: usize,
    /// What its author should know besides; at most a hundred.
    pub warnings: Vec<Fault>,
}

impl Fault {
    /// A fault of no file.
    pub(super) fn bare(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), help: Some(help.into()) }
    }
}

impl Faults {
    pub(crate) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.line, place.column)));
        let more = faults.len().saturating_sub(MAX_TOLD);
        faults.truncate(MAX_TOLD);
        Self { faults, more, warnings: Vec::new() }
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault], ..Self::default() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = if self.rendered { " after rendering" } else { "" };
        write!(f, "{}{after}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Faults {}
