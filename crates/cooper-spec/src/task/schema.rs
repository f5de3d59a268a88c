//! The JSON Schema of task files, for editors: made from the table that the reader has its keys from.
//!
//! It describes a file as it is written, so a file whose text is made by templates may be right and not fit.

use serde_json::{Map, Value, json};

use super::keys::{self, Form, Key, Table};

/// YAML 1.1's booleans that YAML 1.2's readers take for texts.
const FLAGS: &[&str] =
    &["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];

/// The schema (draft-07, which editors' YAML servers read).
pub fn schema() -> Value {
    let mut schema = object(&keys::TASK);
    let versions = json!({ "enum": ["v1.0.0", "V1.0.0", "v1.1.0", "V1.1.0", "1.0-preview-1"] });
    if let Some(Value::Object(version)) = schema.pointer_mut("/properties/version") {
        version.remove("type");
        version.extend(versions.as_object().cloned().unwrap_or_default());
    }
    if let Some(Value::Object(step)) = schema.pointer_mut("/properties/steps/items") {
        let one = |name: &str| json!({ "required": [name] });
        step.insert("oneOf".to_owned(), json!([one("build"), one("cmd"), one("push")]));
    }
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        schema.insert("title".to_owned(), json!("Task file of Cooperage and of Azure Container Registry Tasks"));
    }
    schema
}

fn object(table: &Table) -> Value {
    let properties: Map<String, Value> = table.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> = table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &Key) -> Value {
    let text = json!({ "type": ["string", "number", "boolean", "null"] });
    let mut schema = match key.form {
        Form::Text => text,
        Form::Choice(values) => {
            // They are known in any case; these are the ways that people write.
            let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
            let ways = values.iter().flat_map(|word| [(*word).to_owned(), capital(word), word.to_ascii_uppercase()]);
            json!({ "enum": ways.collect::<Vec<_>>() })
        }
        Form::Number(i64::MIN) => json!({ "type": "integer" }),
        Form::Number(least) => json!({ "type": "integer", "minimum": least }),
        Form::Flag => {
            json!({ "anyOf": [{ "type": "boolean" }, { "enum": FLAGS }] })
        }
        Form::Texts => json!({ "type": "array", "items": text }),
        Form::Numbers => json!({ "type": "array", "items": { "type": "integer" } }),
        Form::Maps(table) => json!({ "type": "array", "items": object(table) }),
        Form::TextMap => json!({ "type": "object", "additionalProperties": text }),
        Form::Map(table) => object(table),
    };
    let about = match key.steps {
        ["no"] | ["build", "cmd", "push"] | [] => key.about.to_owned(),
        steps => format!("{} (For {} steps.)", key.about, steps.join(" and ")),
    };
    schema["description"] = json!(about);
    schema
}

#[cfg(test)]
mod tests {
    use super::super::{data, yaml};
    use super::*;

    /// What of a value does not fit a schema: the part of JSON Schema that ours uses.
    fn misfit(value: &Value, schema: &Value, at: &str) -> Option<String> {
        let fits = |schema: &Value| misfit(value, schema, at).is_none();
        if let Some(types) = schema.get("type") {
            let of = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_i64() => "integer",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let is = |name: &Value| name == of || name == "number" && of == "integer";
            if !types.as_array().map_or_else(|| is(types), |types| types.iter().any(is)) {
                return Some(format!("{at}: {of} is not {types}"));
            }
        }
        if schema.get("enum").and_then(Value::as_array).is_some_and(|values| !values.contains(value)) {
            return Some(format!("{at}: {value} is not one of the values"));
        }
        if let (Some(least), Some(number)) = (schema.get("minimum").and_then(Value::as_i64), value.as_i64())
            && number < least
        {
            return Some(format!("{at}: {number} is less than {least}"));
        }
        if schema.get("anyOf").and_then(Value::as_array).is_some_and(|any| !any.iter().any(fits)) {
            return Some(format!("{at}: none of anyOf fits"));
        }
        if let Some(one) = schema.get("oneOf").and_then(Value::as_array)
            && one.iter().filter(|schema| fits(schema)).count() != 1
        {
            return Some(format!("{at}: not exactly one of oneOf fits"));
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            let item = |(index, value): (usize, &Value)| misfit(value, items, &format!("{at}[{index}]"));
            if let Some(fault) = values.iter().enumerate().find_map(item) {
                return Some(fault);
            }
        }
        let entries = value.as_object()?;
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        if let Some(name) = required.filter_map(Value::as_str).find(|name| !entries.contains_key(*name)) {
            return Some(format!("{at}: no {name}"));
        }
        entries.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            match (schema.pointer(&format!("/properties/{name}")), schema.get("additionalProperties")) {
                (Some(schema), _) => misfit(value, schema, &at),
                (None, Some(Value::Bool(false))) => Some(format!("{at}: is not known")),
                (None, Some(schema)) => misfit(value, schema, &at),
                (None, None) => None,
            }
        })
    }

    fn check(text: &str) -> Option<String> {
        let root = yaml::parse(text).expect("YAML").root.expect("a root");
        misfit(&serde_json::to_value(data::of_node(&root)).expect("JSON"), &schema(), "")
    }

    #[test]
    fn it_fits_what_is_right_and_no_more() {
        assert_eq!(
            check("version: v1.1.0\nsteps:\n- cmd: a\n  detach: on\n  cpus: 2\n- push: [b]\n  timeout: 5\n"),
            None
        );
        assert_eq!(
            check(
                "version: V1.1.0
steps:
- cmd: a
  keep: Yes
  isolation: Process
- build: .
  cache: ENABLED
"
            ),
            None
        );
        for (text, fault) in [
            ("version: v2\n", ".version: \"v2\" is not one of the values"),
            ("steps:\n- cmd: a\n  build: b\n", ".steps[0]: not exactly one of oneOf fits"),
            ("steps:\n- id: a\n", ".steps[0]: not exactly one of oneOf fits"),
            ("steps:\n- cmd: a\n  retries: -1\n", ".steps[0].retries: -1 is less than 0"),
            ("steps:\n- cmd: a\n  timeout: \"5\"\n", ".steps[0].timeout: string is not \"integer\""),
            ("steps:\n- cmd: a\n  downloadRetries: 1\n", ".steps[0].downloadRetries: is not known"),
            ("secrets:\n- id: a\n", ".secrets[0]: no keyvault"),
            ("steps: a\n", ".steps: string is not \"array\""),
        ] {
            assert_eq!(check(text).as_deref(), Some(fault), "{text}");
        }
    }

    #[test]
    fn it_fits_every_example() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/tasks");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("examples") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|it| it == "yaml") {
                let text = std::fs::read_to_string(&path).expect("a text");
                assert_eq!(check(&text), None, "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 8, "{seen} examples");
    }
}
