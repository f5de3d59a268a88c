//! Numbers, characters and quoted texts, as Go writes them.

/// A number of the template's text. What it is depends on where it stands, as with Go's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    /// Its value, if it is whole.
    pub(super) int: Option<i64>,
    pub(super) float: f64,
    /// Whether it is written as a fraction or with an exponent.
    pub(super) is_float: bool,
}

/// A number by Go's syntax: signs, `0x`, `0o`, `0b`, a leading `0` for octal, `_` between digits, fractions and exponents.
pub(super) fn number(text: &str) -> Option<Number> {
    if let Some(int) = integer(text, 0) {
        return Some(Number { int: Some(int), float: int as f64, is_float: false });
    }
    // Whole numbers that no i64 holds are an error, not a fraction.
    let is_hexadecimal = text.trim_start_matches(['+', '-']).to_ascii_lowercase().starts_with("0x");
    if !text.contains(if is_hexadecimal { ['.', 'p', 'P'] } else { ['.', 'e', 'E'] }) {
        return None;
    }
    let float = float(text)?;
    Some(Number { int: whole(float), float, is_float: true })
}

/// The whole number that a float is, if it is one.
pub(super) fn whole(float: f64) -> Option<i64> {
    let int = float as i64;
    (int as f64 == float && int != i64::MAX).then_some(int)
}

/// `strconv.ParseInt`: base 0 takes prefixes and underscores.
pub(super) fn integer(text: &str, base: u32) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let takes_underscores = base == 0;
    let lower = digits.to_ascii_lowercase();
    let (base, digits, prefixed) = match (base, lower.get(..2)) {
        (0, Some("0x")) => (16, lower[2..].to_owned(), true),
        (0, Some("0o")) => (8, lower[2..].to_owned(), true),
        (0, Some("0b")) => (2, lower[2..].to_owned(), true),
        (0, Some(_)) if lower.starts_with('0') => (8, lower[1..].to_owned(), true),
        (0, _) => (10, lower, false),
        (base, _) => (base, lower, false),
    };
    let digits = if takes_underscores && digits.contains('_') {
        // An underscore stands between digits, or between a prefix and a digit.
        if digits.ends_with('_') || digits.contains("__") || (!prefixed && digits.starts_with('_')) {
            return None;
        }
        digits.replace('_', "")
    } else {
        digits
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(&digits, base).ok()?;
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// `strconv.ParseFloat`, with underscores as in a template's text. Too large a number is none.
pub(super) fn float(text: &str) -> Option<f64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x")) {
        return Some(sign * hexadecimal_float(&rest[2..].replace('_', ""))?);
    }
    let plain = rest.replace('_', "");
    let starts_well = plain.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let value: f64 = plain.parse().ok().filter(|_| starts_well)?;
    value.is_finite().then_some(sign * value)
}

fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let exponent: i32 = exponent.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let value: f64 = value * 2f64.powi(exponent.checked_sub(places)?);
    (value.is_finite() && !mantissa.is_empty() && mantissa != ".").then_some(value)
}

/// What stands between quotes, with its escapes replaced; `None` if an escape is none of Go's.
pub(super) fn unquote(text: &str, quote: char) -> Option<String> {
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.next()?;
        let code = |rest: &mut std::str::Chars<'_>, length: usize, radix: u32| {
            let digits = rest.as_str().get(..length).filter(|digits| digits.chars().all(|c| c.is_digit(radix)))?;
            *rest = rest.as_str()[length..].chars();
            u32::from_str_radix(digits, radix).ok()
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            c if c == quote => bytes.push(u8::try_from(c).ok()?),
            'x' => bytes.push(u8::try_from(code(&mut rest, 2, 16)?).ok()?),
            'u' | 'U' => {
                let c = char::from_u32(code(&mut rest, if escape == 'u' { 4 } else { 8 }, 16)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            c @ '0'..='7' => {
                let low = code(&mut rest, 2, 8)?;
                bytes.push(u8::try_from(c.to_digit(8)? * 64 + low).ok()?);
            }
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// What stands between backquotes. Carriage returns are dropped, as Go does.
pub(super) fn unquote_raw(text: &str) -> Option<String> {
    Some(text.strip_prefix('`')?.strip_suffix('`')?.replace('\r', ""))
}
