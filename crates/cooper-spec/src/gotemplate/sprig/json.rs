//! Values as JSON, as Go's encoder writes it.

use super::super::print::{self, Sink};
use crate::gotemplate::data::Value;
use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("toJson", 1, |heap, args| encoded(heap, args, false)),
    exact("toPrettyJson", 1, |heap, args| encoded(heap, args, true)),
];

fn encoded(heap: &Heap, args: &Args<'_>, pretty: bool) -> Outcome<Val> {
    let mut sink = Sink::new(heap);
    write(&mut sink, args.get(0), pretty, 0)?;
    Ok(Val::text(&sink.text))
}

fn line(sink: &mut Sink<'_>, pretty: bool, depth: usize) -> Outcome<()> {
    if pretty { sink.push(&format!("\n{}", "  ".repeat(depth))) } else { Ok(()) }
}

fn write(sink: &mut Sink<'_>, value: &Val, pretty: bool, depth: usize) -> Outcome<()> {
    sink.heap.check_depth(depth)?;
    match value {
        Val::Nil => sink.push("null"),
        Val::Float(value) => match print::not_finite(*value) {
            Some(name) => Err(format!("JSON has no {name}").into()),
            None => sink.push(&number(*value)),
        },
        Val::Bool(_) | Val::Int(..) => sink.push(&print::scalar_text(value)),
        Val::Named(number, ..) => sink.push(&number.to_string()),
        Val::Text(text) => string(sink, text),
        Val::Moment(moment) => string(sink, &moment.rfc3339()),
        Val::Version(version) => string(sink, &version.to_string()),
        Val::List(list) => {
            sink.push("[")?;
            for (index, item) in list.items.iter().enumerate() {
                sink.push(if index > 0 { "," } else { "" })?;
                line(sink, pretty, depth + 1)?;
                write(sink, item, pretty, depth + 1)?;
            }
            if !list.items.is_empty() {
                line(sink, pretty, depth)?;
            }
            sink.push("]")
        }
        Val::Map(map) => {
            let heap = sink.heap;
            sink.push("{")?;
            for (index, (key, item)) in heap.map(*map).iter().enumerate() {
                sink.push(if index > 0 { "," } else { "" })?;
                line(sink, pretty, depth + 1)?;
                string(sink, key)?;
                sink.push(if pretty { ": " } else { ":" })?;
                write(sink, item, pretty, depth + 1)?;
            }
            if !heap.map(*map).is_empty() {
                line(sink, pretty, depth)?;
            }
            sink.push("}")
        }
    }
}

/// A number without an exponent, unless it is very small or very large.
fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let (digits, exponent) = print::shortest(value);
        let (first, others) = digits.split_at(1);
        let sign = if value < 0.0 { "-" } else { "" };
        let point = if others.is_empty() { "" } else { "." };
        let plus = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{others}e{plus}{:02}", exponent.abs()).replace("e-0", "e-");
    }
    format!("{value}")
}

fn string(sink: &mut Sink<'_>, text: &str) -> Outcome<()> {
    sink.heap.charge_bytes(text.len())?;
    sink.push(&quoted(text))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            // Go keeps JSON safe within HTML and JavaScript.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Value {
    /// As JSON, just as `toJson` writes it; maps are sorted by their keys. What is not finite is no JSON, and null.
    pub fn to_json(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) if value.is_finite() => number(*value),
            Self::Float(_) => "null".to_owned(),
            Self::String(text) => quoted(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::to_json).collect();
                format!("[{}]", items.join(","))
            }
            Self::Map(entries) => {
                let entry = |(key, value): (&String, &Self)| format!("{}:{}", quoted(key), value.to_json());
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("{{{}}}", entries.join(","))
            }
        }
    }
}
