//! Times. The present is the run's time, and the local zone is UTC, so that a task renders alike everywhere.

use std::fmt;
use std::rc::Rc;

use cooper_types::Timestamp;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

use crate::gotemplate::error::Outcome;
use crate::gotemplate::function::{Args, Function, exact};
use crate::gotemplate::heap::Heap;
use crate::gotemplate::value::Val;

mod duration;
mod layout;

pub(super) const FUNCTIONS: &[Function] = &[
    exact("now", 0, |heap, _| Ok(moment(present(heap)))),
    exact("date", 2, |heap, args| formatted(heap, args.text(0)?, args.get(1), "Local")),
    exact("dateInZone", 3, |heap, args| formatted(heap, args.text(0)?, args.get(1), args.text(2)?)),
    exact("date_in_zone", 3, |heap, args| formatted(heap, args.text(0)?, args.get(1), args.text(2)?)),
    exact("htmlDate", 1, |heap, args| formatted(heap, "2006-01-02", args.get(0), "Local")),
    exact("htmlDateInZone", 2, |heap, args| formatted(heap, "2006-01-02", args.get(0), args.text(1)?)),
    exact("dateModify", 2, modify),
    exact("date_modify", 2, modify),
    exact("ago", 1, |heap, args| {
        let then = instant(heap, args.get(0))?;
        let passed = present(heap).timestamp().duration_since(then.timestamp());
        Ok(Val::text(&duration::shown_in_seconds(passed)))
    }),
    exact("toDate", 2, |heap, args| {
        heap.charge(args.text(0)?.len() as u64 * super::LAYOUT_BYTE)?;
        Ok(moment(layout::parse(args.text(0)?, args.text(1)?).unwrap_or_else(beginning)))
    }),
    exact("unixEpoch", 1, |_, args| Ok(Val::text(&args.moment(0)?.0.timestamp().as_second().to_string()))),
];

/// A time in a zone (Go's `time.Time`).
#[derive(Debug, PartialEq)]
pub(in crate::gotemplate) struct Moment(Zoned);

impl Moment {
    /// As JSON has it.
    pub(super) fn rfc3339(&self) -> String {
        layout::format("2006-01-02T15:04:05.999999999Z07:00", &self.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&layout::format("2006-01-02 15:04:05.999999999 -0700 MST", &self.0))
    }
}

fn moment(time: Zoned) -> Val {
    Val::Moment(Rc::new(Moment(time)))
}

fn present(heap: &Heap) -> Zoned {
    of_timestamp(heap.now())
}

fn of_timestamp(time: Timestamp) -> Zoned {
    jiff::Timestamp::from_microsecond(time.as_micros())
        .map_or_else(|_| beginning(), |time| time.to_zoned(TimeZone::UTC))
}

/// Go's zero time, which stands for what can't be read.
fn beginning() -> Zoned {
    let date = jiff::civil::date(1, 1, 1);
    date.to_zoned(TimeZone::UTC).expect("the year 1 is within the range of times")
}

/// A time, seconds since 1970, or the present for anything else.
fn instant(heap: &Heap, value: &Val) -> Outcome<Zoned> {
    match value {
        Val::Moment(moment) => Ok(moment.0.clone()),
        Val::Int(seconds, _) => match jiff::Timestamp::from_second(*seconds) {
            Ok(time) => Ok(time.to_zoned(TimeZone::UTC)),
            Err(_) => Err("this many seconds since 1970 are beyond the year 9999".into()),
        },
        _ => Ok(present(heap)),
    }
}

fn formatted(heap: &Heap, layout: &str, value: &Val, zone: &str) -> Outcome<Val> {
    let zone = match zone {
        "" | "UTC" | "Local" => TimeZone::UTC,
        // As in Sprig, what is no zone is UTC.
        name => TimeZone::get(name).unwrap_or(TimeZone::UTC),
    };
    let time = instant(heap, value)?.with_time_zone(zone);
    heap.charge(layout.len() as u64 * super::LAYOUT_BYTE)?;
    Ok(Val::text(&layout::format(layout, &time)))
}

