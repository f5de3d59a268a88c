//! What a value is: emptiness, defaults, types, equality.

use crate::gotemplate::builtins::is_true;
use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Function, exact, many};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    many("default", 1, |heap, args| {
        let given = args.values.get(1).filter(|given| !is_empty(heap, given));
        Ok(given.unwrap_or(args.get(0)).clone())
    }),
    exact("empty", 1, |heap, args| Ok(Val::Bool(is_empty(heap, args.get(0))))),
    many("coalesce", 0, |heap, args| {
        Ok(args.values.iter().find(|value| !is_empty(heap, value)).cloned().unwrap_or(Val::Nil))
    }),
    exact("ternary", 3, |_, args| Ok(args.get(if args.bool(2)? { 0 } else { 1 }).clone())),
    exact("typeOf", 1, |heap, args| Ok(Val::text(heap.type_name(args.get(0))))),
    exact("typeIs", 2, |heap, args| Ok(Val::Bool(heap.type_name(args.get(1)) == args.text(0)?))),
    exact("typeIsLike", 2, |heap, args| {
        let name = heap.type_name(args.get(1));
        let wanted = args.text(0)?;
        Ok(Val::Bool(name == wanted || name.strip_prefix('*') == Some(wanted)))
    }),
    exact("kindOf", 1, |_, args| Ok(Val::text(args.get(0).kind_name()))),
    exact("kindIs", 2, |_, args| Ok(Val::Bool(args.get(1).kind_name() == args.text(0)?))),
    exact("deepEqual", 2, |heap, args| Ok(Val::Bool(deep_equal(heap, args.get(0), args.get(1), 0)?))),
];

/// Sprig's `empty` is the opposite of Go's truth.
pub(super) fn is_empty(heap: &Heap, value: &Val) -> bool {
    !is_true(heap, value)
}

/// `reflect.DeepEqual`: the same types all the way down.
pub(super) fn deep_equal(heap: &Heap, a: &Val, b: &Val, depth: usize) -> Outcome<bool> {
    heap.check_depth(depth)?;
    heap.charge(1)?;
    Ok(match (a, b) {
        (Val::Nil, Val::Nil) => true,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Int(a, kind), Val::Int(b, other)) => a == b && kind == other,
        (Val::Float(a), Val::Float(b)) => a == b,
        (Val::Text(a), Val::Text(b)) => {
            // Equal texts are read to their ends.
            heap.charge(a.len().min(b.len()) as u64 / 16)?;
            a == b
        }
        (Val::Moment(a), Val::Moment(b)) => a == b,
        (Val::Version(a), Val::Version(b)) => a == b,
        (Val::Named(a, _, kind), Val::Named(b, _, other)) => a == b && kind == other,
        (Val::List(a), Val::List(b)) => {
            if a.kind != b.kind || a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !deep_equal(heap, a, b, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Val::Map(a), Val::Map(b)) => {
            if heap.map_kind(*a) != heap.map_kind(*b) || heap.map(*a).len() != heap.map(*b).len() {
                return Ok(false);
            }
            for ((key, a), (other, b)) in heap.map(*a).iter().zip(heap.map(*b)) {
                if key != other || !deep_equal(heap, a, b, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}
