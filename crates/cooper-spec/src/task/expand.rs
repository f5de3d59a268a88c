//! The rendered text as its steps will run: aliases of images at the beginning of a `cmd` are put into the text.
//!
//! They are no part of the text that YAML is read of, because a `cmd` may begin with one without the directive.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::Lines;
use super::step::alias_of;
use super::yaml::{self, Kind, Node};

/// The text with every alias replaced that a `cmd` begins with. A text that is no YAML stays what it is.
pub(super) fn expanded(lines: &Lines<'_>, commands: &BTreeMap<String, String>) -> String {
    let text = lines.text();
    let Ok(document) = yaml::parse(&text) else { return text };
    let Some(root) = document.root.filter(|_| !commands.is_empty()) else { return text };
    let mut rows: Vec<String> = lines.iter().map(str::to_owned).collect();
    // From the end on, so that places before it stay what they are.
    // A step that another one repeats by an anchor stands there once.
    let mut places = BTreeSet::new();
    for cmd in cmds(&root).into_iter().rev().filter(|cmd| places.insert((cmd.at.line, cmd.at.column))) {
        let Kind::Scalar { text, .. } = &cmd.kind else { continue };
        if let Some((name, value)) = alias_of(text, commands) {
            replace(&mut rows, cmd, text, name, value);
        }
    }
    rows.join("\n")
}

/// The `cmd` of each step, in their order.
fn cmds(root: &Node) -> Vec<&Node> {
    let steps = entry(root, "steps").map(|steps| &steps.kind);
    match steps {
        Some(Kind::List(steps)) => steps.iter().filter_map(|step| entry(step, "cmd")).collect(),
        _ => Vec::new(),
    }
}

/// What stands behind a key; of several, the last.
fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    let is = |key: &Node| matches!(&key.kind, Kind::Scalar { text, .. } if text == name);
    entries.iter().rev().find(|(key, _)| is(key)).map(|(_, value)| value)
}

fn replace(rows: &mut [String], cmd: &Node, text: &str, name: &str, value: &str) {
    let Some(row) = rows.get_mut(cmd.at.line - 1) else { return };
    let byte = |row: &str, column: usize| row.char_indices().nth(column - 1).map_or(row.len(), |(byte, _)| byte);
    let start = byte(row, cmd.at.column);
    let end = byte(row, cmd.at.column + cmd.at.length);
    let whole = text.trim_start().replacen(name, value, 1);
    let reads = |scalar: &str, expected: &str| {
        let read = yaml::parse(&format!("a: {scalar}"));
        let value = read.ok().and_then(|document| document.root);
        let value = value.as_ref().and_then(|root| entry(root, "a"));
        matches!(value.map(|value| &value.kind), Some(Kind::Scalar { text, .. }) if text == expected)
    };
    let scalar = row[start..end].to_owned();
    if reads(&scalar, text) || scalar.starts_with('*') {
        // A scalar in one line: in its own style, if it says the same then.
        let expected = text.replacen(name, value, 1);
        let own = scalar.replacen(name, value, 1);
        let scalar = if reads(&own, &expected) { own } else { serde_json::Value::from(whole).to_string() };
        row.replace_range(start..end, &scalar);
        return;
    }
    // A block, or a text that goes on: its first word stands here, or in the next line that has one.
    let mut from = start;
    for row in rows.iter_mut().skip(cmd.at.line - 1) {
        let words = row[from..].trim_start();
        let at = row.len() - words.len();
        let is_header = words.starts_with(['|', '>']) && !words.starts_with(name);
        if words.starts_with(name) {
            row.replace_range(at..at + name.len(), value);
            return;
        }
        if !words.is_empty() && !is_header {
            return;
        }
        from = 0;
    }
}
