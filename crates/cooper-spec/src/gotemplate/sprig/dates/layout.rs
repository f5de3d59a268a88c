//! Go's layouts: an example of the time as it should look, such as `2006-01-02 15:04:05`.

use jiff::Zoned;
use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};

use super::{MONTHS, WEEKDAYS, month, weekday};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece<'l> {
    Literal(&'l str),
    MonthName {
        short: bool,
    },
    WeekdayName {
        short: bool,
    },
    Year {
        short: bool,
    },
    /// A number of one or two digits, with what fills it up.
    Number(Field, Fill),
    /// The day of the year, of three digits.
    YearDay(Fill),
    /// `PM` or `pm`
    Half {
        capital: bool,
    },
    ZoneName,
    /// `-07:00` and its like: how many parts, whether parted by `:`, whether UTC is `Z`.
    Offset {
        parts: usize,
        colons: bool,
        zulu: bool,
    },
    /// `.000` or `,999`: the separator, how many digits, and whether zeros at the end stay.
    Fraction {
        separator: char,
        digits: usize,
        keeps_zeros: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Month,
    Day,
    Hour,
    Hour12,
    Minute,
    Second,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    None,
    Zero,
    Blank,
}

const PIECES: &[(&str, Piece<'static>)] = &[
    ("January", Piece::MonthName { short: false }),
    ("Jan", Piece::MonthName { short: true }),
    ("Monday", Piece::WeekdayName { short: false }),
    ("Mon", Piece::WeekdayName { short: true }),
    ("MST", Piece::ZoneName),
    ("002", Piece::YearDay(Fill::Zero)),
    ("01", Piece::Number(Field::Month, Fill::Zero)),
    ("02", Piece::Number(Field::Day, Fill::Zero)),
    ("03", Piece::Number(Field::Hour12, Fill::Zero)),
    ("04", Piece::Number(Field::Minute, Fill::Zero)),
    ("05", Piece::Number(Field::Second, Fill::Zero)),
    ("06", Piece::Year { short: true }),
    ("15", Piece::Number(Field::Hour, Fill::Zero)),
    ("1", Piece::Number(Field::Month, Fill::None)),
    ("2006", Piece::Year { short: false }),
    ("2", Piece::Number(Field::Day, Fill::None)),
    ("__2", Piece::YearDay(Fill::Blank)),
    ("_2", Piece::Number(Field::Day, Fill::Blank)),
    ("3", Piece::Number(Field::Hour12, Fill::None)),
    ("4", Piece::Number(Field::Minute, Fill::None)),
    ("5", Piece::Number(Field::Second, Fill::None)),
    ("PM", Piece::Half { capital: true }),
    ("pm", Piece::Half { capital: false }),
    ("-07:00:00", Piece::Offset { parts: 3, colons: true, zulu: false }),
    ("-070000", Piece::Offset { parts: 3, colons: false, zulu: false }),
    ("-07:00", Piece::Offset { parts: 2, colons: true, zulu: false }),
    ("-0700", Piece::Offset { parts: 2, colons: false, zulu: false }),
    ("-07", Piece::Offset { parts: 1, colons: false, zulu: false }),
    ("Z07:00:00", Piece::Offset { parts: 3, colons: true, zulu: true }),
    ("Z070000", Piece::Offset { parts: 3, colons: false, zulu: true }),
    ("Z07:00", Piece::Offset { parts: 2, colons: true, zulu: true }),
    ("Z0700", Piece::Offset { parts: 2, colons: false, zulu: true }),
    ("Z07", Piece::Offset { parts: 1, colons: false, zulu: true }),
];

fn pieces(layout: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut literal, mut at) = (0, 0);
    while at < layout.len() {
        let rest = &layout[at..];
        match piece(rest) {
            Some((length, piece)) => {
                if literal < at {
                    pieces.push(Piece::Literal(&layout[literal..at]));
                }
                pieces.push(piece);
                at += length;
                literal = at;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    if literal < layout.len() {
        pieces.push(Piece::Literal(&layout[literal..]));
    }
    pieces
}

/// The piece that a layout begins with, and its length.
fn piece(rest: &str) -> Option<(usize, Piece<'static>)> {
    if rest.starts_with(['.', ',']) {
        let separator = rest.chars().next()?;
        let digit = rest[1..].chars().next().filter(|c| matches!(c, '0' | '9'))?;
        let digits = rest[1..].len() - rest[1..].trim_start_matches(digit).len();
        let ends = !rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit());
        return ends.then_some((1 + digits, Piece::Fraction { separator, digits, keeps_zeros: digit == '0' }));
    }
    // `_2006` is a year behind an underscore.
    if rest.starts_with("_2006") {
        return None;
    }
    let (text, piece) = PIECES.iter().find(|(text, piece)| {
        // `Janet` and `Month` hold no names.
        let short = matches!(piece, Piece::MonthName { short: true } | Piece::WeekdayName { short: true });
        rest.starts_with(text) && !(short && rest[text.len()..].starts_with(|c: char| c.is_ascii_lowercase()))
    })?;
    Some((text.len(), *piece))
}

/// A time by a layout.
pub(super) fn format(layout: &str, time: &Zoned) -> String {
    let mut text = String::new();
    for piece in pieces(layout) {
        let shown = match piece {
            Piece::Literal(literal) => literal.to_owned(),
            Piece::MonthName { short } => month(time)[..if short { 3 } else { month(time).len() }].to_owned(),
            Piece::WeekdayName { short } => weekday(time)[..if short { 3 } else { weekday(time).len() }].to_owned(),
            Piece::Year { short: true } => format!("{:02}", time.year().rem_euclid(100)),
            Piece::Year { short: false } => format!("{:04}", time.year()),
            Piece::Number(field, fill) => filled(
                match field {
                    Field::Month => time.month(),
                    Field::Day => time.day(),
                    Field::Hour => time.hour(),
                    Field::Hour12 => (time.hour() + 11) % 12 + 1,
                    Field::Minute => time.minute(),
                    Field::Second => time.second(),
                }
                .into(),
                fill,
                2,
            ),
            Piece::YearDay(fill) => filled(time.day_of_year().into(), fill, 3),
            Piece::Half { capital } => match (time.hour() >= 12, capital) {
                (true, true) => "PM".to_owned(),
                (false, true) => "AM".to_owned(),
                (true, false) => "pm".to_owned(),
                (false, false) => "am".to_owned(),
            },
            // A zone that is an offset alone has no name.
            Piece::ZoneName if time.time_zone().iana_name().is_none() => offset(time.offset(), 2, false, false),
            Piece::ZoneName => time.time_zone().to_offset_info(time.timestamp()).abbreviation().to_owned(),
            Piece::Offset { parts, colons, zulu } => offset(time.offset(), parts, colons, zulu),
            Piece::Fraction { separator, digits, keeps_zeros } => {
                let all = format!("{:09}", time.subsec_nanosecond());
                let kept = format!("{:0<digits$}", &all[..digits.min(9)]);
                let kept = if keeps_zeros { &kept[..] } else { kept.trim_end_matches('0') };
                if kept.is_empty() { String::new() } else { format!("{separator}{kept}") }
            }
        };
        text.push_str(&shown);
    }
    text
}

fn filled(number: i64, fill: Fill, width: usize) -> String {
    match fill {
        Fill::None => number.to_string(),
        Fill::Zero => format!("{number:0width$}"),
        Fill::Blank => format!("{number:width$}"),
    }
}

fn offset(offset: Offset, parts: usize, colons: bool, zulu: bool) -> String {
    let seconds = offset.seconds();
    if zulu && seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.abs();
    let numbers = [seconds / 3600, seconds / 60 % 60, seconds % 60];
    let numbers: Vec<_> = numbers[..parts].iter().map(|number| format!("{number:02}")).collect();
    format!("{sign}{}", numbers.join(if colons { ":" } else { "" }))
}

/// What has been read of a time.
#[derive(Default)]
struct Read {
    year: i16,
    month: i8,
    day: i8,
    year_day: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    afternoon: Option<bool>,
    offset: Option<Offset>,
}

/// A time from a text that looks like its layout; without a zone it is UTC.
pub(super) fn parse(layout: &str, text: &str) -> Option<Zoned> {
    let mut read = Read { month: 1, day: 1, ..Read::default() };
    let pieces = pieces(layout);
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        let reads_fraction = matches!(pieces.get(index + 1), Some(Piece::Fraction { .. }));
        rest = read_piece(*piece, rest, reads_fraction, &mut read)?;
    }
    if !rest.is_empty() {
        return None;
    }
    let hour = match (read.afternoon, read.hour) {
        (Some(true), hour) if hour < 12 => hour + 12,
        (Some(false), 12) => 0,
        (_, hour) => hour,
    };
    let date = match read.year_day {
        Some(day) => Date::new(read.year, 1, 1).ok()?.with().day_of_year(day).build().ok()?,
        None => Date::new(read.year, read.month, read.day).ok()?,
    };
    let time = Time::new(hour, read.minute, read.second, read.nanosecond).ok()?;
    let zone = match read.offset {
        Some(offset) if offset != Offset::UTC => TimeZone::fixed(offset),
        _ => TimeZone::UTC,
    };
    date.to_datetime(time).to_zoned(zone).ok()
}

fn read_piece<'t>(piece: Piece<'_>, text: &'t str, reads_fraction: bool, read: &mut Read) -> Option<&'t str> {
    match piece {
        Piece::Literal(literal) => literal_of(literal, text),
        Piece::MonthName { short } => {
            let (index, rest) = name(&MONTHS, short, text)?;
            read.month = i8::try_from(index + 1).ok()?;
            Some(rest)
        }
        Piece::WeekdayName { short } => Some(name(&WEEKDAYS, short, text)?.1),
        Piece::Year { short } => {
            let (year, rest) = digits(text, if short { 2 } else { 4 }, true)?;
            read.year = i16::try_from(match (short, year) {
                (true, year) if year >= 69 => year + 1900,
                (true, year) => year + 2000,
                (false, year) => year,
            })
            .ok()?;
            Some(rest)
        }
        Piece::Number(field, fill) => {
            let text = if fill == Fill::Blank { text.strip_prefix(' ').unwrap_or(text) } else { text };
            let (number, rest) = digits(text, 2, fill == Fill::Zero && field != Field::Hour)?;
            let number = i8::try_from(number).ok()?;
            match field {
                Field::Month => read.month = number,
                Field::Day => read.day = number,
                Field::Hour => read.hour = number,
                Field::Hour12 if number > 12 => return None,
                Field::Hour12 => read.hour = number,
                Field::Minute => read.minute = number,
                Field::Second => {
                    read.second = number;
                    // Go takes a fraction behind the seconds though the layout has none.
                    if !reads_fraction
                        && rest.starts_with(['.', ','])
                        && rest[1..].starts_with(|c: char| c.is_ascii_digit())
                    {
                        return fraction(rest, None, read);
                    }
                }
            }
            Some(rest)
        }
        Piece::YearDay(fill) => {
            let text = if fill == Fill::Blank { text.trim_start_matches(' ') } else { text };
            let (day, rest) = digits(text, 3, fill == Fill::Zero)?;
            read.year_day = Some(i16::try_from(day).ok()?);
            Some(rest)
        }
        Piece::Half { capital } => {
            let half = text.get(..2)?;
            read.afternoon = Some(match (half, capital) {
                ("PM", true) | ("pm", false) => true,
                ("AM", true) | ("am", false) => false,
                _ => return None,
            });
            Some(&text[2..])
        }
        Piece::ZoneName => {
            let length = text.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(text.len());
            (3..=5).contains(&length).then_some(&text[length..])
        }
        Piece::Offset { parts, colons, zulu } => {
            if zulu && let Some(rest) = text.strip_prefix('Z') {
                read.offset = Some(Offset::UTC);
                return Some(rest);
            }
            let sign = match text.chars().next()? {
                '+' => 1,
                '-' => -1,
                _ => return None,
            };
            let mut rest = &text[1..];
            let mut seconds = 0;
            for part in 0..parts {
                if part > 0 && colons {
                    rest = rest.strip_prefix(':')?;
                }
                let (number, after) = digits(rest, 2, true)?;
                seconds += i32::try_from(number).ok()? * [3600, 60, 1][part];
                rest = after;
            }
            read.offset = Some(Offset::from_seconds(sign * seconds).ok()?);
            Some(rest)
        }
        Piece::Fraction { digits, keeps_zeros: true, .. } => fraction(text, Some(digits), read),
        Piece::Fraction { .. } if text.starts_with(['.', ',']) => fraction(text, None, read),
        Piece::Fraction { .. } => Some(text),
    }
}

fn fraction<'t>(text: &'t str, count: Option<usize>, read: &mut Read) -> Option<&'t str> {
    let rest = text.strip_prefix(['.', ','])?;
    let found = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    if found == 0 || count.is_some_and(|count| count != found) {
        return None;
    }
    let digits = &rest[..found.min(9)];
    read.nanosecond = format!("{digits:0<9}").parse().ok()?;
    Some(&rest[found..])
}

/// Blanks in a layout stand for any number of them.
fn literal_of<'t>(literal: &str, text: &'t str) -> Option<&'t str> {
    let mut rest = text;
    for c in literal.chars() {
        rest = if c == ' ' { rest.trim_start_matches(' ') } else { rest.strip_prefix(c)? };
    }
    Some(rest)
}

fn name<'t>(names: &[&str], short: bool, text: &'t str) -> Option<(usize, &'t str)> {
    names.iter().enumerate().find_map(|(index, name)| {
        let name = if short { &name[..3] } else { name };
        let found = text.get(..name.len()).filter(|found| found.eq_ignore_ascii_case(name))?;
        Some((index, &text[found.len()..]))
    })
}

/// A number of at most, or of exactly, this many digits.
fn digits(text: &str, most: usize, exactly: bool) -> Option<(i64, &str)> {
    let found = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if found == 0 || (exactly && found < most) {
        return None;
    }
    Some((text[..found].parse().ok()?, &text[found..]))
}
