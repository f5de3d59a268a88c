//! One ignore pattern: checking its syntax, compiling it, matching a path in linear time.
//!
//! The forms are moby's: a pattern without specials is compared as text, `x/**` is a prefix, `**/x` is a suffix, and
//! everything else runs as a small automaton, so that no pattern can make matching slow.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Whether it began with `!`.
    pub(super) is_exception: bool,
    /// The pattern's text, without `!`.
    pub(super) text: String,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Exact,
    /// `x**`: everything that begins with `x`.
    Prefix(String),
    /// `**x`: everything that ends with `x`.
    Suffix(String),
    Automaton(Vec<Token>),
}

#[derive(Clone, Debug)]
enum Token {
    Char(char),
    /// `?`: any character but `/`.
    AnyChar,
    /// `*`: any run of characters without `/`.
    Run,
    /// `**` before more: nothing, or anything that ends in `/`.
    Folders,
    /// `**` at the end: anything.
    Rest,
    /// `[…]`: like Go's, a negated class matches `/` too.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    /// Compiles a cleaned pattern that may begin with `!`.
    pub(super) fn parse(cleaned: &str) -> Result<Self, &'static str> {
        let (is_exception, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err("`!` needs a path behind it; remove the line or write `!path`"),
            Some(rest) => (true, rest),
            None => (false, cleaned),
        };
        Ok(Self { is_exception, text: text.to_owned(), form: compile(text)? })
    }

    /// Whether it matches exactly this path.
    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix.as_str()),
            // `**/foo` is `foo` at the root, too.
            Form::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Form::Automaton(tokens) => run(tokens, path),
        }
    }

    /// Whether it matches this path or a directory above it.
    pub(super) fn matches_with_parents(&self, path: &str) -> bool {
        self.matches(path)
            || path.match_indices('/').any(|(at, _)| path.get(..at).is_some_and(|parent| self.matches(parent)))
    }

    /// The pattern without `/**` or `/*` at its end: the fixed beginning of what it can match, if that has no special
    /// character left.
    pub(super) fn fixed_beginning(&self) -> Option<&str> {
        let text = self.text.as_str();
        let head = text.strip_suffix("/**").unwrap_or(text);
        let head = head.strip_suffix("/*").unwrap_or(head);
        (!head.contains(['*', '?', '[', ']', '^', '\\'])).then_some(head)
    }
}

/// Compiles and checks at once: Go's `filepath.Match` syntax, with `**`.
fn compile(text: &str) -> Result<Form, &'static str> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut form = Form::Exact;
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let first = at == 0;
        at += 1;
        match c {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                // `**/` is `**`.
                if chars.get(at) == Some(&'/') {
                    at += 1;
                }
                if first {
                    form = Form::Suffix(chars.get(2..).unwrap_or_default().iter().collect());
                    tokens.push(if at == chars.len() { Token::Rest } else { Token::Folders });
                } else if at == chars.len() {
                    let exact = matches!(form, Form::Exact);
                    form = if exact { Form::Prefix(literal(&tokens)) } else { Form::Automaton(Vec::new()) };
                    tokens.push(Token::Rest);
                } else {
                    form = Form::Automaton(Vec::new());
                    tokens.push(Token::Folders);
                }
            }
            '*' => {
                form = Form::Automaton(Vec::new());
                tokens.push(Token::Run);
            }
            '?' => {
                form = Form::Automaton(Vec::new());
                tokens.push(Token::AnyChar);
            }
            '\\' => {
                let escaped = chars.get(at).ok_or("a `\\` at the end escapes nothing; write `\\\\` for a backslash")?;
                at += 1;
                form = Form::Automaton(Vec::new());
                tokens.push(Token::Char(*escaped));
            }
            '[' => {
                form = Form::Automaton(Vec::new());
                let (class, next) = class(&chars, at)?;
                at = next;
                tokens.push(class);
            }
            ']' => {
                form = Form::Automaton(Vec::new());
                tokens.push(Token::Char(']'));
            }
            c => tokens.push(Token::Char(c)),
        }
    }
    Ok(match form {
        Form::Automaton(_) => Form::Automaton(tokens),
        form => form,
    })
}

