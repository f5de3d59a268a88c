//! What a running template holds: its maps, its fuel and its time.
//!
//! Maps live here and values name them by place, so that `set` changes them as in Go, a map that holds itself leaks
//! nothing, and dropping a value never follows a map.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use cooper_types::Timestamp;

use super::Limits;
use super::data::Value;
use super::error::{Exceeded, Outcome, Trouble};
use super::sprig::Patterns;
use super::value::{ItemKind, MapId, Val};

/// Entries by name.
pub(super) type Entries = BTreeMap<Rc<str>, Val>;

#[derive(Debug)]
pub(super) struct Heap {
    maps: Vec<(Entries, ItemKind)>,
    fuel: Cell<u64>,
    depth: usize,
    now: Timestamp,
    /// Regular expressions that have been compiled.
    pub(super) patterns: Patterns,
}

/// Steps that a map's entry costs: it takes more room than a list's item.
const ENTRY: u64 = 4;

impl Heap {
    pub(super) fn new(limits: &Limits, now: Timestamp) -> Self {
        Self { maps: Vec::new(), fuel: Cell::new(limits.fuel), depth: limits.depth, now, patterns: Patterns::new() }
    }

    /// The time that the template takes for the present.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Steps that are left.
    pub(super) fn fuel(&self) -> u64 {
        self.fuel.get()
    }

    /// Pays for steps of work.
    pub(super) fn charge(&self, steps: u64) -> Outcome<()> {
        match self.fuel.get().checked_sub(steps) {
            Some(left) => {
                self.fuel.set(left);
                Ok(())
            }
            None => {
                self.fuel.set(0);
                Err(Trouble::Limit(Exceeded::Fuel))
            }
        }
    }

    /// Pays for making or reading this many bytes.
    pub(super) fn charge_bytes(&self, bytes: usize) -> Outcome<()> {
        self.charge(bytes as u64 / 16 + 1)
    }

    pub(super) fn check_depth(&self, depth: usize) -> Outcome<()> {
        if depth > self.depth { Err(Trouble::Limit(Exceeded::Depth)) } else { Ok(()) }
    }

    /// Pays for a value that goes into or comes out of a function.
    pub(super) fn charge_value(&self, value: &Val) -> Outcome<()> {
        match value {
            Val::Text(text) => self.charge_bytes(text.len()),
            Val::List(list) => self.charge(list.items.len() as u64 + 1),
            Val::Map(id) => self.charge_map(*id),
            _ => self.charge(1),
        }
    }

    /// Pays for a walk over a map: its keys are compared on the way.
    pub(super) fn charge_map(&self, id: MapId) -> Outcome<()> {
        let entries = self.map(id);
        let bytes: usize = entries.keys().map(|key| key.len()).sum();
        self.charge(entries.len() as u64 * ENTRY + bytes as u64 / 16 + 1)
    }

    pub(super) fn map(&self, id: MapId) -> &Entries {
        &self.maps[id.0].0
    }

    pub(super) fn map_mut(&mut self, id: MapId) -> &mut Entries {
        &mut self.maps[id.0].0
    }

    /// The type of a map's values.
    pub(super) fn map_kind(&self, id: MapId) -> ItemKind {
        self.maps[id.0].1
    }

    pub(super) fn new_map(&mut self, entries: Entries) -> Val {
        self.new_map_of(entries, ItemKind::Any)
    }

    pub(super) fn new_map_of(&mut self, entries: Entries, kind: ItemKind) -> Val {
        self.maps.push((entries, kind));
        Val::Map(MapId(self.maps.len() - 1))
    }

    pub(super) fn type_name(&self, value: &Val) -> &'static str {
        value.type_name(|id| self.map_kind(id))
    }

    /// Takes the caller's data over. It costs no fuel: its size is the caller's to limit.
    pub(super) fn import(&mut self, value: &Value, depth: usize) -> Outcome<Val> {
        self.check_depth(depth)?;
        Ok(match value {
            Value::Null => Val::Nil,
            Value::Bool(value) => Val::Bool(*value),
            Value::Int(value) => Val::int(*value),
            Value::Float(value) => Val::Float(*value),
            Value::String(value) => Val::text(value),
            Value::List(items) => {
                Val::list(items.iter().map(|item| self.import(item, depth + 1)).collect::<Outcome<_>>()?)?
            }
            Value::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((Rc::from(key.as_str()), self.import(value, depth + 1)?)))
                    .collect::<Outcome<_>>()?;
                self.new_map(entries)
            }
        })
    }
}
