//! An object of the file, read by its table: what is unknown, repeated or of the wrong kind becomes a fault, and reading goes on.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fault::Fault;
use super::keys::{Form, Table};
use super::lines::Lines;
use super::scalar;
use super::yaml::{At, Kind, Node};

/// Where faults gather while a text is read.
#[derive(Debug)]
pub(super) struct Report<'a> {
    lines: &'a Lines<'a>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Told<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// An object's values by key.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    table: &'static Table,
    /// Where the object stands.
    pub(super) at: At,
    values: BTreeMap<&'static str, (At, &'n Node)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(lines: &'a Lines<'a>) -> Self {
        Self { lines, faults: Vec::new(), warnings: Vec::new() }
    }

    /// The place of a part of a scalar, in bytes of its text.
    pub(super) fn within(&self, scalar: &Told<String>, part: Range<usize>) -> At {
        scalar::part(self.lines.line(scalar.at), scalar.at, &scalar.value, part)
    }

    /// The file's line that a place stands for.
    pub(super) fn line(&self, at: At) -> usize {
        self.lines.place(at).line
    }

    pub(super) fn fault(&mut self, at: At, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(self.lines.fault(at, message, Some(help.into())));
    }

    pub(super) fn warn(&mut self, at: At, message: impl Into<String>, help: impl Into<String>) {
        self.warnings.push(self.lines.fault(at, message, Some(help.into())));
    }
}

