//! Times on the wire: RFC 3339 in UTC with microseconds, as `2026-01-31T12:00:00.000000Z`.

use cooper_types::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Parses RFC 3339; parts below a microsecond are dropped.
fn parse<E: de::Error>(text: &str) -> Result<Timestamp, E> {
    let time: jiff::Timestamp = text.parse().map_err(|_| E::custom(format!("time `{text}` is not RFC 3339")))?;
    Ok(Timestamp::from_micros(time.as_microsecond()))
}

/// For `#[serde(with)]` on a `Timestamp`.
pub(super) mod rfc3339 {
    use super::*;

    pub(in crate::rest) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(in crate::rest) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }
}

/// For `#[serde(with)]` on an `Option<Timestamp>`: `null` where there is no time.
pub(super) mod rfc3339_option {
    use super::*;

    pub(in crate::rest) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(time),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::rest) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| parse(&text)).transpose()
    }
}
