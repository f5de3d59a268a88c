//! Functions: their table, how they are found, and how they take their arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::LazyLock;

use super::error::Outcome;
use super::heap::Heap;
use super::number;
use super::sprig::{Moment, Version};
use super::value::{List, MapId, Val};
use super::{builtins, sprig};

/// A function that templates can call.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// The fewest arguments that it takes.
    pub(super) min: usize,
    /// The most; `MANY` for any number.
    pub(super) max: usize,
    pub(super) call: fn(&mut Heap, &Args<'_>) -> Outcome<Val>,
}

/// Any number of arguments.
pub(super) const MANY: usize = usize::MAX;

/// A function of exactly this many arguments.
pub(super) const fn exact(
    name: &'static str,
    arguments: usize,
    call: fn(&mut Heap, &Args<'_>) -> Outcome<Val>,
) -> Function {
    Function { name, min: arguments, max: arguments, call }
}

/// A function of at least this many arguments.
pub(super) const fn many(name: &'static str, min: usize, call: fn(&mut Heap, &Args<'_>) -> Outcome<Val>) -> Function {
    Function { name, min, max: MANY, call }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All functions. Sprig's come later: its `slice` replaces Go's, as in Sprig.
static FUNCTIONS: LazyLock<BTreeMap<&'static str, &'static Function>> = LazyLock::new(|| {
    let tables = [builtins::FUNCTIONS].into_iter().chain(sprig::TABLES.iter().copied());
    tables.flatten().map(|function| (function.name, function)).collect()
});

/// Functions of ACR's list that are refused, why, and the way out.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["env", "expandenv"],
        "it would show the server's environment; pass the value as `--set name=value` and read `.Values.name`",
    ),
    (&["getHostByName"], "planning asks no network; resolve the name in a step, or pass the address with `--set`"),
    (
        &["randAlpha", "randAlphaNum", "randAscii", "randNumeric", "shuffle", "uuidv4"],
        "a task must render to the same text every time; use `.Run.ID`, which is unique, or make the value in a step",
    ),
    (
        &["genPrivateKey", "genCA", "genSelfSignedCert", "genSignedCert", "buildCustomCert"],
        "keys and certificates don't belong into a task's text; make them in a step, or keep them as a secret",
    ),
    (
        &["derivePassword", "encryptAES", "decryptAES"],
        "secrets are not made or opened by templates; keep the value as a secret and read `.Secrets.name`",
    ),
    (&["call"], "the data of a task holds no functions"),
];

/// The function of this name, or what is wrong with the name.
pub(super) fn find(name: &str) -> Result<&'static Function, String> {
    if let Some(function) = FUNCTIONS.get(name) {
        return Ok(function);
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return Err(format!("function `{name}` is refused: {reason}"));
    }
    let shown = &name[..name.floor_char_boundary(80)];
    let nearest =
        FUNCTIONS.keys().map(|known| (strsim::osa_distance(&shown.to_lowercase(), &known.to_lowercase()), known));
    match nearest.min() {
        Some((distance, known)) if distance <= 1 + shown.len() / 4 => {
            Err(format!("function `{shown}` is unknown, did you mean `{known}`?"))
        }
        _ => Err(format!("function `{shown}` is unknown; a field of the data begins with a dot, such as `.Run.ID`")),
    }
}

/// The names of all functions.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied()
}

/// A call's arguments. Those that are taken by type say what they expect.
pub(super) struct Args<'a> {
    pub(super) function: &'a str,
    pub(super) values: &'a [Val],
}

impl Args<'_> {
    fn wrong<T>(&self, index: usize, expected: &str, way_out: &str) -> Outcome<T> {
        let got = self.values.get(index).unwrap_or(&Val::Nil).described();
        let index = index + 1;
        Err(format!("argument {index} of `{}` must be {expected}, not {got}{way_out}", self.function).into())
    }

    pub(super) fn get(&self, index: usize) -> &Val {
        self.values.get(index).unwrap_or(&Val::Nil)
    }

    /// Those from `index` on.
    pub(super) fn from(&self, index: usize) -> &[Val] {
        self.values.get(index..).unwrap_or_default()
    }

    pub(super) fn text(&self, index: usize) -> Outcome<&str> {
        match self.get(index) {
            Val::Text(text) => Ok(text),
            Val::Nil => self.wrong(index, "a string", "; give it one with `default`"),
            _ => self.wrong(index, "a string", "; make it one with `toString`"),
        }
    }

    pub(super) fn int(&self, index: usize) -> Outcome<i64> {
        match self.get(index) {
            Val::Int(int, _) | Val::Named(int, ..) => Ok(*int),
            Val::Float(float) if number::whole(*float).is_some() => Ok(*float as i64),
            Val::Nil => self.wrong(index, "an int", "; give it one with `default`"),
            _ => self.wrong(index, "an int", "; make it one with `int`"),
        }
    }

    /// A count or a width; negative ones are as the function says.
    pub(super) fn float(&self, index: usize) -> Outcome<f64> {
        match self.get(index) {
            Val::Float(float) => Ok(*float),
            Val::Int(int, _) => Ok(*int as f64),
            _ => self.wrong(index, "a float", "; make it one with `float64`"),
        }
    }

    pub(super) fn bool(&self, index: usize) -> Outcome<bool> {
        match self.get(index) {
            Val::Bool(bool) => Ok(*bool),
            _ => self.wrong(index, "a bool", "; compare it, or ask `not (empty …)`"),
        }
    }

    pub(super) fn list(&self, index: usize) -> Outcome<&Rc<List>> {
        match self.get(index) {
            Val::List(list) => Ok(list),
            _ => self.wrong(index, "a list", "; make one with `list`"),
        }
    }

    pub(super) fn map(&self, index: usize) -> Outcome<MapId> {
        match self.get(index) {
            Val::Map(map) => Ok(*map),
            _ => self.wrong(index, "a map", "; make one with `dict`"),
        }
    }

    pub(super) fn moment(&self, index: usize) -> Outcome<&Moment> {
        match self.get(index) {
            Val::Moment(moment) => Ok(moment),
            _ => self.wrong(index, "a time", "; make one with `toDate`, or take `now`"),
        }
    }

    pub(super) fn version(&self, index: usize) -> Outcome<&Version> {
        match self.get(index) {
            Val::Version(version) => Ok(version),
            _ => self.wrong(index, "a version", "; make one with `semver`"),
        }
    }
}
