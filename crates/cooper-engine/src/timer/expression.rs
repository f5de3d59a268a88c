//! Expressions as NCrontab reads them (ACR contract §6.3): minute, hour, day, month, weekday. Day and weekday must both
//! match; Sunday is 0 and nothing is 7; a reversed range is turned round; a step below one is one.
//!
//! Owns the language. The calendar behind it is the `cron` crate's, which is given plain lists of numbers.

use std::fmt;
use std::str::FromStr as _;

use chrono::{DateTime as ChronoTime, Datelike as _, Timelike as _, Utc};
use jiff::civil::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest expression, in bytes: far more than all numbers of all fields.
const MAX_LENGTH: usize = 1000;

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

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "weekday", min: 0, max: 6, names: &WEEKDAYS },
];

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// English names of its numbers, from `min` on.
    names: &'static [&'static str],
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    calendar: cron::Schedule,
    is_every_hour: bool,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// There are not five fields.
    #[error("a schedule has five fields (minute hour day month weekday), this one has {0}")]
    Fields(usize),
    /// It is too long.
    #[error("a schedule has at most {MAX_LENGTH} characters")]
    TooLong,
    /// A field is wrong.
    #[error("{field} `{text}` is not one of: {allowed}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What may stand there.
        allowed: String,
    },
}

impl Expression {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LENGTH {
            return Err(ExpressionError::TooLong);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(ExpressionError::Fields(fields.len()));
        }
        let mut lists = Vec::with_capacity(FIELDS.len());
        for (field, text) in FIELDS.iter().zip(&fields) {
            lists.push(field.numbers(text)?);
        }
        let is_every_hour = lists[1].iter().all(|named| *named);
        // The crate wants seconds first, and counts weekdays from Sunday = 1.
        let shown: Vec<String> = FIELDS.iter().zip(&lists).map(|(field, list)| field.shown(list)).collect();
        let calendar = cron::Schedule::from_str(&format!("0 {}", shown.join(" ")));
        let calendar = calendar.expect("lists of numbers within their ranges are expressions");
        Ok(Self { text: fields.join(" "), calendar, is_every_hour })
    }

    /// Whether no hour of the day is left out.
    pub(super) fn is_every_hour(&self) -> bool {
        self.is_every_hour
    }

    /// The wall times that match, in order, from this one on; up to the year 2100.
    pub(super) fn walls_from(&self, from: DateTime) -> impl Iterator<Item = DateTime> {
        let before = as_utc(from).and_then(|from| from.checked_sub_signed(chrono::TimeDelta::seconds(1)));
        before.into_iter().flat_map(|before| self.calendar.after_owned(before)).map_while(as_wall)
    }
}

/// A wall time in the crate's terms, for which UTC is a wall like any other.
fn as_utc(wall: DateTime) -> Option<ChronoTime<Utc>> {
    let day = chrono::NaiveDate::from_ymd_opt(wall.year().into(), small(wall.month())?, small(wall.day())?)?;
    Some(day.and_hms_opt(small(wall.hour())?, small(wall.minute())?, small(wall.second())?)?.and_utc())
}

fn small(number: i8) -> Option<u32> {
    u32::try_from(number).ok()
}

fn as_wall(time: ChronoTime<Utc>) -> Option<DateTime> {
    let part = |number: u32| i8::try_from(number).ok();
    let year = i16::try_from(time.year()).ok()?;
    DateTime::new(year, part(time.month())?, part(time.day())?, part(time.hour())?, part(time.minute())?, 0, 0).ok()
}

impl Field {
    /// Which of its numbers, from `min` on, a text names.
    fn numbers(&self, text: &str) -> Result<Vec<bool>, ExpressionError> {
        let mut named = vec![false; (self.max - self.min + 1) as usize];
        for part in text.split(',') {
            let (first, last, step) = self.range(part).ok_or_else(|| self.error(text))?;
            for number in (first..=last).step_by(step.max(1) as usize) {
                named[(number - self.min) as usize] = true;
            }
        }
        Ok(named)
    }

    /// One part of a list: `*`, a number, a range, each with or without a step.
    fn range(&self, part: &str) -> Option<(u32, u32, u32)> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((first, last)) => {
                let (first, last) = (self.value(first)?, self.value(last)?);
                (first.min(last), first.max(last))
            }
            None => {
                let first = self.value(range)?;
                (first, if step.is_some() { self.max } else { first })
            }
        };
        Some((first, last, step.unwrap_or(1)))
    }

    /// A number, or the beginning of a name; the first name that begins so counts.
    fn value(&self, text: &str) -> Option<u32> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return number(text).filter(|number| (self.min..=self.max).contains(number));
        }
        let begins = |name: &str| name.get(..text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(text));
        let place = self.names.iter().position(|name| !text.is_empty() && begins(name))?;
        Some(self.min + u32::try_from(place).ok()?)
    }

    /// Its numbers as the crate writes them.
    fn shown(&self, named: &[bool]) -> String {
        if named.iter().all(|named| *named) {
            return "*".to_owned();
        }
        let first = if self.name == "weekday" { 1 } else { self.min };
        let numbers = (first..).zip(named).filter(|(_, named)| **named).map(|(number, _)| number.to_string());
        numbers.collect::<Vec<_>>().join(",")
    }

    fn error(&self, text: &str) -> ExpressionError {
        let Self { min, max, .. } = self;
        let names = match self.names {
            [] => String::new(),
            names => format!(", or a name such as `{}`", &names[1][..3]),
        };
        let allowed =
            format!("`*`, a number from {min} to {max}{names}, a range `a-b`, a list `a,b`, each with a step `/n`");
        let text = text.chars().take(40).filter(|c| !c.is_control()).collect();
        ExpressionError::Field { field: self.name, text, allowed }
    }
}

/// A number without a sign. Steps may be larger than any range.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}
