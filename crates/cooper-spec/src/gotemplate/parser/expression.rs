//! Pipelines, commands and their words.

use super::*;

impl<'t> Parser<'t, '_> {
    /// A pipeline with its variables, up to and with `end`.
    pub(super) fn pipeline(&mut self, context: &str, end: Kind, may_set: bool) -> Result<Pipeline<'t>, Fault> {
        self.skip_space();
        let at = self.peek().at;
        let set = self.set_variables(context)?;
        if set.is_some() && !may_set {
            return Err(Fault::syntax(at, "a variable can be set at the beginning of an action only"));
        }
        let mut commands = Vec::new();
        loop {
            let (command, ended) = self.command(context, end)?;
            if let Some(first) = command.words.first().filter(|_| !commands.is_empty()) {
                self.check_callable(first)?;
            }
            commands.push(command);
            if ended == end {
                break;
            }
        }
        // The variable is known behind its own pipeline only.
        let variables = match set {
            None => Vec::new(),
            Some(Set::Old(variables)) => variables,
            Some(Set::New(names)) => names.into_iter().map(|name| self.declare(name)).collect(),
        };
        Ok(Pipeline { at, variables, commands })
    }

    fn declare(&mut self, name: &'t str) -> usize {
        self.scope.push(name);
        self.most = self.most.max(self.scope.len());
        self.scope.len() - 1
    }

    fn check_callable(&self, word: &Expression<'t>) -> Result<(), Fault> {
        use ExpressionKind as E;
        if matches!(word.kind, E::Dot | E::Nil | E::Bool(_) | E::Number(_) | E::Text(_)) {
            let shown = self.shown(word);
            return Err(Fault::syntax(word.at, format!("{shown} is no function: nothing can be piped into it")));
        }
        Ok(())
    }

    fn shown(&self, word: &Expression<'t>) -> String {
        format!("`{}`", self.text.get(word.at..word.end).unwrap_or_default())
    }

    /// `$x :=`, `$x =`, and `$i, $x :=` in a range.
    fn set_variables(&mut self, context: &str) -> Result<Option<Set<'t>>, Fault> {
        let start = self.next;
        let mut names = Vec::new();
        loop {
            self.skip_space();
            let name = self.take();
            if name.kind != Kind::Variable {
                break;
            }
            names.push(name);
            self.skip_space();
            let sign = self.take();
            match sign.kind {
                Kind::Declare => {
                    if let Some(dollar) = names.iter().find(|name| name.text == "$") {
                        return Err(Fault::syntax(
                            dollar.at,
                            "`$` is the template's data; name the variable, such as `$x`",
                        ));
                    }
                    return Ok(Some(Set::New(names.iter().map(|name| name.text).collect())));
                }
                Kind::Assign => {
                    let places = names.iter().map(|name| self.place(*name)).collect::<Result<_, _>>()?;
                    return Ok(Some(Set::Old(places)));
                }
                Kind::Comma if context == "range" && names.len() == 1 => {}
                Kind::Comma => return Err(Fault::syntax(sign.at, format!("too many variables in {context}"))),
                _ => break,
            }
        }
        if names.len() > 1 {
            return Err(Fault::syntax(
                self.peek().at,
                "`range` sets its variables with `:=`, such as `range $i, $x := .list`",
            ));
        }
        self.next = start;
        Ok(None)
    }

    fn place(&self, name: Token<'t>) -> Result<usize, Fault> {
        self.scope.iter().rposition(|known| *known == name.text).ok_or_else(|| {
            Fault::syntax(name.at, format!("variable `{0}` is not set here; set it with `{0} := …` before", name.text))
        })
    }

    /// The words up to a `|` or the pipeline's end, which it takes.
    fn command(&mut self, context: &str, end: Kind) -> Result<(Command<'t>, Kind), Fault> {
        let mut words = Vec::new();
        loop {
            self.skip_space();
            let at = self.peek().at;
            if let Some(word) = self.operand()? {
                words.push(word);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => {}
                Kind::Right | Kind::RightParen if token.kind == end => {
                    self.check_words(&words, token.at, context)?;
                    return Ok((Command { words }, end));
                }
                Kind::Pipe => {
                    self.check_words(&words, at, context)?;
                    return Ok((Command { words }, Kind::Pipe));
                }
                _ => {
                    let message = match token.kind {
                        Kind::Declare | Kind::Assign => {
                            format!("`{}` can stand behind a variable at the beginning of an action only", token.text)
                        }
                        Kind::End => "the action is not closed; end it with `}}`".to_owned(),
                        _ if words.is_empty() => format!("`{}` can't stand here", token.text),
                        _ => {
                            format!("`{}` can't stand here; part it with a blank if it is another argument", token.text)
                        }
                    };
                    return Err(Fault::syntax(token.at, message));
                }
            }
        }
    }

    fn check_words(&self, words: &[Expression<'t>], at: usize, context: &str) -> Result<(), Fault> {
        use ExpressionKind as E;
        let Some(first) = words.first() else {
            return Err(Fault::syntax(at, format!("a value is missing in {context}")));
        };
        if words.len() > 1 && matches!(first.kind, E::Dot | E::Bool(_) | E::Number(_) | E::Text(_) | E::Pipeline(_)) {
            let shown = self.shown(first);
            return Err(Fault::syntax(first.at, format!("{shown} is no function: it takes no arguments")));
        }
        if matches!(first.kind, E::Nil) {
            return Err(Fault::syntax(first.at, "`nil` is no function; it can be an argument only"));
        }
        Ok(())
    }

    /// A term and the fields behind it.
    fn operand(&mut self) -> Result<Option<Expression<'t>>, Fault> {
        let Some(mut term) = self.term()? else { return Ok(None) };
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            let field = self.take();
            self.heap.check_depth(fields.len()).map_err(|trouble| trouble.at(field.at))?;
            fields.push(&field.text[1..]);
            term.end = field.end();
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        match &mut term.kind {
            ExpressionKind::Field(own) | ExpressionKind::Variable(_, own) => own.append(&mut fields),
            ExpressionKind::Function(_) | ExpressionKind::Pipeline(_) => {
                let (at, end) = (term.at, term.end);
                term = Expression { at, end, kind: ExpressionKind::Chain(Box::new(term), fields) };
            }
            _ => {
                return Err(Fault::syntax(term.at, format!("{} has no fields", self.shown(&term))));
            }
        }
        Ok(Some(term))
    }

    fn term(&mut self) -> Result<Option<Expression<'t>>, Fault> {
        let token = self.peek();
        let bad = |what: &str| Fault::syntax(token.at, format!("`{}` is no {what}", clipped(token.text)));
        let kind = match token.kind {
            Kind::Word => match token.text {
                "true" => ExpressionKind::Bool(true),
                "false" => ExpressionKind::Bool(false),
                "nil" => ExpressionKind::Nil,
                name if KEYWORDS.contains(&name) => {
                    return Err(Fault::syntax(
                        token.at,
                        format!("`{name}` can stand at the beginning of an action only"),
                    ));
                }
                name => ExpressionKind::Function(self.function(name, token.at)?),
            },
            Kind::Dot => ExpressionKind::Dot,
            Kind::Field => ExpressionKind::Field(vec![&token.text[1..]]),
            Kind::Variable => ExpressionKind::Variable(self.place(token)?, Vec::new()),
            Kind::Number => ExpressionKind::Number(number::number(token.text).ok_or_else(|| bad("number"))?),
            Kind::Char => {
                let text = number::unquote(token.text, '\'').ok_or_else(|| bad("character"))?;
                let mut characters = text.chars();
                match (characters.next(), characters.next()) {
                    (Some(c), None) => {
                        let code = i64::from(u32::from(c));
                        ExpressionKind::Number(Number { int: Some(code), float: code as f64, is_float: false })
                    }
                    _ => return Err(bad("character; texts stand in double quotes")),
                }
            }
            Kind::Quoted => ExpressionKind::Text(
                number::unquote(token.text, '"').ok_or_else(|| bad("text: one of its escapes is unknown"))?,
            ),
            Kind::Raw => ExpressionKind::Text(number::unquote_raw(token.text).unwrap_or_default()),
            Kind::LeftParen => {
                self.next += 1;
                self.deeper(token.at)?;
                let inner = self.pipeline("parentheses", Kind::RightParen, false)?;
                self.depth -= 1;
                let end = self.tokens[self.next - 1].end();
                return Ok(Some(Expression { at: token.at, end, kind: ExpressionKind::Pipeline(Box::new(inner)) }));
            }
            _ => return Ok(None),
        };
        self.next += 1;
        Ok(Some(Expression { at: token.at, end: token.end(), kind }))
    }

    fn function(&self, name: &str, at: usize) -> Result<&'static Function, Fault> {
        function::find(name).map_err(|message| Fault::syntax(at, message))
    }
}

fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

enum Set<'t> {
    New(Vec<&'t str>),
    Old(Vec<usize>),
}
