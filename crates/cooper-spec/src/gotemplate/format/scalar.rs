//! One value under one verb.

use std::iter;

use super::Flags;
use crate::gotemplate::error::Outcome;
use crate::gotemplate::print::{self, Sink};
use crate::gotemplate::value::Val;

/// Writes a value that holds no others.
pub(super) fn scalar(sink: &mut Sink<'_>, value: &Val, verb: char, flags: Flags) -> Outcome<()> {
    match (value, verb) {
        (Val::Bool(bool), 't' | 'v') => padded(sink, if *bool { "true" } else { "false" }, flags),
        (Val::Int(int, _), 'v') => integer(sink, *int, 10, false, flags),
        (Val::Int(int, _), _) => whole(sink, value, *int, verb, flags),
        (Val::Float(float), 'v' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G') => self::float(sink, *float, verb, flags),
        (Val::Text(text), _) => self::text(sink, value, text, verb, flags),
        (Val::Moment(_) | Val::Version(_), 'v' | 's' | 'q' | 'x' | 'X') => {
            self::text(sink, value, &print::scalar_text(value), verb, flags)
        }
        (Val::Named(_, name, _), 'v' | 's' | 'q') => self::text(sink, value, name, verb, flags),
        (Val::Named(int, ..), _) => whole(sink, value, *int, verb, flags),
        (Val::Nil, 'v') => padded(sink, "<nil>", flags),
        _ => bad(sink, value, verb, flags),
    }
}

/// A verb that doesn't fit its value.
fn bad(sink: &mut Sink<'_>, value: &Val, verb: char, flags: Flags) -> Outcome<()> {
    if matches!(value, Val::Nil) {
        return sink.push(&format!("%!{verb}(<nil>)"));
    }
    sink.push(&format!("%!{verb}({}=", sink.heap.type_name(value)))?;
    scalar(sink, value, 'v', flags)?;
    sink.push(")")
}

fn whole(sink: &mut Sink<'_>, value: &Val, int: i64, verb: char, flags: Flags) -> Outcome<()> {
    let character = || u32::try_from(int).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    match verb {
        'd' => integer(sink, int, 10, false, flags),
        'b' => integer(sink, int, 2, false, flags),
        'o' | 'O' => integer(sink, int, 8, verb == 'O', flags),
        'x' => integer(sink, int, 16, false, flags),
        'X' => integer(sink, int, 17, false, flags),
        'c' => padded(sink, &character().to_string(), flags),
        'q' => {
            let quoted = escaped(character(), '\'', flags.plus);
            padded(sink, &format!("'{quoted}'"), flags)
        }
        'U' => {
            let mut text = format!("U+{int:0digits$X}", digits = flags.precision.unwrap_or(4).clamp(4, 64));
            let c = character();
            if flags.sharp && is_print(c) && i64::from(u32::from(c)) == int {
                text.push_str(&format!(" '{c}'"));
            }
            padded(sink, &text, Flags { zero: false, ..flags })
        }
        _ => bad(sink, value, verb, flags),
    }
}

/// Base 17 stands for 16 with capitals.
fn integer(sink: &mut Sink<'_>, int: i64, base: u32, prefixed: bool, flags: Flags) -> Outcome<()> {
    let magnitude = int.unsigned_abs();
    let mut digits = match base {
        2 => format!("{magnitude:b}"),
        8 => format!("{magnitude:o}"),
        16 => format!("{magnitude:x}"),
        17 => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    };
    let sign = if int < 0 {
        "-"
    } else if flags.plus {
        "+"
    } else if flags.space {
        " "
    } else {
        ""
    };
    let mut least = 0;
    if let Some(precision) = flags.precision {
        if precision == 0 && int == 0 {
            return spaces(sink, flags.width.unwrap_or(0));
        }
        least = precision;
    } else if flags.zero
        && let Some(width) = flags.width
    {
        least = width.saturating_sub(sign.len());
    }
    zeros(sink, &mut digits, least)?;
    let prefix = match base {
        2 if flags.sharp => "0b",
        8 if prefixed => "0o",
        8 if flags.sharp && !digits.starts_with('0') => "0",
        16 if flags.sharp => "0x",
        17 if flags.sharp => "0X",
        _ => "",
    };
    padded(sink, &format!("{sign}{prefix}{digits}"), Flags { zero: false, ..flags })
}

/// Puts zeros before digits until they are at least this many.
fn zeros(sink: &Sink<'_>, digits: &mut String, least: usize) -> Outcome<()> {
    if digits.len() < least {
        sink.heap.charge_bytes(least)?;
        digits.insert_str(0, &"0".repeat(least - digits.len()));
    }
    Ok(())
}

fn spaces(sink: &mut Sink<'_>, count: usize) -> Outcome<()> {
    sink.heap.charge_bytes(count)?;
    sink.text.extend(iter::repeat_n(' ', count));
    Ok(())
}

fn float(sink: &mut Sink<'_>, float: f64, verb: char, flags: Flags) -> Outcome<()> {
    let precision = flags.precision;
    sink.heap.charge_bytes(precision.unwrap_or(0))?;
    // Rust formats no more than this, and no float has more digits that matter.
    let digits = precision.unwrap_or(6).min(2000);
    let mut text = if let Some(name) = print::not_finite(float) {
        name.trim_start_matches('+').to_owned()
    } else {
        match verb {
            'f' | 'F' => format!("{float:.digits$}"),
            'e' | 'E' => exponent(&format!("{float:.digits$e}"), verb),
            'G' => print::general(float, precision.map(|precision| precision.min(2000)), 'E'),
            _ => print::general(float, precision.map(|precision| precision.min(2000)), 'e'),
        }
    };
    if flags.plus && !text.starts_with('-') {
        text.insert(0, '+');
    } else if flags.space && !text.starts_with('-') {
        text.insert(0, ' ');
    }
    if flags.zero && float.is_finite() {
        let sign_length = usize::from(text.starts_with(['-', '+', ' ']));
        let mut digits = text.split_off(sign_length);
        zeros(sink, &mut digits, flags.width.unwrap_or(0).saturating_sub(sign_length))?;
        text.push_str(&digits);
    }
    padded(sink, &text, Flags { zero: false, ..flags })
}

/// Rust's `1e5` as Go's `1e+05`.
fn exponent(text: &str, letter: char) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}{letter}{sign}{exponent:0>2}")
}

