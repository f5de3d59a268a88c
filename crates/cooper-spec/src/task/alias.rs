//! Aliases: the block of a file that declares them, and the texts that they stand for (contract §4.4).
//!
//! They are replaced in the text, before it is a template and before it is YAML. Owns the block's limits, its rules and the
//! scanner.

use std::collections::BTreeMap;

use cooper_types::{ImageRef, RegistryName};

use super::fault::Fault;
use super::fields::{Fields, Report, Told, clip};
use super::inputs::{AliasSource, TaskInputs};
use super::keys;
use super::lines::{Lines, Source};
use super::yaml::{self, At, Kind};

/// The fields of `.Run` that have an alias of the same name.
pub(super) const PREDEFINED: &[&str] =
    &["ID", "SharedVolume", "Registry", "RegistryName", "Date", "OS", "Architecture", "Commit", "Branch"];
const DIRECTIVE: char = '$';

/// The image of ACR's own client, which is an alias in ACR. The server has a program of its own in its place.
pub const ACR_CLI: &str = "mcr.microsoft.com/acr/acr-cli:0.19";

/// Whether an image is that of ACR's own client, of whatever version.
pub fn is_acr_cli(image: &ImageRef) -> bool {
    let registry = image.registry.as_ref().map(RegistryName::as_str);
    registry == Some("mcr.microsoft.com") && image.repository.as_str() == "acr/acr-cli"
}

/// What stands in an alias block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) sources: Vec<Told<String>>,
    values: Vec<(Told<String>, Told<String>)>,
    directive: char,
}

/// The aliases that count for a file.
#[derive(Debug)]
pub(super) struct Aliases {
    directive: char,
    /// What is put into the text, which is a template.
    texts: BTreeMap<String, String>,
    /// What a `cmd` may begin with, by name: not the run's variables, which are no images.
    pub(super) commands: BTreeMap<String, String>,
}

/// Cuts the alias block out of a file: the rest, and the block.
pub(super) fn cut<'a>(lines: &Lines<'a>) -> (Lines<'a>, Option<Lines<'a>>) {
    let starts = |line: &str| line.strip_prefix("alias").is_some_and(|rest| rest.trim_start().starts_with(':'));
    let Some(start) = lines.iter().position(starts) else { return (lines.clone(), None) };
    let ends = |line: &str| {
        let first = line.chars().next();
        line.starts_with("- ") || first.is_some_and(|c| !c.is_whitespace() && c != ':') && line.contains(':')
    };
    let end = lines.iter().skip(start + 1).position(ends).map_or(usize::MAX, |length| start + 1 + length);
    let inside = |index: usize| index >= start && index < end;
    (lines.filter(|index, _| !inside(index)), Some(lines.filter(|index, _| inside(index))))
}

/// Reads a rendered block.
pub(super) fn read(lines: &Lines<'_>, report: &mut Report<'_>) -> Option<Block> {
    let mut block = Block { sources: Vec::new(), values: Vec::new(), directive: DIRECTIVE };
    let document = match yaml::parse(&lines.text()) {
        Ok(document) => document,
        Err(fault) => {
            report.fault(
                fault.at,
                format!("the alias block is no YAML: {}", fault.message),
                "see the line's indentation",
            );
            return None;
        }
    };
    let Some(Kind::Map(entries)) = document.root.map(|root| root.kind) else { return Some(block) };
    let Some((_, node)) = entries.first().filter(|(_, node)| !node.is_null()) else { return Some(block) };
    let fields = Fields::read(node, &keys::ALIAS, report)?;
    block.sources = fields.texts("src", report);
    block.values = fields.text_map("values", report).unwrap_or_default();
    for (name, _) in &block.values {
        check_name(name, report);
    }
    if let Some(told) = fields.text("directive", report) {
        let mut chars = told.value.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if !c.is_ascii_alphanumeric() && !c.is_whitespace() && !"{}\"'".contains(c) => {
                block.directive = c;
            }
            (Some(c), None) if c.is_ascii_alphanumeric() => {
                let message = format!("directive `{c}` is a letter or digit");
                report.fault(told.at, message, "write another character, such as `!`");
            }
            _ => {
                let message = format!("directive `{}` can't be one", clip(&told.value));
                report.fault(told.at, message, "write one character that is no letter, digit, blank, brace or quote");
            }
        }
    }
    Some(block)
}

