//! A file of tasks: YAML documents, and what is wrong with them, with line, task and field.
//!
//! What the server says of a task later is told with its line too.

use std::fmt;

use cooper_api::rest::{DockerStepSettings, EncodedStepSettings, FileStepSettings, TaskSettings};
use cooper_types::TaskName;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::fault::{Fault, Stop};

/// A task of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) name: TaskName,
    pub(super) settings: TaskSettings,
    /// `FILE:LINE: task NAME`, for what is said of it.
    pub(super) place: String,
}

/// The tasks of a file, each with its name; or the first fault of each that has one.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Document>, Stop> {
    let (mut tasks, mut faults): (Vec<Document>, Vec<Fault>) = (Vec::new(), Vec::new());
    for (index, part) in parts(text).iter().enumerate() {
        match document(file, part, index + 1) {
            Ok(Some(task)) => match tasks.iter().find(|other| other.name.key() == task.name.key()) {
                Some(_) => faults.push(Fault::usage(format!("{} is there twice", task.place))),
                None => tasks.push(task),
            },
            Ok(None) => {}
            Err(fault) => faults.push(fault),
        }
    }
    match (tasks.is_empty(), faults.is_empty()) {
        (_, false) => Err(Stop::Faults(faults)),
        (true, true) => Err(Fault::usage(format!("`{file}` holds no task")).into()),
        (false, true) => Ok(tasks),
    }
}

/// The documents of a text, each after as many empty lines as stand before it, so that its lines keep their numbers.
fn parts(text: &str) -> Vec<String> {
    let is_mark = |line: &str, mark: &str| {
        line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let (mut parts, mut part) = (Vec::new(), String::new());
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        // Neither can stand so in a document: not even a text of several lines may hold it.
        if is_mark(line, "---") || is_mark(line, "...") {
            parts.push(std::mem::replace(&mut part, "\n".repeat(number)));
        }
        if !is_mark(line, "...") {
            part.push_str(line);
        }
        part.push('\n');
    }
    parts.push(part);
    let says_something = |part: &String| {
        let lines = part.lines().map(|line| if is_mark(line, "---") { &line[3..] } else { line });
        lines.into_iter().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with(['#', '%']))
    };
    parts.retain(says_something);
    parts
}

/// The task of a document, unless it is empty.
fn document(file: &str, text: &str, number: usize) -> Result<Option<Document>, Fault> {
    let tree = serde_saphyr::from_str::<Located>(text).map_err(|error| {
        let line = error.location().map(|location| format!(":{}", location.line())).unwrap_or_default();
        Fault::usage(format!("{file}{line}: task {number} is no YAML: {}", message(&error)))
    })?;
    let value = tree.value();
    // A list would be read as the values of the fields in their order.
    if !value.is_null() && !value.is_object() {
        let kind = if value.is_array() { "a list" } else { "one value" };
        let line = tree.line;
        return Err(Fault::usage(format!(
            "{file}:{line}: task {number}: invalid type: {kind}, expected a map of its fields"
        )));
    }
    let line = tree.line_of(&[Step::Key("name")]);
    let place = |name: &str| format!("{file}:{line}: task `{name}`");
    let settings = match (&value, serde_saphyr::from_str::<TaskSettings>(text)) {
        (Value::Null, _) => return Ok(None),
        (_, Ok(settings)) => settings,
        (_, Err(error)) => return Err(fault(file, number, &tree, &value, &error)),
    };
    match settings.name.clone() {
        Some(name) => Ok(Some(Document { place: place(name.as_str()), name, settings })),
        None => Err(Fault::usage(format!("{file}:{line}: task {number} has no name"))),
    }
}

/// What is wrong with a document that is YAML and no task.
fn fault(file: &str, number: usize, tree: &Located, value: &Value, error: &serde_saphyr::Error) -> Fault {
    let task = match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("task `{name}`"),
        None => format!("task {number}"),
    };
    let (steps, message) = find(value).unwrap_or_else(|| (Vec::new(), message(error)));
    let known: Vec<Step<'_>> = steps.iter().map(Step::of).collect();
    let line = tree.line_of(&known);
    let field = match steps.is_empty() {
        true => String::new(),
        false => format!("`{}`: ", Field(&known)),
    };
    Fault::usage(format!("{file}:{line}: {task}: {field}{message}"))
}

/// The field that keeps a value from being a task, and why.
fn find(value: &Value) -> Option<(Vec<Segment>, String)> {
    let (path, message) = typed::<TaskSettings>(value)?;
    // A step is read as a whole, whatever its type, and then by it: only the latter knows the field.
    let step =
        value.get("step").filter(|_| Field(&path.iter().map(Step::of).collect::<Vec<_>>()).to_string() == "step");
    let inner = step.and_then(|step| {
        let mut step = step.clone();
        let kind = step.as_object_mut()?.remove("type")?;
        match kind.as_str()? {
            "Docker" => typed::<DockerStepSettings>(&step),
            "FileTask" => typed::<FileStepSettings>(&step),
            "EncodedTask" => typed::<EncodedStepSettings>(&step),
            _ => None,
        }
    });
    match inner {
        Some((rest, message)) => Some((path.into_iter().chain(rest).collect(), message)),
        None => Some((path, message)),
    }
}

/// Why a value is none of this type, and where.
fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Option<(Vec<Segment>, String)> {
    let error = serde_path_to_error::deserialize::<_, T>(value.clone()).err()?;
    let path: &Path = error.path();
    let steps = path.iter().filter(|step| !matches!(step, Segment::Unknown | Segment::Enum { .. })).cloned().collect();
    Some((steps, in_words(&error.inner().to_string())))
}