fn text(sink: &mut Sink<'_>, value: &Val, text: &str, verb: char, flags: Flags) -> Outcome<()> {
    let cut = || match flags.precision {
        Some(precision) => text.char_indices().nth(precision).map_or(text, |(end, _)| &text[..end]),
        None => text,
    };
    match verb {
        'v' | 's' => padded(sink, cut(), flags),
        'q' => {
            let text = cut();
            sink.heap.charge_bytes(text.len() * 4)?;
            let quoted = if flags.sharp && !text.contains('`') && text.chars().all(|c| c == '\t' || is_print(c)) {
                format!("`{text}`")
            } else {
                quoted(text, flags.plus)
            };
            padded(sink, &quoted, flags)
        }
        'x' | 'X' => {
            sink.heap.charge_bytes(text.len() * 6)?;
            let bytes = &text.as_bytes()[..flags.precision.unwrap_or(text.len()).min(text.len())];
            let prefix = match (flags.sharp, verb) {
                (false, _) => "",
                (true, 'x') => "0x",
                _ => "0X",
            };
            let mut hex = String::new();
            for (index, byte) in bytes.iter().enumerate() {
                if index == 0 || flags.space {
                    hex.push_str(if index > 0 { " " } else { "" });
                    hex.push_str(prefix);
                }
                hex.push_str(&if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") });
            }
            padded(sink, &hex, flags)
        }
        _ => bad(sink, value, verb, flags),
    }
}

/// Fills up to the width: blanks before, or behind with `-`, or zeros before with `0`.
pub(super) fn padded(sink: &mut Sink<'_>, text: &str, flags: Flags) -> Outcome<()> {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if !flags.minus && missing > 0 {
        sink.heap.charge_bytes(missing)?;
        sink.text.extend(iter::repeat_n(if flags.zero { '0' } else { ' ' }, missing));
    }
    sink.push(text)?;
    if flags.minus { spaces(sink, missing) } else { Ok(()) }
}

/// `strconv.Quote`
pub(in crate::gotemplate) fn quoted(text: &str, ascii: bool) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == ' ' {
            quoted.push(c);
        } else {
            quoted.push_str(&escaped(c, '"', ascii));
        }
    }
    quoted.push('"');
    quoted
}

fn escaped(c: char, quote: char, ascii: bool) -> String {
    match c {
        c if c == quote || c == '\\' => format!("\\{c}"),
        c if c.is_ascii_graphic() || c == ' ' || (!ascii && is_print(c)) => c.to_string(),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        c if c < ' ' || c == '\u{7f}' => format!("\\x{:02x}", u32::from(c)),
        c if u32::from(c) < 0x1_0000 => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    }
}

/// Whether a character shows itself: letters, marks, numbers, signs and the plain blank.
fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic() || c == ' ';
    }
    // Within a text, Rust escapes just what doesn't show itself.
    let mut text = [0; 5];
    text[0] = b'a';
    let length = c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..=length]).is_ok_and(|text| text.escape_debug().count() == 2)
}
