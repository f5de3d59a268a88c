//! The text of a step's `build` or `cmd`: its words, and where each of them stands in the file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::task::fields::{Report, Told};
use crate::task::flags::Note;
use crate::task::read::Shared;
use crate::task::words::{self, Misread, Rules, Words};
use crate::task::yaml::At;

/// ACR's own image aliases: without one of the operator's they mean images of Docker Hub.
const IMAGE_ALIASES: &[&str] = &["acr", "az", "bash", "curl", "cssc"];

/// The text of a `build` or a `cmd`, and the text that is read in its place.
pub(super) struct Line {
    pub(super) told: Told<String>,
    /// What is read: the text, with what an alias stands for at its beginning.
    read: String,
    /// How many bytes of the text and of what is read the alias is, and what it stands for.
    alias: (usize, usize),
}

impl Line {
    pub(super) fn of(told: Told<String>) -> Self {
        Self { read: told.value.clone(), told, alias: (0, 0) }
    }

    /// The place in the file of some bytes of what is read.
    fn at(&self, place: &Range<usize>, report: &Report<'_>) -> At {
        let (name, value) = self.alias;
        let own = |byte: usize| if byte < value { byte.min(name) } else { byte - value + name };
        let part = match place.start < value {
            true => 0..own(place.end).max(name),
            false => own(place.start)..own(place.end),
        };
        report.within(&self.told, part)
    }

    pub(super) fn notes(&self, found: &Words, notes: Vec<Note>, report: &mut Report<'_>) {
        for note in notes {
            let at = note.word.and_then(|word| found.places.get(word)).map(|place| self.at(place, report));
            tell(at.unwrap_or(self.told.at), note, report);
        }
    }
}

/// Splits a step's text into words.
pub(super) fn split(line: &Line, kind: &str, windows: bool, report: &mut Report<'_>) -> Option<Words> {
    if let Some(byte) = line.read.find('\0') {
        let at = line.at(&(byte..byte + 1), report);
        report.fault(at, format!("`{kind}` holds a NUL character"), "take it away");
        return None;
    }
    match words::split(&line.read, Rules { windows, lines_go_on: kind == "build" }) {
        Ok(found) => {
            if let (Some(first), Some(place)) = (found.left.first(), &found.first_left) {
                let message = format!("`{first}` in `{kind}` is not replaced");
                let help = match kind {
                    "cmd" => {
                        "ACR's agent would replace it; here it reaches the container as it is: write it in single quotes"
                    }
                    _ => "ACR's agent would replace it; here it stays as it is: write the value, or a template",
                };
                report.warn(line.at(place, report), message, help);
            }
            Some(found)
        }
        Err(Misread { error, at }) => {
            report.fault(line.at(&at, report), format!("`{kind}` can't be read: {error}"), error.help());
            None
        }
    }
}

pub(super) fn tell(at: At, note: Note, report: &mut Report<'_>) {
    match note.fault {
        true => report.fault(at, note.message, note.help),
        false => report.warn(at, note.message, note.help),
    }
}

/// A `cmd` whose first word is an alias has what it stands for instead.
pub(super) fn with_alias(told: Told<String>, shared: &Shared<'_>, report: &mut Report<'_>) -> Line {
    if !shared.version.has_aliases() {
        return Line::of(told);
    }
    if let Some((name, value)) = alias_of(&told.value, shared.aliases) {
        let blanks = told.value.len() - told.value.trim_start().len();
        let read = told.value.replacen(name, value, 1);
        return Line { alias: (blanks + name.len(), blanks + value.len()), read, told };
    }
    let first = first_word(&told.value);
    if IMAGE_ALIASES.contains(&first) {
        let message = format!("`{first}` is ACR's alias of an image, and this server has none of that name");
        report.warn(told.at, message, format!("the image `{first}` is taken; name the image that is meant"));
    }
    Line::of(told)
}

/// The alias that a `cmd` begins with, and what it stands for.
pub(in crate::task) fn alias_of<'t>(cmd: &'t str, aliases: &'t BTreeMap<String, String>) -> Option<(&'t str, &'t str)> {
    let (name, value) = aliases.get_key_value(first_word(cmd))?;
    Some((name, value))
}

fn first_word(text: &str) -> &str {
    let text = text.trim();
    &text[..text.find([' ', '\t', '\n']).unwrap_or(text.len())]
}
