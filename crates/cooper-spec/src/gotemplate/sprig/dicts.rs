//! Maps. As in Sprig, `set`, `unset` and the merging functions change the map that they are given.

use std::rc::Rc;

use super::reflect::is_empty;
use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact, many};
use crate::gotemplate::heap::{Entries, Heap};
use crate::gotemplate::value::{MapId, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    many("dict", 0, dict),
    exact("set", 3, |heap, args| {
        let (map, key) = (args.map(0)?, Rc::from(args.text(1)?));
        heap.charge(4)?;
        heap.map_mut(map).insert(key, args.get(2).clone());
        Ok(Val::Map(map))
    }),
    exact("unset", 2, |heap, args| {
        let (map, key) = (args.map(0)?, args.text(1)?);
        heap.map_mut(map).remove(key);
        Ok(Val::Map(map))
    }),
    exact("hasKey", 2, |heap, args| Ok(Val::Bool(heap.map(args.map(0)?).contains_key(args.text(1)?)))),
    many("pluck", 1, |heap, args| {
        let key = args.text(0)?;
        let mut found = Vec::new();
        for index in 1..args.values.len() {
            found.extend(heap.map(args.map(index)?).get(key).cloned());
        }
        Val::list(found)
    }),
    many("keys", 0, |heap, args| {
        let mut keys: Vec<Rc<str>> = Vec::new();
        for index in 0..args.values.len() {
            keys.extend(heap.map(args.map(index)?).keys().cloned());
        }
        Val::texts(keys)
    }),
    exact("values", 1, |heap, args| Val::list(heap.map(args.map(0)?).values().cloned().collect())),
    many("pick", 1, |heap, args| {
        let map = heap.map(args.map(0)?);
        let mut picked = Entries::new();
        for index in 1..args.values.len() {
            if let Some((key, value)) = map.get_key_value(args.text(index)?) {
                picked.insert(key.clone(), value.clone());
            }
        }
        Ok(heap.new_map(picked))
    }),
    many("omit", 1, |heap, args| {
        let mut kept = heap.map(args.map(0)?).clone();
        for index in 1..args.values.len() {
            kept.remove(args.text(index)?);
        }
        Ok(heap.new_map(kept))
    }),
    many("merge", 1, |heap, args| merge_all(heap, args, false)),
    many("mergeOverwrite", 1, |heap, args| merge_all(heap, args, true)),
    exact("deepCopy", 1, |heap, args| deep_copy(heap, args.get(0), 0)),
];

fn dict(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let mut entries = Entries::new();
    for pair in args.values.chunks(2) {
        let key = super::string(heap, &pair[0])?;
        heap.charge(4)?;
        entries.insert(Rc::from(key), pair.get(1).cloned().unwrap_or_else(|| Val::text("")));
    }
    Ok(heap.new_map(entries))
}

fn merge_all(heap: &mut Heap, args: &Args<'_>, overwrites: bool) -> Outcome<Val> {
    let target = args.map(0)?;
    for index in 1..args.values.len() {
        merge(heap, target, args.map(index)?, overwrites, 0)?;
    }
    Ok(Val::Map(target))
}

/// Takes over what the target lacks, or everything; maps on both sides are merged in turn.
fn merge(heap: &mut Heap, target: MapId, source: MapId, overwrites: bool, depth: usize) -> Outcome<()> {
    heap.check_depth(depth)?;
    heap.charge_map(source)?;
    heap.charge_map(target)?;
    if target == source {
        return Ok(());
    }
    let entries: Vec<_> = heap.map(source).iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in entries {
        let present = heap.map(target).get(&key).cloned();
        match (&present, &value) {
            (_, Val::Nil) if !overwrites => {}
            (Some(Val::Map(inner)), Val::Map(other)) if !is_empty(heap, &Val::Map(*inner)) => {
                merge(heap, *inner, *other, overwrites, depth + 1)?;
            }
            (Some(present), _) if !overwrites && !is_empty(heap, present) => {}
            _ => {
                heap.map_mut(target).insert(key, value);
            }
        }
    }
    Ok(())
}

fn deep_copy(heap: &mut Heap, value: &Val, depth: usize) -> Outcome<Val> {
    heap.check_depth(depth)?;
    heap.charge_value(value)?;
    match value {
        Val::List(list) => {
            let items = list.items.iter().map(|item| deep_copy(heap, item, depth + 1)).collect::<Outcome<_>>()?;
            Ok(Val::List(Rc::new(crate::gotemplate::value::List::new(items, list.kind)?)))
        }
        Val::Map(map) => {
            let entries = heap.map(*map).clone();
            let kind = heap.map_kind(*map);
            let copied = entries
                .into_iter()
                .map(|(key, value)| Ok((key, deep_copy(heap, &value, depth + 1)?)))
                .collect::<Outcome<_>>()?;
            Ok(heap.new_map_of(copied, kind))
        }
        other => Ok(other.clone()),
    }
}