impl<'n> Fields<'n> {
    /// Reads an object. A node of another kind is a fault, and so is nothing where something is required.
    pub(super) fn read(node: &'n Node, table: &'static Table, report: &mut Report<'_>) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            let message = format!("{} is {}", table.object, node.is_a());
            report.fault(node.at, message, format!("write a map with the keys {}", names(table)));
            return None;
        };
        let mut fields = Self { table, at: node.at, values: BTreeMap::new() };
        let mut merged = Vec::new();
        for (key, value) in entries {
            let Kind::Scalar { text, plain } = &key.kind else {
                report.fault(
                    key.at,
                    format!("a key of {} is {}", table.object, key.is_a()),
                    "write a name before the colon",
                );
                continue;
            };
            if *plain && text == "<<" {
                merged.push(value);
                continue;
            }
            match table.key(text) {
                Some(known) => {
                    if let Some((before, _)) = fields.values.insert(known.name, (key.at, value)) {
                        let message = format!("key `{text}` is there twice");
                        let line = report.line(before);
                        report.warn(key.at, message, format!("this one counts, the one in line {line} does not"));
                    }
                }
                None => {
                    report.warn(key.at, format!("{} has no key `{}`", table.object, clip(text)), meant(text, table))
                }
            }
        }
        for value in merged {
            fields.merge(value, report);
        }
        Some(fields)
    }

    /// A YAML merge key: what it names counts where the object says nothing itself.
    fn merge(&mut self, value: &'n Node, report: &mut Report<'_>) {
        let maps: Vec<&Node> = match &value.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![value],
        };
        for map in maps {
            match &map.kind {
                Kind::Map(entries) => {
                    for (key, value) in entries {
                        let Kind::Scalar { text, .. } = &key.kind else { continue };
                        if let Some(known) = self.table.key(text) {
                            self.values.entry(known.name).or_insert((key.at, value));
                        }
                    }
                }
                _ => report.fault(map.at, format!("`<<` merges {}", map.is_a()), "let it name a map or a list of maps"),
            }
        }
    }

    /// The keys that are there, with their places.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, At)> {
        self.values.iter().map(|(name, (at, _))| (*name, *at))
    }

    /// Where a key stands, or else the object.
    pub(super) fn at(&self, name: &str) -> At {
        self.values.get(name).map_or(self.at, |(at, _)| *at)
    }

    /// The node behind a key, unless it says nothing.
    pub(super) fn node(&self, name: &'static str) -> Option<&'n Node> {
        debug_assert!(self.table.key(name).is_some(), "`{name}` is in the table of {}", self.table.object);
        self.values.get(name).map(|(_, node)| *node).filter(|node| !node.is_null())
    }

    fn wrong(&self, name: &str, node: &Node, help: impl Into<String>, report: &mut Report<'_>) {
        report.fault(node.at, format!("`{name}` of {} is {}", self.table.object, node.is_a()), help);
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &'static str, report: &mut Report<'_>) -> Option<Told<String>> {
        let node = self.node(name)?;
        match &node.kind {
            Kind::Scalar { text, .. } if text.is_empty() => None,
            Kind::Scalar { text, .. } => Some(Told { value: text.clone(), at: node.at }),
            _ => {
                self.wrong(name, node, "write one text", report);
                None
            }
        }
    }

    /// A boolean; false if absent.
    pub(super) fn flag(&self, name: &'static str, report: &mut Report<'_>) -> bool {
        let Some(node) = self.node(name) else { return false };
        let value = match &node.kind {
            Kind::Scalar { text, plain: true } => boolean(text),
            _ => None,
        };
        value.unwrap_or_else(|| {
            let help = "write true or false, without quotes; yes, no, on and off count too";
            match &node.kind {
                Kind::Scalar { text, .. } => {
                    let message = format!("`{name}` of {} is `{}`, which is no boolean", self.table.object, clip(text));
                    report.fault(node.at, message, help);
                }
                _ => self.wrong(name, node, help, report),
            }
            false
        })
    }

    /// A whole number.
    pub(super) fn number(&self, name: &'static str, report: &mut Report<'_>) -> Option<Told<i64>> {
        let node = self.node(name)?;
        let help = "write a whole number, without quotes";
        match &node.kind {
            Kind::Scalar { text, plain } => match integer(text).filter(|_| *plain) {
                Some(value) => {
                    let least = match self.table.key(name).map(|key| key.form) {
                        Some(Form::Number(least)) => least,
                        _ => i64::MIN,
                    };
                    if value < least {
                        let message = format!("`{name}` of {} is {value}", self.table.object);
                        report.fault(node.at, message, format!("write {least} or more"));
                        return None;
                    }
                    Some(Told { value, at: node.at })
                }
                None => {
                    let message = format!("`{name}` of {} is `{}`, which is no number", self.table.object, clip(text));
                    report.fault(node.at, message, help);
                    None
                }
            },
            _ => {
                self.wrong(name, node, help, report);
                None
            }
        }
    }

    /// One of a few texts, in any letter case.
    pub(super) fn choice(&self, name: &'static str, report: &mut Report<'_>) -> Option<Told<&'static str>> {
        let told = self.text(name, report)?;
        let Some(Form::Choice(values)) = self.table.key(name).map(|key| key.form) else { return None };
        match values.iter().find(|value| value.eq_ignore_ascii_case(&told.value)) {
            Some(value) => Some(Told { value, at: told.at }),
            None => {
                let message = format!("`{name}` of {} is `{}`", self.table.object, clip(&told.value));
                report.fault(told.at, message, format!("write {}", values.join(" or ")));
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &'static str, report: &mut Report<'_>) -> Vec<Told<String>> {
        self.list(name, report)
            .iter()
            .filter_map(|item| match &item.kind {
                Kind::Scalar { .. } if item.is_null() => Some(Told { value: String::new(), at: item.at }),
                Kind::Scalar { text, .. } => Some(Told { value: text.clone(), at: item.at }),
                _ => {
                    let message = format!("an entry of `{name}` of {} is {}", self.table.object, item.is_a());
                    report.fault(item.at, message, "write a text; one that holds `: ` needs quotes");
                    None
                }
            })
            .collect()
    }

    /// A list's items.
    pub(super) fn list(&self, name: &'static str, report: &mut Report<'_>) -> &'n [Node] {
        let Some(node) = self.node(name) else { return &[] };
        match &node.kind {
            Kind::List(items) => items,
            Kind::Scalar { text, .. } => {
                let message = format!("`{name}` of {} is a text, not a list", self.table.object);
                report.fault(node.at, message, format!("write `{name}: [\"{}\"]`", clip(text)));
                &[]
            }
            Kind::Map(_) => {
                self.wrong(name, node, "write a list: each entry in a line that begins with `- `", report);
                &[]
            }
        }
    }

    /// A list of objects.
    pub(super) fn maps(&self, name: &'static str, report: &mut Report<'_>) -> Vec<Fields<'n>> {
        let Some(Form::Maps(table)) = self.table.key(name).map(|key| key.form) else { return Vec::new() };
        self.list(name, report).iter().filter_map(|item| Fields::read(item, table, report)).collect()
    }

    /// A map of texts; absent is not the same as empty.
    pub(super) fn text_map(
        &self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Vec<(Told<String>, Told<String>)>> {
        let node = self.node(name)?;
        let Kind::Map(entries) = &node.kind else {
            self.wrong(name, node, "write a map: `NAME: TEXT` in each line", report);
            return None;
        };
        let mut pairs: Vec<(Told<String>, Told<String>)> = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for (key, value) in entries {
            match (&key.kind, &value.kind) {
                (Kind::Scalar { text: name, .. }, Kind::Scalar { text, .. }) => {
                    let text = if value.is_null() { String::new() } else { text.clone() };
                    let told = (Told { value: name.clone(), at: key.at }, Told { value: text, at: value.at });
                    match known.get(name.as_str()).copied() {
                        Some(index) => {
                            let line = report.line(pairs[index].0.at);
                            let message = format!("key `{}` is there twice", clip(name));
                            report.warn(key.at, message, format!("this one counts, the one in line {line} does not"));
                            pairs[index] = told;
                        }
                        None => {
                            known.insert(name, pairs.len());
                            pairs.push(told);
                        }
                    }
                }
                (Kind::Scalar { text, .. }, _) => {
                    report.fault(value.at, format!("`{}` is {}", clip(text), value.is_a()), "write one text");
                }
                _ => report.fault(
                    key.at,
                    format!("a key of `{name}` is {}", key.is_a()),
                    "write a name before the colon",
                ),
            }
        }
        Some(pairs)
    }
}

