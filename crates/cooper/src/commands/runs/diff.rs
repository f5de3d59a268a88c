//! What moved between two runs: their lockfiles as facts, compared one by one.

use std::collections::BTreeMap;

use cooper_api::rest::{LockedImage, LockedSecret, LockedStep, LockedText, LockedValue, Lockfile};
use cooper_types::RunId;
use serde::Serialize;

use super::plain;

/// What stands for a value that is not shown.
const SECRET: &str = "(secret)";
/// What stands for a digest that is not known.
const UNKNOWN: &str = "(unknown)";

/// What moved from one run to another.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Diff {
    pub(super) from: RunId,
    pub(super) to: RunId,
    pub(super) moved: Vec<Moved>,
    /// What both have and nothing is known of: secret values, values that are not shown, digests that nobody told.
    #[serde(rename = "notCompared")]
    pub(super) not_compared: Vec<String>,
}

/// One thing that is not the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Moved {
    /// What it is, for people.
    pub(super) what: String,
    /// What it was; absent if it was not there.
    pub(super) from: Option<String>,
    /// What it is; absent if it is not there.
    pub(super) to: Option<String>,
}

/// A fact's name: what it is of (nothing is the run itself), and what it is.
type Name = (String, String);

/// What a lockfile says, in its order.
#[derive(Default)]
struct Facts(Vec<(Name, String)>);

impl Diff {
    pub(super) fn between(from: &Lockfile, to: &Lockfile) -> Self {
        let (old, new) = (Facts::of(from), Facts::of(to));
        let values = |facts: &Facts| facts.0.iter().cloned().collect::<BTreeMap<_, _>>();
        let (was, is) = (values(&old), values(&new));
        let steps = |facts: &BTreeMap<Name, String>, step: &str| {
            step.is_empty() || facts.contains_key(&(step.to_owned(), String::new()))
        };
        let mut names: Vec<&Name> = old.0.iter().map(|(name, _)| name).collect();
        names.extend(new.0.iter().map(|(name, _)| name).filter(|name| !was.contains_key(*name)));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        let is_unknown = |name: &&&Name| {
            was.get(**name) == is.get(**name)
                && was.get(**name).is_some_and(|value| [SECRET, UNKNOWN].contains(&value.as_str()))
        };
        let not_compared = names.iter().filter(is_unknown).map(|name| shown(name)).collect();
        let moved = names
            .into_iter()
            // Of a step that only one of them has, one line is enough.
            .filter(|(step, fact)| fact.is_empty() || (steps(&was, step) && steps(&is, step)))
            .filter(|name| was.get(*name) != is.get(*name))
            .map(|name| Moved { what: shown(name), from: was.get(name).cloned(), to: is.get(name).cloned() });
        Self { from: from.run_id, to: to.run_id, moved: moved.collect(), not_compared }
    }

    /// For people: a line for each thing.
    pub(super) fn text(&self) -> String {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        let line = |moved: &Moved| plain(&format!("{}: {} → {}", moved.what, side(&moved.from), side(&moved.to)));
        let mut lines: Vec<String> = self.moved.iter().map(line).collect();
        if lines.is_empty() {
            let known = if self.not_compared.is_empty() { "" } else { " that is known" };
            lines.push(format!("Nothing{known} moved from run {} to run {}.", self.from, self.to));
        }
        if !self.not_compared.is_empty() {
            lines.push(plain(&format!("Not compared, as it is secret or not known: {}", self.not_compared.join("; "))));
        }
        lines.join("\n")
    }
}

fn shown((step, fact): &Name) -> String {
    match (step.as_str(), fact.as_str()) {
        ("", fact) => fact.to_owned(),
        (step, "") => format!("step {step}"),
        (step, fact) => format!("step {step}: {fact}"),
    }
}

impl Facts {
    fn of(lock: &Lockfile) -> Self {
        let mut facts = Self::default();
        if let Some(source) = &lock.source {
            facts.add("", "source", Some(&source.location));
            facts.add("", "commit", source.commit.as_ref());
            facts.add("", "branch", source.branch.as_ref());
            facts.add("", "tag", source.tag.as_ref());
            facts.add("", "source digest", source.digest.as_ref());
        }
        facts.add("", "context", lock.context.as_ref().map(|context| &context.digest));
        facts.text("task file", lock.task_file.as_ref());
        facts.text("values file", lock.values_file.as_ref());
        lock.alias_files.iter().for_each(|file| facts.text(&format!("alias file {}", file.name), Some(file)));
        lock.values.iter().for_each(|value| facts.value("", "value", value));
        lock.secrets.iter().for_each(|secret| facts.secret(secret));
        for placement in &lock.placements {
            facts.add("", &format!("engine for {}", placement.platform), placement.engine.as_ref());
            facts.add("", &format!("agent version for {}", placement.platform), placement.agent_version.as_ref());
        }
        lock.steps.iter().for_each(|step| facts.step(step));
        facts
    }

