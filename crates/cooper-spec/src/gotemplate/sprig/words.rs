//! Words: upper and lower case, the cases of names, and wrapping.

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::print::Sink;
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("upper", 1, |_, args| Ok(Val::text(&args.text(0)?.chars().map(upper).collect::<String>()))),
    exact("lower", 1, |_, args| Ok(Val::text(&args.text(0)?.chars().map(lower).collect::<String>()))),
    exact("title", 1, |_, args| Ok(Val::text(&title(args.text(0)?)))),
    exact("untitle", 1, |_, args| {
        let mut begins = true;
        let changed = args.text(0)?.chars().map(|c| {
            let is_first = std::mem::replace(&mut begins, c.is_whitespace());
            if is_first { lower(c) } else { c }
        });
        Ok(Val::text(&changed.collect::<String>()))
    }),
    exact("initials", 1, |_, args| {
        let words = args.text(0)?.split(char::is_whitespace);
        Ok(Val::text(&words.filter_map(|word| word.chars().next()).collect::<String>()))
    }),
    exact("swapcase", 1, |_, args| Ok(Val::text(&args.text(0)?.chars().map(swapped).collect::<String>()))),
    exact("camelcase", 1, |_, args| Ok(Val::text(&camel(args.text(0)?)))),
    exact("snakecase", 1, |_, args| Ok(Val::text(&joined(args.text(0)?, '_')))),
    exact("kebabcase", 1, |_, args| Ok(Val::text(&joined(args.text(0)?, '-')))),
    exact("wrap", 2, |heap, args| wrap(heap, args.text(1)?, args.int(0)?, "\n", false)),
    exact("wrapWith", 3, wrap_with),
];

/// One character's capital, if it is one character too.
fn upper(c: char) -> char {
    let mut changed = c.to_uppercase();
    match (changed.next(), changed.next()) {
        (Some(capital), None) => capital,
        _ => c,
    }
}

fn lower(c: char) -> char {
    let mut changed = c.to_lowercase();
    match (changed.next(), changed.next()) {
        (Some(small), None) => small,
        _ => c,
    }
}

fn swapped(c: char) -> char {
    if c.is_uppercase() {
        lower(c)
    } else if c.is_lowercase() {
        upper(c)
    } else {
        c
    }
}

/// Each word with a capital. Letters, digits and underscores make a word.
fn title(text: &str) -> String {
    let mut begins = true;
    let changed = text.chars().map(|c| {
        let parts = if c.is_ascii() { !c.is_ascii_alphanumeric() && c != '_' } else { c.is_whitespace() };
        let is_first = std::mem::replace(&mut begins, parts);
        if is_first { upper(c) } else { c }
    });
    changed.collect()
}

fn is_connector(c: char) -> bool {
    matches!(c, '-' | '_') || c.is_whitespace()
}

/// `some_words` as `SomeWords`. Connectors at either end stay, and of several in a row all but one.
fn camel(text: &str) -> String {
    let start = text.find(|c| !is_connector(c)).unwrap_or(text.len());
    let (leading, rest) = text.split_at(start);
    let mut camel = leading.to_owned();
    let mut characters = rest.chars();
    let Some(mut held) = characters.next().map(upper) else { return camel };
    // Each character is written when the next one is known.
    for c in characters {
        let next = if is_connector(held) {
            if is_connector(c) {
                camel.push(held);
                c
            } else {
                upper(c)
            }
        } else {
            camel.push(held);
            lower(c)
        };
        held = next;
    }
    camel.push(held);
    camel
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    /// Capitals, or one capital with small letters behind it.
    Capital,
    Letters,
    Connector,
    Punctuation,
    Other,
}

fn kind(c: char) -> Kind {
    if is_connector(c) {
        Kind::Connector
    } else if is_punctuation(c) {
        Kind::Punctuation
    } else if c.is_uppercase() {
        Kind::Capital
    } else if c.is_alphabetic() {
        Kind::Letters
    } else if c.is_numeric() {
        Kind::Number
    } else {
        Kind::Other
    }
}

fn is_punctuation(c: char) -> bool {
    // Unicode's signs (`$+<=>^`|~`) are no punctuation.
    (c.is_ascii_punctuation() && !"$+<=>^`|~".contains(c))
        || matches!(c, '¡' | '§' | '«' | '¶' | '·' | '»' | '¿' | '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}')
}

