//! What a template read and nobody gave it: it renders as nothing, as in Go, and its author should know.
//!
//! Owns which maps are looked at, and which ways of reading ask whether something is there. What is told of it, and to whom,
//! is the caller's business.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::error;
use super::heap::Heap;
use super::value::{MapId, Val};

/// The most places that are told of a text.
const MAX_TOLD: usize = 100;
/// The most maps of the caller's data that are looked at.
const MAX_WATCHED: usize = 1000;
/// Functions that have a use for what is not there.
const ASKING: &[&str] = &[
    "and", "coalesce", "default", "dig", "empty", "eq", "hasKey", "kindIs", "kindOf", "ne", "not", "or", "ternary",
    "typeIs", "typeOf",
];

/// A place that reads what is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
    /// How many characters the expression has that reads it.
    pub length: usize,
    /// The map that it is read from, such as `.Values`; empty for the data itself.
    pub of: String,
    /// The key that is not there.
    pub key: String,
    /// The keys that are there.
    pub known: Vec<String>,
}

/// Whether a function has a use for what is not there.
pub(super) fn asks(function: &str) -> bool {
    ASKING.contains(&function)
}

/// What was missed while a template ran.
#[derive(Debug)]
pub(super) struct Watch {
    /// The maps of the caller's data, with their paths.
    watched: BTreeMap<usize, String>,
    missed: Vec<Missed>,
}

#[derive(Debug, PartialEq)]
struct Missed {
    at: usize,
    end: usize,
    map: usize,
    key: Rc<str>,
}

impl Watch {
    /// Looks at the data and at the maps in its maps.
    pub(super) fn new(root: &Val, heap: &Heap) -> Self {
        let mut watched = BTreeMap::new();
        let mut open = match root {
            Val::Map(id) => vec![(*id, String::new())],
            _ => Vec::new(),
        };
        while let Some((id, path)) = open.pop() {
            if watched.len() == MAX_WATCHED {
                break;
            }
            for (key, value) in heap.map(id) {
                if let Val::Map(inner) = value
                    && open.len() < MAX_WATCHED
                {
                    open.push((*inner, format!("{path}.{key}")));
                }
            }
            watched.insert(id.0, path);
        }
        Self { watched, missed: Vec::new() }
    }

    /// How much has been missed so far.
    pub(super) fn mark(&self) -> usize {
        self.missed.len()
    }

    /// What has been missed since then was asked for.
    pub(super) fn forget(&mut self, mark: usize) {
        self.missed.truncate(mark);
    }

    /// A key is not in a map.
    pub(super) fn missed(&mut self, map: MapId, key: &str, at: usize, end: usize) {
        if self.missed.len() < MAX_TOLD && self.watched.contains_key(&map.0) {
            let missed = Missed { at, end, map: map.0, key: key.into() };
            if !self.missed.contains(&missed) {
                self.missed.push(missed);
            }
        }
    }

    /// All that was missed, in the order of the text.
    pub(super) fn told(mut self, text: &str, heap: &Heap) -> Vec<Missing> {
        self.missed.sort_by_key(|missed| missed.at);
        let told = self.missed.into_iter().map(|missed| {
            let (line, column) = error::position(text, missed.at);
            let expression = text.get(missed.at..missed.end).unwrap_or_default();
            Missing {
                line,
                column,
                length: expression.chars().count().max(1),
                of: self.watched.get(&missed.map).cloned().unwrap_or_default(),
                key: missed.key.to_string(),
                known: heap.map(MapId(missed.map)).keys().map(|key| key.to_string()).collect(),
            }
        });
        told.collect()
    }
}
