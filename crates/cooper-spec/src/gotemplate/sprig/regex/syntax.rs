//! Go's expressions as Rust's: `\d`, `\s`, `\w` and `\b` know ASCII alone, brackets hold no set operations, and
//! `\Q…\E` quotes.

/// The same expression in Rust's syntax.
pub(super) fn translate(expression: &str) -> Result<String, &'static str> {
    let mut translated = String::with_capacity(expression.len() * 2);
    let mut rest = expression;
    // Within `[…]`, and whether a `]` would be its first member.
    let mut class: Option<bool> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let was_first = class.replace_first();
        rest = match (c, was_first) {
            ('\\', _) => escape(after, was_first.is_some(), &mut translated)?,
            ('[', None) => {
                translated.push('[');
                let negated = after.starts_with('^');
                translated.push_str(if negated { "^" } else { "" });
                class = Some(true);
                &after[usize::from(negated)..]
            }
            ('[', Some(_)) if after.starts_with(':') && after.contains(":]") => {
                let end = after.find(":]").unwrap_or(0) + 2;
                translated.push('[');
                translated.push_str(&after[..end]);
                &after[end..]
            }
            (']', Some(true)) => {
                translated.push_str("\\]");
                after
            }
            (']', Some(false)) => {
                class = None;
                translated.push(']');
                after
            }
            ('[' | '&' | '~', Some(_)) => {
                translated.push('\\');
                translated.push(c);
                after
            }
            // `--` would take one set from another.
            ('-', Some(_)) if after.starts_with('-') => {
                translated.push_str("\\-");
                after
            }
            ('{', None) if !is_repetition(after) => {
                translated.push_str("\\{");
                after
            }
            ('}' | ']', None) => {
                // A repetition's own brace is Rust's too.
                if c == '}'
                    && translated.ends_with(|c: char| c.is_ascii_digit() || c == ',')
                    && in_repetition(&translated)
                {
                    translated.push('}');
                } else {
                    translated.push('\\');
                    translated.push(c);
                }
                after
            }
            ('(', None) if after.starts_with('?') => {
                check_flags(after)?;
                translated.push('(');
                after
            }
            (c, _) => {
                translated.push(c);
                after
            }
        };
    }
    Ok(translated)
}

/// Reads whether the next member is the first, and says that the one after is not.
trait ReplaceFirst {
    fn replace_first(&mut self) -> Option<bool>;
}

impl ReplaceFirst for Option<bool> {
    fn replace_first(&mut self) -> Option<bool> {
        self.as_mut().map(|first| std::mem::replace(first, false))
    }
}

/// Whether `2}`, `2,}` or `2,3}` follows.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

/// Whether what was written ends within an open repetition.
fn in_repetition(translated: &str) -> bool {
    let before = translated.trim_end_matches(|c: char| c.is_ascii_digit() || c == ',');
    before.ends_with('{') && !before.ends_with("\\{")
}

/// Rust knows flags that Go does not.
fn check_flags(after: &str) -> Result<(), &'static str> {
    let flags = after[1..].split([':', ')', '<']).next().unwrap_or_default();
    if flags.contains(['x', 'u', 'R']) && !flags.contains('P') {
        return Err("it has a flag that Go doesn't know");
    }
    Ok(())
}

/// What stands behind a backslash.
fn escape<'e>(after: &'e str, in_class: bool, translated: &mut String) -> Result<&'e str, &'static str> {
    let Some(c) = after.chars().next() else { return Err("it ends with a backslash") };
    let rest = &after[c.len_utf8()..];
    let text = match (c, in_class) {
        ('d', _) => "[0-9]",
        ('D', _) => "[^0-9]",
        ('s', _) => "[\\t\\n\\x0C\\r ]",
        ('S', _) => "[^\\t\\n\\x0C\\r ]",
        ('w', _) => "[0-9A-Za-z_]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('Q', _) => {
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            translated.push_str(&regex::escape(quoted));
            return Ok(rest);
        }
        ('0'..='7', _) => {
            let digits = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            // One digit would refer back, which Go can't either.
            if digits == 1 && c != '0' {
                return Err("it refers back to a group");
            }
            let code = u32::from_str_radix(&after[..digits], 8).unwrap_or(0);
            translated.push_str(&format!("\\x{{{code:x}}}"));
            return Ok(&after[digits..]);
        }
        ('p' | 'P' | 'x' | 'A' | 'z' | 'a' | 'f' | 't' | 'n' | 'r' | 'v', _) => {
            translated.push('\\');
            translated.push(c);
            return Ok(rest);
        }
        (c, _) if c.is_ascii_punctuation() => {
            translated.push('\\');
            translated.push(c);
            return Ok(rest);
        }
        _ => return Err("it has an unknown escape"),
    };
    translated.push_str(text);
    Ok(rest)
}
