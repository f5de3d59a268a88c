//! A delivery's JSON in memory, of a size that has a limit: 16 MiB can say a million empty objects, which take a hundred
//! times as much.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How much memory the values of one delivery may take, in bytes and roughly. The largest push of plain commits takes a
/// third of it.
const MAX_MEMORY: usize = 64 << 20;
/// What a value takes where it is, with what a growing list has too much.
const VALUE: usize = 2 * size_of::<Value>();
/// What a text takes beside its bytes.
const TEXT: usize = 16;
/// What the first fields of an object take.
const OBJECT: usize = 640;

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is no JSON.
    Json(serde_json::Error),
    /// It takes too much memory.
    TooMuch,
}

/// Reads JSON.
pub(super) fn read(bytes: &[u8]) -> Result<Value, Fault> {
    read_within(bytes, MAX_MEMORY)
}

fn read_within(bytes: &[u8], memory: usize) -> Result<Value, Fault> {
    let left = Cell::new(Some(memory));
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Part(&left).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| match left.get() {
        Some(_) => Fault::Json(error),
        None => Fault::TooMuch,
    })
}

/// A value that takes its memory from what is left; nothing is left once there was too little.
struct Part<'a>(&'a Cell<Option<usize>>);

impl Part<'_> {
    fn take<E: serde::de::Error>(&self, memory: usize) -> Result<(), E> {
        self.0.set(self.0.get().and_then(|left| left.checked_sub(memory)));
        self.0.get().map(drop).ok_or_else(|| E::custom("it takes too much memory"))
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.take(TEXT + text.len())?;
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Part(self.0))? {
            self.take(VALUE)?;
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            let first = if object.is_empty() { OBJECT } else { 0 };
            self.take::<A::Error>(first + VALUE + TEXT + name.len())?;
            let value = fields.next_value_seed(Part(self.0))?;
            object.insert(name.into_owned(), value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_said() {
        let text = br#"{"a": [1, -2, 0.5, true, null, "x\n", {}], "b": {"c": ["\u00e4"]}, "a": [2]}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        for broken in [&b"{\"a\": 1"[..], b"", b"{} {}", b"\"\xff\""] {
            assert!(matches!(read(broken), Err(Fault::Json(_))), "{broken:?}");
        }
    }

    #[test]
    fn small_texts_take_no_large_memory() {
        for part in ["{}", "[]", "0", "\"\"", r#"{"":0}"#, "[[0]]"] {
            let text = format!("[{}{part}]", format!("{part},").repeat(100_000));
            assert!(matches!(read_within(text.as_bytes(), 1 << 20), Err(Fault::TooMuch)), "{part}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(read(deep.as_bytes()), Err(Fault::Json(_))));
    }

    #[test]
    fn the_largest_push_fits() {
        // As many commits as GitHub lists, of as many files as make up the size.
        let path = |number: usize| format!("\"services/component-{number}/source/main/module/file.rs\"");
        let paths: Vec<String> = (0..140).map(path).collect();
        let person = r#"{"name": "Ann Other", "email": "ann@example.org", "username": "ann"}"#;
        let commit = format!(
            r#"{{"id": "{0}", "tree_id": "{0}", "distinct": true, "message": "{1}", "timestamp": "2026-05-04T10:00:00Z", "url":
            "https://github.com/acme/shop/commit/{0}", "author": {person}, "committer": {person}, "added": [], "removed": [],
            "modified": [{2}]}}"#,
            "a".repeat(40),
            "Fix it ".repeat(10),
            paths.join(","),
        );
        // A sixteenth of it, which is read sooner.
        let text = format!("[{}{commit}]", format!("{commit},").repeat(2048 / 16 - 1));
        let whole = super::super::MAX_BODY / 16;
        assert!((whole * 9 / 10..whole).contains(&text.len()), "{}", text.len());
        assert!(read_within(text.as_bytes(), MAX_MEMORY / 16).is_ok());
    }
}
