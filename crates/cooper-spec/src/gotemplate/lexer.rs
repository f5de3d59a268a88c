//! A template's text as tokens. Comments and trim markers end here: no other part knows of them.

use super::error::{Exceeded, Fault};
use super::heap::Heap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text,
    /// `{{`
    Left,
    /// `}}`
    Right,
    /// Blanks in an action: they part arguments.
    Space,
    /// A function's name, a keyword, or a truth.
    Word,
    /// `.name`
    Field,
    /// `$` or `$name`
    Variable,
    Number,
    /// `'x'`
    Char,
    /// `"x"`
    Quoted,
    /// `` `x` ``
    Raw,
    Dot,
    Pipe,
    LeftParen,
    RightParen,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    End,
}

/// A piece of the text, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) at: usize,
    pub(super) text: &'t str,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Splits the text up. A token costs a step, before there is room for more of them.
pub(super) fn tokens<'t>(text: &'t str, heap: &Heap) -> Result<Vec<Token<'t>>, Fault> {
    let most = usize::try_from(heap.fuel()).unwrap_or(usize::MAX);
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), parens: Vec::new(), most };
    lexer.run()?;
    heap.charge(lexer.tokens.len() as u64).map_err(|trouble| trouble.at(0))?;
    Ok(lexer.tokens)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token<'t>>,
    /// Where the open parentheses are.
    parens: Vec<usize>,
    /// Tokens that there may be.
    most: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, length: usize) {
        self.tokens.push(Token { kind, at: self.at, text: &self.text[self.at..self.at + length] });
        self.at += length;
    }

    fn run(&mut self) -> Result<(), Fault> {
        let mut trim_next = false;
        loop {
            if trim_next {
                self.at = self.text.len() - self.rest().trim_start_matches(BLANKS).len();
            }
            let Some(before) = self.rest().find("{{") else { break };
            let left = self.at + before;
            // The dash belongs to the braces only where a blank stands on its other side.
            let trims = self.text[left + 2..].starts_with('-') && self.text[left + 3..].starts_with(BLANKS);
            let outside = &self.text[self.at..left];
            let kept = if trims { outside.trim_end_matches(BLANKS) } else { outside };
            if !kept.is_empty() {
                self.push(Kind::Text, kept.len());
            }
            self.at = left;
            let inside = left + if trims { 3 } else { 2 };
            let comment = self.text[inside..].trim_start_matches(if trims { &BLANKS[..] } else { &[] });
            if comment.starts_with("/*") {
                self.at = self.text.len() - comment.len();
                trim_next = self.comment(left)?;
            } else {
                self.push(Kind::Left, inside - left);
                trim_next = self.action(left)?;
            }
        }
        if !self.rest().is_empty() {
            self.push(Kind::Text, self.rest().len());
        }
        self.push(Kind::End, 0);
        Ok(())
    }

    /// How long the action's end is if it is here, and whether it trims what follows.
    fn closing(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with("}}") {
            Some((2, false))
        } else if rest.starts_with(BLANKS) && rest[1..].starts_with("-}}") {
            Some((4, true))
        } else {
            None
        }
    }

    fn comment(&mut self, left: usize) -> Result<bool, Fault> {
        let Some(length) = self.rest()[2..].find("*/") else {
            return Err(Fault::syntax(left, "the comment is not closed; end it with `*/}}`"));
        };
        self.at += length + 4;
        let Some((closing, trims)) = self.closing() else {
            return Err(Fault::syntax(self.at, "a comment is an action of its own; write `}}` right behind its `*/`"));
        };
        self.at += closing;
        Ok(trims)
    }

    /// Everything to the end of an action.
    fn action(&mut self, left: usize) -> Result<bool, Fault> {
        self.parens.clear();
        loop {
            if self.tokens.len() > self.most {
                return Err(Fault::limit(self.at, Exceeded::Fuel));
            }
            if let Some((length, trims)) = self.closing() {
                if let Some(paren) = self.parens.last() {
                    return Err(Fault::syntax(
                        *paren,
                        "the parenthesis is not closed; write `)` before the action's end",
                    ));
                }
                self.push(Kind::Right, length);
                return Ok(trims);
            }
            let Some(next) = self.rest().chars().next() else {
                return Err(Fault::syntax(left, "the action is not closed; end it with `}}`"));
            };
            match next {
                ' ' | '\t' | '\r' | '\n' => self.space(),
                '=' => self.push(Kind::Assign, 1),
                ':' if self.rest().starts_with(":=") => self.push(Kind::Declare, 2),
                '|' => self.push(Kind::Pipe, 1),
                ',' => self.push(Kind::Comma, 1),
                '(' => {
                    self.parens.push(self.at);
                    self.push(Kind::LeftParen, 1);
                }
                ')' => {
                    if self.parens.pop().is_none() {
                        return Err(Fault::syntax(self.at, "a `)` without its `(`"));
                    }
                    self.push(Kind::RightParen, 1);
                }
                '"' => self.quoted(Kind::Quoted, '"')?,
                '\'' => self.quoted(Kind::Char, '\'')?,
                '`' => {
                    let Some(length) = self.rest()[1..].find('`') else {
                        return Err(Fault::syntax(self.at, "the text is not closed; end it with a backquote"));
                    };
                    self.push(Kind::Raw, length + 2);
                }
                '$' => self.name(Kind::Variable)?,
                '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.name(Kind::Field)?,
                '+' | '-' | '.' | '0'..='9' => self.number()?,
                c if is_name(c) => self.name(Kind::Word)?,
                c => return Err(Fault::syntax(self.at, format!("{} has no meaning in an action", shown(c)))),
            }
        }
    }

    fn space(&mut self) {
        let rest = self.rest();
        let mut length = rest.len() - rest.trim_start_matches(BLANKS).len();
        // The last blank belongs to a closing trim marker.
        if rest[length..].starts_with("-}}") {
            length -= 1;
        }
        self.push(Kind::Space, length);
    }

    fn quoted(&mut self, kind: Kind, quote: char) -> Result<(), Fault> {
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = characters.next() {
            match c {
                '\\' => match characters.next() {
                    Some((_, c)) if c != '\n' => {}
                    _ => break,
                },
                '\n' => break,
                c if c == quote => {
                    self.push(kind, offset + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(Fault::syntax(self.at, format!("the text is not closed; end it with `{quote}` on the same line")))
    }

    /// A word, a field or a variable: names with what marks them in front.
    fn name(&mut self, kind: Kind) -> Result<(), Fault> {
        let rest = self.rest();
        let mark = usize::from(kind != Kind::Word);
        let length = mark + rest[mark..].find(|c| !is_name(c)).unwrap_or(rest.len() - mark);
        let kind = if kind == Kind::Field && length == 1 { Kind::Dot } else { kind };
        if let Some(c) = rest[length..].chars().next()
            && !" \t\r\n.,|:=)(".contains(c)
            && !rest[length..].starts_with("}}")
        {
            return Err(Fault::syntax(
                self.at + length,
                format!("{} can't stand behind `{}`", shown(c), &rest[..length.min(rest.floor_char_boundary(80))]),
            ));
        }
        self.push(kind, length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let mut length = usize::from(rest.starts_with(['+', '-']));
        let prefix = rest[length..].get(..2).unwrap_or_default().to_ascii_lowercase();
        let is_hexadecimal = prefix == "0x";
        let (skip, digits) = match prefix.as_str() {
            "0x" => (2, "0123456789abcdefABCDEF_"),
            "0o" => (2, "01234567_"),
            "0b" => (2, "01_"),
            _ => (0, "0123456789_"),
        };
        let run =
            |from: usize, digits: &str| from + rest[from..].find(|c| !digits.contains(c)).unwrap_or(rest.len() - from);
        length = run(length + skip, digits);
        if rest[length..].starts_with('.') {
            length = run(length + 1, digits);
        }
        let exponents = if is_hexadecimal { ['p', 'P'] } else { ['e', 'E'] };
        if (skip == 0 || is_hexadecimal) && rest[length..].starts_with(exponents) {
            length += 1;
            length += usize::from(rest[length..].starts_with(['+', '-']));
            length = run(length, "0123456789_");
        }
        if let Some(c) = rest[length..].chars().next().filter(|c| is_name(*c)) {
            return Err(Fault::syntax(self.at, format!("`{}{c}` is no number", &rest[..length])));
        }
        self.push(Kind::Number, length);
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn shown(c: char) -> String {
    if c.is_control() { format!("U+{:04X}", u32::from(c)) } else { format!("`{c}`") }
}
