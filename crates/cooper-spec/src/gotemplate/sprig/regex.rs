//! Regular expressions: Go's syntax, which never looks back and so takes no more time than the text is long.

use std::collections::HashMap;

use regex::{NoExpand, Regex, RegexBuilder};

use crate::gotemplate::error::{Outcome, Trouble};
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::Val;

mod syntax;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("regexMatch", 2, |heap, args| Ok(Val::Bool(pattern(heap, args)?.is_match(args.text(1)?)))),
    exact("regexFind", 2, |heap, args| {
        let found = pattern(heap, args)?.find(args.text(1)?).map_or("", |found| found.as_str());
        Ok(Val::text(found))
    }),
    exact("regexFindAll", 3, |heap, args| {
        let pattern = pattern(heap, args)?;
        let spans = spans(heap, &pattern, args.text(1)?, args.int(2)?)?;
        let text = args.text(1)?;
        Val::texts(spans.into_iter().map(|(start, end)| &text[start..end]))
    }),
    exact("regexReplaceAll", 3, |heap, args| replaced(heap, args, false)),
    exact("regexReplaceAllLiteral", 3, |heap, args| replaced(heap, args, true)),
    exact("regexSplit", 3, split),
];

/// Expressions that have been compiled: a loop pays once.
pub(in crate::gotemplate) type Patterns = HashMap<String, Regex>;

/// Bytes of a text that expressions are looked for in.
const TEXT: usize = 64 * 1024;

/// Bytes of an expression, and of what it is compiled to.
const PATTERN: usize = 1024;
const COMPILED: usize = 128 * 1024;

/// Steps that compiling costs.
const COMPILING: u64 = 10_000;

/// The expression of argument 1, with its search in argument 2 paid for.
fn pattern(heap: &mut Heap, args: &Args<'_>) -> Outcome<Regex> {
    let (expression, text) = (args.text(0)?, args.text(1)?);
    if text.len() > TEXT {
        return Err(format!("`{}` looks at no text of more than {TEXT} bytes", args.function).into());
    }
    heap.charge(text.len() as u64 + 1)?;
    if let Some(known) = heap.patterns.get(expression) {
        return Ok(known.clone());
    }
    heap.charge(COMPILING)?;
    let wrong = |reason: &str| -> Trouble {
        format!("argument 1 of `{}` is no regular expression: {reason}", args.function).into()
    };
    if expression.len() > PATTERN {
        return Err(wrong(&format!("it is longer than {PATTERN} bytes")));
    }
    let translated = syntax::translate(expression).map_err(wrong)?;
    let compiled =
        RegexBuilder::new(&translated).size_limit(COMPILED).dfa_size_limit(4 * COMPILED).nest_limit(50).build();
    let compiled = compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => wrong("it is too large; repeat less"),
        _ => wrong("it can't be read"),
    })?;
    heap.patterns.insert(expression.to_owned(), compiled.clone());
    Ok(compiled)
}

/// Where the expression is found, at most `most` times if that is not negative.
fn spans(heap: &Heap, pattern: &Regex, text: &str, most: i64) -> Outcome<Vec<(usize, usize)>> {
    let mut spans = Vec::new();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    for found in pattern.find_iter(text).take(most) {
        // Each search may have looked at all that is left.
        heap.charge((text.len() - found.end()) as u64 / 16 + 1)?;
        spans.push((found.start(), found.end()));
    }
    Ok(spans)
}

fn replaced(heap: &mut Heap, args: &Args<'_>, literally: bool) -> Outcome<Val> {
    let pattern = pattern(heap, args)?;
    let (text, replacement) = (args.text(1)?, args.text(2)?);
    let spans = spans(heap, &pattern, text, -1)?;
    // A group may be as long as what was found, and be named as often as the replacement has room for.
    let names = if literally { 0 } else { replacement.matches('$').count() };
    let longest: usize = spans.iter().map(|(start, end)| (end - start).saturating_mul(names)).sum();
    heap.charge_bytes(longest.saturating_add(replacement.len().saturating_mul(spans.len())))?;
    Ok(Val::text(&if literally {
        pattern.replace_all(text, NoExpand(replacement))
    } else {
        pattern.replace_all(text, replacement)
    }))
}

/// `Regexp.Split`: no more than `n` pieces, or none if that is 0.
fn split(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let pattern = pattern(heap, args)?;
    let (text, most) = (args.text(1)?, args.int(2)?);
    if most == 0 {
        return Val::texts::<&str>([]);
    }
    if text.is_empty() && !args.text(0)?.is_empty() {
        return Val::texts([""]);
    }
    let most = usize::try_from(most).ok();
    let mut pieces = Vec::new();
    let (mut begin, mut end) = (0, 0);
    for (start, stop) in spans(heap, &pattern, text, most.map_or(-1, |most| most as i64))? {
        if most.is_some_and(|most| pieces.len() + 1 == most) {
            break;
        }
        end = start;
        if stop != 0 {
            pieces.push(&text[begin..end]);
        }
        begin = stop;
    }
    if end != text.len() {
        pieces.push(&text[begin..]);
    }
    Val::texts(pieces)
}