/// What the reader of YAML says, without its place.
fn message(error: &serde_saphyr::Error) -> String {
    in_words(&UserMessageFormatter.format_message(error.without_snippet()))
}

/// A reader's words, with those of YAML in place of the program's.
fn in_words(text: &str) -> String {
    text.replace("a sequence", "a list").replace(": sequence,", ": a list,").replace(": map,", ": a map,")
}

/// A step on the way to a value.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

impl<'a> Step<'a> {
    fn of(segment: &'a Segment) -> Self {
        match segment {
            Segment::Seq { index } => Self::Item(*index),
            Segment::Map { key } => Self::Key(key),
            Segment::Enum { variant } => Self::Key(variant),
            Segment::Unknown => Self::Key("?"),
        }
    }
}

/// The way to a value, as people write it: `timers.t1.schedule`, `step.values[0].name`.
struct Field<'a>(&'a [Step<'a>]);

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Key(key) if index == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A value of YAML whose parts know their lines.
struct Located {
    line: u64,
    node: Node,
}

enum Node {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

impl Located {
    fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Node::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.value.clone(), value.value())).collect())
            }
        }
    }

    /// The line of what these steps lead to, or of the last that is there on the way.
    fn line_of(&self, steps: &[Step<'_>]) -> u64 {
        let Some((step, rest)) = steps.split_first() else { return self.line };
        match (&self.node, step) {
            (Node::List(items), Step::Item(index)) => items.get(*index).map_or(self.line, |item| item.line_of(rest)),
            (Node::Map(entries), Step::Key(key)) => match entries.iter().find(|(other, _)| other.value == *key) {
                Some((key, _)) if rest.is_empty() => key.referenced.line(),
                Some((_, value)) => value.line_of(rest),
                None => self.line,
            },
            _ => self.line,
        }
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), node: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match read("f.yaml", text) {
            Err(Stop::Faults(faults)) => faults.into_iter().map(|fault| fault.message).collect(),
            Err(Stop::Fault(fault)) => vec![fault.message],
            Err(Stop::OutputClosed) => panic!("nothing is written"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn a_fault_names_its_line_task_and_field() {
        for (text, expect) in [
            ("", "`f.yaml` holds no task"),
            ("# nothing\n---\n...\n", "`f.yaml` holds no task"),
            ("status: Enabled\n", "f.yaml:1: task 1 has no name"),
            ("name: nightly\n---\n\nname: NIGHTLY\n", "f.yaml:4: task `NIGHTLY` is there twice"),
            (
                "name: nightly\ncolour: red\n",
                "f.yaml:2: task `nightly`: `colour`: unknown field `colour`, expected one of",
            ),
            ("name: four\n", "f.yaml:1: task `four`: `name`: "),
            (
                "name: nightly\ntimers:\n- t1\n",
                "f.yaml:2: task `nightly`: `timers`: invalid type: a list, expected a map",
            ),
            (
                "name: nightly\nstep:\n  type: Docker\n  arguments: {A: b}\n",
                "f.yaml:4: task `nightly`: `step.arguments`: invalid type: a map, expected a list",
            ),
            (
                "name: nightly\nstep:\n  type: FileTask\n  values:\n  - name: a\n  - name: b\n    value: [c]\n",
                "f.yaml:7: task `nightly`: `step.values[1].value`: invalid type: a list, expected a string",
            ),
            (
                "name: nightly\nstep:\n  type: Podman\n",
                "f.yaml:3: task `nightly`: `step.type`: unknown variant `Podman`",
            ),
            (
                "name: nightly\ntimers:\n  t1:\n    schedule: {}\n",
                "f.yaml:4: task `nightly`: `timers.t1.schedule`: invalid type: a map",
            ),
            ("name: other\n---\n- name: nightly\n", "f.yaml:3: task 2: invalid type: a list"),
            ("name: nightly\ntimeout: soon\n", "f.yaml:2: task `nightly`: `timeout`: "),
            ("name: nightly\nstep: [\n", "task 1 is no YAML: "),
        ] {
            let faults = faults(text);
            let [fault] = &faults[..] else { panic!("{text}: {faults:?}") };
            assert!(
                fault.starts_with(expect) || (expect.starts_with("task 1") && fault.contains(expect)),
                "{text}: {fault}"
            );
            assert!(!fault.contains("error") && !fault.contains('\n'), "{fault}");
        }
    }

    #[test]
    fn each_task_with_a_fault_is_told_of() {
        let text = "name: first\ntimers: []\n---\nname: second\n---\nname: third\nplatforms: {}\n";
        let faults = faults(text);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("f.yaml:2: task `first`: `timers`"), "{faults:?}");
        assert!(faults[1].starts_with("f.yaml:7: task `third`: `platforms`"), "{faults:?}");
    }

    #[test]
    fn a_line_of_dashes_in_a_text_is_no_new_document() {
        let text = "---\nname: nightly\nstep:\n  type: EncodedTask\n  taskContent: |\n    ---\n    steps: []\n... # over\n--- # other\nname: other\n";
        let tasks = read("f.yaml", text).unwrap_or_else(|_| panic!("{:?}", faults(text)));
        let places: Vec<&str> = tasks.iter().map(|task| &*task.place).collect();
        assert_eq!(places, ["f.yaml:2: task `nightly`", "f.yaml:10: task `other`"]);
    }
}
