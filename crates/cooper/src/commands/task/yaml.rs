//! A value as YAML, for people to read and change: block style, texts of several lines as they are.

use serde_json::Value;

/// A document, with a newline at its end.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

/// Writes a value whose lines begin so many columns to the right.
fn write(value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                text.push_str(&format!("{margin}{}:", scalar(key)));
                after(value, indent, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{margin}-"));
                after(item, indent, text);
            }
        }
        value => text.push_str(&format!("{margin}{}\n", plain(value))),
    }
}

/// Writes what follows a key or a dash.
fn after(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(entries) if entries.is_empty() => text.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => text.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            text.push('\n');
            write(value, indent + 2, text);
        }
        Value::String(lines) if is_block(lines) => {
            text.push_str(" |\n");
            let margin = " ".repeat(indent + 2);
            for line in lines.lines() {
                let line = if line.is_empty() { "\n".to_owned() } else { format!("{margin}{line}\n") };
                text.push_str(&line);
            }
        }
        value => text.push_str(&format!(" {}\n", plain(value))),
    }
}

/// Whether a text is one of whole lines that a block gives back exactly.
fn is_block(text: &str) -> bool {
    let lines = text.strip_suffix('\n').unwrap_or_default();
    let begins_well = lines.starts_with(|c: char| !c.is_whitespace());
    let is_printable =
        lines.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}'));
    begins_well && is_printable && !lines.ends_with('\n')
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // JSON's numbers, booleans and null are YAML's.
        value => value.to_string(),
    }
}

/// A text on one line: as it is where that can mean nothing else, else as JSON writes it, which YAML reads.
fn scalar(text: &str) -> String {
    let is_word =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '{' | '}' | ' ' | '@' | '+');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_quiet = begins && text.chars().all(is_word) && !text.contains(": ") && !text.ends_with([':', ' ']);
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_value = words.iter().any(|word| word.eq_ignore_ascii_case(text)) || text.parse::<f64>().is_ok();
    if is_quiet && !is_value { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_read_as_what_was_written() {
        let value = json!({
            "name": "nightly", "empty": [], "none": {}, "on": true, "number": -3,
            "texts": ["yes", "null", "1e3", "nan", "inf", "0 2 * * *", "a: b", "a #b", "", " a", "a\tb", "a\"b\\", "é", "*x", "app:{{.Run.ID}}"],
            "blocks": ["a\nb\n", "a\n\n  b\n", "a\nb", "\na\n", " a\nb\n", "a\n\n", "a\r\nb\n"],
            "maps": [{"a": 1, "b": {"c": "d"}}, {"e": [{"f": null}]}],
            "odd: key": {"y": "z"},
        });
        let text = document(&value);
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, value, "{text}");
        assert!(text.contains("  - |\n    a\n    b\n"), "{text}");
    }
}
