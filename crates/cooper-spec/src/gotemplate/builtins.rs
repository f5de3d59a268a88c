//! The functions that Go's templates have by themselves.

use super::error::{Outcome, Trouble};
use super::format;
use super::function::{Args, Function, exact, many};
use super::heap::Heap;
use super::print;
use super::value::{IntKind, Val};

mod compare;
mod escape;

/// Their table. Go's `slice` is Sprig's here, and `call` has nothing to call.
pub(super) const FUNCTIONS: &[Function] = &[
    many("and", 1, and),
    many("or", 1, or),
    exact("not", 1, |heap, args| Ok(Val::Bool(!is_true(heap, args.get(0))))),
    many("eq", 1, compare::eq),
    exact("ne", 2, compare::ne),
    exact("lt", 2, compare::lt),
    exact("le", 2, compare::le),
    exact("gt", 2, compare::gt),
    exact("ge", 2, compare::ge),
    exact("len", 1, len),
    many("index", 1, index),
    many("print", 0, |heap, args| Ok(Val::text(&joined(heap, args.values)?))),
    many("println", 0, println),
    many("printf", 1, |heap, args| Ok(Val::text(&format::printf(heap, args.text(0)?, args.from(1))?))),
    many("html", 0, |heap, args| Ok(Val::text(&escape::html(&escapable(heap, args)?)))),
    many("js", 0, |heap, args| Ok(Val::text(&escape::js(&escapable(heap, args)?)))),
    many("urlquery", 0, |heap, args| Ok(Val::text(&escape::query(&escapable(heap, args)?)))),
];

/// The truth at which a function looks at no further argument.
pub(super) fn stops_at(function: &str) -> Option<bool> {
    match function {
        "and" => Some(false),
        "or" => Some(true),
        _ => None,
    }
}

/// Whether a value is more than nothing, zero, or empty.
pub(super) fn is_true(heap: &Heap, value: &Val) -> bool {
    match value {
        Val::Nil => false,
        Val::Bool(value) => *value,
        Val::Int(value, _) | Val::Named(value, ..) => *value != 0,
        Val::Float(value) => *value != 0.0,
        Val::Text(text) => !text.is_empty(),
        Val::List(list) => !list.items.is_empty(),
        Val::Map(id) => !heap.map(*id).is_empty(),
        Val::Moment(_) | Val::Version(_) => true,
    }
}

fn and(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let found = args.values.iter().find(|value| !is_true(heap, value));
    Ok(found.or(args.values.last()).cloned().unwrap_or(Val::Nil))
}

fn or(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let found = args.values.iter().find(|value| is_true(heap, value));
    Ok(found.or(args.values.last()).cloned().unwrap_or(Val::Nil))
}

fn len(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let length = match args.get(0) {
        Val::Text(text) => text.len(),
        Val::List(list) => list.items.len(),
        Val::Map(id) => heap.map(*id).len(),
        other => return Err(format!("`len` counts a string, a list or a map, not {}", other.described()).into()),
    };
    Ok(Val::int(length as i64))
}

fn index(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let mut value = args.get(0).clone();
    for (position, key) in args.from(1).iter().enumerate() {
        let out_of_range = |key: i64, length: usize| -> Trouble {
            format!("`index`: there is no item {key}: there are {length}, and the first is 0").into()
        };
        value = match (&value, key) {
            (Val::Map(id), Val::Text(key)) => heap.map(*id).get(key).cloned().unwrap_or(Val::Nil),
            (Val::Map(_), key) => {
                return Err(format!("`index`: a map is read by a string, not by {}", key.described()).into());
            }
            (Val::List(list), Val::Int(key, _)) => {
                let item = usize::try_from(*key).ok().and_then(|key| list.items.get(key));
                item.cloned().ok_or_else(|| out_of_range(*key, list.items.len()))?
            }
            (Val::Text(text), Val::Int(key, _)) => {
                let byte = usize::try_from(*key).ok().and_then(|key| text.as_bytes().get(key));
                Val::Int(i64::from(*byte.ok_or_else(|| out_of_range(*key, text.len()))?), IntKind::Byte)
            }
            (Val::List(_) | Val::Text(_), key) => {
                let described = value.described();
                return Err(format!("`index`: {described} is read by an int, not by {}", key.described()).into());
            }
            (Val::Nil, _) => {
                let what = if position == 0 { "what it reads" } else { "what it reads further" };
                return Err(format!("`index`: {what} is missing; ask `if` first").into());
            }
            (other, _) => {
                return Err(format!("`index` reads a map, a list or a string, not {}", other.described()).into());
            }
        };
    }
    Ok(value)
}

/// `fmt.Sprint`: blanks between neighbours that are no texts.
fn joined(heap: &Heap, values: &[Val]) -> Outcome<String> {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        let is_text = |value: &Val| matches!(value, Val::Text(_));
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            text.push(' ');
        }
        text.push_str(&print::shown(heap, value)?);
    }
    Ok(text)
}

fn println(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let shown = args.values.iter().map(|value| print::shown(heap, value)).collect::<Outcome<Vec<_>>>()?;
    Ok(Val::text(&(shown.join(" ") + "\n")))
}

/// What the escaping functions escape: what is missing is nothing.
fn escapable(heap: &Heap, args: &Args<'_>) -> Outcome<String> {
    let present = args.values.iter().map(|value| if matches!(value, Val::Nil) { Val::text("") } else { value.clone() });
    let text = joined(heap, &present.collect::<Vec<_>>())?;
    // Each character may become six.
    heap.charge_bytes(text.len() * 6)?;
    Ok(text)
}
