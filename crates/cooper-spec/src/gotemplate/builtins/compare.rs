//! Comparisons: Go's rules, which compare like with like.

use std::cmp::Ordering;

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::Args;
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::Val;

/// `eq a b c`: whether `a` is one of the others.
pub(super) fn eq(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let Some((first, others)) = args.values.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("`eq` compares its first argument with others, and there is no other".into());
    };
    for other in others {
        if same(args.function, first, other)? {
            return Ok(Val::Bool(true));
        }
    }
    Ok(Val::Bool(false))
}

pub(super) fn ne(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    Ok(Val::Bool(!same(args.function, args.get(0), args.get(1))?))
}

pub(super) fn lt(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    Ok(Val::Bool(order(args)? == Some(Ordering::Less)))
}

pub(super) fn le(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    Ok(Val::Bool(matches!(order(args)?, Some(Ordering::Less | Ordering::Equal))))
}

pub(super) fn gt(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    Ok(Val::Bool(order(args)? == Some(Ordering::Greater)))
}

pub(super) fn ge(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    Ok(Val::Bool(matches!(order(args)?, Some(Ordering::Greater | Ordering::Equal))))
}

fn same(function: &str, a: &Val, b: &Val) -> Outcome<bool> {
    use Val as V;
    Ok(match (a, b) {
        (V::Nil, V::Nil) => true,
        (V::Nil, _) | (_, V::Nil) => false,
        (V::Bool(a), V::Bool(b)) => a == b,
        (V::Int(a, _) | V::Named(a, ..), V::Int(b, _) | V::Named(b, ..)) => a == b,
        (V::Float(a), V::Float(b)) => a == b,
        (V::Text(a), V::Text(b)) => a == b,
        (V::Moment(a), V::Moment(b)) => a == b,
        (V::List(_) | V::Map(_) | V::Version(_), _) | (_, V::List(_) | V::Map(_) | V::Version(_)) => {
            let what = if matches!(a, V::List(_) | V::Map(_) | V::Version(_)) { a } else { b };
            return Err(format!("`{function}` can't compare {}; use `deepEqual`", what.described()).into());
        }
        _ => return Err(different(function, a, b).into()),
    })
}

fn different(function: &str, a: &Val, b: &Val) -> String {
    format!(
        "`{function}` can't compare {} with {}; make them alike, with `toString` or `int`",
        a.described(),
        b.described()
    )
}

fn order(args: &Args<'_>) -> Outcome<Option<Ordering>> {
    use Val as V;
    let (a, b) = (args.get(0), args.get(1));
    Ok(match (a, b) {
        (V::Int(a, _) | V::Named(a, ..), V::Int(b, _) | V::Named(b, ..)) => Some(a.cmp(b)),
        (V::Float(a), V::Float(b)) => a.partial_cmp(b),
        (V::Text(a), V::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (
            V::Int(..) | V::Float(_) | V::Text(_) | V::Named(..),
            V::Int(..) | V::Float(_) | V::Text(_) | V::Named(..),
        ) => {
            return Err(different(args.function, a, b).into());
        }
        _ => {
            let what = if matches!(a, V::Int(..) | V::Float(_) | V::Text(_)) { b } else { a };
            return Err(format!("`{}` can't order {}", args.function, what.described()).into());
        }
    })
}
