//! Sprig 2.22's functions that depend on their arguments alone, by theme.

mod dates;
mod dicts;
mod encoding;
mod json;
mod lists;
mod math;
mod paths;
mod reflect;
mod regex;
mod semver;
mod strings;
mod urls;
mod words;

use super::error::Outcome;
use super::function::{Args, Function};
use super::heap::Heap;
use super::print;
use super::value::Val;

pub(super) use dates::Moment;
pub(super) use regex::Patterns;
pub(super) use semver::Version;

/// All tables.
pub(super) const TABLES: &[&[Function]] = &[
    dates::FUNCTIONS,
    dicts::FUNCTIONS,
    encoding::FUNCTIONS,
    json::FUNCTIONS,
    lists::FUNCTIONS,
    math::FUNCTIONS,
    paths::FUNCTIONS,
    reflect::FUNCTIONS,
    regex::FUNCTIONS,
    semver::FUNCTIONS,
    strings::FUNCTIONS,
    urls::FUNCTIONS,
    words::FUNCTIONS,
];

/// Steps that a byte of a time's layout costs: each is held against all that a layout may say.
pub(super) const LAYOUT_BYTE: u64 = 4;

/// What a value that is no map does under a field's name: times and versions have methods.
pub(super) fn method(receiver: &Val, name: &str, values: &[Val]) -> Option<Outcome<Val>> {
    let args = Args { function: name, values };
    match receiver {
        Val::Moment(moment) => dates::method(moment, &args),
        Val::Version(version) => semver::method(version, &args),
        _ => None,
    }
}

/// Sprig's `toString`: texts as they are, others as `%v`.
fn string(heap: &Heap, value: &Val) -> Outcome<String> {
    print::shown(heap, value)
}
