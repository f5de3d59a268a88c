//! The way from a file's text to its task: comments, aliases, templates, YAML (contract §4.1).

use std::cell::Cell;
use std::collections::BTreeMap;

use cooper_types::SecretString;

use crate::gotemplate::{self, Limits, Value};

use super::alias::{self, Block};
use super::fault::{Fault, Faults};
use super::fields::{Fields, Report, Told};
use super::inputs::{AliasSource, Loaded, RenderedText, TaskInputs, WantedSecret};
use super::lines::{Lines, Source};
use super::yaml::{self, At, Document};
use super::{data, expand, keys, missing, read, version};

/// Steps of work that an alias's rendering costs whatever it does: values are handed to each.
const EACH_ALIAS: u64 = 2_000;

/// What stands for the value of a secret that is not at hand. It is base64, so that volumes can be read too.
pub const SECRET_STAND_IN: &str = "c2VjcmV0LW5vdC1naXZlbg==";

/// A file, rendered.
struct Rendered<'a> {
    lines: Lines<'a>,
    /// What a `cmd` may begin with.
    commands: BTreeMap<String, String>,
    warnings: Vec<Fault>,
}

/// The files and URLs that a file takes aliases from, in their order; none below v1.1.0.
///
/// Of the inputs, it needs all that templates see but secrets.
pub fn alias_sources(inputs: &TaskInputs) -> Result<Vec<AliasSource>, Faults> {
    let source = Source::new(&inputs.file.name, &inputs.file.text);
    let lines = without_comments(&source);
    let data = data::of(inputs, &inputs.secrets)?;
    let mut sources = Vec::new();
    if version::has_aliases(&lines)
        && let (_, Some(block)) = alias::cut(&lines)
    {
        let (block, _) = rendered(&block, &data, inputs)?;
        let mut report = Report::new(&block);
        let read = alias::read(&block, &mut report);
        if !report.faults.is_empty() {
            return Err(told(report.faults, inputs));
        }
        for told in read.into_iter().flat_map(|block| block.sources) {
            let source = AliasSource::parse(&told.value);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
    }
    Ok(sources)
}

/// The secrets that a file names: [`load`] wants their values in [`TaskInputs::secrets`]. It takes what is there already for
/// absent, as ACR does: secrets don't depend on secrets.
pub fn wanted_secrets(inputs: &TaskInputs) -> Result<Vec<WantedSecret>, Faults> {
    if !inputs.file.text.contains("secrets") && !inputs.alias_sources.values().any(|text| text.contains("secrets")) {
        return Ok(Vec::new());
    }
    let source = Source::new(&inputs.file.name, &inputs.file.text);
    let rendered = render(&source, inputs, &BTreeMap::new())?;
    let mut report = Report::new(&rendered.lines);
    let document = parse(&rendered.lines)?;
    let (mut secrets, mut ids) = (Vec::new(), Vec::new());
    if let Some(root) = document.root.filter(|root| !root.is_null())
        && let Some(fields) = Fields::read(&root, &keys::TASK, &mut report)
    {
        secrets = read::secrets(&fields, &mut report);
        let all = fields.maps("secrets", &mut Report::new(&rendered.lines));
        ids.extend(all.iter().filter_map(|secret| secret.text("id", &mut Report::new(&rendered.lines))));
    }
    if report.faults.is_empty() {
        return Ok(secrets);
    }
    Err(with_all_others(report.faults, ids, inputs))
}

/// What is wrong with the secrets of a file, and what is wrong with all else in it whatever the secrets' values are.
fn with_all_others(of_secrets: Vec<Fault>, ids: Vec<Told<String>>, inputs: &TaskInputs) -> Faults {
    let stand_in = |id: Told<String>| (id.value, SecretString::new(SECRET_STAND_IN.to_owned()));
    let inputs = TaskInputs { secrets: ids.into_iter().map(stand_in).collect(), ..inputs.clone() };
    let mut faults = told(of_secrets, &inputs).faults;
    let others = load(&inputs).err().unwrap_or_default();
    let new: Vec<Fault> = others.faults.into_iter().filter(|fault| !faults.contains(fault)).collect();
    faults.extend(new);
    let all = Faults::new(faults);
    Faults { more: all.more + others.more, warnings: others.warnings, ..all }
}

/// Loads a task file.
pub fn load(inputs: &TaskInputs) -> Result<Loaded, Faults> {
    let source = Source::new(&inputs.file.name, &inputs.file.text);
    let Rendered { lines, commands, mut warnings } = render(&source, inputs, &inputs.secrets)?;
    // A name that renders as nothing may be what is wrong.
    let document =
        parse(&lines).map_err(|faults| Faults { warnings: told(warnings.clone(), inputs).faults, ..faults })?;
    let mut report = Report::new(&lines);
    if let Some(second) = document.second {
        report.warn(second, "a second document has no effect", "write one task in a file");
    }
    let task = read::task(document.root.as_ref(), inputs, &commands, &mut report);
    match task {
        Some((task, places)) if report.faults.is_empty() => {
            warnings.append(&mut report.warnings);
            let places = places.into_iter().map(|at| lines.place(at)).collect();
            Ok(Loaded { task, warnings: told(warnings, inputs).faults, rendered: lines.text(), places })
        }
        _ => {
            warnings.append(&mut report.warnings);
            let warnings = told(warnings, inputs).faults;
            Err(Faults { warnings, ..told(report.faults, inputs) })
        }
    }
}

/// The text of a file after aliases and templates, whether it is YAML or not.
pub fn render_text(inputs: &TaskInputs) -> Result<RenderedText, Faults> {
    let source = Source::new(&inputs.file.name, &inputs.file.text);
    let Rendered { lines, commands, warnings } = render(&source, inputs, &inputs.secrets)?;
    Ok(RenderedText { text: expand::expanded(&lines, &commands), warnings: told(warnings, inputs).faults })
}

/// Comment lines go first, so that nothing in them is replaced or rendered. As in ACR, they go in scripts too.
fn without_comments(source: &Source) -> Lines<'_> {
    source.lines().filter(|_, line| !line.trim_start().starts_with('#'))
}

