//! Texts: cutting, padding, trimming, quoting.

use crate::gotemplate::error::{Outcome, Trouble};
use crate::gotemplate::format;
use crate::gotemplate::function::{Args, Function, exact, many};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::print;
use crate::gotemplate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("hello", 0, |_, _| Ok(Val::text("Hello!"))),
    exact("fail", 1, |_, args| Err(Trouble::Wrong(format!("the template fails: {}", args.text(0)?)))),
    exact("abbrev", 2, |_, args| Ok(Val::text(&abbreviate(args.text(1)?, 0, args.int(0)?)))),
    exact("abbrevboth", 3, |_, args| Ok(Val::text(&abbreviate(args.text(2)?, args.int(0)?, args.int(1)?)))),
    exact("trunc", 2, trunc),
    exact("substr", 3, substr),
    exact("trim", 1, |_, args| Ok(Val::text(args.text(0)?.trim()))),
    exact("trimAll", 2, trim_all),
    exact("trimall", 2, trim_all),
    exact("trimSuffix", 2, |_, args| {
        let text = args.text(1)?;
        Ok(Val::text(text.strip_suffix(args.text(0)?).unwrap_or(text)))
    }),
    exact("trimPrefix", 2, |_, args| {
        let text = args.text(1)?;
        Ok(Val::text(text.strip_prefix(args.text(0)?).unwrap_or(text)))
    }),
    exact("nospace", 1, |_, args| {
        Ok(Val::text(&args.text(0)?.chars().filter(|c| !c.is_whitespace()).collect::<String>()))
    }),
    exact("repeat", 2, repeat),
    exact("contains", 2, |_, args| Ok(Val::Bool(args.text(1)?.contains(args.text(0)?)))),
    exact("hasPrefix", 2, |_, args| Ok(Val::Bool(args.text(1)?.starts_with(args.text(0)?)))),
    exact("hasSuffix", 2, |_, args| Ok(Val::Bool(args.text(1)?.ends_with(args.text(0)?)))),
    many("quote", 0, |heap, args| {
        each(heap, args, |heap, value| Ok(format::quoted(&super::string(heap, value)?, false)))
    }),
    many("squote", 0, |heap, args| each(heap, args, |heap, value| Ok(format!("'{}'", print::shown(heap, value)?)))),
    many("cat", 0, |heap, args| each(heap, args, print::shown)),
    exact("indent", 2, |heap, args| Ok(Val::text(&indent(heap, args)?))),
    exact("nindent", 2, |heap, args| Ok(Val::text(&format!("\n{}", indent(heap, args)?)))),
    exact("replace", 3, replace),
    exact("plural", 3, |_, args| Ok(Val::text(if args.int(2)? == 1 { args.text(0)? } else { args.text(1)? }))),
    exact("toString", 1, |heap, args| Ok(Val::text(&super::string(heap, args.get(0))?))),
];

/// What is there of the arguments, each made a text, with blanks between.
fn each(heap: &Heap, args: &Args<'_>, make: impl Fn(&Heap, &Val) -> Outcome<String>) -> Outcome<Val> {
    let present = args.values.iter().filter(|value| !matches!(value, Val::Nil));
    Ok(Val::text(&present.map(|value| make(heap, value)).collect::<Outcome<Vec<_>>>()?.join(" ")))
}

/// The first `end` bytes, or fewer, so that no character is cut.
fn head(text: &str, end: usize) -> &str {
    &text[..text.floor_char_boundary(end)]
}

/// At most `width` bytes, with `...` where something is left out: at the end, and before `offset` too.
fn abbreviate(text: &str, offset: i64, width: i64) -> String {
    let (offset, width) = (usize::try_from(offset).unwrap_or(0), usize::try_from(width).unwrap_or(0));
    if width < 4 || (offset > 0 && width < 7) || text.len() <= width {
        return text.to_owned();
    }
    let kept = width - 3;
    let mut offset = offset.min(text.len());
    if text.len() - offset < kept {
        offset = text.len() - kept;
    }
    if offset <= 4 {
        return format!("{}...", head(text, kept));
    }
    let tail = |from: usize| &text[text.ceil_char_boundary(from)..];
    if offset + kept < text.len() {
        return format!("...{}", abbreviate(tail(offset), 0, width as i64 - 3));
    }
    format!("...{}", tail(text.len() - kept))
}

fn trunc(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    match usize::try_from(args.int(0)?) {
        Ok(length) => Ok(Val::text(head(args.text(1)?, length))),
        Err(_) => Err("`trunc` takes a length of 0 or more".into()),
    }
}

fn substr(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let (start, end, text) = (args.int(0)?, args.int(1)?, args.text(2)?);
    let wrong = || format!("`substr {start} {end}` reaches beyond the text, which has {} bytes", text.len());
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let (start, end) = match (start, end) {
        (start, end) if start < 0 => (0, end),
        (start, end) if end < 0 || end > length => (start, length),
        both => both,
    };
    if end < 0 || end > length || start > end {
        return Err(wrong().into());
    }
    let place = |at: i64| text.floor_char_boundary(usize::try_from(at).unwrap_or(0));
    Ok(Val::text(&text[place(start)..place(end)]))
}

fn trim_all(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let characters: Vec<char> = args.text(0)?.chars().collect();
    Ok(Val::text(args.text(1)?.trim_matches(&characters[..])))
}

fn repeat(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let (Ok(count), text) = (usize::try_from(args.int(0)?), args.text(1)?) else {
        return Err("`repeat` takes a count of 0 or more".into());
    };
    heap.charge_bytes(text.len().saturating_mul(count))?;
    Ok(Val::text(&text.repeat(count)))
}

fn indent(heap: &Heap, args: &Args<'_>) -> Outcome<String> {
    let (Ok(width), text) = (usize::try_from(args.int(0)?), args.text(1)?) else {
        return Err(format!("`{}` takes a width of 0 or more", args.function).into());
    };
    let lines = text.matches('\n').count() + 1;
    heap.charge_bytes(width.saturating_mul(lines).saturating_add(text.len()))?;
    let pad = " ".repeat(width);
    Ok(format!("{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

fn replace(heap: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let (old, new, text) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let found = text.matches(old).count();
    heap.charge_bytes(found.saturating_mul(new.len()).saturating_add(text.len()))?;
    Ok(Val::text(&text.replace(old, new)))
}
