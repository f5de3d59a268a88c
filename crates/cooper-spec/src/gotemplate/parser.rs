//! Tokens become a tree: Go's grammar, with the checks that Go makes before it executes anything.

use std::collections::BTreeMap;

use super::error::Fault;
use super::function::{self, Function};
use super::heap::Heap;
use super::lexer::{self, Kind, Token};
use super::number::{self, Number};
use super::tree::{Branch, Command, Expression, ExpressionKind, Node, Pipeline, Program, Template};

mod expression;

/// Parses a text. Tokens cost fuel, and nesting is limited.
pub(super) fn parse<'t>(text: &'t str, heap: &Heap) -> Result<Program<'t>, Fault> {
    let tokens = lexer::tokens(text, heap)?;
    let mut parser =
        Parser { text, tokens, next: 0, scope: vec!["$"], most: 1, ranges: 0, depth: 0, heap, named: BTreeMap::new() };
    let mut body = Vec::new();
    loop {
        match parser.item(&mut body, true)? {
            Ended::No => {}
            Ended::Text => break,
            Ended::End(at) => return Err(Fault::syntax(at, "`{{end}}` ends nothing that is open")),
            Ended::Else(at) => return Err(Fault::syntax(at, "`{{else}}` belongs to nothing that is open")),
        }
    }
    let main = Template { body, variables: parser.most };
    Ok(Program { text, main, named: parser.named })
}

struct Parser<'t, 'h> {
    text: &'t str,
    tokens: Vec<Token<'t>>,
    next: usize,
    /// The variables that are known here, each in the place that its index says.
    scope: Vec<&'t str>,
    /// The most variables that were known at once.
    most: usize,
    /// Ranges around this place.
    ranges: usize,
    depth: usize,
    heap: &'h Heap,
    named: BTreeMap<String, Template<'t>>,
}

/// What ended a list of nodes.
enum Ended {
    No,
    Text,
    End(usize),
    /// `{{else`: what follows is the caller's to read.
    Else(usize),
}

const KEYWORDS: [&str; 10] = ["break", "block", "continue", "define", "else", "end", "if", "range", "template", "with"];