/// Adds a duration such as `-1.5h`; what is none changes nothing.
fn modify(_: &mut Heap, args: &Args<'_>) -> Outcome<Val> {
    let time = &args.moment(1)?.0;
    match duration::parse(args.text(0)?) {
        None => Ok(moment(time.clone())),
        Some(duration) => match time.checked_add(SignedDuration::from_nanos(duration)) {
            Ok(time) => Ok(moment(time)),
            Err(_) => Err(format!("`{}` goes beyond the year 9999", args.function).into()),
        },
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn month(time: &Zoned) -> &'static str {
    MONTHS[usize::try_from(time.month() - 1).unwrap_or(0) % 12]
}

fn weekday(time: &Zoned) -> &'static str {
    WEEKDAYS[usize::try_from(time.weekday().to_sunday_zero_offset()).unwrap_or(0) % 7]
}

/// The methods of a time.
pub(super) fn method(moment: &Moment, args: &Args<'_>) -> Option<Outcome<Val>> {
    let time = &moment.0;
    let arguments = match args.function {
        "Format" | "Before" | "After" | "Equal" => 1,
        "AddDate" => 3,
        _ => 0,
    };
    let result = match args.function {
        "Format" => args.text(0).map(|layout| Val::text(&layout::format(layout, time))),
        "Before" => args.moment(0).map(|other| Val::Bool(*time < other.0)),
        "After" => args.moment(0).map(|other| Val::Bool(*time > other.0)),
        "Equal" => args.moment(0).map(|other| Val::Bool(*time == other.0)),
        "AddDate" => add_date(time, args),
        "Unix" => Ok(Val::int64(time.timestamp().as_second())),
        "UnixNano" => Ok(Val::int64(i64::try_from(time.timestamp().as_nanosecond()).unwrap_or(i64::MAX))),
        "Year" => Ok(Val::int(i64::from(time.year()))),
        "Month" => Ok(Val::Named(i64::from(time.month()), month(time), "time.Month")),
        "Day" => Ok(Val::int(i64::from(time.day()))),
        "Weekday" => Ok(Val::Named(i64::from(time.weekday().to_sunday_zero_offset()), weekday(time), "time.Weekday")),
        "YearDay" => Ok(Val::int(i64::from(time.day_of_year()))),
        "Hour" => Ok(Val::int(i64::from(time.hour()))),
        "Minute" => Ok(Val::int(i64::from(time.minute()))),
        "Second" => Ok(Val::int(i64::from(time.second()))),
        "Nanosecond" => Ok(Val::int(i64::from(time.subsec_nanosecond()))),
        "IsZero" => Ok(Val::Bool(*time == beginning())),
        "UTC" => Ok(self::moment(time.with_time_zone(TimeZone::UTC))),
        "Local" => Ok(self::moment(time.with_time_zone(TimeZone::UTC))),
        "String" => Ok(Val::text(&moment.to_string())),
        _ => return None,
    };
    if args.values.len() != arguments {
        return Some(Err(format!("`{}` takes {arguments} arguments, not {}", args.function, args.values.len()).into()));
    }
    Some(result)
}

fn add_date(time: &Zoned, args: &Args<'_>) -> Outcome<Val> {
    let beyond = || format!("`{}` goes beyond the year 9999", args.function);
    let span = |index: usize| Ok::<i64, super::super::error::Trouble>(args.int(index)?.clamp(-19_998, 7_304_484));
    let (years, months, days) = (span(0)?, span(1)?, span(2)?);
    let first = time.first_of_month().map_err(|_| beyond())?;
    // Like Go, days that a month lacks go on into the next: January 31 and a month is March 2 or 3.
    let moved = first
        .checked_add(years.clamp(-19_998, 19_998).years().months(months.clamp(-200_000, 200_000)))
        .and_then(|first| first.checked_add((days + i64::from(time.day()) - 1).days()))
        .map_err(|_| beyond())?;
    Ok(moment(moved))
}
