//! Numbers. As in Sprig, most functions take whatever can be a number, and what can't is 0.

use std::rc::Rc;

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact, many};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::number;
use crate::gotemplate::print;
use crate::gotemplate::value::{ItemKind, List, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    exact("atoi", 1, |_, args| Ok(Val::int(number::integer(args.text(0)?, 10).unwrap_or(0)))),
    exact("int", 1, |_, args| Ok(Val::int(int64(args.get(0))))),
    exact("int64", 1, |_, args| Ok(Val::int64(int64(args.get(0))))),
    exact("float64", 1, |_, args| Ok(Val::Float(float64(args.get(0))))),
    exact("toDecimal", 1, |heap, args| {
        let text = print::shown(heap, args.get(0))?;
        Ok(Val::int64(number::integer(&text, 8).unwrap_or(0)))
    }),
    exact("add1", 1, |_, args| Ok(Val::int64(int64(args.get(0)).wrapping_add(1)))),
    many("add", 0, |_, args| Ok(Val::int64(args.values.iter().map(int64).fold(0, i64::wrapping_add)))),
    exact("sub", 2, |_, args| Ok(Val::int64(int64(args.get(0)).wrapping_sub(int64(args.get(1)))))),
    exact("div", 2, |_, args| divide(args, i64::wrapping_div)),
    exact("mod", 2, |_, args| divide(args, i64::wrapping_rem)),
    many("mul", 1, |_, args| Ok(Val::int64(args.values.iter().map(int64).fold(1, i64::wrapping_mul)))),
    many("max", 1, |_, args| Ok(Val::int64(args.values.iter().map(int64).max().unwrap_or(0)))),
    many("biggest", 1, |_, args| Ok(Val::int64(args.values.iter().map(int64).max().unwrap_or(0)))),
    many("min", 1, |_, args| Ok(Val::int64(args.values.iter().map(int64).min().unwrap_or(0)))),
    exact("ceil", 1, |_, args| Ok(Val::Float(float64(args.get(0)).ceil()))),
    exact("floor", 1, |_, args| Ok(Val::Float(float64(args.get(0)).floor()))),
    Function { name: "round", min: 2, max: 3, call: round },
    exact("until", 1, |heap, args| {
        let count = args.int(0)?;
        count_up(heap, 0, count, if count < 0 { -1 } else { 1 })
    }),
    exact("untilStep", 3, |heap, args| count_up(heap, args.int(0)?, args.int(1)?, args.int(2)?)),
];

pub(super) fn int64(value: &Val) -> i64 {
    match value {
        Val::Int(value, _) | Val::Named(value, ..) => *value,
        Val::Float(value) => *value as i64,
        Val::Bool(value) => i64::from(*value),
        Val::Text(text) => number::integer(text, 10).unwrap_or(0),
        _ => 0,
    }
}

fn float64(value: &Val) -> f64 {
    match value {
        Val::Int(value, _) | Val::Named(value, ..) => *value as f64,
        Val::Float(value) => *value,
        Val::Bool(value) => f64::from(*value),
        Val::Text(text) => parsed(text),
        _ => 0.0,
    }
}

/// `strconv.ParseFloat`, which knows infinity and no number by name.
fn parsed(text: &str) -> f64 {
    let name = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if matches!(name.as_str(), "inf" | "infinity" | "nan") {
        return text.parse().unwrap_or(0.0);
    }
    if text.contains('_') { 0.0 } else { number::float(text).unwrap_or(0.0) }
}

fn divide(args: &Args<'_>, divide: fn(i64, i64) -> i64) -> Outcome<Val> {
    match int64(args.get(1)) {
        0 => Err(format!("`{}` by zero", args.function).into()),
        divisor => Ok(Val::int64(divide(int64(args.get(0)), divisor))),
    }
}

fn round(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let round_on = if args.values.len() > 2 { args.float(2)? } else { 0.5 };
    let scale = 10f64.powi(i32::try_from(args.int(1)?.clamp(-400, 400)).unwrap_or(0));
    let scaled = scale * float64(args.get(0));
    let rounded = if scaled.fract() >= round_on { scaled.ceil() } else { scaled.floor() };
    Ok(Val::Float(rounded / scale))
}

/// Numbers from `start` to before `stop`.
fn count_up(heap: &Heap, start: i64, stop: i64, step: i64) -> Outcome<Val> {
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let is_toward = step != 0 && distance > 0;
    let count = if is_toward { distance.unsigned_abs().div_ceil(step.unsigned_abs()) } else { 0 };
    heap.charge(count)?;
    let mut items = Vec::new();
    let mut next = start;
    for _ in 0..count {
        items.push(Val::int(next));
        next = next.saturating_add(step);
    }
    Ok(Val::List(Rc::new(List::new(items, ItemKind::Int)?)))
}