/// Whether an alias may be called so.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn check_name(name: &Told<String>, report: &mut Report<'_>) {
    if !is_name(&name.value) {
        let message = format!("alias name `{}` is not one", clip(&name.value));
        report.fault(name.at, message, "write letters and digits alone");
    }
}

/// All aliases of a file: its own win over those of its sources, later sources over earlier ones, these over what there
/// always is. `render` makes the final text of a value that is a template still.
pub(super) fn all(
    block: Option<&Block>,
    inputs: &TaskInputs,
    report: &mut Report<'_>,
    render: impl Fn(&str, &str) -> Result<String, Fault>,
) -> Aliases {
    let mut aliases = Aliases {
        directive: block.map_or(DIRECTIVE, |block| block.directive),
        texts: PREDEFINED.iter().map(|name| ((*name).to_owned(), format!("{{{{.Run.{name}}}}}"))).collect(),
        commands: BTreeMap::new(),
    };
    aliases.add("acr", ACR_CLI, "the alias of ACR's client", report, &render);
    for (name, value) in &inputs.image_aliases {
        aliases.add(name, value, "the server's image aliases", report, &render);
    }
    for told in block.into_iter().flat_map(|block| &block.sources) {
        let source = AliasSource::parse(&told.value);
        match inputs.alias_sources.get(source.as_str()) {
            Some(text) => {
                for (name, value) in of_source(&told.value, text, report) {
                    aliases.add(&name, &value, &told.value, report, &render);
                }
            }
            None => {
                let message = format!("alias source `{}` is not there", clip(&told.value));
                let help = match source {
                    AliasSource::File(_) => "name a file of the source, from its root",
                    AliasSource::Url(_) => "it must answer within two seconds; or put the file beside the task file",
                };
                report.fault(told.at, message, help);
            }
        }
    }
    for (name, value) in block.into_iter().flat_map(|block| &block.values) {
        // The block has been rendered: what looks like a template in it now is none.
        aliases.texts.insert(name.value.clone(), value.value.replace("{{", "{{\"{{\"}}"));
        aliases.commands.insert(name.value.clone(), value.value.clone());
    }
    aliases
}

/// The aliases of a source: a flat map. Faults are at places of that source.
fn of_source(name: &str, text: &str, report: &mut Report<'_>) -> Vec<(String, String)> {
    let source = Source::new(name, text);
    let lines = source.lines();
    let mut own = Report::new(&lines);
    let mut pairs = Vec::new();
    let help = "a source of aliases is a flat map: `NAME: TEXT` in each line";
    match yaml::parse(text) {
        Err(fault) => own.fault(fault.at, fault.message, help),
        Ok(document) => match document.root.filter(|root| !root.is_null()).map(|root| (root.at, root.kind)) {
            None => {}
            Some((_, Kind::Map(entries))) => {
                for (key, value) in entries {
                    let null = value.is_null();
                    match (key.kind, value.kind) {
                        (Kind::Scalar { text: name, .. }, Kind::Scalar { text, .. }) => {
                            let told = Told { value: name, at: key.at };
                            check_name(&told, &mut own);
                            pairs.push((told.value, if null { String::new() } else { text }));
                        }
                        _ => own.fault(value.at, "an alias stands for something other than a text", help),
                    }
                }
            }
            Some((at, _)) => own.fault(at, "the source is no map", help),
        },
    }
    report.faults.append(&mut own.faults);
    pairs
}

impl Aliases {
    fn add(
        &mut self,
        name: &str,
        value: &str,
        of: &str,
        report: &mut Report<'_>,
        render: &impl Fn(&str, &str) -> Result<String, Fault>,
    ) {
        let command = if value.contains("{{") { render(of, value) } else { Ok(value.to_owned()) };
        match command {
            Ok(command) => {
                self.texts.insert(name.to_owned(), value.to_owned());
                self.commands.insert(name.to_owned(), command);
            }
            Err(fault) => report.faults.push(fault),
        }
    }

