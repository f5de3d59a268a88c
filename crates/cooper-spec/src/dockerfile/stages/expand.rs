//! Replacing variables in a word as BuildKit does (frontend/dockerfile/shell): quotes, escapes, `$N`, `${N}` and the
//! forms with `:-`, `:+`, `:?`, `#`, `%` and `/`.

use std::iter::Peekable;
use std::str::Chars;

/// The deepest nesting of `${…}` that is followed.
const DEPTH: usize = 32;
/// The most bytes that variables put into one word: `ARG` lines that double each other must not fill the memory.
const LENGTH: usize = 64 << 10;
/// The most characters of a value, and of a pattern, that are matched: far more than an image's name has.
const MATCHED: usize = 512;

/// Replaces the variables of `text` and takes its quotes away. A variable without a value is empty.
pub(super) fn expand(text: &str, escape: char, value: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut word = Word { chars: text.chars().peekable(), escape, value, depth: 0, length: 0 };
    word.until(None, Escapes::Removed)
}

struct Word<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    value: &'a dyn Fn(&str) -> Option<String>,
    depth: usize,
    length: usize,
}

/// What becomes of an escape character: in a pattern it keeps its meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Removed,
    Kept,
}

impl Word<'_> {
    fn until(&mut self, end: Option<char>, escapes: Escapes) -> Result<String, String> {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == end => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => {
                    if escapes == Escapes::Kept {
                        text.push(c);
                    }
                    text.extend(self.chars.next());
                }
                c => text.push(c),
            }
        }
        match end {
            None => Ok(text),
            Some(end) => Err(format!("`{end}` is missing")),
        }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.chars.next().ok_or("a `'` is not closed")? {
                '\'' => return Ok(()),
                c => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.chars.next().ok_or("a `\"` is not closed")? {
                '"' => return Ok(()),
                '$' => text.push_str(&self.variable()?),
                c if c == self.escape => match self.chars.next_if(|next| matches!(next, '"' | '$') || *next == c) {
                    Some(escaped) => text.push(escaped),
                    None => text.push(c),
                },
                c => text.push(c),
            }
        }
    }

    /// What stands for a variable, from behind its `$`.
    fn variable(&mut self) -> Result<String, String> {
        let text = self.unlimited_variable()?;
        self.length += text.len();
        if self.length > LENGTH {
            return Err(format!("it grows beyond {LENGTH} bytes"));
        }
        Ok(text)
    }

    fn unlimited_variable(&mut self) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { (self.value)(&name).unwrap_or_default() });
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("variables are nested more than {DEPTH} deep"));
        }
        let name = self.name();
        if name.is_empty() {
            return Err("`${` needs a name behind it".to_owned());
        }
        let value = (self.value)(&name);
        let result = match self.chars.next().ok_or("`}` is missing")? {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let sign = self.chars.next().ok_or("`}` is missing")?;
                self.conditional(sign, &name, value.filter(|value| !value.is_empty()), &format!(":{sign}"))
            }
            sign @ ('-' | '+' | '?') => self.conditional(sign, &name, value, &sign.to_string()),
            sign @ ('#' | '%') => {
                let greedy = self.chars.next_if_eq(&sign).is_some();
                let pattern = glob(&self.until(Some('}'), Escapes::Kept)?);
                let value = matchable(value, &pattern)?;
                Ok(trimmed(&value, pattern, sign == '#', greedy))
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let pattern = glob(&self.until(Some('/'), Escapes::Kept)?);
                let replacement = self.until(Some('}'), Escapes::Removed)?;
                Ok(replaced(&matchable(value, &pattern)?, &pattern, &replacement, all))
            }
            other => Err(format!("`{other}` is no known form of `${{{name}…}}`")),
        };
        self.depth -= 1;
        result
    }

    fn conditional(&mut self, sign: char, name: &str, value: Option<String>, form: &str) -> Result<String, String> {
        let word = self.until(Some('}'), Escapes::Removed)?;
        match (sign, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            ('?', Some(value)) => Ok(value),
            ('?', None) if word.is_empty() => Err(format!("{name} must have a value")),
            ('?', None) => Err(format!("{name}: {word}")),
            _ => Err(format!("`{form}` is no known form of `${{{name}…}}`")),
        }
    }

    /// A name: letters, digits and `_`; only digits if it begins with one.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let digits = self.chars.peek().is_some_and(char::is_ascii_digit);
        while let Some(c) =
            self.chars.next_if(|c| if digits { c.is_ascii_digit() } else { c.is_alphanumeric() || *c == '_' })
        {
            name.push(c);
        }
        name
    }
}

/// One part of a pattern of `#`, `%` and `/`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Glob {
    Run,
    Any,
    Char(char),
}

fn glob(pattern: &str) -> Vec<Glob> {
    let mut chars = pattern.chars();
    let mut parts = Vec::new();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '*' => Glob::Run,
            '?' => Glob::Any,
            '\\' => chars.next().map_or(Glob::Char('\\'), Glob::Char),
            c => Glob::Char(c),
        });
    }
    parts
}

fn matchable(value: Option<String>, pattern: &[Glob]) -> Result<String, String> {
    let value = value.unwrap_or_default();
    if value.chars().count() > MATCHED || pattern.len() > MATCHED {
        return Err(format!("more than {MATCHED} characters are not matched"));
    }
    Ok(value)
}

/// For each length, whether the beginning of the text with that length matches.
fn matching_lengths(pattern: &[Glob], text: &[char]) -> Vec<bool> {
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; text.len() + 1];
        let mut seen = false;
        for at in 0..=text.len() {
            match part {
                Glob::Run => {
                    seen |= reach[at];
                    next[at] = seen;
                }
                Glob::Any if at > 0 => next[at] = reach[at - 1],
                Glob::Char(c) if at > 0 => next[at] = reach[at - 1] && text[at - 1] == *c,
                Glob::Any | Glob::Char(_) => {}
            }
        }
        reach = next;
    }
    reach
}

/// The text without the shortest or longest beginning (or end) that matches.
fn trimmed(text: &str, mut pattern: Vec<Glob>, at_start: bool, greedy: bool) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    if !at_start {
        chars.reverse();
        pattern.reverse();
    }
    let lengths = matching_lengths(&pattern, &chars);
    let length = if greedy { lengths.iter().rposition(|fits| *fits) } else { lengths.iter().position(|fits| *fits) };
    chars.drain(..length.unwrap_or(0));
    if !at_start {
        chars.reverse();
    }
    chars.into_iter().collect()
}

/// The text with its first match, or all, replaced; each match is the longest at its place.
fn replaced(text: &str, pattern: &[Glob], replacement: &str, all: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut result = String::new();
    let mut at = 0;
    let mut open = true;
    while at < chars.len() {
        let length = if open { matching_lengths(pattern, &chars[at..]).iter().rposition(|fits| *fits) } else { None };
        match length.filter(|length| *length > 0) {
            Some(length) => {
                result.push_str(replacement);
                at += length;
                open = all;
            }
            None => {
                result.push(chars[at]);
                at += 1;
            }
        }
    }
    result
}