fn literal(tokens: &[Token]) -> String {
    tokens.iter().filter_map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect()
}

/// Reads a class from behind its `[`; gives it and where to go on.
fn class(chars: &[char], mut at: usize) -> Result<(Token, usize), &'static str> {
    const OPEN: &str = "`[` is not closed; write `\\[` for a bracket";
    let negated = chars.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if chars.get(at) == Some(&']') && !ranges.is_empty() {
            return Ok((Token::Class { negated, ranges }, at + 1));
        }
        let (low, next) = class_char(chars, at)?;
        at = next;
        let mut high = low;
        if chars.get(at) == Some(&'-') {
            (high, at) = class_char(chars, at + 1)?;
        }
        if high < low {
            return Err("a range in `[…]` runs backwards; write its lower end first");
        }
        ranges.push((low, high));
        if at >= chars.len() {
            return Err(OPEN);
        }
    }
}

fn class_char(chars: &[char], at: usize) -> Result<(char, usize), &'static str> {
    match chars.get(at) {
        None => Err("`[` is not closed; write `\\[` for a bracket"),
        Some('-' | ']') => Err("`-` and `]` in `[…]` need a `\\` before them"),
        Some('\\') => match chars.get(at + 1) {
            Some(c) => Ok((*c, at + 2)),
            None => Err("a `\\` at the end escapes nothing; write `\\\\` for a backslash"),
        },
        Some(c) => Ok((*c, at + 1)),
    }
}

/// States of a token: the automaton stands before it, or is inside a `**` that has taken a character.
const BEFORE: u8 = 1;
const INSIDE: u8 = 2;

fn run(tokens: &[Token], path: &str) -> bool {
    // Most patterns begin with text, and most paths differ from it at once.
    if let Some(Token::Char(first)) = tokens.first()
        && !path.starts_with(*first)
    {
        return false;
    }
    let mut now = vec![0_u8; tokens.len() + 1];
    let mut next = vec![0_u8; tokens.len() + 1];
    enter(tokens, &mut now, 0);
    for c in path.chars() {
        next.fill(0);
        let mut alive = false;
        for (at, token) in tokens.iter().enumerate() {
            let state = now.get(at).copied().unwrap_or(0);
            if state == 0 {
                continue;
            }
            alive = true;
            let before = state & BEFORE != 0;
            match token {
                Token::Char(wanted) if before && *wanted == c => enter(tokens, &mut next, at + 1),
                Token::AnyChar if before && c != '/' => enter(tokens, &mut next, at + 1),
                Token::Run if before && c != '/' => enter(tokens, &mut next, at),
                Token::Rest => enter(tokens, &mut next, at),
                Token::Folders => {
                    if let Some(slot) = next.get_mut(at) {
                        *slot |= INSIDE;
                    }
                    if c == '/' {
                        enter(tokens, &mut next, at + 1);
                    }
                }
                Token::Class { negated, ranges } if before => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    if inside != *negated {
                        enter(tokens, &mut next, at + 1);
                    }
                }
                Token::Char(_) | Token::AnyChar | Token::Run | Token::Class { .. } => {}
            }
        }
        if !alive {
            return false;
        }
        std::mem::swap(&mut now, &mut next);
    }
    now.last().is_some_and(|state| *state != 0)
}

/// Stands before a token, and before those behind it that can match nothing.
fn enter(tokens: &[Token], states: &mut [u8], at: usize) {
    for index in at..=tokens.len() {
        let Some(slot) = states.get_mut(index) else { return };
        if *slot & BEFORE != 0 {
            return;
        }
        *slot |= BEFORE;
        if !matches!(tokens.get(index), Some(Token::Run | Token::Folders | Token::Rest)) {
            return;
        }
    }
}
