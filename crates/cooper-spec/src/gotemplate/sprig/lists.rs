//! Lists. None is ever changed: what adds or takes away makes a new one.

use std::rc::Rc;

use super::reflect::{deep_equal, is_empty};
use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact, many};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::{ItemKind, List, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    many("list", 0, |_, args| Val::list(args.values.to_vec())),
    many("tuple", 0, |_, args| Val::list(args.values.to_vec())),
    exact("append", 2, push),
    exact("push", 2, push),
    exact("prepend", 2, |_, args| {
        let mut items = vec![args.get(1).clone()];
        items.extend_from_slice(&args.list(0)?.items);
        Val::list(items)
    }),
    exact("first", 1, |_, args| Ok(args.list(0)?.items.first().cloned().unwrap_or(Val::Nil))),
    exact("last", 1, |_, args| Ok(args.list(0)?.items.last().cloned().unwrap_or(Val::Nil))),
    exact("rest", 1, |_, args| Val::list(args.list(0)?.items.iter().skip(1).cloned().collect())),
    exact("initial", 1, |_, args| {
        let items = &args.list(0)?.items;
        Val::list(items[..items.len().saturating_sub(1)].to_vec())
    }),
    exact("reverse", 1, |_, args| Val::list(args.list(0)?.items.iter().rev().cloned().collect())),
    exact("compact", 1, |heap, args| {
        Val::list(args.list(0)?.items.iter().filter(|item| !is_empty(heap, item)).cloned().collect())
    }),
    exact("uniq", 1, |heap, args| {
        let mut kept: Vec<Val> = Vec::new();
        for item in &args.list(0)?.items {
            if !is_in(heap, item, &kept)? {
                kept.push(item.clone());
            }
        }
        Val::list(kept)
    }),
    many("without", 1, |heap, args| {
        let mut kept = Vec::new();
        for item in &args.list(0)?.items {
            if !is_in(heap, item, args.from(1))? {
                kept.push(item.clone());
            }
        }
        Val::list(kept)
    }),
    exact("has", 2, |heap, args| match args.get(1) {
        Val::Nil => Ok(Val::Bool(false)),
        _ => Ok(Val::Bool(is_in(heap, args.get(0), &args.list(1)?.items)?)),
    }),
    Function { name: "slice", min: 1, max: 3, call: slice },
    many("concat", 0, |_, args| {
        let mut items = Vec::new();
        for index in 0..args.values.len() {
            items.extend_from_slice(&args.list(index)?.items);
        }
        Val::list(items)
    }),
    exact("sortAlpha", 1, |heap, args| {
        let mut texts = match args.get(0) {
            list @ Val::List(_) => texts(heap, list)?,
            other => vec![super::string(heap, other)?],
        };
        texts.sort_unstable();
        Val::texts(texts)
    }),
    exact("toStrings", 1, |heap, args| Val::texts(texts(heap, args.get(0))?)),
    exact("join", 2, join),
    exact("splitList", 2, |heap, args| Val::texts(pieces(heap, args.text(1)?, args.text(0)?, None)?)),
    exact("split", 2, |heap, args| {
        let pieces = pieces(heap, args.text(1)?, args.text(0)?, None)?;
        numbered(heap, &pieces)
    }),
    exact("splitn", 3, |heap, args| {
        let pieces = pieces(heap, args.text(2)?, args.text(0)?, Some(args.int(1)?))?;
        numbered(heap, &pieces)
    }),
];

fn push(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let mut items = args.list(0)?.items.clone();
    items.push(args.get(1).clone());
    Val::list(items)
}

fn is_in(heap: &Heap, value: &Val, items: &[Val]) -> Outcome<bool> {
    for item in items {
        if deep_equal(heap, value, item, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn slice(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let place = |index: usize, otherwise: usize| match args.values.get(index) {
        Some(value) => usize::try_from(super::math::int64(value)).ok(),
        None => Some(otherwise),
    };
    let length = match args.get(0) {
        Val::Text(text) => text.len(),
        _ => args.list(0)?.items.len(),
    };
    let (start, end) = match (place(1, 0), place(2, length)) {
        _ if length == 0 => (0, 0),
        (Some(start), Some(end)) if start <= end && end <= length => (start, end),
        _ => return Err(format!("`slice` reaches beyond what it cuts, which has a length of {length}").into()),
    };
    if length == 0 {
        return Ok(if matches!(args.get(0), Val::Text(_)) { Val::text("") } else { Val::Nil });
    }
    heap.charge((end - start) as u64 / 16 + 1)?;
    match args.get(0) {
        // Go's own `slice`, which Sprig hides, cuts texts too.
        Val::Text(text) => match text.get(start..end) {
            Some(piece) => Ok(Val::text(piece)),
            None => Err("`slice` cuts a character in two".into()),
        },
        _ => {
            let list = args.list(0)?;
            Ok(Val::List(Rc::new(List::new(list.items[start..end].to_vec(), list.kind)?)))
        }
    }
}

/// Sprig's `toStrings`: a list's items that are there, or the one value.
fn texts(heap: &Heap, value: &Val) -> Outcome<Vec<String>> {
    match value {
        Val::Nil => Ok(Vec::new()),
        Val::List(list) => {
            let present = list.items.iter().filter(|item| !matches!(item, Val::Nil));
            present.map(|item| super::string(heap, item)).collect()
        }
        other => Ok(vec![super::string(heap, other)?]),
    }
}

fn join(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let texts = texts(heap, args.get(1))?;
    let separator = args.text(0)?;
    heap.charge_bytes(separator.len().saturating_mul(texts.len()))?;
    Ok(Val::text(&texts.join(separator)))
}

/// `strings.SplitN`: no more than `most` pieces; an empty separator parts characters.
fn pieces(heap: &Heap, text: &str, separator: &str, most: Option<i64>) -> Outcome<Vec<String>> {
    // Each piece costs more than its bytes.
    let count = if separator.is_empty() { text.chars().count() } else { text.matches(separator).count() + 1 };
    heap.charge(count as u64 * 4)?;
    let most = match most {
        Some(0) => return Ok(Vec::new()),
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    if !separator.is_empty() {
        return Ok(text.splitn(most, separator).map(str::to_owned).collect());
    }
    let mut pieces: Vec<String> = Vec::new();
    for (at, c) in text.char_indices() {
        if pieces.len() + 1 == most {
            pieces.push(text[at..].to_owned());
            break;
        }
        pieces.push(c.to_string());
    }
    Ok(pieces)
}

/// Pieces as a map: `_0`, `_1`, …
fn numbered(heap: &mut Heap, pieces: &[String]) -> Outcome<Val> {
    heap.charge(pieces.len() as u64 * 4)?;
    let entries = pieces.iter().enumerate().map(|(index, piece)| (Rc::from(format!("_{index}")), Val::text(piece)));
    Ok(heap.new_map_of(entries.collect(), ItemKind::Text))
}
