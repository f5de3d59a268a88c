//! `cooper.toml`: flat keys with a text, a number or a truth value each, and a table where a setting is one. What it
//! doesn't know is a fault.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Key;
use crate::fault::Fault;

/// The values of a file, as text.
#[derive(Debug, Default)]
pub(super) struct FileValues {
    values: Vec<(Key, String, String)>,
}

impl FileValues {
    /// Reads a file's text. Keys with faults are left out.
    pub(super) fn parse(path: &Path, text: &str, faults: &mut Vec<Fault>) -> Self {
        let place = |at: usize| {
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            format!("{}:{line}", path.display())
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let reason = error.message().replace('\n', ", ");
                faults.push(Fault::usage(format!("{}: {reason}", place(at))));
                return Self::default();
            }
        };
        let mut values = Vec::new();
        let mut entries: Vec<(Spanned<_>, Spanned<DeValue<'_>>)> = table.into_iter().collect();
        // In the order of the file, so that faults are.
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let origin = place(key.span().start);
            let name = key.get_ref();
            let Some(known) = Key::named(name) else {
                let way_out = match Key::nearest(name) {
                    Some(near) => format!("did you mean `{}`?", near.name()),
                    None => format!("known keys are {}", Key::ALL.map(Key::name).join(", ")),
                };
                faults.push(Fault::usage(format!("{origin}: unknown key `{name}`; {way_out}")));
                continue;
            };
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Boolean(value) => value.to_string(),
                DeValue::Table(table) if known == Key::ImageAliases => match pairs(table) {
                    Some(text) => text,
                    None => {
                        let what =
                            format!("{origin}: table `{name}` must have the line NAME = \"IMAGE\" for each alias");
                        faults.push(Fault::usage(what));
                        continue;
                    }
                },
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                    let what = format!("{origin}: key `{name}` must be a text, a number or true/false");
                    faults.push(Fault::usage(what));
                    continue;
                }
            };
            values.push((known, origin, text));
        }
        Self { values }
    }

    /// A key's line, as `FILE:LINE`, and its text.
    pub(super) fn get(&self, key: Key) -> Option<(String, String)> {
        let (_, origin, text) = self.values.iter().find(|(known, _, _)| *known == key)?;
        Some((origin.clone(), text.clone()))
    }
}

/// A table of texts as `NAME=TEXT`, with commas between them; `None` if it holds anything else.
fn pairs(table: &DeTable<'_>) -> Option<String> {
    let mut pairs: Vec<(usize, String)> = Vec::new();
    for (key, value) in table.iter() {
        let DeValue::String(text) = value.get_ref() else { return None };
        pairs.push((key.span().start, format!("{}={text}", key.get_ref())));
    }
    pairs.sort();
    Some(pairs.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>().join(","))
}
