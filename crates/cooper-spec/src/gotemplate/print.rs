//! Values as text, as Go's `%v` shows them.

use super::error::Outcome;
use super::heap::Heap;
use super::value::Val;

/// What a value that is missing shows itself as; it is taken out of the output.
pub(super) const NO_VALUE: &str = "<no value>";

/// Text that is being made, and paid for.
pub(super) struct Sink<'h> {
    pub(super) heap: &'h Heap,
    pub(super) text: String,
}

impl<'h> Sink<'h> {
    pub(super) fn new(heap: &'h Heap) -> Self {
        Self { heap, text: String::new() }
    }

    pub(super) fn push(&mut self, text: &str) -> Outcome<()> {
        self.heap.charge_bytes(text.len())?;
        self.text.push_str(text);
        Ok(())
    }
}

/// `%v` of a value.
pub(super) fn shown(heap: &Heap, value: &Val) -> Outcome<String> {
    let mut sink = Sink::new(heap);
    show(&mut sink, value, &|sink, scalar| sink.push(&scalar_text(scalar)), 0)?;
    Ok(sink.text)
}

/// Lists as `[a b]`, maps as `map[a:b]`, with `scalar` for what is within.
pub(super) fn show(
    sink: &mut Sink<'_>,
    value: &Val,
    scalar: &dyn Fn(&mut Sink<'_>, &Val) -> Outcome<()>,
    depth: usize,
) -> Outcome<()> {
    sink.heap.check_depth(depth)?;
    match value {
        Val::List(list) => {
            sink.push("[")?;
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    sink.push(" ")?;
                }
                show(sink, item, scalar, depth + 1)?;
            }
            sink.push("]")
        }
        Val::Map(id) => {
            sink.push("map[")?;
            let heap = sink.heap;
            for (index, (key, item)) in heap.map(*id).iter().enumerate() {
                if index > 0 {
                    sink.push(" ")?;
                }
                scalar(sink, &Val::Text(key.clone()))?;
                sink.push(":")?;
                show(sink, item, scalar, depth + 1)?;
            }
            sink.push("]")
        }
        other => scalar(sink, other),
    }
}

/// `%v` of what holds nothing else.
pub(super) fn scalar_text(value: &Val) -> String {
    match value {
        Val::Nil => "<nil>".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value, _) => value.to_string(),
        Val::Float(value) => float(*value),
        Val::Text(text) => (**text).to_owned(),
        Val::Moment(moment) => moment.to_string(),
        Val::Version(version) => version.to_string(),
        Val::Named(_, name, _) => (*name).to_owned(),
        Val::List(_) | Val::Map(_) => String::new(),
    }
}

/// Digits of a number that say it exactly and no more, and the power of ten of the first.
pub(super) fn shortest(value: f64) -> (String, i32) {
    let text = format!("{:e}", value.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.replace('.', ""), exponent.parse().unwrap_or(0))
}

/// `%v` of a float: the shortest digits.
pub(super) fn float(value: f64) -> String {
    general(value, None, 'e')
}

/// Names for what is no number.
pub(super) fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// `%g` of a float: with an exponent if that is below -4, or not below the precision, or 6 with the shortest digits.
pub(super) fn general(value: f64, precision: Option<usize>, letter: char) -> String {
    let largest = precision.map_or(6, |precision| i32::try_from(precision.max(1)).unwrap_or(i32::MAX));
    if let Some(name) = not_finite(value) {
        return name.to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let (digits, exponent) = match precision {
        None => shortest(value),
        Some(precision) => {
            let text = format!("{:.*e}", precision.max(1) - 1, value.abs());
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let digits = digits.replace('.', "");
            let kept = digits.trim_end_matches('0');
            (if kept.is_empty() { "0".to_owned() } else { kept.to_owned() }, exponent.parse().unwrap_or(0))
        }
    };
    if exponent < -4 || exponent >= largest {
        let (first, others) = digits.split_at(1);
        let point = if others.is_empty() { "" } else { "." };
        let sign_of_exponent = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{others}{letter}{sign_of_exponent}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}