/// Splits a name where its kind of character changes.
fn parts(text: &str) -> Vec<(Kind, &str)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begun = kind(first);
        let run = |from: usize, takes: &dyn Fn(char) -> bool| {
            rest[from..].find(|c| !takes(c)).map_or(rest.len(), |end| from + end)
        };
        let length = match begun {
            Kind::Capital => {
                let capitals = run(0, &|c| kind(c) == Kind::Capital);
                let follows_letter = rest[capitals..].starts_with(|c| kind(c) == Kind::Letters);
                if capitals == first.len_utf8() {
                    run(capitals, &|c| kind(c) == Kind::Letters)
                } else if follows_letter {
                    // The last capital begins the next word: `HTTPStatus`.
                    rest[..capitals].char_indices().next_back().map_or(capitals, |(at, _)| at)
                } else {
                    capitals
                }
            }
            other => run(0, &|c| kind(c) == other),
        };
        parts.push((begun, &rest[..length]));
        rest = &rest[length..];
    }
    parts
}

/// A name in small letters with `connector` between its words.
fn joined(text: &str, connector: char) -> String {
    let parts = parts(text);
    let mut name = String::with_capacity(text.len() * 2);
    let kind = |at: usize| parts.get(at).map(|(kind, _)| *kind);
    let write = |name: &mut String, at: usize| {
        if let Some((kind, word)) = parts.get(at) {
            match kind {
                Kind::Capital => name.extend(word.chars().map(lower)),
                Kind::Connector => name.extend(word.chars().map(|_| connector)),
                _ => name.push_str(word),
            }
        }
    };
    let is_joined = |at: usize| matches!(kind(at), Some(Kind::Letters | Kind::Number));
    let is_parted = |at: usize| !matches!(kind(at), None | Some(Kind::Connector | Kind::Punctuation));
    let mut at = 0;
    while at + 1 < parts.len() {
        let this = parts[at].0;
        write(&mut name, at);
        at += 1;
        match this {
            Kind::Connector | Kind::Punctuation => {}
            Kind::Number => {
                while is_joined(at) {
                    write(&mut name, at);
                    at += 1;
                }
                if !matches!(kind(at), None | Some(Kind::Punctuation)) {
                    name.push(connector);
                }
            }
            _ if kind(at) != Some(Kind::Number) => {
                if is_parted(at) {
                    name.push(connector);
                }
            }
            _ if at + 1 == parts.len() => {}
            // A number belongs to the word before, unless small letters follow it.
            _ if kind(at + 1) != Some(Kind::Letters) => {
                write(&mut name, at);
                at += 1;
                if is_parted(at) {
                    name.push(connector);
                }
            }
            _ => {
                name.push(connector);
                while is_joined(at) {
                    write(&mut name, at);
                    at += 1;
                }
                if is_parted(at) {
                    name.push(connector);
                }
            }
        }
    }
    write(&mut name, at);
    name
}

fn wrap_with(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let end = args.text(1)?;
    wrap(heap, args.text(2)?, args.int(0)?, if end.is_empty() { "\n" } else { end }, true)
}

/// Lines of at most `width` characters, parted at blanks; a longer word is cut, or stays whole.
fn wrap(heap: &Heap, text: &str, width: i64, line_end: &str, cuts: bool) -> Outcome<Val> {
    let width = usize::try_from(width.max(1)).unwrap_or(1);
    let characters: Vec<char> = text.chars().collect();
    let mut sink = Sink::new(heap);
    let mut at = 0;
    let line = |sink: &mut Sink<'_>, line: &[char]| {
        sink.push(&line.iter().collect::<String>())?;
        sink.push(line_end)
    };
    while characters.len() - at > width {
        if characters[at] == ' ' {
            at += 1;
            continue;
        }
        let last = characters[at..=at + width].iter().rposition(|c| *c == ' ').map(|blank| at + blank);
        let end = match last {
            Some(blank) => blank,
            None if cuts => {
                line(&mut sink, &characters[at..at + width])?;
                at += width;
                continue;
            }
            None => match characters[at + width..].iter().position(|c| *c == ' ') {
                Some(blank) => at + width + blank,
                None => break,
            },
        };
        line(&mut sink, &characters[at..end])?;
        at = end + 1;
    }
    sink.push(&characters[at..].iter().collect::<String>())?;
    Ok(Val::text(&sink.text))
}