    fn add(&mut self, step: &str, fact: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.0.push(((step.to_owned(), fact.to_owned()), value.clone()));
        }
    }

    fn text(&mut self, fact: &str, text: Option<&LockedText>) {
        self.add("", fact, text.map(|text| &text.digest));
    }

    fn value(&mut self, step: &str, kind: &str, value: &LockedValue) {
        let shown = value.value.clone().unwrap_or_else(|| SECRET.to_owned());
        let name = (step.to_owned(), format!("{kind} {}", value.name));
        // Of two with one name, the later one counts.
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, shown));
    }

    fn secret(&mut self, secret: &LockedSecret) {
        let version = match (&secret.version, &secret.fingerprint) {
            (Some(version), _) => format!(" version {version}"),
            (None, Some(print)) => format!(" fingerprint {print}"),
            (None, None) => String::new(),
        };
        self.add("", &format!("secret {}", secret.id), Some(&format!("{}{version}", secret.place)));
    }

    fn step(&mut self, step: &LockedStep) {
        let id = step.id.as_str();
        let kind = format!("{:?}", step.step_type).to_lowercase();
        self.add(id, "", Some(&format!("{kind} for {}", step.platform)));
        if let Some(context) = &step.context {
            self.add(id, "context", Some(&context.location));
            self.add(id, "context commit", context.commit.as_ref());
            self.add(id, "context digest", context.digest.as_ref());
        }
        step.bases.iter().for_each(|base| self.image(id, "base", base));
        if let Some(LockedImage { reference, digest }) = &step.frontend {
            let digest = digest.as_ref().map(|digest| format!(" {digest}")).unwrap_or_default();
            self.add(id, "frontend", Some(&format!("{reference}{digest}")));
        }
        step.image.iter().for_each(|image| self.image(id, "image", image));
        step.arguments.iter().for_each(|argument| self.value(id, "argument", argument));
        step.secrets.iter().for_each(|secret| self.add(id, &format!("secret {secret}"), Some(&"given".to_owned())));
    }

    fn image(&mut self, step: &str, kind: &str, image: &LockedImage) {
        let digest = image.digest.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        self.add(step, &format!("{kind} {}", image.reference), Some(&digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(text: &str) -> Lockfile {
        serde_json::from_str(text).expect("a lockfile")
    }

    const OLD: &str = r#"{"version":1,"runId":"ca1","runType":"QuickRun","rerunOf":null,
        "source":{"location":"https://h.io/a.git#main","commit":"aaa"},"context":{"digest":"sha256:1","size":5},
        "taskFile":{"name":"acb.yaml","digest":"sha256:t"},"values":[{"name":"pw","isSecret":true},{"name":"v","value":"1"}],
        "secrets":[{"id":"s","provider":"store","place":"cooper://s","version":"1"}],
        "placements":[{"platform":"linux/amd64","agent":"one","agentVersion":"0.1","engine":"Docker Engine 20.10"}],
        "steps":[{"id":"build","type":"build","platform":"linux/amd64","bases":[{"reference":"base:1","digest":"sha256:b"}],
                  "frontend":{"reference":"built-in"},"arguments":[{"name":"A","value":"1"},{"name":"A","value":"2"}]},
                 {"id":"test","type":"cmd","platform":"linux/amd64","image":{"reference":"busybox","digest":"sha256:c"}}]}"#;

    #[test]
    fn what_is_the_same_did_not_move() {
        let (old, mut new) = (lock(OLD), lock(OLD));
        new.run_id = RunId::parse("ca2").expect("valid");
        new.rerun_of = Some(old.run_id);
        new.placements[0].agent = Some("two".to_owned());
        assert_eq!(
            Diff::between(&old, &new).text(),
            "Nothing that is known moved from run ca1 to run ca2.\nNot compared, as it is secret or not known: value pw"
        );
        let plain = |lock: &mut Lockfile| lock.values.retain(|value| !value.is_secret);
        let (mut old, mut new) = (old, new);
        plain(&mut old);
        plain(&mut new);
        assert_eq!(Diff::between(&old, &new).text(), "Nothing moved from run ca1 to run ca2.");
    }

    #[test]
    fn each_thing_that_moved_has_a_line() {
        let old = lock(OLD);
        let new = OLD.replace("ca1", "ca2").replace("sha256:b", "sha256:B").replace("\"aaa\"", "\"bbb\"");
        let new = new.replace(r#""version":"1""#, r#""version":"2""#).replace(r#""value":"2""#, r#""value":"3""#);
        let mut new = lock(&new.replace(r#""value":"1"}],"#, r#""value":"1\u001b"}],"#));
        let gone = new.steps.pop().expect("a step");
        assert_eq!(
            Diff::between(&old, &new).text(),
            "commit: aaa → bbb\nvalue v: 1 → 1 \nsecret s: cooper://s version 1 → cooper://s version 2\n\
             step build: base base:1: sha256:b → sha256:B\nstep build: argument A: 2 → 3\n\
             step test: cmd for linux/amd64 → (none)\nNot compared, as it is secret or not known: value pw"
        );
        assert_eq!(gone.image.expect("an image").reference, "busybox");
        let json = serde_json::to_value(Diff::between(&new, &old)).expect("json");
        assert_eq!(json["moved"][0], serde_json::json!({ "what": "commit", "from": "bbb", "to": "aaa" }));
        let back = Diff::between(&new, &old).text();
        assert!(back.contains("step test: (none) → cmd for linux/amd64\n"), "{back}");
    }
}
