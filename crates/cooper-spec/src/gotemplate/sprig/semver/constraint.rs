//! Constraints such as `>=1.2, <2 || ^3`.

use std::cmp::Ordering;

use super::{Parts, Version, parts};

/// One comparison.
#[derive(Debug)]
pub(super) struct Constraint {
    operator: Operator,
    version: Version,
    /// Whether the minor number, or any number, is left open, as in `1.x` and `1.2.x`.
    open_minor: bool,
    open_patch: bool,
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// Longer signs stand before those that they begin with.
const OPERATORS: &[(&str, Operator)] = &[
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("=>", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=<", Operator::LessOrEqual),
    ("~>", Operator::Tilde),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    ("=", Operator::Equal),
];

/// Alternatives, of which each is a list that must hold as a whole.
pub(super) fn parse(text: &str) -> Option<Vec<Vec<Constraint>>> {
    text.split("||")
        .map(|all| all.split(',').map(range).collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect()))
        .collect()
}

/// A comparison, or two for `1.2 - 2.3`.
fn range(text: &str) -> Option<Vec<Constraint>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [low, "-", high] = words[..] {
        return Some(vec![
            Constraint::new(Operator::GreaterOrEqual, low)?,
            Constraint::new(Operator::LessOrEqual, high)?,
        ]);
    }
    let text = text.trim();
    let found = OPERATORS.iter().find(|(sign, _)| text.starts_with(sign));
    let (sign, operator) = found.copied().unwrap_or(("", Operator::Equal));
    Some(vec![Constraint::new(operator, text[sign.len()..].trim_start())?])
}

fn is_open(number: &str) -> bool {
    matches!(number, "x" | "X" | "*")
}

impl Constraint {
    fn new(operator: Operator, text: &str) -> Option<Self> {
        let Parts { numbers, prerelease, .. } = parts(text)?;
        let open_major = is_open(numbers[0]);
        let open_minor = !open_major && numbers.get(1).is_none_or(|number| is_open(number));
        let open_patch = !open_major && !open_minor && numbers.get(2).is_some_and(|number| is_open(number));
        let kept = if open_major {
            0
        } else if open_minor {
            1
        } else if open_patch {
            2
        } else {
            numbers.len()
        };
        let core = if kept == 0 { "0".to_owned() } else { numbers[..kept].join(".") };
        let tail = if prerelease.is_empty() || open_major { String::new() } else { format!("-{prerelease}") };
        Some(Self {
            operator,
            version: Version::parse(&format!("{core}{tail}"))?,
            open_minor,
            open_patch,
            open: open_major || open_minor || open_patch,
        })
    }

    pub(super) fn allows(&self, version: &Version) -> bool {
        let order = version.order(&self.version);
        // A prerelease is allowed by name only.
        let unnamed = !version.prerelease.is_empty() && self.version.prerelease.is_empty();
        if self.operator == Operator::NotEqual {
            return if self.open { !unnamed && self.differs(version) } else { order != Ordering::Equal };
        }
        if unnamed {
            return false;
        }
        match self.operator {
            Operator::NotEqual => false,
            Operator::Greater => order == Ordering::Greater,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Less | Operator::LessOrEqual if self.open => {
                version.major <= self.version.major && (self.open_minor || version.minor <= self.version.minor)
            }
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater,
            Operator::Equal if !self.open => order == Ordering::Equal,
            Operator::Equal | Operator::Tilde => order != Ordering::Less && self.is_near(version),
            Operator::Caret => order != Ordering::Less && version.major == self.version.major,
        }
    }

    fn differs(&self, version: &Version) -> bool {
        version.major != self.version.major || (version.minor != self.version.minor && !self.open_minor)
    }

    /// `~`: the same major and, unless it is open, minor number. `~0.0.0` takes everything.
    fn is_near(&self, version: &Version) -> bool {
        let own = &self.version;
        let takes_all = (own.major, own.minor, own.patch) == (0, 0, 0) && !self.open_minor && !self.open_patch;
        takes_all || !self.differs(version)
    }
}
