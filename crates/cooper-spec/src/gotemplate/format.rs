//! `printf`: Go's verbs, flags, widths and precisions, and what Go writes where they don't fit.

use super::error::Outcome;
use super::heap::Heap;
use super::print::{self, Sink};
use super::value::Val;

mod scalar;

pub(super) use scalar::quoted;

/// Widths and precisions above this are refused, as in Go.
const LARGEST: i64 = 1_000_000;

/// What stands between `%` and a verb.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    sharp: bool,
    zero: bool,
    plus: bool,
    minus: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`.
pub(super) fn printf(heap: &Heap, format: &str, values: &[Val]) -> Outcome<String> {
    let mut printer = Printer { sink: Sink::new(heap), values, next: 0, reordered: false };
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        printer.sink.push(&rest[..percent])?;
        rest = printer.verb(&rest[percent + 1..])?;
    }
    printer.sink.push(rest)?;
    if !printer.reordered && printer.next < values.len() {
        printer.sink.push("%!(EXTRA ")?;
        for (index, value) in values[printer.next..].iter().enumerate() {
            if index > 0 {
                printer.sink.push(", ")?;
            }
            printer.typed(value)?;
        }
        printer.sink.push(")")?;
    }
    Ok(printer.sink.text)
}

struct Printer<'h, 'v> {
    sink: Sink<'h>,
    values: &'v [Val],
    next: usize,
    /// Whether the format chose its arguments by number.
    reordered: bool,
}

impl<'v> Printer<'_, 'v> {
    /// `[n]`: the argument that is next. False if it is no good.
    fn index(&mut self, rest: &mut &str) -> bool {
        let Some(inner) = rest.strip_prefix('[') else { return true };
        self.reordered = true;
        let Some((number, after)) = inner.split_once(']') else {
            *rest = inner;
            return false;
        };
        *rest = after;
        match number.parse::<usize>() {
            Ok(number) if number >= 1 && number <= self.values.len() => {
                self.next = number - 1;
                true
            }
            _ => false,
        }
    }

    fn star(&mut self) -> Option<i64> {
        let value = self.values.get(self.next)?;
        self.next += 1;
        match value {
            Val::Int(value, _) if value.abs() <= LARGEST => Some(*value),
            _ => None,
        }
    }

    /// One verb, from behind its `%`; what is left of the format.
    fn verb<'f>(&mut self, mut rest: &'f str) -> Outcome<&'f str> {
        let mut flags = Flags::default();
        while let Some(c) = rest.chars().next() {
            match c {
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                '+' => flags.plus = true,
                '-' => flags.minus = true,
                ' ' => flags.space = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        let mut good = self.index(&mut rest);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match self.star() {
                Some(width) => {
                    flags.minus |= width < 0;
                    flags.width = usize::try_from(width.abs()).ok();
                }
                None => self.sink.push("%!(BADWIDTH)")?,
            }
        } else {
            flags.width = digits(&mut rest);
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            good &= self.index(&mut rest);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match self.star() {
                    Some(precision) => flags.precision = usize::try_from(precision).ok(),
                    None => self.sink.push("%!(BADPREC)")?,
                }
            } else {
                flags.precision = Some(digits(&mut rest).unwrap_or(0));
            }
        }
        good &= self.index(&mut rest);
        if flags.minus {
            flags.zero = false;
        }
        let Some(verb) = rest.chars().next() else {
            self.sink.push("%!(NOVERB)")?;
            return Ok(rest);
        };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.sink.push("%")?;
        } else if !good {
            self.sink.push(&format!("%!{verb}(BADINDEX)"))?;
        } else if let Some(value) = self.values.get(self.next) {
            self.next += 1;
            self.value(value, verb, flags)?;
        } else {
            self.sink.push(&format!("%!{verb}(MISSING)"))?;
        }
        Ok(rest)
    }

    fn value(&mut self, value: &'v Val, verb: char, flags: Flags) -> Outcome<()> {
        if verb == 'T' {
            let name = self.sink.heap.type_name(value);
            return scalar::padded(&mut self.sink, name, flags);
        }
        // `%+v` means names of fields, of which no value has any.
        let flags = if verb == 'v' { Flags { plus: false, ..flags } } else { flags };
        if verb == 'v' && flags.sharp {
            return self.go_syntax(value, 0);
        }
        print::show(&mut self.sink, value, &|sink, item| scalar::scalar(sink, item, verb, flags), 0)
    }

    /// `type=value`, for what is too much.
    fn typed(&mut self, value: &Val) -> Outcome<()> {
        if matches!(value, Val::Nil) {
            return self.sink.push("<nil>");
        }
        let name = self.sink.heap.type_name(value);
        self.sink.push(name)?;
        self.sink.push("=")?;
        print::show(&mut self.sink, value, &|sink, item| sink.push(&print::scalar_text(item)), 0)
    }

    /// `%#v`
    fn go_syntax(&mut self, value: &Val, depth: usize) -> Outcome<()> {
        let heap = self.sink.heap;
        heap.check_depth(depth)?;
        match value {
            Val::Text(text) => self.sink.push(&scalar::quoted(text, false)),
            Val::List(list) => {
                self.sink.push(heap.type_name(value))?;
                self.sink.push("{")?;
                for (index, item) in list.items.iter().enumerate() {
                    if index > 0 {
                        self.sink.push(", ")?;
                    }
                    self.go_syntax(item, depth + 1)?;
                }
                self.sink.push("}")
            }
            Val::Map(id) => {
                self.sink.push(heap.type_name(value))?;
                self.sink.push("{")?;
                for (index, (key, item)) in heap.map(*id).iter().enumerate() {
                    if index > 0 {
                        self.sink.push(", ")?;
                    }
                    self.sink.push(&scalar::quoted(key, false))?;
                    self.sink.push(":")?;
                    self.go_syntax(item, depth + 1)?;
                }
                self.sink.push("}")
            }
            Val::Nil if depth > 0 => self.sink.push("interface {}(nil)"),
            other => self.sink.push(&print::scalar_text(other)),
        }
    }
}

fn digits(rest: &mut &str) -> Option<usize> {
    let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(length);
    *rest = after;
    number.parse::<i64>().ok().filter(|number| *number <= LARGEST).and_then(|number| usize::try_from(number).ok())
}
