//! The forms in which a secret value can turn up in output. Which of them are looked for is decided here, how is not.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// Shorter texts turn up by chance: masking them would hide half of a log and tell the secret by its absence.
pub(super) const SHORTEST: usize = 4;
/// Values beyond this, in bytes, are looked for line by line and not in encoded forms: those would cost memory many
/// times the value's size.
const LONG: usize = 16 * 1024;
/// The longest piece of a long value's line, in bytes: it bounds how much output is held back.
const PIECE: usize = 4096;
/// Where the usual tools break lines of base64.
const BASE64_LINES: [usize; 2] = [76, 64];

/// Adds all forms of `value` that are long enough. Returns whether the value itself is too short to be masked.
pub(super) fn add(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) -> bool {
    // A file's last line break is not printed where its value is.
    let trimmed = value.trim_ascii_end();
    if trimmed.len() < SHORTEST {
        return !value.is_empty();
    }
    let lines = trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    if trimmed.len() > LONG {
        for line in lines {
            line.chunks(PIECE).for_each(|piece| insert(piece, patterns));
        }
        return false;
    }
    lines.for_each(|line| insert(line, patterns));
    // The end of a line is no secret, and hiding it would run lines together; inside an encoded form it cannot be told.
    insert(trimmed, patterns);
    insert(&collapsed(trimmed), patterns);
    for form in [value, trimmed] {
        add_base64(form, patterns);
        add_percent(form, patterns);
    }
    add_escaped(trimmed, patterns);
    if let Ok(text) = std::str::from_utf8(trimmed) {
        add_json(text, patterns);
    }
    false
}

/// With each run of white space as one space: so engines write commands in the names of their steps.
fn collapsed(value: &[u8]) -> Vec<u8> {
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

fn insert(pattern: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    if pattern.len() >= SHORTEST {
        patterns.insert(pattern.to_vec());
    }
}

/// Base64 of the value alone, broken into lines, and as the middle of longer data.
fn add_base64(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    for whole in [STANDARD.encode(value), URL_SAFE.encode(value)] {
        for width in BASE64_LINES {
            whole.as_bytes().chunks(width).for_each(|line| insert(line, patterns));
        }
        insert(whole.as_bytes(), patterns);
    }
    for encoder in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        insert(encoder.encode(value).as_bytes(), patterns);
        for before in 0..3 {
            let mut data = vec![0; before];
            data.extend_from_slice(value);
            let encoded = encoder.encode(&data);
            // Only characters whose six bits all come from the value are the same whatever stands around it.
            let (first, end) = ((before * 8).div_ceil(6), data.len() * 8 / 6);
            insert(encoded.as_bytes().get(first..end).unwrap_or_default(), patterns);
        }
    }
}

/// Percent-encoding with the sets of characters that are left alone in practice.
fn add_percent(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    // RFC 3986's own, of JavaScript (a component, a whole URI), of forms, of Python, of Go (a part of a path, a user).
    for plain in
        [&b""[..], b"-_.~", b"-_.!~*'()", b"-_.!~*'();,/?:@&=+$#", b"-_.*", b"-_.~/", b"-_.~$&+:=@", b"-_.~$&+,;="]
    {
        for hex in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            for space_is_plus in [false, true] {
                let mut encoded = Vec::with_capacity(value.len() * 3);
                for byte in value {
                    match byte {
                        b' ' if space_is_plus => encoded.push(b'+'),
                        byte if byte.is_ascii_alphanumeric() || plain.contains(byte) => encoded.push(*byte),
                        byte => encoded.extend([b'%', hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]),
                    }
                }
                insert(&encoded, patterns);
            }
        }
    }
}

/// As JSON and most languages write it inside quotes.
fn add_escaped(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    let mut escaped = Vec::with_capacity(value.len() + 8);
    for byte in value {
        match byte {
            b'"' | b'\\' => escaped.extend([b'\\', *byte]),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            b'\t' => escaped.extend(b"\\t"),
            byte => escaped.push(*byte),
        }
    }
    insert(&escaped, patterns);
}

/// The ways in which writers of JSON differ: many escape what is not ASCII, Go's the characters of HTML, PHP's slashes.
fn add_json(text: &str, patterns: &mut BTreeSet<Vec<u8>>) {
    for style in 0..16_u8 {
        let [ascii, html, slash, upper] = [1, 2, 4, 8].map(|bit| style & bit != 0);
        let mut escaped = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            match c {
                '"' | '\\' => escaped.extend(['\\', c]),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                '\u{8}' => escaped.push_str("\\b"),
                '\u{c}' => escaped.push_str("\\f"),
                '/' if slash => escaped.push_str("\\/"),
                c if c < ' ' || (html && matches!(c, '<' | '>' | '&')) || (ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        match upper {
                            true => escaped.push_str(&format!("\\u{unit:04X}")),
                            false => escaped.push_str(&format!("\\u{unit:04x}")),
                        }
                    }
                }
                c => escaped.push(c),
            }
        }
        insert(escaped.as_bytes(), patterns);
    }
    insert(dotnet_json(text).as_bytes(), patterns);
}

/// As .NET writes it: whatever HTML or a quoted attribute could take for its own is escaped, and all that is not ASCII.
fn dotnet_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{c}' => escaped.push_str("\\f"),
            ' '..='~' if !matches!(c, '"' | '\'' | '+' | '<' | '>' | '&' | '`') => escaped.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04X}"))),
        }
    }
    escaped
}
