//! Which steps wait for which (contract §1.6): `when` names steps above, and a step that says nothing waits for the one
//! just above it. References only go back, so that no cycle can be written.

use super::fields::{Fields, Report, Told, clip};
use super::nearest::nearest;
use super::yaml::At;

/// Ids that nobody may take: ACR's name of what comes before all steps, and the sign for "waits for nothing".
const RESERVED: &[&str] = &["acb_root", "-"];

/// Every step's id: its own, or `acb_step_N`. An id that can't be one is a fault.
pub(super) fn ids(steps: &[Fields<'_>], report: &mut Report<'_>) -> Vec<Told<String>> {
    let mut ids: Vec<Told<String>> = Vec::new();
    for (index, fields) in steps.iter().enumerate() {
        let told = fields.text("id", report);
        let given = told.is_some();
        let id = told.unwrap_or_else(|| Told { value: format!("acb_step_{index}"), at: fields.at });
        let shown = clip(&id.value);
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.value.chars().any(char::is_whitespace) {
            report.fault(id.at, format!("step id `{shown}` holds a blank"), "write letters, digits, `-`, `_` and `.`");
        } else if RESERVED.contains(&id.value.as_str()) {
            report.fault(id.at, format!("step id `{shown}` is reserved"), "give the step another id");
        } else if !id.value.chars().all(allowed) || id.value.len() > 128 {
            let message = format!("step id `{shown}` is not one");
            report.fault(id.at, message, "write at most 128 letters, digits, `-`, `_` and `.`");
        } else if let Some(before) = ids.iter().find(|before| before.value == id.value) {
            let line = report.line(before.at);
            let help = match given {
                true => format!("give it another id than the step in line {line}"),
                false => format!("the step in line {line} has taken this step's own id; give this one an id"),
            };
            report.fault(id.at, format!("step id `{shown}` is there twice"), help);
        }
        ids.push(id);
    }
    ids
}

/// The steps that one waits for, as indexes.
pub(super) fn after(index: usize, fields: &Fields<'_>, ids: &[Told<String>], report: &mut Report<'_>) -> Vec<usize> {
    let when = fields.texts("when", report);
    let own = &ids[index].value;
    if when.is_empty() {
        return index.checked_sub(1).into_iter().collect();
    }
    if when.len() == 1 && when[0].value == "-" {
        return Vec::new();
    }
    let mut after = Vec::new();
    for entry in &when {
        let shown = clip(&entry.value);
        match ids[..index].iter().position(|id| id.value == entry.value) {
            // Twice is once: ACR would wait for ever.
            Some(before) if after.contains(&before) => {
                report.warn(
                    entry.at,
                    format!("`when` of step `{}` names `{shown}` twice", clip(own)),
                    "once is enough",
                );
            }
            Some(before) => after.push(before),
            None => report_missing(entry.at, &entry.value, index, ids, report),
        }
    }
    after.sort_unstable();
    after
}

fn report_missing(at: At, name: &str, index: usize, ids: &[Told<String>], report: &mut Report<'_>) {
    let (own, shown) = (clip(&ids[index].value), clip(name));
    let above = || ids[..index].iter().map(|id| id.value.as_str());
    let (message, help) = if name == "-" {
        let message = format!("`when` of step `{own}` holds `-` and other entries");
        (message, "write `[\"-\"]` alone to wait for nothing".to_owned())
    } else if name.is_empty() {
        (format!("`when` of step `{own}` has an empty entry"), "name a step above, or take the entry away".to_owned())
    } else if ids[index].value == name {
        (format!("step `{own}` waits for itself"), "name steps above it".to_owned())
    } else if let Some(later) = ids[index..].iter().find(|id| id.value == name) {
        let line = report.line(later.at);
        let message = format!("step `{own}` waits for `{shown}`, which comes later, in line {line}");
        (message, "a step can wait only for steps above it: move one of the two".to_owned())
    } else {
        let help = match nearest(name, above()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if index == 0 => "it is the first step, and waits for nothing".to_owned(),
            None => format!("above it are {}", above().map(clip).collect::<Vec<_>>().join(", ")),
        };
        (format!("step `{own}` waits for `{shown}`, which there is not"), help)
    };
    report.fault(at, message, help);
}
