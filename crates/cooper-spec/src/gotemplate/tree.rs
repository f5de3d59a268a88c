//! A parsed template.

use std::collections::BTreeMap;

use super::function::Function;
use super::number::Number;

/// All templates of a text.
#[derive(Debug)]
pub(super) struct Program<'t> {
    /// The whole text, for messages that quote an expression.
    pub(super) text: &'t str,
    pub(super) main: Template<'t>,
    pub(super) named: BTreeMap<String, Template<'t>>,
}

/// A template, and how many variables it has at once; the first is `$`.
#[derive(Debug, Default)]
pub(super) struct Template<'t> {
    pub(super) body: Vec<Node<'t>>,
    pub(super) variables: usize,
}

#[derive(Debug)]
pub(super) enum Node<'t> {
    Text(&'t str),
    Action(Pipeline<'t>),
    If(Branch<'t>),
    With(Branch<'t>),
    Range(Branch<'t>),
    Template { at: usize, name: String, argument: Option<Pipeline<'t>> },
    Break,
    Continue,
}

/// A control structure: what it looks at, and what follows.
#[derive(Debug)]
pub(super) struct Branch<'t> {
    pub(super) pipeline: Pipeline<'t>,
    pub(super) body: Vec<Node<'t>>,
    pub(super) otherwise: Vec<Node<'t>>,
}

/// `$variable := command | command`
#[derive(Debug)]
pub(super) struct Pipeline<'t> {
    pub(super) at: usize,
    /// The places of the variables that it sets: one, or index and element of a range.
    pub(super) variables: Vec<usize>,
    pub(super) commands: Vec<Command<'t>>,
}

/// Words that stand side by side: the first may be called with the others.
#[derive(Debug)]
pub(super) struct Command<'t> {
    pub(super) words: Vec<Expression<'t>>,
}

/// An expression, and the bytes of the text that it stands on.
#[derive(Debug)]
pub(super) struct Expression<'t> {
    pub(super) at: usize,
    pub(super) end: usize,
    pub(super) kind: ExpressionKind<'t>,
}

#[derive(Debug)]
pub(super) enum ExpressionKind<'t> {
    Dot,
    Nil,
    Bool(bool),
    Number(Number),
    Text(String),
    /// `.a.b`
    Field(Vec<&'t str>),
    /// `$x.a.b`
    Variable(usize, Vec<&'t str>),
    Function(&'static Function),
    /// `( … )`
    Pipeline(Box<Pipeline<'t>>),
    /// `( … ).a.b`
    Chain(Box<Expression<'t>>, Vec<&'t str>),
}
