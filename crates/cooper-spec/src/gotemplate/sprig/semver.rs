//! Versions and what is asked of them.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::value::Val;

mod constraint;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("semver", 1, |_, args| Ok(version(parsed(args, 0)?))),
    exact("semverCompare", 2, |_, args| {
        let constraint = args.text(0)?;
        let wrong = || "argument 1 of `semverCompare` is no constraint, such as `>=1.2, <2 || ^3`".to_owned();
        let constraints = constraint::parse(constraint).ok_or_else(wrong)?;
        let version = parsed(args, 1)?;
        Ok(Val::Bool(constraints.iter().any(|all| all.iter().all(|one| one.allows(&version)))))
    }),
];

/// A semantic version, with `v` in front or parts missing if it is written so.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::gotemplate) struct Version {
    major: i64,
    minor: i64,
    patch: i64,
    prerelease: String,
    metadata: String,
    original: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.prerelease.is_empty() {
            write!(f, "-{}", self.prerelease)?;
        }
        if !self.metadata.is_empty() {
            write!(f, "+{}", self.metadata)?;
        }
        Ok(())
    }
}

fn version(version: Version) -> Val {
    Val::Version(Rc::new(version))
}

fn parsed(args: &Args<'_>, index: usize) -> Outcome<Version> {
    let wrong = || format!("argument {} of `{}` is no version, such as `1.2.3`", index + 1, args.function);
    Ok(Version::parse(args.text(index)?).ok_or_else(wrong)?)
}

/// A version's text in its parts: numbers as they are written, then what stands behind `-` and `+`.
struct Parts<'t> {
    numbers: Vec<&'t str>,
    prerelease: &'t str,
    metadata: &'t str,
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, tail) = text.split_at(end);
    let (prerelease, metadata) = match tail.split_once('+') {
        Some((before, metadata)) => (before, Some(metadata)),
        None => (tail, None),
    };
    let prerelease = match prerelease {
        "" => "",
        text => Some(&text[1..]).filter(|text| is_identifier(text))?,
    };
    let metadata = match metadata {
        None => "",
        Some(text) => Some(text).filter(|text| is_identifier(text))?,
    };
    let numbers: Vec<&str> = core.split('.').collect();
    (numbers.len() <= 3).then_some(Parts { numbers, prerelease, metadata })
}

fn is_identifier(text: &str) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let parts = parts(text)?;
        let mut numbers = [0; 3];
        for (number, text) in numbers.iter_mut().zip(&parts.numbers) {
            *number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
        }
        let [major, minor, patch] = numbers;
        Some(Self {
            major,
            minor,
            patch,
            prerelease: parts.prerelease.to_owned(),
            metadata: parts.metadata.to_owned(),
            original: text.to_owned(),
        })
    }

    /// Precedence: metadata counts for nothing, and a prerelease comes before its release.
    fn order(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| [version.major, version.minor, version.patch];
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.prerelease.as_str(), other.prerelease.as_str()) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (a, b) => order_prereleases(a, b),
        })
    }

    fn next(&self, part: &str) -> Self {
        let mut next = Self { prerelease: String::new(), metadata: String::new(), ..self.clone() };
        match part {
            "IncMajor" => (next.major, next.minor, next.patch) = (self.major.saturating_add(1), 0, 0),
            "IncMinor" => (next.minor, next.patch) = (self.minor.saturating_add(1), 0),
            // A prerelease goes on to its own release.
            _ if self.prerelease.is_empty() => next.patch = self.patch.saturating_add(1),
            _ => {}
        }
        let v = if self.original.starts_with('v') { "v" } else { "" };
        next.original = format!("{v}{next}");
        next
    }
}

fn order_prereleases(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The methods of a version.
pub(super) fn method(this: &Version, args: &Args<'_>) -> Option<Outcome<Val>> {
    let arguments = usize::from(matches!(
        args.function,
        "Compare" | "Equal" | "LessThan" | "GreaterThan" | "SetPrerelease" | "SetMetadata"
    ));
    let order = || Ok(this.order(args.version(0)?));
    let result = match args.function {
        "Major" => Ok(Val::int64(this.major)),
        "Minor" => Ok(Val::int64(this.minor)),
        "Patch" => Ok(Val::int64(this.patch)),
        "Prerelease" => Ok(Val::text(&this.prerelease)),
        "Metadata" => Ok(Val::text(&this.metadata)),
        "Original" => Ok(Val::text(&this.original)),
        "String" => Ok(Val::text(&this.to_string())),
        "IncMajor" | "IncMinor" | "IncPatch" => Ok(version(this.next(args.function))),
        "Compare" => order().map(|order| Val::int(order as i64)),
        "Equal" => order().map(|order| Val::Bool(order == Ordering::Equal)),
        "LessThan" => order().map(|order| Val::Bool(order == Ordering::Less)),
        "GreaterThan" => order().map(|order| Val::Bool(order == Ordering::Greater)),
        "SetPrerelease" | "SetMetadata" => set(this, args),
        _ => return None,
    };
    if args.values.len() != arguments {
        return Some(Err(format!("`{}` takes {arguments} arguments, not {}", args.function, args.values.len()).into()));
    }
    Some(result)
}

fn set(this: &Version, args: &Args<'_>) -> Outcome<Val> {
    let text = args.text(0)?;
    if !text.is_empty() && !is_identifier(text) {
        return Err(format!("`{}` takes letters, digits, `-` and `.`", args.function).into());
    }
    let mut changed = this.clone();
    let place = if args.function == "SetMetadata" { &mut changed.metadata } else { &mut changed.prerelease };
    text.clone_into(place);
    changed.original = changed.to_string();
    Ok(version(changed))
}