impl<'t> Parser<'t, '_> {
    fn peek(&self) -> Token<'t> {
        // The last token is the text's end, and nothing goes beyond it.
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        self.heap.check_depth(self.depth).map_err(|trouble| trouble.at(at))
    }

    /// One node of a list, or the list's end.
    fn item(&mut self, nodes: &mut Vec<Node<'t>>, is_top: bool) -> Result<Ended, Fault> {
        let token = self.take();
        match token.kind {
            Kind::End => return Ok(Ended::Text),
            Kind::Text => {
                nodes.push(Node::Text(token.text));
                return Ok(Ended::No);
            }
            _ => {}
        }
        // A left delimiter: the lexer gives nothing else outside of actions.
        self.skip_space();
        let word = self.peek();
        if word.kind != Kind::Word || !KEYWORDS.contains(&word.text) {
            let pipeline = self.pipeline("an action", Kind::Right, true)?;
            nodes.push(Node::Action(pipeline));
            return Ok(Ended::No);
        }
        self.next += 1;
        self.deeper(word.at)?;
        match word.text {
            "if" => {
                let branch = self.branch(word, false)?;
                nodes.push(Node::If(branch));
            }
            "with" => {
                let branch = self.branch(word, false)?;
                nodes.push(Node::With(branch));
            }
            "range" => {
                let branch = self.branch(word, true)?;
                nodes.push(Node::Range(branch));
            }
            "template" => {
                let (name, argument) = self.template_call(word)?;
                nodes.push(Node::Template { at: word.at, name, argument });
            }
            "block" => {
                let (name, argument) = self.template_call(word)?;
                if argument.is_none() {
                    return Err(Fault::syntax(
                        word.at,
                        "`{{block}}` takes a name and a value, such as `{{block \"x\" .}}`",
                    ));
                }
                self.define(word, &name)?;
                nodes.push(Node::Template { at: word.at, name, argument });
            }
            "define" => {
                if !is_top {
                    return Err(Fault::syntax(
                        word.at,
                        "`{{define}}` can't stand within another structure; move it out",
                    ));
                }
                let name = self.name_of_template(word)?;
                self.close_action(word)?;
                self.define(word, &name)?;
            }
            "break" | "continue" => {
                if self.ranges == 0 {
                    return Err(Fault::syntax(
                        word.at,
                        format!("`{{{{{0}}}}}` stands outside of a `{{{{range}}}}`", word.text),
                    ));
                }
                self.close_action(word)?;
                nodes.push(if word.text == "break" { Node::Break } else { Node::Continue });
            }
            "end" => {
                self.close_action(word)?;
                self.depth -= 1;
                return Ok(Ended::End(word.at));
            }
            _ => {
                self.depth -= 1;
                return Ok(Ended::Else(word.at));
            }
        }
        self.depth -= 1;
        Ok(Ended::No)
    }

    /// The nodes up to `{{end}}` or `{{else`.
    fn list(&mut self, opened: Token<'t>) -> Result<(Vec<Node<'t>>, Ended), Fault> {
        let mut nodes = Vec::new();
        loop {
            match self.item(&mut nodes, false)? {
                Ended::No => {}
                Ended::Text => {
                    let message = format!("`{{{{{}}}}}` is not closed; end it with `{{{{end}}}}`", opened.text);
                    return Err(Fault::syntax(opened.at, message));
                }
                ended => return Ok((nodes, ended)),
            }
        }
    }

    /// A control structure from behind its keyword to its `{{end}}`.
    fn branch(&mut self, word: Token<'t>, is_range: bool) -> Result<Branch<'t>, Fault> {
        let known = self.scope.len();
        let pipeline = self.pipeline(word.text, Kind::Right, true)?;
        if pipeline.variables.len() > 1 && !is_range {
            return Err(Fault::syntax(pipeline.at, "only `range` sets two variables"));
        }
        self.ranges += usize::from(is_range);
        let list = self.list(word);
        self.ranges -= usize::from(is_range);
        let (body, mut ended) = list?;
        let mut otherwise = Vec::new();
        if let Ended::Else(at) = ended {
            self.skip_space();
            let next = self.peek();
            // `{{else if x}}` is an `{{if x}}` in the else-branch that shares its end.
            if next.kind == Kind::Word && matches!(next.text, "if" | "with") && !is_range {
                self.next += 1;
                self.deeper(next.at)?;
                let branch = self.branch(next, false)?;
                self.depth -= 1;
                otherwise.push(if next.text == "if" { Node::If(branch) } else { Node::With(branch) });
                ended = Ended::End(at);
            } else {
                self.close_action(Token { kind: Kind::Word, at, text: "else" })?;
                (otherwise, ended) = self.list(word)?;
            }
        }
        if let Ended::Else(at) = ended {
            return Err(Fault::syntax(at, format!("`{{{{{}}}}}` has a second `{{{{else}}}}`", word.text)));
        }
        self.scope.truncate(known);
        Ok(Branch { pipeline, body, otherwise })
    }

    fn name_of_template(&mut self, word: Token<'t>) -> Result<String, Fault> {
        self.skip_space();
        let token = self.take();
        let name = match token.kind {
            Kind::Quoted => number::unquote(token.text, '"'),
            Kind::Raw => number::unquote_raw(token.text),
            _ => None,
        };
        name.ok_or_else(|| {
            Fault::syntax(token.at, format!("`{{{{{}}}}}` takes the name of a template in quotes", word.text))
        })
    }

    fn template_call(&mut self, word: Token<'t>) -> Result<(String, Option<Pipeline<'t>>), Fault> {
        let name = self.name_of_template(word)?;
        self.skip_space();
        if self.peek().kind == Kind::Right {
            self.next += 1;
            return Ok((name, None));
        }
        Ok((name, Some(self.pipeline(word.text, Kind::Right, false)?)))
    }

    /// A named template's body, up to its `{{end}}`. It sees no variables of its surroundings.
    fn define(&mut self, word: Token<'t>, name: &str) -> Result<(), Fault> {
        let scope = std::mem::replace(&mut self.scope, vec!["$"]);
        let most = std::mem::replace(&mut self.most, 1);
        let ranges = std::mem::take(&mut self.ranges);
        let (body, ended) = self.list(word)?;
        if let Ended::Else(at) = ended {
            return Err(Fault::syntax(at, format!("`{{{{{}}}}}` has no `{{{{else}}}}`", word.text)));
        }
        let template = Template { body, variables: self.most };
        (self.scope, self.most, self.ranges) = (scope, most, ranges);
        // An empty definition never replaces one that says something.
        let is_empty = |template: &Template<'_>| {
            template.body.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.named.get(name) {
            Some(known) if !is_empty(known) => {
                if !is_empty(&template) {
                    return Err(Fault::syntax(word.at, format!("template {name:?} is defined twice")));
                }
            }
            _ => {
                self.named.insert(name.to_owned(), template);
            }
        }
        Ok(())
    }

    fn close_action(&mut self, word: Token<'t>) -> Result<(), Fault> {
        self.skip_space();
        let token = self.take();
        if token.kind == Kind::Right {
            return Ok(());
        }
        Err(Fault::syntax(token.at, format!("`{}` can't stand behind `{}`; write `}}}}`", token.text, word.text)))
    }
}
