//! The JSON Schema of a stored task's document, for editors: what the API's document says of [`rest::TaskSettings`].

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Where the API's document has its schemas, and where a JSON Schema has those that it refers to.
const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/$defs/";
/// What a document of `cooper task apply` is.
const ROOT: &str = "TaskSettings";

/// The JSON Schema (2020-12) of a document that `cooper task apply` takes.
pub fn stored_task_schema() -> Value {
    let mut document = serde_json::to_value(super::document()).unwrap_or_default();
    let all = document.pointer_mut("/components/schemas").map(Value::take).unwrap_or_default();
    let (mut wanted, mut definitions) = (vec![ROOT.to_owned()], Map::new());
    while let Some(name) = wanted.pop() {
        if definitions.contains_key(&name) {
            continue;
        }
        let mut schema = all.get(&name).cloned().unwrap_or_default();
        wanted.extend(refer(&mut schema));
        definitions.insert(name, schema);
    }
    definitions.sort_keys();
    let mut root = definitions.remove(ROOT).unwrap_or_default();
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("Cooperage stored task"));
        root.insert("required".to_owned(), json!(["name"]));
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// Has a schema refer to definitions instead of components, and tells to which.
fn refer(schema: &mut Value) -> BTreeSet<String> {
    match schema {
        Value::Object(fields) => {
            let mut names = BTreeSet::new();
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(name) = target.strip_prefix(COMPONENTS)
            {
                names.insert(name.to_owned());
                *target = format!("{DEFINITIONS}{name}");
            }
            names.extend(fields.values_mut().flat_map(refer));
            names
        }
        Value::Array(items) => items.iter_mut().flat_map(refer).collect(),
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_all_that_it_refers_to() {
        let mut schema = stored_task_schema();
        let properties = |schema: &Value, at: &str| {
            let fields = schema.pointer(at).and_then(Value::as_object).unwrap_or_else(|| panic!("{at}: {schema}"));
            fields.keys().cloned().collect::<BTreeSet<_>>()
        };
        let all = properties(&schema, "/properties");
        assert!(["name", "step", "timers", "sourceTriggers"].iter().all(|name| all.contains(*name)), "{all:?}");
        assert!(properties(&schema, "/$defs/TimerSettings/properties").contains("catchUp"));
        assert!(properties(&schema, "/$defs/TaskValue/properties").contains("isSecret"));
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(refer(&mut schema), BTreeSet::new(), "nothing refers to the API's document");
        let held = properties(&schema, "/$defs");
        let text = schema.to_string();
        let targets = text.match_indices(DEFINITIONS).map(|(at, _)| &text[at + DEFINITIONS.len()..]);
        for target in targets.filter_map(|rest| rest.split('"').next()) {
            assert!(held.contains(target) || target == ROOT, "{target}");
        }
    }
}