/// What is said of a key that nothing knows.
fn meant(text: &str, table: &Table) -> String {
    match table.meant(text) {
        Some(name) => format!("it has no effect; did you mean `{name}`?"),
        None => format!("it has no effect; known are {}", names(table)),
    }
}

fn names(table: &Table) -> String {
    table.keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

/// A text as a message shows it.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// YAML 1.1's booleans.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// YAML 1.1's whole numbers, as ACR's parser has them: `1_000`, `0x1f`, `0o17`, `017` and `0b11` too, and floats, cut.
pub(super) fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.as_str() {
        text if text.starts_with("0x") => (16, &text[2..]),
        text if text.starts_with("0o") => (8, &text[2..]),
        text if text.starts_with("0b") => (2, &text[2..]),
        text if text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) => (8, &text[1..]),
        text => (10, text),
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    match i64::from_str_radix(body, radix) {
        Ok(value) => Some(if negative { -value } else { value }),
        Err(_) if radix == 10 && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            let value: f64 = plain.parse().ok()?;
            (value.abs() < 9e15).then_some(value.trunc() as i64)
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_booleans_are_those_of_acr_s_parser() {
        let table = [
            ("300", Some(300)),
            ("-5", Some(-5)),
            ("+5", Some(5)),
            ("1_000", Some(1000)),
            ("0x1F", Some(31)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("0", Some(0)),
            ("1.0", Some(1)),
            ("1.9", Some(1)),
            ("1e3", Some(1000)),
            ("-1.5", Some(-1)),
            ("", None),
            ("5s", None),
            ("--5", None),
            ("0x", None),
            ("0x-1", None),
            ("nan", None),
            (".inf", None),
            ("1e300", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(integer(text), expected, "{text}");
        }
        for text in ["y", "Yes", "TRUE", "on", "On"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["n", "No", "FALSE", "off", "OFF"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["", "yES", "1", "enabled"] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }
}
