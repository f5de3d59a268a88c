//! Values while a template runs, with as much of Go's types as a template can see.

use std::rc::Rc;

use super::error::{Exceeded, Outcome, Trouble};
use super::sprig::{Moment, Version};

/// A value. It is cheap to copy: what is large is shared, and never changes, except maps, which the heap holds.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Nil,
    Bool(bool),
    Int(i64, IntKind),
    Float(f64),
    Text(Rc<str>),
    List(Rc<List>),
    Map(MapId),
    Moment(Rc<Moment>),
    Version(Rc<Version>),
    /// A number that shows itself as a name: months and weekdays.
    Named(i64, &'static str, &'static str),
}

/// A map's place on the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapId(pub(super) usize);

/// Go's types of whole numbers that a template meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntKind {
    Int,
    Int64,
    Byte,
}

/// Values in order.
#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Val>,
    pub(super) kind: ItemKind,
    /// Lists within lists: bounded, because a deep list can't be dropped without a deep stack.
    depth: usize,
}

/// Go's types of what lists and maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    Any,
    Text,
    Int,
}

/// Lists within lists that a template may make.
const LIST_DEPTH: usize = 200;

impl List {
    pub(super) fn new(items: Vec<Val>, kind: ItemKind) -> Outcome<Self> {
        let inner = items.iter().map(|item| if let Val::List(list) = item { list.depth } else { 0 }).max();
        let depth = inner.unwrap_or(0) + 1;
        if depth > LIST_DEPTH {
            return Err(Trouble::Limit(Exceeded::Depth));
        }
        Ok(Self { items, kind, depth })
    }
}

impl Val {
    pub(super) fn int(value: i64) -> Self {
        Self::Int(value, IntKind::Int)
    }

    pub(super) fn int64(value: i64) -> Self {
        Self::Int(value, IntKind::Int64)
    }

    pub(super) fn text(value: &str) -> Self {
        Self::Text(value.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Outcome<Self> {
        Ok(Self::List(Rc::new(List::new(items, ItemKind::Any)?)))
    }

    /// A list of texts (Go's `[]string`).
    pub(super) fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Outcome<Self> {
        let items = items.into_iter().map(|item| Self::text(item.as_ref())).collect();
        Ok(Self::List(Rc::new(List::new(items, ItemKind::Text)?)))
    }

    /// Go's `%T`.
    pub(super) fn type_name(&self, map_kind: impl Fn(MapId) -> ItemKind) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_, IntKind::Int) => "int",
            Self::Int(_, IntKind::Int64) => "int64",
            Self::Int(_, IntKind::Byte) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(list) => match list.kind {
                ItemKind::Any => "[]interface {}",
                ItemKind::Text => "[]string",
                ItemKind::Int => "[]int",
            },
            Self::Map(id) => match map_kind(*id) {
                ItemKind::Text => "map[string]string",
                _ => "map[string]interface {}",
            },
            Self::Moment(_) => "time.Time",
            Self::Version(_) => "*semver.Version",
            Self::Named(_, _, type_name) => type_name,
        }
    }

    /// Go's `reflect.Kind`.
    pub(super) fn kind_name(&self) -> &'static str {
        match self {
            Self::Nil => "invalid",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
            Self::Moment(_) => "struct",
            Self::Version(_) => "ptr",
            Self::Named(..) => "int",
            other => other.type_name(|_| ItemKind::Any),
        }
    }

    /// What a message calls it: the kind alone, never the value.
    pub(super) fn described(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Bool(_) => "a bool",
            Self::Int(..) | Self::Named(..) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Moment(_) => "a time",
            Self::Version(_) => "a version",
        }
    }
}
