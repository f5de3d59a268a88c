//! Walks a template's tree and writes its text.

use super::data::Value;
use super::error::{Exceeded, Fault, Outcome, Trouble};
use super::function::{Args, Function, MANY};
use super::heap::Heap;
use super::missing::{self, Watch};
use super::print;
use super::tree::{Branch, Command, Expression, ExpressionKind, Node, Pipeline, Program, Template};
use super::value::Val;
use super::{Limits, Rendered, builtins, sprig};

/// Renders the program's main template over `data`.
pub(super) fn run(program: &Program<'_>, data: &Value, heap: &mut Heap, limits: &Limits) -> Result<Rendered, Fault> {
    let dot = heap.import(data, 0).map_err(|trouble| trouble.at(0))?;
    let watch = Watch::new(&dot, heap);
    let mut eval =
        Eval { program, heap, output: String::new(), most: limits.output, variables: Vec::new(), depth: 0, watch };
    eval.template(&program.main, dot, 0)?;
    // What is missing has shown itself as in Go, so that the output is ACR's.
    let text =
        if eval.output.contains(print::NO_VALUE) { eval.output.replace(print::NO_VALUE, "") } else { eval.output };
    Ok(Rendered { text, missing: eval.watch.told(program.text, eval.heap) })
}

struct Eval<'p, 't> {
    program: &'p Program<'t>,
    heap: &'p mut Heap,
    output: String,
    /// Bytes that the output may have.
    most: usize,
    /// The running template's variables.
    variables: Vec<Val>,
    depth: usize,
    watch: Watch,
}

