//! Time zones by their IANA names, from the database that is part of the program.

use std::fmt;

use cooper_types::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, ToSpan};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The farthest that clocks were ever turned back in one change since 1970: half an hour to an hour, and two at most.
const TURNED_BACK: SignedDuration = SignedDuration::from_hours(3);

/// A time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// A text that names no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no time zone `{0}`; use a name of the IANA database such as `Europe/Berlin`, or `UTC`")]
pub struct ZoneError(String);

/// The instants at which a wall shows a time.
pub(super) struct Instants {
    /// The first; the moment of the change if the time is skipped.
    pub(super) first: Timestamp,
    /// The second, if the clocks are turned back over it.
    pub(super) again: Option<Timestamp>,
    /// Whether the time is one of an hour or more that the clocks skip.
    pub(super) is_skipped: bool,
}

impl Zone {
    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }

    /// A zone by its IANA name; its case does not count.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(name);
        let zone = zone.map_err(|_| ZoneError(name.chars().take(64).filter(|c| !c.is_control()).collect()))?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Ok(Self { name, zone })
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From which wall time on one may show an instant after this one. None beyond the calendar.
    pub(super) fn search_from(&self, after: Timestamp) -> Option<DateTime> {
        let wall = self.zone.to_datetime(instant(after)?);
        let back = if self.zone == TimeZone::UTC { SignedDuration::ZERO } else { TURNED_BACK };
        wall.checked_sub(back).ok()
    }

    /// When a wall shows this time. None beyond the calendar.
    pub(super) fn instants(&self, wall: DateTime) -> Option<Instants> {
        let ambiguous = self.zone.to_ambiguous_timestamp(wall);
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(wall).ok().map(timestamp);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { offset } => {
                Some(Instants { first: at(offset)?, again: None, is_skipped: false })
            }
            AmbiguousOffset::Fold { before, after } => {
                Some(Instants { first: at(before)?, again: at(after), is_skipped: false })
            }
            // By the offset after the change it lies before the change, so the change is the next one from there.
            AmbiguousOffset::Gap { before: earlier, after } => {
                let is_skipped = after.seconds() - earlier.seconds() >= 3600;
                let before = after.to_timestamp(wall).ok()?.checked_sub(1.second()).ok()?;
                let change = self.zone.following(before).next()?;
                Some(Instants { first: timestamp(change.timestamp()), again: None, is_skipped })
            }
        }
    }
}

fn instant(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(time.as_micros()).ok()
}

fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_microsecond())
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}
