//! Words of an instruction: flags, quoted words, lists in JSON, here-document marks.

/// The mark of a here-document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// The word that ends it.
    pub(super) name: String,
    /// Whether tabs before that word are dropped (`<<-`).
    pub(super) strips_tabs: bool,
}

/// The `--flag` words at the beginning, unquoted, and the rest. A bare `--` ends them.
pub(super) fn flags(text: &str, escape: char) -> (Vec<String>, String) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (raw, behind) = take_word(rest, escape, Quotes::Removed);
        rest = behind.trim_start();
        if raw == "--" {
            break;
        }
        flags.push(raw);
    }
    (flags, rest.trim().to_owned())
}

/// The words of a text, as they are written: quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, behind) = take_word(rest, escape, Quotes::Kept);
        words.push(word);
        rest = behind.trim_start();
    }
    words
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Kept,
    Removed,
}

fn take_word(text: &str, escape: char, quotes: Quotes) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, text.get(at..).unwrap_or_default()),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape && !(quote == Some('\'') && quotes == Quotes::Kept) => {
                if quotes == Quotes::Kept {
                    word.push(c);
                }
                word.extend(chars.next().map(|(_, c)| c));
                continue;
            }
            _ => {
                word.push(c);
                continue;
            }
        }
        if quotes == Quotes::Kept {
            word.push(c);
        }
    }
    (word, "")
}

/// The here-documents that a line begins, in order: words of the form `[n]<<[-]name`. None if a quote stays open.
pub(super) fn heredocs(line: &str) -> Vec<Heredoc> {
    let Some(words) = shell_words(line) else { return Vec::new() };
    words.iter().filter_map(|word| heredoc(word)).collect()
}

fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strips_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let name = unquote(rest)?;
    (!name.is_empty()).then_some(Heredoc { name, strips_tabs })
}

/// Words as a shell sees them, quotes and escapes kept; blanks behind `<<` belong to the word.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            '\'' | '"' => {
                word.push(c);
                loop {
                    let next = chars.next()?;
                    word.push(next);
                    if next == c {
                        break;
                    }
                    if next == '\\' && c == '"' {
                        word.push(chars.next()?);
                    }
                }
            }
            '\\' => {
                word.push(c);
                word.extend(chars.next());
            }
            '<' if chars.peek() == Some(&'<') => {
                chars.next();
                word.push_str("<<");
                while let Some(blank) = chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                    word.push(blank);
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    Some(words)
}

fn unquote(word: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => loop {
                match chars.next()? {
                    next if next == c => break,
                    '\\' if c == '"' => text.push(chars.next()?),
                    next => text.push(next),
                }
            },
            '\\' => text.extend(chars.next()),
            c if c.is_whitespace() => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

/// Whether the text is a list of strings in JSON: the form of an instruction without a shell.
pub(super) fn is_json_list(text: &str) -> bool {
    let Some(inner) = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')) else { return false };
    let mut rest = inner.trim();
    if rest.is_empty() {
        return true;
    }
    loop {
        let Some(string) = rest.strip_prefix('"') else { return false };
        let mut escaped = false;
        let end = string.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some(behind) = end.and_then(|(at, _)| string.get(at + 1..)) else { return false };
        match behind.trim_start().strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => return behind.trim().is_empty(),
        }
    }
}

/// The fields of a `--mount` value: parted by commas, a field in double quotes may hold some.
pub(super) fn comma_fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("the list begins with a field").push(c),
        }
    }
    fields
}