/// Whether a list of nodes went on to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'t> Eval<'_, 't> {
    fn charge(&self, steps: u64, at: usize) -> Result<(), Fault> {
        self.heap.charge(steps).map_err(|trouble| trouble.at(at))
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        self.heap.check_depth(self.depth).map_err(|trouble| trouble.at(at))
    }

    fn shown(&self, expression: &Expression<'t>) -> String {
        let text = self.program.text.get(expression.at..expression.end).unwrap_or_default();
        let kept = &text[..text.floor_char_boundary(80)];
        format!("`{kept}{}`", if kept.len() < text.len() { "…" } else { "" })
    }

    fn template(&mut self, template: &Template<'t>, dot: Val, at: usize) -> Result<(), Fault> {
        self.deeper(at)?;
        self.charge(template.variables as u64, at)?;
        let mut variables = vec![Val::Nil; template.variables.max(1)];
        variables[0] = dot.clone();
        let outer = std::mem::replace(&mut self.variables, variables);
        self.list(&template.body, &dot)?;
        self.variables = outer;
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, nodes: &[Node<'t>], dot: &Val) -> Result<Flow, Fault> {
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node<'t>, dot: &Val) -> Result<Flow, Fault> {
        match node {
            Node::Text(text) => self.write(text, 0)?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let text = match &value {
                        Val::Nil => print::NO_VALUE.to_owned(),
                        other => print::shown(self.heap, other).map_err(|trouble| trouble.at(pipeline.at))?,
                    };
                    self.write(&text, pipeline.at)?;
                }
            }
            Node::If(branch) | Node::With(branch) => {
                let mark = self.watch.mark();
                let value = self.pipeline(&branch.pipeline, dot)?;
                self.watch.forget(mark);
                self.deeper(branch.pipeline.at)?;
                let flow = if !builtins::is_true(self.heap, &value) {
                    self.list(&branch.otherwise, dot)?
                } else if matches!(node, Node::With(_)) {
                    self.list(&branch.body, &value)?
                } else {
                    self.list(&branch.body, dot)?
                };
                self.depth -= 1;
                return Ok(flow);
            }
            Node::Range(branch) => return self.range(branch, dot),
            Node::Template { at, name, argument } => {
                let program = self.program;
                let Some(template) = program.named.get(name) else {
                    let message = format!("template {name:?} is not defined; define it with `{{{{define {name:?}}}}}`");
                    return Err(Fault::execution(*at, message));
                };
                let value = match argument {
                    Some(pipeline) => self.pipeline(pipeline, dot)?,
                    None => Val::Nil,
                };
                self.template(template, value, *at)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn write(&mut self, text: &str, at: usize) -> Result<(), Fault> {
        self.heap.charge_bytes(text.len()).map_err(|trouble| trouble.at(at))?;
        if self.output.len() + text.len() > self.most {
            return Err(Fault::limit(at, Exceeded::Output));
        }
        self.output.push_str(text);
        Ok(())
    }

    fn range(&mut self, branch: &Branch<'t>, dot: &Val) -> Result<Flow, Fault> {
        let at = branch.pipeline.at;
        let mark = self.watch.mark();
        let value = self.evaluate(&branch.pipeline, dot)?;
        if !branch.otherwise.is_empty() {
            self.watch.forget(mark);
        }
        self.deeper(at)?;
        let mut any = false;
        match &value {
            Val::List(list) => {
                for (index, item) in list.items.iter().enumerate() {
                    any = true;
                    if self.turn(branch, Val::int(index as i64), item.clone())? == Flow::Break {
                        break;
                    }
                }
            }
            Val::Map(id) => {
                // The loop may change the map: it goes over what is there now.
                self.charge(self.heap.map(*id).len() as u64, at)?;
                let entries: Vec<_> =
                    self.heap.map(*id).iter().map(|(key, item)| (key.clone(), item.clone())).collect();
                for (key, item) in entries {
                    any = true;
                    if self.turn(branch, Val::Text(key), item)? == Flow::Break {
                        break;
                    }
                }
            }
            Val::Int(count, _) => {
                for index in 0..*count {
                    any = true;
                    if self.turn(branch, Val::int(index), Val::int(index))? == Flow::Break {
                        break;
                    }
                }
            }
            Val::Nil => {}
            other => {
                let message = format!("`range` goes over a list, a map or a count, not over {}", other.described());
                return Err(Fault::execution(at, message));
            }
        }
        let flow = if any { Flow::On } else { self.list(&branch.otherwise, dot)? };
        self.depth -= 1;
        Ok(flow)
    }

    fn turn(&mut self, branch: &Branch<'t>, index: Val, item: Val) -> Result<Flow, Fault> {
        self.charge(1, branch.pipeline.at)?;
        match branch.pipeline.variables[..] {
            [element] => self.variables[element] = item.clone(),
            [place, element, ..] => {
                self.variables[place] = index;
                self.variables[element] = item.clone();
            }
            [] => {}
        }
        self.list(&branch.body, &item)
    }

    /// A pipeline's value, which its variable takes too.
    fn pipeline(&mut self, pipeline: &Pipeline<'t>, dot: &Val) -> Result<Val, Fault> {
        let value = self.evaluate(pipeline, dot)?;
        for place in &pipeline.variables {
            self.variables[*place] = value.clone();
        }
        Ok(value)
    }

    fn evaluate(&mut self, pipeline: &Pipeline<'t>, dot: &Val) -> Result<Val, Fault> {
        self.deeper(pipeline.at)?;
        let mut last = None;
        let mark = self.watch.mark();
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
            if let Some(ExpressionKind::Function(function)) = command.words.first().map(|word| &word.kind)
                && missing::asks(function.name)
            {
                self.watch.forget(mark);
            }
        }
        self.depth -= 1;
        Ok(last.unwrap_or(Val::Nil))
    }

    /// A command's value; `piped` is the last argument, from the command before.
    fn command(&mut self, command: &Command<'t>, dot: &Val, piped: Option<Val>) -> Result<Val, Fault> {
        let Some((first, arguments)) = command.words.split_first() else { return Ok(Val::Nil) };
        self.charge(1, first.at)?;
        match &first.kind {
            ExpressionKind::Function(function) => self.call(function, first, arguments, piped, dot),
            ExpressionKind::Field(fields) => self.fields(dot.clone(), fields, first, Some((arguments, piped)), dot),
            ExpressionKind::Variable(place, fields) if !fields.is_empty() => {
                let value = self.variables[*place].clone();
                self.fields(value, fields, first, Some((arguments, piped)), dot)
            }
            ExpressionKind::Chain(inner, fields) => {
                let value = self.expression(inner, dot)?;
                self.fields(value, fields, first, Some((arguments, piped)), dot)
            }
            _ if piped.is_some() || !arguments.is_empty() => {
                let message = format!("{} is no function: it takes no arguments", self.shown(first));
                Err(Fault::execution(first.at, message))
            }
            _ => self.expression(first, dot),
        }
    }

    /// The value of a word that is not called with anything.
    fn expression(&mut self, expression: &Expression<'t>, dot: &Val) -> Result<Val, Fault> {
        self.charge(1, expression.at)?;
        Ok(match &expression.kind {
            ExpressionKind::Dot => dot.clone(),
            ExpressionKind::Nil => Val::Nil,
            ExpressionKind::Bool(value) => Val::Bool(*value),
            ExpressionKind::Text(text) => {
                self.heap.charge_bytes(text.len()).map_err(|trouble| trouble.at(expression.at))?;
                Val::text(text)
            }
            ExpressionKind::Number(number) => match number.int {
                Some(int) if !number.is_float => Val::int(int),
                _ => Val::Float(number.float),
            },
            ExpressionKind::Variable(place, fields) => {
                let value = self.variables[*place].clone();
                self.fields(value, fields, expression, None, dot)?
            }
            ExpressionKind::Field(fields) => self.fields(dot.clone(), fields, expression, None, dot)?,
            ExpressionKind::Chain(inner, fields) => {
                let value = self.expression(inner, dot)?;
                self.fields(value, fields, expression, None, dot)?
            }
            ExpressionKind::Function(function) => self.call(function, expression, &[], None, dot)?,
            ExpressionKind::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
        })
    }

    /// Goes down into a value, field by field. Only the last may be a method with arguments.
    fn fields(
        &mut self,
        mut value: Val,
        fields: &[&'t str],
        expression: &Expression<'t>,
        call: Option<(&[Expression<'t>], Option<Val>)>,
        dot: &Val,
    ) -> Result<Val, Fault> {
        self.charge(fields.len() as u64, expression.at)?;
        let mut call = call;
        for (index, field) in fields.iter().enumerate() {
            let is_last = index + 1 == fields.len();
            let (arguments, piped) = if is_last { call.take().unwrap_or((&[], None)) } else { (&[][..], None) };
            value = match &value {
                Val::Map(id) => {
                    if !arguments.is_empty() || piped.is_some() {
                        let message = format!("{} is no function: it takes no arguments", self.shown(expression));
                        return Err(Fault::execution(expression.at, message));
                    }
                    let found = self.heap.map(*id).get(*field).cloned();
                    // Whoever goes on from there is told by an error.
                    if found.is_none() && is_last {
                        self.watch.missed(*id, field, expression.at, expression.end);
                    }
                    found.unwrap_or(Val::Nil)
                }
                // The template's data may be nothing at all.
                Val::Nil if index == 0 && matches!(expression.kind, ExpressionKind::Field(_)) && is_last => Val::Nil,
                Val::Nil => return Err(Fault::execution(expression.at, self.missing(expression, fields, index))),
                other => {
                    let mut values = Vec::with_capacity(arguments.len() + 1);
                    let receiver = other.clone();
                    for argument in arguments {
                        values.push(self.expression(argument, dot)?);
                    }
                    values.extend(piped);
                    // A layout is read slowly.
                    let bytes: usize =
                        values.iter().map(|value| if let Val::Text(text) = value { text.len() } else { 0 }).sum();
                    self.charge(bytes as u64 * sprig::LAYOUT_BYTE + 1, expression.at)?;
                    match sprig::method(&receiver, field, &values) {
                        Some(result) => result.map_err(|trouble| self.called(trouble, expression))?,
                        None => {
                            let message =
                                format!("{}: {} has no field `{field}`", self.shown(expression), receiver.described());
                            return Err(Fault::execution(expression.at, message));
                        }
                    }
                }
            };
        }
        Ok(value)
    }

    fn missing(&self, expression: &Expression<'t>, fields: &[&str], index: usize) -> String {
        // What stands before the field that can't be read.
        let tail: usize = fields[index..].iter().map(|field| field.len() + 1).sum();
        let before = self.program.text.get(expression.at..expression.end.saturating_sub(tail)).unwrap_or_default();
        let before = if before.is_empty() { "." } else { before };
        format!(
            "{}: `{before}` is missing, so `{}` can't be read from it; set it, or ask `{{{{if {before}}}}}` first",
            self.shown(expression),
            fields[index]
        )
    }

    fn called(&self, trouble: Trouble, expression: &Expression<'t>) -> Fault {
        match trouble {
            Trouble::Wrong(message) => Fault::execution(expression.at, message),
            limit @ Trouble::Limit(_) => limit.at(expression.at),
        }
    }

    fn call(
        &mut self,
        function: &'static Function,
        expression: &Expression<'t>,
        arguments: &[Expression<'t>],
        piped: Option<Val>,
        dot: &Val,
    ) -> Result<Val, Fault> {
        let count = arguments.len() + usize::from(piped.is_some());
        if count < function.min || count > function.max {
            return Err(Fault::execution(expression.at, wrong_count(function, count)));
        }
        self.deeper(expression.at)?;
        let mut values = Vec::with_capacity(count);
        for argument in arguments {
            let value = self.expression(argument, dot)?;
            // `and` and `or` look at no more than they need.
            if let Some(stop) = builtins::stops_at(function.name)
                && builtins::is_true(self.heap, &value) == stop
            {
                self.depth -= 1;
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(piped);
        if let [Val::Map(id), Val::Text(key), ..] = &values[..]
            && matches!(function.name, "index" | "get")
            && !self.heap.map(*id).contains_key(&**key)
        {
            let end = arguments.last().map_or(expression.end, |last| last.end);
            self.watch.missed(*id, key, expression.at, end);
        }
        let result = self.apply(function, &values).map_err(|trouble| self.called(trouble, expression));
        self.depth -= 1;
        result
    }

    fn apply(&mut self, function: &'static Function, values: &[Val]) -> Outcome<Val> {
        for value in values {
            self.heap.charge_value(value)?;
        }
        let result = (function.call)(self.heap, &Args { function: function.name, values })?;
        self.heap.charge_value(&result)?;
        Ok(result)
    }
}

fn wrong_count(function: &Function, count: usize) -> String {
    let (min, max) = (function.min, function.max);
    let noun = if min == 1 && (max == 1 || max == MANY) { "argument" } else { "arguments" };
    let wants = match max {
        MANY => format!("at least {min}"),
        max if max == min => min.to_string(),
        max => format!("{min} to {max}"),
    };
    format!("`{}` takes {wants} {noun}, not {count}", function.name)
}
