//! Tables of templates and what Go makes of them, and properties of hostile ones.

use cooper_types::Timestamp;

use super::{Limits, RenderError, RenderErrorKind, Value, render};

mod control;
mod dates;
mod dicts;
mod differences;
mod encoding;
mod faults;
mod hostile;
mod language;
mod lists;
mod math;
mod printing;
mod reflect;
mod regex;
mod semver;
mod strings;
mod words;

/// 2024-02-29T13:14:15.678901Z
const NOW: Timestamp = Timestamp::from_micros(1_709_212_455_678_901);

/// What the tables' templates see.
fn data() -> Value {
    Value::from([
        ("name", Value::from("World")),
        ("empty", Value::from("")),
        ("n", Value::Int(7)),
        ("f", Value::Float(1.5)),
        ("yes", Value::Bool(true)),
        ("no", Value::Bool(false)),
        ("null", Value::Null),
        ("list", Value::from(vec![Value::from("a"), Value::from("b"), Value::from("c")])),
        ("ints", Value::from(vec![Value::Int(3), Value::Int(1), Value::Int(2)])),
        ("none", Value::from(Vec::new())),
        (
            "map",
            Value::from([
                ("x", Value::Int(1)),
                ("y", Value::from("two")),
                ("z", Value::from([("deep", Value::Bool(true))])),
            ]),
        ),
        (
            "people",
            Value::from(vec![
                Value::from([("name", Value::from("Ada")), ("age", Value::Int(36))]),
                Value::from([("name", Value::from("Bo")), ("age", Value::Int(4))]),
            ]),
        ),
    ])
}

fn rendered(text: &str) -> Result<String, RenderError> {
    render("t", text, &data(), NOW, &Limits::DEFAULT)
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(rendered(text).as_deref(), Ok(*expected), "{text}");
    }
}

#[track_caller]
fn check_faults(table: &[(&str, &str)]) {
    for (text, expected) in table {
        let error = rendered(text).expect_err(text);
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert_ne!(error.kind, RenderErrorKind::Limit, "{text}");
    }
}

/// Templates that Go refuses as well.
#[track_caller]
fn check_refused(table: &[&str]) {
    for text in table {
        let error = rendered(text).expect_err(text);
        assert_ne!(error.kind, RenderErrorKind::Limit, "{text}");
        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{text}: {error}");
    }
}
