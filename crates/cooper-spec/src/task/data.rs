//! What templates see: `.Run`, `.Build`, `.Values`, `.Secrets`, `.RunJSON` and `.ValuesJSON` (contract §4.2, §4.3).

use std::collections::BTreeMap;

use cooper_types::SecretString;

use crate::gotemplate::Value;
use crate::template::RunVariables;

use super::fault::Fault;
use super::fields::{boolean, integer};
use super::inputs::{NamedText, SetValue, TaskInputs};
use super::lines::Source;
use super::yaml::{self, Kind, Node};

/// What ACR's steps mount the workspace by. Here they have it already, and no engine that could mount it: the field is left
/// out, so that who reads it is told.
pub(super) const SHARED_VOLUME: &str = "SharedVolume";

/// All that a template of this file sees.
pub(super) fn of(inputs: &TaskInputs, secrets: &BTreeMap<String, SecretString>) -> Result<Value, Fault> {
    let mut run = run(&inputs.run);
    let run_json = Value::Map(run.clone()).to_json();
    run.remove(SHARED_VOLUME);
    let values = values(inputs.values.as_ref(), &inputs.set)?;
    let secrets = secrets.iter().map(|(id, value)| (id.clone(), Value::String(value.expose().to_owned()))).collect();
    let build = BTreeMap::from([("ID".to_owned(), Value::String(inputs.run.id.to_string()))]);
    Ok(Value::Map(BTreeMap::from([
        ("RunJSON".to_owned(), Value::String(shell_quoted(&run_json))),
        ("ValuesJSON".to_owned(), Value::String(shell_quoted(&values.to_json()))),
        ("Run".to_owned(), Value::Map(run)),
        ("Build".to_owned(), Value::Map(build)),
        ("Values".to_owned(), values),
        ("Secrets".to_owned(), Value::Map(secrets)),
    ])))
}

fn run(variables: &RunVariables) -> BTreeMap<String, Value> {
    variables.all().into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
}

/// The values file with what was set on top of it.
fn values(file: Option<&NamedText>, set: &[SetValue]) -> Result<Value, Fault> {
    let mut values = match file {
        Some(file) => of_file(file)?,
        None => BTreeMap::new(),
    };
    values.extend(set.iter().map(|set| (set.name.clone(), Value::String(set.value.clone()))));
    Ok(Value::Map(values))
}

fn of_file(file: &NamedText) -> Result<BTreeMap<String, Value>, Fault> {
    let source = Source::new(&file.name, &file.text);
    let lines = source.lines();
    let help = || Some("a values file is a YAML map: `NAME: VALUE` in each line".to_owned());
    let document = yaml::parse(&lines.text()).map_err(|fault| lines.fault(fault.at, fault.message, help()))?;
    match document.root.filter(|root| !root.is_null()) {
        None => Ok(BTreeMap::new()),
        Some(root) => match of_node(&root) {
            Value::Map(values) => Ok(values),
            _ => Err(lines.fault(root.at, format!("the values are {}", root.is_a()), help())),
        },
    }
}

/// A node as ACR's parser types it (YAML 1.1).
pub(super) fn of_node(node: &Node) -> Value {
    match &node.kind {
        _ if node.is_null() => Value::Null,
        Kind::Scalar { text, plain: false } => Value::String(text.clone()),
        Kind::Scalar { text, plain: true } => {
            if let Some(value) = boolean(text) {
                return Value::Bool(value);
            }
            let number = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
            // A float is one here: only texts without a point or an exponent are whole numbers.
            let whole = !text.contains(['.', 'e', 'E']) || text.to_ascii_lowercase().starts_with("0x");
            match (number && whole).then(|| integer(text)).flatten() {
                Some(value) => Value::Int(value),
                None => match text.replace('_', "").parse::<f64>() {
                    Ok(value) if number && value.is_finite() => Value::Float(value),
                    _ => Value::String(text.clone()),
                },
            }
        }
        Kind::List(items) => Value::List(items.iter().map(of_node).collect()),
        Kind::Map(entries) => {
            let entry = |(key, value): &(Node, Node)| {
                let name = match &key.kind {
                    Kind::Scalar { text, .. } => text.clone(),
                    Kind::List(_) | Kind::Map(_) => of_node(key).to_json(),
                };
                (name, of_node(value))
            };
            Value::Map(entries.iter().map(entry).collect())
        }
    }
}

/// A text as a shell takes it for one word.
fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_^@=+%,:./-".contains(c);
    match text {
        "" => "''".to_owned(),
        text if text.chars().all(plain) => text.to_owned(),
        text => format!("'{}'", text.replace('\'', r#"'"'"'"#)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Value, Fault> {
        values(Some(&NamedText { name: "values.yaml".to_owned(), text: text.to_owned() }), &[])
    }

    #[test]
    fn values_have_yaml_s_types_and_nest() {
        let table = [
            ("", "{}"),
            ("# nothing", "{}"),
            ("a: 1\nb: '1'\nc: 1.5\nd: yes\ne: ~\nf: x", r#"{"a":1,"b":"1","c":1.5,"d":true,"e":null,"f":"x"}"#),
            ("a: {b: {c: [1, {d: e}]}}", r#"{"a":{"b":{"c":[1,{"d":"e"}]}}}"#),
            ("1: a\ntrue: b", r#"{"1":"a","true":"b"}"#),
            (
                "a: 0x10\nb: 1_000\nc: 1.2.3\nd: 2024-01-31\ne: -x",
                r#"{"a":16,"b":1000,"c":"1.2.3","d":"2024-01-31","e":"-x"}"#,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(file(text).expect(text).to_json(), expected, "{text}");
        }
        let set = |name: &str, value: &str| SetValue { name: name.to_owned(), value: value.to_owned(), secret: false };
        let both = values(
            Some(&NamedText { name: "v".to_owned(), text: "a: 1\nb: {c: 2}".to_owned() }),
            &[set("b", "5"), set("n", "x"), set("n", "y")],
        );
        assert_eq!(both.expect("values").to_json(), r#"{"a":1,"b":"5","n":"y"}"#);
    }

    #[test]
    fn faults_of_values_are_at_their_place() {
        let shown = |text: &str| file(text).expect_err(text).to_string();
        assert!(shown("- a\n").starts_with("values.yaml:1:1: the values are a list; "), "{}", shown("- a\n"));
        assert!(shown("a: 1\nb: [\n").starts_with("values.yaml:"), "{}", shown("a: 1\nb: [\n"));
    }

    #[test]
    fn values_and_to_json_are_the_same_json() {
        let text = "a: [1.0, 1e3, -0.0, 1e21, 1e-7, 1.50]\nb: '<a&b>'\nc: \"\\u2028\\t\"\n? [1.0]\n: d\n";
        let expected = r#"{"[1]":"d","a":[1,1000,-0,1e+21,1e-7,1.5],"b":"\u003ca\u0026b\u003e","c":"\u2028\t"}"#;
        let values = file(text).expect("values");
        assert_eq!(values.to_json(), expected);
        let limits = crate::gotemplate::Limits::DEFAULT;
        let now = cooper_types::Timestamp::from_micros(0);
        let to_json = crate::gotemplate::render("t", "{{toJson .}}", &values, now, &limits).expect("renders");
        assert_eq!(to_json, expected);
    }

    #[test]
    fn json_is_one_word_to_a_shell() {
        assert_eq!(shell_quoted(""), "''");
        assert_eq!(shell_quoted("a/b:1"), "a/b:1");
        assert_eq!(shell_quoted(r#"{"a":"it's"}"#), r#"'{"a":"it'"'"'s"}'"#);
    }
}