fn render<'a>(
    source: &'a Source,
    inputs: &TaskInputs,
    secrets: &BTreeMap<String, SecretString>,
) -> Result<Rendered<'a>, Faults> {
    if inputs.file.text.len() > yaml::MAX_TEXT {
        let message = format!("task file `{}` is longer than {} KiB", inputs.file.name, yaml::MAX_TEXT >> 10);
        return Err(Fault::bare(message, "a task file is a short text; put data into files of the source").into());
    }
    let lines = without_comments(source);
    let data = data::of(inputs, secrets)?;
    let (text, commands, mut warnings): (_, _, Vec<Fault>) = match version::has_aliases(&lines) {
        false => (lines, BTreeMap::new(), Vec::new()),
        true => {
            let (rest, block) = alias::cut(&lines);
            let block = block.map(|block| rendered(&block, &data, inputs)).transpose();
            let (block, missing) = match block.map_err(|fault| told(vec![fault], inputs))? {
                Some((block, missing)) => (Some(block), missing),
                None => (None, Vec::new()),
            };
            let at = block.as_ref().unwrap_or(&rest);
            let mut report = Report::new(at);
            let read: Option<Block> = block.as_ref().and_then(|block| alias::read(block, &mut report));
            // Sources may have thousands of values that are templates: all of them share what one may use.
            let limits = Cell::new(Limits::DEFAULT);
            let render = |name: &str, text: &str| {
                let source = Source::new(name, text);
                let lines = source.lines();
                let mut left = limits.get();
                left.fuel = left.fuel.saturating_sub(EACH_ALIAS);
                let text = rendered_some(&lines, &data, inputs, &mut left).map(|(lines, _)| lines.text());
                limits.set(left);
                text
            };
            let aliases = alias::all(read.as_ref(), inputs, &mut report, render);
            if !report.faults.is_empty() {
                return Err(told(report.faults, inputs));
            }
            let warnings = report.warnings.into_iter().chain(missing).collect();
            (aliases.replace(&rest)?, aliases.commands, warnings)
        }
    };
    let (lines, missing) = rendered(&text, &data, inputs).map_err(|fault| told(vec![fault], inputs))?;
    warnings.extend(missing);
    if lines.iter().all(|line| line.trim().is_empty()) && text.iter().any(|line| !line.trim().is_empty()) {
        let at = At { line: 1, column: 1, length: 1 };
        let help = "see the conditions in it: none of its text is left".to_owned();
        return Err(text.fault(at, "the file is empty after rendering", Some(help)).into());
    }
    Ok(Rendered { lines, commands, warnings })
}

/// The lines as a template, rendered, and warnings of what it read that is not there.
fn rendered<'a>(lines: &Lines<'a>, data: &Value, inputs: &TaskInputs) -> Result<(Lines<'a>, Vec<Fault>), Fault> {
    rendered_some(lines, data, inputs, &mut { Limits::DEFAULT })
}

/// The same for one of several texts that share limits.
fn rendered_some<'a>(
    lines: &Lines<'a>,
    data: &Value,
    inputs: &TaskInputs,
    limits: &mut Limits,
) -> Result<(Lines<'a>, Vec<Fault>), Fault> {
    let text = lines.text();
    if !text.contains("{{") {
        return Ok((lines.clone(), Vec::new()));
    }
    match gotemplate::render_some(&inputs.file.name, &text, data, inputs.run.created, limits) {
        Ok(rendered) => Ok((lines.rendered(&rendered.text), missing::warnings(lines, rendered.missing))),
        Err(error) => {
            let at = At { line: error.line, column: error.column, length: 1 };
            Err(lines.fault(at, error.message, None))
        }
    }
}

fn parse(lines: &Lines<'_>) -> Result<Document, Faults> {
    yaml::parse(&lines.text()).map_err(|fault| {
        let help = "the file is YAML: see the indentation, and quote a text that holds `: ` or begins with a sign";
        lines.fault(fault.at, fault.message, Some(fault.help.unwrap_or(help).to_owned())).into()
    })
}

/// Faults as they may be told: without the values of secrets.
fn told(faults: Vec<Fault>, inputs: &TaskInputs) -> Faults {
    let mut told = Faults::new(faults);
    let secrets = inputs.masked();
    for fault in &mut told.faults {
        for secret in &secrets {
            mask(&mut fault.message, secret);
            if let Some(help) = &mut fault.help {
                mask(help, secret);
            }
            if let Some(place) = fault.place.as_mut().filter(|place| place.rendered) {
                mask(&mut place.text, secret);
            }
        }
    }
    told
}

fn mask(text: &mut String, secret: &str) {
    const MASK: &str = "***";
    *text = text.replace(secret, MASK);
    // A message shows the beginning of a long text alone.
    let beginning: String = secret.chars().take(16).collect();
    if beginning.len() < secret.len()
        && let Some(start) = text.find(&beginning)
    {
        let end = text[start..].find('`').map_or(text.len(), |length| start + length);
        text.replace_range(start..end, MASK);
    }
}