    /// The text with every alias replaced. It may grow to a limit.
    pub(super) fn replace<'a>(&self, lines: &Lines<'a>) -> Result<Lines<'a>, Fault> {
        let (mut number, mut size) = (0, 0);
        lines.map(|line| {
            number += 1;
            let text = self.replace_in(line);
            size += text.len() + 1;
            match size > yaml::MAX_TEXT {
                true => {
                    let at = At { line: number, column: 1, length: 1 };
                    let message =
                        format!("with aliases replaced, the file is longer than {} KiB", yaml::MAX_TEXT >> 10);
                    Err(lines.fault(at, message, Some("make aliases shorter, or use fewer".to_owned())))
                }
                false => Ok(text),
            }
        })
    }

    fn replace_in(&self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(start) = rest.find(self.directive) {
            out.push_str(&rest[..start]);
            rest = &rest[start + self.directive.len_utf8()..];
            // Twice the directive is once itself.
            if let Some(after) = rest.strip_prefix(self.directive) {
                out.push(self.directive);
                rest = after;
                let name = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).len();
                out.push_str(&rest[..name]);
                rest = &rest[name..];
                continue;
            }
            let length = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()).len();
            let name = &rest[..length];
            match self.texts.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push(self.directive);
                    out.push_str(name);
                }
            }
            rest = &rest[length..];
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(directive: char) -> Aliases {
        let texts = [("foo", "X"), ("bar", "Y"), ("ID", "{{.Run.ID}}")];
        let texts = texts.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        Aliases { directive, texts, commands: BTreeMap::new() }
    }

    #[test]
    fn the_scanner_replaces_what_it_knows() {
        let table = [
            ("$foo ", "X "),
            ("$foo/", "X/"),
            ("$foo", "X"),
            ("a$foo$bar.", "aXY."),
            ("$nope/", "$nope/"),
            // ACR leaves the second one: see docs/compatibility.md.
            ("$nope$foo", "$nopeX"),
            ("$$foo", "$foo"),
            ("$foo$$bar", "X$bar"),
            ("$$$foo", "$X"),
            ("$(date)", "$(date)"),
            ("${HOME}", "${HOME}"),
            ("$ x", "$ x"),
            ("$ID2", "$ID2"),
            ("$ID", "{{.Run.ID}}"),
            ("$foo_x", "X_x"),
            ("a$", "a$"),
            ("$", "$"),
            ("", ""),
            ("ü$foo-ü", "üX-ü"),
            ("no alias", "no alias"),
        ];
        for (text, expected) in table {
            assert_eq!(aliases('$').replace_in(text), expected, "{text}");
        }
        assert_eq!(aliases('👍').replace_in("👍foo👍👍bar $foo"), "X👍bar $foo");
    }

    #[test]
    fn the_block_ends_at_the_next_key() {
        let table = [
            ("a: 1\nalias:\n  values:\n    x: y\nb: 2", "a: 1\nb: 2", "alias:\n  values:\n    x: y"),
            ("alias: {values: {x: y}}\nb: 2", "b: 2", "alias: {values: {x: y}}"),
            ("alias :\n  values:\n\n    x: y\n", "", "alias :\n  values:\n\n    x: y\n"),
            ("alias:\n- x\nb: 2", "- x\nb: 2", "alias:"),
            ("alias:\n  x: |\n    text\nsteps: []", "steps: []", "alias:\n  x: |\n    text"),
        ];
        for (text, rest, block) in table {
            let source = Source::new("t", text);
            let (found_rest, found_block) = cut(&source.lines());
            assert_eq!(
                (found_rest.text().as_str(), found_block.map(|it| it.text()).as_deref()),
                (rest, Some(block)),
                "{text}"
            );
        }
        for text in ["steps: []", " alias:\n", "aliases: x", "- alias: x"] {
            assert!(cut(&Source::new("t", text).lines()).1.is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_text_without_the_directive_stays(text in "[^$\n]*") {
            proptest::prop_assert_eq!(aliases('$').replace_in(&text), text);
        }
    }
}
